"""What the user gave cannot be used."""

import re
from collections.abc import Collection


class InputError(ValueError):
    """A file, argument or text from outside does not fit.

    The message says what was expected, what came and what to do. It names
    arguments as Python has them, `output` or seed=3; mains print them as
    flags (`as_flags`), in one line, and exit 1. Every other exception is a
    bug and keeps its traceback.

    argument: the name of the argument that does not fit, where it is one.
    """

    def __init__(self, message: str = "", *, argument: str | None = None):
        super().__init__(message)
        self.argument = argument


def as_flags(text: str, names: Collection[str]) -> str:
    """A text about arguments as a command line has them.

    >>> as_flags("seed=3: expected `steps` or more.", {"seed", "steps"})
    '--seed=3: expected --steps or more.'
    """
    pattern = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    if not pattern:
        return text
    # Not within a word, a path, a quoted text or another argument's value.
    return re.sub(
        rf"`({pattern})`|(?<![\w.,=/'\"\-])({pattern})(?==)",
        lambda match: f"--{match[1] or match[2]}",
        text,
    )
