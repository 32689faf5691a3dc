"""Console output of commands: progress, messages, errors, tables.

It also has the code that main functions share and that does not depend on how
flags are defined.
"""

import contextlib
import html
import math
import os
import sys
import time
from collections.abc import (
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any

import numpy as np
import rich.console
import rich.progress
import rich.table

from bert_keras import errors, files, streams

# Without a terminal and a notebook, progress is a line that is printed at this
# interval, in seconds.
LINE_SECONDS = 10
NOTEBOOK_SECONDS = 0.25  # between two updates of a notebook's bar
MAX_COLUMNS = 12  # a wider table of numbers does not fit a page


class Progress:
    """A progress bar with speed and time left, in a terminal or a notebook.

    Elsewhere it prints lines, every LINE_SECONDS.

    >>> with Progress("pretraining", total=1000, start=200) as progress:
    ...     progress.update(201, "loss 8.12")

    lines: whether it prints lines where it cannot show a bar.
    shown: whether it shows anything.
    """

    def __init__(
        self,
        title: str,
        *,
        total: float,
        start: float = 0,
        unit: str = "steps",
        lines: bool = True,
        shown: bool = True,
    ):
        self.title, self.total, self.unit = title, total, unit
        self.start = self.before = start
        self.began = self.printed = time.monotonic()
        shown = shown and not console.quiet
        self.in_notebook = shown and console.is_jupyter
        in_terminal = shown and console.is_terminal
        self.in_lines = (
            shown and lines and not (self.in_notebook or in_terminal)
        )
        self.line = f"{_number(start)}/{_number(total)} {unit}"
        self.output: Any = None  # of a notebook's cell
        self.bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[message]}", markup=False),
            console=console,
            disable=not in_terminal,
        )
        self.task = self.bar.add_task(
            title,
            total=total,
            completed=start,  # type: ignore[arg-type]  # rich takes floats
            message=self.line,
        )

    def __enter__(self) -> "Progress":
        self.bar.start()
        if self.in_notebook:
            self._show_in_notebook()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()
        if self.in_notebook:
            self._show_in_notebook()  # the last update, if it was too early

    def update(self, done: float, message: str = "") -> None:
        now = time.monotonic()
        rate = (done - self.start) / max(now - self.began, 1e-9)
        left = (self.total - done) / rate if rate else math.inf
        self.line = (
            f"{_number(done)}/{_number(self.total)} {self.unit}  "
            f"{rate:.3g} {self.unit}/s  {_time(left)} left  {message}"
        )
        self.bar.update(self.task, completed=done, message=self.line)
        finished = self.before < self.total <= done
        self.before = done
        if self.in_lines and (now - self.printed > LINE_SECONDS or finished):
            self.printed = now
            print(f"{self.title}: {self.line}", file=sys.stderr, flush=True)
        if self.in_notebook and now - self.printed > NOTEBOOK_SECONDS:
            self.printed = now
            self._show_in_notebook()

    def _show_in_notebook(self) -> None:
        """Shows the bar as one output of the cell, replaced at each call.

        Not rich's own bar: it is a widget, which needs ipywidgets and is lost
        when the notebook is saved.
        """
        # Import here: only a notebook has it.
        from IPython import display

        text = f"{self.title}  {self.line}"
        data = {
            "text/plain": text,
            "text/html": (
                f'<progress value="{self.before:g}" max="{self.total:g}">'
                "</progress> "
                f'<span style="white-space: pre">{html.escape(text)}</span>'
            ),
        }
        if self.output is None:
            self.output = display.display(data, raw=True, display_id=True)
        else:
            self.output.update(data, raw=True)


def run_main(
    main: Callable[[], None],
    arguments: Sequence[str],
    *,
    flags: Collection[str],
    stopped: str,
    expected: tuple[type[Exception], ...] = (),
) -> None:
    """Runs `main`; an error that the user can fix is one line and exit code 1.

    arguments: the command's name and its positional arguments.
    flags: the arguments that messages write as --NAME.
    stopped: the message after Ctrl-C.
    expected: further exceptions that the user can fix.
    """
    streams.as_utf8(sys.stdout)
    _flags.update(flags)
    try:
        if len(arguments) > 1:
            raise errors.InputError(
                f"unexpected argument {arguments[1]!r}: flags look like "
                "--name=value, see --help."
            )
        main()
    except (errors.InputError, OSError, *files.ERRORS, *expected) as error:
        sys.exit(one_line(error, flags))
    except KeyboardInterrupt:
        sys.exit(stopped)
    finally:
        _flags.clear()


def one_line(error: BaseException, flags: Collection[str] = ()) -> str:
    """Formats an error as one line, with arguments written as flags."""
    text = " ".join(str(error).split())
    return f"error: {errors.as_flags(text, flags)}"


def say(text: str) -> None:
    """Prints a message on standard error; in a main, arguments become flags."""
    text = errors.as_flags(text, _flags)
    console.print(text, highlight=False, soft_wrap=True)


def be_quiet() -> None:
    """Turns off all output, for workers that are not the chief."""
    console.quiet = output.quiet = True


@contextlib.contextmanager
def without_tables() -> Iterator[None]:
    """Hides tables, of a part of a command; progress and messages are shown."""
    before = output.quiet
    output.quiet = True
    try:
        yield
    finally:
        output.quiet = before


def table(title: str, values: Mapping[str, Any]) -> None:
    """Prints the closing table on standard output: results and metrics."""
    output.print(title, style="bold", soft_wrap=True)
    grid = rich.table.Table(show_header=False)
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in values.items():
        grid.add_row(name, _shown(value))
    output.print(grid)


def comparison(title: str, rows: Mapping[str, Mapping[str, str]]) -> None:
    """Prints a table with a row for each key of `rows`.

    Its columns are the keys of all rows, in the order of first occurrence.
    """
    grid = rich.table.Table(title=title, title_justify="left")
    names = dict.fromkeys(name for each in rows.values() for name in each)
    for column in ("", *names):
        grid.add_column(column)
    for label, each in rows.items():
        grid.add_row(label, *(each.get(name, "") for name in names))
    output.print(grid)


def numbers(
    title: str,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
) -> None:
    """Prints a table of numbers on standard output, unless it is too wide.

    values: (len(rows), len(columns)).
    """
    if len(columns) > MAX_COLUMNS:
        return
    grid = rich.table.Table(title=title)
    grid.add_column("")
    for column in columns:
        grid.add_column(str(column), justify="right")
    for name, row in zip(rows, values, strict=True):
        grid.add_row(str(name), *(_shown(value.item()) for value in row))
    output.print(grid)


def size_of(path: str) -> str:
    """Formats the size of a local file, or of all files in a folder."""
    return bytes_text(num_bytes(path))


def num_bytes(path: str) -> int:
    """Returns the size of a local file, or of all files in a folder."""
    paths = [path] if os.path.isfile(path) else []
    for where, _, names in os.walk(path):
        paths += [os.path.join(where, name) for name in names]
    return sum(map(os.path.getsize, paths))


def bytes_text(size: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


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


# The flags of the command that runs; empty when called from Python.
_flags: set[str] = set()
# Print labels and paths literally: [bad] is not markup and :cat: not an emoji.
console = rich.console.Console(stderr=True, markup=False, emoji=False)
output = rich.console.Console(highlight=False, markup=False, emoji=False)
if not output.is_terminal:
    output.width = 100  # for a file; the default of 80 is too narrow
