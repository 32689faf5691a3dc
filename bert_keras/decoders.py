"""Decoders: layers that generate a text from an encoder's hidden states.

A decoder is a head: it is built from its configuration alone, and reads what
any encoder computes. `call` scores all positions of a given text at once, for
training; `step` scores the next token of each row, for generation. Both compute
the same logits.

Shapes: B batch, S source tokens, T target tokens, G maximum number of target
tokens, H hidden, E embedding, V target vocabulary, N heads, D width of a head.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import keras
from keras import ops

from bert_keras import attention_scores, errors, kernels, layers
from bert_keras import recurrent_layers as recurrent
from bert_keras.networks import base
from bert_keras.types import Shape, Tensor

KINDS = ("transformer", "lstm", "gru")
# How a recurrent decoder finds what it needs in the source.
ATTENTIONS = ("none", *attention_scores.SCORES)
FIRST_STATES = ("encoder", "zeros", "random")
_DEFAULT_ATTENTION = "additive"
_DEFAULT_FIRST_STATE = "encoder"
# Fields of an encoder's config that its decoder has too.
_OF_ALL = ("activation", "dropout", "initializer_range", "layer_norm_epsilon")
_OF_TRANSFORMERS = (
    "num_heads",
    "intermediate_size",
    "attention_dropout",
    "norm_first",
    "position",
    "max_position_embeddings",
)
_HEAD_WIDTH = 64  # of networks without heads; that of BERT and Vaswani et al.


class Source(NamedTuple):
    """What a decoder reads of the source text."""

    states: Tensor  # (B, S, H): the encoder's last hidden states
    mask: Tensor  # (B, S) bool: whether a position is a token
    vector: Tensor  # (B, H): the text's vector, `pooled`


@dataclasses.dataclass(frozen=True)
class DecoderConfig(layers.TransformerConfig):
    """The shape of a decoder. Its fields are those of BertConfig, and others.

    With `shares_table`, the token embeddings are the encoder's; otherwise the
    decoder has a table of its own. The output layer is always the same table
    (Press & Wolf 2017).
    """

    kind: str  # one of KINDS
    vocab_size: int
    hidden_size: int
    num_layers: int
    embedding_size: int  # E, the width of the table
    shares_table: bool = False
    attention: str = _DEFAULT_ATTENTION  # recurrent decoders: of ATTENTIONS
    first_state: str = _DEFAULT_FIRST_STATE  # the same: of FIRST_STATES
    num_heads: int = 1
    intermediate_size: int = 0
    norm_first: bool = False
    embedding_norm: bool = True
    activation: str = "gelu"
    position: str = "sinusoidal"
    max_position_embeddings: int = 512
    dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    layer_norm_epsilon: float = 1e-12

    num_segments = 1

    @property
    def embedding_width(self) -> int:
        return self.embedding_size

    @property
    def max_length(self) -> int | None:
        """The maximum number of target tokens; None: unlimited."""
        if self.kind == "transformer" and self.position == "learned":
            return self.max_position_embeddings
        return None


def config_for(
    network: base.NetworkConfig,
    *,
    kind: str = "transformer",
    num_layers: int = 0,
    vocab_size: int = 0,
    attention: str = _DEFAULT_ATTENTION,
    first_state: str = _DEFAULT_FIRST_STATE,
) -> DecoderConfig:
    """Returns the config of a decoder for an encoder of `network`.

    The decoder is as wide as the encoder. One of a Transformer has the heads,
    the activation, the positions and so on of the encoder's blocks; one of
    another network has sinusoidal positions.

    Args:
      num_layers: 0: as many as the encoder, or one if the decoder is recurrent.
      vocab_size: that of a target vocabulary; 0: the encoder's vocabulary,
        whose token embeddings are shared.
    """
    width = network.hidden_size
    values = {name: getattr(network, name) for name in _OF_ALL}
    if isinstance(network, layers.TransformerConfig):
        values |= {name: getattr(network, name) for name in _OF_TRANSFORMERS}
    else:
        values["num_heads"] = max(1, width // _HEAD_WIDTH)
        values["intermediate_size"] = 4 * width
        values["attention_dropout"] = network.dropout
    if kind == "transformer" and width % values["num_heads"]:
        raise errors.InputError(
            f"decoder=transformer splits the {width} hidden units of the "
            f"encoder into {values['num_heads']} heads; expected a multiple. "
            "Choose a recurrent decoder, or another network.",
            argument="decoder",
        )
    if not num_layers:
        num_layers = network.num_layers if kind == "transformer" else 1
    return DecoderConfig(
        kind=kind,
        vocab_size=vocab_size or network.vocab_size,
        hidden_size=width,
        num_layers=num_layers,
        embedding_size=width if vocab_size else network.embedding_width,
        shares_table=not vocab_size,
        attention=attention,
        first_state=first_state,
        **values,
    )


def build(config: DecoderConfig) -> "Decoder":
    """Returns the decoder of a config."""
    cls = TransformerDecoder if config.kind == "transformer" else RnnDecoder
    return cls(config)


class Decoder(keras.layers.Layer):
    """The interface of decoders, and what they share: embeddings and output."""

    def __init__(self, config: DecoderConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        dtype = self.dtype_policy
        self.embeddings = TargetEmbeddings(
            config, name="embeddings", dtype=dtype
        )
        self.project = None
        if config.embedding_width != config.hidden_size:
            self.project = layers.dense(
                config, config.embedding_width, name="project", dtype=dtype
            )

    def build(self, input_shape: Shape | None = None) -> None:
        self.embeddings.build()
        if self.project:
            self.project.build((None, self.config.hidden_size))
        self.bias = self.add_weight(
            name="bias",
            shape=(self.config.vocab_size,),
            initializer="zeros",
            dtype="float32",
            autocast=False,
        )
        self.built = True

    def call(
        self,
        ids: Tensor,
        source: Source,
        table: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        """Scores the token after each one: ids (B, T) -> (B, T, V) float32.

        table: (V, E), the encoder's token embeddings, if they are shared.
        """
        raise NotImplementedError

    def read_source(self, source: Source) -> Any:
        """Returns what `step` needs of the source, (B, ...).

        It does not change while a text is generated.
        """
        raise NotImplementedError

    def first_state(self, source: Source, max_length: int) -> dict[str, Any]:
        """Returns the state before the first step: a nest of (B, ...).

        max_length: the maximum number of steps. "attention" (B, S) float32 are
        the weights with which the last step read the source; 0 at first.
        """
        raise NotImplementedError

    def step(
        self,
        ids: Tensor,
        state: dict[str, Any],
        memory: Any,
        table: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Scores the token after ids (B,): -> (B, V) float32, new state.

        memory: the result of `read_source`.
        """
        raise NotImplementedError

    def _logits(self, x: Tensor, table: Tensor | None) -> Tensor:
        """Scores the vocabulary: (B, T, H) -> (B, T, V)."""
        shape = ops.shape(x)
        x = layers.rows(x)
        if self.project:
            x = self.project(x)
        table = ops.cast(self.embeddings.table(table), self.compute_dtype)
        x = ops.cast(x, self.compute_dtype)
        logits = ops.cast(kernels.matmul_transposed(x, table), "float32")
        logits = logits + self.bias
        return ops.reshape(logits, (*shape[:2], self.config.vocab_size))


