"""Settings as dataclasses, dataclass fields as absl flags.

A run writes every flag to `flags.txt` in its folder; the same main replays
it with --flagfile.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from absl import app, flags, logging

from bert_keras import console, errors, options
from bert_keras.tasks import base

T = TypeVar("T")

_DEFINERS = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def define(settings: type, *, without: Sequence[str] = ()) -> None:
    """One flag for every field of `settings` that carries a help text."""
    names = {field.name for field in dataclasses.fields(settings)}
    for field in dataclasses.fields(settings):
        if "help" not in field.metadata or field.name in without:
            continue
        help = errors.as_flags(field.metadata["help"], names)
        choices = field.metadata["choices"]
        # absl lists under --help what belongs to the program itself.
        where = {"module_name": sys.argv[0]}
        if choices:
            flags.DEFINE_enum(
                field.name, field.default, list(choices), help, **where
            )
        else:
            kind = field.metadata["kind"]
            where |= field.metadata["bounds"]
            _DEFINERS[kind](field.name, field.default, help, **where)
        for old in field.metadata["formerly"]:
            flags.DEFINE_alias(old, field.name, module_name=sys.argv[0])


def read(settings: type[T], **more: Any) -> T:
    """The settings as the command line gives them."""
    values = {
        field.name: flags.FLAGS[field.name].value
        for field in dataclasses.fields(settings)
        if "help" in field.metadata and field.name in flags.FLAGS
    }
    made = settings(**(values | more))
    options.check(made)
    return made


def define_task(default: str) -> None:
    """Defines --task and, after a first look at its value, its settings."""
    early = flags.FlagValues()
    flags.DEFINE_string("task", default, "", flag_values=early)
    early(sys.argv, known_only=True)
    task = base.find(early["task"].value)
    flags.DEFINE_string(
        "task",
        default,
        f"What to learn: one of {', '.join(base.names())}, or the dotted name "
        "of a module of yours with a Task in it.",
        module_name=sys.argv[0],
    )
    define(task)


def read_task() -> base.Task:
    """The task that --task names, with its settings."""
    return read(base.find(flags.FLAGS.task))


def run(main: Callable[[], None], define_flags: Callable[[], None]) -> None:
    """Runs a main: bad input ends in one line and exit code 1."""

    def parse(arguments):
        try:
            # absl turns INFO on, and libraries are talkative.
            flags.FLAGS.verbosity = logging.WARNING
            define_flags()
            return flags.FLAGS(arguments)
        except (errors.InputError, flags.Error) as error:
            sys.exit(console.one_line(error, set(flags.FLAGS)))

    def guarded(arguments):
        console.run_main(
            main,
            arguments,
            flags=set(flags.FLAGS),
            stopped="stopped: run the same command again to go on",
        )

    app.run(guarded, flags_parser=parse)
