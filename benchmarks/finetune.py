"""Compares fine-tuning with Hugging Face on PyTorch; the runs alternate.

  make bench
  .venv-bench/bin/python -m benchmarks.finetune \\
      --recipe=trainers/recipes/sst2.flags --init=FOLDER \\
      --train=train.tsv --dev=dev.tsv --seeds=1,2,3

A side is bert_keras or Hugging Face. Both have the same weights, examples and
flags, and the same functions compute the metrics. Rows per second are those of
training only, without its first steps. Hugging Face's batches are random or,
with --group_lengths, of rows of similar length. Memory is the peak of the
complete process.
"""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import rich.console
import rich.table
from absl import flags

import benchmarks

RECIPE = flags.DEFINE_string("recipe", None, "Flag file of trainers.finetune.")
INIT = flags.DEFINE_string("init", None, "Hugging Face folder to start from.")
TRAIN = flags.DEFINE_string("train", None, "File of training examples.")
DEV = flags.DEFINE_string("dev", None, "File of evaluation examples.")
SEEDS = flags.DEFINE_list(
    "seeds", ["1", "2", "3"], "Seeds; each side runs once per seed."
)
GROUP_LENGTHS = flags.DEFINE_bool(
    "group_lengths", False, "Let Hugging Face batch rows of similar length."
)

SIDES = {
    "bert_keras": "trainers.finetune",
    "Hugging Face": "benchmarks.hugging_face_finetune",
}


def run(module, seed, output):
    """Runs one side; returns metrics per epoch, rows/s and peak memory in GB.

    Metrics are {name: [one value per epoch]}.
    """
    command = [
        *(sys.executable, "-m", module, f"--flagfile={RECIPE.value}"),
        *(f"--init={INIT.value}", f"--train={TRAIN.value}"),
        *(f"--dev={DEV.value}", f"--seed={seed}", f"--output={output}"),
    ]
    if GROUP_LENGTHS.value and module.startswith("benchmarks"):
        command.append("--group_lengths")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"error: {' '.join(command)} failed; see above.")
    memory = usage.ru_maxrss / 1e6
    with open(os.path.join(output, "log.jsonl"), encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    metrics = {}
    for line in lines:
        for name, value in line.items():
            if name.startswith("dev/"):
                metrics.setdefault(name.removeprefix("dev/"), []).append(value)
    rates = [x["rows_per_second"] for x in lines if "rows_per_second" in x]
    if module.startswith("benchmarks"):
        return metrics, rates[-1], memory  # of the complete run
    # Log lines cover equal numbers of rows, except the last one; the first one
    # includes tracing.
    return metrics, 1 / np.mean(1 / np.array(rates[1:-1])), memory


def main(_):
    metrics = {side: [] for side in SIDES}
    rates = {side: [] for side in SIDES}
    peaks = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS.value:
            for side, module in SIDES.items():
                output = os.path.join(folder, f"{seed}-{side}")
                values, rate, peak = run(module, seed, output)
                metrics[side].append(values)
                rates[side].append(rate)
                peaks[side].append(peak)
                print(
                    f"{side}, seed {seed}: {rate:.1f} rows/s, {peak:.2f} GB",
                    flush=True,
                )
    table = rich.table.Table(title=f"{RECIPE.value}, seeds {SEEDS.value}")
    for column in ("after the last epoch", *SIDES):
        table.add_column(column)
    metrics_by_side = list(metrics.values())
    for name in metrics_by_side[0][0]:
        cells = []
        for values in metrics_by_side:
            last = [each[name][-1] for each in values if name in each]
            cells.append(
                f"{np.mean(last):.4f} +- {np.std(last):.4f}" if last else ""
            )
        table.add_row(name, *cells)
    medians = [float(np.median(rates[side])) for side in SIDES]
    table.add_row("rows/s, median", *(f"{m:.1f}" for m in medians))
    table.add_row(
        "peak memory, GB", *(f"{np.median(peaks[side]):.2f}" for side in SIDES)
    )
    ratios = np.divide(*(rates[side] for side in SIDES))
    table.caption = (
        f"bert_keras: {np.median(ratios):.2f} times the rows/s (per seed: "
        f"{', '.join(f'{ratio:.2f}' for ratio in ratios)})"
    )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    flags.mark_flags_as_required(["recipe", "init", "train", "dev"])
    benchmarks.run(main)
