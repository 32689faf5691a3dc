"""Plots of a run, as PNG files."""

import functools
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import matplotlib.lines
import matplotlib.text
import numpy as np
import tensorflow as tf
from matplotlib import font_manager

from bert_keras import errors
from bert_keras.tasks import base

SOFTWARE = "bert_keras"  # metadata of each PNG, checked before overwriting one
# A larger confusion matrix is drawn without class names and counts.
MAX_CLASSES = 30
# More points are numbered, as their labels would cover each other.
MAX_CONTEXTS = 20
# Fonts of Linux, macOS and Windows.
CHINESE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "WenQuanYi Zen Hei"),
    *("PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei"),
)


def histogram(counts: Sequence[int], *, title: str) -> bytes:
    """Plots how many rows, counts[n], have n tokens; returns a PNG."""
    # Fixed margins: automatic layout takes longer than drawing.
    figure = matplotlib.figure.Figure((7, 3))
    axes = figure.add_axes((0.1, 0.17, 0.88, 0.72))
    edges = np.arange(len(counts) + 1) - 0.5
    axes.stairs(counts, edges, fill=True)  # one polygon; bars are slow
    axes.set_title(title)
    axes.set_xlabel("tokens")
    axes.set_ylabel("rows (log scale)")
    axes.set_yscale("log")  # most rows have the maximum length
    axes.set_ylim(bottom=0.8)
    axes.margins(x=0)
    return _png(figure)


def confusion(table: base.Table) -> bytes:
    """Plots a confusion matrix of gold (rows) and predicted labels.

    Above MAX_CLASSES, class names and counts are omitted: they would be slow to
    draw and too small to read. Returns a PNG.
    """
    counts = np.asarray(table.values)
    size = 2.5 + 0.45 * min(len(table.rows), MAX_CLASSES)
    figure, axes = _figure(size, size)
    # Normalize by row, so that small classes are visible beside large ones.
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("gold")
    if len(table.rows) > MAX_CLASSES:
        return _png(figure)
    # Do not parse dollar signs in labels as formulas.
    options = {"parse_math": False}
    axes.set_xticks(
        range(len(table.columns)), table.columns, rotation=90, **options
    )
    axes.set_yticks(range(len(table.rows)), table.rows, **options)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(
            column,
            row,
            f"{count:,}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if fractions[row, column] > 0.5 else "black",
        )
    return _png(figure)


def by_length(table: base.Table) -> bytes:
    """Plots metrics by the length of the source; returns a PNG.

    table: as of `metrics.generation.by_length`; the first column is not drawn.
    """
    figure, axes = _figure(6, 3.5)
    for name, values in zip(
        table.columns[1:], np.asarray(table.values).T[1:], strict=True
    ):
        axes.plot(range(len(table.rows)), values, marker="o", label=name)
    axes.set_xticks(range(len(table.rows)), table.rows)
    axes.set_xlabel("source")
    axes.set_ylim(bottom=0)
    axes.legend()
    return _png(figure)


# Name of a table of an evaluation -> its plot.
OF_TABLES = {"confusion": confusion, "source_length": by_length}


def path_of(name: str, output: str) -> str:
    """Returns the path of a table's plot, beside `output`, the answers."""
    return f"{os.path.splitext(output)[0]}-{name}.png"


def attention(
    source: Sequence[str], target: Sequence[str], weights: np.ndarray
) -> bytes:
    """Plots what each target token (rows) reads of the source; returns a PNG.

    weights: (target tokens, source tokens), 0 to 1.
    """
    width, height = (1.5 + 0.3 * len(tokens) for tokens in (source, target))
    figure, axes = _figure(width, height)
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    options = {"parse_math": False}
    axes.set_xticks(range(len(source)), source, rotation=90, **options)
    axes.set_yticks(range(len(target)), target, **options)
    axes.set_xlabel("source")
    axes.set_ylabel("generated")
    return _png(figure)


def contexts(
    points: np.ndarray, shares: np.ndarray, labels: Sequence[str]
) -> bytes:
    """Plots a word's vectors in several contexts; returns a PNG.

    points: (N, 2), their first two principal components.
    shares: (2,), how much of the variance each has.
    labels: the contexts; above MAX_CONTEXTS of them the points are numbered,
      from 0.
    """
    figure, axes = _figure(7, 6)
    axes.scatter(points[:, 0], points[:, 1], s=12)
    is_long = len(labels) > MAX_CONTEXTS
    for number, (x, y) in enumerate(points):
        axes.annotate(
            str(number) if is_long else labels[number],
            (x, y),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=8,
            parse_math=False,
        )
    for set_label, share, name in (
        (axes.set_xlabel, shares[0], "first"),
        (axes.set_ylabel, shares[1], "second"),
    ):
        set_label(f"{name} component, {share:.0%} of the variance")
    axes.margins(0.15)
    return _png(figure)


