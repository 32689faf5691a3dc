"""Parses JSON from users strictly, with one type of readable error.

Python's `json` accepts values that fail later (a lone surrogate, a duplicate
key) and raises errors of several types.
"""

import collections
import json
import re
from typing import Any

from bert_keras import errors

_SURROGATES = re.compile("[\ud800-\udfff]")


class JsonError(ValueError):
    """The text is not valid JSON; the message is a phrase in lower case.

    `line` and `column` count from 1; 0 if the position is unknown.
    """

    def __init__(self, reason: str, line: int = 0, column: int = 0):
        self.reason, self.line, self.column = reason, line, column
        super().__init__(reason + f" at column {column}" * bool(column))


def loads(text: str) -> Any:
    """Parses JSON text; raises JsonError.

    A lone surrogate (half of a character, which UTF-8 cannot encode) becomes
    one U+FFFD, so that offsets do not change. NaN and Infinity are accepted,
    because Python and pandas write them.
    """
    text = text.removeprefix("\ufeff")
    try:
        value = json.loads(text, object_pairs_hook=_object)
        return _valid(value) if "\\u" in text else value
    except json.JSONDecodeError as error:
        raise JsonError(
            error.msg[:1].lower() + error.msg[1:], error.lineno, error.colno
        ) from None
    except RecursionError:
        raise JsonError("it is nested too deeply") from None
    except JsonError:
        raise
    except ValueError:  # Python's limit on the digits of an integer
        raise JsonError("a whole number has more than 4,300 digits") from None


def object_of(line: str, number: int) -> dict[str, Any]:
    """Parses a line that starts with {; InputError names the line."""
    try:
        return loads(line)
    except JsonError as error:
        raise errors.InputError(
            f"line {number} begins with {{ but is no JSON object: {error}."
        ) from None


def valid_text(text: str) -> str:
    """Replaces each lone surrogate by U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


def name_of(value: Any) -> str:
    """Describes a JSON or Python value for a message: "a list", "true", "3"."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        text = repr(value)
        return text if len(text) <= 30 else f"the number {text[:20]}..."
    names: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bytes: "bytes",
    }
    return names.get(type(value)) or f"a {type(value).__name__}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = collections.Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise JsonError(f"an object has the key {valid_text(twice)!r} twice")
    return values


def _valid(value: Any) -> Any:
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, list):
        return [_valid(item) for item in value]
    if isinstance(value, dict):
        return {_valid(key): _valid(item) for key, item in value.items()}
    return value
