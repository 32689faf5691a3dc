"""Measures time and memory of loading a BERT from each format.

  python -m benchmarks.load_weights

Each load runs in its own process. Time excludes TensorFlow's import. Memory is
the peak of the process after loading; the column "before loading" is its peak
until then.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import rich.table
from absl import flags

import benchmarks
from bert_keras import checkpoint, console, formats, loading
from bert_keras import model as model_lib
from bert_keras.networks import bert as bert_lib
from bert_keras.tasks import masked_lm
from bert_keras.tokenizers import wordpiece

_SIZE = flags.DEFINE_enum(
    "model", "base", list(bert_lib.SIZES), "Size of the BERT."
)
_RUNS = flags.DEFINE_integer("runs", 3, "Number of loads of each format.", 1)
_LOAD = flags.DEFINE_string(
    "load", "", "Internal: load this folder and print the figures."
)


def write_formats(folder: str) -> dict[str, str]:
    """Writes one random network in every format; returns {format: folder}."""
    bert = dataclasses.replace(
        bert_lib.named(_SIZE.value), activation="gelu_tanh"
    )
    words = [f"word{number}" for number in range(bert.vocab_size - 5)]
    tokenizer = wordpiece.Tokenizer(
        [*wordpiece.SPECIAL_TOKENS, *words], lowercase=True
    )
    task = masked_lm.MaskedLM().adapt([], tokenizer)
    model = model_lib.BertModel(bert_lib.BertEncoder(bert), task)
    paths = {"bert_keras": os.path.join(folder, "bert_keras")}
    checkpoint.save(paths["bert_keras"], model, tokenizer, step=0)
    for name, module in formats.FORMATS.items():
        paths[name] = os.path.join(folder, name)
        module.write(paths[name], model, tokenizer)
    return paths


def measure_load(folder: str) -> tuple[float, float, float]:
    """Loads a folder; returns seconds, peak MB and peak MB before loading."""
    before = peak_megabytes()
    start = time.perf_counter()
    source = formats.read(folder)
    source.tokenizer()
    task = source.task or masked_lm.MaskedLM(objective="none")
    loading.load_model(source, task)
    seconds = time.perf_counter() - start
    return seconds, peak_megabytes(), before


def peak_megabytes() -> float:
    """Returns this process's peak memory (Linux only).

    Not getrusage: a child's value starts at its parent's peak.
    """
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def main(arguments: Sequence[str]) -> None:
    del arguments
    if _LOAD.value:
        print(json.dumps(measure_load(_LOAD.value)))
        return
    table = rich.table.Table(
        "format", "on disk", "seconds", "peak MB", "before loading", "runs"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, path in write_formats(folder).items():
            command = [sys.executable, "-m", "benchmarks.load_weights"]
            runs = [
                json.loads(
                    subprocess.run(
                        [*command, f"--load={path}"],
                        check=True,
                        stdout=subprocess.PIPE,
                        text=True,
                    ).stdout.splitlines()[-1]
                )
                for _ in range(_RUNS.value)
            ]
            seconds, peak, before = map(
                statistics.median, zip(*runs, strict=True)
            )
            table.add_row(
                name,
                console.size_of(path),
                f"{seconds:.2f}",
                f"{peak:,.0f}",
                f"{before:,.0f}",
                str(len(runs)),
            )
    rich.print(table)


if __name__ == "__main__":
    benchmarks.run(main)
