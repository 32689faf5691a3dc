"""Compares the poolings of classification, all with the same settings.

  python -m benchmarks.poolings --init=FOLDER --train=train.tsv \\
      --dev=dev.tsv --folder=poolings

Each pooling is fine-tuned on the same random training rows with each seed, and
scored on all dev rows after the last epoch. Beside them are the most frequent
label and, if scikit-learn is installed, logistic regression on TF-IDF of words
and pairs of words. A finished run is a line of FOLDER/runs.jsonl, and the same
command continues after the last one.
"""

import json
import os
import random
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any

import rich.console
import rich.table
from absl import flags

import benchmarks
import bert_keras
from bert_keras import heads, tasks

_INIT = flags.DEFINE_string("init", "", "Checkpoint to start from.")
_TRAIN = flags.DEFINE_string("train", "", "File of training rows.")
_DEV = flags.DEFINE_string("dev", "", "File of evaluation rows.")
_FOLDER = flags.DEFINE_string("folder", "poolings", "Folder of all results.")
_ROWS = flags.DEFINE_integer("rows", 2000, "Number of training rows.", 1)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Number of runs per pooling.", 1)
_EPOCHS = flags.DEFINE_integer("epochs", 2, "Epochs of each run.", 1)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 5e-5, "Its peak.")
_SEQ_LENGTH = flags.DEFINE_integer("seq_length", 64, "Tokens of a row.", 4)

RUNS = "runs.jsonl"


def training_rows() -> str:
    """Writes a random sample of the training file; returns its path."""
    path = os.path.join(_FOLDER.value, "train.tsv")
    with open(_TRAIN.value, encoding="utf-8") as file:
        header, *rows = file
    sample = random.Random(0).sample(rows, min(_ROWS.value, len(rows)))
    with open(path, "w", encoding="utf-8") as file:
        file.writelines([header, *sample])
    return path


def run(pooling: str, seed: int, train: str) -> dict[str, float]:
    """Fine-tunes once; returns the metrics after the last epoch."""
    output = os.path.join(_FOLDER.value, f"{pooling}-{seed}")
    started = time.process_time()
    model = bert_keras.finetune(
        _INIT.value,
        train,
        task="classification",
        output=output,
        pooling=pooling,
        seed=seed,
        epochs=_EPOCHS.value,
        learning_rate=_LEARNING_RATE.value,
        seq_length=_SEQ_LENGTH.value,
        max_checkpoints_to_keep=1,
    )
    metrics = model.evaluate(_DEV.value, progress=False)
    shutil.rmtree(output)
    return metrics | {"processor_seconds": time.process_time() - started}


def finished() -> Iterator[dict[str, Any]]:
    """Yields the results of earlier calls."""
    path = os.path.join(_FOLDER.value, RUNS)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            yield from map(json.loads, file)


def baselines(train: str) -> dict[str, float]:
    """Returns the accuracy of models without a network, by name."""
    task = tasks.Classification()
    rows, dev = (list(task.read_examples(path)) for path in (train, _DEV.value))
    labels = [row["label"] for row in rows]
    gold = [row["label"] for row in dev]
    most = statistics.mode(labels)
    values = {"most frequent label": gold.count(most) / len(gold)}
    try:
        from sklearn.feature_extraction import text
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        return values
    vectorizer = text.TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+"
    )
    vectors = vectorizer.fit_transform([row["text"] for row in rows])
    model = LogisticRegression(C=10, max_iter=1000).fit(vectors, labels)
    asked = vectorizer.transform([row["text"] for row in dev])
    return values | {"TF-IDF": float(model.score(asked, gold))}


def table(results: Mapping[str, list[dict[str, Any]]]) -> rich.table.Table:
    columns = ("pooling", "accuracy", "std. dev.", "seeds", "processor s")
    table = rich.table.Table(*columns)
    for name, runs in results.items():
        values = [each["accuracy"] for each in runs]
        times = [each["processor_seconds"] for each in runs]
        table.add_row(
            name,
            f"{statistics.mean(values):.4f}",
            f"{statistics.stdev(values):.4f}" if len(values) > 1 else "",
            " ".join(f"{value:.4f}" for value in values),
            f"{statistics.mean(times):.0f}",
        )
    return table


def main(arguments: list[str]) -> None:
    del arguments
    os.makedirs(_FOLDER.value, exist_ok=True)
    train = training_rows()
    runs = {(each["pooling"], each["seed"]): each for each in finished()}
    for seed in range(1, _SEEDS.value + 1):
        for pooling in heads.POOLINGS:
            if (pooling, seed) in runs:
                continue
            values: dict[str, Any] = {"pooling": pooling, "seed": seed}
            values.update(run(pooling, seed, train))
            runs[pooling, seed] = values
            with open(
                os.path.join(_FOLDER.value, RUNS), "a", encoding="utf-8"
            ) as file:
                file.write(json.dumps(values) + "\n")
    results: dict[str, list[dict[str, Any]]] = {}
    for (pooling, _), values in runs.items():
        results.setdefault(pooling, []).append(values)
    console = rich.console.Console()
    console.print(table(results))
    for name, value in baselines(train).items():
        console.print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    benchmarks.run(main)
