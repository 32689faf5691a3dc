"""Labelled files as rows: dicts of strings under our own names.

Told apart by name: `.tsv` is split at TABs without any quoting, `.csv` is
quoted as RFC 4180 says, `.jsonl`, `.ndjson` and `.json` hold one JSON object a
line; all may be gzipped (`.gz`), and upper case is no other name. Another
format is one more entry of `_READERS`. Blank lines are skipped.
"""

import collections
import csv
import functools
import re
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, NamedTuple

from bert_keras import errors
from bert_keras.data import json_lines, labels, text_lines

# Our names and what others call them, the best match first. A column serves
# once: `sentence` is the second text of QNLI, whose first is `question`.
COMMON_COLUMNS = {
    "text": (
        *("text", "sentence1", "text_a", "question1", "premise", "question"),
        *("sentence", "#1 String"),
    ),
    "text_pair": (
        *("text_pair", "sentence2", "text_b", "question2", "hypothesis"),
        *("sentence", "#2 String"),
    ),
    "label": (
        *("label", "gold_label", "is_duplicate", "score", "Quality"),
        "label_desc",
    ),
}


class Examples(Iterator[dict[str, str]]):
    """The examples of one file, read lazily, once."""

    def __init__(
        self,
        path: str,
        examples: Iterator[dict[str, str] | None],
        notes: Callable[[], str] = str,
    ):
        self.path = path
        self.skipped = 0  # malformed rows passed over so far
        self._examples = examples
        self._count = 0
        self._notes = notes  # what else there is to say

    @property
    def note(self) -> str:
        """What a person should know of the rows read so far, or ""."""
        notes = [self._notes()]
        if self.skipped:
            notes.append(
                f"{self.skipped:,} of {self._count + self.skipped:,} rows are "
                "malformed and left out."
            )
        notes = " ".join(filter(None, notes))
        return f"{self.path}: {notes}" if notes else ""

    def __next__(self) -> dict[str, str]:
        for example in self._examples:
            if example is not None:
                self._count += 1
                return example
            self.skipped += 1
        if not self._count:
            if self.skipped:
                problem = f" that can be used; {self.skipped:,} are malformed."
            else:
                problem = f". {self._notes() or 'The file has no rows.'}"
            raise errors.InputError(
                f"{self.path}: expected rows, found none{problem}"
            )
        raise StopIteration

    def where(
        self,
        holds: Callable[[dict[str, str]], bool],
        notes: Callable[[], str] = str,
    ) -> "Examples":
        """These examples without those that are left out on purpose.

        `notes` is asked, with the rows' own, what to say of the rows so far.
        """
        kept = (
            example
            for example in self._examples
            if example is None or holds(example)
        )
        both = (self._notes, notes)
        return Examples(
            self.path,
            kept,
            lambda: " ".join(filter(None, (say() for say in both))),
        )


def read(
    path: str,
    *,
    columns: Mapping[str, str] | None = None,
    needed: Collection[str] = (),
    on_bad_row: str = "fail",
    label: Callable[[Any], str] = labels.one,
) -> Examples:
    """The columns wanted, one dict a row.

    columns maps our names to the file's: {"text": "sentence"}. A number is a
    position, from 0, in a file without a header; then all are numbers. None
    looks for the names in `COMMON_COLUMNS`, and so it is with a label that is
    not named. `needed` are names of ours that must be among them. `label`, a
    function of `labels`, reads that column; all others are texts. A malformed
    row (fields too many or too few, no JSON, no UTF-8, a wanted value missing
    or of another type) stops the reading; with on_bad_row="skip" it is counted
    in `Examples.skipped`. After a lost quote in a CSV file, reading goes on
    with the line after the one where the quote opens. A quoted text of a few
    lines that look like rows, but which ends as CSV wants it, may be meant: it
    stops the reading, and with "skip" it is one row, which the note names.
    """
    if on_bad_row not in ("fail", "skip"):
        raise ValueError(f"on_bad_row is fail or skip, not {on_bad_row!r}.")
    text_lines.refuse_folder(path)
    suffix = re.search(  # type: ignore[index]  # there is always a match
        r"(\.\w+)?$", path.lower().removesuffix(".gz")
    )[0]
    if suffix not in _READERS:
        raise errors.InputError(
            f"{path}: expected a name that ends in {', '.join(_READERS)}, "
            "with or without .gz."
        )
    raw_rows = _READERS[suffix](path)
    make_reader = functools.partial(
        _ColumnReader, path, columns=columns, needed=needed, label=label
    )
    has_header = suffix in _TABLES and not _are_positions(columns)
    doubts: list[str] = []
    examples = _examples(
        path, raw_rows, make_reader, on_bad_row == "skip", has_header, doubts
    )
    return Examples(path, examples, lambda: _doubt_message(doubts))


