"""Record folders: tokenized rows on disk with fast random access.

    records/
      shard-00000.safetensors ...   the concatenated rows of every feature
      vocab.txt                     or other files of the tokenizer
      manifest.json                 written last: present means complete

A feature has either one value per token, stored without padding, or an array of
fixed shape per row. If a token's value is an array, as the characters of a
word, each distinct one is stored once. Shards are memory-mapped, so rows can be
read in any order and from any position at no extra cost.
"""

import concurrent.futures
import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from bert_keras import commands, errors, files, safetensors_mmap
from bert_keras.data import token_table
from bert_keras.tokenizers import base as tokenizers

FORMAT = "bert_keras.records.1"
TABLES_FORMAT = "bert_keras.records.2"  # some features are stored in tables
MANIFEST = "manifest.json"
# A manifest's field with the tokenizer's settings; its field "tokenizer" is the
# fingerprint, which includes them.
SETTINGS = "tokenizer_settings"

GOOGLE = "google"  # format of a folder of Google's TFRecord files
PER_TOKEN = ("inputs/token_ids", "inputs/segment_ids")

# {feature: array} of one row. Per-token features have the row's length.
Record = Mapping[str, np.ndarray]


class Columns(NamedTuple):
    """Rows with the same features, one array per feature.

    row_splits (rows + 1,): row r has the per-token values
    [row_splits[r] : row_splits[r + 1]]. per_token: {feature: (tokens, ...)}.
    per_row: {feature: (rows, ...)}. tables: {feature: (distinct values, ...)};
    of such a feature, per_token has the index of the value, (tokens,) int32.
    """

    row_splits: np.ndarray
    per_token: Mapping[str, np.ndarray]
    per_row: Mapping[str, np.ndarray]
    tables: Mapping[str, np.ndarray] = MappingProxyType({})

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.row_splits)


def columns_of(
    records: Sequence[Record], *, per_token: Collection[str]
) -> Columns:
    """Converts records to Columns.

    per_token: names of the features with one value per token.
    """
    tokens = [name for name in records[0] if name in per_token]
    others = [name for name in records[0] if name not in per_token]
    lengths = [len(record[tokens[0]]) for record in records]
    flat = {
        name: np.concatenate([record[name] for record in records])
        for name in tokens
    }
    tables = {}
    for name, value in flat.items():
        if value.ndim == 2 and np.issubdtype(value.dtype, np.integer):
            table = token_table.TokenTable()
            flat[name] = table.numbers(value)
            tables[name] = token_table.compact(table.rows())
    return Columns(
        np.append(0, np.cumsum(lengths)),
        flat,
        {
            name: np.stack([record[name] for record in records])
            for name in others
        },
        tables,
    )


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"


def write_shard(path: str, columns: Columns) -> dict[str, Any]:
    """Writes rows; returns the shard's manifest entry."""
    data = safetensors.numpy.save(
        {
            name: np.ascontiguousarray(value)
            for name, value in _shard(columns).items()
        }
    )
    files.write(path, data)
    return entry(path, columns, hashlib.sha256(data).hexdigest())


def _shard(columns: Columns) -> dict[str, np.ndarray]:
    """Returns the arrays of a shard, by their names in its file."""
    return {
        "row_splits": columns.row_splits,
        **{
            f"{'index' if name in columns.tables else 'token'}:{name}": v
            for name, v in columns.per_token.items()
        },
        **{f"row:{name}": v for name, v in columns.per_row.items()},
        **{f"table:{name}": v for name, v in columns.tables.items()},
    }


def entry(path: str, columns: Columns, checksum: str | None) -> dict[str, Any]:
    """Returns the manifest entry of a file with these rows."""
    return {
        "name": os.path.basename(path),
        "rows": len(columns.lengths),
        "tokens": int(columns.lengths.sum()),
        "longest": int(columns.lengths.max()),
        "sha256": checksum,
        **({"tables": sorted(columns.tables)} if columns.tables else {}),
    }


