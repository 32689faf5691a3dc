"""Record folders: tokenized rows on disk with fast random access.

    records/
      shard-00000.safetensors ...   the concatenated rows of every feature
      vocab.txt                     or other files of the tokenizer
      manifest.json                 written last: present means complete

A feature has either one value per token, stored without padding, or an array of
fixed shape per row. Rows may have a second length, that of their targets: the
other features then have one value per target token. If a token's value is an
array, as the characters of a word, each distinct one is stored once. Shards are
memory-mapped, so rows can be read in any order and from any position at no
extra cost.
"""

import concurrent.futures
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from bert_keras import commands, errors, files, safetensors_mmap
from bert_keras.data import shard_arrays, token_table
from bert_keras.data.shard_arrays import ROW_SPLITS, TARGET_SPLITS
from bert_keras.tokenizers import base as tokenizers

FORMAT = "bert_keras.records.1"
TABLES_FORMAT = "bert_keras.records.2"  # some features are stored in tables
TARGETS_FORMAT = "bert_keras.records.3"  # rows have the lengths of targets, too
MANIFEST = "manifest.json"
# A manifest's field with the tokenizer's settings; its field "tokenizer" is the
# fingerprint, which includes them.
SETTINGS = "tokenizer_settings"

GOOGLE = "google"  # format of a folder of Google's TFRecord files
PER_TOKEN = ("inputs/token_ids", "inputs/segment_ids")

# {feature: array} of one row. Per-token features have the row's length, those
# per target token the length of its targets.
Record = Mapping[str, np.ndarray]


class Columns(NamedTuple):
    """Rows with the same features, one array per feature.

    row_splits (rows + 1,): row r has the per-token values
    [row_splits[r] : row_splits[r + 1]]. per_token: {feature: (tokens, ...)}.
    per_row: {feature: (rows, ...)}. tables: {feature: (distinct values, ...)};
    of such a feature, per_token has the index of the value, (tokens,) int32.
    target_splits, per_target_token: the same for target tokens; None and {} if
    the rows have none.
    """

    row_splits: np.ndarray
    per_token: Mapping[str, np.ndarray]
    per_row: Mapping[str, np.ndarray]
    tables: Mapping[str, np.ndarray] = MappingProxyType({})
    target_splits: np.ndarray | None = None
    per_target_token: Mapping[str, np.ndarray] = MappingProxyType({})

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.row_splits)


def columns_of(
    records: Sequence[Record],
    *,
    per_token: Collection[str],
    per_target_token: Collection[str] = (),
) -> Columns:
    """Converts records to Columns.

    per_token, per_target_token: names of the features with one value per token
    and per target token.
    """
    tokens = [name for name in records[0] if name in per_token]
    targets = [name for name in records[0] if name in per_target_token]
    others = [name for name in records[0] if name not in (*tokens, *targets)]
    flat = _concatenated(records, tokens)
    tables = {}
    for name, value in flat.items():
        if value.ndim == 2 and np.issubdtype(value.dtype, np.integer):
            table = token_table.TokenTable()
            flat[name] = table.numbers(value)
            tables[name] = token_table.compact(table.rows())
    return Columns(
        _row_splits(records, tokens[0]),
        flat,
        {
            name: np.stack([record[name] for record in records])
            for name in others
        },
        tables,
        _row_splits(records, targets[0]) if targets else None,
        _concatenated(records, targets),
    )


def _row_splits(records: Sequence[Record], name: str) -> np.ndarray:
    """Returns the row splits of a feature, (records + 1,)."""
    return np.append(0, np.cumsum([len(record[name]) for record in records]))


def _concatenated(
    records: Sequence[Record], names: Sequence[str]
) -> dict[str, np.ndarray]:
    return {
        name: np.concatenate([record[name] for record in records])
        for name in names
    }


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
    targets = (
        {}
        if columns.target_splits is None
        else {TARGET_SPLITS: columns.target_splits}
    )
    return {
        ROW_SPLITS: columns.row_splits,
        **{
            f"{'index' if name in columns.tables else 'token'}:{name}": v
            for name, v in columns.per_token.items()
        },
        **{f"row:{name}": v for name, v in columns.per_row.items()},
        **{f"table:{name}": v for name, v in columns.tables.items()},
        **targets,
        **{f"target_token:{n}": v for n, v in columns.per_target_token.items()},
    }


def entry(path: str, columns: Columns, checksum: str | None) -> dict[str, Any]:
    """Returns the manifest entry of a file with these rows."""
    targets = {}
    if columns.target_splits is not None:
        lengths = np.diff(columns.target_splits)
        targets = {
            "target_tokens": int(lengths.sum()),
            "longest_target": int(lengths.max()),
        }
    return {
        "name": os.path.basename(path),
        "rows": len(columns.lengths),
        "tokens": int(columns.lengths.sum()),
        "longest": int(columns.lengths.max()),
        "sha256": checksum,
        **({"tables": sorted(columns.tables)} if columns.tables else {}),
        **targets,
    }


