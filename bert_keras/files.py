"""Files that are whole or not there, on any path of tf.io.gfile."""

import contextlib
import hashlib
import os
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def aside(path: str) -> Iterator[str]:
    """A path to write to; moved into its place at the end, gone on an error.

    On a full disk half of the file would stand, and take the room.
    """
    tf.io.gfile.makedirs(os.path.dirname(path) or ".")
    written = f"{path}.{os.getpid()}.tmp"
    try:
        yield written
        tf.io.gfile.rename(written, path, overwrite=True)
    except BaseException:
        if tf.io.gfile.exists(written):
            tf.io.gfile.remove(written)
        raise


def write(path: str, data: bytes) -> None:
    with aside(path) as written, tf.io.gfile.GFile(written, "wb") as file:
        file.write(data)


def write_text(path: str, text: str) -> None:
    write(path, text.encode())


def checksum(path: str) -> str | None:
    """SHA-256 of a file, None where there is none."""
    if not tf.io.gfile.exists(path):
        return None
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
