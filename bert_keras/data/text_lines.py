"""Lines of a text file, after a look at what kind of file it is.

What is wrong with a whole file (a folder, UTF-16, line ends of old Macs) is
named as such, and not as one malformed row after another.
"""

import codecs
import itertools
from collections.abc import Iterator

import tensorflow as tf

from bert_keras import errors
from bert_keras.data import corpus

# UTF-32 first: its mark begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_LOOKED_AT = 200  # bytes, for UTF-16 without a mark


def read(path: str, *, any_line_end: bool = False) -> Iterator[bytes]:
    """Lines without newline, byte-order mark or packing.

    Raises InputError for a folder, UTF-16 and UTF-32, and for a file whose
    lines end in CR alone, unless `any_line_end`.
    """
    refuse_folder(path)
    lines = corpus.lines(path)
    head = list(itertools.islice(lines, 2))
    if not head:
        return
    if encoding := _encoding(head[0]):
        raise errors.InputError(
            f"{path}: expected UTF-8, found {encoding}. Convert the file, "
            f"for example with iconv -f {encoding} -t UTF-8."
        )
    if not any_line_end and len(head) == 1 and b"\r" in head[0].rstrip(b"\r"):
        raise errors.InputError(
            f"{path}: expected lines that end in LF or CR LF, found CR alone, "
            "as on old Macs. Convert the file, for example with "
            "tr '\\r' '\\n'."
        )
    yield from itertools.chain(head, lines)


def refuse_folder(path: str) -> None:
    if tf.io.gfile.isdir(path):
        raise errors.InputError(
            f"{path}: expected a file, found a folder. Name the file in it."
        )


def decode(line: bytes) -> str:
    """The text of a line without CR; raises ValueError with a phrase."""
    try:
        return line.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"expected UTF-8 (byte at column {error.start + 1})"
        ) from None


def _encoding(line: bytes) -> str:
    """UTF-16 or UTF-32, by its mark or by every second byte; else ""."""
    for mark, name in _MARKS.items():
        if line.startswith(mark):
            return name
    head = line[:_LOOKED_AT]
    for half in (head[0::2], head[1::2]):
        if len(half) > 1 and half.count(0) > 0.7 * len(half):
            return "UTF-16"
    return ""
