"""The parts of the encoder: embeddings, attention, feed-forward, block.

All sizes come from the configuration, so `build` needs no input shape: the
encoder builds its layers when it is constructed, and weights exist, have
names and can be loaded before any input was seen.
"""

import contextlib
import contextvars
import math
from collections.abc import Collection, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from bert_keras import errors, kernels
from bert_keras.networks import base
from bert_keras.types import Shape, Tensor

ACTIVATIONS = {
    "gelu": lambda x: ops.gelu(x, approximate=False),
    "gelu_tanh": lambda x: ops.gelu(x, approximate=True),
    "relu": ops.relu,
}

# Faster versions of activations, for training.
TRAINING_ACTIVATIONS = {"gelu": kernels.gelu}

# Added to the scores of masked positions, in float32. Finite, so that a row
# which attends to nothing (padding) gets a uniform distribution and not NaN.
MASKED_SCORE = -1e9


class TransformerConfig(base.NetworkConfig):
    """What the layers of a transformer read beyond NetworkConfig.

    Each is described where BertConfig declares it.
    """

    num_heads: int
    intermediate_size: int
    attention_dropout: float
    norm_first: bool
    embedding_norm: bool
    num_segments: int
    position: str
    max_position_embeddings: int

    @property
    def head_width(self) -> int:
        return self.hidden_size // self.num_heads


def attention_mask(padding_mask: Tensor, *, causal: bool = False) -> Tensor:
    """Builds the boolean attention mask.

    padding_mask (B, S) int32: 0 = padding, k = the k-th packed text
    -> (B, S, S) bool: query, key. Packed texts do not attend to each other.
    """
    key = ops.expand_dims(padding_mask, 1)  # (B, 1, S)
    query = ops.expand_dims(padding_mask, 2)  # (B, S, 1)
    mask = ops.logical_and(ops.equal(query, key), ops.greater(key, 0))
    if causal:
        position = ops.arange(ops.shape(padding_mask)[1])
        earlier = ops.greater_equal(
            ops.expand_dims(position, 1), ops.expand_dims(position, 0)
        )
        mask = ops.logical_and(mask, ops.expand_dims(earlier, 0))
    return mask


class Activation:
    """One of ACTIVATIONS; in training its faster version, if there is one."""

    def __init__(self, name: str):
        self._serving = ACTIVATIONS[name]
        self._training = TRAINING_ACTIVATIONS.get(name, self._serving)

    def __call__(self, x: Tensor, *, training: bool | None = None) -> Tensor:
        return self._training(x) if training else self._serving(x)


class Dropout(keras.layers.Dropout):
    """Keras' dropout, its random numbers drawn at half the cost."""

    def call(self, inputs: Tensor, training: bool | None = False) -> Tensor:
        if not training or not self.rate:
            return inputs
        return kernels.dropout(inputs, self.rate, self.seed_generator.next())


class LayerNorm(keras.layers.LayerNormalization):
    """Keras' LayerNorm over the last axis, in float32 and fewer passes."""

    def call(self, inputs: Tensor) -> Tensor:
        y = kernels.layer_norm(inputs, self.gamma, self.beta, self.epsilon)
        return ops.cast(y, self.compute_dtype)


