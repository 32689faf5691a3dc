"""A temporary folder for writing several files before moving them in place."""

import contextlib
import os
from collections.abc import Iterator

import tensorflow as tf

from bert_keras import errors, locks


@contextlib.contextmanager
def aside(folder: str, name: str) -> Iterator[str]:
    """Yields a temporary folder inside `folder`, which is removed on exit.

    `folder` is locked until then. The temporary name begins with a dot, so that
    no server takes it for a version. After a kill it remains, and the next call
    with the same name removes it.
    """
    path = os.path.join(folder, f".unfinished-{name}")
    with locks.hold(folder):
        try:
            if tf.io.gfile.exists(path):
                tf.io.gfile.rmtree(path)
            tf.io.gfile.makedirs(path)
        except tf.errors.OpError as error:
            raise errors.InputError(
                f"cannot write into {folder}: {error.message}. Choose another "
                "`output`."
            ) from None
        try:
            yield path
        finally:
            if tf.io.gfile.exists(path):
                tf.io.gfile.rmtree(path)
