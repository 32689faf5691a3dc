"""Reads texts and their targets: translations, summaries, answers.

a table, or JSON lines    a column of texts and one of targets; in JSON a
                          text may be a list of sentences, and several
                          targets of a text a list of them
parallel files            train.en and train.de: line n of the second is the
                          target of line n of the first
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bert_keras import errors
from bert_keras.data import (
    json_lines,
    labelled_files,
    labels,
    named_rows,
    table_rows,
    text_lines,
)

# Standard names -> common names of columns, the best match first.
COMMON_COLUMNS = {
    "text": (
        *("text", "source", "src", "document", "article", "abstract", "body"),
        *("content", "input", "question"),
    ),
    "target": (
        *("target", "tgt", "summary", "highlights", "title", "translation"),
        *("output", "answer", "headline"),
    ),
}
# Several targets of a text, as JSON: an example's column.
REFERENCES = "references"
# From here on, code points are mostly those of scripts without spaces.
_FIRST_CJK = "\u2e80"


def read(
    path: str, *, columns: str = "", target_suffix: str = ""
) -> labelled_files.Examples:
    """Reads the examples of a file: {"text", "target"}, dicts of strings.

    An example with several targets has the first one as `target`, and all as
    REFERENCES, a JSON list. Empty texts or targets are errors.

    Args:
      columns: "" or the file's columns, as text=NAME,target=NAME. One that is
        not named is recognised by a common name.
      target_suffix: that of the file with the targets, for parallel files;
        tables and JSON lines are read without it.
    """
    if target_suffix and not is_table(path):
        if columns:
            raise errors.InputError(
                f"columns={columns} are those of a table, and target_suffix="
                f"{target_suffix} means two files of lines; give one of them.",
                argument="columns",
            )
        return labelled_files.Examples(
            path, _parallel(path, target_path(path, target_suffix))
        )
    named = _columns(path, columns, tuple(COMMON_COLUMNS))
    examples = labelled_files.read(
        path,
        columns={"text": named["text"], "label": named["target"]},
        needed=("text", "label"),
        text=text_of,
        label=_references,
    )
    return examples.mapped(_example)


def read_texts(path: str, *, columns: str = "") -> labelled_files.Examples:
    """Reads the texts of a table or of JSON lines, without targets: {"text"}.

    columns: as in `read`; that of the targets need not be in the file.
    """
    column = _columns(path, columns, ("text",))["text"]
    # With a label, none is searched for among the other columns.
    examples = labelled_files.read(
        path,
        columns={"text": column, "label": column},
        text=text_of,
        label=lambda _: "",
    )
    return examples.mapped(lambda row: {"text": row["text"]})


def is_table(path: str) -> bool:
    """Returns whether a file of this name is a table or JSON lines."""
    name = path.lower().removesuffix(".gz")
    return name.endswith(tuple(table_rows.READERS))


def data_files(path: str, target_suffix: str) -> list[str]:
    """Returns the files that `read` reads."""
    if not target_suffix or is_table(path):
        return [path]
    return [path, target_path(path, target_suffix)]


def target_path(path: str, target_suffix: str) -> str:
    """Returns the path of the targets: data/train.en, de -> data/train.de."""
    suffix = f".{target_suffix.removeprefix('.')}"
    compressed = re.search(r"(\.gz|\.zst)?$", path)
    end = compressed[0] if compressed else ""
    stem = path.removesuffix(end)
    changed = re.sub(r"\.[^./]*$", "", stem) + suffix + end
    if changed == path:
        raise errors.InputError(
            f"target_suffix={target_suffix} is the suffix of {path}, the file "
            "of the texts; give that of the file with their targets.",
            argument="target_suffix",
        )
    return changed


def text_of(value: Any) -> str:
    """Returns a text: a string, or a list of sentences joined by spaces.

    There is no space after a Chinese or Japanese character. Raises ValueError
    for other types.
    """
    if isinstance(value, str):
        return value
    _require_texts(value, "expected text, or a list of sentences")
    text = ""
    for sentence in filter(None, map(str.strip, value)):
        is_spaced = text and text[-1] < _FIRST_CJK
        text += " " * bool(is_spaced) + sentence
    return text


def targets_of(value: Any) -> list[str]:
    """Returns the targets of a text: one string, or a list of several.

    Raises ValueError for other types, and for an empty target.
    """
    targets = [value] if isinstance(value, str) else value
    expected = "expected a target, or a list of them"
    _require_texts(targets, expected)
    if not targets:
        raise ValueError(f"{expected}, found an empty list")
    if not all(map(labels.strip, targets)):
        raise ValueError("expected a target that is not empty")
    return list(targets)


def example(text: str, target: Any) -> dict[str, str]:
    """Returns an example; ValueError if it is not one."""
    if not labels.strip(text):
        raise ValueError("expected a text that is not empty")
    targets = targets_of(target)
    row = {"text": text, "target": targets[0]}
    if len(targets) > 1:
        row[REFERENCES] = json.dumps(targets, ensure_ascii=False)
    return row


def references(row: Mapping[str, str]) -> list[str]:
    """Returns all targets of an example."""
    if REFERENCES in row:
        return json.loads(row[REFERENCES])
    return [row["target"]]


def text_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {"text"} of a row from Python or JSON, by a common name."""
    for name in COMMON_COLUMNS["text"]:
        if name in row:
            return {"text": text_of(row[name])}
    found = ", ".join(map(repr, row)) or "an empty row"
    raise ValueError(f"expected a column 'text', found {found:.200}")


