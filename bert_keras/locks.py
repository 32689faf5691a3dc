"""A lock on a folder, so that only one process writes into it."""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from bert_keras import errors, files

NAME = ".bert_keras.lock"

# On a remote file system a lock file is rewritten every HEARTBEAT seconds, and
# ignored if it was not rewritten for STALE seconds.
HEARTBEAT = 30
STALE = 10 * HEARTBEAT

BREAK_LOCK = (
    "Ignore the lock of another process on a remote file system. A lock on a "
    "local file system cannot be ignored: that process has to end first."
)


@contextlib.contextmanager
def hold(folder: str, *, break_lock: bool = False) -> Iterator[None]:
    """Creates a folder and holds its lock inside a `with` block.

    On a local file system it is a kernel lock (flock) on the folder itself,
    which is released when the process ends, even by a kill. A file names its
    owner for error messages; removing that file has no effect.

    On other file systems the lock is a file that names its owner and is
    rewritten every `HEARTBEAT` seconds; it is ignored if it was not rewritten
    for `STALE` seconds, or with `break_lock`. Such file systems have no atomic
    "create if absent", so this lock cannot exclude that two processes start
    within the same moment and both find their own id when they read the file
    back. At least one of the two then finds the other's id at its next
    heartbeat.

    A folder that was created here and is still empty at the end is removed.

    Raises InputError if another process holds the lock, if the folder cannot be
    created, or, at the end, if another process took over the lock meanwhile.
    """
    local = files.local_path(folder)
    with _remote(folder, break_lock) if local is None else _local(local):
        yield


@contextlib.contextmanager
def _local(folder: str) -> Iterator[None]:
    is_new = not os.path.exists(folder)
    path, own = os.path.join(folder, NAME), _owner()
    descriptor = _lock(folder)
    try:
        is_foreign = os.path.lexists(path) and "id" not in _read(path)
        if os.path.islink(path) or is_foreign:
            raise errors.InputError(
                f"{path} is not a lock of this program; rename it, or choose "
                "another `output`."
            )
        files.write_text(path, json.dumps(own))
        yield
    finally:
        if _read(path).get("id") == own["id"]:
            os.remove(path)
        if is_new:
            with contextlib.suppress(OSError):  # it is not empty
                os.rmdir(folder)
        os.close(descriptor)


def _lock(folder: str) -> int:
    """Locks a folder and returns its file descriptor."""
    while True:
        try:
            os.makedirs(folder, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise errors.InputError(
                f"cannot write into {folder}: {error}. Choose another `output`."
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise _held_error(os.path.join(folder, NAME)) from None
            raise errors.InputError(
                f"{folder} cannot be locked ({error}); choose an `output` on "
                "a local disk."
            ) from None
        # The previous owner may have removed the folder on release: try again.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(folder)):
                return descriptor
        os.close(descriptor)


@contextlib.contextmanager
def _remote(folder: str, break_lock: bool) -> Iterator[None]:
    path, own = os.path.join(folder, NAME), _owner()
    is_new = not tf.io.gfile.exists(folder)
    try:
        tf.io.gfile.makedirs(folder)
    except tf.errors.OpError as error:
        raise errors.InputError(
            f"cannot write into {folder}: {error.message}. Choose another "
            "`output`."
        ) from None
    if tf.io.gfile.exists(path) and not break_lock:
        if time.time() - _read(path).get("beat", 0) < STALE:
            raise _held_error(path, can_break=True)
    _write(path, own)
    if _read(path).get("id") != own["id"]:
        raise _held_error(path)  # another process wrote it at the same moment
    ended = threading.Event()
    thread = threading.Thread(
        target=_beat, args=(path, own, ended), daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        is_foreign = _is_foreign(path, own)
        if _read(path).get("id") == own["id"]:
            tf.io.gfile.remove(path)
        if is_new and not tf.io.gfile.listdir(folder):
            tf.io.gfile.rmtree(folder)
    if is_foreign:
        raise errors.InputError(_taken_over(path))


def _beat(path: str, own: Mapping[str, Any], ended: threading.Event) -> None:
    """Rewrites a lock file every HEARTBEAT seconds until `ended` is set.

    A failed write is tried again at the next heartbeat. If the file has another
    owner, it warns and stops: rewriting it would hide from both processes that
    there are two.
    """
    while not ended.wait(HEARTBEAT):
        if _is_foreign(path, own):
            _warn(_taken_over(path))
            return
        try:
            _write(path, own)
        except (OSError, tf.errors.OpError) as error:
            _warn(
                f"{path} could not be rewritten ({error}). The next attempt is "
                f"in {HEARTBEAT} seconds; after {STALE} seconds of failed "
                "attempts other processes may write into the folder."
            )


def _write(path: str, own: Mapping[str, Any]) -> None:
    files.write_text(path, json.dumps({**own, "beat": time.time()}))


def _is_foreign(path: str, own: Mapping[str, Any]) -> bool:
    """Returns whether a lock file has an owner other than `own`."""
    return _read(path).get("id", own["id"]) != own["id"]


def _warn(message: str) -> None:
    # Attribute the warning to the package: its source line would not help.
    warnings.warn_explicit(message, UserWarning, "bert_keras", 1)


def _owner() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "id": uuid.uuid4().hex,
    }


def _read(path: str) -> dict[str, Any]:
    """Reads the lock file; returns {} if it cannot be read."""
    try:
        return files.read_json(path)
    except errors.InputError:
        return {}


def _held_error(path: str, *, can_break: bool = False) -> errors.InputError:
    choices = "Wait for it, stop it, or choose another `output`"
    if can_break:
        choices += ", or set `break_lock` to ignore its lock"
    return errors.InputError(
        f"{os.path.dirname(path)} is being written by {_format_owner(path)}. "
        f"{choices}."
    )


def _taken_over(path: str) -> str:
    return (
        f"the lock of {os.path.dirname(path)} was taken over by "
        f"{_format_owner(path)} while this process was writing there; it was "
        f"ignored or not rewritten for {STALE} seconds. The folder may contain "
        "files of both processes. Stop one of them, and choose another "
        "`output`."
    )


def _format_owner(path: str) -> str:
    """Formats the owner that a lock file names."""
    owner = _read(path)
    if {"pid", "host", "since"} <= set(owner):
        return "process {pid} on {host} (since {since})".format(**owner)
    return "another process"