def _doubt_message(doubts: Sequence[str]) -> str:
    if not doubts:
        return ""
    return (
        f"{len(doubts):,} rows hold quoted lines that look like rows and are "
        f"read as one text each; is a quote lost? The first is at {doubts[0]}."
    )


def parse_columns(
    text: str, allowed: Collection[str] = ()
) -> dict[str, str] | None:
    """`text=sentence,label=gold` -> a mapping; nothing -> None.

    A column whose name has a comma is quoted: `text="review, long"`, with a
    quote inside doubled. `allowed` are the names of ours there may be.
    """
    columns = {}
    for item in filter(None, map(str.strip, _ITEMS.findall(text))):
        name, equals, column = map(str.strip, item.partition("="))
        if column.startswith('"'):
            is_quoted = _QUOTED.fullmatch(column)
            column = column[1:-1].replace('""', '"') if is_quoted else ""
        if not (name and equals and column):
            raise errors.InputError(
                f"columns: expected NAME=COLUMN[,NAME=COLUMN...], found "
                f"{item!r}, as in text=sentence,label=gold, or with a comma "
                'in the name of a column, text="review, long".'
            )
        if name in columns or (allowed and name not in allowed):
            problem = "twice" if name in columns else "unknown"
            raise errors.InputError(
                f"columns: expected {', '.join(allowed) or 'a name'} once "
                f"each, found {name} ({problem}) in {text!r}."
            )
        columns[name] = column
    return columns or None


# `NAME=COLUMN`, where a COLUMN in quotes may hold commas.
_ITEMS = re.compile(r'(?:[^,=]*=\s*"(?:[^"]|"")*"[^,]*|[^,]+)')
_QUOTED = re.compile(r'"(?:[^"]|"")+"')


def are_names(cells: Iterable[str]) -> bool:
    """Whether a first row is a header: all are names that columns often have.

    The common ones, and some that have to be named.
    """
    return all(cell.strip().casefold() in _NAMES for cell in cells)


class _RawRow(NamedTuple):
    """A row as it stands in the file: fields by position or by name."""

    line: int
    fields: Sequence[str] | Mapping[str, Any] = ()
    problem: str = ""  # what is wrong with it
    doubt: str = ""  # what may be wrong with it, though it can be read


def _examples(
    path: str,
    raw_rows: Iterator[_RawRow],
    make_reader: Callable[..., "_ColumnReader"],
    skip: bool,
    has_header: bool,
    doubts: list[str],
) -> Iterator[dict[str, str] | None]:
    """Dicts under our names; None for a row that is passed over."""
    reader, misfit = None, None
    for raw in raw_rows:
        if raw.problem and reader is None and has_header:
            raise errors.InputError(
                f"{path}, line {raw.line}: {raw.problem}. Fix the "
                "header, which names the columns."
            )
        example, problem = None, raw.problem or raw.doubt * (not skip)
        if raw.doubt and skip:
            doubts.append(f"line {raw.line}")
        if not problem and reader is None:
            try:
                reader = make_reader(raw.fields)
            except errors.InputError as error:
                # An object that lacks a column may be one malformed row.
                if not (skip and isinstance(raw.fields, Mapping)):
                    raise
                misfit, problem = misfit or error, str(error)
            else:
                if reader.header:
                    continue
        if reader and not problem:
            example, problem = reader.read(raw.fields)
        if problem and not skip:
            raise errors.InputError(
                f"{path}, line {raw.line}: {problem}. Fix the row, or skip "
                "rows that do not fit."
            )
        yield example
    if reader is None and misfit:
        raise misfit