class TargetEmbeddings(layers.Embeddings):
    """Embeddings of target tokens: ids (B, T) -> (B, T, H).

    With `shares_table` the table (V, E) is an argument. A recurrent decoder has
    no positions and no normalisation.
    """

    config: DecoderConfig

    def __init__(self, config: DecoderConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        if config.kind != "transformer":
            self.norm = None

    def build(self, input_shape: Shape | None = None) -> None:
        config, width = self.config, self.config.embedding_width
        self.token_table = None
        if not config.shares_table:
            self.token_table = self._table("token", config.vocab_size)
        self.position_table = None
        if config.kind == "transformer" and config.position == "learned":
            self.position_table = self._table(
                "position", config.max_position_embeddings
            )
        if self.norm:
            self.norm.build((None, None, width))
        if self.project:
            self.project.build((None, None, width))
        self.built = True

    def table(self, shared: Tensor | None) -> Tensor:
        """Returns the table (V, E) in use: the own one, or `shared`."""
        if self.token_table is None:
            return shared
        return ops.convert_to_tensor(self.token_table)

    def call(
        self,
        ids: Tensor,
        table: Tensor | None = None,
        position_ids: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        x = ops.cast(ops.take(self.table(table), ids, axis=0), "float32")
        if self.config.kind == "transformer":
            if self.config.position == "sinusoidal":
                # Vaswani et al. 2017, 3.4; the sinusoids are up to 1.
                x = x * math.sqrt(self.config.embedding_width)
            x = x + self._position_embeddings(ops.shape(ids)[1], position_ids)
        if self.norm:
            x = self.norm(x)
        x = self.dropout(x, training=training)
        x = ops.cast(x, self.compute_dtype)
        return self.project(x) if self.project else x


class CrossAttention(keras.layers.Layer):
    """Attention of target positions to the source (Vaswani et al. 2017, 3.2.3).

    x (B, T, H), keys and values of `read` (B, N, S, D), mask (B, 1, S) bool ->
    (B T, H), flattened by `layers.rows`, and weights (B, N, T, S) float32.
    """

    def __init__(self, config: DecoderConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        width, dtype = config.hidden_size, self.dtype_policy
        self.query = layers.dense(config, width, name="query", dtype=dtype)
        self.key_value = layers.dense(
            config, 2 * width, name="key_value", dtype=dtype
        )
        self.out = layers.dense(config, width, name="out", dtype=dtype)
        self.dropout = layers.Dropout(config.attention_dropout, dtype=dtype)

    def build(self, input_shape: Shape | None = None) -> None:
        for dense in (self.query, self.key_value, self.out):
            dense.build((None, None, self.config.hidden_size))
        self.built = True

    def read(self, states: Tensor) -> layers.Cache:
        """Computes keys and values: (B, S, H) -> 2 of (B, N, S, D)."""
        heads, width = self.config.num_heads, self.config.head_width
        both = self.key_value(layers.rows(states))
        shape = (-1, ops.shape(states)[1], 2, heads, width)
        both = ops.transpose(ops.reshape(both, shape), (2, 0, 3, 1, 4))
        key, value = ops.unstack(both, 2, axis=0)
        return key, value

    def call(
        self,
        x: Tensor,
        keys_values: layers.Cache,
        mask: Tensor,
        training: bool | None = None,
    ) -> tuple[Tensor, Tensor]:
        heads, width = self.config.num_heads, self.config.head_width
        query = self.query(layers.rows(x))
        query = ops.reshape(query, (-1, ops.shape(x)[1], heads, width))
        context, weights = layers.attend(
            ops.transpose(query, (0, 2, 1, 3)),
            *keys_values,
            mask,
            dropout=self.dropout,
            training=training,
        )
        output = self.out(kernels.reshape_like(context, layers.rows(x)))
        return output, weights


class DecoderBlock(keras.layers.Layer):
    """A decoder layer (Vaswani et al. 2017, 3.1).

    It is a Block, with the same names, that also reads the source, between its
    self-attention and its feed-forward layer.

    x (B, T, H), mask (1 or B, T, T) bool, the source's keys and values, and its
    mask (B, 1, S) -> (B, T, H).
    """

    def __init__(self, config: DecoderConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        dtype = self.dtype_policy
        self.attention = layers.SelfAttention(
            config, name="attention", dtype=dtype
        )
        self.cross_attention = CrossAttention(
            config, name="cross_attention", dtype=dtype
        )
        self.feed_forward = layers.FeedForward(
            config, name="feed_forward", dtype=dtype
        )
        self.attention_norm = layers.layer_norm(
            config, name="attention_norm", dtype=dtype
        )
        self.cross_attention_norm = layers.layer_norm(
            config, name="cross_attention_norm", dtype=dtype
        )
        self.feed_forward_norm = layers.layer_norm(
            config, name="feed_forward_norm", dtype=dtype
        )
        self.dropout = layers.Dropout(config.dropout, dtype=dtype)

    def build(self, input_shape: Shape | None = None) -> None:
        shape = (None, None, self.config.hidden_size)
        for layer in (
            self.attention,
            self.attention_norm,
            self.cross_attention,
            self.cross_attention_norm,
            self.feed_forward,
            self.feed_forward_norm,
        ):
            layer.build(shape)
        self.built = True

    def call(
        self,
        x: Tensor,
        mask: Tensor,
        keys_values: layers.Cache,
        source_mask: Tensor,
        training: bool | None = None,
    ) -> Tensor:
        output = self.attention(
            self._sublayer_input(x, self.attention_norm),
            mask,
            training=training,
        )
        x, _ = self._after_attention(
            x, output, keys_values, source_mask, training
        )
        return x

    def step(
        self,
        x: Tensor,
        mask: Tensor,
        keys_values: layers.Cache,
        source_mask: Tensor,
        cache: layers.Cache,
        position: Tensor,
    ) -> tuple[Tensor, layers.Cache, Tensor]:
        """Computes `call` for one more token, x (B, 1, H).

        cache: the keys and values of its own tokens, see
          SelfAttention.with_cache. Returns the output, the cache and the
          weights of the source (B, N, 1, S).
        """
        output, cache = self.attention.with_cache(
            self._sublayer_input(x, self.attention_norm), mask, cache, position
        )
        x, weights = self._after_attention(
            x, output, keys_values, source_mask, training=False
        )
        return x, cache, weights

    def _after_attention(self, x, output, keys_values, source_mask, training):
        shape, x = ops.shape(x), layers.rows(x)
        x = self._add(x, output, self.attention_norm, training)
        read = self._sublayer_input(x, self.cross_attention_norm)
        output, weights = self.cross_attention(
            ops.reshape(read, shape),
            keys_values,
            source_mask,
            training=training,
        )
        x = self._add(x, output, self.cross_attention_norm, training)
        output = self.feed_forward(
            self._sublayer_input(x, self.feed_forward_norm), training=training
        )
        x = self._add(x, output, self.feed_forward_norm, training)
        return ops.reshape(x, shape), weights

    def _sublayer_input(self, x, norm):
        return norm(x) if self.config.norm_first else x

    def _add(self, x, output, norm, training):
        x = x + self.dropout(output, training=training)
        return x if self.config.norm_first else norm(x)


class TransformerDecoder(Decoder):
    """The decoder of Vaswani et al. 2017, section 3.1."""

    def __init__(self, config: DecoderConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        self.blocks = [
            DecoderBlock(config, name=f"block_{number}", dtype=dtype)
            for number in range(config.num_layers)
        ]
        self.final_norm = None
        if config.norm_first:
            self.final_norm = layers.layer_norm(
                config, name="final_norm", dtype=dtype
            )

    def build(self, input_shape: Shape | None = None) -> None:
        super().build()
        for block in self.blocks:
            block.build()
        if self.final_norm:
            self.final_norm.build((None, None, self.config.hidden_size))

    def call(
        self,
        ids: Tensor,
        source: Source,
        table: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        x = self.embeddings(ids, table, training=training)
        position = ops.arange(ops.shape(ids)[1])
        # Later tokens are masked, so padding, which is at the end, needs none.
        mask = ops.expand_dims(
            ops.expand_dims(position, 1) >= ops.expand_dims(position, 0), 0
        )
        source_mask = ops.expand_dims(source.mask, 1)
        for block in self.blocks:
            keys_values = block.cross_attention.read(source.states)
            x = block(x, mask, keys_values, source_mask, training=training)
        if self.final_norm:
            x = self.final_norm(x)
        return self._logits(x, table)

    def read_source(self, source: Source) -> dict[str, Any]:
        return {
            "keys_values": [
                block.cross_attention.read(source.states)
                for block in self.blocks
            ],
            "mask": ops.expand_dims(source.mask, 1),
        }

    def first_state(self, source: Source, max_length: int) -> dict[str, Any]:
        config = self.config
        batch = ops.shape(source.mask)[0]
        shape = (batch, config.num_heads, max_length, config.head_width)
        empty = ops.zeros(shape, self.compute_dtype)
        return {
            "caches": [(empty, empty) for _ in self.blocks],
            "position": ops.zeros((batch,), "int32"),
            "attention": ops.zeros(ops.shape(source.mask), "float32"),
        }

    def step(
        self,
        ids: Tensor,
        state: dict[str, Any],
        memory: dict[str, Any],
        table: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        position = state["position"]
        x = self.embeddings(
            ops.expand_dims(ids, 1), table, ops.expand_dims(position, 1)
        )
        length = ops.shape(state["caches"][0][0])[2]
        mask = ops.arange(length, dtype="int32") <= ops.expand_dims(position, 1)
        mask = ops.expand_dims(mask, 1)  # (B, 1, G)
        caches = []
        for block, keys_values, cache in zip(
            self.blocks, memory["keys_values"], state["caches"], strict=True
        ):
            x, cache, weights = block.step(
                x, mask, keys_values, memory["mask"], cache, position
            )
            caches.append(cache)
        if self.final_norm:
            x = self.final_norm(x)
        return self._logits(x, table)[:, 0], {
            "caches": caches,
            "position": position + 1,
            # The heads' mean, in the last layer.
            "attention": ops.mean(weights, axis=1)[:, 0],
        }


class RnnDecoder(Decoder):
    """A recurrent decoder that attends to the source (Luong et al. 2015, 3).

    At each target position, the state h attends to all of the source's states;
    the context c beside it goes through a feed-forward layer, tanh(W [c; h])
    (equation 5), whose output scores the vocabulary. With attention "none", c
    is always the source's vector, as in Cho et al. 2014.
    """

    def __init__(self, config: DecoderConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, width = self.dtype_policy, config.hidden_size
        self.cells = [
            recurrent.Recurrent(
                config.kind, width, name=f"{config.kind}_{number}", dtype=dtype
            )
            for number in range(config.num_layers)
        ]
        self.attention = None
        if config.attention != "none":
            self.attention = attention_scores.Attention(
                config,
                score=config.attention,
                name="attention",
                dtype=dtype,
            )
        # One vector for each part of each layer's state.
        self.bridges = []
        if config.first_state == "encoder":
            self.bridges = [
                layers.dense(
                    config,
                    width,
                    activation="tanh",
                    name=f"bridge_{number}",
                    dtype=dtype,
                )
                for number in range(self._num_states())
            ]
        self.combine = layers.dense(
            config, width, activation="tanh", name="combine", dtype=dtype
        )
        self.dropout = layers.Dropout(config.dropout, dtype=dtype)

    def _num_states(self) -> int:
        return self.config.num_layers * (2 if self.config.kind == "lstm" else 1)

    def build(self, input_shape: Shape | None = None) -> None:
        super().build()
        width = self.config.hidden_size
        for cell in self.cells:
            cell.build((None, None, width))
        for bridge in self.bridges:
            bridge.build((None, width))
        if self.attention:
            self.attention.build()
        self.combine.build((None, 2 * width))
        if self.config.first_state == "random":
            # Drawn once: the same text must always get the same answer.
            self.state = self.add_weight(
                name="first_state",
                shape=(self._num_states(), width),
                initializer=layers.unless_loaded(
                    keras.initializers.RandomNormal(stddev=1.0)
                ),
                trainable=False,
            )

    def call(
        self,
        ids: Tensor,
        source: Source,
        table: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        x = self.embeddings(ids, table, training=training)
        for cell, state in zip(
            self.cells, self._first_states(source), strict=True
        ):
            x, _ = cell(x, state)
            x = self.dropout(x, training=training)
        context, _ = self._context(x, self.read_source(source))
        x = self.combine(ops.concatenate([context, x], axis=-1))
        return self._logits(self.dropout(x, training=training), table)

    def read_source(self, source: Source) -> dict[str, Any]:
        if self.attention is None:
            vector = ops.cast(source.vector, self.compute_dtype)
            return {"vector": ops.expand_dims(vector, 1)}
        return {
            "states": source.states,
            "keys": self.attention.project(source.states),
            "mask": source.mask,
        }

    def first_state(self, source: Source, max_length: int) -> dict[str, Any]:
        del max_length
        return {
            "cells": self._first_states(source),
            "attention": ops.zeros(ops.shape(source.mask), "float32"),
        }

    def step(
        self,
        ids: Tensor,
        state: dict[str, Any],
        memory: dict[str, Any],
        table: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        x = self.embeddings(ops.expand_dims(ids, 1), table)[:, 0]
        cells = []
        for cell, cell_state in zip(self.cells, state["cells"], strict=True):
            x, cell_state = cell.step(x, cell_state)
            cells.append(cell_state)
        x = ops.expand_dims(x, 1)
        context, weights = self._context(x, memory)
        x = self.combine(ops.concatenate([context, x], axis=-1))
        attention = state["attention"] if weights is None else weights[:, 0]
        return self._logits(x, table)[:, 0], {
            "cells": cells,
            "attention": attention,
        }

    def _context(self, x, memory):
        """Returns the context (B, T, H) and its weights (B, T, S) or None."""
        if self.attention is None:
            return ops.broadcast_to(memory["vector"], ops.shape(x)), None
        return self.attention(
            x, memory["states"], memory["mask"], keys=memory["keys"]
        )

    def _first_states(self, source):
        """Returns each layer's state, a tuple of (B, H)."""
        vector = ops.cast(source.vector, self.compute_dtype)
        if self.config.first_state == "encoder":
            parts = [bridge(vector) for bridge in self.bridges]
        elif self.config.first_state == "zeros":
            parts = [ops.zeros_like(vector)] * self._num_states()
        else:
            states = ops.cast(self.state, self.compute_dtype)
            parts = [
                ops.broadcast_to(states[number], ops.shape(vector))
                for number in range(self._num_states())
            ]
        count = len(parts) // len(self.cells)
        return [
            cell.as_state(parts[number * count : (number + 1) * count])
            for number, cell in enumerate(self.cells)
        ]


def copy_blocks(encoder: Any, decoder: TransformerDecoder) -> list[str]:
    """Copies the weights of the encoder's blocks into the decoder's.

    Rothe et al. 2020 (BERT2BERT): self-attention, feed-forward layers and
    LayerNorm, as far as both have them; attention to the source has no
    counterpart and stays as it is. With fewer decoder layers, the encoder's
    are taken at equal distances. The embeddings of positions are copied too;
    those of tokens are not, as a table of the decoder's own is for another
    vocabulary.

    Returns the paths of the decoder's variables that were assigned.
    """
    if not isinstance(decoder, TransformerDecoder) or not hasattr(
        encoder, "blocks"
    ):
        raise errors.InputError(
            "decoder_init=encoder copies the blocks of a Transformer, and the "
            "encoder or the decoder is none. Leave it out, or take "
            "decoder=transformer and a network such as BERT.",
            argument="decoder_init",
        )
    copied = []
    last = len(encoder.blocks) - 1
    for number, block in enumerate(decoder.blocks):
        share = number / max(1, len(decoder.blocks) - 1)
        original = encoder.blocks[math.floor(share * last + 0.5)]
        copied += _assign(block, original)
    copied += _assign(decoder.embeddings, encoder.embeddings)
    if decoder.final_norm and encoder.final_norm:
        copied += _assign(decoder.final_norm, encoder.final_norm)
    return copied


def _assign(layer: Any, original: Any) -> list[str]:
    """Assigns weights of equal names; a table may have fewer rows."""

    def by_name(each):
        start = len(each.path) + 1
        return {weight.path[start:]: weight for weight in each.weights}

    sources, copied = by_name(original), []
    for name, weight in by_name(layer).items():
        value = sources.get(name)
        # The tokens' table may be of another vocabulary.
        if value is None or name == "token" or "seed_generator" in name:
            continue
        value = ops.convert_to_tensor(value)
        if name == "position" and value.shape[0] >= weight.shape[0]:
            value = value[: weight.shape[0]]
        if value.shape == weight.shape:
            weight.assign(value)
            copied.append(weight.path)
    return copied
