"""Writes variables by name, and assigns them with a check of all names."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from bert_keras import errors


def write(path: str, variables: Mapping[str, Any]) -> None:
    """Writes variables to a local safetensors file."""
    values = {
        # Not np.ascontiguousarray, which turns shape () into (1,).
        key: np.asarray(value.numpy(), order="C")
        for key, value in variables.items()
    }
    safetensors.numpy.save_file(values, path)


def assign(
    variables: Mapping[str, Any], values: Mapping[str, np.ndarray], path: str
) -> None:
    """Assigns every value; raises InputError unless names and shapes agree.

    path: the file that the values are from, for the message.
    """
    stored = {key: tuple(value.shape) for key, value in values.items()}
    expected = {key: tuple(value.shape) for key, value in variables.items()}
    if stored != expected:
        raise errors.InputError(
            f"{path} does not fit the model: {differences(expected, stored)}"
        )
    for key, variable in variables.items():
        variable.assign(values[key])


def differences(expected: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    """Describes missing and unexpected names and other shapes, in one line."""
    messages = []
    missing = sorted(set(expected) - set(stored))
    extra = sorted(set(stored) - set(expected))
    if missing:
        messages.append(f"missing {_some(missing)}")
    if extra:
        messages.append(f"not in the model {_some(extra)}")
    for key in sorted(set(expected) & set(stored)):
        if expected[key] != stored[key]:
            messages.append(
                f"{key} is {stored[key]} there and {expected[key]} in the model"
            )
    return "; ".join(messages) + "."


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
