"""Compares answers of split requests, joined as by a server, with unsplit ones.

  python -m benchmarks.serving_splits --task=tagging --data=train.conll
  python -m benchmarks.serving_splits --checkpoint=runs/ner --data=dev.conll

The model is --checkpoint, by default a tiny one with random weights. The
request has the texts of the first --examples examples of --data. For every
signature and each size in --part_sizes, it is split into parts of that size,
and their outputs are concatenated along the first axis.
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

CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Run or step folder; default: a tiny model."
)
TASK = flags.DEFINE_enum(
    "task", "classification", sharp.TASKS, "Task of the tiny model."
)
DATA = flags.DEFINE_string(
    "data", None, "File of labelled examples.", required=True
)
EXAMPLES = flags.DEFINE_integer(
    "examples", 200, "Number of examples to compare on.", 1
)
PART_SIZES = flags.DEFINE_list(
    "part_sizes", ["1", "7", "64"], "Sizes of the parts, in rows."
)


def string_inputs(task, texts):
    """Returns {signature: inputs} of the signatures with string inputs."""
    raw = {name: tf.constant(column) for name, column in texts.items()}
    inputs = {signatures.TEXT: raw}
    if task.class_names:
        examples = tf.constant(signatures.serialized_examples(texts))
        inputs[signatures.CLASSIFY] = {"inputs": examples}
    return inputs


def token_inputs(predictor, raw):
    """Returns the inputs of the signature that reads token ids."""
    task = predictor.task
    inputs = task.preprocess(raw, predictor.tokenizer)
    return signatures.padded(
        inputs, predictor.model.encoder.config, task.seq_length
    )


def answer_in_parts(answer, inputs, size):
    """Answers parts of `size` rows; returns their concatenated outputs."""
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
    examples = list(
        itertools.islice(task.read_examples(DATA.value), EXAMPLES.value)
    )
    texts = {
        name: [example[name] for example in examples]
        for name in task.text_columns
    }
    table = rich.table.Table(
        title=f"{CHECKPOINT.value or 'a tiny model'}, {DATA.value}"
    )
    for column in (
        "task",
        "signature",
        "part size",
        "rows",
        "equal labels",
        "max. difference",
    ):
        table.add_column(column)
    with tempfile.TemporaryDirectory() as folder:
        path = saved_model.export(predictor, os.path.join(folder, "served"))
        served = tf.saved_model.load(path)
        requests = string_inputs(task, texts)
        requests[signatures.TOKENS] = token_inputs(
            predictor, requests[signatures.TEXT]
        )
        for name, inputs in requests.items():
            answer = served.signatures[name]
            unsplit = answer(**inputs)
            for size in map(int, PART_SIZES.value):
                joined = answer_in_parts(answer, inputs, size)
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
