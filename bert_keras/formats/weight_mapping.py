"""Maps external weight names to native ones, checked in both directions."""

import dataclasses
import math
import os
import re
import types
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeGuard, TypeVar

import keras
import numpy as np
import tensorflow as tf

from bert_keras import checkpoint, errors, files, locks, named_tensors
from bert_keras.networks import bert
from bert_keras.tasks import base, classification
from bert_keras.tokenizers import base as tokenizer_lib
from bert_keras.tokenizers import wordpiece


@dataclasses.dataclass(frozen=True)
class WeightMapping:
    """Maps a native variable to the external tensors that it is made of.

    Several tensors are concatenated on the last axis: the native
    "block_0/attention/qkv/kernel" (H, 3 H) is made of the kernels (H, H) of
    query, key and value.
    """

    name: str
    source_names: tuple[str, ...]
    transposed: bool = False  # the source is (out, in), as in PyTorch
    # Shapes of a source tensor before and after reshaping it; (): it is not
    # reshaped. KerasHub's query kernel is (H, N, D) and becomes (H, H).
    source_shape: tuple[int, ...] = ()
    target_shape: tuple[int, ...] = ()

    def to_native(self, tensors: Sequence[np.ndarray]) -> np.ndarray:
        """Converts external tensors to the native variable, float32."""
        arrays = [np.asarray(tensor, np.float32) for tensor in tensors]
        if self.transposed:
            arrays = [array.T for array in arrays]
        if self.source_shape:
            arrays = [array.reshape(self.target_shape) for array in arrays]
        return (
            arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
        )

    def to_external(self, value: np.ndarray) -> list[np.ndarray]:
        """Converts the native variable to external tensors."""
        arrays = np.split(value, len(self.source_names), axis=-1)
        if self.source_shape:
            arrays = [array.reshape(self.source_shape) for array in arrays]
        if self.transposed:
            arrays = [array.T for array in arrays]
        return [np.asarray(array, order="C") for array in arrays]


def to_native(
    mappings: Iterable[WeightMapping], tensor: Callable[[str], np.ndarray]
) -> dict[str, np.ndarray]:
    """Converts external tensors to native variables, by path.

    tensor: reads an external tensor by name.
    """
    return {
        mapping.name: mapping.to_native(
            [tensor(name) for name in mapping.source_names]
        )
        for mapping in mappings
    }


