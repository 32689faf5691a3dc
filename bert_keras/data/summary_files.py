"""Reads texts and their summaries from tables and JSON files.

Known layouts, one example a row or a JSON object:

    text and summary       {"text": "...", "summary": "..."}; tables with these
                           columns, or abstract and title, and so on
    a list of sentences    {"source": ["...", "..."], "target": ["...", ...]}:
                           SciTLDR, with several summaries of each text
    labels                 {"text": ["...", "..."], "labels": [0, 1]}: whether
                           each sentence is in the summary
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bert_keras import errors
from bert_keras.data import (
    graph_splitter,
    json_lines,
    labelled_files,
    named_rows,
)
from bert_keras.data import labels as labels_lib

# Standard names -> common names of columns, the best match first.
COMMON_COLUMNS = {
    "text": (
        *("text", "sentences", "source", "article", "document", "abstract"),
        *("content", "src"),
    ),
    "summary": (
        *("summary", "summaries", "target", "highlights", "tldr", "title"),
        *("headline", "tgt"),
    ),
    "labels": ("labels", "source_labels"),
}

Row = Mapping[str, Any]


def read(path: str, *, columns: str = "") -> labelled_files.Examples:
    """Reads the examples of a file, dicts of strings; see `example`.

    columns: "" or those of the file, as text=NAME,summary=NAME,labels=NAME. If
      a summary is named and no labels, labels are not read.

    Raises InputError with file and line for a row without a text, or with
    neither a summary nor labels.
    """

    def examples() -> Iterator[dict[str, str]]:
        for where, row in _rows(path, columns):
            with named_rows.located(path, where):
                labelled = example(text_row(row), row)
            yield labelled

    return labelled_files.Examples(path, examples())


def read_texts(path: str, *, columns: str = "") -> Iterator[dict[str, str]]:
    """Yields the texts of a file, without summaries: {"text": ...}."""
    for where, row in _rows(path, columns, labelled=False):
        with named_rows.located(path, where):
            text = text_row(row)
        yield text


def text_row(row: Row) -> dict[str, str]:
    """Returns {"text": ...} of a row: a text, or a list of its sentences.

    Of a list each sentence ends with `graph_splitter.SEPARATOR`. An empty one
    keeps its index and is in no summary.

    Raises ValueError, with a phrase as message, if there is neither.
    """
    keys = {"text": "text"} if "text" in row else {}
    keys = named_rows.recognise(list(row), keys, COMMON_COLUMNS)
    if "text" not in keys:
        found = ", ".join(map(repr, row)) or "an empty row"
        raise ValueError(
            "expected `text`, a text or a list of its sentences, found "
            f"{found:.200}"
        )
    value = row[keys["text"]]
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, (list, tuple)):
        raise ValueError(
            f"column {keys['text']!r}: expected a text or a list of its "
            f"sentences, found {json_lines.name_of(value)}"
        )
    return {"text": "".join(map(_separated, range(len(value)), value))}


def _separated(number: int, sentence: Any) -> str:
    if not isinstance(sentence, str):
        raise ValueError(
            f"sentence {number}: expected text, found "
            f"{json_lines.name_of(sentence)}"
        )
    if graph_splitter.SEPARATOR in sentence:
        raise ValueError(
            f"sentence {number}: expected text without the separator U+001E, "
            f"found {sentence!r:.60}; remove it"
        )
    return sentence + graph_splitter.SEPARATOR


def example(text: Mapping[str, str], label: Row) -> dict[str, str]:
    """Returns an example: "text", "summary" and "labels", all strings.

    text: the result of `text_row`.
    label: may have "summary", a text or a list of texts of which each is a
      summary, and "labels", one of 0 and 1 for each sentence of a list.

    "summary" is a JSON list. Without a summary it is the sentences of label 1.
    "labels" are divided by spaces, or "".

    Raises ValueError, with a phrase as message, for an invalid example.
    """
    words = text["text"].replace(graph_splitter.SEPARATOR, "")
    if not labels_lib.strip(words):
        raise ValueError("expected a text, found an empty one")
    labels = _labels(label.get("labels"), text["text"])
    summaries = label.get("summary")
    if isinstance(summaries, str):
        summaries = [summaries]
    if summaries is None and labels:
        sentences = text["text"].split(graph_splitter.SEPARATOR)
        summaries = [
            "\n".join(
                sentence
                for sentence, is_chosen in zip(sentences, labels, strict=False)
                if is_chosen
            )
        ]
    if not isinstance(summaries, (list, tuple)) or not summaries:
        is_list = isinstance(summaries, (list, tuple))
        found = "an empty list" if is_list else json_lines.name_of(summaries)
        raise ValueError(
            f"expected a summary, or a list of them, found {found}"
        )
    for summary in summaries:
        if not isinstance(summary, str) or not summary.strip():
            found = "" if isinstance(summary, str) else summary
            shown = "an empty one" if found == "" else json_lines.name_of(found)
            raise ValueError(f"expected a summary, found {shown}")
    return {
        **text,
        "summary": json.dumps(list(summaries), ensure_ascii=False),
        "labels": " ".join(map(str, labels)),
    }


def _labels(value: Any, text: str) -> list[int]:
    """Returns the labels of a text's sentences; [] if there are none."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        value = value.replace(",", " ").strip("[]").split()
    names = {"0": 0, "1": 1, "False": 0, "True": 1}
    if (
        not isinstance(value, (list, tuple))
        or not value
        or not all(str(each) in names for each in value)
    ):
        raise ValueError(
            "expected labels, a 0 or 1 for each sentence, found "
            f"{str(value)[:60]!r}; to learn from summaries alone, name the "
            "columns, as in text=NAME,summary=NAME"
        )
    labels = [names[str(each)] for each in value]
    count = text.count(graph_splitter.SEPARATOR)
    if count != len(labels):
        found = f"{count} sentences" if count else "a text that is no such list"
        raise ValueError(
            f"expected a list of as many sentences as labels, {len(labels)}, "
            f"found {found}"
        )
    if not any(labels):
        raise ValueError("expected a label 1, found only 0")
    return labels


