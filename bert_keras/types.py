"""Names of types for signatures that a static checker cannot resolve.

Keras and TensorFlow are untyped for mypy, and what a layer's `call` takes has
no common static type: an eager tensor, a symbolic one of a `tf.function`, a
keras.KerasTensor, a variable. `Tensor` tells the reader which arguments these
are; their shapes and dtypes are in the docstrings.
"""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any
Shape: TypeAlias = tuple[int | None, ...]  # None: not known before the call
