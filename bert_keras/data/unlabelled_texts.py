"""Reads texts to predict on: lines, JSON lines, or the rows of a table."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bert_keras import errors
from bert_keras.data import corpus, json_lines, labelled_files, text_lines


def parse(
    line: str,
    text_columns: Sequence[str],
    number: int,
    text_row: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> Mapping[str, str]:
    """Parses the texts of a line; InputError names the line's number.

    text_row: converts a JSON object to text columns; see `Task.text_row`.
    """
    line = line.rstrip("\r\n").removeprefix("\ufeff")
    if line.startswith("{"):
        try:
            example = text_row(json_lines.object_of(line, number))
        except errors.InputError:
            raise
        except ValueError as problem:
            raise errors.InputError(f"line {number}: {problem}.") from None
        missing = [name for name in text_columns if name not in example]
        if missing:
            raise errors.InputError(
                f"line {number}: expected {', '.join(text_columns)}, found "
                f"{', '.join(example) or 'nothing'}."
            )
        for name in text_columns:
            if not isinstance(example[name], str):
                raise errors.InputError(
                    f"line {number}, column {name!r}: expected text, found "
                    f"{json_lines.name_of(example[name])}."
                )
        return {name: example[name] for name in text_columns}
    columns = line.split("\t") if len(text_columns) > 1 else [line]
    if len(columns) != len(text_columns):
        raise errors.InputError(
            f"line {number}: expected {len(text_columns)} texts "
            f"({', '.join(text_columns)}) with a TAB between, found "
            f"{len(columns)}."
        )
    return dict(zip(text_columns, columns, strict=True))


def read(
    path: str,
    text_columns: Sequence[str],
    columns: str = "",
    read_table: Callable[[str], Iterator[Mapping[str, str]] | None] = (
        lambda path: None
    ),
) -> Iterator[str | Mapping[str, str]]:
    """Yields the lines of a file, or the rows of a table as dicts.

    Tables are .csv, .tsv and .parquet files.

    A .tsv file with several texts per row may lack a header; its rows are
    yielded as lines.

    Args:
      path: the file; empty: standard input.
      text_columns: the names of a row's texts.
      columns: the columns used in training, as text=NAME,text_pair=NAME.
      read_table: reads a table or a JSON file, or returns None; see
        `Task.read_texts`.
    """
    table = re.search(r"\.([ct]sv|parquet)(\.gz|\.zst)?$", path, re.IGNORECASE)
    is_rows = table or corpus.is_json(path)
    if is_rows and (rows := read_table(path)) is not None:
        return rows
    if not table:
        return read_lines(path)
    sources = labelled_files.parse_columns(columns) or {}
    sources = {k: v for k, v in sources.items() if k in text_columns}
    if table[1].lower() == "tsv" and len(text_columns) > 1:
        first = next(text_lines.read(path), b"").decode(errors="replace")
        cells = [cell.strip() for cell in first.split("\t")]
        named = set(sources.values())
        if not (
            labelled_files.are_names(cells) or (named and named <= set(cells))
        ):
            return read_lines(path)
    return Table(path, text_columns, sources)


class Table(Iterator[Mapping[str, str]]):
    """Yields the texts of a table.

    sources: the columns used in training.
    """

    def __init__(
        self, path: str, text_columns: Sequence[str], sources: Mapping[str, str]
    ):
        if not set(text_columns) <= labelled_files.COMMON_COLUMNS.keys():
            sources = {name: name for name in text_columns}
        self._examples = labelled_files.read(
            path,
            columns=sources or None,
            needed=text_columns,
            label=lambda _: "",
        )

    @property
    def warning(self) -> str:
        """A message for the user on how the file is read, or ""."""
        return self._examples.warning

    def __next__(self) -> Mapping[str, str]:
        try:
            return next(self._examples)
        except errors.InputError as error:
            raise errors.InputError(
                f"{error} Columns are those that training named, or have "
                "common names; other texts can be given as .txt or .jsonl."
            ) from None


def read_lines(path: str) -> Iterator[str]:
    """Yields the lines of a file or of standard input, including blank ones."""
    lines = text_lines.read(path) if path else sys.stdin.buffer
    is_json = corpus.is_json(path)
    for number, line in enumerate(lines, 1):
        try:
            text = text_lines.decode(line.removesuffix(b"\n"))
        except ValueError as problem:
            raise errors.InputError(
                f"{path or 'standard input'}, line {number}: {problem}. "
                f"{text_lines.how_to_convert(path or 'FILE')}"
            ) from None
        if is_json and text.strip() and not text.lstrip().startswith("{"):
            raise errors.InputError(
                f"{path}, line {number}: expected one JSON object a line, "
                f"found {text.strip()[:40]!r}. Write the objects of an array "
                "into lines of their own, for example with jq -c '.[]'."
            )
        yield text.lstrip() if is_json else text
