"""Side by side with peers: each prints one table.

On standard error first the machine and the day: figures of two machines, or of
a busy and a quiet one, do not compare.
"""

import datetime
import os
import platform
import sys
from collections.abc import Callable

from absl import app

from bert_keras import tensorflow_import

tensorflow_import.import_tensorflow()

# Sides that run in processes of their own say nothing.
_SAID = "BENCHMARK_CONDITIONS_SAID"
# Of the many flags of a CPU, those that decide how fast products are.
_WIDTHS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


def run(main: Callable[[list[str]], None]) -> None:
    """absl's `app.run`, after a line on standard error."""
    if _SAID not in os.environ:
        os.environ[_SAID] = "1"
        print(conditions(), file=sys.stderr)
    app.run(main)


def conditions() -> str:
    """Day, processor and its vector units, processors, threads and load."""
    model, flags = _processor()
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    load = os.getloadavg()[0]
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # Linux alone has it
        processors = os.cpu_count()
    return (
        f"{datetime.date.today()}, {model} ({' '.join(flags) or 'unknown'}), "
        f"{processors} processors, threads: {threads}, "
        f"load {load:.2f}"
    )


def _processor() -> tuple[str, list[str]]:
    """Its name and which of _WIDTHS it has; read where Linux tells it."""
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
