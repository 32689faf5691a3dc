"""Atomic writes, reads and checksums of files, on any tf.io.gfile path."""

import atexit
import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from bert_keras import errors

# tf.io.gfile raises these instead of OSError.
ERRORS = (
    tf.errors.AlreadyExistsError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,  # a disk, or the memory of a device
)

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@contextlib.contextmanager
def aside(path: str) -> Iterator[str]:
    """Yields a temporary path, which is renamed to `path` at the end.

    It is removed on an error, so that a full disk does not keep a partial file.
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


@contextlib.contextmanager
def local_aside(path: str) -> Iterator[str]:
    """Yields a local temporary path, for writers that need one; see `aside`.

    If `path` is local, the temporary file is in the same folder and is renamed
    to `path`; otherwise it is copied there.
    """
    own = local_path(path)
    with contextlib.ExitStack() as stack:
        if own is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            written = os.path.join(folder, os.path.basename(path))
        else:
            written = f"{own}.tmp"
        try:
            yield written
            if own is None:
                tf.io.gfile.copy(written, path, overwrite=True)
            else:
                os.replace(written, own)
        except BaseException:
            with contextlib.suppress(OSError):
                os.remove(written)
            raise


def write(path: str, data: bytes) -> None:
    with aside(path) as written, tf.io.gfile.GFile(written, "wb") as file:
        file.write(data)


def write_text(path: str, text: str) -> None:
    write(path, text.encode())


def write_json(
    path: str, values: Any, *, indent: int = 2, sort_keys: bool = False
) -> None:
    """Writes a local JSON file in place.

    It is not atomic: a concurrent reader could see a partial file.
    """
    with open(path, "w", encoding="utf-8") as file:
        json.dump(
            values,
            file,
            indent=indent,
            sort_keys=sort_keys,
            ensure_ascii=False,
            allow_nan=False,
        )


def local_path(path: str) -> str | None:
    """Returns a local path without file://, or None if it is not local."""
    path = path.removeprefix("file://")
    return None if "://" in path else path


def fetch(path: str) -> str:
    """Returns a local path of a file from any tf.io.gfile path.

    A remote file is copied to a temporary folder, which is removed at exit.
    """
    if not tf.io.gfile.exists(path):
        raise errors.InputError(f"{path} is missing; copy the folder again.")
    if (own := local_path(path)) is not None:
        return own
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    local = os.path.join(folder, os.path.basename(path))
    tf.io.gfile.copy(path, local)
    return local


def is_inside(path: str, folder: str) -> bool:
    """Returns whether `path` is the local `folder` or is inside it."""
    real, within = os.path.realpath(path), os.path.realpath(folder)
    return real == within or real.startswith(within.rstrip(os.sep) + os.sep)


def check_output(
    output: str, /, *, argument: str = "output", **inputs: str
) -> None:
    """Raises InputError if the file `output` cannot or must not be written.

    It must not be one of the inputs, under any name, nor be inside a folder
    that is an input. The input "" is standard input. argument: the setting
    that names the file.
    """
    own = local_path(output)
    if not output or own is None:
        return
    if os.path.isdir(own) or not os.path.isdir(os.path.dirname(own) or "."):
        raise errors.InputError(
            f"{argument}={output}: expected the name of a file in a folder "
            "that exists."
        )
    for name, path in inputs.items():
        local = local_path(path)
        if local is None:
            continue
        try:
            stat = os.stat(local) if path else os.fstat(0)
            same = os.path.samestat(stat, os.stat(own))
        except OSError:
            same = False  # one of them does not exist
        if same or (path and os.path.isdir(local) and is_inside(own, local)):
            what = f"`{name}`" if path else "the standard input"
            raise errors.InputError(
                f"{argument}={output} is {what} or in it, and would be written "
                f"over; choose another `{argument}`."
            )


def check_empty_folder(folder: str) -> None:
    """Raises InputError if the folder has files, or its path is a file's."""
    if not folder:
        raise errors.InputError("expected the path of a folder, found ''.")
    if not tf.io.gfile.exists(folder):
        return
    if not tf.io.gfile.isdir(folder):
        raise errors.InputError(f"{folder} is a file; name a new folder.")
    if names := sorted(tf.io.gfile.listdir(folder)):
        raise errors.InputError(
            f"{folder} holds {', '.join(names[:5])}; name a new folder, or an "
            "empty one."
        )


def read_json(path: str) -> dict[str, Any]:
    """Reads the JSON object in a file, from any tf.io.gfile path.

    Raises InputError if there is no such file, or no JSON object in it.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            text = file.read().decode("utf-8-sig")
        values = json.loads(text, object_pairs_hook=_unique)
        if _SURROGATE.search(text):  # a pair of them is one character
            json.dumps(values, ensure_ascii=False).encode()
    except (tf.errors.OpError, OSError) as error:
        reason = getattr(error, "message", None) or error
        raise errors.InputError(f"{path} cannot be read: {reason}") from None
    except RecursionError:
        raise errors.InputError(
            f"{path} cannot be read: it is nested too deeply."
        ) from None
    # Includes integers of more than 4,300 digits, bytes that are no UTF-8, and
    # halves of a character, which UTF-8 cannot encode.
    except ValueError as error:
        raise errors.InputError(
            f"{path} cannot be read: expected JSON in UTF-8 ({error})."
        ) from None
    if not isinstance(values, dict):
        raise errors.InputError(
            f"{path} cannot be read: expected a JSON object, found "
            f"{type(values).__name__}."
        )
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Builds a dict; raises ValueError for a duplicate key.

    json.loads would keep only the last of the two values.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        keys: set[str] = set()
        for key, _ in pairs:
            if key in keys:
                raise ValueError(f"an object has the key {key!r:.60} twice")
            keys.add(key)
    return values


def checksum(path: str) -> str | None:
    """Returns the SHA-256 of a file, or None if there is no such file."""
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        return None
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
