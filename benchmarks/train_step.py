"""Compares a masked LM training step with KerasHub's `fit`.

  .venv-bench/bin/python -m benchmarks.train_step --precision=mixed_bfloat16

A side is the training step of bert_keras or of KerasHub. Both have the same
shapes, rows, AdamW and dropout, and run in one process with the same threads.
They run alternately, a few steps per turn, so that other load on the machine
affects both. The peak FLOP/s are those of a large matmul, measured between the
turns; a step's FLOPs are those of its matmuls, three times the forward pass.
Memory is the peak of a separate process for each side.
"""

import json
import re
import subprocess
import sys
import time

import keras
import keras_hub
import numpy as np
import rich.console
import rich.table
import tensorflow as tf
from absl import flags

import benchmarks
from bert_keras import model as model_lib
from bert_keras import optimizers
from bert_keras.networks import bert as bert_lib
from bert_keras.tasks import masked_lm
from bert_keras.training import step as step_lib

PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_bfloat16"],
    "Dtype policy of both sides.",
)
LAYERS = flags.DEFINE_integer("layers", 4, "Number of encoder layers.", 1)
WIDTH = flags.DEFINE_integer(
    "width",
    512,
    "Hidden size H, a multiple of 64: each head has a width of 64.",
    64,
)
BATCH = flags.DEFINE_integer("batch_size", 16, "Rows per batch.", 1)
LENGTH = flags.DEFINE_integer("seq_length", 128, "Tokens per row.", 8)
MASKS = flags.DEFINE_integer("masks", 20, "Masked tokens per row.", 1)
ROUNDS = flags.DEFINE_integer("rounds", 8, "Turns of each side.", 1)
STEPS = flags.DEFINE_integer("steps", 5, "Steps per turn.", 1)
ONLY = flags.DEFINE_integer(
    "only",
    None,
    "Internal: run only the side with this index (0: bert_keras); print "
    "seconds and bytes.",
)

VOCABULARY = 30522
LEARNING_RATE = 1e-4


def make_rows():
    """Returns token ids (B, S), mask positions (B, P) and labels (B, P)."""
    random = np.random.default_rng(0)
    shape = BATCH.value, LENGTH.value
    positions = [
        np.sort(random.choice(LENGTH.value, MASKS.value, replace=False))
        for _ in range(BATCH.value)
    ]
    return (
        random.integers(1000, VOCABULARY, shape).astype(np.int32),
        np.array(positions, np.int32),
        random.integers(1000, VOCABULARY, (BATCH.value, MASKS.value)),
    )


def make_bert_keras_step(token_ids, positions, labels):
    """Makes a function that runs some steps and returns their seconds."""
    bert = bert_lib.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH.value,
        num_layers=LAYERS.value,
        num_heads=WIDTH.value // 64,
        intermediate_size=4 * WIDTH.value,
    )
    task = masked_lm.MaskedLM(objective="none")
    model = model_lib.BertModel(bert_lib.BertEncoder(bert), task)
    optimizer = optimizers.Optimizer(
        model.trainable_variables,
        rule=optimizers.AdamW(),
        schedule=optimizers.Schedule(LEARNING_RATE, 0, 10**9),
    )
    step = step_lib.make_train_step(
        model,
        task,
        optimizer,
        strategy=tf.distribute.get_strategy(),
        seed=1,
        clip_norm=0.0,  # as in KerasHub's fit
    )
    inputs = {
        "token_ids": tf.constant(token_ids),
        "segment_ids": tf.zeros_like(token_ids),
        "padding_mask": tf.ones_like(token_ids),
        "positions": tf.constant(positions),
    }
    weights = tf.ones(labels.shape)
    targets = {"masked_lm": (tf.constant(labels, tf.int32), weights)}
    steps_done = 0

    def run(count):
        nonlocal steps_done
        seconds = []
        for _ in range(count):
            began = time.perf_counter()
            batch = {"inputs": inputs, "targets": targets}
            metrics = step(batch | {"step": tf.constant(steps_done, tf.int64)})
            float(metrics["loss"])
            seconds.append(time.perf_counter() - began)
            steps_done += 1
        return seconds

    return run


