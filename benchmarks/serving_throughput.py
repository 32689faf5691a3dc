"""Measures what a SavedModel gains from splitting by length and from warm-up.

  python -m benchmarks.serving_throughput --checkpoint=runs/sst2 \\
      --texts=texts.txt

Batches of the texts run through serving_default, in turns with two graphs of
the same weights: one pads every row to the task's length, the other pads a
batch to its longest row. First requests are those of a new process, with and
without warm-up requests before them.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import rich.console
import rich.table
import tensorflow as tf
from absl import flags
from tensorflow_serving.apis import prediction_log_pb2

import benchmarks
from bert_keras import predictor as predictor_lib
from bert_keras import signatures
from bert_keras.serving import tf_serving_files
from export import saved_model

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A run.")
TEXTS = flags.DEFINE_string("texts", None, "A text a line.")
COUNT = flags.DEFINE_integer("count", 1000, "Of the texts.", 1)
BATCH = flags.DEFINE_integer("batch_size", 32, "Rows of a request.", 1)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of each side.", 1)
FIRST = flags.DEFINE_string("first", None, "Time the first request of this.")
WARM = flags.DEFINE_bool("warm", False, "After the warm-up, of --first.")


def plain(predictor, *, full):
    """Makes a function from strings to answers that does not split batches.

    full: pad rows to the task's length, not to the longest row.
    """
    task = predictor.task

    def text(**raw):
        inputs = task.preprocess(raw, predictor.tokenizer)
        missing = task.seq_length - tf.shape(inputs["padding_mask"])[1]
        tokens = {
            name: tf.pad(inputs[name], [[0, 0], [0, missing * full]])
            for name in predictor.model.encoder.config.inputs
        }
        decoded = predictor.tokens(**tokens)
        return task.postprocess(decoded, inputs, raw, predictor.tokenizer)

    return tf.function(text, reduce_retracing=True, autograph=False)


def first(path):
    """Prints seconds of warm-up, first request and later ones (median)."""
    served = tf.saved_model.load(path)
    began = time.perf_counter()
    if WARM.value:
        for record in tf.data.TFRecordDataset(
            os.path.join(path, tf_serving_files.WARM_UP)
        ):
            log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
            if log.HasField("predict_log"):
                request = log.predict_log.request
                served.signatures[request.model_spec.signature_name](
                    **{
                        name: tf.constant(tf.make_ndarray(value))
                        for name, value in request.inputs.items()
                    }
                )
    warmed = time.perf_counter()
    answer = served.signatures[signatures.TEXT]
    text = tf.constant(["A first request, of one sentence."])
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        answer(text=text)
        seconds.append(time.perf_counter() - start)
    print(warmed - began, seconds[0], statistics.median(seconds[1:]))


def fresh(path, warm):
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving_throughput"]
        + [f"--first={path}", f"--warm={warm}"],
        capture_output=True,
        check=True,
        text=True,
    )
    return map(float, run.stdout.split())


def main(_):
    if FIRST.value:
        first(FIRST.value)
        return
    predictor = predictor_lib.load(CHECKPOINT.value)
    with open(TEXTS.value, encoding="utf-8") as file:
        texts = file.read().splitlines()[: COUNT.value]
    batches = [
        tf.constant(texts[start : start + BATCH.value])
        for start in range(0, len(texts), BATCH.value)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = saved_model.export(predictor, os.path.join(folder, "served"))
        served = tf.saved_model.load(path)
        sides = {
            "serving_default": served.signatures[signatures.TEXT],
            "as long as the longest": plain(predictor, full=False),
            f"all {predictor.task.seq_length} long": plain(
                predictor, full=True
            ),
        }
        seconds = {name: [] for name in sides}
        for turn in range(1 + ROUNDS.value):
            for name, answer in sides.items():
                began = time.perf_counter()
                for batch in batches:
                    answer(text=batch)
                if turn:  # the first one traces
                    seconds[name].append(time.perf_counter() - began)
        firsts = {warm: list(fresh(path, warm)) for warm in (False, True)}
    table = rich.table.Table(
        title=f"{len(texts):,} texts of {TEXTS.value}, batches of "
        f"{BATCH.value}, {CHECKPOINT.value}"
    )
    for column in ("", "rows a second", "serving_default to it"):
        table.add_column(column)
    mine = np.array(seconds["serving_default"])
    for name, times in seconds.items():
        ratios = np.array(times) / mine
        table.add_row(
            name,
            f"{len(texts) / np.median(times):.0f}",
            f"{np.median(ratios):.2f} ({ratios.min():.2f} to "
            f"{ratios.max():.2f})",
        )
    table.caption = ". ".join(
        f"First request {'after' if warm else 'without'} warm-up: "
        f"{1000 * one:.0f} ms, later ones {1000 * later:.0f} ms"
        + (f"; the warm-up takes {warming:.1f} s" if warm else "")
        for warm, (warming, one, later) in firsts.items()
    )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    benchmarks.run(main)
