"""Compares a training step of an encoder-decoder with Hugging Face's BART.

  make bench
  .venv-bench/bin/python -m benchmarks.encoder_decoder_step

Both sides have the same sizes (layers, widths, shared and tied embeddings,
learned positions, dropout), the same rows, AdamW and threads, and run in one
process, alternately, a few steps per turn, so that other load on the machine
affects both. Tokens are those of sources and targets, padding included.
"""

import time

import keras
import numpy as np
import rich.console
import rich.table
import tensorflow as tf
import torch
from absl import flags

import benchmarks
from benchmarks import encoder_decoders
from benchmarks.encoder_decoders import END, START
from bert_keras import model as model_lib
from bert_keras import optimizers
from bert_keras.tasks import sequence_to_sequence
from bert_keras.training import step as step_lib

PRECISION = flags.DEFINE_enum(
    "precision", "float32", ["float32", "bfloat16"], "Type of the matmuls."
)
LAYERS = flags.DEFINE_integer("layers", 4, "Layers of each of the two.", 1)
WIDTH = flags.DEFINE_integer("width", 256, "Hidden size, 64 per head.", 64)
VOCABULARY = flags.DEFINE_integer("vocab_size", 8000, "Entries.", 100)
BATCH = flags.DEFINE_integer("batch_size", 64, "Rows per batch.", 1)
SOURCE = flags.DEFINE_integer("seq_length", 24, "Source tokens per row.", 4)
TARGET = flags.DEFINE_integer("target_length", 24, "Target tokens per row.", 4)
ROUNDS = flags.DEFINE_integer("rounds", 8, "Turns of each side.", 1)
STEPS = flags.DEFINE_integer("steps", 5, "Steps per turn.", 1)
THREADS = flags.DEFINE_integer("threads", 2, "Threads of each side.", 1)

LEARNING_RATE = 1e-4


def sizes():
    """Returns those of both sides."""
    return {
        "vocab_size": VOCABULARY.value,
        "width": WIDTH.value,
        "layers": LAYERS.value,
    }


def make_rows():
    """Returns random sources and targets with their end, (B, S), (B, T)."""
    random = np.random.default_rng(0)
    source, target = (
        random.integers(10, VOCABULARY.value, (BATCH.value, length.value))
        for length in (SOURCE, TARGET)
    )
    target[:, -1] = END
    return source.astype(np.int32), target.astype(np.int32)


def make_bert_keras(source, target):
    """Makes a function that runs one step."""
    policy = "mixed_bfloat16" if PRECISION.value == "bfloat16" else "float32"
    keras.config.set_dtype_policy(policy)
    network = encoder_decoders.bert_config(**sizes())
    task = sequence_to_sequence.SequenceToSequence(
        seq_length=SOURCE.value,
        max_target_length=TARGET.value,
        start_id=START,
        end_id=END,
    )
    model = model_lib.BertModel(network.build_encoder(), task)
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
        clip_norm=1.0,
    )
    inputs = {
        "token_ids": tf.constant(source),
        "padding_mask": tf.ones_like(source),
    }
    targets = {"text": (tf.constant(target), tf.ones(target.shape))}
    batch = {"inputs": inputs, "targets": targets}

    def run(number):
        metrics = step(batch | {"step": tf.constant(number, tf.int64)})
        float(metrics["loss"])

    return run, model.count_params()


def make_hugging_face(source, target):
    """Makes a function that runs one step."""
    model = encoder_decoders.make_bart(
        **sizes(),
        threads=THREADS.value,
        dropout=0.1,
        attention_dropout=0.1,
    )
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    batch = {
        "input_ids": torch.from_numpy(source).long(),
        "labels": torch.from_numpy(target).long(),
    }
    is_half = PRECISION.value == "bfloat16"

    def run(number):
        del number
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            loss = model(**batch).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        float(loss.detach())

    return run, sum(p.numel() for p in model.parameters())


SIDES = {"bert_keras": make_bert_keras, "Hugging Face": make_hugging_face}


def main(_):
    tf.config.threading.set_intra_op_parallelism_threads(THREADS.value)
    rows = make_rows()
    sides = {name: make(*rows) for name, make in SIDES.items()}
    wall = {name: [] for name in sides}
    processor = {name: [] for name in sides}
    for run, _ in sides.values():
        for number in range(2):  # tracing
            run(number)
    for turn in range(ROUNDS.value):
        for name, (run, _) in sides.items():
            began, before = (
                time.perf_counter(),
                encoder_decoders.processor_seconds(),
            )
            for number in range(STEPS.value):
                run(2 + turn * STEPS.value + number)
            wall[name].append((time.perf_counter() - began) / STEPS.value)
            processor[name].append(
                (encoder_decoders.processor_seconds() - before) / STEPS.value
            )
    table = rich.table.Table(
        title=f"{LAYERS.value} + {LAYERS.value} layers x {WIDTH.value}, "
        f"{BATCH.value} rows of {SOURCE.value} + {TARGET.value} tokens, "
        f"{PRECISION.value}"
    )
    columns = ("", "parameters", "tokens/s", "step", "processor time")
    for column in columns:
        table.add_column(column)
    tokens = BATCH.value * (SOURCE.value + TARGET.value)
    for name, (_, parameters) in sides.items():
        seconds = float(np.median(wall[name]))
        table.add_row(
            name,
            f"{parameters / 1e6:.1f} M",
            f"{tokens / seconds:,.0f}",
            f"{seconds:.3f} s",
            f"{np.median(processor[name]):.3f} s",
        )
    ours, theirs = map(np.array, wall.values())
    ratios = theirs / ours
    table.caption = (
        f"bert_keras: {np.median(ratios):.2f} times as fast "
        f"({ratios.min():.2f} to {ratios.max():.2f} over {len(ratios)} turns)"
    )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    benchmarks.run(main)
