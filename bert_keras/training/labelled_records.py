"""Tokenizes labelled examples into training records in the run folder.

This is done once, when a run starts; every epoch reads the records.
"""

import collections
import contextlib
import hashlib
import os
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from bert_keras import checkpoint, errors, files
from bert_keras.data import corpus, held_out
from bert_keras.data import records as records_lib
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers
from bert_keras.training import row_lengths
from bert_keras.training import settings as settings_lib

ROWS_PER_BATCH = 1000  # examples that are tokenized in one call
ROWS_PER_SHARD = 100_000
# A manifest's field: what the tokenizer depends on, see `run_tokenizer`.
ORIGIN = "tokenizer_origin"

Row = TypeVar("Row", bound=Mapping[str, Any])


def split(
    examples: Iterable[base.Example], fraction: float, seed: int
) -> Iterator[tuple[base.Example, bool]]:
    """Yields (example, is_dev); `fraction` of each label is held out.

    Works on a stream, so the file is never in memory. The seed determines which
    example of a label is the first to be held out. All examples of a group are
    in the same split as its first one.
    """
    counts: dict[str, int] = {}
    groups: dict[str, bool] = {}
    for example in examples:
        group = example.get("group")
        if group in groups:
            yield example, groups[group]
            continue
        label = "" if group else str(example.get("label", ""))
        number = counts.get(label, 0)
        counts[label] = number + 1
        phase = zlib.crc32(f"{seed} {label}".encode()) / 2**32
        is_dev = held_out.is_held_out(number, fraction, phase)
        if group:
            groups[group] = is_dev
        yield example, is_dev


def training_examples(
    settings: settings_lib.FinetuneSettings,
    task: base.Task,
    examples: Iterable[base.Example],
) -> Iterator[base.Example]:
    """Yields what the task makes of the rows of `train` not held out.

    examples: all rows of `train`. Raises InputError if none are left.
    """
    rows = _training_rows(settings, examples)
    yield from _expanded(task, rows, settings.train)


def _expanded(
    task: base.Task, examples: Iterable[base.Example], path: str
) -> Iterator[base.Example]:
    """Yields `task.expand`; an InputError of it names the file."""
    try:
        yield from task.expand(examples)
    except errors.InputError as error:
        if path in str(error):
            raise
        raise errors.InputError(
            f"{path}: {error}", argument=error.argument
        ) from None


def _training_rows(
    settings: settings_lib.FinetuneSettings, examples: Iterable[base.Example]
) -> Iterator[base.Example]:
    fraction = 0.0 if settings.dev else settings.dev_fraction
    count = 0
    for example, is_dev in split(examples, fraction, settings.seed):
        if not is_dev:
            count += 1
            yield example
    if count:
        return
    if not fraction:
        raise errors.InputError(
            f"{settings.train}: expected rows to learn from, found none. "
            "The file has no rows."
        )
    raise errors.InputError(
        f"dev_fraction={fraction}: expected rows to learn "
        f"from, found none in {settings.train}; all are held out. Give a "
        "file with `dev`, or more groups.",
        argument="dev_fraction",
    )


def dev_examples(
    settings: settings_lib.FinetuneSettings,
    task: base.Task,
    examples: Iterable[base.Example],
) -> Iterator[base.Example]:
    """Yields what the task makes of `dev`, or of rows held out from `train`."""
    rows = examples
    if not settings.dev:
        pairs = split(examples, settings.dev_fraction, settings.seed)
        rows = (example for example, is_dev in pairs if is_dev)
    yield from _expanded(task, rows, settings.dev or settings.train)


def split_settings(settings: settings_lib.FinetuneSettings) -> str:
    """Returns what determines which rows of `train` are held out."""
    if settings.dev:
        return ""
    return f"{settings.seed} {settings.dev_fraction}"


