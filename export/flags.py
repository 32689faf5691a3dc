"""Flags and error handling that the export commands share."""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from absl import app, flags, logging

from bert_keras import (
    answer_settings,
    command_help,
    console,
    errors,
    options,
    registry,
    verification,
)
from bert_keras import predictor as predictor_lib

_DEFINERS: dict[type, Callable[..., Any]] = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def run(main: Callable[[], None], define_flags: Callable[[], None]) -> None:
    """Runs a main; bad input and failed exports print one line and exit 1."""

    def parse(arguments):
        define_flags()
        command_help.print_if_requested(
            arguments, flags.FLAGS, sys.modules[main.__module__].__doc__ or ""
        )
        # TensorFlow logs every step of saving at INFO; --verbosity=0 shows it.
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
            # TensorFlow's writers raise a different OpError for each disk
            # error.
            expected=(verification.ExportError, tf.errors.OpError),
        )

    app.run(guarded, flags_parser=parse)


def define_checkpoint() -> None:
    flags.DEFINE_string("checkpoint", "", options.CHECKPOINT)
    flags.DEFINE_string("modules", "", options.MODULES)
    flags.DEFINE_string(
        "task",
        "",
        "Export another task that the checkpoint has the heads of, such as "
        "next_sentence; empty: its own.",
    )


def define_answer_settings() -> None:
    """Defines a flag for each setting of how a task answers."""
    for field in answer_settings.fields():
        _DEFINERS[field.metadata["value_type"]](
            field.name,
            None,
            field.metadata["help"],
            **field.metadata.get("bounds", {}),
        )


def checkpoint() -> str:
    """Imports the --modules and returns the value of --checkpoint."""
    registry.import_modules(flags.FLAGS.modules)
    return required("checkpoint")


def load(**settings: Any) -> predictor_lib.Predictor:
    """Loads what the flags name; settings: others of `predictor.load`."""
    answers = {
        field.name: flags.FLAGS[field.name].value
        for field in answer_settings.fields()
        if flags.FLAGS[field.name].value is not None
    }
    return predictor_lib.load(
        checkpoint(),
        task=flags.FLAGS.task or None,
        settings=answers,
        **settings,
    )


def required(name: str) -> str:
    """Returns the value of a required flag; InputError if it is empty."""
    value = flags.FLAGS[name].value
    if not value:
        raise errors.InputError(f"--{name} is missing; see --help.")
    return value


def milliseconds(call: Callable[[], object], *, runs: int = 15) -> float:
    """Returns the median time of `runs` calls, after one warm-up call."""
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
