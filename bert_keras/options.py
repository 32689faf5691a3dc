"""Options: dataclass fields that a user may set, and their checks.

Settings, tasks and networks declare such fields by `option`. Values from the
command line, from saved JSON and from Python go through the same checks.
"""

import collections
import dataclasses
import difflib
import functools
import math
import os
import types
import typing
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from bert_keras import errors

# The help of an option that names a user's modules.
CHECKPOINT = (
    "A run, one of its step folders, or a model in Google's, Hugging Face's or "
    "KerasHub's format: its folder, or its name if huggingface_hub or "
    "kagglehub downloaded it."
)
MODULES = (
    "Comma-separated Python modules to import first: those that define your "
    "tasks, networks, tokenizers and wrappers. Modules named in a checkpoint "
    "are not imported."
)

T = TypeVar("T")

MAX_SEED = 2**31 - 1  # TensorFlow's stateless random ops take int32 seeds


def option(
    default: Any,
    help: str,
    choices: Sequence[str] = (),
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    value_type: type | None = None,
    reads: bool = False,
    identity: bool = True,
    formerly: Sequence[str] = (),
    translate: Callable[[Any], dict[str, Any]] | None = None,
    absent: Any = None,
) -> Any:
    """Declares a dataclass field that a user may set.

    Args:
      default: the field's default value.
      help: the text in `--help`.
      choices: the allowed values of a string; empty: any.
      minimum, maximum: the bounds of a number, inclusive.
      value_type: the field's type if the default is None, which means "not
        set".
      reads: whether the value is the path of an input; the input's contents
        identify a run, not the path.
      identity: whether a run can be resumed only with the same value.
      formerly: former names of the field, which folders, command lines and
        keyword arguments may still use.
      translate: maps a value under a former name to {field: value} under the
        current names, if the value has changed as well.
      absent: the value for runs older than the field; None: the default.
    """
    bounds = {"lower_bound": minimum, "upper_bound": maximum}
    bounds = {
        name: value for name, value in bounds.items() if value is not None
    }
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "bounds": bounds,
            "choices": tuple(choices),
            "value_type": value_type or type(default),
            "reads": reads,
            "identity": identity and not reads,
            "formerly": tuple(formerly),
            "translate": translate,
            "absent": default if absent is None else absent,
        },
    )


def former_names(name: str, field: dataclasses.Field[Any]) -> list[str]:
    """Returns an option's former names.

    name: the field's name; a wrapper's prefix before it is kept.
    """
    prefix = name.removesuffix(field.name)
    return [prefix + old for old in field.metadata.get("formerly", ())]


def renamed(values: Mapping[str, Any], *classes: type) -> dict[str, Any]:
    """Replaces former names of fields of `classes` by current ones."""
    return with_current_names(
        values,
        {
            field.name: field
            for cls in classes
            for field in dataclasses.fields(cls)
        },
    )


def with_current_names(
    values: Mapping[str, Any], fields: Mapping[str, dataclasses.Field[Any]]
) -> dict[str, Any]:
    """Replaces former names in `values` by current ones; others are kept.

    fields: {current name, with any wrapper's prefix: field}.
    """
    by_former_name = {
        old: (name, field)
        for name, field in fields.items()
        for old in former_names(name, field)
    }
    current: dict[str, Any] = {}
    for name, value in values.items():
        if name not in by_former_name:
            current[name] = value
            continue
        current |= translated(*by_former_name[name], value)
    return current


def current_keywords(
    keywords: Mapping[str, Any], fields: Mapping[str, dataclasses.Field[Any]]
) -> dict[str, Any]:
    """Replaces former names of keyword arguments and warns about them.

    Raises InputError if a field occurs under two of its names.
    """
    result: dict[str, Any] = {}
    for name, value in keywords.items():
        current = with_current_names({name: value}, fields)
        for new, translation in current.items():
            if new in result or (new != name and new in keywords):
                raise errors.InputError(
                    f"{name} and {new} are names of one setting: "
                    f"give {new} alone.",
                    argument=new,
                )
            result[new] = translation
        if name not in current:
            warnings.warn(renaming(name, current), FutureWarning, stacklevel=2)
    return result


def with_former_names(cls: type[T]) -> type[T]:
    """Decorates a dataclass to accept former field names, with a warning."""
    construct = cls.__init__
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]

    @functools.wraps(construct)
    def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
        construct(self, *arguments, **current_keywords(keywords, fields))

    cls.__init__ = __init__  # type: ignore[method-assign]
    return cls


def renaming(old: str, today: Mapping[str, Any], dashes: str = "") -> str:
    """Returns the sentence that gives the current name for a former one."""
    new = " ".join(f"{dashes}{name}={value}" for name, value in today.items())
    return (
        f"{dashes}{old} is deprecated and will be removed in version 0.3: "
        f"use {new}."
    )


def translated(
    name: str, field: dataclasses.Field[Any], value: Any
) -> dict[str, Any]:
    """Converts a value under a former name to {current name: value}."""
    translate = field.metadata.get("translate")
    return translate(value) if translate else {name: value}