def to_external(
    mappings: Iterable[WeightMapping], values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Converts native variables, by path, to external tensors, by name."""
    return {
        name: array
        for mapping in mappings
        for name, array in zip(
            mapping.source_names,
            mapping.to_external(values[mapping.name]),
            strict=True,
        )
    }


def match(
    mappings: Iterable[WeightMapping],
    names: Iterable[str],
    *,
    folder: str,
    ignored: str,
    allow_missing: str = "",
) -> list[WeightMapping]:
    """Returns the mappings whose external tensors all exist.

    Args:
      names: names of all external tensors; each must be mapped or ignored.
      ignored: regular expression of tensors to skip: optimizer slots, counters.
      allow_missing: regular expression of native paths that may be missing.

    Raises InputError that names all missing and unexpected tensors.
    """
    mappings, names = list(mappings), set(names)
    matches = [
        mapping
        for mapping in mappings
        if names.issuperset(mapping.source_names)
    ]
    absent = {
        name
        for mapping in mappings
        if not (allow_missing and re.search(allow_missing, mapping.name))
        for name in mapping.source_names
        if name not in names
    }
    used = {name for mapping in mappings for name in mapping.source_names}
    extra = {name for name in names - used if not re.search(ignored, name)}
    if absent or extra:
        difference = named_tensors.differences(
            dict.fromkeys(absent), dict.fromkeys(extra)
        )
        raise errors.InputError(
            f"{folder} does not fit: {difference} Variables that may be "
            "missing can be named with `allow_missing`; unexpected tensors "
            "cannot be allowed."
        )
    return matches


Format = TypeVar("Format", bound="ExternalCheckpoint")


@dataclasses.dataclass(frozen=True)
class ExternalCheckpoint(checkpoint.Checkpoint):
    """A checkpoint of an external format; tensors are read lazily."""

    words: tokenizer_lib.Tokenizer
    tensor: Callable[[str], np.ndarray]
    encoder_mappings: Sequence[WeightMapping]
    head_mappings: Sequence[WeightMapping] = ()
    allow_missing: str = ""

    @property
    def is_complete(self) -> bool:
        return not self.allow_missing

    def check_shapes(self) -> None:
        pass  # each format has checked its sizes in `read`

    def tokenizer(self) -> tokenizer_lib.Tokenizer:
        return self.words

    def encoder_values(self) -> Mapping[str, np.ndarray]:
        return to_native(self.encoder_mappings, self.tensor)

    def head_values(self) -> Mapping[str, np.ndarray]:
        return to_native(self.head_mappings, self.tensor)

    def _assign(
        self,
        name: str,
        variables: Mapping[str, Any],
        values: Mapping[str, np.ndarray],
    ) -> None:
        if self.allow_missing:
            kept = {
                path: variable.numpy()
                for path, variable in variables.items()
                if path not in values and re.search(self.allow_missing, path)
            }
            values = {**values, **kept}
        missing = dict.fromkeys(set(variables) - set(values))
        if missing:
            raise errors.InputError(
                f"{self.folder} does not fit: "
                f"{named_tensors.differences(missing, {})} Variables that may "
                "be missing can be named with `allow_missing`."
            )
        super()._assign(name, variables, values)

    @classmethod
    def from_matches(
        cls: type[Format],
        folder: str,
        *,
        matches: Sequence[WeightMapping],
        encoder: Collection[WeightMapping],
        **more: Any,
    ) -> Format:
        """Constructs the checkpoint of a folder.

        matches: the result of `match`. Those in `encoder` are the encoder's,
          the others the head's.
        more: the other fields.
        """
        return cls(
            folder=folder,
            step=0,
            metadata={},
            encoder_mappings=[
                mapping for mapping in matches if mapping in encoder
            ],
            head_mappings=[
                mapping for mapping in matches if mapping not in encoder
            ],
            **more,
        )


def config_of_bert(encoder: keras.Model) -> bert.BertConfig:
    """Returns the encoder's config; raises InputError unless it is a BERT."""
    if not isinstance(encoder.config, bert.BertConfig):
        raise errors.InputError(
            "expected a BERT, the only network that the format can store; the "
            f"network is {encoder.config.name}. Write bert_keras' own format."
        )
    return encoder.config


def is_classifier(
    task: base.Task | None,
) -> TypeGuard[classification.Classification]:
    """Returns whether a task's head is a BERT classifier's (BERT, 4.1).

    That is one dense layer on the pooler's output, and a softmax over two or
    more classes. Other formats have no field for another problem type or
    pooling: they would store the weights and answer differently.
    """
    return (
        type(task) is classification.Classification
        and task.problem_type == "single_label"
        and task.pooling == "first"
        and not task.reads_both_orders
        and len(task.labels) > 1
    )


def describe_head(task: base.Task) -> str:
    """Returns a phrase on a task's head, for a message."""
    settings = [
        f"{name} {getattr(task, name)}"
        for name in ("problem_type", "pooling")
        if hasattr(task, name)
    ]
    if getattr(task, "reads_both_orders", False):
        settings.append("pair_order both")
    if classes := getattr(task, "sentence_classes", ()):
        settings.append(f"a sentence objective of {len(classes)} classes")
    return (
        f"{task.name} with {' and '.join(settings)}" if settings else task.name
    )


def fit_vocabulary(
    tokenizer: wordpiece.Tokenizer,
    rows: int,
    folder: str,
    added: Mapping[int, str] = types.MappingProxyType({}),
) -> wordpiece.Tokenizer:
    """Extends a tokenizer to one entry per row of the embedding table.

    Tables are often larger than their vocabulary: rounded up for the hardware,
    or left from another one. Rows without an entry get [unused_rowN], with a
    warning. Raises InputError if the table is smaller.

    Args:
      added: further entries by id, after those of the tokenizer.
    """
    entries = {**added, **dict(enumerate(tokenizer.vocabulary))}
    if max(entries) >= rows:
        raise errors.InputError(
            f"{folder}: the vocabulary has {max(entries) + 1:,} entries, and "
            f"the embedding table has {rows:,} rows; is vocab.txt another "
            "model's?"
        )
    unused = [row for row in range(rows) if row not in entries]
    if unused:
        warn(
            f"{folder}: the embedding table has {rows:,} rows and the "
            f"vocabulary {len(entries):,} entries; the other {len(unused):,} "
            f"rows are kept, with the entries [unused_row{unused[0]}] and so "
            "on, which no text is split into."
        )
    if len(entries) == tokenizer.vocab_size and not unused:
        return tokenizer
    entries |= {row: f"[unused_row{row}]" for row in unused}
    return wordpiece.Tokenizer(
        [entries[row] for row in range(rows)], lowercase=tokenizer.lowercase
    )


def warn(message: str) -> None:
    """Warns about something unexpected in how a folder was read."""
    # Attribute the warning to the package: its source line would not help.
    warnings.warn_explicit(message, UserWarning, "bert_keras", 1)


def field(
    values: Mapping[str, Any], name: str, expected_type: type, path: str
) -> Any | None:
    """Returns values[name], an `expected_type`; None if absent or null.

    Raises InputError, which names the file `path`, if it has another type.
    """
    value = values.get(name)
    if value is not None and not isinstance(value, expected_type):
        raise errors.InputError(
            f"{path}: expected {TYPE_NAMES[expected_type]} for {name}, found "
            f"{shown(value)}."
        )
    return value


TYPE_NAMES = {
    dict: "a JSON object",
    list: "a list",
    str: "a string",
    bool: "true or false",
}


def check_numbers(
    path: str,
    values: Mapping[str, Any],
    *,
    sizes: Iterable[str] = (),
    rates: Iterable[str] = (),
    positive: Iterable[str] = (),
) -> None:
    """Raises InputError that names missing or invalid numbers of a config.

    sizes: integers from 1; rates: from 0 to below 1; positive: above 0.
    """
    sizes, rates, positive = list(sizes), list(rates), list(positive)
    missing = [n for n in (*sizes, *rates, *positive) if n not in values]
    if missing:
        raise errors.InputError(f"{path} lacks {', '.join(missing)}.")
    for names, expected, is_valid in (
        (
            sizes,
            "a positive whole number",
            lambda x: type(x) is int and 0 < x < 1 << 31,
        ),
        (rates, "a number from 0 to below 1", lambda x: 0 <= x < 1),
        (positive, "a number above 0", lambda x: x > 0),
    ):
        for name in names:
            value = values[name]
            if not _is_number(value) or not is_valid(value):
                raise errors.InputError(
                    f"{path}: expected {expected} for {name}, got "
                    f"{shown(value)}."
                )


def _is_number(value: Any) -> bool:
    """Returns whether a value is a finite number that fits a float."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an integer of 309 digits or more
        return False


def shown(value: Any, max_length: int = 60) -> str:
    """Formats a value for a message, truncated and on one line."""
    try:
        text = repr(value)
    except RecursionError:
        return "something deeply nested"
    return text if len(text) <= max_length else f"{text[:max_length]}..."


def check_shards(path: str, names: Iterable[Any]) -> list[str]:
    """Returns the distinct `names` of shards, sorted.

    path: the index file that contains the names, for the message.

    Raises InputError for a name that is not one of a file beside the index.
    """
    names = list(names)
    for name in names:
        if (
            not isinstance(name, str)
            or not name
            or name in (".", "..")
            or "/" in name
            or "\\" in name
        ):
            raise errors.InputError(
                f"{path}: expected names of files beside it, found "
                f"{shown(name)}."
            )
    return sorted(set(names))


def write_files(
    folder: str, writers: Mapping[str, Callable[[str], None]]
) -> None:
    """Writes each file atomically, in this order.

    The presence of the last one means that the folder is complete. Raises
    InputError if the folder has other files, as readers would take them for
    files of this checkpoint.
    """
    tf.io.gfile.makedirs(folder)
    *first_names, _ = writers
    expected = {*first_names, *(f"{name}.tmp" for name in writers), locks.NAME}
    others = sorted(set(tf.io.gfile.listdir(folder)) - expected)
    if others:
        raise errors.InputError(
            f"{folder} already contains {', '.join(others[:5])}; choose an "
            "empty or a new folder."
        )
    for name, writer in writers.items():
        with files.local_aside(os.path.join(folder, name)) as path:
            writer(path)