def write_manifest(
    folder: str, shards: Sequence[Mapping[str, Any]], **metadata: Any
) -> None:
    """Writes the manifest, which marks the folder as complete.

    metadata: further fields; include `tokenizer_metadata` if readers of the
    folder need the tokenizer.
    """
    records_format = FORMAT
    targets = {}
    if any(shard.get("tables") for shard in shards):
        records_format = TABLES_FORMAT
    if "target_tokens" in shards[0]:
        records_format = TARGETS_FORMAT
        targets = {
            "target_tokens": sum(shard["target_tokens"] for shard in shards),
            "longest_target": max(shard["longest_target"] for shard in shards),
        }
    manifest = {
        "format": records_format,
        "rows": sum(shard["rows"] for shard in shards),
        "tokens": sum(shard["tokens"] for shard in shards),
        "longest": max(shard["longest"] for shard in shards),
        **targets,
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

    lengths (rows,) int32: numbers of tokens. target_lengths (rows,) int32:
    numbers of target tokens; None if no feature has one value per target token.
    """

    def __init__(self, shards: Sequence[Mapping[str, np.ndarray]]):
        self._shards = shards
        counts = [len(shard[ROW_SPLITS]) - 1 for shard in shards]
        self._starts = np.cumsum([0, *counts])
        self.lengths = _lengths(shards, ROW_SPLITS)
        self.target_lengths = (
            _lengths(shards, TARGET_SPLITS)
            if TARGET_SPLITS in shards[0]
            else None
        )
        self.features = shard_arrays.features(shards[0])
        # Grouped once: names that each row looks up would double its time.
        self._values = [
            shard_arrays.by_row_splits(shard, self.features) for shard in shards
        ]

    @classmethod
    def of_columns(cls, columns: Columns) -> "Rows":
        return cls([_shard(columns)])

    def __len__(self) -> int:
        return len(self.lengths)

    def token_values(self, name: str) -> Iterator[np.ndarray]:
        """Yields the values of a per-token feature, shard by shard.

        Not of a feature that is stored in tables.
        """
        for shard in self._shards:
            yield shard[f"token:{name}"]

    def read(
        self,
        rows: Sequence[int] | np.ndarray,
        length: int,
        target_length: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Reads rows by index, padded with 0; -1 is an empty row.

        length: number of tokens per row. target_length: number of target
        tokens, if the rows have any. Integers become int32, other numbers
        float32. Adds "inputs/padding_mask" if the records do not contain it.
        """
        rows = np.asarray(rows)
        lengths = {ROW_SPLITS: length, TARGET_SPLITS: target_length}
        batch = {
            name: np.zeros(
                (len(rows), *feature.padded_shape(lengths)),
                working_type(feature.dtype),
            )
            for name, feature in self.features.items()
        }
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        for index, (row, number) in enumerate(zip(rows, numbers, strict=True)):
            if row >= 0:
                self._read_row(batch, index, number, row - self._starts[number])
        if "inputs/padding_mask" not in batch:
            counts = np.where(rows < 0, 0, self.lengths[rows])
            mask = np.arange(length) < counts[:, np.newaxis]
            batch["inputs/padding_mask"] = mask.astype(np.int32)
        return batch

    def _read_row(
        self, batch: dict[str, np.ndarray], index: int, number: int, row: int
    ) -> None:
        """Reads a row of a shard into the row `index` of a batch."""
        for splits, features in self._values[number].items():
            if splits is None:
                for name, values, _ in features:
                    batch[name][index] = values[row]
                continue
            start, end = self._shards[number][splits][row : row + 2]
            for name, values, table in features:
                values = values[start:end]
                if table is not None:
                    values = table[values]
                batch[name][index, : end - start] = values


def _lengths(
    shards: Sequence[Mapping[str, np.ndarray]], splits: str
) -> np.ndarray:
    """Returns the lengths of all shards' rows, (rows,) int32."""
    lengths = [np.diff(shard[splits]) for shard in shards]
    return np.concatenate(lengths).astype(np.int32)


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
        formats = (FORMAT, TABLES_FORMAT, TARGETS_FORMAT)
        if self.manifest.get("format") not in formats:
            raise errors.InputError(
                f"{folder} has format {self.manifest.get('format')}; this "
                f"version reads {', '.join(formats)}. Prepare the records "
                "again."
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
            if (
                checksum != entry.get("sha256")
                or not shard_arrays.are_consistent(shard)
                or not shard_arrays.has_features_of(shard, shards[0])
            ):
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
