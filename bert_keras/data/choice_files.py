"""Reads questions with choices from tables and JSON files.

Known layouts:

    a column per choice      context, question, choice_a ... or choice_0 ...,
                             label; SWAG: sent1, sent2, ending0 ..., label
    a list of choices        {"context", "question", "choices": [...], "label"};
                             or "choices": {"text": [...], "label": ["A", ...]}
    RACE                     {"article", "questions": [...], "options": [[...],
                             ...], "answers": ["A", ...]}

JSON is one object a line, or a .json file with one object or a list of them.
"""

import json
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bert_keras import errors
from bert_keras.data import (
    json_lines,
    labelled_files,
    labels,
    named_rows,
)

MAX_CHOICES = 26
CHOICES = tuple(f"choice_{letter}" for letter in string.ascii_lowercase)

# Standard names -> common names of columns, the best match first.
COMMON_COLUMNS = {
    "context": (
        *("context", "article", "passage", "premise", "story", "sent1"),
        "ctx",
    ),
    "question": ("question", "sent2", "query"),
    "label": ("label", "answer", "answerKey", "gold", "correct"),
    "choices": ("choices", "options", "endings"),
}
# ending0, option 1, choice_A, answerB: a stem and an index or a letter.
_CHOICE_COLUMN = re.compile(
    r"(choice|ending|option|answer)[ _]?(\d{1,2}|[a-z])", re.IGNORECASE
)

Row = Mapping[str, Any]


def read(
    path: str,
    *,
    columns: str = "",
    label_format: str = "any",
    num_choices: int = 0,
) -> labelled_files.Examples:
    """Reads the examples of a file, dicts of strings.

    Each has the columns context, question, the first of CHOICES, group, and
    label: the index of the right choice. `group` is the context, if there is
    a question: a split never separates the questions of a context.

    Args:
      columns: "" or CONTEXT_COLUMNS of the file, as context=NAME,label=NAME;
        a list is choices=NAME, single choices are choice_a=NAME and so on.
      label_format: how labels are written; see `label_index`.
      num_choices: the number of choices of every example, of which some may
        be ""; 0: those of the file.
    """

    unread: dict[str, None] = {}  # an ordered set

    def examples():
        for where, row in _rows(path, columns, unread=unread):
            with named_rows.located(path, where):
                labelled = example(row, row.get("label"), label_format)
                yield padded(labelled, num_choices)

    return labelled_files.Examples(
        path, examples(), lambda: _unread_message(unread)
    )


def read_texts(
    path: str, *, columns: str = "", num_choices: int
) -> Iterator[dict[str, str]]:
    """Yields the texts of the examples of a file, without their labels."""
    for where, row in _rows(path, columns, labelled=False):
        with named_rows.located(path, where):
            texts = padded(text_row(row), num_choices)
        yield texts


def _unread_message(unread: Iterable[str]) -> str:
    if not (names := ", ".join(map(repr, unread))):
        return ""
    return (
        f"columns that are not read: {names}. Name one of them as context or "
        "question, with columns=context=NAME, if it is one."
    )


def padded(example: Mapping[str, str], num_choices: int) -> dict[str, str]:
    """Adds empty choices up to a number; 0: returns the example unchanged.

    Raises ValueError if the example has more choices.
    """
    given = [name for name in CHOICES if name in example]
    if not num_choices:
        return dict(example)
    if any(labels.strip(example[name]) for name in given[num_choices:]):
        raise ValueError(
            f"expected at most {num_choices} choices, found {len(given)}; a "
            "larger num_choices allows more"
        )
    rest = {name: text for name, text in example.items() if name not in CHOICES}
    names = CHOICES[:num_choices]
    return rest | {name: example.get(name, "") for name in names}


