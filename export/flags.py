"""What the exporting mains share: flags, errors in one line, closing table.

`trainers` has the same plumbing for settings that are dataclasses; the two
folders do not import each other.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping

import rich.console
import rich.table
import tensorflow as tf
from absl import app, flags, logging

from bert_keras import errors, streams, verification
from bert_keras.tasks import base


def run(main: Callable[[], None], define_flags: Callable[[], None]) -> None:
    """Runs a main: bad input and failed exports end in one line and exit 1."""

    def parse(arguments):
        define_flags()
        # TensorFlow tells of every step of saving; --verbosity=0 shows it.
        flags.FLAGS.verbosity = logging.WARNING
        try:
            return flags.FLAGS(arguments)
        except flags.Error as error:
            sys.exit(f"error: {_one_line(error)}")

    def guarded(arguments):
        streams.as_utf8(sys.stdout)
        try:
            if len(arguments) > 1:
                raise errors.InputError(
                    f"unexpected argument {arguments[1]!r}: flags look like "
                    "--name=value, see --help."
                )
            main()
        except (errors.InputError, verification.ExportError, OSError) as error:
            sys.exit(f"error: {_one_line(error)}")
        except tf.errors.OpError as error:  # a disk that is full, and the like
            sys.exit(f"error: {_one_line(error)}")
        except KeyboardInterrupt:
            sys.exit("stopped: nothing was exported")

    app.run(guarded, flags_parser=parse)


def define_checkpoint() -> None:
    flags.DEFINE_string("checkpoint", "", "A run, or one of its step folders.")
    flags.DEFINE_string(
        "task",
        "",
        "Dotted name of a module of yours that has the checkpoint's task. "
        "What a folder names is not imported, what you name here is. Empty: a "
        "task that comes with the package.",
    )


def checkpoint() -> str:
    """The value of --checkpoint, its --task imported."""
    base.register(flags.FLAGS.task)
    return required("checkpoint")


def required(name: str) -> str:
    """The value of a flag that has no default."""
    value = flags.FLAGS[name].value
    if not value:
        raise errors.InputError(f"--{name} is missing; see --help.")
    return value


def milliseconds(call: Callable[[], object], *, runs: int = 15) -> float:
    """Median time of a call that was made before."""
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def megabytes(path: str) -> str:
    """Size of a local file, or of all files below a folder."""
    files = [path] if os.path.isfile(path) else []
    for where, _, names in os.walk(path):
        files += [os.path.join(where, name) for name in names]
    return f"{sum(map(os.path.getsize, files)) / 1e6:,.1f} MB"


def columns(title: str, facts: Mapping[str, Mapping[str, str]]) -> None:
    """A table with a row for each name and a column for each of its facts."""
    names = dict.fromkeys(name for each in facts.values() for name in each)
    grid = rich.table.Table(title=title, title_justify="left")
    for column in ("", *names):
        grid.add_column(column)
    for row, each in facts.items():
        grid.add_row(row, *(each.get(name, "") for name in names))
    _console().print(grid)


def table(title: str, facts: Mapping[str, str], *, then: str) -> None:
    """The closing table on standard output, and below it what to do next."""
    grid = rich.table.Table(
        title=title, title_justify="left", show_header=False
    )
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        grid.add_row(name, value)
    _console().print(grid)
    print(then)  # no folding: commands are copied


def _console() -> rich.console.Console:
    console = rich.console.Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 100  # a file has no width; 80 cuts the tables
    return console


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return errors.as_flags(text, set(flags.FLAGS))
