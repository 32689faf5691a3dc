"""Reads the rows of Parquet files (`pip install 'bert-keras[parquet]'`)."""

import contextlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from bert_keras import errors, files

SUFFIX = ".parquet"
_ROWS = 1000  # Rows in memory at a time.


class Row(Mapping[str, Any]):
    """A row, whose values become Python's when they are looked up.

    So a column that nobody reads, such as images, costs nothing here.
    """

    def __init__(self, batch: Any, index: int):
        self._batch, self._index = batch, index

    def __getitem__(self, name: str) -> Any:
        """Returns a value; ValueError for text that is not UTF-8."""
        column = self._batch.schema.get_field_index(name)
        if column < 0:
            raise KeyError(name)
        try:
            return self._batch.column(column)[self._index].as_py()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"expected UTF-8 (byte {error.start + 1} of the text)"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._batch.schema.names

    def __iter__(self) -> Iterator[str]:
        """Yields the names of the columns; one that occurs twice, twice."""
        return iter(self._batch.schema.names)

    def __len__(self) -> int:
        return len(self._batch.schema.names)


def rows(path: str) -> Iterator[Row]:
    """Yields the rows of a file; InputError if it cannot be read."""
    with _opened(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS):
            for index in range(batch.num_rows):
                yield Row(batch, index)


def values(
    path: str, column: str, indices: Iterable[int] | None = None
) -> Iterator[Any]:
    """Yields the values of a column; InputError if there is no such column.

    indices: of rows, from 0, ascending; None: all. Only groups of rows that
      have one of them are read.
    """
    with _opened(path) as file:
        names = file.schema_arrow.names
        if names.count(column) != 1:
            raise errors.InputError(
                f"{path}: expected one column {column!r}, found the columns "
                f"{', '.join(map(repr, names))}."
            )
        wanted = iter(
            range(file.metadata.num_rows) if indices is None else indices
        )
        index = next(wanted, None)
        start = 0  # index of the first row of the current group or batch
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            if index is not None and index < stop:
                for batch in file.iter_batches(
                    _ROWS, row_groups=[group], columns=[column]
                ):
                    end = start + batch.num_rows
                    while index is not None and index < end:
                        try:
                            yield Row(batch, index - start)[column]
                        except ValueError as problem:
                            raise errors.InputError(
                                f"{path}, row {index + 1}: {problem}."
                            ) from None
                        index = next(wanted, None)
                    start = end
            start = stop


def count(path: str) -> int:
    """Returns the number of rows."""
    with _opened(path) as file:
        return file.metadata.num_rows


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    """Opens a pyarrow.parquet.ParquetFile; its errors become InputErrors."""
    if importlib.util.find_spec("pyarrow") is None:
        raise errors.InputError(
            f"{path}: Parquet files are read with pyarrow, which is not "
            "installed; pip install 'bert-keras[parquet]'."
        )
    import pyarrow
    import pyarrow.parquet

    if not tf.io.gfile.exists(path):
        raise errors.InputError(
            f"{path} cannot be read: there is no such file."
        )
    try:
        with contextlib.ExitStack() as stack:
            source: Any = files.local_path(path)
            if source is None:
                source = stack.enter_context(_RemoteFile(path, "rb"))
            yield stack.enter_context(pyarrow.parquet.ParquetFile(source))
    except (pyarrow.ArrowException, OSError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())
        raise errors.InputError(f"{path} cannot be read: {reason}") from None


class _RemoteFile(tf.io.gfile.GFile):
    """A file on any file system of TensorFlow, for pyarrow."""

    closed = False  # pyarrow reads a file only if it has this attribute