def text_row(row: Row) -> dict[str, str]:
    """Returns the texts of an example: context, question, and its choices.

    A choice of white space is "", which is absent for the network.

    row: may have a list `choices`, or columns choice_a, choice_b, ..., or other
      common names of these. Context and question may be missing.

    Raises ValueError, with a phrase as message, for another type than text, and
    if there is no choice.
    """
    found = ", ".join(map(repr, row)) or "an empty row"
    keys = {name: name for name in (*COMMON_COLUMNS, *CHOICES) if name in row}
    if "choices" in keys and not keys.keys().isdisjoint(CHOICES):
        raise ValueError(f"expected `choices` or choice_a, ..., found {found}")
    row = {name: row[key] for name, key in _recognise(list(row), keys).items()}
    choices = row.get("choices")
    if choices is None:
        # Without choice_b there is no B: choice_c stays C.
        last = max((CHOICES.index(n) for n in CHOICES if n in row), default=-1)
        choices = [row.get(name, "") for name in CHOICES[: last + 1]]
    elif isinstance(choices, Mapping):
        choices = choices.get("text")
    if not isinstance(choices, (list, tuple)):
        raise ValueError(
            f"expected a list of choices, found {json_lines.name_of(choices)}"
        )
    if len(choices) > MAX_CHOICES:
        raise ValueError(
            f"expected at most {MAX_CHOICES} choices, found {len(choices)}"
        )
    texts = {
        "context": row.get("context", ""),
        "question": row.get("question", ""),
        **dict(zip(CHOICES, choices, strict=False)),
    }
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(
                f"column {name!r}: expected text, found "
                f"{json_lines.name_of(text)}"
            )
    blank = [n for n in CHOICES if n in texts and not labels.strip(texts[n])]
    if len(blank) == len(choices):
        raise ValueError(
            "expected choices, as a list `choices` or as choice_a, choice_b, "
            f"..., found none that is not empty in the row of {found:.200}"
        )
    return texts | dict.fromkeys(blank, "")


def label_index(
    label: Any, choices: Sequence[str], label_format: str = "any"
) -> int:
    """Returns the index of the choice that a label means.

    label_format: "index" from 0; "letter", A or a for the first; "text" of the
      choice; "any" of these.

    Raises ValueError if the label means no choice or, with "any", two.
    """
    text = labels.parse_label(label)
    found = {}
    if text.isdecimal() and len(text) < 4:
        found["index"] = int(text)
    if len(text) == 1 and text.upper() in string.ascii_uppercase:
        found["letter"] = string.ascii_uppercase.index(text.upper())
    stripped = [labels.strip(choice) for choice in choices]
    if stripped.count(text) > 1 and label_format in ("any", "text"):
        raise ValueError(f"{text!r:.60} is the text of several choices")
    if text in stripped:
        found["text"] = stripped.index(text)
    found = {
        name: index
        for name, index in found.items()
        if label_format in ("any", name)
        and index < len(choices)
        and stripped[index]
    }
    if not found:
        expected = (
            "an index, a letter or the text of a choice"
            if label_format == "any"
            else f"the {label_format} of a choice"
        )
        count = sum(map(bool, stripped))
        raise ValueError(
            f"expected {expected}, of which there are {count} (indices from "
            f"0), found {text!r:.60}"
        )
    if len(set(found.values())) > 1:
        meanings = " and ".join(
            f"the {name} of choice {index}" for name, index in found.items()
        )
        raise ValueError(f"{text!r} is {meanings}; say which with label_format")
    return next(iter(found.values()))


def example(row: Row, label: Any, label_format: str = "any") -> dict[str, str]:
    """Returns a labelled example; ValueError if it is not one."""
    texts = text_row(row)
    choices = [texts[name] for name in CHOICES if name in texts]
    if sum(bool(labels.strip(choice)) for choice in choices) < 2:
        raise ValueError(
            "expected two or more choices that are not empty, found "
            f"{json.dumps(choices, ensure_ascii=False)[:80]}"
        )
    named = row.get("choices")
    if isinstance(named, Mapping) and isinstance(named.get("label"), list):
        names = [str(name) for name in named["label"]]
        if str(label) in names and len(names) == len(choices):
            label, label_format = names.index(str(label)), "index"
    index = label_index(label, choices, label_format)
    group = texts["context"] if texts["question"] else ""
    return {**texts, "label": str(index), "group": group}


