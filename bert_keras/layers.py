"""The layers of the encoder: embeddings, attention, feed-forward, block.

All sizes are in the configuration, so `build` needs no input shape. The
encoder builds its layers in its constructor: weights exist, have their names
and can be loaded before the first call.

Shapes: B batch, S sequence, H hidden, E embedding, N heads, D width of a head,
P positions to compute.
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


def _swiglu(x: Tensor) -> Tensor:
    """silu(a) * b of the halves a and b (Shazeer 2020, equation 5)."""
    gate, value = ops.split(x, 2, axis=-1)
    return ops.silu(gate) * value


ACTIVATIONS = {
    "gelu": lambda x: ops.gelu(x, approximate=False),
    "gelu_tanh": lambda x: ops.gelu(x, approximate=True),
    "relu": ops.relu,
    "swiglu": _swiglu,
}
# Those that halve the width, of the feed-forward layer alone.
GATED = ("swiglu",)

# Faster versions of activations, used in training only.
TRAINING_ACTIVATIONS = {"gelu": kernels.gelu}

# Added to the scores of masked positions, in float32. Finite, so that a row
# which attends to nothing (padding) gets a uniform distribution and not NaN.
MASKED_SCORE = -1e9


# The keys and values of a layer, (B, N, S, D) each.
Cache = tuple[Tensor, Tensor]


class TransformerConfig(base.NetworkConfig):
    """The fields that transformer layers read in addition to NetworkConfig's.

    BertConfig declares and describes them.
    """

    num_heads: int
    intermediate_size: int
    attention_dropout: float
    norm_first: bool
    embedding_norm: bool
    num_segments: int
    position: str
    max_position_embeddings: int
    token_rank: int | None = None
    embedding_sum: bool = True
    residual: bool = True
    shared_query_key: bool = False
    shared_sublayers: str = "all"
    num_task_types: int = 0
    task_type: int = 0

    @property
    def head_width(self) -> int:
        return self.hidden_size // self.num_heads


def attention_mask(padding_mask: Tensor, *, causal: bool = False) -> Tensor:
    """Builds the boolean attention mask.

    padding_mask (B, S) int32: 0 = padding, k = the k-th packed text
    -> (B, S, S) bool, indexed by query and key. A token attends only to
    tokens of its own packed text, and if `causal` only to itself and earlier
    ones.
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
    """An activation by its name in ACTIVATIONS.

    In training it is computed by its faster version, if it has one.
    """

    def __init__(self, name: str):
        self._inference = ACTIVATIONS[name]
        self._training = TRAINING_ACTIVATIONS.get(name, self._inference)

    def __call__(self, x: Tensor, *, training: bool | None = None) -> Tensor:
        return self._training(x) if training else self._inference(x)


def ungated(config: base.NetworkConfig) -> Activation:
    """Returns the activation for a head, gelu if the network's is gated."""
    name = config.activation
    return Activation("gelu" if name in GATED else name)


class Dropout(keras.layers.Dropout):
    """Keras' dropout with a faster implementation, `kernels.dropout`."""

    def call(self, inputs: Tensor, training: bool | None = False) -> Tensor:
        if not training or not self.rate:
            return inputs
        return kernels.dropout(inputs, self.rate, self.seed_generator.next())


class LayerNorm(keras.layers.LayerNormalization):
    """Keras' LayerNorm over the last axis, in float32 and with fewer ops."""

    def call(self, inputs: Tensor) -> Tensor:
        y = kernels.layer_norm(inputs, self.gamma, self.beta, self.epsilon)
        return ops.cast(y, self.compute_dtype)


