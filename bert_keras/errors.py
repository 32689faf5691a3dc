"""InputError: the exception for invalid input from the user."""

import re
from collections.abc import Collection, Iterable


class InputError(ValueError):
    """A file, argument or text from the user is invalid.

    The message says what was expected, what was found and what to do. It names
    arguments in Python's form, `output` or seed=3. Mains print it in one line,
    with arguments as flags (`as_flags`), and exit with code 1. Any other
    exception is a bug and keeps its traceback.

    argument: the name of the invalid argument, if it is one.
    """

    def __init__(self, message: str = "", *, argument: str | None = None):
        super().__init__(message)
        self.argument = argument


class TooLittleTextError(InputError):
    """A text gives fewer tokens than are to be learned from it.

    most: how many it gives.
    """

    def __init__(self, message: str, *, most: int):
        super().__init__(message)
        self.most = most


def listed(names: Iterable[object], *, most: int = 20) -> str:
    """Returns the first names of a list that may be long, for a message.

    >>> listed(["a", "b", "c"], most=2)
    "['a', 'b'] and 1 more"
    """
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{names[:most]}{more}"


def as_flags(text: str, names: Collection[str]) -> str:
    """Rewrites a message about Python arguments to one about flags.

    >>> as_flags("seed=3: expected `steps` or more.", {"seed", "steps"})
    '--seed=3: expected --steps or more.'
    """
    pattern = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    if not pattern:
        return text
    # Leave words, paths, quoted text and values of other arguments alone.
    return re.sub(
        rf"`({pattern})`|(?<![\w.,=/'\"\-])({pattern})(?==)",
        lambda match: f"--{match[1] or match[2]}",
        text,
    )
