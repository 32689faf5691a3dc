"""Measures the time from the start of `trainers.predict` to its first answer.

  python -m benchmarks.start_up --checkpoint=runs/sst2

Each round starts two new processes; from the second round on, files are in the
operating system's cache. The total is measured on the command itself, with one
line on standard input; the parts are measured in a process that does the same
steps.
"""

import json
import subprocess
import sys
import time

import numpy as np
import rich.console
import rich.table
from absl import flags

import benchmarks

CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Run or step folder of any task."
)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of rounds.", 1)
LINE = flags.DEFINE_string(
    "line", "a fine film", "Input line of trainers.predict."
)

PARTS = """
import json, sys, time
marks = [("Python", float(sys.argv[1]))]
def mark(name):
    marks.append((name, time.time()))
mark("start Python")
import tensorflow
mark("import tensorflow")
import tensorflow_text
mark("import tensorflow_text")
import keras
mark("import the rest of keras")
from bert_keras import predictor
from bert_keras.data import unlabelled_texts
mark("import bert_keras")
model = predictor.load(sys.argv[2])
mark("load the checkpoint, build the model")
texts = [unlabelled_texts.parse(sys.argv[3], model.task.text_columns, 1)]
model.predict(texts)
mark("trace the graph, first answer")
model.predict(texts)
mark("second answer")
seconds = {name: end - begin for (_, begin), (name, end)
           in zip(marks, marks[1:])}
print(json.dumps(seconds))
"""


def time_parts():
    """Returns {part: seconds}, measured in a new process."""
    arguments = [str(time.time()), CHECKPOINT.value, LINE.value]
    run = subprocess.run(
        [sys.executable, "-c", PARTS, *arguments],
        capture_output=True,
        check=True,
        text=True,
    )
    return json.loads(run.stdout.splitlines()[-1])


def time_command():
    """Returns the seconds until the command has written its first line."""
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "trainers.predict"]
        + [f"--checkpoint={CHECKPOINT.value}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        process.stdin.write(LINE.value + "\n")
        process.stdin.flush()
        if not process.stdout.readline():
            raise RuntimeError("trainers.predict gave no answer")
        seconds = time.perf_counter() - began
        process.stdin.close()
    return seconds


def main(_):
    rounds = [
        time_parts() | {"the command": time_command()}
        for _ in range(ROUNDS.value)
    ]
    table = rich.table.Table(title=f"First answer of {CHECKPOINT.value}")
    for column in ("", "seconds, median", "minimum"):
        table.add_column(column)
    for name in rounds[0]:
        values = [each[name] for each in rounds]
        table.add_row(name, f"{np.median(values):.2f}", f"{min(values):.2f}")
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    flags.mark_flags_as_required(["checkpoint"])
    benchmarks.run(main)
