"""Measures what a SavedModel gains from length batches and from warm-up.

  python -m benchmarks.serving_throughput --checkpoint=runs/sst2 \\
      --texts=texts.txt

serving_default splits a batch by length. It and two graphs of the same weights
that do not split run alternately on the same batches: one graph pads every row
to the task's length, the other one to the longest row of the batch. First
requests are those of a new process, with and without warm-up requests before
them. The checkpoint's task must read one text.
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

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Run or step folder.")
TEXTS = flags.DEFINE_string("texts", None, "File with one text per line.")
COUNT = flags.DEFINE_integer("count", 1000, "Number of texts to use.", 1)
BATCH = flags.DEFINE_integer("batch_size", 32, "Texts per request.", 1)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of each graph.", 1)
FIRST = flags.DEFINE_string(
    "first",
    None,
    "Internal: measure only the first requests of the SavedModel in this "
    "folder.",
)
WARM = flags.DEFINE_bool(
    "warm", False, "Internal: with --first, run the warm-up requests before."
)


def make_unsplit(predictor, *, full):
    """Returns a function that maps strings to answers in one batch.

    full: pad rows to the task's length, not to the longest row.
    """
    task = predictor.task

    def answer(**raw):
        inputs = task.preprocess(raw, predictor.tokenizer)
        padding = 0
        if full:
            padding = task.seq_length - tf.shape(inputs["padding_mask"])[1]
        tokens = {
            name: tf.pad(inputs[name], [[0, 0], [0, padding]])
            for name in predictor.model.encoder.config.inputs
        }
        decoded = predictor.tokens(**tokens)
        return task.postprocess(decoded, inputs, raw, predictor.tokenizer)

    return tf.function(answer, reduce_retracing=True, autograph=False)


def time_first_requests(path):
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
    warmed_up = time.perf_counter()
    answer = served.signatures[signatures.TEXT]
    text = tf.constant(["A first request, of one sentence."])
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        answer(text=text)
        seconds.append(time.perf_counter() - start)
    print(warmed_up - began, seconds[0], statistics.median(seconds[1:]))


def run_in_new_process(path, warm):
    """Returns seconds of warm-up, first request and later ones (median)."""
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving_throughput"]
        + [f"--first={path}", f"--warm={warm}"],
        capture_output=True,
        check=True,
        text=True,
    )
    return [float(number) for number in process.stdout.split()]


def check_task(task):
    """Ends the program unless the task reads one text."""
    if tuple(task.text_columns) != ("text",):
        sys.exit(
            f"error: --checkpoint={CHECKPOINT.value}: expected a task that "
            f"reads one text; {task.name} reads "
            f"{' and '.join(task.text_columns)}."
        )


def main(_):
    if FIRST.value:
        time_first_requests(FIRST.value)
        return
    # Not required by absl: with --first neither is used.
    if CHECKPOINT.value is None or TEXTS.value is None:
        sys.exit("error: expected --checkpoint and --texts.")
    predictor = predictor_lib.load(CHECKPOINT.value)
    check_task(predictor.task)
    with open(TEXTS.value, encoding="utf-8") as file:
        texts = file.read().splitlines()[: COUNT.value]
    batches = [
        tf.constant(texts[start : start + BATCH.value])
        for start in range(0, len(texts), BATCH.value)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = saved_model.export(predictor, os.path.join(folder, "served"))
        served = tf.saved_model.load(path)
        answers = {
            "serving_default": served.signatures[signatures.TEXT],
            "padded to the longest row": make_unsplit(predictor, full=False),
            f"padded to {predictor.task.seq_length}": make_unsplit(
                predictor, full=True
            ),
        }
        seconds = {name: [] for name in answers}
        for turn in range(1 + ROUNDS.value):
            for name, answer in answers.items():
                began = time.perf_counter()
                for batch in batches:
                    answer(text=batch)
                if turn:  # the first one traces
                    seconds[name].append(time.perf_counter() - began)
        first_requests = {
            warm: run_in_new_process(path, warm) for warm in (False, True)
        }
    table = rich.table.Table(
        title=f"{len(texts):,} texts of {TEXTS.value}, batches of "
        f"{BATCH.value}, {CHECKPOINT.value}"
    )
    for column in ("", "texts/s", "speed-up by serving_default"):
        table.add_column(column)
    baseline_seconds = np.array(seconds["serving_default"])
    for name, times in seconds.items():
        ratios = np.array(times) / baseline_seconds
        table.add_row(
            name,
            f"{len(texts) / np.median(times):.0f}",
            f"{np.median(ratios):.2f} ({ratios.min():.2f} to "
            f"{ratios.max():.2f})",
        )
    table.caption = ". ".join(
        f"First request {'after' if warm else 'without'} warm-up: "
        f"{1000 * first:.0f} ms, later ones {1000 * later:.0f} ms"
        + (f"; the warm-up takes {warm_up:.1f} s" if warm else "")
        for warm, (warm_up, first, later) in first_requests.items()
    )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    benchmarks.run(main)