def probes(
    accuracy: Sequence[float], control: Sequence[float], majority: float
) -> bytes:
    """Plots the probes of the layers 0, 1, ...; returns a PNG.

    accuracy, control: a value for each layer. majority: a horizontal line.
    """
    figure, axes = _figure(6, 3.5)
    layers = range(len(accuracy))
    axes.plot(layers, accuracy, marker="o", label="accuracy")
    axes.plot(layers, control, marker="o", label="control task")
    axes.axhline(majority, color="gray", linestyle="--", label="one label")
    axes.set_xticks(layers)
    axes.set_xlabel("layer (0: embeddings)")
    axes.legend()
    return _png(figure)


def compression(
    names: Sequence[str],
    scores: Sequence[float],
    costs: Mapping[str, Sequence[float]],
    *,
    metric: str,
    chosen: str,
) -> bytes:
    """Plots candidates: a metric over each of their costs; returns a PNG.

    scores: (candidates,). costs: {label of the axis: (candidates,)}, above 0.
    chosen: the name of the candidate to highlight. The points are numbered,
    from 1, as names would cover each other, and listed beside the plots.
    """
    figure = matplotlib.figure.Figure((10, 4.5), layout="constrained")
    plots = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    colors = ["tab:orange" if name == chosen else "tab:blue" for name in names]
    for axes, (label, values) in zip(plots, costs.items(), strict=True):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(_minor_tick)
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
        axes.margins(0.12)
        for value, score, color in zip(values, scores, colors, strict=True):
            above = 3 if color == "tab:orange" else 2
            axes.scatter(value, score, c=color, zorder=above)
    plots[0].set_ylabel(metric)
    figure.legend(
        handles=[
            matplotlib.lines.Line2D(
                *([], []),
                color=color,
                marker="o",
                linestyle="",
                label=f"{number}  {name}",
            )
            for number, (name, color) in enumerate(
                zip(names, colors, strict=True), start=1
            )
        ],
        loc="outside right center",
        title="orange: recommended, or nearest",
    )
    figure.draw_without_rendering()  # determines where the points are
    for axes, values in zip(plots, costs.values(), strict=True):
        points = np.column_stack([values, scores])
        pixels = axes.transData.transform(points)
        for numbers in _labelled_together(pixels):
            inside = axes.transAxes.inverted().transform(pixels[numbers[0]])
            at_edge = bool(inside[0] > 0.8)
            axes.annotate(
                ", ".join(str(number + 1) for number in numbers),
                points[numbers[0]],
                xytext=(-4 if at_edge else 4, 4),
                textcoords="offset points",
                ha="right" if at_edge else "left",
                fontsize=9,
            )
    return _png(figure)


def _minor_tick(value: float, position: int) -> str:
    """Labels 2 and 5 of each decade, of a logarithmic axis."""
    del position
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def _labelled_together(pixels: np.ndarray) -> list[list[int]]:
    """Groups points (N, 2) whose labels would cover each other.

    A label is 14 pixels high and begins at the leftmost point of its group;
    the numbers of a group are in the order of their points, from the left.
    """
    groups: list[list[int]] = []
    for number in map(int, np.argsort(pixels[:, 0], kind="stable")):
        for group in groups:
            right, up = pixels[number] - pixels[group[0]]
            # "12, " is up to 28 pixels wide.
            if abs(up) < 14 and right < 28 * len(group):
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


def check_picture(path: str, argument: str = "output") -> None:
    """Raises InputError unless a picture may be written to `path`.

    Its name ends in .png, and it does not exist or is one of this module's.

    argument: the setting that names it.
    """
    if path and not path.lower().endswith(".png"):
        raise errors.InputError(
            f"{argument}={path}: expected a name that ends in .png.",
            argument=argument,
        )
    if not path or not tf.io.gfile.exists(path):
        return
    with tf.io.gfile.GFile(path, "rb") as file:
        if SOFTWARE.encode() not in file.read(1000):
            raise errors.InputError(
                f"{path} exists and was not written by bert_keras; choose "
                f"another `{argument}`.",
                argument=argument,
            )


def _figure(
    width: float, height: float
) -> tuple[matplotlib.figure.Figure, Any]:
    # Not pyplot: it keeps global state and may select a GUI backend.
    figure = matplotlib.figure.Figure((width, height), layout="constrained")
    return figure, figure.subplots()


def _png(figure: matplotlib.figure.Figure) -> bytes:
    image = io.BytesIO()
    for text in figure.findobj(matplotlib.text.Text):
        text.set_fontfamily(["DejaVu Sans", *_chinese()])
    figure.savefig(
        image, format="png", dpi=120, metadata={"Software": SOFTWARE}
    )
    return image.getvalue()


@functools.cache
def _chinese() -> list[str]:
    """Returns installed fonts with Chinese characters, which matplotlib's lack.

    They are used for the characters that the first font does not have.
    """
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in CHINESE_FONTS if name in installed]