class _ColumnReader:
    """Reads the wanted columns, which the first row of a file locates."""

    def __init__(self, path, first, *, columns, needed, label):
        named = isinstance(first, Mapping)
        self.label = label
        self._numbers: dict[float, str] = {}  # labels of JSON -> as written
        self.width = None if named else len(first)
        available: list[Any] = (
            list(first) if named else [name.strip() for name in first]
        )
        positions = not named and _are_positions(columns)
        if positions and _is_header(path, available, list(columns.values())):
            positions = False
        self.header = not named and not positions
        if positions:
            _refuse_header(path, available, columns)
            available = list(range(len(first)))
            # Longer ones are no positions, and Python's int has a limit.
            columns = {
                name: int(column) if len(column) < 10 else column
                for name, column in columns.items()
            }
        elif columns is None:
            columns = _recognise(path, available)
        elif "label" not in columns:
            columns = _with_label(path, available, columns)
        missing = [c for c in columns.values() if c not in available]
        if missing or not columns:
            wanted = ", ".join(map(_shown, missing)) or "a column of text"
            raise errors.InputError(
                f"{path}: expected {wanted}; the columns there are "
                f"{', '.join(map(repr, available))}. Name them, as in "
                "text=NAME,label=NAME; in a file without a header by "
                "position, as in text=0,label=1."
            )
        for column in columns.values():
            if available.count(column) > 1:
                raise errors.InputError(
                    f"{path}: expected one column {column!r}, found "
                    f"{available.count(column)} of that name. Rename the "
                    "others."
                )
        if absent := [name for name in needed if name not in columns]:
            raise errors.InputError(
                f"{path}: expected the columns {', '.join(needed)}, found "
                f"{', '.join(columns)} and no {', '.join(absent)}. Name the "
                f"columns with columns=text=...,{absent[0]}=..."
            )
        self.names = dict(columns)  # our name -> the file's, for messages
        self.keys = {
            name: column if named or positions else available.index(column)
            for name, column in columns.items()
        }

    def read(self, fields: Any) -> tuple[dict[str, str] | None, str]:
        """The row, or what is wrong with it."""
        if self.width is not None and len(fields) != self.width:
            return None, f"expected {self.width} fields, found {len(fields)}"
        example = {}
        for name, key in self.keys.items():
            if self.width is None and key not in fields:
                return None, f"expected a value for {key!r}, found none"
            read = self.label if name == "label" else _text_of
            try:
                example[name] = read(fields[key])
                if name == "label" and read != labels.number:
                    self._check_number(fields[key])
            except ValueError as problem:
                return None, f"column {self.names[name]!r}: {problem}"
        return example, ""

    def _check_number(self, value: Any) -> None:
        """Raises ValueError for a number that was written otherwise before."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return
        before = self._numbers.setdefault(value, repr(value))
        if before != repr(value):
            raise ValueError(
                f"expected {_shown(before)} as in a row before, found "
                f"{json_lines.name_of(value)}, which would be another label"
            )


def _are_positions(columns: Mapping[str, str] | None) -> bool:
    if not columns:
        return False
    return all(map(str.isdecimal, columns.values()))


def _shown(name: Any) -> str:
    """A name for messages; one of any length may come from a user."""
    text = str(name)
    return repr(name) if len(text) < 60 else f"{text[:50]!r}..."


def _text_of(value: Any) -> str:
    """A field as a text; JSON may hold anything."""
    if isinstance(value, str):
        return value
    raise ValueError(f"expected text, found {json_lines.name_of(value)}")


def _is_header(path: str, first: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a first row holds numbers as names, as pandas writes them."""
    if not set(wanted) <= set(first):
        return False
    others = {name for name in first if not name.isdecimal()}
    if {name.casefold() for name in others} <= _INDEX_NAMES:
        return True
    raise errors.InputError(
        f"{path}: the columns {', '.join(wanted)} are positions in a file "
        f"without a header, or names in the first row ({', '.join(first)}). "
        "Give the file a header of names that are no numbers."
    )


