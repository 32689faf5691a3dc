"""Compares the answers of an exported SavedModel with the checkpoint's.

  python -m benchmarks.serving_parity --checkpoint=runs/sst2 --data=dev.tsv
  python -m benchmarks.serving_parity --checkpoint=runs/base --task=masked_lm \\
      --texts=texts.txt

Compares them on the first --examples examples of --data, or texts of --texts,
which is read as `predict` reads it. The export is loaded
in a separate process that imports TensorFlow and TensorFlow Text but nothing of
this project; it runs in batches of 32. The first text of each batch is also
compared with the checkpoint's answer to it alone.
"""

import itertools
import os
import pickle
import subprocess
import sys
import tempfile

import rich.console
import rich.table
import tensorflow as tf
from absl import flags

import benchmarks
from bert_keras import predictor as predictor_lib
from bert_keras import verification
from bert_keras.data import unlabelled_texts
from export import saved_model

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Run or step folder.")
TASK = flags.DEFINE_string(
    "task", None, "Another task that the checkpoint answers; none: its own."
)
DATA = flags.DEFINE_string("data", None, "File of labelled examples.")
TEXTS = flags.DEFINE_string("texts", None, "File of texts without labels.")
EXAMPLES = flags.DEFINE_integer(
    "examples", 200, "Number of examples to compare on.", 1
)
PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    list(saved_model.PRECISIONS),
    "Precision of the export.",
)

# The program that loads and runs the export.
CLIENT = """
import pickle, sys
import tensorflow as tf, tensorflow_text
answer = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
with open(sys.argv[2], "rb") as file:
    batches = pickle.load(file)
answers = [
    {name: value.numpy() for name, value in answer(
        **{name: tf.constant(texts) for name, texts in batch.items()}
    ).items()}
    for batch in batches
]
assert not [n for n in sys.modules if n.split(".")[0] in (
    "bert_keras", "export", "trainers", "keras_hub", "keras_nlp")]
with open(sys.argv[2], "wb") as file:
    pickle.dump(answers, file)
"""


def read(task):
    if not TEXTS.value:
        return task.read_examples(DATA.value)
    return (
        unlabelled_texts.parse(row, task.text_columns, number)
        if isinstance(row, str)
        else row
        for number, row in enumerate(
            unlabelled_texts.read(TEXTS.value, task.text_columns), start=1
        )
    )


def main(_):
    reference = predictor = predictor_lib.load(
        CHECKPOINT.value, task=TASK.value
    )
    if PRECISION.value != "float32":
        predictor = predictor_lib.load(
            CHECKPOINT.value, task=TASK.value, precision=PRECISION.value
        )
    task, expected = reference.task, saved_model.limited(reference)
    examples = list(itertools.islice(read(task), EXAMPLES.value))
    batches = [
        {
            name: [e[name] for e in examples[start : start + 32]]
            for name in task.text_columns
        }
        for start in range(0, len(examples), 32)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = saved_model.export(
            predictor,
            os.path.join(folder, "served"),
            reference=reference,
            precision=PRECISION.value,
        )
        exchange = os.path.join(folder, "batches")
        with open(exchange, "wb") as file:
            pickle.dump(batches, file)
        subprocess.run(
            [sys.executable, "-I", "-c", CLIENT, path, exchange],
            check=True,
            cwd=folder,
        )
        with open(exchange, "rb") as file:
            answers = pickle.load(file)
    differences, num_equal = [], 0.0
    for batch, got in zip(batches, answers, strict=True):
        raw = {name: tf.constant(texts) for name, texts in batch.items()}
        difference = verification.compare(
            got, expected(**raw), ranked=task.ranked_outputs
        )
        differences.append(difference.distance)
        num_equal += difference.agreement * len(next(iter(batch.values())))
    difference_alone = max(
        verification.compare(
            {name: value[:1] for name, value in got.items()},
            expected(**{name: tf.constant(t[:1]) for name, t in batch.items()}),
            ranked=task.ranked_outputs,
        ).distance
        for batch, got in zip(batches, answers, strict=True)
    )
    table = rich.table.Table(title=f"{CHECKPOINT.value}, {PRECISION.value}")
    for column in (
        "task",
        "examples",
        "equal labels",
        "max. difference",
        "of one text alone",
    ):
        table.add_column(column)
    table.add_row(
        task.name,
        str(len(examples)),
        f"{num_equal:.0f}",
        f"{max(differences):.1e}",
        f"{difference_alone:.1e}",
    )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    flags.mark_flag_as_required("checkpoint")
    flags.mark_flags_as_mutual_exclusive(["data", "texts"], required=True)
    benchmarks.run(main)
