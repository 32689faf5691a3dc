"""The generator of replaced-token detection (ELECTRA, Clark et al. 2020)."""

import dataclasses
from typing import Any

import keras
from keras import ops

from bert_keras import errors, heads, layers
from bert_keras.networks import base, bert
from bert_keras.types import Shape, Tensor


def narrow(config: base.NetworkConfig, fraction: float) -> bert.BertConfig:
    """Returns the generator's network: that many layers, each `fraction` wide.

    Heads keep their width, and there is at least one (Clark et al. 2020,
    section 3.2 and table 6).

    InputError for networks other than BERT's, and for causal ones, which cannot
    see what follows a mask.
    """
    if not isinstance(config, bert.BertConfig) or config.causal:
        raise errors.InputError(
            "objective=replaced_tokens: expected a network of bidirectional "
            f"Transformer layers, such as model=mini; found {config.name}"
            f"{' with causal=true' * (config.name == 'bert')}.",
            argument="model",
        )
    num_heads = max(1, round(config.num_heads * fraction))
    return dataclasses.replace(
        config,
        num_heads=num_heads,
        hidden_size=num_heads * config.head_width,
        intermediate_size=max(1, round(config.intermediate_size * fraction)),
        embedding_size=config.embedding_width,
    )


class MaskGenerator(keras.layers.Layer):
    """Predicts masked tokens: Transformer layers on the encoder's embeddings.

    embeddings (B, S, H), mask (B, S, S) bool, positions (B, P) int32, table
    (V, E) -> logits (B, P, V), float32. `embeddings` and `mask` are those of
    `BertEncoder.start`, and `table` the encoder's token embeddings: sharing
    them is what Clark et al. found best (section 3.2).
    """

    def __init__(
        self, config: base.NetworkConfig, fraction: float, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.config = config
        self.narrow = own = narrow(config, fraction)
        dtype = self.dtype_policy
        self.project = layers.dense(
            own, own.hidden_size, name="project", dtype=dtype
        )
        self.blocks = bert.build_blocks(own, dtype)
        self.final_norm = None
        if own.norm_first:
            self.final_norm = layers.layer_norm(
                own, name="final_norm", dtype=dtype
            )
        self.predict = heads.MaskedLMHead(own, name="predict", dtype=dtype)

    def build(self, input_shape: Shape | None = None) -> None:
        self.project.build((None, None, self.config.hidden_size))
        for block in self.blocks:
            if not block.built:  # a shared block is in the list several times
                block.build()
        if self.final_norm:
            self.final_norm.build((None, None, self.narrow.hidden_size))
        self.predict.build()
        self.built = True

    def call(
        self,
        embeddings: Tensor,
        mask: Tensor,
        positions: Tensor,
        table: Tensor,
        training: bool | None = None,
    ) -> Tensor:
        x = self.project(embeddings)
        *first, last = self.blocks
        for block in first:
            x = block(x, mask, training=training)
        x = last(
            x,
            layers.gather(mask, positions),
            training=training,
            positions=positions,
        )
        if self.final_norm:
            x = self.final_norm(x)
        return self.predict(x, None, table, training=training)


def sample(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draws from softmax(logits): (B, P, V), uniform (B, P) -> (B, P) int32.

    uniform: in [0, 1), one number for each draw, whose token is the first with
      a cumulative probability above it.
    """
    ends = ops.cumsum(ops.softmax(logits, axis=-1), axis=-1)
    wanted = ops.expand_dims(uniform, -1) * ends[..., -1:]
    below = ops.sum(ops.cast(ends <= wanted, "int32"), axis=-1)
    return ops.minimum(below, logits.shape[-1] - 1)
