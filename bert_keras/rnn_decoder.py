"""A recurrent decoder with attention, or without (Bahdanau et al. 2015).

Shapes: as in `decoders`.
"""

from typing import Any

import keras
from keras import ops

from bert_keras import attention_scores, layers
from bert_keras import recurrent_layers as recurrent
from bert_keras.decoders import Decoder, DecoderConfig, Source
from bert_keras.types import Shape, Tensor


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