def write(
    settings: settings_lib.FinetuneSettings,
    task: base.Task,
    tokenizer: tokenizers.Tokenizer,
    *,
    origin: str,
) -> None:
    """Writes the training records into the run folder, unless they exist.

    origin: see `run_tokenizer`; it is stored beside the tokenizer.
    """
    folder = os.path.join(settings.output, "records")
    if files.local_path(folder) != folder:
        raise errors.InputError(
            f"output={settings.output}: the records are memory-mapped, so "
            "fine-tuning needs a local folder. Copy the run when it is done.",
            argument="output",
        )
    fingerprint, former = (
        _fingerprint(settings, task, tokenizer, values or {})
        for values in (task.to_dict(), task.former_dict())
    )
    if _are_written(settings, folder, (fingerprint, former)):
        return
    # The folder may have those of another tokenizer, of settings before.
    _clear(folder, [*tokenizer.files, *_tokenizer_files(folder)])
    examples = task.read_examples(settings.train)
    counts: collections.Counter[str] = collections.Counter()
    records = encode(
        task, tokenizer, training_examples(settings, task, examples), counts
    )
    shards = [
        records_lib.write_shard(
            os.path.join(folder, records_lib.shard_name(number)),
            to_columns(task, tokenizer, block),
        )
        for number, block in enumerate(_blocks(records, ROWS_PER_SHARD))
    ]
    tokenizer.save(folder)
    skipped = getattr(examples, "skipped", 0)
    records_lib.write_manifest(
        folder,
        shards,
        fingerprint=fingerprint,
        skipped=skipped,
        examples=counts["examples"],
        truncated=counts["truncated"],
        **{
            name: counts[name]
            for name in ("truncated_targets",)
            if counts[name]
        },
        **{ORIGIN: origin},
        **records_lib.tokenizer_metadata(tokenizer),
    )


def _are_written(
    settings: settings_lib.FinetuneSettings,
    folder: str,
    fingerprints: Collection[str],
) -> bool:
    """Returns whether the folder has these records.

    InputError if it has others, from which the run has learned.
    """
    if not records_lib.is_complete(folder):
        return False
    if records_lib.Records(folder).manifest["fingerprint"] in fingerprints:
        return True
    if checkpoint.steps(settings.output):
        raise errors.InputError(
            f"{settings.train} or the task has changed since "
            f"{settings.output} was started; choose another `output`.",
            argument="output",
        )
    return False


def _tokenizer_files(folder: str) -> Sequence[str]:
    """Returns the names of the tokenizer's files in a folder of records."""
    path = os.path.join(folder, records_lib.MANIFEST)
    with contextlib.suppress(errors.InputError):
        return tokenizers.files_of(
            files.read_json(path).get(records_lib.SETTINGS)
        )
    return ()


def _clear(folder: str, more: Sequence[str]) -> None:
    """Removes this run's old records; InputError if there are other files."""
    if not os.path.exists(folder):
        return
    names = sorted(os.listdir(folder))
    # Delete the manifest first: without it the folder counts as incomplete.
    names.sort(key=lambda name: name != records_lib.MANIFEST)
    more = [re.escape(name) for name in (records_lib.MANIFEST, *more)]
    own = re.compile(rf"(shard-\d+\.safetensors|{'|'.join(more)})(\.\d+\.tmp)?")
    others = [name for name in names if not own.fullmatch(name)]
    if others:
        raise errors.InputError(
            f"{folder} holds {', '.join(others[:5])}, which no run has "
            "written; choose another `output`.",
            argument="output",
        )
    for name in names:
        os.remove(os.path.join(folder, name))


