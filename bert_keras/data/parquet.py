"""Reads the rows of Parquet files (`pip install 'bert-keras[parquet]'`)."""

import bisect
import contextlib
import importlib.util
import itertools
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any

import tensorflow as tf

from bert_keras import errors, files

SUFFIX = ".parquet"
_ROWS = 100  # Rows in memory at a time; reading is not faster with more.
# Bytes read at a time. By default pyarrow reads all of a group's column at
# once: 300 MB of text in one group took 350 MB of memory, and takes 50 MB so.
_BUFFER_BYTES = 1 << 20


class Row(Mapping[str, Any]):
    """A row, whose values become Python's when they are looked up.

    Binary values are text in UTF-8: Hive, Impala and old versions of Spark
    write text without marking it as such. Without a batch, a row has only the
    names of its columns.
    """

    def __init__(self, names: Sequence[str], batch: Any = None, index: int = 0):
        self._names, self._batch, self._index = names, batch, index

    def __getitem__(self, name: str) -> Any:
        """Returns a value; ValueError for text that is not UTF-8."""
        if self._batch is None or name not in self._names:
            raise KeyError(name)
        try:
            return _decode(self._batch.column(name)[self._index].as_py())
        except UnicodeDecodeError as error:
            raise ValueError(
                f"expected UTF-8 (byte {error.start + 1} of the text)"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        """Yields the names of the columns; one that occurs twice, twice."""
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _decode(value: Any) -> Any:
    """Decodes bytes, also in a list; returns other values as they are."""
    if isinstance(value, bytes):
        return value.decode()
    return list(map(_decode, value)) if isinstance(value, list) else value


def rows(path: str, columns: Callable[[Row], Collection[str]]) -> Iterator[Row]:
    """Yields the rows of a file; InputError if it cannot be read.

    columns: selects the columns to read, from a row that has names only. The
      others, such as images, are not read from the file. It is not called if
      there are no rows.
    """
    with _opened(path) as file:
        if not file.metadata.num_rows:
            return
        selected = columns(Row(file.schema_arrow.names))
        for batch in file.iter_batches(_ROWS, columns=list(selected)):
            for index in range(batch.num_rows):
                yield Row(batch.schema.names, batch, index)


def values(
    path: str, column: str, indices: Iterable[int] | None = None
) -> Iterator[Any]:
    """Yields the values of a column; InputError if there is no such column.

    indices: of rows, from 0, ascending; None: all. Groups of rows without any
      are skipped; others are decoded up to their last one, some 1 GB of text
      in a second.
    """
    with _opened(path) as file:
        names = file.schema_arrow.names
        if names.count(column) != 1:
            raise errors.InputError(
                f"{path}: expected one column {column!r}, found the columns "
                f"{', '.join(map(repr, names))}. Name the one that holds the "
                "text in `text_field`."
            )
        if indices is None:
            indices = range(file.metadata.num_rows)
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        starts = [0, *itertools.accumulate(group.num_rows for group in groups)]
        for group, group_indices in itertools.groupby(
            indices, lambda index: bisect.bisect_right(starts, index) - 1
        ):
            batches = file.iter_batches(
                _ROWS, row_groups=[group], columns=[column]
            )
            start = stop = starts[group]  # rows of the batch
            for index in group_indices:
                while index >= stop:
                    batch = next(batches, None)
                    if batch is None:
                        raise OSError(
                            f"group {group} has fewer rows than the footer says"
                        )
                    start, stop = stop, stop + batch.num_rows
                try:
                    value = Row([column], batch, index - start)[column]
                except ValueError as problem:
                    raise errors.InputError(
                        f"{path}, row {index + 1}: {problem}."
                    ) from None
                yield value


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
            yield stack.enter_context(
                pyarrow.parquet.ParquetFile(
                    source, buffer_size=_BUFFER_BYTES, pre_buffer=False
                )
            )
    except (
        pyarrow.ArrowException,
        OSError,
        UnicodeDecodeError,  # of the name of a column
        tf.errors.OpError,
    ) as error:
        reason = " ".join(str(error).split())
        raise errors.InputError(f"{path} cannot be read: {reason}") from None


class _RemoteFile(tf.io.gfile.GFile):
    """A file on any file system of TensorFlow, for pyarrow."""

    closed = False  # pyarrow reads a file only if it has this attribute