class Embeddings(keras.layers.Layer):
    """Token + segment + position embeddings, normalised (BERT, figure 2).

    token_ids, segment_ids, position_ids (B, S) int32 -> (B, S, H). Without
    position_ids they are 0, 1, 2, ... in every row. A network of one segment
    takes no segment_ids, any other requires them.

    The tables are float32 under every precision: only the rows that are
    looked up are cast, not the whole table.
    """

    def __init__(self, config: TransformerConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.norm = None
        # Under norm_first each block normalises its own input.
        if config.embedding_norm and not config.norm_first:
            self.norm = layer_norm(config, name="norm", dtype="float32")
        self.dropout = Dropout(config.dropout, dtype="float32")
        self.project = None
        if config.embedding_width != config.hidden_size:
            self.project = dense(
                config,
                config.hidden_size,
                name="project",
                dtype=self.dtype_policy,
            )

    def build(self, input_shape: Shape | None = None) -> None:
        config, width = self.config, self.config.embedding_width
        self.token_table = self._table("token", config.vocab_size)
        self.segment_table = self._table("segment", config.num_segments)
        self.position_table = None
        if config.position == "learned":
            self.position_table = self._table(
                "position", config.max_position_embeddings
            )
        if self.norm:
            self.norm.build((None, None, width))
        if self.project:
            self.project.build((None, None, width))
        self.built = True

    def _table(self, name: str, rows: int) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=(rows, self.config.embedding_width),
            initializer=initializer(self.config),
            dtype="float32",
            autocast=False,
        )

    def call(
        self,
        token_ids: Tensor,
        segment_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        if (segment_ids is None) != (self.config.num_segments == 1):
            raise errors.InputError(
                f"the network has {self.config.num_segments} segments, and "
                f"segment_ids were {'not ' * (segment_ids is None)}given; "
                "pass what `config.inputs` names."
            )
        x = ops.take(self.token_table, token_ids, axis=0)
        if segment_ids is None:
            x = x + ops.convert_to_tensor(self.segment_table)
        else:
            x = x + ops.take(self.segment_table, segment_ids, axis=0)
        x = x + self._positions(ops.shape(token_ids)[1], position_ids)
        if self.norm:
            x = self.norm(x)
        x = self.dropout(x, training=training)
        x = ops.cast(x, self.compute_dtype)
        return self.project(x) if self.project else x

    def _positions(self, length, position_ids):
        """The vectors (S, E), or (B, S, E) where there are position_ids."""
        config = self.config
        if self.position_table is not None:
            table = ops.convert_to_tensor(self.position_table)
        elif isinstance(length, int):  # a constant, where S is static
            count = max(length, config.max_position_embeddings)
            positions = np.arange(count, dtype="float64")
            table = ops.cast(
                sinusoids(positions, config.embedding_width), "float32"
            )
        else:
            if position_ids is None:
                position_ids = ops.arange(length)
            positions = ops.cast(position_ids, "float64")
            return ops.cast(
                sinusoids(positions, config.embedding_width), "float32"
            )
        if position_ids is None:
            return table[:length]
        return ops.take(table, position_ids, axis=0)


class SelfAttention(keras.layers.Layer):
    """Scaled dot-product attention with N heads (Vaswani et al. 2017, 3.2).

    x (B, S, H), mask (B, 1 or S, S) bool -> (B S, H), as `rows` of the
    batch, and the float32 distributions (B, N, S, S) when `attentions` is
    true. With query_states (B, P, H) the queries are computed from these:
    mask (B, 1 or P, S) -> (B P, H), (B, N, P, S).

    Query, key and value are one product: columns 0..H of the kernel make the
    queries, the next H the keys, the last H the values.
    """

    def __init__(self, config: TransformerConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        width, dtype = config.hidden_size, self.dtype_policy
        self.qkv = dense(config, 3 * width, name="qkv", dtype=dtype)
        self.out = dense(config, width, name="out", dtype=dtype)
        self.dropout = Dropout(config.attention_dropout, dtype=dtype)

    def build(self, input_shape: Shape | None = None) -> None:
        self.qkv.build((None, None, self.config.hidden_size))
        self.out.build((None, None, self.config.hidden_size))
        self.built = True

    def call(
        self,
        x: Tensor,
        mask: Tensor,
        training: bool | None = None,
        attentions: bool = False,
        query_states: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        width = self.config.head_width
        if query_states is None:
            query_states = x
            query, key, value = self._project(x)
        else:
            query, key, value = self._project_apart(query_states, x)
        scale = 1.0 / math.sqrt(width)
        if training:
            # Scaled before the matmul: float16 overflows after it.
            scores = ops.cast(_products(query * scale, key), "float32")
        else:
            # On a CPU TensorFlow fuses matmul, scale and mask in float32 only.
            query, key = ops.cast(query, "float32"), ops.cast(key, "float32")
            scores = _products(query, key) * scale
        mask_scores = ops.cast(ops.logical_not(mask), "float32") * MASKED_SCORE
        scores = scores + ops.expand_dims(mask_scores, 1)
        attention = ops.softmax(scores, axis=-1)  # (B, N, S, S)
        weights = ops.cast(attention, self.compute_dtype)
        context = ops.matmul(self.dropout(weights, training=training), value)
        context = ops.transpose(context, (0, 2, 1, 3))  # (B, S, N, D)
        output = self.out(kernels.reshape_like(context, rows(query_states)))
        return (output, attention) if attentions else output

    def _project(self, x):
        """(B, S, H) -> queries, keys and values, each (B, N, S, D)."""
        heads, width = self.config.num_heads, self.config.head_width
        qkv = self.qkv(rows(x))
        qkv = ops.reshape(qkv, (-1, ops.shape(x)[1], 3, heads, width))
        qkv = ops.transpose(qkv, (2, 0, 3, 1, 4))  # (3, B, N, S, D)
        # Not slices: the gradient of each would be a tensor of all three,
        # padded with zeros, and the three would be added.
        return ops.unstack(qkv, 3, axis=0)

    def _project_apart(self, query_states, x):
        """(B, P, H), (B, S, H) -> queries (B, N, P, D), keys and values."""
        heads, width = self.config.num_heads, self.config.head_width
        # The layer's own matmul would make queries of all of x.
        kernels = ops.split(ops.convert_to_tensor(self.qkv.kernel), 3, axis=1)
        biases = ops.split(ops.convert_to_tensor(self.qkv.bias), 3)
        projected = []
        for states, kernel, bias in zip(
            (query_states, x, x), kernels, biases, strict=True
        ):
            projection = ops.add(ops.matmul(rows(states), kernel), bias)
            projection = ops.reshape(
                projection, (-1, ops.shape(states)[1], heads, width)
            )
            projected.append(ops.transpose(projection, (0, 2, 1, 3)))
        return projected


def _products(query, key):
    """(B, N, P, D), (B, N, S, D) -> (B, N, P, S): each query with each key."""
    return ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))


class FeedForward(keras.layers.Layer):
    """Two matmuls with an activation between: (R, H) -> (R, H), as `rows`."""

    def __init__(self, config: TransformerConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.activation = Activation(config.activation)
        inner, dtype = config.intermediate_size, self.dtype_policy
        self.inner = dense(config, inner, name="inner", dtype=dtype)
        self.outer = dense(
            config, config.hidden_size, name="outer", dtype=dtype
        )

    def build(self, input_shape: Shape | None = None) -> None:
        self.inner.build((None, None, self.config.hidden_size))
        self.outer.build((None, None, self.config.intermediate_size))
        self.built = True

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        return self.outer(self.activation(self.inner(x), training=training))


class Block(keras.layers.Layer):
    """One encoder layer: attention and feed-forward, each with a residual.

    x (B, S, H), mask (B, 1 or S, S) bool -> (B, S, H), and the attention
    distributions (B, N, S, S) when `attentions` is asked for.

    With positions (B, P) int32 only these rows are computed, from the keys
    and values of all: mask (B, 1 or P, S) -> (B, P, H), (B, N, P, S).
    """

    def __init__(self, config: TransformerConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        dtype = self.dtype_policy
        self.attention = SelfAttention(config, name="attention", dtype=dtype)
        self.attention_norm = layer_norm(
            config, name="attention_norm", dtype=dtype
        )
        self.feed_forward = FeedForward(
            config, name="feed_forward", dtype=dtype
        )
        self.feed_forward_norm = layer_norm(
            config, name="feed_forward_norm", dtype=dtype
        )
        self.dropout = Dropout(config.dropout, dtype=dtype)

    def build(self, input_shape: Shape | None = None) -> None:
        shape = (None, None, self.config.hidden_size)
        self.attention.build(shape)
        self.attention_norm.build(shape)
        self.feed_forward.build(shape)
        self.feed_forward_norm.build(shape)
        self.built = True

    def call(
        self,
        x: Tensor,
        mask: Tensor,
        training: bool | None = None,
        attentions: bool = False,
        positions: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        norm_first = self.config.norm_first
        sublayer_input = self.attention_norm(x) if norm_first else x
        query_states = None
        if positions is not None:
            query_states = gather(sublayer_input, positions)
            x = gather(x, positions) if norm_first else query_states
        output, attention = self.attention(
            sublayer_input,
            mask,
            training=training,
            attentions=True,
            query_states=query_states,
        )
        # As rows: TensorFlow fuses matmul, bias and the sum for rank 2 only.
        shape, x = ops.shape(x), rows(x)
        x = x + self.dropout(output, training=training)
        x = x if norm_first else self.attention_norm(x)

        sublayer_input = self.feed_forward_norm(x) if norm_first else x
        output = self.feed_forward(sublayer_input, training=training)
        x = x + self.dropout(output, training=training)
        x = x if norm_first else self.feed_forward_norm(x)
        x = ops.reshape(x, shape)
        return (x, attention) if attentions else x


_skips_init = contextvars.ContextVar("skips_init", default=False)


@contextlib.contextmanager
def skip_init() -> Iterator[None]:
    """Kernels and tables made inside start at zero: values will be loaded.

    Drawing 110 M random numbers takes longer than reading as many weights.
    """
    token = _skips_init.set(True)
    try:
        yield
    finally:
        _skips_init.reset(token)


def initializer(config: base.NetworkConfig) -> keras.Initializer:
    if _skips_init.get():
        return keras.initializers.Zeros()
    return keras.initializers.TruncatedNormal(stddev=config.initializer_range)


def dense(
    config: base.NetworkConfig, units: int, **kwargs: Any
) -> keras.layers.Dense:
    return keras.layers.Dense(
        units, kernel_initializer=initializer(config), **kwargs
    )


def rows(x: Tensor) -> Tensor:
    """(B, S, H) -> (B S, H).

    TensorFlow fuses matmul, bias and GELU for inputs of rank 2 only.
    """
    return ops.reshape(x, (-1, x.shape[-1]))


def gather(x: Tensor, positions: Tensor) -> Tensor:
    """x (B, S, W), positions (B, P) int32 -> (B, P, W)."""
    batch, length, width = ops.shape(x)
    offsets = ops.expand_dims(ops.arange(batch, dtype="int32") * length, 1)
    # In the flat batch: TFLite gathers along one axis, for all rows alike. Not
    # ops.add, which adds (B, 1) to the columns where B is P (Keras 3.15).
    flat_positions = ops.cast(positions, "int32") + offsets
    return ops.take(ops.reshape(x, (-1, width)), flat_positions, axis=0)


def layer_norm(
    config: base.NetworkConfig,
    *,
    dtype: str | keras.DTypePolicy | None = None,
    **kwargs: Any,
) -> LayerNorm:
    """Its weights are float32 under every precision.

    dtype: a Keras policy; None is the global one.
    """
    compute = keras.dtype_policies.get(
        dtype or keras.config.dtype_policy()
    ).compute_dtype
    if compute in ("bfloat16", "float16"):
        dtype = f"mixed_{compute}"
    return LayerNorm(epsilon=config.layer_norm_epsilon, dtype=dtype, **kwargs)


@contextlib.contextmanager
def global_policy(policy: str | keras.DTypePolicy) -> Iterator[None]:
    """Layers made inside, without a `dtype` of their own, get this policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def frozen(layer: keras.layers.Layer) -> list[str]:
    """Paths of the layers in `layer`, itself included, that are not trained."""
    return [
        path
        for path, sublayer in _sublayers(layer)
        if sublayer.weights and not sublayer.trainable
    ]


def freeze(layer: keras.layers.Layer, paths: Collection[str]) -> None:
    """Trains what is in `layer`, but for the layers that `frozen` named."""
    for path, sublayer in _sublayers(layer):
        if sublayer.weights and sublayer.trainable != (path not in paths):
            sublayer.trainable = path not in paths


def _sublayers(layer, path=""):
    """Parents first: what is set for them is set for their parts."""
    yield path, layer
    for sublayer in layer._flatten_layers(include_self=False, recursive=False):
        yield from _sublayers(sublayer, f"{path}/{sublayer.name}")


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Vectors of positions that are not learned (Vaswani et al. 2017, 3.5).

    positions (...) float64, NumPy's or a tensor -> (..., width) float64.
    """
    xp = np if isinstance(positions, np.ndarray) else ops
    step = np.exp(-math.log(10000.0) * (np.arange(width) // 2 * 2) / width)
    angle = xp.expand_dims(positions, -1) * step
    even = np.arange(width) % 2 == 0
    return xp.where(even, xp.sin(angle), xp.cos(angle))
