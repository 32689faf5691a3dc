"""Compares TFLite files of every quantization with the checkpoint.

  python -m benchmarks.tflite_parity --checkpoint=runs/sst2 --data=dev.tsv

Compares them on the first --examples examples of --data; the checkpoint, too,
truncates texts to --seq_length tokens. int8 is calibrated on the examples that
follow, or on the compared ones if there are no more; then the table says so.
"""

import itertools
import math
import os
import tempfile

import rich.console
import rich.table
import tensorflow as tf
from absl import flags

import benchmarks
from bert_keras import model as model_lib
from bert_keras import predictor as predictor_lib
from bert_keras import verification
from bert_keras.device import tflite_converter, tflite_runner
from bert_keras.tasks import base
from export import tflite

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Run or step folder.")
TASK = flags.DEFINE_string(
    "task", None, "Another task that the checkpoint answers; none: its own."
)
DATA = flags.DEFINE_string("data", None, "File of labelled examples.")
EXAMPLES = flags.DEFINE_integer(
    "examples", 200, "Number of examples to compare on.", 1
)
LENGTH = flags.DEFINE_integer("seq_length", 128, "Tokens per row.", 4)


def split_examples(examples):
    """Returns (examples to compare on, examples for calibration, a remark).

    The remark is "" unless both are the same.
    """
    compared, rest = examples[: EXAMPLES.value], examples[EXAMPLES.value :]
    if rest:
        return compared, rest, ""
    return (
        compared,
        compared,
        f"int8 is calibrated on the compared examples: {DATA.value} has only "
        f"{len(compared)}.",
    )


def main(_):
    predictor = predictor_lib.load(CHECKPOINT.value, task=TASK.value)
    task = predictor.task.for_device().with_settings(seq_length=LENGTH.value)
    model = model_lib.BertModel(predictor.model.encoder, task)
    model.head.set_weights(predictor.model.head.get_weights())
    predictor = predictor_lib.Predictor(model, predictor.tokenizer)
    examples, calibration_examples, remark = split_examples(
        list(
            itertools.islice(
                task.expand(task.read_examples(DATA.value)),
                2 * EXAMPLES.value,
            )
        )
    )
    raw = base.as_tensors(examples, task.text_columns)
    want = predictor.serve_text(**raw)
    del want[
        "truncated"
    ]  # `postprocess`, used for the file, has no such answer
    metric = task.metric_names[0]
    table = rich.table.Table(
        title=f"{CHECKPOINT.value}, {task.name}, {len(examples)} examples, "
        f"{LENGTH.value} tokens",
        caption=remark or None,
    )
    for column in ("", "equal labels", "max. difference", metric, "MB"):
        table.add_column(column)

    def metric_value(answers):
        rows = predictor_lib.rows_of(task, answers)
        return f"{task.metrics(rows, examples)[metric]:.4f}"

    table.add_row("checkpoint", "", "", metric_value(want))
    with tempfile.TemporaryDirectory() as folder:
        for quantization in tflite_converter.QUANTIZATIONS:
            path = tflite.export(
                predictor,
                os.path.join(folder, quantization),
                quantization=quantization,
                seq_length=LENGTH.value,
                data=calibration_examples,
                least=-math.inf,  # compare whatever the metric is
            )
            file = tflite_runner.File(path, predictor)
            inputs = file.inputs(raw)
            raw_outputs = {
                name: tf.constant(value)
                for name, value in file.raw_outputs(inputs).items()
            }
            answers = file.task.postprocess(
                raw_outputs, inputs, raw, predictor.tokenizer
            )
            difference = verification.compare(
                answers, want, ranked=task.ranked_outputs
            )
            table.add_row(
                quantization,
                f"{difference.agreement * len(examples):.0f}",
                f"{difference.distance:.1e}",
                metric_value(answers),
                f"{os.path.getsize(path) / 1e6:.1f}",
            )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    flags.mark_flags_as_required(["checkpoint", "data"])
    benchmarks.run(main)
