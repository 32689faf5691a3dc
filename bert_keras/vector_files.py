"""A .npy file of many vectors, written row by row, and continued if stopped."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from bert_keras import errors, files, options

DTYPES = ("float32", "float16", "int8")
_INT8 = 127  # what 1 becomes
_PARTIAL, _STATE = ".partial", ".partial.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which vector an embedding is; None: as the checkpoint specifies."""

    layers: str | None = options.option(
        None,
        "For embedding: indices of the layers whose mean is taken, with commas "
        "between; 0 is the embeddings. Default: -1, the last one.",
        value_type=str,
    )
    pooling: str | None = options.option(
        None,
        "For embedding: mean, max or first, the state of [CLS]. Default: mean.",
        value_type=str,
    )
    normalize: bool | None = options.option(
        None,
        "For embedding: scale vectors to length 1. Default: true.",
        value_type=bool,
    )


class VectorFile:
    """Writes `path`, an array (T, ...) of one dtype.

    Rows are appended to `path`.partial, whose header numpy leaves room in for
    the number of rows; it becomes `path` when it is closed without an error.
    A file that was stopped is continued if `identity` is the same: `done` is
    the number of rows that it has.

    shape: that of a row. dtype: float16 rounds; int8 is round(127 x), for
      values from -1 to 1.

    >>> with VectorFile("x.npy", shape=(2,), dtype="int8", identity={}) as file:
    ...     file.write([0.5, -1.0])
    >>> np.load("x.npy")
    array([[  64, -127]], dtype=int8)

    Raises InputError for a path that is not local, and a value that the dtype
    cannot hold.
    """

    def __init__(
        self,
        path: str,
        *,
        shape: tuple[int, ...],
        dtype: str,
        identity: Mapping[str, Any],
    ):
        if files.local_path(path) != path:
            raise errors.InputError(
                f"output={path}: vectors are written to local files, so that "
                "a stopped run can continue; copy the file when it is done.",
                argument="output",
            )
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
        self._state = _digest({**identity, "shape": shape, "dtype": dtype})
        self._row_bytes = math.prod(shape) * self.dtype.itemsize
        self.done = self._rows_written()
        self._file: BinaryIO

    def __enter__(self) -> "VectorFile":
        partial = self.path + _PARTIAL
        if not self.done:
            files.write_json(self.path + _STATE, {"of": self._state})
            with open(partial, "wb") as file:
                self._write_header(file, 0)
        self._file = open(partial, "r+b")
        self._header_bytes = _header_bytes(self._file)
        # A row that was written in part is written again.
        self._file.truncate(self._header_bytes + self.done * self._row_bytes)
        self._file.seek(0, os.SEEK_END)
        return self

    def write(self, row: Any) -> None:
        """Appends a row."""
        values = np.asarray(row, np.float32)
        if values.shape != self.shape:
            raise ValueError(
                f"expected a row of the shape {self.shape}, found "
                f"{values.shape}."
            )
        if self.dtype == np.int8:
            if not np.all(np.abs(values) <= 1.0 + 1e-5):
                raise errors.InputError(
                    "dtype=int8: expected values from -1 to 1, found "
                    f"{values.flat[np.abs(values).argmax()]:.4g}; normalize "
                    "the vectors, or take float16.",
                    argument="dtype",
                )
            values = np.clip(np.rint(values * _INT8), -_INT8, _INT8)
        if self.dtype == np.float16:
            most = np.finfo(np.float16).max
            if np.any(np.isfinite(values) & (np.abs(values) > most)):
                raise errors.InputError(
                    f"dtype=float16: expected values up to {most:g}, found "
                    f"{np.nanmax(np.abs(values)):.4g}; take float32.",
                    argument="dtype",
                )
        self._file.write(values.astype(self.dtype).tobytes())
        self.done += 1

    def __exit__(self, kind: Any, *error: object) -> None:
        if kind is None:
            self._file.seek(0)
            self._write_header(self._file, self.done)
        self._file.close()
        if kind is None:
            os.replace(self.path + _PARTIAL, self.path)
            os.remove(self.path + _STATE)

    def _write_header(self, file: BinaryIO, rows: int) -> None:
        np.lib.format.write_array_header_1_0(
            file,
            {
                "shape": (rows, *self.shape),
                "fortran_order": False,
                "descr": np.lib.format.dtype_to_descr(self.dtype),
            },
        )

    def _rows_written(self) -> int:
        """Returns the number of complete rows of a file to continue, or 0."""
        with contextlib.suppress(FileNotFoundError, errors.InputError):
            state = files.read_json(self.path + _STATE)
            if state.get("of") == self._state:
                with open(self.path + _PARTIAL, "rb") as file:
                    size = file.seek(0, os.SEEK_END) - _header_bytes(file)
                return max(0, size) // self._row_bytes
        return 0


def _header_bytes(file: BinaryIO) -> int:
    """Returns the size of the header: where the first row begins."""
    file.seek(0)
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    return file.tell()


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
