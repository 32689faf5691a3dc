"""Reads labelled files as examples: dicts of strings with standard names.

The format depends on the file's suffix, in any case: `.tsv` is split at TABs
without quoting, `.csv` is quoted as in RFC 4180, with commas, semicolons or
TABs between the fields, `.jsonl`, `.ndjson` and `.json` have one JSON object
per line; all of these may be compressed (`.gz`). `.parquet` has columns with
names and types. Blank lines are skipped.
"""

import collections
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
from typing import Any

from bert_keras import errors
from bert_keras.data import (
    csv_separator,
    json_lines,
    labels,
    table_rows,
    text_lines,
)

# Standard names -> common names of columns, the best match first. Each
# column is used once: QNLI has `question`, then `sentence`.
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

# `text=sentence,label=gold`, or {"text": "sentence", "label": "gold"}; numbers
# are indices in a file without a header.
Columns = str | Mapping[str, str | int]


class Examples(Iterator[dict[str, str]]):
    """Yields the examples of one file, lazily, once."""

    def __init__(
        self,
        path: str,
        examples: Iterator[dict[str, str] | None],
        notes: Callable[[], str] = str,
        layout: str = "",
    ):
        self.path = path
        self.layout = layout  # a message on how the file is read, or ""
        self.skipped = 0  # malformed rows skipped so far
        self._examples = examples
        self._count = 0
        self._notes = notes  # returns text to add to `warning`

    @property
    def warning(self) -> str:
        """A message for the user on the rows read so far, or ""."""
        notes = [self.layout, self._notes()]
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
        """Returns the examples for which `holds` is true.

        notes: returns a message on the rows so far, added to `warning`.
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
            self.layout,
        )

    def mapped(
        self, function: Callable[[dict[str, str]], dict[str, str]]
    ) -> "Examples":
        """Returns the examples that `function` makes of these.

        A ValueError of it, with a phrase as message, becomes an InputError.
        """

        def examples():
            for number, example in enumerate(self._examples, 1):
                try:
                    yield None if example is None else function(example)
                except ValueError as problem:
                    raise errors.InputError(
                        f"{self.path}, row {number}: {problem}."
                    ) from None

        return Examples(self.path, examples(), self._notes, self.layout)


def read(
    path: str,
    *,
    columns: Mapping[str, str] | None = None,
    needed: Collection[str] = (),
    on_bad_row: str = "",
    label: Callable[[Any], str] = labels.parse_label,
    text: Callable[[Any], str] | None = None,
) -> Examples:
    """Reads the requested columns of a file, one dict per row.

    Args:
      columns: standard names -> the file's names: {"text": "sentence"}. If all
        are numbers, they are indices, from 0, in a file without a header. By
        default, columns named as in COMMON_COLUMNS; likewise a label that is
        not given.
      needed: standard names that must be among the columns.
      on_bad_row: "fail" raises InputError for a malformed row (wrong number of
        fields, invalid JSON or UTF-8, a value missing or of another type);
        "skip" counts it in `Examples.skipped`, and raises InputError after
        the last row if more than half of the rows are malformed; "": as
        "fail", for tasks that cannot skip rows.
      label: a parser from the module `labels`; other columns are texts.
      text: a parser of the texts; None: they have to be strings.

    After an unclosed quote in a CSV file, reading continues with the line after
    the opening quote. A closed quoted text whose lines look like rows is an
    error with "fail"; with "skip" it is one row, and mentioned in `warning`.
    """
    if on_bad_row not in ("", "fail", "skip"):
        raise ValueError(f"on_bad_row is fail or skip, not {on_bad_row!r}.")
    suffix = _suffix(path)
    make_reader = functools.partial(
        _ColumnSelector,
        path,
        columns=columns,
        needed=needed,
        label=label,
        text=text or _require_text,
    )
    has_header = suffix in table_rows.TABLES and not _are_positions(columns)
    layout = ""
    if suffix == ".csv":
        separator = csv_separator.infer(path, indices=_indices(columns))
        raw_rows = table_rows.read_csv(path, separator=separator)
        if separator != ",":
            name = csv_separator.NAMES[separator]
            layout = f"columns are separated by {name}."
    else:
        raw_rows = table_rows.READERS[suffix](
            path, lambda names: make_reader(names).keys.values()
        )
    doubts: list[str] = []
    examples = _examples(
        path, raw_rows, make_reader, on_bad_row, has_header, doubts
    )
    return Examples(path, examples, lambda: _doubt_message(doubts), layout)


def raw_rows(path: str) -> Iterator[table_rows.RawRow]:
    """Yields the rows of a file with all their fields; a header is one."""
    suffix = _suffix(path)
    if suffix == ".csv":
        separator = csv_separator.infer(path, indices=[])
        return table_rows.read_csv(path, separator=separator)
    return table_rows.READERS[suffix](path, lambda names: list(names))


def _suffix(path: str) -> str:
    """Returns the suffix that determines a file's format, or InputError."""
    text_lines.refuse_folder(path)
    suffix = re.search(  # type: ignore[index]  # there is always a match
        r"(\.\w+)?$", path.lower().removesuffix(".gz")
    )[0]
    if suffix not in table_rows.READERS:
        raise errors.InputError(
            f"{path}: expected a name that ends in "
            f"{', '.join(table_rows.READERS)}, with or without .gz."
        )
    return suffix


