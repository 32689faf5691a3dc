"""Compares answers of split requests, joined as by a server, with unsplit ones.

  python -m benchmarks.serving_splits --task=tagging --data=train.conll
  python -m benchmarks.serving_splits --checkpoint=runs/ner --data=dev.conll

The rows are the first --rows of a labelled file; the model is a checkpoint, or
a tiny one with random weights. For every signature and each size in --splits,
the request is split into parts of that size, and their outputs are concatenated
along the first axis.
"""

import itertools
import os
import tempfile

import numpy as np
import rich.console
import rich.table
import tensorflow as tf
from absl import flags

import benchmarks
from bert_keras import predictor as predictor_lib
from bert_keras import signatures, verification
from export import saved_model
from tests import sharp

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A run; or a tiny model.")
TASK = flags.DEFINE_enum(
    "task", "classification", sharp.TASKS, "Of the tiny model."
)
DATA = flags.DEFINE_string("data", None, "Labelled rows.", required=True)
ROWS = flags.DEFINE_integer("rows", 200, "Compared.", 1)
SPLITS = flags.DEFINE_list("splits", ["1", "7", "64"], "Rows of a part.")


def requests(task, texts):
    """Yields (signature, inputs) for the signatures with string inputs."""
    raw = {name: tf.constant(column) for name, column in texts.items()}
    yield signatures.TEXT, raw
    if task.class_names:
        examples = tf.constant(signatures.serialized_examples(texts))
        yield signatures.CLASSIFY, {"inputs": examples}


def tokens(predictor, raw):
    task = predictor.task
    inputs = task.preprocess(raw, predictor.tokenizer)
    return signatures.padded(
        inputs, predictor.model.encoder.config, task.seq_length
    )


def in_batches(answer, inputs, size):
    rows = len(next(iter(inputs.values())))
    answers = [
        answer(**{k: v[start : start + size] for k, v in inputs.items()})
        for start in range(0, rows, size)
    ]
    # Raises if the parts' widths differ.
    return {
        name: np.concatenate([each[name] for each in answers])
        for name in answers[0]
    }


def main(_):
    if CHECKPOINT.value:
        predictor = predictor_lib.load(CHECKPOINT.value)
    else:
        predictor = sharp.make(TASK.value)
    task = predictor.task
    rows = list(itertools.islice(task.read_examples(DATA.value), ROWS.value))
    texts = {name: [row[name] for row in rows] for name in task.text_columns}
    table = rich.table.Table(
        title=f"{CHECKPOINT.value or 'a tiny model'}, {DATA.value}"
    )
    for column in ("task", "signature", "parts of", "rows", "equal", "numbers"):
        table.add_column(column)
    with tempfile.TemporaryDirectory() as folder:
        path = saved_model.export(predictor, os.path.join(folder, "served"))
        served = tf.saved_model.load(path)
        requests_by_name = dict(requests(task, texts))
        requests_by_name[signatures.TOKENS] = tokens(
            predictor, requests_by_name[signatures.TEXT]
        )
        for name, inputs in requests_by_name.items():
            answer = served.signatures[name]
            unsplit = answer(**inputs)
            for size in map(int, SPLITS.value):
                joined = in_batches(answer, inputs, size)
                difference = verification.compare(
                    joined, unsplit, ranked=task.ranked_outputs
                )
                count = len(next(iter(inputs.values())))
                table.add_row(
                    task.name,
                    name,
                    str(size),
                    str(count),
                    f"{difference.agreement * count:.0f}",
                    f"{difference.distance:.1e}",
                )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    benchmarks.run(main)
