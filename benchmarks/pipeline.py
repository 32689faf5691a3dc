"""Compares schedules of two pipeline stages with accumulation on one device.

  python -m benchmarks.pipeline --records=RECORDS --layers=8 --width=256

Each side is `trainers.pretrain` in a process of its own with one thread for
each stage, and all sides take turns. A step is measured as the difference of a
long and a short run: processor seconds, seconds, and the share of the time in
which a stage's thread is idle. A pipeline of n stages and m micro-batches
leaves (n - 1) / (m + n - 1) of it idle (Huang et al. 2019, section 2.3).

It prints the peak of the memory of each process, too.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import rich.console
import rich.table
from absl import flags

import benchmarks

RECORDS = flags.DEFINE_string("records", None, "Records.", required=True)
LAYERS = flags.DEFINE_integer("layers", 8, "Layers of the network.", 2)
WIDTH = flags.DEFINE_integer("width", 256, "Hidden size, heads of 64.", 64)
STAGES = flags.DEFINE_integer("stages", 2, "Pipeline stages.", 2)
MICRO_BATCHES = flags.DEFINE_integer("micro_batches", 8, "In a batch.", 1)
BATCH = flags.DEFINE_integer("batch_size", 64, "Rows of a batch.", 1)
STEPS = flags.DEFINE_integer("steps", 20, "Steps of a long run.", 2)
ROUNDS = flags.DEFINE_integer("rounds", 3, "Turns of each side.", 1)

_SHORT = 5  # steps of a short run


def main(_):
    sides = {
        "accumulation, 1 device": {
            "gradient_accumulation_steps": MICRO_BATCHES.value
        },
        **{
            f"{STAGES.value} stages, {schedule}": {
                "pipeline_stages": STAGES.value,
                "micro_batches": MICRO_BATCHES.value,
                "pipeline_schedule": schedule,
            }
            for schedule in ("gpipe", "1f1b")
        },
    }
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS.value):
            for name, settings in sides.items():
                output = os.path.join(folder, f"{number} {name}")
                found = _measure(folder, output, settings)
                print(json.dumps({"side": name, **found}), flush=True)
                measured[name].append(found)
    table = rich.table.Table(title="A step")
    for column in ("Side", "Seconds", "Processor seconds", "Idle", "Peak MB"):
        table.add_column(column)
    for name, settings in sides.items():
        median = {
            key: statistics.median(each[key] for each in measured[name])
            for key in measured[name][0]
        }
        threads = settings.get("pipeline_stages", 1)
        idle = 1 - median["processor"] / (threads * median["seconds"])
        table.add_row(
            name,
            f"{median['seconds']:.3f}",
            f"{median['processor']:.3f}",
            f"{idle:.0%}",
            f"{median['megabytes']:.0f}",
        )
    rich.console.Console(width=100).print(table)
    bubble = (STAGES.value - 1) / (MICRO_BATCHES.value + STAGES.value - 1)
    print(f"(n - 1) / (m + n - 1) = {bubble:.0%}")


def _measure(folder, output, settings):
    """Runs a side twice; returns what a step takes and the memory's peak."""
    network = os.path.join(folder, "network.json")
    with open(network, "w", encoding="utf-8") as file:
        json.dump(_network(), file)
    times: dict[int, tuple[float, float]] = {}
    megabytes = 0.0
    for steps in (_SHORT, STEPS.value + _SHORT):
        run = f"{output} {steps}"
        processor, megabytes = _run(network, run, steps, settings)
        with open(os.path.join(run, "log.jsonl"), encoding="utf-8") as file:
            log = [json.loads(line) for line in file]
        rates = [row for row in log if "rows_per_second" in row]
        seconds = sum(
            BATCH.value / row["rows_per_second"] for row in rates[_SHORT:]
        )
        times[steps] = processor, seconds
    long = times[STEPS.value + _SHORT]
    return {
        "processor": (long[0] - times[_SHORT][0]) / STEPS.value,
        "seconds": long[1] / STEPS.value,
        "megabytes": megabytes,
    }


def _run(network, run, steps, settings):
    """Trains; returns processor seconds and the peak of memory in MB."""
    arguments = {
        "records": RECORDS.value,
        "model": network,
        "output": run,
        "steps": steps,
        "batch_size": BATCH.value,
        "bucket_lengths": False,
        "log_every": 1,
        "evaluate_batches": 1,
        "report_to": "",
        **settings,
    }
    threads = str(settings.get("pipeline_stages", 1))
    process = subprocess.Popen(
        [
            sys.executable,
            *("-m", "trainers.pretrain"),
            *(f"--{name}={value}" for name, value in arguments.items()),
        ],
        env=os.environ
        | {
            "OMP_NUM_THREADS": "1",
            "TF_NUM_INTRAOP_THREADS": "1",
            "TF_NUM_INTEROP_THREADS": threads,
        },
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(process.args)} has failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _network() -> dict[str, Any]:
    return {
        "name": "bert",
        "vocab_size": 8000,
        "hidden_size": WIDTH.value,
        "num_layers": LAYERS.value,
        "num_heads": WIDTH.value // 64,
        "intermediate_size": 4 * WIDTH.value,
        "max_position_embeddings": 512,
    }


if __name__ == "__main__":
    benchmarks.run(main)
