"""What a person sees of a run: progress, log, TensorBoard, closing table."""

import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np
import rich.console
import rich.progress
import rich.table
import tensorflow as tf

from bert_keras import errors, files
from bert_keras.tasks import base

# Without a terminal, progress is a line every so many seconds.
LINE_SECONDS = 10
SOFTWARE = "bert_keras"  # what a picture says it was drawn by
EVENTS = ".bert_keras"  # how a journal's files for TensorBoard end
TRACED = range(11, 16)  # steps since the start of a run, with --profile
MOST_CLASSES = 30  # whose numbers are written into a confusion matrix
MOST_COLUMNS = 12  # of a table of numbers that still fits a page


class Progress:
    """A bar with rate and time left; single lines where there is no terminal.

    >>> with Progress("pretraining", total=1000, start=200) as progress:
    ...     progress.update(201, "loss 8.12")
    """

    def __init__(
        self, title: str, *, total: float, start: float = 0, unit: str = "steps"
    ):
        self.title, self.total, self.unit = title, total, unit
        self.start = self.before = start
        self.began = self.printed = time.monotonic()
        self.bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[facts]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(
            title, total=total, completed=start, facts=""
        )

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(self, *error) -> None:
        self.bar.stop()

    def update(self, done: float, facts: str = "") -> None:
        now = time.monotonic()
        rate = (done - self.start) / max(now - self.began, 1e-9)
        left = (self.total - done) / rate if rate else math.inf
        text = (
            f"{_number(done)}/{_number(self.total)} {self.unit}  "
            f"{rate:.3g} {self.unit}/s  {_time(left)} left  {facts}"
        )
        self.bar.update(self.task, completed=done, facts=text)
        finished = self.before < self.total <= done
        self.before = done
        due = now - self.printed > LINE_SECONDS or finished
        if not (console.is_terminal or console.quiet) and due:
            self.printed = now
            print(f"{self.title}: {text}", file=sys.stderr, flush=True)