def _rows(
    path: str, columns: str, *, labelled: bool = True
) -> Iterator[tuple[str, Row]]:
    """Yields (where, row by standard names) of each example of a file."""
    named = labelled_files.parse_columns(columns, COMMON_COLUMNS) or {}
    keys: Mapping[str, Any] = {}
    before: Sequence[Any] = ()
    for where, row in named_rows.read(path, named, COMMON_COLUMNS):
        if list(row) != before:
            # Rows of JSON after the first one may have other fields.
            place = f"{path}, {where}" if before else path
            before = list(row)
            keys = _locate(place, before, named, labelled=labelled)
        yield where, {name: row[key] for name, key in keys.items()}


def _locate(
    path: str,
    available: Sequence[Any],
    named: Mapping[str, str],
    *,
    labelled: bool,
) -> dict[str, Any]:
    """Returns {standard name: column}; InputError if columns are missing."""
    if not labelled:
        named = {k: v for k, v in named.items() if k == "text"}
    named_rows.check_named(path, available, named)
    common = dict(COMMON_COLUMNS)
    if "summary" in named:
        del common["labels"]
    keys = named_rows.recognise(available, named, common)
    problem = ""
    if "text" not in keys:
        problem = "a column text"
    elif labelled and not {"summary", "labels"} & set(keys):
        problem = "a column summary, or labels of sentences"
    if problem:
        raise errors.InputError(
            f"{path}: expected {problem}; the columns there are "
            f"{', '.join(map(repr, available))}. Name them, as in "
            "text=NAME,summary=NAME."
        )
    return keys if labelled else {"text": keys["text"]}
