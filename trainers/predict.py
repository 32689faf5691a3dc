"""Answers texts with a checkpoint: lines or JSON lines in, JSON lines out.

  echo "a fine film" | python -m trainers.predict --checkpoint=runs/sst2
  python -m trainers.predict --checkpoint=runs/mrpc --input=pairs.tsv

A line is a text; for pairs, two texts with a TAB between, as in a .tsv file
without a header. Other tables (.csv, .tsv) are read by the names of their
columns, as in training. A line that begins with { is a JSON object with the
task's columns, as is each line of a .json, .jsonl or .ndjson file. The model is
loaded once. Lines of a pipe are answered one by one, so another program can
converse; for many, --input is faster.
"""

import dataclasses
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from bert_keras import console, errors, files, options, predictor, streams
from bert_keras.data import corpus, json_lines, labelled_files, text_lines
from bert_keras.tasks import base
from trainers import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    checkpoint: str = options.option("", "A run, or one of its step folders.")
    task: str = options.option("", options.TASK)
    input: str = options.option("", "File to read; empty: standard input.")
    output: str = options.option("", "File to write; empty: standard output.")
    batch_size: int = options.option(
        32,
        "A batch has as many tokens as this many rows of the longest length.",
        least=1,
    )


def predict(
    model: predictor.Predictor,
    lines: Iterable[str | base.Row],
    **batching: int,
) -> Iterator[dict[str, Any]]:
    examples = (
        parse(line, model.task.text_columns, number)
        if isinstance(line, str)
        else line
        for number, line in enumerate(lines, start=1)
    )
    return model.stream(examples, **batching)


def parse(line: str, texts: tuple[str, ...], number: int) -> Mapping[str, str]:
    """The columns `texts` of a line; InputError names the line's number."""
    line = line.rstrip("\r\n").removeprefix("\ufeff")
    if line.startswith("{"):
        row = json_lines.object_of(line, number)
        missing = [name for name in texts if name not in row]
        if missing:
            raise errors.InputError(
                f"line {number}: expected {', '.join(texts)}, found "
                f"{', '.join(row) or 'nothing'}."
            )
        for name in texts:
            if not isinstance(row[name], str):
                raise errors.InputError(
                    f"line {number}, column {name!r}: expected text, found "
                    f"{json_lines.name_of(row[name])}."
                )
        return {name: row[name] for name in texts}
    parts = line.split("\t") if len(texts) > 1 else [line]
    if len(parts) != len(texts):
        raise errors.InputError(
            f"line {number}: expected {len(texts)} texts ({', '.join(texts)}) "
            f"with a TAB between, found {len(parts)}."
        )
    return dict(zip(texts, parts, strict=True))


def read(path: str, task: base.Task) -> Iterator[str | base.Row]:
    """The lines of a file, or the rows of a table: .csv, and .tsv with names.

    A .tsv file for a task of several texts may hold them without a header.
    """
    table = re.search(r"\.([ct]sv)(\.gz|\.zst)?$", path, re.IGNORECASE)
    if not table:
        return read_lines(path)
    if table[1].lower() == "tsv" and len(task.text_columns) > 1:
        first = next(text_lines.read(path), b"").decode(errors="replace")
        cells = [cell.strip() for cell in first.split("\t")]
        named = set(_columns(task).values())
        if not (
            labelled_files.are_names(cells) or (named and named <= set(cells))
        ):
            return read_lines(path)
    return _table(path, task)


def _table(path: str, task: base.Task) -> Iterator[base.Row]:
    """The texts of a table under the names that training read, labels aside."""
    columns = _columns(task)
    if not set(task.text_columns) <= labelled_files.COMMON_COLUMNS.keys():
        columns = {name: name for name in task.text_columns}
    try:
        yield from labelled_files.read(
            path,
            columns=columns or None,
            needed=task.text_columns,
            label=lambda _: "",
        )
    except errors.InputError as error:
        raise errors.InputError(
            f"{error} Columns are those that training named, or have common "
            "names; other texts can be given as .txt or .jsonl."
        ) from None


def _columns(task: base.Task) -> dict[str, str]:
    """Where training read the texts of the task, as far as it was told."""
    columns = labelled_files.parse_columns(getattr(task, "columns", "")) or {}
    return {
        name: columns[name] for name in task.text_columns if name in columns
    }


def read_lines(path: str) -> Iterator[str]:
    """The lines of a file, or of standard input; blank ones are texts, too."""
    lines = text_lines.read(path) if path else sys.stdin.buffer
    is_json = corpus.is_json(path)
    for number, line in enumerate(lines, 1):
        try:
            text = text_lines.decode(line.removesuffix(b"\n"))
        except ValueError as problem:
            raise errors.InputError(
                f"{path or 'standard input'}, line {number}: {problem}. "
                "Convert it first, for example with iconv -t UTF-8."
            ) from None
        if is_json and text.strip() and not text.lstrip().startswith("{"):
            raise errors.InputError(
                f"{path}, line {number}: expected one JSON object a line, "
                f"found {text.strip()[:40]!r}. Write the objects of an array "
                "into lines of their own, for example with jq -c '.[]'."
            )
        yield text.lstrip() if is_json else text


def main() -> None:
    settings = flags.read(Settings)
    options.require("checkpoint", settings.checkpoint)
    files.check_output(
        settings.output, input=settings.input, checkpoint=settings.checkpoint
    )
    base.register(settings.task)
    model = predictor.load(settings.checkpoint)
    lines = read(settings.input, model.task)
    # Another program may wait for each answer; a file does not.
    if settings.input or stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode):
        answers = predict(model, lines, batch_size=settings.batch_size)
    else:
        answers = predict(model, lines, batch_size=1, ahead=1)
    if settings.output:
        with tf.io.gfile.GFile(settings.output, "w") as file:
            _write(answers, file)
    else:
        with streams.until_reader_leaves():
            _write(answers, sys.stdout)


def _write(answers: Iterable[Mapping[str, Any]], file) -> None:
    broken = 0
    for answer in answers:
        broken += not predictor.is_finite(answer)
        file.write(predictor.as_json(answer) + "\n")
        file.flush()
    if broken:
        console.say(
            f"{broken:,} answers hold NaN or infinity, written as null: the "
            "weights are damaged"
        )


if __name__ == "__main__":
    flags.run(main, lambda: flags.define(Settings))