class Embeddings(keras.layers.Layer):
    """Token + segment + position embeddings, normalised (BERT, figure 2).

    token_ids, segment_ids, position_ids (B, S) int32 -> (B, S, H).
    position_ids default to 0, 1, 2, ... in every row. A network with one
    segment takes no segment_ids; any other requires them. Without
    embedding_sum, the three are concatenated, (B, S, 3 E), and projected. With
    num_task_types, the fourth is that of config.task_type, for all tokens.
    With token_rank the token embeddings are the product of a table (V, R) and a
    matrix (R, E).

    The tables are float32 under every dtype policy, so that only the vectors
    of the batch are cast to it and not the whole table.
    """

    def __init__(self, config: TransformerConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.norm = None
        # Under norm_first each block normalises its own input.
        if config.embedding_norm and not config.norm_first:
            self.norm = layer_norm(config, name="norm", dtype="float32")
        self.dropout = Dropout(config.dropout, dtype="float32")
        self.combine = self.project = None
        if not config.embedding_sum:
            self.combine = self._to_hidden("combine")
        elif config.embedding_width != config.hidden_size:
            self.project = self._to_hidden("project")

    def _to_hidden(self, name: str) -> keras.layers.Dense:
        width, dtype = self.config.hidden_size, self.dtype_policy
        return dense(self.config, width, name=name, dtype=dtype)

    def build(self, input_shape: Shape | None = None) -> None:
        config = self.config
        self.token_table = self._table(
            "token", config.vocab_size, config.token_rank
        )
        self.token_map = None
        if config.token_rank:
            self.token_map = self._table("token_map", config.token_rank)
        self.segment_table = self._table("segment", config.num_segments)
        self.position_table = None
        if config.position == "learned":
            self.position_table = self._table(
                "position", config.max_position_embeddings
            )
        self.task_type_table = None
        if config.num_task_types:
            self.task_type_table = self._table(
                "task_type", config.num_task_types
            )
        self._build_layers(num_embeddings=4 if config.num_task_types else 3)
        self.built = True

    def _build_layers(self, *, num_embeddings: int) -> None:
        """Builds the layers for as many embeddings as `_combined` takes."""
        width = self.config.embedding_width
        if self.combine:
            self.combine.build((None, None, num_embeddings * width))
            width = self.config.hidden_size
        if self.norm:
            self.norm.build((None, None, width))
        if self.project:
            self.project.build((None, None, width))

    def _table(
        self, name: str, rows: int, width: int | None = None
    ) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=(rows, width or self.config.embedding_width),
            initializer=initializer(self.config),
            dtype="float32",
            autocast=False,
        )

    def token_embeddings(self) -> Tensor:
        """Returns those of all tokens, (V, E)."""
        return self._mapped(ops.convert_to_tensor(self.token_table))

    def _mapped(self, tokens: Tensor) -> Tensor:
        if self.token_map is None:
            return tokens
        return ops.matmul(tokens, ops.convert_to_tensor(self.token_map))

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
        if segment_ids is None:
            segments = ops.convert_to_tensor(self.segment_table)
        else:
            segments = ops.take(self.segment_table, segment_ids, axis=0)
        length = ops.shape(token_ids)[1]
        others = [segments, self._position_embeddings(length, position_ids)]
        if self.task_type_table is not None:
            table = ops.convert_to_tensor(self.task_type_table)
            others.append(table[self.config.task_type])
        tokens = self._mapped(ops.take(self.token_table, token_ids, axis=0))
        return self._combined(tokens, *others, training=training)

    def _combined(self, tokens, *others, training):
        """Combines embeddings (B, S, E), the others broadcast -> (B, S, H)."""
        if self.combine:
            shape = ops.shape(tokens)
            others = [ops.broadcast_to(each, shape) for each in others]
            x = self.combine(ops.concatenate([tokens, *others], axis=-1))
        else:
            x = sum(others, tokens)
        if self.norm:
            x = self.norm(x)
        x = self.dropout(x, training=training)
        x = ops.cast(x, self.compute_dtype)
        return self.project(x) if self.project else x

    def _position_embeddings(self, length, position_ids):
        """Returns position embeddings (S, E), or (B, S, E) if position_ids."""
        config = self.config
        if self.position_table is not None:
            table = ops.convert_to_tensor(self.position_table)
        elif isinstance(length, int) and length > 1:
            # S is static: a constant in the graph. Not for one token, the next
            # one of a text that is generated: its position may be any.
            count = max(length, config.max_position_embeddings)
            positions = np.arange(count, dtype="float64")
            table = self._sinusoids(positions)
        else:
            if position_ids is None:
                position_ids = ops.arange(length)
            return self._sinusoids(ops.cast(position_ids, "float64"))
        if position_ids is None:
            return table[:length]
        return ops.take(table, position_ids, axis=0)

    def _sinusoids(self, positions):
        config = self.config
        values = sinusoids(positions, config.embedding_width)
        if config.position == "sinusoidal_scaled":
            values = values * config.max_position_embeddings**-0.5
        return ops.cast(values, "float32")


