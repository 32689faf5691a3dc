"""The decoder of the Transformer (Vaswani et al. 2017, section 3.1).

Shapes: as in `decoders`.
"""

import math
from typing import Any

import keras
from keras import ops

from bert_keras import errors, kernels, layers
from bert_keras.decoders import Decoder, DecoderConfig, Source
from bert_keras.types import Shape, Tensor


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
        output = self.dropout(output, training=training)
        x = x + output if self.config.residual else output
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
