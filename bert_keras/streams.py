"""Standard streams of mains: UTF-8, and no error on a closed pipe."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO


def as_utf8(stream: TextIO, *, errors: str = "strict") -> TextIO:
    """Sets a stream to UTF-8, whatever the locale; call it before reading."""
    # Tests and notebooks replace sys.stdout by other objects.
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors=errors)
    return stream


@contextlib.contextmanager
def until_reader_leaves() -> Iterator[None]:
    """Ends without an error if the reader of sys.stdout (`head`) closes it."""
    try:
        yield
    except BrokenPipeError:
        # Redirect to devnull: Python flushes the rest of the buffer at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
