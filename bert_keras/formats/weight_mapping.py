"""Maps weight names of other formats to ours, checked in both directions."""

import dataclasses
import math
import os
import re
import types
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from bert_keras import checkpoint, errors, files, locks, named_tensors
from bert_keras.networks import bert
from bert_keras.tokenizers import wordpiece


@dataclasses.dataclass(frozen=True)
class WeightMapping:
    """Maps one of our variables to the source tensors it is made of.

    Several tensors (query, key, value) are concatenated on the last axis.
    """

    name: str
    source_names: tuple[str, ...]
    transposed: bool = False  # the source is (out, in), as in PyTorch
    # Shapes of a source tensor and of the target made of it, if known:
    # KerasHub keeps heads on an axis of their own.
    source_shape: tuple[int, ...] = ()
    target_shape: tuple[int, ...] = ()

    def to_native(self, tensors: Sequence[np.ndarray]) -> np.ndarray:
        """Source tensors -> our variable, float32."""
        arrays = [np.asarray(tensor, np.float32) for tensor in tensors]
        if self.transposed:
            arrays = [array.T for array in arrays]
        if self.source_shape:
            arrays = [array.reshape(self.target_shape) for array in arrays]
        return (
            arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
        )

    def to_external(self, value: np.ndarray) -> list[np.ndarray]:
        """Our variable -> source tensors."""
        arrays = np.split(value, len(self.source_names), axis=-1)
        if self.source_shape:
            arrays = [array.reshape(self.source_shape) for array in arrays]
        if self.transposed:
            arrays = [array.T for array in arrays]
        return [np.asarray(array, order="C") for array in arrays]


def to_native(
    mappings: Iterable[WeightMapping], tensor: Callable[[str], np.ndarray]
) -> dict[str, np.ndarray]:
    """Our variables by path, each made of `tensor(name)` of the source."""
    return {
        mapping.name: mapping.to_native(
            [tensor(name) for name in mapping.source_names]
        )
        for mapping in mappings
    }


def to_external(
    mappings: Iterable[WeightMapping], values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Source tensors by name, made of our variables by path."""
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
    """The mappings whose tensors are all there; every name must be mapped.

    Args:
      names: all source tensors.
      ignored: regular expression of names that mean nothing to us: optimizer
        slots, counters.
      allow_missing: regular expression of our paths that may be absent.

    Raises InputError that names what is missing and what is left over.
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
            f"{folder} does not fit: {difference} What may be missing can be "
            "named with `allow_missing`; what is left over cannot."
        )
    return matches


Format = TypeVar("Format", bound="ExternalCheckpoint")


@dataclasses.dataclass(frozen=True)
class ExternalCheckpoint(checkpoint.Checkpoint):
    """A checkpoint of another format; tensors are read when asked for."""

    words: wordpiece.Tokenizer
    tensor: Callable[[str], np.ndarray]
    encoder_mappings: Sequence[WeightMapping]
    head_mappings: Sequence[WeightMapping] = ()
    allow_missing: str = ""

    @property
    def is_complete(self) -> bool:
        return not self.allow_missing

    def check_sizes(self) -> None:
        pass  # each format compares its sizes before it gets here

    def tokenizer(self) -> wordpiece.Tokenizer:
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
                f"{named_tensors.differences(missing, {})} What may be missing "
                "can be named with `allow_missing`."
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
        """The checkpoint of a folder.

        matches: what `match` gave; those in `encoder` are the encoder's, the
        others the head's. more: the other fields.
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
    """The encoder's configuration; raises InputError unless it is a BERT."""
    if not isinstance(encoder.config, bert.BertConfig):
        raise errors.InputError(
            f"the format holds BERTs, and the network is {encoder.config.name}."
            " Write bert_keras' own."
        )
    return encoder.config


def fit_vocabulary(
    tokenizer: wordpiece.Tokenizer,
    rows: int,
    folder: str,
    added: Mapping[int, str] = types.MappingProxyType({}),
) -> wordpiece.Tokenizer:
    """The tokenizer with an entry for each row of the embedding table.

    Tables are often larger than their vocabulary, rounded up for the hardware
    or left from another one: the rows without an entry get [unused_rowN], and
    a warning says so. Raises InputError where the table is smaller.

    Args:
      added: further entries by id, past those of the tokenizer.
    """
    entries = {**added, **dict(enumerate(tokenizer.vocabulary))}
    if max(entries) >= rows:
        raise errors.InputError(
            f"{folder}: the vocabulary has {max(entries) + 1:,} entries and "
            f"the embedding table {rows:,} rows; is it another model's "
            "vocab.txt?"
        )
    unused = [row for row in range(rows) if row not in entries]
    if unused:
        say(
            f"{folder}: the embedding table has {rows:,} rows and the "
            f"vocabulary {len(entries):,} entries; the other {len(unused):,} "
            f"rows are kept as entries that no text gives, [unused_row"
            f"{unused[0]}] and so on."
        )
    if len(entries) == tokenizer.vocab_size and not unused:
        return tokenizer
    entries |= {row: f"[unused_row{row}]" for row in unused}
    return wordpiece.Tokenizer(
        [entries[row] for row in range(rows)], lowercase=tokenizer.lowercase
    )


def say(message: str) -> None:
    """Tells what was done with a folder that a reader might not expect."""
    # Of the package, on one line: whose code it is helps nobody.
    warnings.warn_explicit(message, UserWarning, "bert_keras", 1)


def field(
    values: Mapping[str, Any], name: str, expected_type: type, path: str
) -> Any | None:
    """values[name], an `expected_type`; None if absent or null.

    Raises InputError that names the file `path` where it is something else.
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
    """Raises InputError that names what a configuration lacks or has wrong.

    sizes: whole numbers from 1; rates: from 0 to below 1; positive: numbers
    above 0.
    """
    sizes, rates, positive = list(sizes), list(rates), list(positive)
    missing = [n for n in (*sizes, *rates, *positive) if n not in values]
    if missing:
        raise errors.InputError(f"{path} lacks {', '.join(missing)}.")
    for names, expected, fits in (
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
            if not _is_number(value) or not fits(value):
                raise errors.InputError(
                    f"{path}: expected {expected} for {name}, got "
                    f"{shown(value)}."
                )


def _is_number(value: Any) -> bool:
    """Whether it is one that a float can hold."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # a whole number of 309 digits or more
        return False


def shown(value: Any, longest: int = 60) -> str:
    """A value for a message, on one line."""
    try:
        text = repr(value)
    except RecursionError:
        return "something deeply nested"
    return text if len(text) <= longest else f"{text[:longest]}..."


def check_shards(path: str, names: Iterable[Any]) -> list[str]:
    """Names of files that `path` lists; raises InputError for other paths.

    Files of the folder are meant, whatever it says.
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
    """Writes each file aside and moves it into place, in this order.

    The last one says that the folder is complete. A folder that holds
    anything else is refused: a left-over file would be read with the new ones.
    """
    tf.io.gfile.makedirs(folder)
    *first_names, _ = writers
    expected = {*first_names, *(f"{name}.tmp" for name in writers), locks.NAME}
    others = sorted(set(tf.io.gfile.listdir(folder)) - expected)
    if others:
        raise errors.InputError(
            f"{folder} already holds {', '.join(others[:5])}; name an empty "
            "or a new folder."
        )
    for name, writer in writers.items():
        with files.local_aside(os.path.join(folder, name)) as path:
            writer(path)
