"""Variables and arrays by name: written, compared both ways, assigned."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from bert_keras import errors


def write(path: str, variables: Mapping[str, Any]) -> None:
    """Writes variables to a local safetensors file."""
    values = {
        # Not ascontiguousarray, which makes a shape () into (1,).
        key: np.asarray(value.numpy(), order="C")
        for key, value in variables.items()
    }
    safetensors.numpy.save_file(values, path)


def assign(
    variables: Mapping[str, Any], values: Mapping[str, np.ndarray], path: str
) -> None:
    """Assigns every value; raises InputError unless names and shapes agree.

    path: where the values are from, for the message.
    """
    theirs = {key: tuple(value.shape) for key, value in values.items()}
    ours = {key: tuple(value.shape) for key, value in variables.items()}
    if theirs != ours:
        raise errors.InputError(
            f"{path} does not fit the model: {differences(ours, theirs)}"
        )
    for key, variable in variables.items():
        variable.assign(values[key])


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """One line: what is missing, left over, or of another shape."""
    messages = []
    missing = sorted(set(ours) - set(theirs))
    extra = sorted(set(theirs) - set(ours))
    if missing:
        messages.append(f"missing {_some(missing)}")
    if extra:
        messages.append(f"not in the model {_some(extra)}")
    for key in sorted(set(ours) & set(theirs)):
        if ours[key] != theirs[key]:
            messages.append(
                f"{key} is {theirs[key]} there and {ours[key]} in the model"
            )
    return "; ".join(messages) + "."


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
