"""Predicts with a checkpoint: reads lines of text or JSON, writes JSON lines.

  echo "a fine film" | bert-keras predict --checkpoint=runs/sst2
  bert-keras predict --checkpoint=runs/mrpc --input=pairs.tsv
  echo "The film" | bert-keras predict --checkpoint=runs/gpt --top_p=0.9
  echo "A film" | bert-keras predict --checkpoint=elmo --vectors=0,1,2
  bert-keras predict --task=embedding --checkpoint=minilm --output=x.npy

A line is a text; for pairs, two texts separated by a TAB, as in a .tsv file
without a header. Other tables (.csv, .tsv, .parquet) are read by their column
names, as in training. A line that starts with { is a JSON object with the
task's columns, as is each line of a .json, .jsonl or .ndjson file. The model is
loaded once. Lines of a pipe are answered one by one, so that another program
can wait for each answer; --input runs in batches and is faster.

An --output that ends in .npy is an array with a row for each text: its vector,
or with --vectors the vectors of its tokens, padded with 0. The same command
continues it if it was stopped.
"""

import collections
import dataclasses
import itertools
import os
import stat
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO

import numpy as np
import tensorflow as tf

from bert_keras import (
    attention_map,
    console,
    errors,
    evaluation,
    files,
    labelled_examples,
    options,
    predictor,
    registry,
    streams,
    token_vectors,
    vector_files,
)
from bert_keras.data import unlabelled_texts
from bert_keras.tasks import base, embedding
from bert_keras.training import plots, run_folder
from trainers import flags

DTYPE = "float32"


@dataclasses.dataclass(frozen=True)
class Settings:
    checkpoint: str = options.option("", options.CHECKPOINT)
    task: str = options.option(
        "",
        "Answer as another task that the checkpoint has the heads of, such as "
        "next_sentence; empty: its own.",
    )
    modules: str = options.option("", options.MODULES, identity=False)
    input: str = options.option("", "File to read; empty: standard input.")
    output: str = options.option("", "File to write; empty: standard output.")
    copy_texts: bool = options.option(
        False,
        "Write the texts of each row before its answer: texts that a teacher "
        "has labelled so are rows to train on.",
    )
    dtype: str = options.option(
        DTYPE,
        "Type of the numbers of an .npy file; int8 is 127 times a value from "
        "-1 to 1, rounded.",
        choices=vector_files.DTYPES,
    )
    vectors: str = options.option(
        "",
        "Answer with the vectors of each token instead: the layers they are "
        "of, with commas between, as 0,1,2 or -1; 0 is the embeddings.",
    )
    attention: str = options.option(
        "",
        "PNG file to write, of what each generated token of the first text "
        "reads of it, for sequence to sequence.",
    )
    batch_size: int = options.option(
        32,
        "A batch has as many tokens as this many rows of the longest length.",
        minimum=1,
    )


def predict(
    model: predictor.Predictor,
    lines: Iterable[str | base.Example],
    **batching: int,
) -> Iterator[dict[str, Any]]:
    examples = (
        _example(model, line, number)
        for number, line in enumerate(lines, start=1)
    )
    return model.stream(examples, **batching)


def with_texts(
    model: predictor.Predictor,
    lines: Iterable[str | base.Example],
    **batching: int,
) -> Iterator[dict[str, Any]]:
    """Yields the answers of `predict`, each behind the texts of its row.

    Raises InputError if an answer has a field with the name of a text column.
    """
    texts: collections.deque[dict[str, str]] = collections.deque()

    def remembered():
        for number, line in enumerate(lines, start=1):
            example = _example(model, line, number)
            texts.append(
                {name: example[name] for name in model.task.text_columns}
            )
            yield example

    for answer in model.stream(remembered(), **batching):
        row = texts.popleft()
        if both := row.keys() & answer.keys():
            raise errors.InputError(
                f"copy_texts: an answer of {model.task.name} has "
                f"{', '.join(sorted(both))} itself; leave it out.",
                argument="copy_texts",
            )
        yield {**row, **answer}


def predict_from(
    model: predictor.Predictor,
    lines: Iterable[str | base.Example],
    start: int,
    *,
    batch_size: int,
    ahead: int = predictor.SORTED_BATCHES,
) -> Iterator[dict[str, Any]]:
    """Yields the answers of `predict` from the line `start` on, bit-equal.

    Texts are batched by length within blocks of lines. To have the batches, and
    so the rounding, of a run that was never stopped, the block that `start` is
    in is answered from its beginning.
    """
    known = start % (batch_size * ahead)
    rest = itertools.islice(lines, start - known, None)
    answers = predict(model, rest, batch_size=batch_size, ahead=ahead)
    return itertools.islice(answers, known, None)


def _example(
    model: predictor.Predictor, line: str | base.Example, number: int
) -> Mapping[str, str]:
    """Returns the text columns of a line, or of a table's row as it is."""
    if not isinstance(line, str):
        return line
    task = model.task
    return unlabelled_texts.parse(
        line, task.text_columns, number, task.text_row
    )


