"""An encoder whose calls are recorded, for losses beside the task's."""

from typing import Any

import keras
import tensorflow as tf


class RecordedEncoder:
    """Calls an encoder, and keeps its inputs and outputs in `calls`.

    It takes no `positions_read`, so all positions are computed. A task's
    `forward` may get it in place of the encoder.

    attentions: whether outputs have the attention distributions, too.
    """

    def __init__(self, encoder: keras.Model, *, attentions: bool = False):
        self._encoder = encoder
        self._more = {"attentions": True} if attentions else {}
        self.config = encoder.config
        self.trainable_variables = encoder.trainable_variables
        # (inputs, outputs) of each call.
        self.calls: list[tuple[dict[str, Any], dict[str, Any]]] = []

    @property
    def token_table(self) -> tf.Tensor:
        return self._encoder.token_table

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        encoded = self._encoder(**inputs, **self._more)
        self.calls.append((inputs, encoded))
        return encoded
