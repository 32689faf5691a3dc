"""One writer for a folder."""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from bert_keras import errors, files

NAME = ".lock"

# Of a lock on a remote file system, in seconds.
HEARTBEAT = 30
STALE = 10 * HEARTBEAT


@contextlib.contextmanager
def hold(folder: str, *, break_lock: bool = False) -> Iterator[None]:
    """Makes a folder and lets nobody else write there meanwhile.

    On a local file system the kernel holds the lock (flock), so it is free
    when its process is gone, however that ended. On others a file says who
    holds it and is written anew every `HEARTBEAT` seconds; one older than
    `STALE` seconds no longer counts, and `break_lock` ignores it.

    A folder that was made here and stayed empty is removed.

    Raises InputError when another process holds it, or when the folder cannot
    be made.
    """
    made = not tf.io.gfile.exists(folder)
    try:
        tf.io.gfile.makedirs(folder)
    except tf.errors.OpError as error:
        raise errors.InputError(
            f"cannot write into {folder}: {error.message}. Choose another "
            "--output."
        ) from None
    path = os.path.join(folder, NAME)
    held = _remote(path, break_lock) if "://" in folder else _local(path)
    try:
        with held:
            yield
    finally:
        if made and not tf.io.gfile.listdir(folder):
            tf.io.gfile.rmtree(folder)


@contextlib.contextmanager
def _local(path: str) -> Iterator[None]:
    while True:
        try:
            file = open(path, "a+", encoding="utf-8")
        except OSError as error:
            raise errors.InputError(
                f"cannot write into {os.path.dirname(path)}: {error}. Choose "
                "another --output."
            ) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _held(path, _read(path)) from None
            # The one who held it before has removed the file on leaving.
            if not os.path.exists(path) or not os.path.samestat(
                os.fstat(file.fileno()), os.stat(path)
            ):
                continue
            file.truncate(0)
            file.write(json.dumps(_message()))
            file.flush()
            try:
                yield
            finally:
                os.remove(path)
            return


@contextlib.contextmanager
def _remote(path: str, break_lock: bool) -> Iterator[None]:
    own = _message()

    def write():
        files.write_text(path, json.dumps(own | {"beat": time.time()}))

    if tf.io.gfile.exists(path) and not break_lock:
        there = _read(path)
        if time.time() - there.get("beat", 0) < STALE:
            raise _held(path, there, "; --break_lock ignores that")
    write()
    if _read(path).get("id") != own["id"]:
        raise _held(path, _read(path))  # who came at the same moment
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
        tf.io.gfile.remove(path)


def _message() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "id": uuid.uuid4().hex,
    }


def _read(path: str) -> dict[str, Any]:
    """What the lock's file says; nothing where it cannot be read."""
    try:
        return files.read_json(path)
    except errors.InputError:
        return {}


def _held(
    path: str, holder: Mapping[str, Any], more: str = ""
) -> errors.InputError:
    who = "another process"
    if {"pid", "host", "since"} <= set(holder):
        who = "process {pid} on {host} (since {since})".format(**holder)
    return errors.InputError(
        f"{os.path.dirname(path)} is being written by {who}. Wait for it, "
        f"stop it, or choose another --output{more}."
    )
