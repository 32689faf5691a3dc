"""The layers of ELMo: convolutions over characters, and LSTMs.

As in layers.py, all sizes are in the configuration, so `build` needs no input
shape.

Shapes: B batch, S sequence, P width of a direction, D width of a cell.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from bert_keras import layers, recurrent_kernels
from bert_keras.networks import base
from bert_keras.types import Shape, Tensor

ACTIVATIONS = {"relu": ops.relu, "tanh": ops.tanh}
# Of tokenizers.characters, which networks do not import.
MAX_CHARACTERS, NUM_CHARACTERS = 50, 262
_CARRY_BIAS = -2.0  # a highway layer starts by passing most of its input on


class RecurrentConfig(base.NetworkConfig):
    """The fields that these layers read in addition to NetworkConfig's.

    ElmoConfig declares and describes them.
    """

    projection_size: int
    lstm_size: int
    character_size: int
    filter_widths: tuple[int, ...]
    filter_counts: tuple[int, ...]
    num_highways: int
    character_activation: str
    cell_clip: float
    projection_clip: float
    residual: bool

    @property
    def num_filters(self) -> int:
        return sum(self.filter_counts)


class CharacterConvolutions(keras.layers.Layer):
    """The vector of each word, from its characters alone.

    characters (B, S, 50) int32 -> (B, S, P). Convolutions of several widths,
    each with the maximum over its positions; highway layers (Srivastava et al.
    2015); a projection, if the filters are not P.
    """

    def __init__(self, config: RecurrentConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        dtype = self.dtype_policy
        self.activation = ACTIVATIONS[config.character_activation]
        self.convolutions = [
            Convolution(config, width, count, name=f"conv_{i}", dtype=dtype)
            for i, (width, count) in enumerate(
                zip(config.filter_widths, config.filter_counts, strict=True)
            )
        ]
        self.highways = [
            Highway(config.num_filters, name=f"highway_{i}", dtype=dtype)
            for i in range(config.num_highways)
        ]
        self.project = None
        if config.num_filters != config.projection_size:
            self.project = _dense(
                config.projection_size,
                config.num_filters,
                name="project",
                dtype=dtype,
            )

    def build(self, input_shape: Shape | None = None) -> None:
        self.table = self.add_weight(
            name="table",
            shape=(NUM_CHARACTERS - 1, self.config.character_size),
            initializer=layers.unless_loaded(
                keras.initializers.RandomUniform(-1.0, 1.0)
            ),
        )
        for convolution in self.convolutions:
            convolution.build()
        for highway in self.highways:
            highway.build()
        if self.project:
            self.project.build((None, self.config.num_filters))
        self.built = True

    def call(self, characters: Tensor) -> Tensor:
        batch, length, count = ops.shape(characters)
        ids = ops.reshape(characters, (-1, count))
        # One more word: the convolution of none has a wrong shape (TF 2.21).
        ids = ops.pad(ids, [[0, 1], [0, 0]])
        # Row 0, of padding, is no weight, as in bilm-tf.
        table = ops.pad(self.table, [[1, 0], [0, 0]])
        x = ops.take(table, ids, axis=0)  # (B S + 1, 50, width of a character)
        x = ops.concatenate([conv(x) for conv in self.convolutions], axis=-1)
        x = self.activation(x[:-1])  # monotone, so after the maximum
        for highway in self.highways:
            x = highway(x)
        x = self.project(x) if self.project else x
        return ops.reshape(x, (batch, length, x.shape[-1]))


class Convolution(keras.layers.Layer):
    """Filters over a word's characters and their maxima.

    (R, 50, width of a character) -> (R, filters).
    """

    def __init__(
        self, config: RecurrentConfig, width: int, count: int, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.shape = (width, config.character_size, count)
        # As bilm-tf.
        self.initializer = keras.initializers.RandomUniform(-0.05, 0.05)
        if config.character_activation == "tanh":
            self.initializer = keras.initializers.RandomNormal(
                stddev=(width * config.character_size) ** -0.5
            )

    def build(self, input_shape: Shape | None = None) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=self.shape,
            initializer=layers.unless_loaded(self.initializer),
        )
        self.bias = self.add_weight(
            name="bias", shape=self.shape[-1:], initializer="zeros"
        )
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        x = ops.conv(x, self.kernel)  # (R, positions, filters)
        # Its gradient takes two thirds of the time of ops.max's on a CPU.
        x = ops.max_pool(x, x.shape[1], strides=1, padding="valid")
        return ops.squeeze(x, 1) + self.bias


class Highway(keras.layers.Layer):
    """gate * relu(dense(x)) + (1 - gate) * x: (R, width) -> (R, width)."""

    def __init__(self, width: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.width = width
        self.carry = _dense(
            width,
            width,
            name="carry",
            dtype=self.dtype_policy,
            bias_initializer=keras.initializers.Constant(_CARRY_BIAS),
        )
        self.transform = _dense(
            width, width, name="transform", dtype=self.dtype_policy
        )

    def build(self, input_shape: Shape | None = None) -> None:
        self.carry.build((None, self.width))
        self.transform.build((None, self.width))
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        gate = ops.sigmoid(self.carry(x))
        return gate * ops.relu(self.transform(x)) + (1.0 - gate) * x


def _dense(units: int, inputs: int, **kwargs: Any) -> keras.layers.Dense:
    kernel = keras.initializers.RandomNormal(stddev=inputs**-0.5)  # as bilm-tf
    return keras.layers.Dense(
        units, kernel_initializer=layers.unless_loaded(kernel), **kwargs
    )


class BidirectionalLSTM(keras.layers.Layer):
    """Two LSTMs, each over its own sequence: 2 of (S, B, P) -> 2 of (S, B, P).

    keeps: 2 of (S, B, 1), 0 where a text starts. residual: whether the inputs,
    after dropout, are added to the outputs.
    """

    def __init__(
        self, config: RecurrentConfig, *, residual: bool, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.directions = [
            LSTM(config, name=name, dtype=self.dtype_policy)
            for name in ("forward", "backward")
        ]
        self.residual = residual
        self.dropout = layers.Dropout(config.dropout, dtype=self.dtype_policy)

    def build(self, input_shape: Shape | None = None) -> None:
        for direction in self.directions:
            direction.build()
        self.built = True

    def call(
        self,
        inputs: Sequence[Tensor],
        keeps: Sequence[Tensor],
        training: bool | None = None,
    ) -> list[Tensor]:
        outputs = []
        for lstm, x, keep in zip(self.directions, inputs, keeps, strict=True):
            x = self.dropout(x, training=training)
            output = lstm(x, keep, training=training)
            outputs.append(output + x if self.residual else output)
        return outputs


class LSTM(keras.layers.Layer):
    """One direction: x (S, B, P), keep (S, B, 1) -> (S, B, P).

    Its cell has the width D; see recurrent_kernels.lstm.
    """

    def __init__(self, config: RecurrentConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config

    def build(self, input_shape: Shape | None = None) -> None:
        outer, inner = self.config.projection_size, self.config.lstm_size
        # Glorot's for the matrix of inputs and states together, TensorFlow 1's.
        limit = math.sqrt(6.0 / (2 * outer + 4 * inner))
        uniform = keras.initializers.RandomUniform

        def matrix(name, shape, limit):
            return self.add_weight(
                name=name,
                shape=shape,
                initializer=layers.unless_loaded(uniform(-limit, limit)),
            )

        self.kernel = matrix("kernel", (outer, 4 * inner), limit)
        self.recurrent_kernel = matrix(
            "recurrent_kernel", (outer, 4 * inner), limit
        )
        self.bias = self.add_weight(
            name="bias", shape=(4 * inner,), initializer="zeros"
        )
        self.projection = None
        if outer < inner:
            limit = math.sqrt(6.0 / (outer + inner))
            self.projection = matrix("projection", (inner, outer), limit)
        self.built = True

    def call(
        self, x: Tensor, keep: Tensor, training: bool | None = None
    ) -> Tensor:
        gates = ops.matmul(layers.rows(x), self.kernel) + self.bias
        projection = self.projection
        states, _ = recurrent_kernels.lstm(
            ops.reshape(gates, (*ops.shape(x)[:2], gates.shape[-1])),
            ops.convert_to_tensor(self.recurrent_kernel),
            None if projection is None else ops.convert_to_tensor(projection),
            masks=recurrent_kernels.Masks(keep),
            cell_clip=self.config.cell_clip,
            projection_clip=self.config.projection_clip,
            training=training,
        )
        return states
