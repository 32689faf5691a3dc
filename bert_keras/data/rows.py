"""Labelled files as rows: dicts of strings under our own names.

Told apart by name: `.tsv` is split at TABs without any quoting, `.csv` is
quoted as RFC 4180 says, `.jsonl` and `.json` hold one JSON object a line; all
may be gzipped (`.gz`). Another format is one more entry of `_READERS`. Blank
lines are passed over.
"""

import csv
import functools
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from bert_keras import errors
from bert_keras.data import corpus

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


class Rows(Iterator[dict[str, str]]):
    """Rows of one file, read as they are asked for, once."""

    def __init__(self, path: str, rows: Iterator[dict[str, str] | None]):
        self.path = path
        self.skipped = 0  # malformed rows passed over so far
        self._rows = rows
        self._count = 0

    def __next__(self) -> dict[str, str]:
        for row in self._rows:
            if row is not None:
                self._count += 1
                return row
            self.skipped += 1
        if not self._count:
            raise errors.InputError(
                f"{self.path}: expected rows, found none that can be used "
                f"({self.skipped} malformed)."
            )
        raise StopIteration

    def where(self, holds: Callable[[dict[str, str]], bool]) -> "Rows":
        """These rows without those that are left out on purpose."""
        kept = (row for row in self._rows if row is None or holds(row))
        return Rows(self.path, kept)


def read(
    path: str,
    *,
    columns: Mapping[str, str] | None = None,
    needed: Collection[str] = (),
    on_bad_row: str = "fail",
) -> Rows:
    """The columns wanted, one dict a row.

    columns maps our names to the file's: {"text": "sentence"}. A number is a
    position, from 0, in a file without a header; then all are numbers. None
    looks for the names in `COMMON_COLUMNS`, and so it is with a label that is
    not named. `needed` are names of ours that must be among them. A malformed
    row (fields too many or too few, no JSON, no UTF-8, a wanted value missing)
    stops the reading; with on_bad_row="skip" it is counted in `Rows.skipped`.
    """
    if on_bad_row not in ("fail", "skip"):
        raise ValueError(f"on_bad_row is fail or skip, not {on_bad_row!r}.")
    suffix = re.search(r"(\.\w+)?$", path.removesuffix(".gz"))[0]
    if suffix not in _READERS:
        raise errors.InputError(
            f"{path}: expected a name that ends in {', '.join(_READERS)}, "
            "with or without .gz."
        )
    records = _READERS[suffix](path)
    plan = functools.partial(_Plan, path, columns=columns, needed=needed)
    return Rows(path, _rows(path, records, plan, on_bad_row == "skip"))


def parse_columns(text: str) -> dict[str, str] | None:
    """`text=sentence,label=gold` -> a mapping; nothing -> None."""
    columns = {}
    for item in filter(None, map(str.strip, text.split(","))):
        name, equals, column = map(str.strip, item.partition("="))
        if not (name and equals and column):
            raise errors.InputError(
                f"columns: expected NAME=COLUMN[,NAME=COLUMN...], found "
                f"{item!r}, as in text=sentence,label=gold."
            )
        columns[name] = column
    return columns or None


class _Record(NamedTuple):
    """A row as it stands in the file: fields by place or by name."""

    line: int
    fields: Sequence[str] | Mapping[str, str | None] = ()
    problem: str = ""  # what is wrong with it


def _rows(
    path: str,
    records: Iterator[_Record],
    make_plan: Callable[..., "_Plan"],
    skip: bool,
) -> Iterator[dict[str, str] | None]:
    """Dicts under our names; None for a row that is passed over."""
    plan = None
    for record in records:
        row, problem = None, record.problem
        if not problem and plan is None:
            plan = make_plan(record.fields)
            if plan.header:
                continue
        if not problem:
            row, problem = plan.apply(record.fields)
        if problem and not skip:
            raise errors.InputError(
                f"{path}, line {record.line}: {problem}. "
                "Mend the row, or skip rows that do not fit."
            )
        yield row


