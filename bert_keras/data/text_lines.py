"""Reads lines of a text file, after checks of the file as a whole.

A problem of the whole file (a folder, UTF-16, line ends of old Macs) is one
error, not a malformed row after another.
"""

import os
from collections.abc import Iterator

import tensorflow as tf

from bert_keras import errors
from bert_keras.data import corpus


def read(path: str, *, any_line_end: bool = False) -> Iterator[bytes]:
    """Yields the decompressed lines, without newline and BOM.

    Raises InputError for a folder, and as `corpus.lines` does.
    """
    refuse_folder(path)
    yield from corpus.lines(path, any_line_end=any_line_end)


def refuse_folder(path: str) -> None:
    if tf.io.gfile.isdir(path):
        raise errors.InputError(
            f"{path}: expected a file, found a folder. Name the file in it."
        )


def decode(line: bytes) -> str:
    """Decodes a line, without CR; raises ValueError with a phrase."""
    try:
        return line.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"expected UTF-8, found byte 0x{line[error.start]:02X} at column "
            f"{error.start + 1}"
        ) from None


def decode_loosely(line: bytes) -> str:
    """Decodes a line; each invalid byte becomes a lone surrogate."""
    return line.decode("utf-8", "surrogateescape")


def how_to_convert(path: str) -> str:
    """Returns the sentence that follows a message on invalid UTF-8."""
    path = path.removesuffix(".gz")
    return (
        "If it is Windows' encoding, convert the file, with iconv -f CP1252 "
        f"-t UTF-8 {path} > utf8-{os.path.basename(path)}, or save it as "
        "UTF-8 (in Excel: CSV UTF-8). Chinese text is often GB18030."
    )