def encode(
    task: base.Task,
    tokenizer: tokenizers.Tokenizer,
    examples: Iterable[base.Example],
    counts: collections.Counter[str] | None = None,
) -> Iterator[records_lib.Record]:
    """Tokenizes labelled examples; yields records without padding.

    counts: gets the numbers of "examples", of "truncated" ones, and of
      "truncated_targets".
    """
    preprocess_graph = tf.function(
        lambda raw: task.preprocess(raw, tokenizer),
        reduce_retracing=True,
        autograph=False,
    )
    for block in _blocks(examples, ROWS_PER_BATCH):
        # Some rows may have more, such as further references of a target.
        columns = (c for c in block[0] if all(c in row for row in block))
        raw = base.as_tensors(block, columns)
        features = preprocess_graph(
            {name: raw[name] for name in task.text_columns}
        )
        if counts is not None:
            truncated = tf.boolean_mask(
                features["example_index"], features["truncated"]
            )
            counts["examples"] += len(block)
            counts["truncated"] += len(set(truncated.numpy().tolist()))
        stored_names = _stored(task, tokenizer.feature)
        arrays = {f"inputs/{name}": features[name] for name in stored_names}
        targets = task.make_targets(raw, features, tokenizer)
        if counts is not None:
            counts["truncated_targets"] += task.num_truncated(targets)
        for term, (labels, weights) in targets.items():
            arrays[f"targets/{term}/labels"] = labels
            arrays[f"targets/{term}/weights"] = weights
        stored = {
            name: _storable(task, name, value.numpy())
            for name, value in arrays.items()
        }
        axes = _axes(task, tokenizer.feature)
        mask = features["padding_mask"].numpy()
        lengths = dict.fromkeys(
            _on_axis(axes, base.TOKENS), row_lengths.of_rows(task, mask)
        )
        if names := _on_axis(axes, base.TARGET_TOKENS):
            lengths |= dict.fromkeys(
                names, row_lengths.of_targets(task, stored, names)
            )
        for number in range(len(mask)):
            yield {
                name: value[number, : lengths[name][number]]
                if name in lengths
                else value[number]
                for name, value in stored.items()
            }


def to_columns(
    task: base.Task,
    tokenizer: tokenizers.Tokenizer,
    records: Sequence[records_lib.Record],
) -> records_lib.Columns:
    """Converts records of `encode` to Columns."""
    axes = _axes(task, tokenizer.feature)
    return records_lib.columns_of(
        records,
        per_token=_on_axis(axes, base.TOKENS),
        per_target_token=_on_axis(axes, base.TARGET_TOKENS),
    )


def _stored(task: base.Task, feature: str) -> dict[str, str | None]:
    """Returns the features of `task.preprocess` to store: {name: axis}.

    feature: the name of the tokenizer's ids.
    """
    inputs = dict.fromkeys((feature, "segment_ids"), base.TOKENS)
    return inputs | dict(task.stored_features)


def _storable(task: base.Task, name: str, value: np.ndarray) -> np.ndarray:
    """Casts to int32 or float32; InputError if the values do not fit."""
    if np.issubdtype(value.dtype, np.floating):
        return value.astype(np.float32)
    if np.issubdtype(value.dtype, np.integer):
        small = value.astype(np.int32)
        if (small == value).all():
            return small
    raise errors.InputError(
        f"{task.name}: {name} has type {value.dtype}; expected numbers that "
        "int32 or float32 can hold."
    )


def _axes(task: base.Task, feature: str) -> dict[str, str | None]:
    """Returns the axes of record features that a task declares, by name.

    feature: the name of the tokenizer's ids.
    """
    stored = _stored(task, feature)
    axes = {f"inputs/{name}": axis for name, axis in stored.items()}
    for term, axis in task.target_axes.items():
        axes |= dict.fromkeys(
            (f"targets/{term}/labels", f"targets/{term}/weights"), axis
        )
    return axes


def _on_axis(axes: Mapping[str, str | None], axis: str) -> list[str]:
    return sorted(name for name, each in axes.items() if each == axis)


def _blocks(items: Iterable[Row], size: int) -> Iterator[list[Row]]:
    block = []
    for item in items:
        block.append(item)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _fingerprint(
    settings: settings_lib.FinetuneSettings,
    task: base.Task,
    tokenizer: tokenizers.Tokenizer,
    task_settings: Mapping[str, Any],
) -> str:
    digest = hashlib.sha256()
    split = split_settings(settings)
    identity = f"{tokenizer.fingerprint} {task_settings} {split}"
    if task.stored_features:
        identity += f" {sorted(task.stored_features)}"
    axes = _axes(task, tokenizer.feature)
    if names := _on_axis(axes, base.TARGET_TOKENS):
        identity += f" {base.TARGET_TOKENS} {names}"
    digest.update(identity.encode())
    for each in corpus.files(task.data_files(settings.train)):
        digest.update(f"{files.checksum(each)}".encode())
    return digest.hexdigest()[:16]