class SelfAttention(keras.layers.Layer):
    """Scaled dot-product attention with N heads (Vaswani et al. 2017, 3.2).

    x (B, S, H), mask (B, 1 or S, S) bool -> (B S, H), flattened by `rows`.
    With `attentions` also the attention distributions (B, N, S, S), float32.
    With query_states (B, P, H), queries are computed from these instead of
    x: mask (B, 1 or P, S) -> (B P, H), (B, N, P, S).

    One matmul computes queries, keys and values: the kernel (H, 3 H) has the
    queries' columns first, then the keys', then the values'. With
    shared_query_key it is (H, 2 H): the queries are also the keys.
    """

    def __init__(self, config: TransformerConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        width, dtype = config.hidden_size, self.dtype_policy
        self.num_parts = 2 if config.shared_query_key else 3
        self.qkv = dense(
            config, self.num_parts * width, name="qkv", dtype=dtype
        )
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
        if query_states is None:
            query_states = x
            query, key, value = self.project(x)
        else:
            query, key, value = self._project_separately(query_states, x)
        context, attention = self._attend(query, key, value, mask, training)
        output = self.out(kernels.reshape_like(context, rows(query_states)))
        return (output, attention) if attentions else output

    def with_cache(
        self,
        x: Tensor,
        mask: Tensor,
        cache: Cache | None = None,
        position: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:
        """Computes `call` without dropout, and returns the keys and values.

        x (B, S, H), mask (B, S, S) -> (B S, H), 2 of (B, N, S, D). Or one more
        token, whose key and value are written into `cache` at its `position`
        (B,) int32: x (B, 1, H), mask (B, 1, T) -> (B, H), 2 of (B, N, T, D).
        """
        query, key, value = self.project(x)
        if cache is not None:
            key = written(cache[0], key, position)
            value = written(cache[1], value, position)
        context, _ = self._attend(query, key, value, mask, training=False)
        output = self.out(rows(ops.reshape(context, ops.shape(x))))
        return output, (key, value)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Computes queries, keys, values: (B, S, H) -> 3 of (B, N, S, D)."""
        heads, width = self.config.num_heads, self.config.head_width
        parts, qkv = self.num_parts, self.qkv(rows(x))
        qkv = ops.reshape(qkv, (-1, ops.shape(x)[1], parts, heads, width))
        qkv = ops.transpose(qkv, (2, 0, 3, 1, 4))  # (3 or 2, B, N, S, D)
        # Unstack, do not slice: the gradient of a slice is a zero-padded
        # tensor of the full size, and three of those would be added.
        return _query_key_value(ops.unstack(qkv, parts, axis=0))

    def _attend(self, query, key, value, mask, training):
        """Returns the context (B, P, N, D) and the distributions."""
        return attend(
            query, key, value, mask, dropout=self.dropout, training=training
        )

    def _project_separately(self, query_states, x):
        """Computes queries from query_states, keys and values from x.

        (B, P, H), (B, S, H) -> (B, N, P, D) and twice (B, N, S, D).
        """
        heads, width = self.config.num_heads, self.config.head_width
        if self.qkv.quantization_mode is not None:
            # A quantized kernel is integers, whose scales the layer applies.
            query, _, _ = self.project(query_states)
            return query, *self.project(x)[1:]
        # Split the kernel: calling self.qkv would also compute the queries
        # of all of x.
        kernel_parts, bias_parts = (
            _query_key_value(
                ops.split(ops.convert_to_tensor(each), self.num_parts, axis=-1)
            )
            for each in (self.qkv.kernel, self.qkv.bias)
        )
        projected = []
        for states, kernel, bias in zip(
            (query_states, x, x), kernel_parts, bias_parts, strict=True
        ):
            projection = ops.add(ops.matmul(rows(states), kernel), bias)
            projection = ops.reshape(
                projection, (-1, ops.shape(states)[1], heads, width)
            )
            projected.append(ops.transpose(projection, (0, 2, 1, 3)))
        return projected


def _query_key_value(parts):
    """Returns three parts of three; of two, the first is query and key."""
    *_, key, value = parts
    return parts[0], key, value


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    *,
    dropout: "Dropout",
    training: bool | None,
) -> tuple[Tensor, Tensor]:
    """Attends with N heads (Vaswani et al. 2017, equation 1).

    query (B, N, P, D), key and value (B, N, S, D), mask (B, 1 or P, S) bool ->
    context (B, P, N, D) and the distributions (B, N, P, S), float32.

    dropout: is applied to the distributions in training.
    """
    scale = 1.0 / math.sqrt(query.shape[-1])
    if training:
        # Scale the query before the matmul: float16 scores can overflow.
        scores = ops.cast(_attention_scores(query * scale, key), "float32")
    else:
        # On CPU, TensorFlow fuses matmul, scale and mask only in float32.
        query, key = ops.cast(query, "float32"), ops.cast(key, "float32")
        scores = _attention_scores(query, key) * scale
    mask_bias = ops.cast(ops.logical_not(mask), "float32") * MASKED_SCORE
    scores = scores + ops.expand_dims(mask_bias, 1)
    attention = ops.softmax(scores, axis=-1)  # (B, N, P, S)
    weights = ops.cast(attention, dropout.compute_dtype)
    context = ops.matmul(dropout(weights, training=training), value)
    return ops.transpose(context, (0, 2, 1, 3)), attention  # (B, P, N, D)


def written(cache: Tensor, value: Tensor, position: Tensor) -> Tensor:
    """Writes (B, N, 1, D) at each row's position into (B, N, T, D)."""
    positions = ops.arange(ops.shape(cache)[2], dtype="int32")
    here = ops.equal(positions, ops.expand_dims(position, 1))  # (B, T)
    here = ops.expand_dims(ops.expand_dims(here, 1), 3)  # (B, 1, T, 1)
    return ops.where(here, value, cache)


def _attention_scores(query, key):
    """Dot products: (B, N, P, D), (B, N, S, D) -> (B, N, P, S)."""
    return ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))


