"""Measures what pretraining gains on few labelled examples, over several seeds.

make demo
python -m benchmarks.few_shot --demo=demo-output --seeds=3
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import rich.table
from absl import flags

import benchmarks
from bert_keras import checkpoint
from demo import __main__ as demo

_DEMO = flags.DEFINE_string(
    "demo", "demo-output", "Output folder of a complete demo run."
)
_SEEDS = flags.DEFINE_integer(
    "seeds", 3, "Number of runs per start: pretrained and random.", 1
)


def accuracies(output: str, folder: str, *extra: str) -> list[float]:
    """Fine-tunes once per seed; returns dev accuracies after the last epoch.

    extra: further flags of trainers.finetune.
    """
    values = []
    for seed in range(1, _SEEDS.value + 1):
        run = os.path.join(folder, "-".join(["seed", str(seed), *extra]))
        command = demo.finetune_command(
            os.path.join(output, "text"), os.path.join(output, "base"), run
        )
        command += [f"--seed={seed}", "--max_checkpoints_to_keep=1", *extra]
        subprocess.run(
            [sys.executable, "-m", *command], check=True, capture_output=True
        )
        last = checkpoint.read(checkpoint.marked_folder(run, "latest") or run)
        values.append(last.metadata["scores"]["accuracy"])
        print(f"seed {seed} {' '.join(extra)}: {values[-1]:.4f}", flush=True)
    return values


def main(arguments: Sequence[str]) -> None:
    del arguments
    table = rich.table.Table("start", "accuracy", "std. dev.", "seeds")
    with tempfile.TemporaryDirectory() as folder:
        for name, extra in (
            ("pretrained", ()),
            ("random", ("--from_scratch",)),
        ):
            values = accuracies(_DEMO.value, folder, *extra)
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            table.add_row(
                name,
                f"{statistics.mean(values):.4f}",
                f"{deviation:.4f}",
                str(len(values)),
            )
    rich.print(table)


if __name__ == "__main__":
    benchmarks.run(main)
