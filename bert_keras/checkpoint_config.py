"""Reads and writes a checkpoint's config.json, with version and checksum.

{"format": "bert_keras.checkpoint.2", "step": 12000,
 "network": {"name": "bert", ...}, "tokenizer": {"name": "wordpiece", ...},
 "task": {"name": "classification", ...} or null, the trainer's state,
 "sha256": {file: its SHA-256}, "checksum": SHA-256 of the values above}
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from bert_keras import errors, files

FORMAT = "bert_keras.checkpoint.2"
# The previous format: networks and tokenizers have no name.
FORMAT_1 = "bert_keras.checkpoint.1"


def write(path: str, values: Mapping[str, Any]) -> None:
    """Writes the values to a local file, with their format and checksum."""
    config = {"format": FORMAT, **values}
    # Checksum of the values as they will be read: JSON turns tuples into lists.
    config["checksum"] = _checksum(json.loads(json.dumps(config)))
    files.write_json(path, config, indent=1)


def read(path: str) -> dict[str, Any]:
    """Reads a config.json of format 1 or 2; returns the fields of format 2.

    Raises InputError if a required field is missing or has another type.
    """
    try:
        values = files.read_json(path)
    except errors.InputError as error:
        raise errors.InputError(
            f"{error} Use an earlier step's folder."
        ) from None
    if values.get("format") not in (FORMAT, FORMAT_1):
        raise errors.InputError(
            f"{os.path.dirname(path)} has format {values.get('format')!r}; "
            f"this version reads {FORMAT!r} and {FORMAT_1!r}."
        )
    checksum = values.pop("checksum", None)
    if checksum and checksum != _checksum(values):
        raise errors.InputError(
            f"{path} is damaged: its checksum is not that of its values. Use "
            "an earlier step, or copy the folder again; after editing it by "
            'hand, remove the line "checksum".'
        )
    try:
        _check_fields(values)
    except errors.InputError as error:
        raise errors.InputError(f"{path}: {error}") from None
    if values["format"] == FORMAT_1:
        values |= _format_2_fields(values)
    return values


def _check_fields(values: Mapping[str, Any]) -> None:
    """Raises InputError if a required field is missing or of another type."""
    fields: dict[str, Any] = {"network": dict, "tokenizer": dict}
    if values["format"] == FORMAT_1:
        fields = {"bert": dict, "lowercase": bool}
    fields |= {"task": (dict, type(None)), "step": int, "sha256": dict}
    for name, types in fields.items():
        if name not in values:
            raise errors.InputError(f"the field {name!r} is missing.")
        if not isinstance(values[name], types):
            raise errors.InputError(
                f"{name!r} is {str(values[name])[:40]!r}, which is of another "
                "type than what was written."
            )
    step = values["step"]
    if isinstance(step, bool) or not 0 <= step < 10**15:
        raise errors.InputError(
            f"'step' is {step}; expected a step from 0 to 10**15 - 1."
        )


def _format_2_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of format 2 that have other names in format 1."""
    tokenizer = {"name": "wordpiece", "lowercase": values["lowercase"]}
    return {"network": values["bert"], "tokenizer": tokenizer}


def _checksum(values: Mapping[str, Any]) -> str:
    """Returns the checksum of the values, whatever their order and layout."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
