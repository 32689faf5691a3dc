"""Labelled examples of a task: from a file, or from texts and labels."""

import os
from collections.abc import Iterable
from typing import Any

from bert_keras import console, errors
from bert_keras.data import labelled_files, python_texts
from bert_keras.tasks import base
from bert_keras.types import StrPath


def read(
    task: base.Task,
    data: StrPath | Iterable[Any],
    labels: Iterable[Any] | None = None,
    *,
    columns: labelled_files.Columns = "",
) -> list[base.Example]:
    """Returns the examples of a file, or of texts and their labels.

    data: the path of a file that the task reads; with labels, texts as in
      `Predictor.predict`.
    labels: one per text, as in `Task.make_example`.
    columns: the columns of the file, if not those of the task.
    """
    if isinstance(data, (str, os.PathLike)):
        if labels is not None:
            raise errors.InputError(
                f"expected a list of texts with the labels, found {data!r}; "
                "for a labelled file, leave the labels out."
            )
        return from_file(task, data, columns=columns)[0]
    if columns:
        raise errors.InputError(
            f"columns={columns}: only a labelled file has columns; leave it "
            "out.",
            argument="columns",
        )
    return from_python(task, data, labels)


def from_file(
    task: base.Task,
    path: StrPath,
    *,
    columns: labelled_files.Columns = "",
    target_suffix: str = "",
) -> tuple[list[base.Example], int]:
    """Returns the examples, and how many malformed rows were skipped.

    Prints the reader's warning on the file, if any.

    columns, target_suffix: those of the file, if not those of the task.
    """
    chosen = {"columns": labelled_files.format_columns(columns)}
    if target_suffix:
        chosen["target_suffix"] = target_suffix
    for name, value in chosen.items():
        if value and not hasattr(task, name):
            raise errors.InputError(
                f"{name}={value}: the files of {task.name} have "
                f"no {name}; leave `{name}` out.",
                argument=name,
            )
    if any(chosen.values()):
        task = task.with_settings(**chosen)
    reader = task.read_examples(os.fspath(path))
    examples = list(task.expand(reader))
    print_warning(reader)
    return examples, getattr(reader, "skipped", 0)


def print_warning(examples: Iterable[Any]) -> None:
    """Prints the `warning` of a file's reader, a message on its data, if any.

    It is called `note` in readers written for version 0.1.
    """
    warning = getattr(examples, "warning", "") or getattr(examples, "note", "")
    if warning:
        console.say(warning)


def from_python(
    task: base.Task, texts: Iterable[Any], labels: Iterable[Any] | None
) -> list[base.Example]:
    """Returns the examples of texts and their labels; labels=None: all None.

    Raises InputError with the index of an invalid text or label.
    """
    items = list(python_texts.items_of(texts))
    values = [None] * len(items) if labels is None else _labels(labels)
    if len(values) != len(items):
        raise errors.InputError(
            f"expected a label for each text, found {len(values):,} labels "
            f"and {len(items):,} texts."
        )
    examples = []
    for number, (item, label) in enumerate(zip(items, values, strict=True)):
        raw = python_texts.columns_of(
            item,
            task.text_columns,
            number,
            reader=task.name,
            text_row=task.text_row,
        )
        try:
            examples.append(task.make_example(raw, label))
        except ValueError as problem:
            if isinstance(problem, errors.InputError):
                raise
            raise errors.InputError(f"example {number}: {problem}.") from None
    return list(task.expand(examples))


def _labels(labels: Iterable[Any]) -> list[Any]:
    labels = python_texts.to_python(labels)
    if isinstance(labels, (str, bytes, dict)) or not isinstance(
        labels, Iterable
    ):
        raise errors.InputError(
            "expected a list with a label for each text, found "
            f"{python_texts.describe(labels)}."
        )
    return [_label(label) for label in labels]


def _label(label: Any) -> Any:
    label = python_texts.to_python(label)
    if isinstance(label, bytes):
        return label.decode(errors="replace")
    if isinstance(label, (list, tuple)):
        return [_label(each) for each in label]
    if isinstance(label, dict):
        return {name: _label(each) for name, each in label.items()}
    return label