def write_manifest(
    folder: str, shards: Sequence[Mapping[str, Any]], **metadata: Any
) -> None:
    """Writes the manifest, which marks the folder as complete.

    metadata: further fields; include `tokenizer_metadata` if readers of the
    folder need the tokenizer.
    """
    has_tables = any(shard.get("tables") for shard in shards)
    manifest = {
        "format": TABLES_FORMAT if has_tables else FORMAT,
        "rows": sum(shard["rows"] for shard in shards),
        "tokens": sum(shard["tokens"] for shard in shards),
        "longest": max(shard["longest"] for shard in shards),
        **metadata,
        "shards": list(shards),
    }
    files.write_text(
        os.path.join(folder, MANIFEST), json.dumps(manifest, indent=1)
    )


def tokenizer_metadata(tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
    """Returns a manifest's fields for the tokenizer saved in its folder."""
    values = tokenizer.to_dict()
    metadata = {"tokenizer": tokenizer.fingerprint, SETTINGS: values}
    if "lowercase" in values:  # always part of the records' fingerprint
        metadata["lowercase"] = values["lowercase"]
    return metadata


def is_complete(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, MANIFEST))


class Rows:
    """Random access to rows in memory, or in memory-mapped files.

    features: {name: (dtype, is per token, shape of one value)}.
    """

    def __init__(self, shards: Sequence[Mapping[str, np.ndarray]]):
        self._shards = shards
        lengths = [np.diff(shard["row_splits"]) for shard in self._shards]
        self._starts = np.cumsum([0, *map(len, lengths)])
        self.lengths = np.concatenate(lengths).astype(np.int32)
        self.features = {
            name.split(":", 1)[1]: (
                value.dtype,
                not name.startswith("row:"),
                value.shape[1:],
            )
            for name, value in self._shards[0].items()
            if ":" in name and not name.startswith("index:")
        }

    @classmethod
    def of_columns(cls, columns: Columns) -> "Rows":
        return cls([_shard(columns)])

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Reads rows by index, padded with 0 to `length`; -1 is an empty row.

        Integers become int32, other numbers float32. Adds "inputs/padding_mask"
        if the records do not contain it.
        """
        batch = {
            name: np.zeros(
                (len(rows), length, *shape) if token else (len(rows), *shape),
                working_type(dtype),
            )
            for name, (dtype, token, shape) in self.features.items()
        }
        mask = np.zeros((len(rows), length), np.int32)
        for index, row in enumerate(rows):
            if row < 0:
                continue
            number = np.searchsorted(self._starts, row, side="right") - 1
            shard, row = self._shards[number], row - self._starts[number]
            start, end = shard["row_splits"][row : row + 2]
            mask[index, : end - start] = 1
            for name, (_, token, _) in self.features.items():
                if token:
                    values = _values(shard, name, start, end)
                    batch[name][index, : end - start] = values
                else:
                    batch[name][index] = shard["row:" + name][row]
        batch.setdefault("inputs/padding_mask", mask)
        return batch


def _values(
    shard: Mapping[str, np.ndarray], name: str, start: int, end: int
) -> np.ndarray:
    """Returns a per-token feature of the tokens from `start` to `end`."""
    if f"token:{name}" in shard:
        return shard[f"token:{name}"][start:end]
    return shard[f"table:{name}"][shard[f"index:{name}"][start:end]]


class Records(Rows):
    """Random access to the rows of a complete record folder.

    Raises InputError if the folder is incomplete or has another format, or if a
    shard is missing or damaged.
    """

    def __init__(self, folder: str):
        self.folder = folder
        if not is_complete(folder):
            raise errors.InputError(
                f"{folder} is not a record folder: it holds no {MANIFEST}. "
                f"Make one with `{commands.command_line('prepare')}`."
            )
        self.manifest = files.read_json(os.path.join(folder, MANIFEST))
        if self.manifest.get("format") == GOOGLE:
            raise errors.InputError(
                f"{folder} holds Google's TFRecord files. Make records of "
                f"them: {commands.command_line('prepare')} "
                f"--input='{folder}/*.tfrecord' --vocab={folder}/vocab.txt."
            )
        if self.manifest.get("format") not in (FORMAT, TABLES_FORMAT):
            raise errors.InputError(
                f"{folder} has format {self.manifest.get('format')}; this "
                f"version reads {FORMAT} and {TABLES_FORMAT}. Prepare the "
                "records again."
            )
        shards = [
            safetensors_mmap.tensors(os.path.join(folder, name))
            for name in _shard_names(folder, self.manifest)
        ]
        self._check_shards(shards)
        super().__init__(shards)

    def _check_shards(self, shards: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Raises InputError if a shard has changed since it was written."""
        entries = self.manifest["shards"]
        paths = [os.path.join(self.folder, each["name"]) for each in entries]
        # Threads, because hashlib releases the GIL.
        with concurrent.futures.ThreadPoolExecutor() as pool:
            checksums = pool.map(files.checksum, paths)
        for path, entry, checksum, shard in zip(
            paths, entries, checksums, shards, strict=True
        ):
            if checksum != entry.get("sha256") or not _is_shard(shard):
                raise errors.InputError(
                    f"{path} is damaged: it is not what the manifest says was "
                    "written. Make or copy its folder again."
                )

    @property
    def fingerprint(self) -> str:
        """A hash of all shards' contents, independent of their location."""
        values = {
            name: value
            for name, value in self.manifest.items()
            if name not in ("input", "report", SETTINGS)
        }
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def tokenizer(self) -> tokenizers.Tokenizer:
        """Loads the tokenizer of the rows."""
        return tokenizer_of(self.folder, self.manifest)