class _Plan:
    """Where the wanted values stand, told by the first record of a file."""

    def __init__(self, path, first, *, columns, needed):
        named = isinstance(first, Mapping)
        positions = bool(columns) and all(map(str.isdecimal, columns.values()))
        self.header = not named and not positions
        self.width = None if named else len(first)
        there = list(range(len(first)) if positions and not named else first)
        if columns is None:
            columns = _recognise(there)
        elif positions and not named:
            columns = {ours: int(theirs) for ours, theirs in columns.items()}
        else:
            common = _common(there)
            free = common.get("label") not in columns.values()
            if "label" in common and free:
                columns = {"label": common["label"], **columns}
        missing = [c for c in columns.values() if c not in there]
        if missing or not columns:
            wanted = ", ".join(map(repr, missing)) or "a column of text"
            raise errors.InputError(
                f"{path}: expected {wanted}; the columns there are "
                f"{', '.join(map(repr, there))}. Name them, as in "
                "text=NAME,label=NAME; in a file without a header by "
                "position, as in text=0,label=1."
            )
        if absent := [name for name in needed if name not in columns]:
            raise errors.InputError(
                f"{path}: expected the columns {', '.join(needed)}, found "
                f"{', '.join(columns)} and no {', '.join(absent)}. Name the "
                f"columns with --columns=text=...,{absent[0]}=..."
            )
        self.keys = {
            ours: theirs if named or positions else there.index(theirs)
            for ours, theirs in columns.items()
        }

    def apply(self, fields) -> tuple[dict[str, str] | None, str]:
        """The row, or what is wrong with it."""
        if self.width is not None and len(fields) != self.width:
            return None, f"expected {self.width} fields, found {len(fields)}"
        if self.width is None:
            for key in self.keys.values():
                if fields.get(key) is None:
                    return None, f"expected a value for {key!r}, found none"
        return {ours: fields[key] for ours, key in self.keys.items()}, ""


def _recognise(there: Sequence[str]) -> dict[str, str]:
    found = _common(there)
    return found if "text" in found else {}


def _common(there: Sequence[str]) -> dict[str, str]:
    """Our names -> those columns that have a common name."""
    free = {str(column).strip().casefold(): column for column in there}
    found = {}
    for ours, names in COMMON_COLUMNS.items():
        for name in names:
            if name.casefold() in free:
                found[ours] = free.pop(name.casefold())
                break
    return found


# One reader per format: path -> records, blank lines left out.


def _read_tsv(path: str) -> Iterator[_Record]:
    for number, text, problem in _text(path):
        if problem:
            yield _Record(number, problem=problem)
        elif text:
            yield _Record(number, text.split("\t"))


def _read_csv(path: str) -> Iterator[_Record]:
    # A row may go over several lines, so bytes that are no UTF-8 go through
    # the parser as lone surrogates and are looked for in what comes out. The
    # module's limit of 131,072 characters a field catches a lost quote.
    text = (f"{_loose(line)}\n" for line in corpus.lines(path))
    reader = csv.reader(text, strict=True)
    line = 1
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _Record(line, problem=f"expected quoted CSV, but {error}")
        else:
            if any(map(_SURROGATE.search, fields)):
                yield _Record(line, problem="expected UTF-8")
            elif fields:
                yield _Record(line, fields)
        line = reader.line_num + 1


def _read_json(path: str) -> Iterator[_Record]:
    for number, text, problem in _text(path):
        if not problem and not text.strip():
            continue
        try:
            row = None if problem else json.loads(text)
        except json.JSONDecodeError as error:
            problem = f"expected one JSON object a line ({error})"
        if not problem and not isinstance(row, dict):
            problem = "expected one JSON object a line"
        if problem:
            yield _Record(number, problem=problem)
        else:
            yield _Record(number, {k: _string(v) for k, v in row.items()})


_READERS: dict[str, Callable[[str], Iterator[_Record]]] = {
    ".tsv": _read_tsv,
    ".csv": _read_csv,
    ".jsonl": _read_json,
    ".json": _read_json,
}
_SURROGATE = re.compile("[\udc80-\udcff]")


def _text(path: str) -> Iterator[tuple[int, str, str]]:
    """Line number, text, and what is wrong with it."""
    for number, line in enumerate(corpus.lines(path), 1):
        try:
            yield number, line.decode().removesuffix("\r"), ""
        except UnicodeDecodeError as error:
            column = error.start + 1
            yield number, "", f"expected UTF-8 (byte at column {column})"


def _loose(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")


def _string(value) -> str | None:
    """A JSON value as text: strings as they are, 1 as `1`, true as `true`."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