def main() -> None:
    settings = flags.read(Settings)
    options.require("checkpoint", settings.checkpoint)
    files.check_output(
        settings.output, input=settings.input, checkpoint=settings.checkpoint
    )
    files.check_output(
        settings.attention,
        argument="attention",
        input=settings.input,
        output=settings.output,
        checkpoint=settings.checkpoint,
    )
    plots.check_picture(settings.attention, "attention")
    registry.import_modules(settings.modules)
    given = flags.read_answer_settings()
    model = predictor.load(
        settings.checkpoint, task=_task(settings, given), settings=given
    )
    if settings.output.endswith(".npy"):
        model = _of_one_text(model)
    lines = unlabelled_texts.read(
        settings.input,
        model.task.text_columns,
        getattr(model.task, "columns", ""),
        read_table=model.task.read_texts,
    )
    labelled_examples.print_warning(lines)
    if settings.attention:
        lines = _drawn(model, lines, settings.attention)
    if settings.output.endswith(".npy"):
        _write_vectors(model, lines, settings)
        return
    answer = with_texts if settings.copy_texts else predict
    # A pipe's writer may wait for each answer; a file allows batches.
    if settings.input or stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode):
        answers = answer(model, lines, batch_size=settings.batch_size)
    else:
        answers = answer(model, lines, batch_size=1, ahead=1)
    if settings.output:
        with tf.io.gfile.GFile(settings.output, "w") as file:
            _write(answers, file)
    else:
        with streams.until_reader_leaves():
            _write(answers, sys.stdout)


def _task(
    settings: Settings, given: Mapping[str, Any]
) -> base.Task | str | None:
    """Returns the task that answers, or None for the checkpoint's own."""
    is_array = settings.output.endswith(".npy")
    if settings.dtype != DTYPE and not is_array:
        raise errors.InputError(
            f"dtype={settings.dtype} has no effect without an output that "
            "ends in .npy; leave it out.",
            argument="dtype",
        )
    if settings.copy_texts and is_array:
        raise errors.InputError(
            f"copy_texts: an array, output={settings.output}, has no texts; "
            "name a .jsonl file.",
            argument="copy_texts",
        )
    if not settings.vectors:
        return settings.task or None
    others = {"task": settings.task or None, "layers": given.get("layers")}
    for name, value in others.items():
        if value is not None:
            raise errors.InputError(
                f"{name}={value} has no effect with "
                f"vectors={settings.vectors}; leave one of them out.",
                argument=name,
            )
    return token_vectors.TokenVectors(layers=settings.vectors)


def _of_one_text(model: predictor.Predictor) -> predictor.Predictor:
    """Returns a model of one text, if it embeds pairs: a row has one vector."""
    task = model.task
    if not isinstance(task, embedding.Embedding) or not task.pair:
        return model
    return predictor.with_task(model, task.for_device())


def _drawn(
    model: predictor.Predictor,
    lines: Iterable[str | base.Example],
    path: str,
) -> Iterator[str | base.Example]:
    """Writes the attention of the first line's text; yields all lines."""
    number = -1
    for number, line in enumerate(lines):
        if not number:
            example = _example(model, line, 1)
            drawn = attention_map.attention_map(model, example["text"])
            files.write(path, plots.attention(*drawn))
        yield line
    if number < 0:
        console.say(f"attention={path} is not written: there is no text")


def _write_vectors(
    model: predictor.Predictor,
    lines: Iterable[str | base.Example],
    settings: Settings,
) -> None:
    """Writes a vector, or the vectors of its tokens, for each line."""
    name, shape = _array_of(model, settings.output)
    is_file = os.path.isfile(settings.input)
    identity = {
        "checkpoint": run_folder.weights_fingerprint(model.model, None),
        "tokenizer": model.tokenizer.fingerprint,
        "task": dataclasses.asdict(model.task),
        "batch_size": settings.batch_size,
        # A pipe cannot be read again.
        "input": files.checksum(settings.input)
        if is_file
        else uuid.uuid4().hex,
    }
    with vector_files.VectorFile(
        settings.output, shape=shape, dtype=settings.dtype, identity=identity
    ) as file:
        broken = 0
        if file.done:
            console.say(f"continuing after {file.done:,} texts")
        for answer in predict_from(
            model, lines, file.done, batch_size=settings.batch_size
        ):
            row = np.zeros(shape, np.float32)
            values = np.asarray(answer[name], np.float32)
            row[tuple(map(slice, values.shape))] = values
            broken += not np.isfinite(row).all()
            file.write(row)
    if broken:
        console.say(
            f"{broken:,} rows hold NaN or infinity: the weights are damaged"
        )
    console.say(f"wrote {file.done:,} x {shape} to {settings.output}")


def _array_of(
    model: predictor.Predictor, output: str
) -> tuple[str, tuple[int, ...]]:
    """Returns the answer that an array has, and the shape of a row."""
    width = model.model.encoder.config.hidden_size
    task = model.task
    if isinstance(task, embedding.Embedding):
        return "embedding", (width,)
    if isinstance(task, token_vectors.TokenVectors) and len(task.indices) == 1:
        return f"layer_{task.indices[0]}", (task.seq_length, width)
    raise errors.InputError(
        f"output={output}: expected task=embedding for the vector of each "
        "text, or `vectors` with one layer for those of its tokens; for other "
        "answers name a .jsonl file.",
        argument="output",
    )


def _write(answers: Iterable[Mapping[str, Any]], file: TextIO) -> None:
    broken = 0
    for answer in answers:
        broken += not evaluation.is_finite(answer)
        file.write(predictor.as_json(answer) + "\n")
        file.flush()
    if broken:
        console.say(
            f"{broken:,} answers hold NaN or infinity, written as null: the "
            "weights are damaged"
        )


def define_flags() -> None:
    flags.define(Settings)
    flags.define_answer_settings()


def run() -> None:
    flags.run(main, define_flags)


if __name__ == "__main__":
    run()