def without_defaults(
    values: Mapping[str, Any], obj: Any, names: Collection[str]
) -> dict[str, Any]:
    """Leaves out the fields `names` of a dataclass that have their default.

    Folders that are older than these fields must have equal settings.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(obj)}
    return {
        name: value
        for name, value in values.items()
        if name not in names or value != defaults[name]
    }


def check(*settings: Any) -> None:
    """Raises InputError for a value that its option does not allow.

    Values from Python are not checked elsewhere, and absl's bounds accept NaN.
    """
    for each in settings:
        values = {
            field.name: getattr(each, field.name)
            for field in dataclasses.fields(each)
        }
        check_types(type(each), values)
        check_bounds(type(each), values)


def divide(
    keywords: Mapping[str, Any],
    *classes: type,
    without: Sequence[str] = (),
    others: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Splits keyword arguments by the class that declares each of them.

    Paths become strings. Raises InputError for a keyword that is no option of
    `classes`, or is in `without`; the message suggests similar names, of
    options and of `others`.
    """
    names = [
        {
            field.name
            for field in dataclasses.fields(cls)
            if "help" in field.metadata and field.name not in without
        }
        for cls in classes
    ]
    allowed = set().union(*names)
    fields = {f.name: f for cls in classes for f in dataclasses.fields(cls)}
    keywords = current_keywords(
        keywords, {name: fields[name] for name in allowed}
    )
    for name in keywords:
        if name in allowed:
            continue
        alike = difflib.get_close_matches(name, allowed.union(others))
        hint = f"did you mean {' or '.join(alike)}?" if alike else ""
        raise errors.InputError(
            f"{name} is not a setting; "
            + (hint or f"expected one of {', '.join(sorted(allowed))}."),
            argument=name,
        )
    values = {
        name: plain(value, fields[name]) for name, value in keywords.items()
    }
    return [
        {name: value for name, value in values.items() if name in own}
        for own in names
    ]


def plain(value: Any, field: dataclasses.Field[Any]) -> Any:
    """Converts a value from Python to what the command line would give.

    Paths become strings, NumPy scalars Python's, and 2 becomes 2.0 for a float
    option: a run is identified by its settings' JSON.
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        value = value.item()
    number = isinstance(value, int) and not isinstance(value, bool)
    if number and field.metadata.get("value_type") is float:
        return float(value)
    return value


def require(name: str, value: Any) -> None:
    """Raises InputError if a required option is empty."""
    if not value:
        raise errors.InputError(f"`{name}` is missing.", argument=name)


def require_whole(**values: Any) -> None:
    """Raises InputError for a value that is not a whole number from 1."""
    for name, value in values.items():
        if (
            not isinstance(value, (int, np.integer))
            or isinstance(value, bool)
            or value < 1
        ):
            raise errors.InputError(
                f"{name}: expected a whole number from 1, found {value!r}.",
                argument=name,
            )


def construct(cls: type, values: Mapping[str, Any]) -> Any:
    """Constructs a dataclass of options from values that were saved as JSON.

    Raises InputError for an unknown field, a value of another type or out of
    bounds.
    """
    values = renamed(values, cls)
    field_names = {
        field.name for field in dataclasses.fields(cls) if field.init
    }
    unknown = sorted(set(values) - field_names)
    if unknown:
        raise errors.InputError(
            f"{cls.__name__} has the settings {sorted(field_names)}; "
            f"unknown: {unknown}."
        )
    check_types(cls, values)
    check_bounds(cls, values)
    # JSON has no tuples.
    return cls(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
    )


def require_distinct(what: str, names: Sequence[str]) -> None:
    """Raises InputError if two of the names are equal."""
    if len(set(names)) < len(names):
        twice = [n for n, c in collections.Counter(names).items() if c > 1]
        raise errors.InputError(f"{what} has {twice[:5]} more than once.")


def check_types(
    cls: type | Callable[..., Any], values: Mapping[str, Any]
) -> None:
    """Raises InputError for a value that is not of its field's type.

    As in JSON, a list is accepted for a tuple and an int for a float. Numbers
    must be finite. Types other than int, float, bool, str, None, tuples and
    unions of these are not checked.
    """
    try:
        hints = typing.get_type_hints(cls)
    except NameError:  # a user's class imports a type under TYPE_CHECKING
        return
    for name, value in values.items():
        if name in hints and not _fits(hints[name], value):
            raise errors.InputError(
                f"{name} is {_shown(value)}; expected "
                f"{_type_text(hints[name])}.",
                argument=name,
            )


def check_bounds(cls: type, values: Mapping[str, Any]) -> None:
    """Raises InputError for a value out of bounds or not among the choices.

    The metadata of a field declared by `option` has `bounds` and `choices`.
    """
    for field in dataclasses.fields(cls):
        if field.name not in values:
            continue
        value = values[field.name]
        choices = field.metadata.get("choices")
        if choices and value not in choices:
            raise errors.InputError(
                f"{field.name}={value}: expected one of {', '.join(choices)}.",
                argument=field.name,
            )
        bounds = field.metadata.get("bounds")
        if not bounds or value is None:
            continue
        minimum = bounds.get("lower_bound", value)
        maximum = bounds.get("upper_bound", value)
        if not minimum <= value <= maximum:
            if "upper_bound" not in bounds:
                expected = f"at least {minimum}"
            elif "lower_bound" not in bounds:
                expected = f"at most {maximum}"
            else:
                expected = f"{minimum} to {maximum}"
            raise errors.InputError(
                f"{field.name}={value}: expected {expected}.",
                argument=field.name,
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
    except OverflowError:  # an integer too large for a float
        return False


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _type_text(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a string"}
    names |= {bool: "true or false", types.NoneType: "null"}
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_type_text, typing.get_args(hint)))
    if origin is tuple:
        return f"a list, each item {_type_text(typing.get_args(hint)[0])}"
    return names.get(hint, str(hint))


def _shown(value: Any, longest: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= longest else text[:longest] + "..."