class Journal:
    """`log.jsonl` and TensorBoard scalars, one truth.

    On a resume, lines past the step it resumes from go away, and TensorBoard
    is written anew from the lines that stay: no gap and no step twice. Lines
    that no run has written move to `log.jsonl.unread`.
    """

    def __init__(self, run: str, *, start: int):
        self.path = os.path.join(run, "log.jsonl")
        board = os.path.join(run, "tensorboard")
        lines, unread = _lines(self.path)
        if unread:
            aside = f"{self.path}.unread"
            with tf.io.gfile.GFile(aside, "ab") as file:
                file.write(b"".join(line + b"\n" for line in unread))
            say(
                f"{self.path}: {len(unread):,} lines are not a run's; they are "
                f"in {aside} now"
            )
        kept = [line for line in lines if line["step"] <= start]
        files.write_text(
            self.path, "".join(json.dumps(line) + "\n" for line in kept)
        )
        # Nothing but what a journal has written.
        for path in tf.io.gfile.glob(os.path.join(board, f"*{EVENTS}")):
            tf.io.gfile.remove(path)
        self.board = tf.summary.create_file_writer(
            board, filename_suffix=EVENTS
        )
        for line in kept:
            self._scalars(line)
        self.board.flush()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        # JSON has no NaN.
        line = {"step": step} | {
            name: float(value) if math.isfinite(value) else None
            for name, value in values.items()
        }
        with tf.io.gfile.GFile(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")
        self._scalars(line)
        self.board.flush()

    def picture(self, step: int, name: str, png: bytes) -> None:
        """For TensorBoard only; on a resume earlier ones are gone."""
        with self.board.as_default():
            image = tf.image.decode_png(png, channels=3)[tf.newaxis]
            tf.summary.image(name, image, step=step)

    def _scalars(self, line: Mapping[str, float]) -> None:
        with self.board.as_default():
            for name, value in line.items():
                if name != "step" and value is not None:
                    tf.summary.scalar(name, value, step=int(line["step"]))


class NoJournal:
    """The journal of a worker that does not write."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        del step, values

    def picture(self, step: int, name: str, png: bytes) -> None:
        del step, name, png


class Trace:
    """A step that profiles some of its calls.

    The first ones make graphs, and are left out. What a run does between
    steps, an evaluation or a checkpoint, is in the trace where it falls
    between those steps.

    >>> with Trace(train_step, run) as train_step:
    ...     metrics = train_step(batch)
    """

    def __init__(
        self,
        step: Callable[..., Mapping[str, tf.Tensor]],
        run: str,
        *,
        on: bool = True,
    ):
        self.step = step
        self.folder = os.path.join(run, "profile")
        self.calls, self.on, self.tracing = 0, on, False

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *error) -> None:
        self._stop()

    def __call__(self, batch: Any) -> Mapping[str, tf.Tensor]:
        if not self.on:
            return self.step(batch)
        self.calls += 1
        if self.calls == TRACED.start:
            tf.profiler.experimental.start(self.folder)
            self.tracing = True
        metrics = self.step(batch)
        # The device is done with a step when its loss is read.
        if self.calls in (TRACED.start - 1, TRACED[-1]):
            float(metrics["loss"])
        if self.calls == TRACED[-1]:
            self._stop()
        return metrics

    def _stop(self) -> None:
        if self.tracing:
            tf.profiler.experimental.stop()
            self.tracing = False
            say(f"traced some steps: tensorboard --logdir={self.folder}")


def say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def be_quiet() -> None:
    """Nothing is shown from here on: another worker shows it."""
    console.quiet = output.quiet = True


def table(title: str, facts: Mapping[str, Any]) -> None:
    """The closing table on standard output: what was made, and how good."""
    output.print(title, style="bold", soft_wrap=True)
    grid = rich.table.Table(show_header=False)
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        grid.add_row(name, _shown(value))
    output.print(grid)


def numbers(title: str, table: base.Table) -> None:
    """A table of numbers on standard output; a large one is left out."""
    if len(table.columns) > MOST_COLUMNS:
        return
    grid = rich.table.Table(title=title)
    grid.add_column("")
    for column in table.columns:
        grid.add_column(str(column), justify="right")
    for name, row in zip(table.rows, table.values, strict=True):
        grid.add_row(str(name), *(_shown(value.item()) for value in row))
    output.print(grid)


def histogram(counts: Sequence[int], *, title: str) -> bytes:
    """How many there are of 0, 1, 2, ..., as a PNG."""
    # With margins of its own: to find them takes longer than all the rest.
    figure = matplotlib.figure.Figure((7, 3))
    axes = figure.add_axes((0.1, 0.17, 0.88, 0.72))
    edges = np.arange(len(counts) + 1) - 0.5
    axes.stairs(counts, edges, fill=True)  # one shape: bars draw slowly
    axes.set_title(title)
    axes.set_xlabel("tokens")
    axes.set_ylabel("rows, logarithmic")
    axes.set_yscale("log")  # full rows would leave no other to be seen
    axes.set_ylim(bottom=0.8)
    axes.margins(x=0)
    return _png(figure)


def confusion(table: base.Table) -> bytes:
    """Gold classes by row, answers by column, as a PNG.

    Of many classes without their names and numbers, which take longest and
    could not be read.
    """
    counts = np.asarray(table.values)
    many = len(table.rows) > MOST_CLASSES
    size = 2.5 + 0.45 * min(len(table.rows), MOST_CLASSES)
    figure, axes = _figure(size, size)
    # Shades are shares of a row: large classes do not drown small ones.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("answer")
    axes.set_ylabel("label")
    if many:
        return _png(figure)
    # A label may have dollars, which are no formula.
    plain = {"parse_math": False}
    axes.set_xticks(
        range(len(table.columns)), table.columns, rotation=90, **plain
    )
    axes.set_yticks(range(len(table.rows)), table.rows, **plain)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(
            column,
            row,
            f"{count:,}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if shares[row, column] > 0.5 else "black",
        )
    return _png(figure)


def check_picture(path: str) -> None:
    """Raises InputError where a picture of others would be written over."""
    if not path or not tf.io.gfile.exists(path):
        return
    with tf.io.gfile.GFile(path, "rb") as file:
        if SOFTWARE.encode() not in file.read(1000):
            raise errors.InputError(
                f"{path} is there, and no command here has drawn it; choose "
                "another --output."
            )


def save(path: str, data: bytes) -> None:
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(data)


def _figure(width: float, height: float):
    # Not pyplot: it looks for a screen.
    figure = matplotlib.figure.Figure((width, height), layout="constrained")
    return figure, figure.subplots()


def _png(figure) -> bytes:
    image = io.BytesIO()
    figure.savefig(
        image, format="png", dpi=120, metadata={"Software": SOFTWARE}
    )
    return image.getvalue()


def folder_size(folder: str) -> str:
    """Bytes of all files below a local folder, for people."""
    size = sum(
        os.path.getsize(os.path.join(where, name))
        for where, _, names in os.walk(folder)
        for name in names
    )
    return bytes_text(size)


def bytes_text(size: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def _lines(path: str) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Lines of a log, and those that are none.

    What a kill left of the last line goes away.
    """
    lines, others = [], []
    if not tf.io.gfile.exists(path):
        return lines, others
    with tf.io.gfile.GFile(path, "rb") as file:
        *whole, _ = file.read().split(b"\n")
    for line in whole:
        try:
            values = json.loads(line)
            is_log = isinstance(values.get("step"), int) and all(
                value is None
                or (isinstance(value, (int, float)) and float(value) == value)
                for value in values.values()
            )
        # Also numbers that no float holds.
        except (ValueError, AttributeError, OverflowError, RecursionError):
            is_log = False
        if is_log:
            lines.append(values)
        else:
            others.append(line)
    return lines, others


def _shown(value: Any) -> str:
    if value is None:
        return "not a number"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _time(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours}:{minutes:02}:{seconds:02}"
        if hours
        else (f"{minutes}:{seconds:02}")
    )


# Labels and paths are shown as they are: [bad] is no style, :cat: no picture.
console = rich.console.Console(stderr=True, markup=False, emoji=False)
output = rich.console.Console(highlight=False, markup=False, emoji=False)
if not output.is_terminal:
    output.width = 100  # a file has no width; 80 cuts the tables