def _refuse_header(
    path: str, first: Sequence[str], columns: Mapping[str, str]
) -> None:
    """Raises InputError where a first row holds names, not texts and labels."""
    indices = {
        name: int(column)
        for name, column in columns.items()
        if len(column) < 10 and int(column) < len(first)
    }
    cells = {name: first[index] for name, index in indices.items()}
    if cells and are_names(cells.values()):
        named = ",".join(f"{name}={cell}" for name, cell in cells.items())
        raise errors.InputError(
            f"{path}: the columns {', '.join(columns.values())} are positions "
            "in a file without a header, but the first row is one: "
            f"{', '.join(map(repr, first))}. Name the columns, as in {named}, "
            "or take the first row away."
        )


_NAMES = {
    name.casefold() for names in COMMON_COLUMNS.values() for name in names
} | {
    *("abstract", "body", "category", "class", "comment", "content", "gold"),
    *("headline", "input", "intent", "labels", "message", "output", "query"),
    *("rating", "review", "sentiment", "similarity", "source", "stars"),
    *("summary", "tag", "tags", "target", "title", "topic", "tweet", "id"),
}

# How the unnamed column of row numbers is called.
_INDEX_NAMES = {"", "id", "index", "unnamed: 0"}


def _recognise(path: str, available: Sequence[str]) -> dict[str, str]:
    matches = _common(path, available)
    return matches if "text" in matches else {}


def _with_label(
    path: str, available: Sequence[str], columns: Mapping[str, str]
) -> dict[str, str]:
    """The columns that were named, and a label that has a common name."""
    matches = _common(path, available, only=("label",))
    if "label" in matches and matches["label"] not in columns.values():
        return {"label": matches["label"], **columns}
    return dict(columns)


def _common(
    path: str,
    available: Sequence[str],
    only: Collection[str] = tuple(COMMON_COLUMNS),
) -> dict[str, str]:
    """Our names -> those columns that have a common name."""
    free = collections.defaultdict(list)
    for column in available:
        free[column.strip().casefold()].append(column)
    matches = {}
    for wanted in only:
        for name in COMMON_COLUMNS[wanted]:
            if same := free.pop(name.casefold(), None):
                if len(same) > 1:
                    raise errors.InputError(
                        f"{path}: expected one column for {wanted}, found "
                        f"{' and '.join(map(repr, same))}. Rename the others."
                    )
                matches[wanted] = same[0]
                break
    return matches


# One reader per format: path -> records, blank lines left out.


def _read_tsv(path: str) -> Iterator[_RawRow]:
    for number, text, problem in _text(path):
        if problem:
            yield _RawRow(number, problem=problem)
        elif text:
            yield _RawRow(number, text.split("\t"))


def _read_csv(path: str) -> Iterator[_RawRow]:
    # A row may go over several lines, so bytes that are no UTF-8 go through
    # the parser as lone surrogates and are looked for in what comes out.
    lines = _Lines(f"{_loose(line)}\n" for line in text_lines.read(path))
    reader = csv.reader(lines, strict=True)
    # Fields of rows of one line, for _look_like_rows.
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
            yield _RawRow(lines.number, problem=problem)
            lines.rewind()
            continue
        several = len(lines.taken) > 1
        doubt = ""
        if several and _look_like_rows(
            lines.taken, fields, width, one_line_fields
        ):
            doubt = _lost(lines.taken)
        is_short = len(lines.taken) <= _MOST_DOUBTED
        if doubt and not (is_short and len(fields) == width):
            yield _RawRow(lines.number, problem=doubt)
            lines.rewind()
        elif any(map(_SURROGATE.search, fields)):
            yield _RawRow(lines.number, problem="expected UTF-8")
        elif fields:
            width = width or len(fields)
            if not several and len(one_line_fields) < _MOST_KNOWN:
                one_line_fields.update(
                    field for field in fields if len(field) < 100
                )
            yield _RawRow(lines.number, fields, doubt=doubt)