def _doubt_message(doubts: Sequence[str]) -> str:
    if not doubts:
        return ""
    return (
        f"{len(doubts):,} rows hold quoted lines that look like rows and are "
        "read as one text each; is a quote missing? The first is at "
        f"{doubts[0]}."
    )


def parse_columns(
    text: str, allowed: Collection[str] = ()
) -> dict[str, str] | None:
    """Parses `text=sentence,label=gold` as a mapping; "" as None.

    A column name with a comma is quoted: `text="review, long"`; a quote inside
    is doubled. allowed: the standard names that may occur.
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


def format_columns(columns: Columns) -> str:
    """Formats a mapping as `parse_columns` reads it; a string is unchanged.

    Standard names come first, in their order: equal mappings are equal texts,
    by which a run is identified.

    >>> format_columns({"label": "stars", "text": "review, long"})
    'text="review, long",label=stars'
    """
    if isinstance(columns, str):
        return columns
    if not isinstance(columns, Mapping):
        raise errors.InputError(
            f"columns is {_shown(columns)}; expected a string such as "
            'text=sentence,label=gold, or a dict such as {"text": "sentence", '
            '"label": "gold"}.',
            argument="columns",
        )
    order = [*COMMON_COLUMNS, *columns]
    items = []
    for name, column in sorted(
        columns.items(), key=lambda item: order.index(item[0])
    ):
        is_name = isinstance(column, (str, int)) and str(column).strip()
        if not is_name or isinstance(column, bool):
            raise errors.InputError(
                f"columns: expected the name or the index of a column for "
                f"{name!r}, found {column!r}.",
                argument="columns",
            )
        column = str(column).strip()
        if "," in column or column.startswith('"'):
            column = '"' + column.replace('"', '""') + '"'
        items.append(f"{name}={column}")
    return ",".join(items)


# `NAME=COLUMN`; a COLUMN in quotes may contain commas.
_ITEMS = re.compile(r'(?:[^,=]*=\s*"(?:[^"]|"")*"[^,]*|[^,]+)')
_QUOTED = re.compile(r'"(?:[^"]|"")+"')


def are_names(cells: Iterable[str]) -> bool:
    """Returns whether a first row is a header: all cells are known names.

    Includes known names that are not in COMMON_COLUMNS.
    """
    return all(cell.strip().casefold() in _NAMES for cell in cells)


def _examples(
    path: str,
    raw_rows: Iterator[table_rows.RawRow],
    make_reader: Callable[..., "_ColumnSelector"],
    on_bad_row: str,
    has_header: bool,
    doubts: list[str],
) -> Iterator[dict[str, str] | None]:
    """Yields dicts with standard names; None for a skipped row."""
    reader, first_error, skip = None, None, on_bad_row == "skip"
    count, skipped, first_problem = 0, 0, ""
    for raw in raw_rows:
        if raw.problem and reader is None and has_header:
            remedy = raw.remedy or "Fix the header, which names the columns."
            raise errors.InputError(
                f"{path}, {raw.where}: {raw.problem}. {remedy}"
            )
        example, problem = None, raw.problem or ("" if skip else raw.doubt)
        if raw.doubt and skip:
            doubts.append(raw.where)
        if not problem and reader is None:
            try:
                reader = make_reader(raw.fields)
            except errors.InputError as error:
                # A JSON object without a column may be a single malformed row.
                if not (skip and isinstance(raw.fields, Mapping)):
                    raise
                first_error, problem = first_error or error, str(error)
            else:
                if reader.header:
                    continue
        if reader and not problem:
            example, problem = reader.read(raw.fields)
        if problem and not skip:
            remedy = raw.remedy or (
                "Fix the row, or skip rows that do not fit."
                if on_bad_row
                else "Fix the row."
            )
            raise errors.InputError(f"{path}, {raw.where}: {problem}. {remedy}")
        count += 1
        if problem:
            skipped += 1
            first_problem = first_problem or (
                f"{raw.where}: {problem.rstrip('.')}. {raw.remedy}".strip()
            )
        yield example
    if reader is None and first_error:
        raise first_error
    if 2 * skipped > count:
        raise errors.InputError(
            f"{path}: {skipped:,} of {count:,} rows are malformed, and "
            "on_bad_row=skip leaves out at most half. The first is "
            f"{first_problem}"
        )


class _ColumnSelector:
    """Reads the requested columns, located by the first row of a file."""

    def __init__(self, path, first, *, columns, needed, label, text):
        named = isinstance(first, Mapping)
        self.label, self.text = label, text
        self._numbers: dict[float, str] = {}  # numeric labels -> as written
        self.width = None if named else len(first)
        available: list[Any] = (
            list(first) if named else [name.strip() for name in first]
        )
        by_index = not named and _are_positions(columns)
        if by_index and _has_numeric_header(
            path, available, list(columns.values())
        ):
            by_index = False
        self.header = not named and not by_index
        if by_index:
            _refuse_header(path, available, columns)
            available = list(range(len(first)))
            # Longer numbers are not indices, and int() limits the digits.
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
                f"{', '.join(columns)}; missing: {', '.join(absent)}. Name the "
                f"columns with columns=text=...,{absent[0]}=..."
            )
        # Of JSON, whose rows may have other fields than the first one.
        self._unexpected = (
            frozenset(COMMON_COLUMNS["label"])
            if named and "label" not in columns
            else frozenset()
        )
        self.names = dict(columns)  # standard -> file's names, for messages
        self.keys = {
            name: column if named or by_index else available.index(column)
            for name, column in columns.items()
        }

    def read(self, fields: Any) -> tuple[dict[str, str] | None, str]:
        """Returns (example, "") or (None, the reason why it is malformed)."""
        if self.width is not None and len(fields) != self.width:
            return None, f"expected {self.width} fields, found {len(fields)}"
        for key in self._unexpected and fields:
            if key.casefold() in self._unexpected:
                return None, (
                    f"expected no label, as the first row has none, found "
                    f"{key!r}; give all rows one"
                )
        example = {}
        for name, key in self.keys.items():
            if self.width is None and key not in fields:
                return None, f"expected a value for {key!r}, found none"
            read = self.label if name == "label" else self.text
            try:
                example[name] = read(fields[key])
                if name == "label" and read != labels.parse_number:
                    self._check_number(fields[key])
            except ValueError as problem:
                return None, f"column {self.names[name]!r}: {problem}"
        return example, ""

    def _check_number(self, value: Any) -> None:
        """Raises ValueError if an earlier row writes the number otherwise."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return
        before = self._numbers.setdefault(value, repr(value))
        if before != repr(value):
            raise ValueError(
                f"expected {_shown(before)} as in an earlier row, found "
                f"{json_lines.name_of(value)}, which would be another label"
            )


