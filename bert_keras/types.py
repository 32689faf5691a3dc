"""Type aliases for signatures.

Keras and TensorFlow are untyped for mypy, and the arguments of a layer's `call`
have no common static type: eager tensors, symbolic tensors of a `tf.function`,
keras.KerasTensors, variables. `Tensor` marks such arguments for the reader;
their shapes and dtypes are in the docstrings.
"""

import os
from typing import Any, TypeAlias

StrPath: TypeAlias = str | os.PathLike[str]

Tensor: TypeAlias = Any
Shape: TypeAlias = tuple[int | None, ...]  # None: not known before the call
