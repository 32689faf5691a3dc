"""Early exits: a classifier on every layer (FastBERT, Liu et al. 2020)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from bert_keras import layers, options
from bert_keras.networks import base
from bert_keras.types import Shape, Tensor

_WIDTH = 128  # of the hidden layer of a classifier, as in the paper (4.2)
# Rows that remain have a multiple of so many tokens: oneDNN compiles a kernel
# for each new shape, which costs as much as some rows.
_TOKENS = 8


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the answers of a model with early exits are computed."""

    speed: float | None = options.option(
        None,
        "Models with early exits: a text leaves at the first layer that is "
        "surer than this, from 0, the last layer, to 1, the first one.",
        minimum=0.0,
        maximum=1.0,
        value_type=float,
    )


class ExitHead(keras.layers.Layer):
    """Scores C classes by the states of a layer: (B, S, H) -> (B, C), float32.

    A dense layer with gelu on [CLS] and the mean of the tokens, both
    normalised, and one for the classes. The paper's has a self-attention of the
    same width in between.
    """

    def __init__(
        self, config: base.NetworkConfig, num_classes: int, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.config = config
        self.norm = layers.layer_norm(config, name="norm", dtype="float32")
        self.inner = layers.dense(config, _WIDTH, name="inner", dtype="float32")
        self.score = layers.dense(
            config, num_classes, name="score", dtype="float32"
        )
        self.activation = layers.Activation("gelu")

    def build(self, input_shape: Shape | None = None) -> None:
        width = 2 * self.config.hidden_size
        self.norm.build((None, width))
        self.inner.build((None, width))
        self.score.build((None, _WIDTH))
        self.built = True

    def call(
        self, hidden: Tensor, padding_mask: Tensor, training: bool | None = None
    ) -> Tensor:
        hidden = ops.cast(hidden, "float32")
        is_token = ops.cast(ops.expand_dims(padding_mask > 0, -1), "float32")
        count = ops.maximum(ops.sum(is_token, axis=1), 1.0)
        mean = ops.sum(hidden * is_token, axis=1) / count
        x = self.norm(ops.concatenate([hidden[:, 0], mean], axis=-1))
        x = self.activation(self.inner(x), training=training)
        return self.score(x)


class ExitHeads(keras.layers.Layer):
    """An ExitHead of each layer but the last one.

    The states of these layers (B, S, H), padding_mask (B, S) -> logits
    (B, L - 1, C), float32. `heads[i]` is that of layer i + 1.
    """

    def __init__(
        self, config: base.NetworkConfig, num_classes: int, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.heads = [
            ExitHead(config, num_classes, name=f"layer_{layer}")
            for layer in range(1, config.num_layers)
        ]

    def build(self, input_shape: Shape | None = None) -> None:
        for head in self.heads:
            head.build()
        self.built = True

    def call(
        self,
        hidden: Sequence[Tensor],
        padding_mask: Tensor,
        training: bool | None = None,
    ) -> Tensor:
        return ops.stack(
            [
                head(states, padding_mask, training=training)
                for head, states in zip(self.heads, hidden, strict=True)
            ],
            axis=1,
        )


def uncertainty(logits: tf.Tensor) -> tf.Tensor:
    """Returns the entropy as a share of the largest: (..., C) -> (...).

    Liu et al. 2020, equation 6. At least 0, also where rounding is below.
    """
    shares = tf.nn.softmax(logits)
    entropy = -tf.reduce_sum(shares * tf.nn.log_softmax(logits), axis=-1)
    count = tf.cast(tf.shape(logits)[-1], tf.float32)
    return tf.maximum(entropy / tf.math.log(count), 0.0)


def is_sure(logits: tf.Tensor, speed: tf.Tensor | float) -> tf.Tensor:
    """Returns whether logits (..., C) are surer than `speed`: (...) bool.

    None is at 0, and all are at 1.
    """
    return (uncertainty(logits) < speed) | (speed >= 1.0)


Rows = dict[str, tf.Tensor]


def selected(rows: Rows, index: tf.Tensor, head_length: int | None) -> Rows:
    """Returns some rows, {name: (R, ...)}, without padding that none needs."""
    kept = {name: tf.gather(value, index) for name, value in rows.items()}
    return shortened(kept, head_length)


def shortened(rows: Rows, head_length: int | None) -> Rows:
    """Cuts or adds padding, to a multiple of _TOKENS.

    rows: "x" (R, S, H), "mask" (R, S, S), "padding_mask" (R, S), and others
      (R, ...).
    head_length: the largest length that a head has weights for, if any.
    """
    is_read = tf.reduce_any(rows["padding_mask"] > 0, axis=0)
    places = tf.where(is_read, tf.range(1, tf.shape(is_read)[0] + 1), 0)
    longest = tf.maximum(tf.reduce_max(places), 1)  # 1: without rows
    length = -(-longest // _TOKENS) * _TOKENS
    if head_length is not None:
        length = tf.minimum(length, head_length)
    more = tf.maximum(length - tf.shape(is_read)[0], 0)
    x, mask, padding_mask = (rows[n] for n in ("x", "mask", "padding_mask"))
    return rows | {
        "x": tf.pad(x, [(0, 0), (0, more), (0, 0)])[:, :length],
        "mask": tf.pad(mask, [(0, 0), (0, more), (0, more)])[
            :, :length, :length
        ],
        "padding_mask": tf.pad(padding_mask, [(0, 0), (0, more)])[:, :length],
    }
