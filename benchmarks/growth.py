"""Measures how a training step scales with batch, length, layers and width.

  .venv-bench/bin/python -m benchmarks.growth --output=growth.png

Plots time and peak memory of a masked LM step with linear fits; each size runs
in its own process (`benchmarks.train_step --only=0`). The result: cost is
linear in rows and layers, and grows faster than that with the length (because
of attention) and the width (because of matmuls).
"""

import matplotlib.figure
import numpy as np
import rich.console
import rich.table
from absl import flags

import benchmarks
from benchmarks import train_step

OUTPUT = flags.DEFINE_string("output", "growth.png", "File of the plot.")

SIZES = {
    "batch_size": (4, 8, 16, 32),
    "seq_length": (64, 128, 256, 512),
    "layers": (2, 4, 8, 12),
    "width": (256, 512, 768),
}
MB = 2**20


def measure():
    """Returns {flag: [(value, seconds, bytes)]}.

    The default size, which is among the values of each flag, is measured once.
    """
    results, points = {}, {}
    for name, values in SIZES.items():
        for value in values:
            is_default = value == flags.FLAGS[name].value
            key = "default" if is_default else (name, value)
            if key not in results:
                results[key] = train_step.run_in_new_process(0, **{name: value})
                print(name, value, results[key], flush=True)
            result = results[key]
            points.setdefault(name, []).append(
                (value, result["seconds"], result["bytes"])
            )
    return points


def fit_line(x, y):
    """Fits a line; returns slope, intercept and maximum relative deviation."""
    slope, intercept = np.polyfit(x, y, 1)
    deviation = np.abs(slope * np.array(x) + intercept - y) / y
    return slope, intercept, deviation.max()


def growth_exponent(x, y):
    """Returns e of y ~ x^e, estimated from the two largest x."""
    return float(np.log(y[-1] / y[-2]) / np.log(x[-1] / x[-2]))


def main(_):
    points_by_flag = measure()
    table = rich.table.Table(
        title=f"a step of {train_step.LAYERS.value} x "
        f"{train_step.WIDTH.value}, {train_step.BATCH.value} x "
        f"{train_step.LENGTH.value} tokens, {train_step.PRECISION.value}; one "
        "of these changes"
    )
    for header in ("", "seconds", "max. deviation", "exponent", "peak MB"):
        table.add_column(header)
    figure = matplotlib.figure.Figure(figsize=(12, 6), layout="constrained")
    axes = figure.subplots(2, len(points_by_flag), squeeze=False)
    for column, (name, points) in enumerate(points_by_flag.items()):
        x, seconds, memory = map(np.array, zip(*points, strict=True))
        for row, (y, unit) in enumerate(
            ((seconds, "seconds per step"), (memory / MB, "peak MB"))
        ):
            slope, intercept, _ = fit_line(x, y)
            axis = axes[row][column]
            axis.plot(x, y, "o")
            axis.plot([0, x[-1]], [intercept, slope * x[-1] + intercept])
            axis.set(xlabel=name, ylim=(0, None))
            axis.set_ylabel(unit if column == 0 else "")
        table.add_row(
            f"{name} {', '.join(map(str, x))}",
            ", ".join(f"{y:.2f}" for y in seconds),
            f"{fit_line(x, seconds)[2]:.0%}",
            f"{growth_exponent(x, seconds):.2f}",
            ", ".join(f"{y / MB:.0f}" for y in memory),
        )
    figure.savefig(OUTPUT.value)
    rich.console.Console(width=120).print(table)


if __name__ == "__main__":
    benchmarks.run(main)
