"""Checks that values read from a file have the types of a dataclass."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from bert_keras import errors


def check(cls: type, values: Mapping[str, Any]) -> None:
    """Raises InputError for a value that is not of its field's type.

    A list may stand for a tuple and an int for a float, as in JSON. Numbers
    are finite. A type that is none of int, float, bool, str, None, tuples and
    unions of these is not checked.
    """
    hints = typing.get_type_hints(cls)
    for name, value in values.items():
        if name in hints and not _fits(hints[name], value):
            raise errors.InputError(
                f"{name} is {_shown(value)}; expected {_name(hints[name])}."
            )


def check_bounds(cls: type, values: Mapping[str, Any]) -> None:
    """Raises InputError for a value that its flag would not take.

    Fields have `bounds` and `choices` in their metadata, see tasks.base.knob.
    """
    for field in dataclasses.fields(cls):
        if field.name not in values:
            continue
        value = values[field.name]
        choices = field.metadata.get("choices")
        if choices and value not in choices:
            raise errors.InputError(
                f"--{field.name}={value}: expected one of {', '.join(choices)}."
            )
        bounds = field.metadata.get("bounds")
        if not bounds or value is None:
            continue
        least = bounds.get("lower_bound", value)
        most = bounds.get("upper_bound", value)
        if not least <= value <= most:
            raise errors.InputError(
                f"--{field.name}={value}: expected "
                f"{bounds.get('lower_bound', 'anything')} to "
                f"{bounds.get('upper_bound', 'anything')}."
            )


def _fits(hint: Any, value: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(each, value) for each in typing.get_args(hint))
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            return False
        each = typing.get_args(hint)[0]
        return all(_fits(each, item) for item in value)
    if hint is float:
        return (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and _is_finite(value)
        )
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str) and _is_utf8(value)
    if hint in (bool, types.NoneType):
        return isinstance(value, hint)
    return True


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a string"}
    names |= {bool: "true or false", types.NoneType: "null"}
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_name, typing.get_args(hint)))
    if origin is tuple:
        return f"a list, each item {_name(typing.get_args(hint)[0])}"
    return names.get(hint, str(hint))


def _shown(value: Any, longest: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= longest else text[:longest] + "..."