def tokenizer_of(
    folder: str, manifest: Mapping[str, Any]
) -> tokenizers.Tokenizer:
    """Loads the tokenizer of the folder with this manifest."""
    settings = manifest.get(SETTINGS)
    if settings is None:  # written when WordPiece was the only tokenizer
        lowercase = manifest["lowercase"]
        settings = {"name": "wordpiece", "lowercase": lowercase}
    return tokenizers.from_dict(settings, folder)


def _is_shard(shard: Mapping[str, np.ndarray]) -> bool:
    """Returns whether a shard's arrays have consistent shapes."""
    splits = shard.get("row_splits")
    if splits is None or splits.ndim != 1 or splits.dtype.kind not in "iu":
        return False
    tokens = [v for n, v in shard.items() if n.startswith(("token:", "index:"))]
    rows = [v for n, v in shard.items() if n.startswith("row:")]
    return (
        len(splits) > 0
        and splits[0] == 0
        and bool((np.diff(splits.astype(np.int64)) >= 0).all())
        and all(v.ndim and len(v) == splits[-1] for v in tokens)
        and all(v.ndim and len(v) == len(splits) - 1 for v in rows)
        and all(
            _is_index(shard.get(f"index:{name[6:]}"), value)
            for name, value in shard.items()
            if name.startswith("table:")
        )
        and all(
            f"table:{name[6:]}" in shard
            for name in shard
            if name.startswith("index:")
        )
    )


def _is_index(index: np.ndarray | None, table: np.ndarray) -> bool:
    """Returns whether all of `index` are rows of the table."""
    return (
        index is not None
        and index.ndim == 1
        and index.dtype.kind in "iu"
        and table.ndim > 0
        and (not len(index) or 0 <= index.min() <= index.max() < len(table))
    )


def _shard_names(folder: str, manifest: Mapping[str, Any]) -> list[str]:
    """Returns the shards' file names; InputError if they are not valid."""
    shards = manifest.get("shards")
    names: list[Any] = [
        shard.get("name") if isinstance(shard, dict) else None
        for shard in (shards if isinstance(shards, list) else ())
    ]
    if not names or not all(
        isinstance(name, str) and re.fullmatch(r"shard-\d+\.safetensors", name)
        for name in names
    ):
        raise errors.InputError(
            f"{os.path.join(folder, MANIFEST)}: expected a list of shards, "
            "each with a name such as shard-00000.safetensors. Prepare the "
            "records again."
        )
    return names


def working_type(dtype: np.dtype) -> np.dtype:
    """Returns the dtype in a batch of a stored dtype: int32 or float32."""
    integer = np.issubdtype(dtype, np.integer)
    return np.dtype(np.int32 if integer else np.float32)
