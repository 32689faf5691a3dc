"""LSTM and GRU encoders over tokens, in one direction or in two.

Each layer reads the outputs of the layer below it, those of both directions
beside each other (Schuster & Paliwal 1997, Graves et al. 2013). In one
direction the network is causal: it can learn and continue texts as a language
model.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from bert_keras import errors, layers, recurrent_layers
from bert_keras.networks import base
from bert_keras.types import Shape, Tensor

# Far above any network's: a larger number is an error in a file.
_MOST, _MOST_LAYERS = 2**31 - 1, 1000


@dataclasses.dataclass(frozen=True)
class RnnConfig(base.NetworkConfig):
    """The shape of a recurrent encoder.

    >>> from bert_keras.networks import rnn
    >>> config = rnn.RnnConfig(vocab_size=100, hidden_size=16, cell="gru")
    >>> config.units, sorted(config.inputs)
    (8, ['padding_mask', 'token_ids'])
    """

    vocab_size: int
    hidden_size: int  # the width of both directions together
    num_layers: int = 1
    cell: str = "lstm"  # lstm or gru
    bidirectional: bool = True
    # Of each layer's input (Zaremba et al. 2015); heads drop the last output.
    dropout: float = 0.1
    # Of embeddings and heads. Kernels start as Keras' layers, by Glorot &
    # Bengio 2010 and as orthogonal matrices.
    initializer_range: float = 0.05
    layer_norm_epsilon: float = 1e-12

    activation = "gelu"  # of heads

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_layers"):
            if not 1 <= getattr(self, name) <= _MOST:
                raise errors.InputError(
                    f"{name} is {getattr(self, name)}; expected a whole number "
                    f"from 1 to {_MOST:,}."
                )
        if self.num_layers > _MOST_LAYERS:
            raise errors.InputError(
                f"num_layers is {self.num_layers:,}; expected at most "
                f"{_MOST_LAYERS:,}."
            )
        if self.cell not in recurrent_layers.CELLS:
            raise errors.InputError(
                f"cell must be one of {', '.join(recurrent_layers.CELLS)}; got "
                f"{self.cell!r}."
            )
        if self.hidden_size % len(self.directions):
            raise errors.InputError(
                f"hidden_size is {self.hidden_size}, which two directions "
                "share; expected an even number, or bidirectional=False."
            )
        if not 0 <= self.dropout < 1:
            raise errors.InputError(
                f"dropout is {self.dropout}; expected a share from 0 up to, "
                "but not, 1."
            )
        if self.layer_norm_epsilon <= 0 or self.initializer_range < 0:
            raise errors.InputError(
                f"layer_norm_epsilon is {self.layer_norm_epsilon} and "
                f"initializer_range {self.initializer_range}; expected more "
                "than 0, and 0 or more."
            )

    @property
    def directions(self) -> tuple[str, ...]:
        """The names of the directions, in the order of their outputs."""
        return ("forward", "backward")[: 1 + self.bidirectional]

    @property
    def units(self) -> int:
        """D, the width of a direction."""
        return self.hidden_size // len(self.directions)

    @property
    def causal(self) -> bool:
        """Whether a state depends on no later token."""
        return not self.bidirectional

    @property
    def inputs(self) -> Mapping[str, tuple[int, ...]]:
        return {"token_ids": (), "padding_mask": ()}

    @property
    def max_length(self) -> int | None:
        return None

    def build_encoder(self) -> "RnnEncoder":
        return RnnEncoder(self)

    def check_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        gates = {"lstm": 4, "gru": 3}[self.cell]
        expected: dict[str, tuple[int, ...] | None] = {
            "embeddings/token": (self.vocab_size, self.hidden_size),
            "layer_0/forward/recurrent_kernel": (
                self.units,
                gates * self.units,
            ),
            "layer_0/backward/recurrent_kernel": None,
        }
        if self.bidirectional:
            expected["layer_0/backward/recurrent_kernel"] = (
                self.units,
                gates * self.units,
            )
        blocks = {path.split("/")[0] for path in shapes if "layer_" in path}
        for name, shape in expected.items():
            if shapes.get(name) != shape or self.num_layers != len(blocks):
                raise errors.InputError(
                    f"does not fit the model: {name} is {shapes.get(name)} "
                    f"there and {shape} in the model, with {len(blocks)} "
                    f"layers there and {self.num_layers} in the model."
                )

    def layer_index(self, path: str) -> int:
        top, *rest = path.split("/")
        part = rest[0] if rest and top != "head" else ""
        if part == "embeddings":
            return 0
        layer = re.fullmatch(r"layer_(\d+)", part)
        return int(layer[1]) + 1 if layer else self.num_layers + 1

    def describe(self) -> str:
        cell = self.cell.upper()
        kind = f"bidirectional {cell}" if self.bidirectional else cell
        return (
            f"{self.num_layers} {kind} layers x {self.hidden_size}, "
            f"vocabulary {self.vocab_size:,}"
        )


# name: the fields that differ from RnnConfig's defaults. mini and small are as
# wide as BERT's; a BiLSTM of two layers is that of Huang et al. 2015 and later
# taggers.
SIZES: Mapping[str, Mapping[str, Any]] = {
    "lstm_mini": {"hidden_size": 256, "bidirectional": False},
    "bilstm_mini": {"hidden_size": 256},
    "gru_mini": {"hidden_size": 256, "bidirectional": False, "cell": "gru"},
    "bigru_mini": {"hidden_size": 256, "cell": "gru"},
    "bilstm_small": {"hidden_size": 512},
}


def named(name: str, *, vocab_size: int) -> RnnConfig:
    """Returns the config of a size in SIZES; all have 2 layers."""
    return RnnConfig(vocab_size=vocab_size, num_layers=2, **SIZES[name])


class TokenEmbeddings(keras.layers.Layer):
    """The embeddings of tokens, (B, S) int32 -> (B, S, H).

    The table is float32 under every dtype policy, so that only the vectors of
    the batch are cast to it and not the whole table.
    """

    def __init__(self, config: RnnConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config

    def build(self, input_shape: Shape | None = None) -> None:
        self.table = self.add_weight(
            name="token",
            shape=(self.config.vocab_size, self.config.hidden_size),
            initializer=layers.initializer(self.config),
            dtype="float32",
            autocast=False,
        )
        self.built = True

    def call(self, token_ids: Tensor) -> Tensor:
        x = ops.take(self.table, token_ids, axis=0)
        return ops.cast(x, self.compute_dtype)


class RnnLayer(keras.layers.Layer):
    """One recurrent layer, of all directions: (B, S, H) -> (B, S, H).

    masks: the padding mask (B, S), and if there are two directions also the
    reversed one; order (B, S) int32, which reverses each row's tokens. Outputs
    are 0 at padding.
    """

    def __init__(self, config: RnnConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.directions = [
            recurrent_layers.Recurrent(
                config.cell, config.units, name=name, dtype=self.dtype_policy
            )
            for name in config.directions
        ]

    def build(self, input_shape: Shape | None = None) -> None:
        for direction in self.directions:
            direction.build((None, None, self.config.hidden_size))
        self.built = True

    def call(
        self,
        x: Tensor,
        masks: tuple[Tensor, ...],
        order: Tensor,
        training: bool | None = None,
    ) -> Tensor:
        outputs, _ = self.directions[0](x, mask=masks[0], training=training)
        if len(self.directions) == 1:
            return outputs
        # From each row's last token to its first, and back in their order.
        backward, _ = self.directions[1](
            layers.gather(x, order), mask=masks[1], training=training
        )
        backward = layers.gather(backward, order)
        return ops.concatenate([outputs, backward], axis=-1)


@keras.saving.register_keras_serializable("bert_keras")
class RnnEncoder(keras.Model):
    """A recurrent encoder (Schuster & Paliwal 1997, Graves et al. 2013).

    token_ids, padding_mask (B, S) int32 ->
      "hidden": L + 1 tensors (B, S, H): the embeddings, then each layer's
        outputs, those of the forward direction before those of the backward
        one; 0 at padding;
      "pooled": (B, H): the last token's forward output, beside the first
        token's backward output; each has read the whole row.

    Padding is at the end of a row, and no state runs over it. padding_mask is k
    on the k-th packed text; each text starts with the state 0, in both
    directions.
    """

    def __init__(self, config: RnnConfig, name: str = "encoder", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.config = config
        dtype = self.dtype_policy
        if dtype.compute_dtype == "float64":
            raise errors.InputError(
                "the dtype policy is float64, but the cells are float32; take "
                "float32 or a 16-bit policy."
            )
        self.embeddings = TokenEmbeddings(
            config, name="embeddings", dtype=dtype
        )
        self.rnn_layers = [
            RnnLayer(config, name=f"layer_{layer}", dtype=dtype)
            for layer in range(config.num_layers)
        ]
        self.dropout = layers.Dropout(config.dropout, dtype=dtype)
        self.build()

    def build(self, input_shape: Shape | None = None) -> None:
        self.embeddings.build()
        for layer in self.rnn_layers:
            layer.build()
        self.built = True

    @property
    def token_table(self) -> Tensor:
        """The token embeddings (V, E), for heads that share them."""
        return ops.convert_to_tensor(self.embeddings.table)

    def call(
        self,
        *,
        token_ids: Tensor,
        padding_mask: Tensor,
        position_ids: Tensor | None = None,
        training: bool | None = None,
    ) -> dict[str, Any]:
        del position_ids  # the order of the tokens is all that is read
        order = recurrent_layers.reversed_order(padding_mask)
        masks = padding_mask, recurrent_layers.reorder(padding_mask, order)
        x = self.embeddings(token_ids)
        real = ops.expand_dims(ops.greater(padding_mask, 0), -1)
        hidden = [x * ops.cast(real, x.dtype)]
        for layer in self.rnn_layers:
            x = self.dropout(hidden[-1], training=training)
            hidden.append(layer(x, masks, order, training=training))
        return {"hidden": hidden, "pooled": self._pool(hidden[-1], real)}

    def _pool(self, x, real):
        """Returns "pooled" of the last outputs (B, S, H), real (B, S, 1)."""
        count = ops.sum(ops.cast(real, "int32"), axis=1)  # (B, 1)
        last = layers.gather(x, ops.maximum(count - 1, 0))[:, 0]
        units = self.config.units
        return ops.concatenate([last[:, :units], x[:, 0, units:]], axis=-1)

    def read_prompts(
        self, *, token_ids: Tensor, padding_mask: Tensor, max_new_tokens: int
    ) -> tuple[Tensor, list[recurrent_layers.State]]:
        """Reads all but the last token of each row, for kv_cache.read_prompts.

        Only in one direction. The state is that of each layer.
        """
        del max_new_tokens  # a state has one size
        ones = ops.cast(ops.greater(padding_mask, 0), "int32")
        last = ops.maximum(ops.sum(ones, axis=1, keepdims=True) - 1, 0)
        position = ops.arange(ops.shape(ones)[1], dtype="int32")
        mask = ops.cast(position < last, "int32")
        states, x = [], self.embeddings(token_ids)
        for layer in self.rnn_layers:
            x, state = layer.directions[0](x, mask=mask)
            states.append(state)
        return recurrent_layers.reorder(token_ids, last)[:, 0], states

    def step(
        self, ids: Tensor, states: list[recurrent_layers.State]
    ) -> tuple[Tensor, list[recurrent_layers.State]]:
        """Reads one more token of each row, for kv_cache.step.

        ids (B,) int32, states -> hidden (B, 1, H) of the last layer, states.
        """
        after, x = [], self.embeddings(ids)
        for layer, state in zip(self.rnn_layers, states, strict=True):
            x, state = layer.directions[0].step(x, state)
            after.append(state)
        return ops.expand_dims(x, 1), after

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "config": self.config.to_dict(),
            "frozen": layers.frozen(self),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "RnnEncoder":
        encoder = cls(
            RnnConfig.from_dict(config["config"]),
            name=config["name"],
            dtype=config["dtype"],
        )
        layers.freeze(encoder, config.get("frozen", ()))
        return encoder
