"""Reads the rows of labelled files, one reader per format.

To add a format, add an entry to READERS. A row is malformed if it cannot be
read; whether its fields fit is up to the module `labelled_files`.
"""

import collections
import csv
import functools
import re
from collections.abc import (
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, NamedTuple

from bert_keras import errors
from bert_keras.data import json_lines, parquet, text_lines


class RawRow(NamedTuple):
    """A row of the file: fields by position or by name."""

    number: int  # of its first line, or of the row; from 1
    fields: Sequence[str] | Mapping[str, Any] = ()
    problem: str = ""  # why the row is malformed
    remedy: str = ""  # what to do, if it is not a problem of this row alone
    doubt: str = ""  # why a readable row may be malformed
    unit: str = "line"  # that the number counts

    @property
    def where(self) -> str:
        return f"{self.unit} {self.number}"


# Selects the columns to read, from a row that has only their names.
SelectColumns = Callable[[Mapping[str, Any]], Collection[Any]]


def _read_tsv(path: str, _: SelectColumns) -> Iterator[RawRow]:
    for number, text, problem in _numbered_lines(path):
        if problem:
            yield _undecodable(path, number, problem)
        elif text:
            yield RawRow(number, text.split("\t"))


def read_csv(
    path: str, _: SelectColumns | None = None, separator: str = ","
) -> Iterator[RawRow]:
    """Yields the rows of a file that is quoted as in RFC 4180."""
    # A row may span lines, so invalid UTF-8 passes the parser as lone
    # surrogates, which are searched for in the parsed fields.
    lines = _Lines(
        f"{text_lines.decode_loosely(line)}\n" for line in text_lines.read(path)
    )
    reader = csv.reader(lines, delimiter=separator, strict=True)
    # Fields of one-line rows, for _look_like_rows.
    one_line_fields: set[str] = set()
    width = None
    while True:
        lines.start()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = _csv_problem(error, lines)
            yield RawRow(lines.number, problem=problem)
            lines.rewind()
            continue
        several = len(lines.taken) > 1
        doubt = ""
        if several and _look_like_rows(
            lines.taken, fields, width, one_line_fields, separator
        ):
            doubt = _missing_quote_message(lines.taken)
        may_be_text = len(lines.taken) <= _MOST_DOUBTED
        if doubt and not (may_be_text and len(fields) == width):
            yield RawRow(lines.number, problem=doubt)
            lines.rewind()
        elif invalid := next(
            filter(None, map(_SURROGATE.search, fields)), None
        ):
            byte = ord(invalid[0]) - 0xDC00
            problem = f"expected UTF-8, found byte 0x{byte:02X}"
            yield _undecodable(path, lines.number, problem)
        elif fields:
            width = width or len(fields)
            if not several and len(one_line_fields) < _MAX_KNOWN_FIELDS:
                one_line_fields.update(
                    field for field in fields if len(field) < 100
                )
            yield RawRow(lines.number, fields, doubt=doubt)


class _Lines(Iterator[str]):
    """Yields lines to the CSV parser, and can rewind to a row's second line.

    Rereading is bounded, so that time stays linear in the file's lines: beyond
    the bound, the parser sees the end of its input.
    """

    def __init__(self, lines: Iterator[str]):
        self._lines = lines
        self._reread: collections.deque[str] = collections.deque()
        self._rereads_left = _MAX_REREAD  # lines that may still be read again
        self.taken: list[str] = []  # lines of the current row
        self.number = 1  # number of the first of them
        self.stopped = False  # whether the row exceeded the bound

    def __next__(self) -> str:
        again = self._reread
        if (
            len(self.taken) > _MIN_REREAD
            and len(self.taken) > self._rereads_left
        ):
            self.stopped = True
            raise StopIteration
        line = again.popleft() if again else next(self._lines)
        self.taken.append(line)
        return line

    def start(self) -> None:
        """Starts a new row."""
        self.number += len(self.taken)
        self.taken, self.stopped = [], False

    def rewind(self) -> None:
        """Returns all lines of the row but the first to the input."""
        self._rereads_left -= len(self.taken) - 1
        self._reread.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def _look_like_rows(
    taken: Sequence[str],
    fields: Sequence[str],
    width: int | None,
    one_line_fields: Collection[str],
    separator: str,
) -> bool:
    """Returns whether the lines of a quoted field look like rows themselves.

    That happens if a closing quote is missing and a later stray quote closes
    the field. Each line, without the opening quote, must have `width` fields,
    and most lines must share a field, such as a label, with other rows. If the
    quoted part of the last line also has `width` fields and shares one with
    other rows, the field is a text: after a missing quote, the label would
    follow the quote.
    """
    rows: list[list[str]] = []
    split = functools.partial(csv.reader, delimiter=separator)
    for line in taken[:-1]:
        if not rows:  # Remove the opening quote from its row.
            line = line[: line.rfind('"')] + line[line.rfind('"') + 1 :]
        try:
            rows.append(next(split([line], strict=True)))
        except csv.Error:
            return False
    if width is None or any(len(row) != width for row in rows):
        return False
    counts = collections.Counter(
        field for row in rows for field in set(row) if field.strip()
    )
    same = [
        any(
            (field in one_line_fields and field) or counts[field] > 1
            for field in row
        )
        for row in rows
    ]
    if len(fields) == width:
        quoted = next(field for field in fields if "\n" in field)
        end = next(split([quoted.rpartition("\n")[2]]), [])
        if len(end) == width and any(
            f in one_line_fields or counts[f] for f in end if f
        ):
            return False
    return 2 * sum(same) > len(rows)


def _missing_quote_message(taken: Sequence[str]) -> str:
    return (
        f"the quoted field continues for {len(taken):,} lines that look like "
        "rows; is a quote missing? Such a text can be written as .jsonl"
    )


def _csv_problem(error: csv.Error, lines: _Lines) -> str:
    reason = str(error)
    if "limit" in reason:
        reason += (
            " of characters; write longer fields as .tsv or .jsonl, which "
            "have no limit"
        )
    elif "new-line" in reason:
        reason = (
            "a field contains a CR; put the field in quotes, or end each "
            "line with LF or CR LF"
        )
    elif "end of data" in reason:
        reason = "the quote that opens here is not closed"
        if lines.stopped:
            reason += ", as in several earlier rows"
    elif "expected after" in reason:
        reason = "text follows a closing quote"
    problem = f"expected quoted CSV, but {reason}"
    if len(lines.taken) > 1:
        problem += f" in the {len(lines.taken):,} lines from this opening quote"
    return problem


def _read_json(path: str, _: SelectColumns) -> Iterator[RawRow]:
    first = True
    for number, text, problem in _numbered_lines(path):
        if problem:
            yield _undecodable(path, number, problem)
            continue
        text = text.strip()
        if not text:
            continue
        if first and text.startswith("["):
            raise errors.InputError(
                f"{path}: expected one JSON object a line, found a JSON array. "
                "Write each object on a line of its own, for example with "
                "jq -c '.[]'."
            )
        first = False
        try:
            row = json_lines.loads(text)
        except json_lines.JsonError as error:
            problem = f"expected one JSON object a line, but {error}"
        else:
            if not isinstance(row, dict):
                problem = (
                    "expected one JSON object a line, found "
                    f"{json_lines.name_of(row)}"
                )
        if problem:
            yield RawRow(number, problem=problem)
        else:
            yield RawRow(number, row)


def _read_parquet(path: str, select: SelectColumns) -> Iterator[RawRow]:
    for number, row in enumerate(parquet.rows(path, select), 1):
        yield RawRow(number, row, unit="row")


# Suffix -> a reader: path -> rows, without blank lines. Only a format that
# stores each column on its own uses the selection of columns.
READERS: dict[str, Callable[[str, SelectColumns], Iterator[RawRow]]] = {
    ".tsv": _read_tsv,
    ".csv": read_csv,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".ndjson": _read_json,
    ".parquet": _read_parquet,
}
TABLES = (".tsv", ".csv")  # whose first row may be a header
_SURROGATE = re.compile("[\udc80-\udcff]")
_MAX_KNOWN_FIELDS = 10_000
_MOST_DOUBTED = 10  # lines of a row that may be a text, or rows
# Maximum number of lines read again after unclosed quotes: _MAX_REREAD per
# file, then _MIN_REREAD per row. _MAX_REREAD exceeds the lines of a field of
# 131,072 characters, the limit of Python's csv.
_MAX_REREAD = 150_000
_MIN_REREAD = 30


def _numbered_lines(path: str) -> Iterator[tuple[int, str, str]]:
    """Yields (line number, text, problem or "")."""
    for number, line in enumerate(text_lines.read(path), 1):
        try:
            yield number, text_lines.decode(line), ""
        except ValueError as problem:
            yield number, "", str(problem)


def _undecodable(path: str, number: int, problem: str) -> RawRow:
    remedy = text_lines.how_to_convert(path)
    return RawRow(number, problem=problem, remedy=remedy)
