"""Defines absl flags from the fields of settings dataclasses and reads them.

A run writes all its flags to `flags.txt` in its folder; pass that file to the
same command with --flagfile to repeat the run. A recipe, which --recipe names,
has the flags of a run whose results are known.
"""

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from absl import app, flags, logging

from bert_keras import (
    answer_settings,
    command_help,
    console,
    errors,
    options,
)
from bert_keras.tasks import base
from bert_keras.training import run_folder
from bert_keras.wrappers import base as wrappers

T = TypeVar("T")

RECIPES = os.path.join(os.path.dirname(__file__), "recipes")

_DEFINERS: dict[type, Callable[..., Any]] = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def define(settings: type, *, without: Sequence[str] = ()) -> None:
    """Defines a flag for every field of `settings` that has a help text."""
    names = {field.name for field in dataclasses.fields(settings)}
    for field in dataclasses.fields(settings):
        if "help" in field.metadata and field.name not in without:
            _define(field.name, field, names)


def define_answer_settings(*, without: Sequence[str] = ()) -> None:
    """Defines a flag for each setting of how a task answers."""
    for kind in answer_settings.KINDS:
        define(kind, without=without)


def read_answer_settings() -> dict[str, Any]:
    """Returns those settings of how a task answers that the user gave."""
    return {
        name: value
        for kind in answer_settings.KINDS
        for name, value in vars(read(kind)).items()
        if value is not None
    }


def _define(name: str, field: dataclasses.Field[Any], names: set[str]) -> None:
    if name in flags.FLAGS:
        raise errors.InputError(
            f"--{name} is a flag of this command already; give the field of "
            "your task or wrapper another name."
        )
    help = errors.as_flags(field.metadata["help"], names)
    choices = field.metadata.get("choices")
    # absl's --help lists only the flags of the main module, named by argv[0].
    where: dict[str, Any] = {"module_name": sys.argv[0]}
    default: Any = field.default
    if choices:
        flags.DEFINE_enum(name, default, list(choices), help, **where)
    else:
        option_type = field.metadata.get("value_type", type(default))
        where |= field.metadata.get("bounds", {})
        _DEFINERS[option_type](name, default, help, **where)
    for old in options.former_names(name, field):
        # Not DEFINE_alias: options.translated may also change the value.
        option_type = field.metadata.get("value_type", type(default))
        _DEFINERS[option_type](
            old, None, f"Former name of --{name}.", module_name=sys.argv[0]
        )


