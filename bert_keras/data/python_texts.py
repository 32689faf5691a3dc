"""Texts that a caller passes from Python: strings, pairs, rows, data frames."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bert_keras import errors
from bert_keras.data import json_lines

# A text, a pair of texts, or a dict with the task's text columns. Bytes are
# UTF-8.
Text = str | bytes
Example = Text | Sequence[Text] | Mapping[str, Any]


def columns_of(
    example: Any,
    names: Sequence[str],
    number: int,
    *,
    reader: str,
    text_row: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> dict[str, str]:
    """Returns an example's texts by the names of the task's text columns.

    number: the example's index, for the message of an InputError.
    reader: the name of the task.
    text_row: converts a row to text columns; see `Task.text_row`.
    """
    example = to_python(example)
    if isinstance(example, (str, bytes)):
        example = (example,)
    if isinstance(example, (list, tuple)):
        if len(example) != len(names):
            hint = " Write one pair as [(a, b)]." * (len(names) == 2)
            raise errors.InputError(
                f"example {number}: {reader} reads {len(names)} "
                f"texts ({', '.join(names)}); got {len(example)}.{hint}"
            )
        example = dict(zip(names, example, strict=True))
    if not isinstance(example, Mapping):
        raise errors.InputError(
            f"example {number}: expected text, found {describe(example)}."
        )
    try:
        example = text_row(
            {name: to_python(value) for name, value in example.items()}
        )
    except ValueError as problem:
        raise errors.InputError(f"example {number}: {problem}.") from None
    missing = [name for name in names if name not in example]
    if missing:
        raise errors.InputError(
            f"example {number}: {reader} reads the columns "
            f"{', '.join(names)}; got "
            f"{', '.join(map(str, example)) or 'none'}."
        )
    return {name: _text(example[name], name, number) for name in names}


def items_of(examples: Any) -> Iterable[Any]:
    """Converts what `Predictor.predict` takes to an iterable of examples."""
    for method in ("to_dicts", "to_pylist"):  # Polars, Arrow
        if hasattr(examples, method):
            return getattr(examples, method)()
    if hasattr(examples, "iterrows"):  # pandas; iterating yields columns
        return examples.to_dict("records")
    examples = to_python(examples)
    if isinstance(examples, (str, bytes, Mapping)):
        return [examples]
    if not isinstance(examples, Iterable) or isinstance(
        examples, (set, frozenset)
    ):
        raise errors.InputError(
            f"expected texts, found {describe(examples)}; give a list of them."
        )
    return examples


def to_python(value: Any) -> Any:
    """Converts tensors, arrays and NumPy scalars to lists and strings."""
    if isinstance(value, (tf.Tensor, tf.Variable)):
        value = value.numpy()
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    return bytes(value) if isinstance(value, (bytearray, memoryview)) else value


def _text(value: Any, name: str, number: int) -> str:
    value = to_python(value)
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise errors.InputError(
                f"example {number}, {name}: byte {error.start} is not valid "
                "UTF-8."
            ) from None
    if not isinstance(value, str):
        raise errors.InputError(
            f"example {number}, {name}: expected text, found {describe(value)}."
        )
    return json_lines.valid_text(value)


def describe(value: Any) -> str:
    return "None" if value is None else json_lines.name_of(value)