def _references(value: Any) -> str:
    return json.dumps(targets_of(value), ensure_ascii=False)


def _example(row: Mapping[str, str]) -> dict[str, str]:
    return example(row["text"], json.loads(row["label"]))


def _require_texts(value: Any, expected: str) -> None:
    """Raises ValueError if a value is no list of strings."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{expected}, found {json_lines.name_of(value)}")
    for index, each in enumerate(value):
        if not isinstance(each, str):
            raise ValueError(
                f"{expected}, found a list with {json_lines.name_of(each)} at "
                f"index {index}"
            )


def _columns(path: str, columns: str, needed: Sequence[str]) -> dict[str, str]:
    """Returns {standard name: the file's column} of the needed columns.

    Those that `columns` does not name have a common name. Raises InputError if
    a named column, or one of those needed, is not there.
    """
    named = labelled_files.parse_columns(columns, tuple(COMMON_COLUMNS)) or {}
    available, has_header = _first_row(path)
    if not has_header and named and all(map(str.isdecimal, named.values())):
        _check_positions(path, columns, named, available, needed)
        return {name: named[name] for name in needed}
    named = {name: named[name] for name in needed if name in named}
    named_rows.check_named(path, available, named)
    common = {name: COMMON_COLUMNS[name] for name in needed}
    found = named_rows.recognise(available, named, common)
    if missing := [name for name in needed if name not in found]:
        what = "a column of texts and one of targets, such as text and target"
        if len(needed) == 1:
            what = "a column of texts, such as text"
        raise errors.InputError(
            f"{path}: expected {what}; none is the {missing[0]}. The first row "
            f"has {', '.join(map(repr, available))}. Name them, as in "
            "columns=text=NAME,target=NAME; in a file without a header by "
            "position, as in columns=text=0,target=1.",
            argument="columns",
        )
    return found


def _check_positions(
    path: str,
    columns: str,
    named: Mapping[str, str],
    first: Sequence[str],
    needed: Sequence[str],
) -> None:
    """Raises InputError for positions that are missing or are not there.

    first: the fields of the first row.
    """
    absent = [f"{name}=POSITION" for name in needed if name not in named]
    if absent:
        raise errors.InputError(
            f"columns={columns}: expected {' and '.join(absent)} as well; in a "
            "file without a header all columns are named by their positions.",
            argument="columns",
        )
    for name in needed:
        position = named[name]
        is_there = len(position) < 10 and int(position) < len(first)
        if not is_there and position not in first:
            raise errors.InputError(
                f"{path}: expected the position of a column in {name}="
                f"{position}, from 0; the first row has {len(first)} fields.",
                argument="columns",
            )


def _first_row(path: str) -> tuple[list[Any], bool]:
    """Returns the first row's fields; of JSON or Parquet the names, and True.

    The fields of a table are its header, or a row if it has none.
    """
    rows = labelled_files.raw_rows(path)
    first: table_rows.RawRow | None = next(iter(rows), None)
    if first is None:
        return [], False
    if isinstance(first.fields, Mapping):
        return list(first.fields), True
    return [name.strip() for name in first.fields], False


def _parallel(path: str, targets: str) -> Iterator[dict[str, str]]:
    """Yields the examples of two files with as many lines."""
    lines = itertools.zip_longest(
        text_lines.read(path), text_lines.read(targets)
    )
    for number, (text, target) in enumerate(lines, 1):
        if text is None or target is None:
            longer = targets if text is None else path
            raise errors.InputError(
                f"expected as many lines in {path} as in {targets}; {longer} "
                f"has more, from line {number} on."
            )
        try:
            yield example(_line(path, text), _line(targets, target))
        except errors.InputError:
            raise
        except ValueError as problem:
            raise errors.InputError(
                f"{path} and {targets}, line {number}: {problem}."
            ) from None


def _line(path: str, line: bytes) -> str:
    try:
        return text_lines.decode(line)
    except ValueError as problem:
        raise errors.InputError(
            f"{path}: {problem}. {text_lines.how_to_convert(path)}"
        ) from None