def _are_positions(columns: Mapping[str, str] | None) -> bool:
    if not columns:
        return False
    return all(map(str.isdecimal, columns.values()))


def _indices(columns: Mapping[str, str] | None) -> list[int]:
    """Returns the indices that columns name, in a file without a header."""
    if not columns or not _are_positions(columns):
        return []
    # Longer numbers are not indices, and int() limits the digits.
    return [int(name) for name in columns.values() if len(name) < 10] or [0]


def _shown(name: Any) -> str:
    """Formats a user's name for a message, truncated if it is long."""
    text = str(name)
    return repr(name) if len(text) < 60 else f"{text[:50]!r}..."


def _require_text(value: Any) -> str:
    """Returns the field if it is a string; ValueError for other JSON values."""
    if isinstance(value, str):
        return value
    raise ValueError(f"expected text, found {json_lines.name_of(value)}")


def _has_numeric_header(
    path: str, first: Sequence[str], wanted: Sequence[str]
) -> bool:
    """Returns whether a first row is a header with numeric names."""
    if not set(wanted) <= set(first):
        return False
    others = {name for name in first if not name.isdecimal()}
    if {name.casefold() for name in others} <= _INDEX_NAMES:
        return True
    raise errors.InputError(
        f"{path}: the columns {', '.join(wanted)} are positions in a file "
        f"without a header, or names in the first row ({', '.join(first)}). "
        "Use a header without numeric names."
    )