def make_keras_hub_fit(token_ids, positions, labels):
    """Makes a function that runs some steps and returns their seconds."""
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=LAYERS.value,
        num_heads=WIDTH.value // 64,
        hidden_dim=WIDTH.value,
        intermediate_dim=4 * WIDTH.value,
        dropout=0.1,
    )
    model = keras_hub.models.BertMaskedLM(backbone, preprocessor=None)
    model.compile(
        optimizer=keras.optimizers.AdamW(LEARNING_RATE, weight_decay=0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    inputs = {
        "token_ids": token_ids,
        "segment_ids": np.zeros_like(token_ids),
        "padding_mask": np.ones_like(token_ids),
        "mask_positions": positions,
    }
    weights = np.ones(labels.shape, np.float32)
    data = tf.data.Dataset.from_tensors((inputs, labels, weights)).repeat()
    times = _Times()

    def run(count):
        times.seconds = []
        model.fit(
            data, steps_per_epoch=count, epochs=1, verbose=0, callbacks=[times]
        )
        return times.seconds

    return run


class _Times(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])
        self.seconds.append(time.perf_counter() - self.began)


def step_flops():
    """Returns the FLOPs of the matmuls of one step."""
    tokens, width = BATCH.value * LENGTH.value, WIDTH.value
    masks = BATCH.value * MASKS.value

    def block_flops(queries):
        keys_and_values = 2 * tokens * 2 * width**2
        queries_and_mlp = 2 * queries * (2 * width**2 + 8 * width**2)
        attention = 4 * queries * LENGTH.value * width
        return keys_and_values + queries_and_mlp + attention

    # The last block is computed only at the masks and at the pooler's token.
    blocks = (LAYERS.value - 1) * block_flops(tokens)
    blocks += block_flops(masks + BATCH.value)
    return 3 * (blocks + 2 * masks * width * (width + VOCABULARY))


def measure_peak(size=2048):
    """Measures the FLOP/s of a square matmul."""
    dtype = tf.bfloat16 if "bfloat16" in PRECISION.value else tf.float32
    matrix = tf.cast(tf.random.normal((size, size)), dtype)
    matmul = tf.function(lambda: tf.matmul(matrix, matrix))
    matmul()  # tracing
    began = time.perf_counter()
    for _ in range(5):
        matmul()
    return 5 * 2 * size**3 / (time.perf_counter() - began)


SIDES = {
    "bert_keras": make_bert_keras_step,
    "KerasHub's fit": make_keras_hub_fit,
}


def run_in_new_process(side, **sizes):
    """Returns {"seconds": per step, "bytes": peak memory} of one side.

    side: its index in SIDES. The process has the flags of this one except for
    `sizes`.
    """
    forwarded_flags = PRECISION, LAYERS, WIDTH, BATCH, LENGTH, MASKS, STEPS
    values = {flag.name: flag.value for flag in forwarded_flags}
    values |= sizes | {"only": side}
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.train_step"]
        + [f"--{name}={value}" for name, value in values.items()],
        capture_output=True,
        check=True,
        text=True,
    )
    return json.loads(process.stdout.splitlines()[-1])


def run_side(make):
    """Runs one side; prints seconds per step and bytes of peak memory."""
    run = make(*make_rows())
    run(2)  # tracing
    seconds = float(np.median(run(STEPS.value)))
    # Linux only. Not ru_maxrss, which starts at the parent's peak.
    with open("/proc/self/status") as file:
        kilobytes = re.search(r"VmHWM:\s+(\d+)", file.read())[1]
    print(json.dumps({"seconds": seconds, "bytes": 1024 * int(kilobytes)}))


def main(_):
    keras.config.set_dtype_policy(PRECISION.value)
    if ONLY.value is not None:
        run_side(list(SIDES.values())[ONLY.value])
        return
    rows = make_rows()
    sides = {name: make(*rows) for name, make in SIDES.items()}
    for run in sides.values():
        run(2)  # tracing
    seconds = {name: [] for name in sides}
    peaks = []
    for _ in range(ROUNDS.value):
        for name, run in sides.items():
            seconds[name].append(float(np.median(run(STEPS.value))))
        peaks.append(measure_peak())
    peak = float(np.median(peaks))
    table = rich.table.Table(
        title=f"{LAYERS.value} x {WIDTH.value}, {BATCH.value} x {LENGTH.value}"
        f" tokens, {MASKS.value} masks, {PRECISION.value}: "
        f"{step_flops() / 1e9:.0f} GFLOP per step, peak {peak / 1e9:.0f} "
        "GFLOP/s"
    )
    for column in ("", "seconds per step", "of the peak", "memory"):
        table.add_column(column)
    for index, (name, values) in enumerate(seconds.items()):
        median = float(np.median(values))
        fraction = step_flops() / median / peak
        memory = run_in_new_process(index)["bytes"] / 2**20
        table.add_row(
            name, f"{median:.3f}", f"{fraction:.0%}", f"{memory:.0f} MB"
        )
    bert_keras_seconds, keras_hub_seconds = map(np.array, seconds.values())
    ratios = keras_hub_seconds / bert_keras_seconds
    table.caption = (
        f"bert_keras: {np.median(ratios):.2f} times as fast "
        f"({ratios.min():.2f} to {ratios.max():.2f} over {len(ratios)} turns)"
    )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    benchmarks.run(main)
