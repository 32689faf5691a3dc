"""Files that are whole or not there, on any path of tf.io.gfile."""

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from bert_keras import errors

# What tf.io.gfile raises in place of OSError.
ERRORS = (
    tf.errors.AlreadyExistsError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,  # a disk, or the memory of a device
)


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


@contextlib.contextmanager
def local_aside(path: str) -> Iterator[str]:
    """The same for a writer that knows only paths of the local file system.

    It writes beside `path` where that is local, which makes the last step a
    move; of other paths a local copy is made first.
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
    """Writes a local file, in place; not for what a reader may meet half."""
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
    """A path of the local file system, without file://; None: of another."""
    path = path.removeprefix("file://")
    return None if "://" in path else path


def fetch(path: str) -> str:
    """A local path with the content of the file, from any gfile path."""
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
    """Whether `path` is the local `folder` or something in it."""
    real, within = os.path.realpath(path), os.path.realpath(folder)
    return real == within or real.startswith(within.rstrip(os.sep) + os.sep)


def check_output(output: str, **inputs: str) -> None:
    """Raises InputError where the file `output` cannot or must not be written.

    It must not be an input, under whatever name, nor be in a folder that is
    one; "" is standard input.
    """
    own = local_path(output)
    if not output or own is None:
        return
    if os.path.isdir(own) or not os.path.isdir(os.path.dirname(own) or "."):
        raise errors.InputError(
            f"output={output}: expected the name of a file in a folder that "
            "exists."
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
                f"output={output} is {what} or in it, and would be written "
                "over; choose another `output`."
            )


def read_json(path: str) -> dict[str, Any]:
    """The JSON object in a file of any gfile path.

    Raises InputError when there is no such file, or no JSON object in it.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            text = file.read().decode("utf-8-sig")
        values = json.loads(text, object_pairs_hook=_unique)
    except (tf.errors.OpError, OSError) as error:
        reason = getattr(error, "message", None) or error
        raise errors.InputError(f"{path} cannot be read: {reason}") from None
    except RecursionError:
        raise errors.InputError(
            f"{path} cannot be read: it is nested too deeply."
        ) from None
    # Also UnicodeDecodeError, and numbers of more than 4,300 digits.
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
    """Raises ValueError for a key that occurs twice: one would be lost."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys: set[str] = set()
        for key, _ in pairs:
            if key in keys:
                raise ValueError(f"an object has the key {key!r:.60} twice")
            keys.add(key)
    return values


def checksum(path: str) -> str | None:
    """SHA-256 of a file, None where there is none."""
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        return None
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
