"""What stands on the encoder: one small layer per kind of answer.

Like the encoder's layers, heads build from the configuration alone.
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from bert_keras import kernels, layers
from bert_keras.networks import base
from bert_keras.types import Shape, Tensor


class MaskedLMHead(keras.layers.Layer):
    """Scores the vocabulary at the masked positions (BERT, 3.1, task 1).

    hidden (B, S, H), positions (B, P) int32, table (V, E) -> logits
    (B, P, V), float32. Positions past the last mask are padding; their
    logits are ignored by weight 0. Without positions hidden is (B, P, H):
    that of the masked positions alone.
    """

    def __init__(self, config: base.NetworkConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.transform = layers.dense(
            config,
            config.embedding_width,
            name="transform",
            dtype=self.dtype_policy,
        )
        self.activation = layers.Activation(config.activation)
        self.norm = layers.layer_norm(
            config, name="norm", dtype=self.dtype_policy
        )

    def build(self, input_shape: Shape | None = None) -> None:
        self.transform.build((None, self.config.hidden_size))
        self.norm.build((None, self.config.embedding_width))
        self.bias = self.add_weight(
            name="bias",
            shape=(self.config.vocab_size,),
            initializer="zeros",
            autocast=False,
        )
        self.built = True

    def call(
        self,
        hidden: Tensor,
        positions: Tensor | None,
        table: Tensor,
        training: bool | None = None,
    ) -> Tensor:
        if positions is not None:
            hidden = layers.gather(hidden, positions)
        x = self.transform(layers.rows(hidden))
        x = self.norm(self.activation(x, training=training))  # (B P, E)
        table = ops.cast(table, self.compute_dtype)
        logits = ops.cast(kernels.matmul_transposed(x, table), "float32")
        logits = logits + self.bias
        shape = (*ops.shape(hidden)[:2], self.config.vocab_size)
        return ops.reshape(logits, shape)


class NextSentenceHead(keras.layers.Layer):
    """Is the second segment the first one's? pooled (B, H) -> (B, 2).

    Logits are float32; class 0 = it is, 1 = it is not, as in Google's files
    (BERT, 3.1, task 2). Sentence order uses the same head (ALBERT, 3.1).
    """

    def __init__(self, config: base.NetworkConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.score = layers.dense(config, 2, name="score", dtype="float32")

    def build(self, input_shape: Shape | None = None) -> None:
        self.score.build((None, self.config.hidden_size))
        self.built = True

    def call(self, pooled: Tensor) -> Tensor:
        return self.score(pooled)


def pool(
    hidden: Tensor, padding_mask: Tensor, number: int | None = None
) -> Tensor:
    """The mean of a text's hidden states, the `number`-th of its row.

    hidden (B, S, H), padding_mask (B, S): k on the k-th text -> (B, H) float32;
    zeros in rows that do not have the text. None: all texts of a row as one.
    """
    mask = padding_mask > 0 if number is None else padding_mask == number
    # Sums in float32: a long text's would lose bits in 16.
    weights = ops.cast(ops.expand_dims(mask, -1), "float32")  # (B, S, 1)
    total = ops.sum(ops.cast(hidden, "float32") * weights, axis=1)
    return total / ops.maximum(ops.sum(weights, axis=1), 1.0)


# What a text's one vector is made of.
POOLINGS = ("first", "last", "mean", "max", "layers", "lstm")
_LAYERS = 4  # of "layers": the last ones (Devlin et al. 2019, table 7)
# Poolings that read few of the last hidden states: how many from [CLS] on.
# Of "first" none: the encoder has pooled it.
_READ = {"first": 0, "layers": 1}


def positions_pooled(pooling: str, padding_mask: Tensor) -> Tensor | None:
    """`Task.positions_read` of a pooling: (B, S) -> (B, 0 or 1), or None."""
    if pooling not in _READ:
        return None
    return ops.zeros((ops.shape(padding_mask)[0], _READ[pooling]), "int32")


class Pooling(keras.layers.Layer):
    """Hidden states of a text -> one vector.

    {"hidden": L+1 of (B, S, H), "pooled": (B, H)}, padding_mask (B, S)
    -> (B, width), where `width` is H, or 4 H for "layers".

    "first" is the pooler's output for [CLS] and "last" the state of the last
    token; "mean" and "max" are taken over tokens; "layers" joins the [CLS] of
    the last four layers; "lstm" reads the last layer with two LSTMs, one on
    the other.
    """

    def __init__(self, config: base.NetworkConfig, pooling: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.pooling = pooling
        self.hidden_size = config.hidden_size
        layers_ = min(_LAYERS, config.num_layers)
        self.width = config.hidden_size * (
            layers_ if pooling == "layers" else 1
        )
        self.lstms = []
        if pooling == "lstm":
            self.lstms = [
                keras.layers.LSTM(
                    config.hidden_size,
                    return_sequences=True,
                    name=f"lstm_{number}",
                    dtype=self.dtype_policy,
                )
                for number in range(2)
            ]

    def build(self, input_shape: Shape | None = None) -> None:
        for lstm in self.lstms:
            lstm.build((None, None, self.hidden_size))
        self.built = True

    def call(
        self,
        encoded: Mapping[str, Any],
        padding_mask: Tensor,
        training: bool | None = None,
    ) -> Tensor:
        hidden = encoded["hidden"][-1]
        if self.pooling == "first":
            return encoded["pooled"]
        if self.pooling == "layers":
            count = self.width // self.hidden_size
            return ops.concatenate(
                [layer[:, 0] for layer in encoded["hidden"][-count:]], axis=-1
            )
        if self.pooling == "mean":
            return pool(hidden, padding_mask)
        mask = ops.expand_dims(padding_mask > 0, -1)  # (B, S, 1)
        if self.pooling == "max":
            least = ops.cast(layers.MASKED_SCORE, "float32")
            return ops.max(
                ops.where(mask, ops.cast(hidden, "float32"), least), axis=1
            )
        for lstm in self.lstms:
            # Padding stands at the end: what comes before does not see it.
            hidden = lstm(hidden, training=training)
        length = ops.sum(ops.cast(mask, "int32"), axis=1)  # (B, 1)
        last = ops.expand_dims(ops.maximum(length - 1, 0), -1)  # (B, 1, 1)
        return ops.squeeze(ops.take_along_axis(hidden, last, axis=1), 1)


class ClassificationHead(keras.layers.Layer):
    """Scores C classes of a text or a pair: encoded -> (B, C).

    Pooling, dropout, then one product (BERT, 4.1). Logits are float32.
    """

    def __init__(
        self,
        config: base.NetworkConfig,
        num_classes: int,
        pooling: str = "first",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.pooling = Pooling(
            config, pooling, name="pooling", dtype=self.dtype_policy
        )
        self.dropout = layers.Dropout(config.dropout, dtype=self.dtype_policy)
        self.score = layers.dense(
            config, num_classes, name="score", dtype="float32"
        )

    def build(self, input_shape: Shape | None = None) -> None:
        self.pooling.build()
        self.score.build((None, self.pooling.width))
        self.built = True

    def call(
        self,
        encoded: Mapping[str, Any],
        padding_mask: Tensor,
        training: bool | None = None,
    ) -> Tensor:
        pooled = self.pooling(encoded, padding_mask, training=training)
        return self.score(self.dropout(pooled, training=training))


class SpanHead(keras.layers.Layer):
    """Where a span begins and ends: hidden (B, S, H) -> two (B, S).

    One product for both (BERT, 4.2). Logits are float32.
    """

    def __init__(self, config: base.NetworkConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.score = layers.dense(config, 2, name="score", dtype="float32")

    def build(self, input_shape: Shape | None = None) -> None:
        self.score.build((None, None, self.config.hidden_size))
        self.built = True

    def call(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.score(hidden)
        return logits[..., 0], logits[..., 1]


class TokenClassificationHead(keras.layers.Layer):
    """Scores C classes of each token: hidden (B, S, H) -> (B, S, C).

    Dropout, then one product (BERT, 5.3). Logits are float32.
    """

    def __init__(
        self, config: base.NetworkConfig, num_classes: int, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.config = config
        self.dropout = layers.Dropout(config.dropout, dtype=self.dtype_policy)
        self.score = layers.dense(
            config, num_classes, name="score", dtype="float32"
        )

    def build(self, input_shape: Shape | None = None) -> None:
        self.score.build((None, None, self.config.hidden_size))
        self.built = True

    def call(self, hidden: Tensor, training: bool | None = None) -> Tensor:
        return self.score(self.dropout(hidden, training=training))
