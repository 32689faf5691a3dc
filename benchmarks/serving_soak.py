"""Measures memory and latency of an exported model over many requests.

  python -m benchmarks.serving_soak --requests=100000

The model is --checkpoint, by default a tiny one with random weights. Requests
have 1 to 4 texts of 0 to 60 random words. Then --random_strings strings of
random bytes, 100 per request, and an empty request follow. An error or a NaN
ends the run.
"""

import os
import tempfile
import time

import numpy as np
import rich.console
import rich.table
import tensorflow as tf
from absl import flags

import benchmarks
from bert_keras import predictor as predictor_lib
from bert_keras import signatures
from export import saved_model
from tests import sharp

CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Run or step folder; default: a tiny model."
)
TASK = flags.DEFINE_enum(
    "task", "classification", sharp.TASKS, "Task of the tiny model."
)
REQUESTS = flags.DEFINE_integer(
    "requests", 100_000, "Number of requests of texts.", 1
)
RANDOM_STRINGS = flags.DEFINE_integer(
    "random_strings", 10_000, "Number of strings of random bytes.", 0
)


def resident_megabytes():
    """Returns this process's resident memory in MB (Linux only)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def check_answers(answers, count):
    """Raises ValueError unless there are `count` answers and all are finite."""
    for name, value in answers.items():
        value = value.numpy()
        if len(value) != count:
            raise ValueError(f"{name}: {len(value)} answers to {count} texts")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(f"{name} is not finite")


def main(_):
    if CHECKPOINT.value:
        predictor = predictor_lib.load(CHECKPOINT.value)
    else:
        predictor = sharp.make(TASK.value)
    names = predictor.task.text_columns
    random = np.random.default_rng(1)
    words = np.array([w for w in predictor.tokenizer.vocabulary if w.isalpha()])
    with tempfile.TemporaryDirectory() as folder:
        path = saved_model.export(predictor, os.path.join(folder, "served"))
        answer = tf.saved_model.load(path).signatures[signatures.TEXT]
        seconds, memory = np.zeros(REQUESTS.value), []
        for number in range(REQUESTS.value):
            if number % max(1, REQUESTS.value // 10) == 0:
                memory.append(resident_megabytes())
            count = random.integers(1, 5)
            raw = {
                name: tf.constant(
                    [
                        " ".join(random.choice(words, random.integers(61)))
                        for _ in range(count)
                    ]
                )
                for name in names
            }
            began = time.perf_counter()
            answers = answer(**raw)
            seconds[number] = time.perf_counter() - began
            check_answers(answers, count)
        memory.append(resident_megabytes())
        for _ in range(RANDOM_STRINGS.value // 100):
            raw = {
                name: tf.constant(
                    [random.bytes(random.integers(400)) for _ in range(100)]
                )
                for name in names
            }
            check_answers(answer(**raw), 100)
        no_texts = tf.constant([], tf.string)
        check_answers(answer(**dict.fromkeys(names, no_texts)), 0)
    table = rich.table.Table(
        title=f"{REQUESTS.value:,} requests of 1 to 4 texts, "
        f"{CHECKPOINT.value or 'a tiny model of ' + TASK.value}"
    )
    for column in ("", ""):
        table.add_column(column)
    percentiles = (50, 90, 99, 99.9)
    table.add_row(
        "latency",
        ", ".join(
            f"{each} %: {1000 * np.percentile(seconds, each):.2f} ms"
            for each in percentiles
        ),
    )
    table.add_row(
        "memory after each tenth, MB",
        " ".join(f"{size:.0f}" for size in memory),
    )
    table.add_row(
        "random bytes",
        f"{RANDOM_STRINGS.value:,} strings and an empty request: all answered",
    )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    benchmarks.run(main)