def read(settings: type[T], **more: Any) -> T:
    """Returns the settings with the values of the command line."""
    values = {
        field.name: flags.FLAGS[field.name].value
        for field in dataclasses.fields(settings)  # type: ignore[arg-type]
        if "help" in field.metadata and field.name in flags.FLAGS
    }
    values |= _of_former_flags(
        {field.name: field for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    )
    if "warmup_steps" in values:
        values |= _warmup_of_ratio()
    parsed = settings(**(values | more))
    options.check(parsed)
    return parsed


def _warmup_of_ratio() -> dict[str, int]:
    """Drops a recipe's warmup_steps if the user gives warmup_ratio alone."""
    ratio, steps = flags.FLAGS["warmup_ratio"], flags.FLAGS["warmup_steps"]
    return {"warmup_steps": 0} if ratio.present and not steps.present else {}


def _of_former_flags(
    fields: Mapping[str, dataclasses.Field[Any]],
) -> dict[str, Any]:
    """Returns the values of flags that were set by their former names.

    Raises InputError if a flag is set by both names.
    """
    values: dict[str, Any] = {}
    for name, field in fields.items():
        for old in options.former_names(name, field):
            if old not in flags.FLAGS or flags.FLAGS[old].value is None:
                continue
            today = options.translated(name, field, flags.FLAGS[old].value)
            for new in today:
                if new in values or flags.FLAGS[new].present:
                    raise errors.InputError(
                        f"`{old}` and `{new}` are names of one setting: give "
                        f"`{new}` alone, and remove `{old}` from a flag file "
                        "that has it.",
                        argument=new,
                    )
            console.say(options.renaming(old, today, "--"))
            values |= today
    return values


def early(name: str, default: str) -> str:
    """Returns the value of a string flag before all flags are defined."""
    values = flags.FlagValues()
    flags.DEFINE_string(name, default, "", flag_values=values)
    values(sys.argv, known_only=True)
    return str(values[name].value)


def define_recipe(*, with_task: bool) -> dict[str, str]:
    """Defines --recipe and, parsing it early, returns the recipe's flags.

    with_task: whether the command has a flag --task. Recipes of fine-tuning set
      it, recipes of pretraining do not.
    """
    name = early("recipe", "")
    recipes = {
        name: values
        for name, values in _recipes().items()
        if ("task" in values) == with_task
    }
    names = ", ".join(recipes)
    flags.DEFINE_string(
        "recipe",
        "",
        f"Flags of a run with known results, as defaults: one of {names}.",
        module_name=sys.argv[0],
    )
    if name and name not in recipes:
        raise errors.InputError(
            f"recipe={name}: expected one of {names}.", argument="recipe"
        )
    return recipes.get(name, {})


def _recipes() -> dict[str, dict[str, str]]:
    """Returns {name of a recipe: {flag: value}}."""
    recipes = {}
    for file_name in sorted(os.listdir(RECIPES)):
        name, extension = os.path.splitext(file_name)
        if extension == ".flags":
            path = os.path.join(RECIPES, file_name)
            with open(path, encoding="utf-8") as file:
                recipes[name] = run_folder.parse_flagfile(file.read())
    return recipes


def use_recipe(recipe: Mapping[str, str]) -> None:
    """Makes a recipe's values the defaults: the command line overrides them."""
    for name, value in recipe.items():
        if name not in flags.FLAGS:
            raise errors.InputError(
                f"the recipe sets {name}={value}, which is a flag of "
                f"--task={recipe['task']} and not of the --task given; choose "
                "another `recipe`.",
                argument="recipe",
            )
        flags.FLAGS.set_default(name, value)


def define_task(default: str) -> None:
    """Defines --task and, parsing it early, the flags of that task."""
    task = base.find(early("task", default))
    flags.DEFINE_string(
        "task",
        default,
        f"What to learn: one of {', '.join(base.names())}, or the dotted name "
        "of a module of yours with a Task in it.",
        module_name=sys.argv[0],
    )
    define(task)


def define_wrappers(default: str = "") -> None:
    """Defines --wrappers and, parsing it early, the flags of those wrappers."""
    chosen = early("wrappers", default)
    flags.DEFINE_string(
        "wrappers",
        default,
        "Training methods around the task, the outermost first, with commas "
        f"between: {', '.join(wrappers.names())}, or dotted names of modules "
        "of yours. Their settings are flags such as --r_drop_alpha.",
        module_name=sys.argv[0],
    )
    for wrapper in wrappers.parse(chosen):
        for name, field in wrappers.own_options(wrapper).items():
            _define(name, field, set())


def read_task() -> base.Task:
    """Returns the task that --task names, built from its flags."""
    return read(base.find(flags.FLAGS.task))


def wrap_task(task: base.Task) -> base.Task:
    """Wraps `task` in the --wrappers, built from their flags."""
    classes = wrappers.parse(flags.FLAGS.wrappers)
    fields = {
        name: field
        for each in classes
        for name, field in wrappers.own_options(each).items()
    }
    values = flags.FLAGS.flag_values_dict() | _of_former_flags(fields)
    return wrappers.wrap(task, classes, values)


def run(main: Callable[[], None], define_flags: Callable[[], None]) -> None:
    """Runs a main; bad input prints one line and exits with code 1."""

    def parse(arguments):
        try:
            # absl's app.run turns INFO on, at which libraries log too much.
            flags.FLAGS.verbosity = logging.WARNING  # type: ignore[assignment]
            define_flags()
            command_help.print_if_requested(
                arguments,
                flags.FLAGS,
                sys.modules[main.__module__].__doc__ or "",
            )
            return flags.FLAGS(arguments)
        except (errors.InputError, flags.Error) as error:
            flag_names = {"task", "wrappers", *flags.FLAGS}
            sys.exit(console.one_line(error, flag_names))

    def guarded(arguments):
        console.run_main(
            main,
            arguments,
            flags=set(flags.FLAGS),
            stopped="stopped: run the same command again to continue",
        )

    app.run(guarded, flags_parser=parse)
