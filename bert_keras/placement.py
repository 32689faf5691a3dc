"""Devices of the layers of a network, for a pipeline of several devices."""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import keras

# The device of each layer index (see NetworkConfig.layer_index), from the
# embeddings, 0, to the pooler and the heads, L + 1. Empty: Keras decides.
Devices = tuple[str, ...]

_current: contextvars.ContextVar[Devices] = contextvars.ContextVar(
    "devices", default=()
)


@contextlib.contextmanager
def on_devices(devices: Sequence[str]) -> Iterator[None]:
    """Networks that are made inside get their weights on these devices."""
    token = _current.set(tuple(devices))
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Devices:
    """Returns the devices of the innermost `on_devices`, or none."""
    return _current.get()


def of_variables(
    encoder: keras.Model, variables: Sequence[keras.Variable]
) -> Devices:
    """Returns the device of each variable of a model, or none."""
    devices = getattr(encoder, "devices", ())
    if not devices:
        return ()
    layers = [encoder.config.layer_index(each.path) for each in variables]
    return tuple(devices[layer] for layer in layers)


def on(devices: Devices, layer: int) -> AbstractContextManager[object]:
    """Returns the context of what `layer` makes and computes.

    layer: a layer index; negative ones count from the heads.
    """
    if not devices:
        return contextlib.nullcontext()
    return keras.device(devices[layer])
