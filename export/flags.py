"""What the exporting mains share: how they run, and flags of all of them."""

import statistics
import sys
import time
from collections.abc import Callable

import tensorflow as tf
from absl import app, flags, logging

from bert_keras import (
    command_help,
    console,
    errors,
    options,
    registry,
    verification,
)


def run(main: Callable[[], None], define_flags: Callable[[], None]) -> None:
    """Runs a main: bad input and failed exports end in one line and exit 1."""

    def parse(arguments):
        define_flags()
        command_help.print_if_asked(arguments, flags.FLAGS)
        # TensorFlow tells of every step of saving; --verbosity=0 shows it.
        flags.FLAGS.verbosity = logging.WARNING  # type: ignore[assignment]
        try:
            return flags.FLAGS(arguments)
        except flags.Error as error:
            sys.exit(console.one_line(error))

    def guarded(arguments):
        console.run_main(
            main,
            arguments,
            flags=set(flags.FLAGS),
            stopped="stopped: nothing was exported",
            # TensorFlow's own writers have an error of their own for each
            # state of a disk.
            expected=(verification.ExportError, tf.errors.OpError),
        )

    app.run(guarded, flags_parser=parse)


def define_checkpoint() -> None:
    flags.DEFINE_string("checkpoint", "", "A run, or one of its step folders.")
    flags.DEFINE_string("modules", "", options.MODULES)
    flags.DEFINE_string("task", "", "Former name of --modules.")


def checkpoint() -> str:
    """The value of --checkpoint, the --modules imported."""
    modules = flags.FLAGS.modules
    if flags.FLAGS.task:
        console.say(
            options.renaming("task", {"modules": flags.FLAGS.task}, "--")
        )
        modules = ",".join(filter(None, (modules, flags.FLAGS.task)))
    registry.import_modules(modules)
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
