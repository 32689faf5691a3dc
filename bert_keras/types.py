"""Names of types that signatures share.

Keras and TensorFlow are untyped for mypy, and what a layer's `call` takes has
no common static type: an eager tensor, a symbolic one of a `tf.function`, a
keras.KerasTensor, a variable. `Tensor` tells the reader which arguments these
are; their shapes and dtypes are in the docstrings.
"""

import os
from typing import Any, TypeAlias

StrPath: TypeAlias = str | os.PathLike[str]

Tensor: TypeAlias = Any
Shape: TypeAlias = tuple[int | None, ...]  # None: not known before the call