def _rows(
    path: str,
    columns: str,
    *,
    labelled: bool = True,
    unread: dict[str, None] | None = None,
) -> Iterator[tuple[str, Row]]:
    """Yields (where, row by standard names) of each example of a file.

    Adds to `unread` the columns that could be a context or a question, if one
    of these is missing.
    """
    named = labelled_files.parse_columns(columns, (*COMMON_COLUMNS, *CHOICES))
    keys: Mapping[str, Any] = {}
    before: Sequence[Any] = ()
    for where, row in named_rows.read(path, named or {}, COMMON_COLUMNS):
        if _is_race(row):
            yield from _race_rows(path, where, row)
            continue
        if list(row) != before:
            before = list(row)
            keys = _locate(path, before, named or {}, labelled=labelled)
            if unread is not None and not {"context", "question"} <= set(keys):
                rest = set(before) - set(keys.values())
                unread |= {str(n): None for n in before if n in rest and n}
        yield where, {name: row[key] for name, key in keys.items()}


def _locate(
    path: str,
    available: Sequence[Any],
    named: Mapping[str, str],
    *,
    labelled: bool,
) -> dict[str, Any]:
    """Returns {standard name: column}; InputError if columns are missing."""
    named_rows.check_named(path, available, named)
    keys = _recognise(available, named)
    problem = ""
    if not any(name in keys for name in ("choices", *CHOICES)):
        problem = "columns of choices, such as choice_a, choice_b or ending0"
    elif labelled and "label" not in keys:
        problem = "a column label"
    if problem:
        raise errors.InputError(
            f"{path}: expected {problem}; the columns there are "
            f"{', '.join(map(repr, available))}. Name them, as in "
            "context=NAME,question=NAME,choice_a=NAME,choice_b=NAME,"
            "label=NAME."
        )
    if not labelled:
        keys.pop("label", None)
    return keys


def _recognise(
    available: Sequence[Any], keys: Mapping[str, Any]
) -> dict[str, Any]:
    """Adds columns with common names to {standard name: column}."""
    has_choices = any(name in keys for name in ("choices", *CHOICES))
    common = {
        name: candidates
        for name, candidates in COMMON_COLUMNS.items()
        if not (name == "choices" and has_choices)
    }
    keys = named_rows.recognise(available, keys, common)
    if "choices" not in keys and not has_choices:
        used = keys.values()
        keys |= _choice_columns(
            {
                str(column).strip().casefold(): column
                for column in available
                if column not in used
            }
        )
    return keys


def _choice_columns(unused: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {choice_a: column, ...} of the first stem with two or more.

    A column keeps its letter; the lowest number is choice_a. Of option_a and
    option_c the second is choice_c.
    """
    stems: dict[tuple[str, bool], dict[int, Any]] = {}
    for name, column in unused.items():
        if match := _CHOICE_COLUMN.fullmatch(name):
            stem, key = match[1].casefold(), match[2]
            is_number = key.isdecimal()
            index = int(key) if is_number else ord(key) - ord("a")
            stems.setdefault((stem, is_number), {})[index] = column
    for (_, is_number), found in stems.items():
        first = min(found) if is_number else 0
        if len(found) > 1 and max(found) - first < MAX_CHOICES:
            return {CHOICES[i - first]: found[i] for i in sorted(found)}
    return {}


def _is_race(row: Mapping[Any, Any]) -> bool:
    return isinstance(row.get("questions"), list) and "options" in row


def _race_rows(
    path: str, where: str, row: Mapping[Any, Any]
) -> Iterator[tuple[str, Row]]:
    """Yields an example for each question of an article."""
    lists = [row[name] for name in ("questions", "options")]
    lists.append(row.get("answers", [None] * len(lists[0])))
    if (
        not all(isinstance(each, list) for each in lists)
        or len(set(map(len, lists))) > 1
    ):
        raise errors.InputError(
            f"{path}, {where}: expected lists `questions`, `options` and "
            "`answers` of the same length."
        )
    for number, (question, options, answer) in enumerate(
        zip(*lists, strict=True), 1
    ):
        yield (
            f"{where}, question {number}",
            {
                "context": row.get("article", ""),
                "question": question,
                "choices": options,
                "label": answer,
            },
        )
