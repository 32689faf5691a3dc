"""Reads tables and JSON files as rows of any values, by the names of columns.

For tasks whose rows hold lists: `labelled_files` reads texts and labels only.
Tables are split as there. JSON is one object a line, or a .json file with one
object or a list of them.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bert_keras import errors
from bert_keras.data import csv_separator, json_lines, table_rows, text_lines


def read(
    path: str,
    columns: Mapping[str, str],
    common: Mapping[str, Sequence[str]],
) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yields (where, {column: value}) of each row.

    columns: those that the user names, as standard name -> column. If all are
      numbers, they are positions in a table without a header, and the keys of
      its rows.
    common: standard names -> common names of columns.

    Raises InputError for a malformed row, and for a header where positions
    are given.
    """
    text_lines.refuse_folder(path)
    lower = path.lower().removesuffix(".gz")
    suffix = f".{lower.rpartition('.')[2]}"
    if suffix not in table_rows.READERS:
        raise errors.InputError(
            f"{path}: expected a name that ends in "
            f"{', '.join(table_rows.READERS)}, with or without .gz."
        )
    if suffix == ".json" and (objects := _json_document(path)) is not None:
        for number, value in enumerate(objects, 1):
            if not isinstance(value, Mapping):
                raise errors.InputError(
                    f"{path}, object {number}: expected an object, found "
                    f"{json_lines.name_of(value)}."
                )
            yield f"object {number}", value
    elif suffix in table_rows.TABLES:
        yield from _table(path, suffix, columns, common)
    else:
        for raw in _checked(path, table_rows.READERS[suffix](path, list)):
            yield raw.where, raw.fields  # type: ignore[misc]


def _table(
    path: str,
    suffix: str,
    columns: Mapping[str, str],
    common: Mapping[str, Sequence[str]],
) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yields the rows of a .csv or .tsv file, as `read` does."""
    if suffix == ".csv":
        raw_rows = table_rows.read_csv(
            path, separator=csv_separator.infer(path, indices=[])
        )
    else:
        raw_rows = table_rows.READERS[suffix](path, list)
    # Numbers are positions in a file without a header.
    by_index = bool(columns) and all(map(str.isdecimal, columns.values()))
    header: Sequence[str] | None = None
    for raw in _checked(path, raw_rows):
        if header is None:
            by_name = [str(name).strip() for name in raw.fields]
            indices = [str(index) for index in range(len(raw.fields))]
            header = indices if by_index else by_name
            if len(set(header)) < len(header):
                raise errors.InputError(
                    f"{path}: expected columns with different names, found "
                    f"{', '.join(map(repr, header))}."
                )
            if not by_index:
                continue
            _refuse_header(path, list(raw.fields), columns, common)
        if len(raw.fields) != len(header):
            raise errors.InputError(
                f"{path}, {raw.where}: expected {len(header)} fields, found "
                f"{len(raw.fields)}. Fix the row."
            )
        yield raw.where, dict(zip(header, raw.fields, strict=True))


def _checked(
    path: str, raw_rows: Iterator[table_rows.RawRow]
) -> Iterator[table_rows.RawRow]:
    """Yields the rows; InputError for one that cannot be read."""
    for raw in raw_rows:
        if raw.problem:
            raise errors.InputError(
                f"{path}, {raw.where}: {raw.problem}. "
                f"{raw.remedy or 'Fix the row.'}"
            )
        yield raw


def _refuse_header(
    path: str,
    first: Sequence[str],
    columns: Mapping[str, str],
    common: Mapping[str, Sequence[str]],
) -> None:
    """Raises InputError if the first row has names, not texts and labels."""
    cells = {
        name: first[int(column)].strip().casefold()
        for name, column in columns.items()
        if name in common and int(column) < len(first)
    }
    if cells and all(
        cell in map(str.casefold, common[name]) for name, cell in cells.items()
    ):
        raise errors.InputError(
            f"{path}: the columns {', '.join(columns.values())} are positions "
            "in a file without a header, but the first row is one: "
            f"{', '.join(map(repr, first))}. Name the columns, or remove it."
        )


def _json_document(path: str) -> list[Any] | None:
    """Returns the objects of a file that is one JSON value, else None."""
    lines = [
        text_lines.decode_loosely(line).strip()
        for line in text_lines.read(path)
    ]
    lines = [line for line in lines if line]
    if not lines or (
        lines[0].startswith("{") and lines[0].endswith("}") and len(lines) > 1
    ):
        return None  # an object a line
    try:
        value = json_lines.loads("\n".join(lines))
    except json_lines.JsonError:
        return None  # the reader of lines names the line
    return value if isinstance(value, list) else [value]


def recognise(
    available: Sequence[Any],
    keys: Mapping[str, Any],
    common: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Adds columns with common names to {standard name: column}.

    A column is used once.
    """
    keys = dict(keys)
    unused = {
        str(column).strip().casefold(): column
        for column in available
        if column not in keys.values()
    }
    for name, candidates in common.items():
        if name in keys:
            continue
        for candidate in candidates:
            if candidate.casefold() in unused:
                keys[name] = unused.pop(candidate.casefold())
                break
    return keys


def check_named(
    path: str, available: Sequence[Any], columns: Mapping[str, str]
) -> None:
    """Raises InputError if a file lacks a column that the user names."""
    for name, column in columns.items():
        if column not in available:
            raise errors.InputError(
                f"{path}: expected the column {column!r} for {name}; the "
                f"columns there are {', '.join(map(repr, available))}."
            )


@contextlib.contextmanager
def located(path: str, where: str) -> Iterator[None]:
    """Raises InputError with the place in the file for a ValueError."""
    try:
        yield
    except errors.InputError:
        raise
    except ValueError as problem:
        raise errors.InputError(f"{path}, {where}: {problem}.") from None
