"""Memory-maps the tensors of a local safetensors file."""

import json
from collections.abc import Sequence

import numpy as np

from bert_keras import errors

_DTYPE_PREFIXES = {"F": "float", "I": "int", "U": "uint"}


def tensors(path: str) -> dict[str, np.ndarray]:
    """Returns the tensors of a file as read-only memory-mapped arrays.

    The file has 8 bytes with the header's length, a JSON header, then the data.
    Raises InputError if it is missing, empty, truncated or of another format,
    or has a dtype other than integers and IEEE floats.
    """
    try:
        data = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError):
        raise errors.InputError(
            f"{path} is missing or empty; create or copy its folder again."
        ) from None
    try:
        end = 8 + int(data[:8].view(np.uint64)[0])
        header = json.loads(bytes(data[8:end]))
        header.pop("__metadata__", None)
        return {
            name: _view(data[end:], **entry) for name, entry in header.items()
        }
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ):
        raise errors.InputError(
            f"{path} is damaged or truncated, or has a dtype that is not "
            "supported; create or copy its folder again."
        ) from None


def _view(
    data: np.ndarray,
    *,
    dtype: str,
    shape: Sequence[int],
    data_offsets: Sequence[int],
) -> np.ndarray:
    numpy_dtype = np.dtype(_DTYPE_PREFIXES[dtype[0]] + dtype[1:])
    start, end = data_offsets
    if not 0 <= start <= end <= len(data):
        raise ValueError(f"no bytes {start} to {end}")
    return np.asarray(data[start:end]).view(numpy_dtype).reshape(shape)
