"""What early exits cost and save, by speed.

  python -m benchmarks.early_exit --checkpoint=runs/sst2 --data=dev.tsv

The checkpoint was trained with --wrappers=early_exit. For each speed: the
accuracy, the mean layer that answers, and the processor time of a text in the
SavedModel, beside leaving at one layer for all and at random layers of the same
mean, which need no uncertainty.
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
import bert_keras
from bert_keras.serving import saved_model
from bert_keras.wrappers import early_exit

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A run with early exits.")
DATA = flags.DEFINE_string("data", None, "File of evaluation examples.")
SPEEDS = flags.DEFINE_list("speeds", "0,0.1,0.3,0.5,0.7,0.9", "Speeds.")
BATCH = flags.DEFINE_integer("batch_size", 32, "Texts of a request.", 1)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds that are timed.", 1)


def of_all_layers(model, texts):
    """Returns the distributions of every layer, (T, L, C)."""
    task = model.task
    (column,) = task.text_columns
    parts = []
    for start in range(0, len(texts), BATCH.value):
        batch = tf.constant(texts[start : start + BATCH.value])
        features = task.preprocess({column: batch}, model.tokenizer)
        outputs = model.model(
            task.add_derived_features(features), training=False
        )
        (term,) = task.task.softmax_terms
        last = outputs[term][:, tf.newaxis]
        logits = tf.concat([outputs[early_exit.HEAD], last], axis=1)
        parts.append(tf.nn.softmax(logits).numpy())
    return np.concatenate(parts)


def seconds_of(served, texts, speeds):
    """Returns the processor seconds of a text in requests of `BATCH`, by speed.

    The speeds take turns, each round has other requests, and the median counts.
    """
    ask = served.signatures["with_settings"]
    random = np.random.default_rng(0)

    def run(requests, speed):
        began = time.process_time()
        for request in requests:
            ask(text=request, speed=tf.fill(tf.shape(request), speed))
        return (time.process_time() - began) / len(texts)

    rounds = []
    for _ in range(ROUNDS.value + 1):
        shuffled = random.permutation(texts)
        requests = [
            tf.constant(shuffled[start : start + BATCH.value])
            for start in range(0, len(texts), BATCH.value)
        ]
        rounds.append([run(requests, speed) for speed in speeds])
    # The first one traces, and reads the weights.
    return np.median(rounds[1:], axis=0)


def main(_):
    model = bert_keras.load(CHECKPOINT.value)
    rows = list(model.task.read_examples(DATA.value))
    texts = [row["text"] for row in rows]
    gold = np.array([model.task.labels.index(row["label"]) for row in rows])
    shares = of_all_layers(model, texts)
    count, num_layers, num_classes = shares.shape
    entropy = -(shares * np.log(np.maximum(shares, 1e-30))).sum(-1)
    entropy /= np.log(num_classes)
    right = shares.argmax(-1) == gold[:, np.newaxis]  # (T, L)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "served")
        saved_model.export(model, path)
        served = tf.saved_model.load(os.path.join(path, "1"))
        table = rich.table.Table(title=f"{CHECKPOINT.value}, {count} texts")
        for column in ("speed", "accuracy", "mean layer", "ms a text"):
            table.add_column(column)
        table.add_column("one layer for all")
        table.add_column("random layers")
        speeds = [float(speed) for speed in SPEEDS.value]
        seconds = seconds_of(served, texts, speeds)
        for speed, each in zip(speeds, seconds, strict=True):
            is_sure = entropy < speed
            is_sure[:, -1] = True
            layer = is_sure.argmax(1)
            mean = layer.mean() + 1
            fixed = right[:, round(mean) - 1].mean()
            shuffled = np.mean(
                [
                    right[np.arange(count), random.permutation(layer)].mean()
                    for _ in range(20)
                ]
            )
            table.add_row(
                f"{speed:g}",
                f"{right[np.arange(count), layer].mean():.4f}",
                f"{mean:.2f} of {num_layers}",
                f"{1000 * each:.2f}",
                f"{fixed:.4f} (layer {round(mean)})",
                f"{shuffled:.4f}",
            )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    flags.mark_flags_as_required(["checkpoint", "data"])
    benchmarks.run(main)
