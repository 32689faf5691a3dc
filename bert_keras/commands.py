"""The console command `bert-keras`: its commands by name.

Each command is a module of trainers or export, imported only when it is used:
--help and --version answer without TensorFlow.
"""

import difflib
import importlib
import importlib.util
import os
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence

NAME = "bert-keras"

# Command -> its module, which has a function run() and, as the first line of
# its docstring, the command's description.
COMMANDS: Mapping[str, str] = {
    "prepare": "trainers.prepare",
    "pretrain": "trainers.pretrain",
    "finetune": "trainers.finetune",
    "evaluate": "trainers.evaluate",
    "predict": "trainers.predict",
    "words": "trainers.words",
    "playground": "trainers.playground",
    "convert": "trainers.convert",
    "compress": "trainers.compress",
    "describe": "trainers.describe",
    "probe": "trainers.probe",
    "export-savedmodel": "export.saved_model",
    "export-tflite": "export.tflite",
    "verify": "export.verify",
    "client": "export.client",
}

_EXAMPLE = """\
  bert-keras finetune --task=classification --init=bert-base-uncased \\
      --train=train.tsv --dev=dev.tsv --output=runs/sst2
  echo "a fine film" | bert-keras predict --checkpoint=runs/sst2
  bert-keras export-savedmodel --checkpoint=runs/sst2 --output=served/sst2
"""


def main() -> None:
    """Runs the command that sys.argv names; the entry point of `bert-keras`."""
    if len(sys.argv) < 2 or sys.argv[1] in ("--help", "-h", "help"):
        print(help_text(), end="")
        return
    name, *arguments = sys.argv[1:]
    if name == "--version":
        print(f"{NAME} {version()}")
        return
    if name not in COMMANDS:
        sys.exit(_unknown(name))
    _run(name, arguments)


def _run(name: str, arguments: Sequence[str]) -> None:
    global _called_by_name
    _called_by_name = True
    # absl takes argv[0] for the program's name, and for the name of the module
    # that defines the flags of --help.
    sys.argv = [command_line(name), *arguments]
    try:
        importlib.import_module(COMMANDS[name]).run()
    except KeyboardInterrupt:  # while TensorFlow is imported
        sys.exit("stopped")


def command_line(name: str) -> str:
    """Returns the command line of a command, in the form the user has used.

    It is `bert-keras NAME` if this process was started as `bert-keras`, and
    `python -m MODULE` after `python -m` or a call from Python.
    """
    if _called_by_name:
        return f"{NAME} {name}"
    return f"python -m {COMMANDS[name]}"


def as_called(text: str) -> str:
    """Replaces each `bert-keras NAME` in a text by `command_line(NAME)`."""
    names = "|".join(sorted(COMMANDS, key=len, reverse=True))
    return re.sub(
        rf"\b{NAME} ({names})\b", lambda match: command_line(match[1]), text
    )


def help_text() -> str:
    """Returns an example and the list of the commands."""
    descriptions = "\n".join(
        textwrap.fill(
            f"{name:19}{_description(module)}",
            width=80,
            initial_indent=" " * 2,
            subsequent_indent=" " * 21,
        )
        for name, module in COMMANDS.items()
    )
    return (
        "BERT from raw text to a served or an on-device model.\n\n"
        f"{_EXAMPLE}\nCommands:\n{descriptions}\n\n"
        f"`{NAME} COMMAND --help` shows an example and the flags of a "
        "command.\n"
    )


def version() -> str:
    """Returns the version of the package."""
    return importlib.import_module("bert_keras").__version__


def _description(module: str) -> str:
    """Returns the first line of a module's docstring, without importing it."""
    package, _, name = module.partition(".")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return ""
    path = os.path.join(spec.submodule_search_locations[0], f"{name}.py")
    with open(path, encoding="utf-8") as file:
        return file.readline().lstrip("r").strip().strip('"')


def _unknown(name: str) -> str:
    """Returns the error line for a name that is no command."""
    if name.startswith("-"):
        hint = "the command comes first, then its flags."
    elif alike := difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5):
        hint = f"did you mean {alike[0]}?"
    else:
        hint = f"expected one of {', '.join(COMMANDS)}."
    return f"error: {name} is not a command of {NAME}; {hint}"


# Whether the running command was called as `bert-keras NAME`.
_called_by_name = False
