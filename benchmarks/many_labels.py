"""Measures a classifier's step with very many labels: all, or k drawn ones.

python -m benchmarks.many_labels --labels=30000 --negatives=0,64

Each value of k has a process of its own, whose peak memory is measured. Time is
that of the processor, which other load changes little. The labels and tokens
are random.
"""

import re
import subprocess
import sys
import time

import numpy as np
import rich.table
import tensorflow as tf
from absl import flags

import benchmarks
from bert_keras import model as model_lib
from bert_keras import optimizers
from bert_keras.networks import bert as bert_lib
from bert_keras.tasks import classification
from bert_keras.training import step as step_lib

_LABELS = flags.DEFINE_integer("labels", 30000, "Number of labels.", 2)
_NEGATIVES = flags.DEFINE_list("negatives", "0,64", "Values of k; 0: all.")
_WIDTH = flags.DEFINE_integer("width", 256, "Hidden size, times 64.", 64)
_BATCHES = flags.DEFINE_list("batch_sizes", "32,512", "Rows per batch.")
_LENGTH = flags.DEFINE_integer("seq_length", 16, "Tokens per row.", 4)
_STEPS = flags.DEFINE_integer("steps", 5, "Measured steps.", 1)
_ONE = flags.DEFINE_bool("one", False, "Internal: run only one; print it.")


def make_step(task):
    """Makes a training step of two layers."""
    config = bert_lib.BertConfig(
        vocab_size=1000,
        hidden_size=_WIDTH.value,
        num_layers=2,
        num_heads=_WIDTH.value // 64,
        intermediate_size=4 * _WIDTH.value,
    )
    model = model_lib.BertModel(config, task)
    optimizer = optimizers.Optimizer(
        model.trainable_variables,
        rule=optimizers.AdamW(),
        schedule=optimizers.Schedule(1e-4, 0, 10**9),
    )
    strategy = tf.distribute.get_strategy()
    return step_lib.make_train_step(
        model, task, optimizer, strategy=strategy, seed=1
    )


def make_batch(task, rows, step):
    random = np.random.default_rng(step)
    ids = tf.constant(random.integers(5, 1000, (rows, _LENGTH.value)))
    ids = tf.cast(ids, tf.int32)
    own = tf.constant(random.integers(0, _LABELS.value, rows), tf.int32)
    seeds = tf.stack([tf.fill([rows], step), tf.range(rows)], axis=1)
    inputs = {
        "token_ids": ids,
        "segment_ids": tf.zeros_like(ids),
        "padding_mask": tf.ones_like(ids),
    }
    targets = {"label": (own, tf.ones(rows))}
    inputs, targets = task.randomize(inputs, targets, seeds)
    step = tf.constant(step, tf.int64)
    return {"inputs": inputs, "targets": targets, "step": step}


def run_one(negatives, rows):
    """Prints a step's median processor seconds and the MB of peak memory."""
    task = classification.Classification(
        labels=tuple(map(str, range(_LABELS.value))), negatives=negatives
    )
    step, seconds = make_step(task), []
    for number in range(2 + _STEPS.value):
        began = time.process_time()
        float(step(make_batch(task, rows, number))["loss"])
        seconds.append(time.process_time() - began)
    # Linux only. Not ru_maxrss, which starts at the parent's peak.
    with open("/proc/self/status", encoding="utf-8") as file:
        kilobytes = int(re.search(r"VmHWM:\s+(\d+)", file.read())[1])
    print(np.median(seconds[2:]), kilobytes / 1024)


def main(_):
    if _ONE.value:
        run_one(int(_NEGATIVES.value[0]), int(_BATCHES.value[0]))
        return
    table = rich.table.Table(
        *("k", "rows", "processor seconds per step", "peak MB"),
        title=f"{_LABELS.value:,} labels",
    )
    for rows in _BATCHES.value:
        for negatives in _NEGATIVES.value:
            flags_of_one = [
                f"--{flag.name}={flag.value}"
                for flag in (_LABELS, _WIDTH, _LENGTH, _STEPS)
            ]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.many_labels", "--one"]
                + [f"--negatives={negatives}", f"--batch_sizes={rows}"]
                + flags_of_one,
                capture_output=True,
                check=True,
                text=True,
            )
            seconds, memory = done.stdout.split()[-2:]
            print(negatives, rows, seconds, memory, flush=True)
            table.add_row(
                negatives, rows, f"{float(seconds):.3f}", f"{float(memory):.0f}"
            )
    rich.print(table)


if __name__ == "__main__":
    benchmarks.run(main)
