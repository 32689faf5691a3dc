"""Benchmarks, most of them against other libraries; each prints one table.

First it prints the date, the machine and its load on standard error, because
results of different machines, or of a busy machine, are not comparable.
"""

import datetime
import os
import platform
import sys
from collections.abc import Callable

from absl import app

from bert_keras import tensorflow_import

tensorflow_import.import_tensorflow()

# Set in the environment once the conditions are printed, so that child
# processes do not repeat them.
_PRINTED = "BENCHMARK_CONDITIONS_PRINTED"
# The CPU flags that determine the speed of matmuls.
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


def run(main: Callable[[list[str]], None]) -> None:
    """Prints the conditions on standard error and calls absl's `app.run`."""
    if _PRINTED not in os.environ:
        os.environ[_PRINTED] = "1"
        print(conditions(), file=sys.stderr)
    app.run(main)


def conditions() -> str:
    """Returns date, CPU model and flags, number of CPUs, threads and load."""
    model, cpu_flags = _processor()
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    load = os.getloadavg()[0]
    try:
        num_cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # only available on Linux
        num_cpus = os.cpu_count()
    return (
        f"{datetime.date.today()}, {model} "
        f"({' '.join(cpu_flags) or 'unknown'}), {num_cpus} CPUs, "
        f"threads: {threads}, load {load:.2f}"
    )


def _processor() -> tuple[str, list[str]]:
    """Returns the CPU's name and which of _CPU_FLAGS it has (Linux only)."""
    values: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for entry in file:
                name, _, value = entry.partition(":")
                values.setdefault(name.strip(), value.strip())
    except OSError:
        return platform.processor() or platform.machine(), []
    cpu_flags = set(values.get("flags", "").split())
    return (
        values.get("model name", platform.machine()),
        [flag for flag in _CPU_FLAGS if flag in cpu_flags],
    )
