"""Compares TFLite files of every quantization with the checkpoint.

  python -m benchmarks.tflite_parity --checkpoint=runs/sst2 --data=dev.tsv

Uses the first --rows of a labelled file and rows of --seq_length tokens, for
the files and for the checkpoint. int8 is calibrated on the following rows.
"""

import itertools
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
from export import tflite

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A run.")
DATA = flags.DEFINE_string("data", None, "Labelled rows.")
ROWS = flags.DEFINE_integer("rows", 200, "Compared.", 1)
LENGTH = flags.DEFINE_integer("seq_length", 128, "Tokens of a row.", 4)


def main(_):
    predictor = predictor_lib.load(CHECKPOINT.value)
    task = predictor.task.for_device().with_settings(seq_length=LENGTH.value)
    model = model_lib.BertModel(predictor.model.encoder, task)
    model.head.set_weights(predictor.model.head.get_weights())
    predictor = predictor_lib.Predictor(model, predictor.tokenizer)
    rows = list(
        itertools.islice(task.read_examples(DATA.value), 2 * ROWS.value)
    )
    rows, others = rows[: ROWS.value], rows[ROWS.value :] or rows
    raw = {
        name: tf.constant([r[name] for r in rows]) for name in task.text_columns
    }
    want = predictor.serve_text(**raw)
    metric = task.metric_names[0]
    table = rich.table.Table(
        title=f"{CHECKPOINT.value}, {task.name}, {len(rows)} rows of "
        f"{LENGTH.value} tokens"
    )
    for column in ("", "labels equal", "numbers", metric, "MB"):
        table.add_column(column)
    score = task.metrics(predictor_lib.rows_of(task, want), rows)[metric]
    table.add_row("checkpoint", "", "", f"{score:.4f}")
    with tempfile.TemporaryDirectory() as folder:
        for quantization in tflite_converter.QUANTIZATIONS:
            path = tflite.export(
                predictor,
                os.path.join(folder, quantization),
                quantization=quantization,
                seq_length=LENGTH.value,
                data=others,
                least=0.0,
            )
            file = tflite_runner.File(path, predictor)
            inputs = file.inputs(raw)
            numbers = {
                name: tf.constant(value)
                for name, value in file.numbers(inputs).items()
            }
            got = file.task.postprocess(
                numbers, inputs, raw, predictor.tokenizer
            )
            difference = verification.compare(
                got | {"truncated": want["truncated"]},
                want,
                ranked=task.ranked_outputs,
            )
            score = task.metrics(predictor_lib.rows_of(task, got), rows)[metric]
            table.add_row(
                quantization,
                f"{difference.agreement * len(rows):.0f}",
                f"{difference.distance:.1e}",
                f"{score:.4f}",
                f"{os.path.getsize(path) / 1e6:.1f}",
            )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    flags.mark_flags_as_required(["checkpoint", "data"])
    benchmarks.run(main)
