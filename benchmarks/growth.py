"""Measures how a training step scales with batch, length, layers and width.

  .venv-bench/bin/python -m benchmarks.growth --output=growth.png

Plots time and peak memory of a masked LM step with linear fits; each size runs
in its own process (`benchmarks.train_step --only=0`). The result: cost is
linear in rows, layers and tokens; only length (because of attention) and width
(because of matmuls) cost more than that.
"""

import matplotlib.figure
import numpy as np
import rich.console
import rich.table
from absl import flags

import benchmarks
from benchmarks import train_step

OUTPUT = flags.DEFINE_string("output", "growth.png", "The picture.")

SIZES = {
    "batch_size": (4, 8, 16, 32),
    "seq_length": (64, 128, 256, 512),
    "layers": (2, 4, 8, 12),
    "width": (256, 512, 768),
}
MB = 2**20


def measure():
    """Measures all sizes, the common one once: {name: [(value, s, bytes)]}."""
    results, points = {}, {}
    for name, values in SIZES.items():
        for value in values:
            same = value == flags.FLAGS[name].value
            key = "all" if same else (name, value)
            if key not in results:
                results[key] = train_step.alone(0, **{name: value})
                print(name, value, results[key], flush=True)
            each = results[key]
            points.setdefault(name, []).append(
                (value, each["seconds"], each["bytes"])
            )
    return points


def line(x, y):
    """Fits a line; returns slope, intercept and maximum relative deviation."""
    slope, start = np.polyfit(x, y, 1)
    distance = np.abs(slope * np.array(x) + start - y) / y
    return slope, start, distance.max()


def exponent(x, y):
    """Returns e of y ~ x^e, from the two largest x."""
    return float(np.log(y[-1] / y[-2]) / np.log(x[-1] / x[-2]))


def main(_):
    measured = measure()
    table = rich.table.Table(
        title=f"a step of {train_step.LAYERS.value} x "
        f"{train_step.WIDTH.value}, {train_step.BATCH.value} x "
        f"{train_step.LENGTH.value} tokens, {train_step.PRECISION.value}, and "
        "with one of these changed"
    )
    for column in ("", "seconds", "off a line", "exponent", "MB at the peak"):
        table.add_column(column)
    figure = matplotlib.figure.Figure(figsize=(12, 6), layout="constrained")
    axes = figure.subplots(2, len(measured), squeeze=False)
    for number, (name, points) in enumerate(measured.items()):
        x, seconds, memory = map(np.array, zip(*points, strict=True))
        for row, (y, unit) in enumerate(
            ((seconds, "seconds a step"), (memory / MB, "MB at the peak"))
        ):
            slope, start, _ = line(x, y)
            axis = axes[row][number]
            axis.plot(x, y, "o")
            axis.plot([0, x[-1]], [start, slope * x[-1] + start])
            axis.set(xlabel=name, ylim=(0, None))
            axis.set_ylabel(unit if number == 0 else "")
        table.add_row(
            f"{name} {', '.join(map(str, x))}",
            ", ".join(f"{y:.2f}" for y in seconds),
            f"{line(x, seconds)[2]:.0%}",
            f"{exponent(x, seconds):.2f}",
            ", ".join(f"{y / MB:.0f}" for y in memory),
        )
    figure.savefig(OUTPUT.value)
    rich.console.Console(width=120).print(table)


if __name__ == "__main__":
    benchmarks.run(main)
