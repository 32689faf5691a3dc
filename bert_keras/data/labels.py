"""Parses labels in the same way for training, evaluation and Python.

A field of a file (a string or a JSON value) becomes the string that represents
the label everywhere, or raises a ValueError with a phrase for the message.
"""

import decimal
import json
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from bert_keras import errors
from bert_keras.data import json_lines

# The characters that str.strip removes, and zero-width characters.
_BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001))))
_BLANKS += "\ufeff\u200b\u2060"
# A regular expression, also of RE2, of the texts that `strip` leaves empty.
BLANK = f"[{_BLANKS}]*"
# Missing values as pandas, Python and JSON write them.
_MISSING = ("", "nan", "NaN")
# Other ways to write a missing value, which could also be names of classes.
_MAYBE_MISSING = {
    *("#n/a", "#na", "-nan", "<na>", "n/a", "na", "nan", "nat", "nil", "none"),
    *("null", "undefined"),
}
_PYTHON_LIST = re.compile(r"\[\s*(['\"]).*\1\s*,?\s*\]", re.DOTALL)
# The squared errors of larger numbers can overflow when a batch is summed.
MAX_NUMBER = 1e16
# In lower case.
_BINARY = {"1": "1", "1.0": "1", "true": "1"}
_BINARY |= {"0": "0", "0.0": "0", "false": "0"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def parse_label(value: Any) -> str:
    """Parses the label of one class: stripped, not missing.

    Raises ValueError for a list or an object, also as text in a table.
    """
    if isinstance(value, str) and ("[" in value or "{" in value):
        text = strip(value)
        if (structure := _structure(text)) is not None:
            value = structure
        elif _PYTHON_LIST.fullmatch(text):
            raise ValueError(f"expected one label, found {_described(text)}")
    if isinstance(value, (list, dict)):
        raise ValueError(
            f"expected one label, found {json_lines.name_of(value)}"
        )
    if _is_missing(value):
        raise ValueError(f"expected a label, found {_described(value)}")
    return strip(_text(value))


def parse_labels(value: Any) -> str:
    """Parses several labels; returns them joined by commas, "" for none.

    The field is a string of labels separated by commas, or a JSON list of
    strings, also as text in a table. Duplicates are removed. Parsing the result
    again gives the same labels.
    """
    if isinstance(value, str):
        text = strip(value)
        if text.startswith("[") and text.endswith("]"):
            value = _listed(text)
    if isinstance(value, dict):
        raise ValueError("expected labels, found an object")
    if not isinstance(value, list):
        if _is_missing(value):
            return ""
        value = list(filter(strip, _text(value).split(",")))
    for item in value:
        if not isinstance(item, str):
            raise ValueError(
                "expected a list of strings as labels, found "
                f"{json_lines.name_of(item)} in it"
            )
        if "," in item:
            raise ValueError(
                "expected labels without commas, which separate labels, "
                f"found {item!r}"
            )
        if not strip(item):
            raise ValueError(f"expected a list of labels, found {item!r} in it")
        if strip(item) in _MISSING:
            raise ValueError(
                f"expected a list of labels, found {item!r} in it, which is "
                "how a missing value is written"
            )
    joined = ",".join(dict.fromkeys(map(strip, value)))
    if joined.startswith("[") and joined.endswith("]"):
        if _structure(joined) is not None or _listed(joined) != joined:
            raise ValueError(
                f"expected labels that do not look like a list together, "
                f"found {_described(joined)}"
            )
    return joined


def parse_number(value: Any) -> str:
    """Parses a finite number; returns text that every parser reads alike."""
    text = "" if isinstance(value, (list, dict, bool)) else _text(value)
    if _NUMBER.fullmatch(strip(text)):
        if abs(float(text := strip(text))) <= MAX_NUMBER:
            return text
        more = f"; the square of one above {MAX_NUMBER:g} can overflow"
    else:
        more = ""
    description = _described(value) if isinstance(value, str) else None
    description = description or json_lines.name_of(value)
    raise ValueError(f"expected a finite number, found {description}{more}")


def parse_binary(value: Any, *, meaning: str) -> str:
    """Parses 1 or true as "1", and 0 or false as "0".

    meaning: what a 1 says, for the message.
    """
    text = strip(_text(value)).lower()
    if text not in _BINARY:
        raise ValueError(
            f"expected 1 or true ({meaning}), 0 or false, found {value!r}"
        )
    return _BINARY[text]


def parse_numbers(label: tf.Tensor) -> tf.Tensor:
    """Parses labels (T,) string -> (T,) float32; InputError names the row."""
    values = np.zeros(len(label), np.float32)
    for row, text in enumerate(label.numpy()):
        try:
            values[row] = float(parse_number(text.decode()))
        except ValueError as problem:
            raise errors.InputError(f"row {row}: {problem}.") from None
    return tf.constant(values)


def doubts(names: Iterable[str]) -> str:
    """Returns a message for the user on suspicious class names, or ""."""
    names = sorted(names)
    notes = []
    missing = [name for name in names if name.casefold() in _MAYBE_MISSING]
    if missing:
        notes.append(
            f"Read as {'a class' if len(missing) == 1 else 'classes'}: "
            f"{', '.join(missing)}. If it means a missing label, leave its "
            f"rows out with skip_labels={','.join(missing)}."
        )
    numbers: dict[float, list[str]] = {}
    for name in filter(_NUMBER.fullmatch, names):
        numbers.setdefault(float(name), []).append(name)
    for same in numbers.values():
        if len(same) > 1:
            notes.append(
                f"{' and '.join(same)} are the same number and "
                f"{len(same)} classes."
            )
    return " ".join(notes)


class Skipped:
    """Filters out the rows that have one of some labels, and counts them.

    names: the labels to skip, separated by commas.
    key: label -> the value by which labels are compared.
    names_of: example -> the labels it names.
    classes_of: example -> its classes.
    """

    def __init__(
        self,
        names: str,
        *,
        key: Callable[[str], Hashable],
        names_of: Callable[[Mapping[str, str]], Iterable[str]],
        classes_of: Callable[[Mapping[str, str]], Iterable[str]],
    ):
        self._key, self._names_of, self._classes_of = key, names_of, classes_of
        self._skip: dict[Hashable, str] = {}  # key -> label as written
        for name in map(strip, names.split(",")):
            if name:
                try:
                    self._skip[key(name)] = name
                except ValueError as problem:
                    raise errors.InputError(
                        f"skip_labels={names}: {problem}."
                    ) from None
        self._counts = dict.fromkeys(self._skip, 0)
        self._rows_left_out = 0
        self._classes: set[str] = set()

    def keeps(self, example: Mapping[str, str]) -> bool:
        keys = {self._key(name) for name in self._names_of(example)}
        if skipped := keys & self._counts.keys():
            self._rows_left_out += 1
            for key in skipped:
                self._counts[key] += 1
            return False
        self._classes.update(self._classes_of(example))
        return True

    def warning(self) -> str:
        """Returns a message for the user on the rows so far, or ""."""
        notes = [doubts(self._classes)]
        if self._rows_left_out:
            counts = ", ".join(
                f"{self._skip[key]}: {count:,}"
                for key, count in self._counts.items()
                if count
            )
            notes.append(
                f"{self._rows_left_out:,} rows are left out for labels in "
                f"skip_labels ({counts})."
            )
        missing = [
            self._skip[key] for key, count in self._counts.items() if not count
        ]
        if missing:
            notes.append(
                f"No row has the label {' or '.join(missing)} of skip_labels."
            )
        return " ".join(filter(None, notes))


def strip(text: str) -> str:
    """Strips white space and zero-width characters."""
    return text.strip(_BLANKS)


def _structure(text: str) -> list[Any] | dict[str, Any] | None:
    """Parses a text that is a JSON list or object; otherwise None."""
    try:
        value = json_lines.loads(text)
    except json_lines.JsonError:
        return None
    return value if isinstance(value, (list, dict)) else None


def _listed(text: str) -> Any:
    """Parses a field `["a", "b"]` as a list; returns other text unchanged."""
    if isinstance(value := _structure(text), list):
        return value
    # `['a', 'b']` and `[a, b]` would become the labels `['a'` and `'b']`.
    items = text.split(",")
    if text[1:2] in ("'", '"') or any(
        item.count("[") != item.count("]") for item in items
    ):
        raise ValueError(
            f"expected labels with commas between or a JSON list of strings, "
            f"found {_described(text)}"
        )
    return text


def _is_missing(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    return value is None or (
        isinstance(value, str) and strip(value) in _MISSING
    )


def _text(value: Any) -> str:
    """Formats a JSON value as text: a string unchanged, 1 as "1".

    Raises ValueError for a value that only other formats have, such as a date.
    """
    if isinstance(value, (str, decimal.Decimal)):
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    raise ValueError(
        f"expected text or a number, found {json_lines.name_of(value)}"
    )


def _described(value: Any) -> str:
    if not isinstance(value, str):
        return json_lines.name_of(value)
    if not strip(value):
        return "none"
    return repr(value) if len(value) < 60 else f"{value[:50]!r}..."
