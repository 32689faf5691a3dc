"""Standard input and output of mains: UTF-8, and a reader that may leave."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO


def as_utf8(stream: TextIO, *, errors: str = "strict") -> TextIO:
    """The stream, with UTF-8 whatever the locale says; before it is read."""
    # Tests and notebooks put other objects in place of sys.stdout.
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors=errors)
    return stream


@contextlib.contextmanager
def until_reader_leaves() -> Iterator[None]:
    """Ends quietly where nobody reads sys.stdout any more, as after `head`."""
    try:
        yield
    except BrokenPipeError:
        # What is left in the buffer has nowhere to go when Python flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
