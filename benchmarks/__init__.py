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

# Set in the environment once printed, so that child processes do not repeat it.
_SAID = "BENCHMARK_CONDITIONS_SAID"
# The CPU flags that determine the speed of matmuls.
_WIDTHS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


def run(main: Callable[[list[str]], None]) -> None:
    """Prints the conditions on standard error and calls absl's `app.run`."""
    if _SAID not in os.environ:
        os.environ[_SAID] = "1"
        print(conditions(), file=sys.stderr)
    app.run(main)


def conditions() -> str:
    """Returns date, CPU with its vector extensions, CPUs, threads and load."""
    model, flags = _processor()
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    load = os.getloadavg()[0]
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # only available on Linux
        processors = os.cpu_count()
    return (
        f"{datetime.date.today()}, {model} ({' '.join(flags) or 'unknown'}), "
        f"{processors} processors, threads: {threads}, "
        f"load {load:.2f}"
    )


def _processor() -> tuple[str, list[str]]:
    """Returns the CPU's name and those of _WIDTHS it has (Linux only)."""
    values: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for entry in file:
                name, _, value = entry.partition(":")
                values.setdefault(name.strip(), value.strip())
    except OSError:
        return platform.processor() or platform.machine(), []
    has = set(values.get("flags", "").split())
    return (
        values.get("model name", platform.machine()),
        [each for each in _WIDTHS if each in has],
    )
