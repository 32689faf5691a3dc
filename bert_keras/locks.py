"""A lock on a folder, so that only one process writes into it."""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from bert_keras import errors, files

NAME = ".bert_keras.lock"

# On a remote file system a lock file is rewritten every HEARTBEAT seconds and
# ignored after STALE seconds without that.
HEARTBEAT = 30
STALE = 10 * HEARTBEAT

BREAK_LOCK = (
    "Write into a folder on a remote file system although another process "
    "seems to. On a local one that process has to end first."
)


@contextlib.contextmanager
def hold(folder: str, *, break_lock: bool = False) -> Iterator[None]:
    """Creates a folder and holds its lock inside a `with` block.

    On a local file system it is a kernel lock (flock) on the folder itself: it
    is released when the process ends, even by a kill, and removing the lock
    file has no effect. On other file systems it is a file that names its owner
    and is rewritten every `HEARTBEAT` seconds; it is ignored if it is older
    than `STALE` seconds, or with `break_lock`.

    A folder that was created here and is still empty at the end is removed.

    Raises InputError if another process holds the lock, or if the folder cannot
    be created.
    """
    local = files.local_path(folder)
    with _remote(folder, break_lock) if local is None else _local(local):
        yield


@contextlib.contextmanager
def _local(folder: str) -> Iterator[None]:
    is_new = not os.path.exists(folder)
    path, own = os.path.join(folder, NAME), _message()
    descriptor = _locked(folder)
    try:
        others = os.path.lexists(path) and "id" not in _read(path)
        if os.path.islink(path) or others:
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


def _locked(folder: str) -> int:
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
                raise _held(os.path.join(folder, NAME)) from None
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
    path, own = os.path.join(folder, NAME), _message()
    is_new = not tf.io.gfile.exists(folder)
    try:
        tf.io.gfile.makedirs(folder)
    except tf.errors.OpError as error:
        raise errors.InputError(
            f"cannot write into {folder}: {error.message}. Choose another "
            "`output`."
        ) from None

    def write():
        files.write_text(path, json.dumps(own | {"beat": time.time()}))

    if tf.io.gfile.exists(path) and not break_lock:
        message = _read(path)
        if time.time() - message.get("beat", 0) < STALE:
            raise _held(path, "; `break_lock` ignores that")
    write()
    if _read(path).get("id") != own["id"]:
        raise _held(path)  # another process wrote it at the same moment
    ended = threading.Event()

    def beat():
        while not ended.wait(HEARTBEAT):
            write()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if _read(path).get("id") == own["id"]:
            tf.io.gfile.remove(path)
        if is_new and not tf.io.gfile.listdir(folder):
            tf.io.gfile.rmtree(folder)


def _message() -> dict[str, Any]:
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


def _held(path: str, more: str = "") -> errors.InputError:
    who, holder = "another process", _read(path)
    if {"pid", "host", "since"} <= set(holder):
        who = "process {pid} on {host} (since {since})".format(**holder)
    return errors.InputError(
        f"{os.path.dirname(path)} is being written by {who}. Wait for it, "
        f"stop it, or choose another `output`{more}."
    )