def _refuse_header(
    path: str, first: Sequence[str], columns: Mapping[str, str]
) -> None:
    """Raises InputError if a first row has names, not texts and labels."""
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
            "or remove the first row."
        )


_NAMES = {
    name.casefold() for names in COMMON_COLUMNS.values() for name in names
} | {
    *("abstract", "body", "category", "class", "comment", "content", "gold"),
    *("headline", "input", "intent", "labels", "message", "output", "query"),
    *("rating", "review", "sentiment", "similarity", "source", "stars"),
    *("summary", "tag", "tags", "target", "title", "topic", "tweet", "id"),
}

# Names of a column of row numbers.
_INDEX_NAMES = {"", "id", "index", "unnamed: 0"}


def _recognise(path: str, available: Sequence[str]) -> dict[str, str]:
    matches = _common(path, available)
    return matches if "text" in matches else {}


def _with_label(
    path: str, available: Sequence[str], columns: Mapping[str, str]
) -> dict[str, str]:
    """Adds a label column with a common name to the given columns."""
    matches = _common(path, available, only=("label",))
    if "label" in matches and matches["label"] not in columns.values():
        return {"label": matches["label"], **columns}
    return dict(columns)


def _common(
    path: str,
    available: Sequence[str],
    only: Collection[str] = tuple(COMMON_COLUMNS),
) -> dict[str, str]:
    """Returns standard names -> the columns that have a common name."""
    unused = collections.defaultdict(list)
    for column in available:
        unused[column.strip().casefold()].append(column)
    matches = {}
    for wanted in only:
        for name in COMMON_COLUMNS[wanted]:
            if columns := unused.pop(name.casefold(), None):
                if len(columns) > 1:
                    raise errors.InputError(
                        f"{path}: expected one column for {wanted}, found "
                        f"{' and '.join(map(repr, columns))}. Rename the "
                        "others."
                    )
                matches[wanted] = columns[0]
                break
    return matches
