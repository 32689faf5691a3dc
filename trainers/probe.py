"""Measures what each layer of a frozen encoder knows, by a linear probe.

  bert-keras probe --checkpoint=runs/base --task=classification \\
      --train=train.tsv --dev=dev.tsv
  bert-keras probe --checkpoint=runs/base --task=tagging \\
      --train=train.conll --dev=dev.conll --output=probes

Each layer, 0 is the embeddings, gets logistic regression on its hidden states:
those of a word's first token for tagging, the mean over a text's tokens for
classification. "control" is the accuracy on labels drawn at random for each
word or text, and selectivity is what remains without it. --output gets
probe.jsonl and probe.png.
"""

import dataclasses
import json
import os

import numpy as np
import tensorflow as tf

from bert_keras import (
    console,
    errors,
    files,
    options,
    probing,
    registry,
)
from bert_keras.data import conll
from bert_keras.tasks import base, classification, tagging
from bert_keras.training import plots
from trainers import flags

COLUMNS = ("accuracy", "f1_macro", "control", "selectivity", "l2")


@dataclasses.dataclass(frozen=True)
class Settings:
    checkpoint: str = options.option("", options.CHECKPOINT)
    modules: str = options.option("", options.MODULES, identity=False)
    task: str = options.option(
        "classification",
        "What the labels are of: words or texts.",
        choices=probing.TASKS,
    )
    train: str = options.option("", "Labelled file to fit the probes to.")
    dev: str = options.option("", "Labelled file to measure them on.")
    columns: str = options.option(
        "",
        "Columns of the files for classification, as "
        "text=NAME,text_pair=NAME,label=NAME; empty: common names are "
        "recognised.",
    )
    tag_column: int = options.option(
        conll.LAST,
        "Index of the tag column for tagging, from 0; -1: the last.",
        minimum=conll.LAST,
    )
    seq_length: int = options.option(
        128,
        "Maximum row length in tokens. A longer text is truncated for "
        "classification and split into several rows for tagging.",
        minimum=4,
        maximum=base.MAX_TOKENS,
    )
    batch_size: int = options.option(
        32, "Texts that the encoder reads together.", minimum=1, maximum=64
    )
    seed: int = options.option(
        1,
        "Seed of the labels of the control task.",
        minimum=1,
        maximum=options.MAX_SEED,
    )
    output: str = options.option(
        "", "New folder for probe.jsonl and probe.png; empty: none."
    )


def task_of(settings: Settings) -> base.Task:
    """Returns the task that reads the files."""
    if settings.task == "tagging":
        return tagging.Tagging(
            seq_length=settings.seq_length,
            stride=max(settings.seq_length // 2, 1),
            tag_column=settings.tag_column,
        )
    if settings.tag_column != conll.LAST:
        raise errors.InputError(
            f"tag_column={settings.tag_column} has no effect with "
            "task=classification; leave it out.",
            argument="tag_column",
        )
    return classification.Classification(seq_length=settings.seq_length)


def main() -> None:
    settings = flags.read(Settings)
    for name in ("checkpoint", "train", "dev"):
        options.require(name, getattr(settings, name))
    if settings.output:
        files.check_empty_folder(settings.output)
    registry.import_modules(settings.modules)
    probes = probing.probe(
        settings.checkpoint,
        settings.train,
        settings.dev,
        task=task_of(settings),
        columns=settings.columns,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    rows = probes.rows()
    console.numbers(
        f"{settings.checkpoint}: a probe of each layer",
        rows=[f"layer {row['layer']}" for row in rows],
        columns=COLUMNS,
        values=np.array([[row[name] for name in COLUMNS] for row in rows]),
    )
    console.output.print(
        f"Always {probes.majority_label!r}: accuracy {probes.majority:.4g}. "
        f"{len(probes.labels)} labels; {probes.num_train:,} rows to fit, "
        f"{probes.num_dev:,} to measure.",
        highlight=False,
        soft_wrap=True,
    )
    if settings.output:
        write(settings.output, probes)


def write(folder: str, probes: probing.Probes) -> None:
    """Writes probe.png and probe.jsonl into a folder."""
    rows = probes.rows()
    tf.io.gfile.makedirs(folder)
    picture = plots.probes(
        [row["accuracy"] for row in rows],
        [row["control"] for row in rows],
        probes.majority,
    )
    files.write(os.path.join(folder, "probe.png"), picture)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    files.write_text(os.path.join(folder, "probe.jsonl"), text)


def run() -> None:
    flags.run(main, lambda: flags.define(Settings))


if __name__ == "__main__":
    run()