class _Lines(Iterator[str]):
    """Lines for the parser, which can read those of one row again.

    How many are read again grows with the lines of the file, and not with
    their square: a row that takes more looks as if the file ended there.
    """

    def __init__(self, lines: Iterator[str]):
        self._lines = lines
        self._again: collections.deque[str] = collections.deque()
        self._left = _MOST_AGAIN  # lines that may be read in vain
        self.taken: list[str] = []  # lines of the row that is read
        self.number = 1  # of the first of them
        self.stopped = False  # whether the row takes too many

    def __next__(self) -> str:
        again = self._again
        if len(self.taken) > _LEAST_AGAIN and len(self.taken) > self._left:
            self.stopped = True
            raise StopIteration
        line = again.popleft() if again else next(self._lines)
        self.taken.append(line)
        return line

    def start(self) -> None:
        """Begins a row."""
        self.number += len(self.taken)
        self.taken, self.stopped = [], False

    def rewind(self) -> None:
        """Takes all lines but the first of the row back."""
        self._left -= len(self.taken) - 1
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def _look_like_rows(
    taken: Sequence[str],
    fields: Sequence[str],
    width: int | None,
    one_line_fields: Collection[str],
) -> bool:
    """Whether the lines of a quoted field look like rows themselves.

    So it is where a quote was lost and the next one that is lost closes it.
    Each line, without the quote that opens, must have as many fields as the
    rows before, and most of them one that other rows have as well: a label.
    Where the part of the last line that is quoted is such a row, too, they are
    a text: of a row that lost a quote, the label would come after it.
    """
    rows: list[list[str]] = []
    for line in taken[:-1]:
        if not rows:  # the row where the quote opens, without it
            line = line[: line.rfind('"')] + line[line.rfind('"') + 1 :]
        try:
            rows.append(next(csv.reader([line], strict=True)))
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
        end = next(csv.reader([quoted.rpartition("\n")[2]]), [])
        if len(end) == width and any(
            f in one_line_fields or counts[f] for f in end if f
        ):
            return False
    return 2 * sum(same) > len(rows)


def _lost(taken: Sequence[str]) -> str:
    return (
        f"the quoted field continues for {len(taken):,} lines that look like "
        "rows; is a quote lost? A text of such lines can be written as .jsonl"
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
            reason += ", nor was it in several rows before"
    elif "expected after" in reason:
        reason = "a quote that is closed ends no field"
    problem = f"expected quoted CSV, but {reason}"
    if len(lines.taken) > 1:
        problem += (
            f" in the {len(lines.taken):,} lines from here, where a quote opens"
        )
    return problem


def _read_json(path: str) -> Iterator[_RawRow]:
    first = True
    for number, text, problem in _text(path):
        text = text.strip()
        if not problem and not text:
            continue
        if first and text.startswith("["):
            raise errors.InputError(
                f"{path}: expected one JSON object a line, found a JSON array "
                "that begins in the first. Write each object into a line of "
                "its own, for example with jq -c '.[]'."
            )
        first = False
        if not problem:
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
            yield _RawRow(number, problem=problem)
        else:
            yield _RawRow(number, row)


_READERS: dict[str, Callable[[str], Iterator[_RawRow]]] = {
    ".tsv": _read_tsv,
    ".csv": _read_csv,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".ndjson": _read_json,
}
_TABLES = (".tsv", ".csv")
_SURROGATE = re.compile("[\udc80-\udcff]")
_MOST_KNOWN = 10_000
_MOST_DOUBTED = 10  # lines of a row that may be a text, or rows
# Lines after a lost quote that are read again: so many in the file, and then
# so many for each row. A field of 131,072 characters, the most of Python's
# csv, has fewer than the former.
_MOST_AGAIN = 150_000
_LEAST_AGAIN = 30


def _text(path: str) -> Iterator[tuple[int, str, str]]:
    """Line number, text, and what is wrong with it."""
    for number, line in enumerate(text_lines.read(path), 1):
        try:
            yield number, text_lines.decode(line), ""
        except ValueError as problem:
            yield number, "", str(problem)


def _loose(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")