class FeedForward(keras.layers.Layer):
    """Two dense layers with an activation between: (B S, H) -> (B S, H).

    The input is flattened by `rows`.
    """

    def __init__(self, config: TransformerConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.activation = Activation(config.activation)
        inner, dtype = config.intermediate_size, self.dtype_policy
        if config.activation in GATED:
            inner *= 2
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

    x (B, S, H), mask (B, 1 or S, S) bool -> (B, S, H). With `attentions` also
    the attention distributions (B, N, S, S).

    With positions (B, P) int32 only the outputs at these positions are
    computed; they still attend to all S tokens: mask (B, 1 or P, S)
    -> (B, P, H), (B, N, P, S).

    group: another block of the same group, whose attention or feed-forward
      layer this one uses, with its LayerNorm (config.shared_sublayers). Its
      variables keep the path of the block that was built first.
    """

    def __init__(
        self,
        config: TransformerConfig,
        *,
        group: "Block | None" = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.config = config
        dtype = self.dtype_policy
        if group and config.shared_sublayers == "attention":
            self.attention: SelfAttention = group.attention
            self.attention_norm: LayerNorm = group.attention_norm
        else:
            self.attention = SelfAttention(
                config, name="attention", dtype=dtype
            )
            self.attention_norm = layer_norm(
                config, name="attention_norm", dtype=dtype
            )
        if group and config.shared_sublayers == "feed_forward":
            self.feed_forward: FeedForward = group.feed_forward
            self.feed_forward_norm: LayerNorm = group.feed_forward_norm
        else:
            self.feed_forward = FeedForward(
                config, name="feed_forward", dtype=dtype
            )
            self.feed_forward_norm = layer_norm(
                config, name="feed_forward_norm", dtype=dtype
            )
        self.dropout = Dropout(config.dropout, dtype=dtype)

    def build(self, input_shape: Shape | None = None) -> None:
        for layer in (
            self.attention,
            self.attention_norm,
            self.feed_forward,
            self.feed_forward_norm,
        ):
            if not layer.built:  # by another block of the group
                layer.build((None, None, self.config.hidden_size))
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
        x = self._add_sublayers(x, output, training)
        return (x, attention) if attentions else x

    def with_cache(
        self,
        x: Tensor,
        mask: Tensor,
        cache: Cache | None = None,
        position: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:
        """Computes `call` without dropout; see SelfAttention.with_cache."""
        sublayer_input = self.attention_norm(x) if self.config.norm_first else x
        output, cache = self.attention.with_cache(
            sublayer_input, mask, cache, position
        )
        return self._add_sublayers(x, output, training=False), cache

    def _add_sublayers(self, x, output, training):
        """Adds the attention's output (B S, H), then the feed-forward's."""
        norm_first = self.config.norm_first
        # Flatten: TensorFlow fuses matmul, bias and sum only for rank 2.
        shape, x = ops.shape(x), rows(x)
        output = self.dropout(output, training=training)
        x = x + output if self.config.residual else output
        x = x if norm_first else self.attention_norm(x)

        sublayer_input = self.feed_forward_norm(x) if norm_first else x
        output = self.feed_forward(sublayer_input, training=training)
        output = self.dropout(output, training=training)
        x = x + output if self.config.residual else output
        x = x if norm_first else self.feed_forward_norm(x)
        return ops.reshape(x, shape)


_skips_init = contextvars.ContextVar("skips_init", default=False)


@contextlib.contextmanager
def skip_init() -> Iterator[None]:
    """Initialises weight matrices with zeros, because they will be loaded.

    Drawing 110 million random numbers takes longer than reading the weights.
    """
    token = _skips_init.set(True)
    try:
        yield
    finally:
        _skips_init.reset(token)


def initializer(config: base.NetworkConfig) -> keras.Initializer:
    # Do not construct what is not used: that alone draws a seed, and later
    # weights would start as others.
    if _skips_init.get():
        return keras.initializers.Zeros()
    return keras.initializers.TruncatedNormal(stddev=config.initializer_range)


def unless_loaded(initializer: Any) -> Any:
    """Returns the initializer, or zeros inside `skip_init`.

    initializer: anything that Keras takes as one. A name or a function draws no
      seed until it is used.
    """
    return keras.initializers.Zeros() if _skips_init.get() else initializer


def dense(
    config: base.NetworkConfig, units: int, **kwargs: Any
) -> keras.layers.Dense:
    return keras.layers.Dense(
        units, kernel_initializer=initializer(config), **kwargs
    )


def rows(x: Tensor) -> Tensor:
    """Flattens batch and sequence: (B, S, H) -> (B S, H).

    TensorFlow fuses matmul, bias and GELU only for inputs of rank 2.
    """
    return ops.reshape(x, (-1, x.shape[-1]))


def gather(x: Tensor, positions: Tensor) -> Tensor:
    """Gathers each row's vectors at its own positions.

    x (B, S, H) of any width H, positions (B, P) int32 -> (B, P, H).
    """
    batch, length, width = ops.shape(x)
    offsets = ops.expand_dims(ops.arange(batch, dtype="int32") * length, 1)
    # Gather from the flattened batch: TFLite's gather takes the same indices
    # for all rows. Use `+`: ops.add treats (B, 1) as a bias of the columns if
    # B equals P (Keras 3.15).
    flat_positions = ops.cast(positions, "int32") + offsets
    return ops.take(ops.reshape(x, (-1, width)), flat_positions, axis=0)


def layer_norm(
    config: base.NetworkConfig,
    *,
    dtype: str | keras.DTypePolicy | None = None,
    **kwargs: Any,
) -> LayerNorm:
    """Returns a LayerNorm whose weights are float32 under every dtype policy.

    dtype: a Keras dtype policy; None: the global one.
    """
    compute = keras.dtype_policies.get(
        dtype or keras.config.dtype_policy()
    ).compute_dtype
    if compute in ("bfloat16", "float16"):
        dtype = f"mixed_{compute}"
    return LayerNorm(epsilon=config.layer_norm_epsilon, dtype=dtype, **kwargs)


@contextlib.contextmanager
def global_policy(policy: str | keras.DTypePolicy) -> Iterator[None]:
    """Sets Keras' global dtype policy inside a `with` block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def frozen(layer: keras.layers.Layer) -> list[str]:
    """Returns the paths of the layers within `layer` that are not trainable.

    `layer` itself is included. `freeze` takes these paths.
    """
    return [
        path
        for path, sublayer in _sublayers(layer)
        if sublayer.weights and not sublayer.trainable
    ]


def freeze(layer: keras.layers.Layer, paths: Collection[str]) -> None:
    """Freezes the layers at `paths` and makes all others trainable.

    paths: as `frozen` returns them.
    """
    for path, sublayer in _sublayers(layer):
        if sublayer.weights and sublayer.trainable != (path not in paths):
            sublayer.trainable = path not in paths


def _sublayers(layer, path=""):
    """Yields (path, layer) for a layer and all within it.

    Parents are first: Keras passes a parent's `trainable` on to its sublayers.
    """
    yield path, layer
    for sublayer in layer._flatten_layers(include_self=False, recursive=False):
        yield from _sublayers(sublayer, f"{path}/{sublayer.name}")


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Returns sinusoidal position embeddings (Vaswani et al. 2017, 3.5).

    positions (...) float64, an array or a tensor -> (..., width) float64.
    """
    xp = np if isinstance(positions, np.ndarray) else ops
    frequency = np.exp(-math.log(10000.0) * (np.arange(width) // 2 * 2) / width)
    angle = xp.expand_dims(positions, -1) * frequency
    even = np.arange(width) % 2 == 0
    return xp.where(even, xp.sin(angle), xp.cos(angle))
