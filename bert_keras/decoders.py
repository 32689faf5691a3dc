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
    "embedding_sum",
    "position",
    "max_position_embeddings",
    "residual",
    "shared_query_key",
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
    embedding_sum: bool = True
    activation: str = "gelu"
    position: str = "sinusoidal"
    max_position_embeddings: int = 512
    residual: bool = True
    shared_query_key: bool = False  # in self-attention
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
    if kind != "transformer":
        values["embedding_sum"] = True  # it has no positions to concatenate
    if kind == "transformer" and width % values["num_heads"]:
        raise errors.InputError(
            f"decoder=transformer splits the {width} hidden units of the "
            f"encoder into {values['num_heads']} heads; expected a multiple. "
            "Choose a recurrent decoder, or another network.",
            argument="decoder",
        )
    if kind == "transformer" and isinstance(network, layers.TransformerConfig):
        _refuse_shared_sublayers(network)
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


def _refuse_shared_sublayers(network: layers.TransformerConfig) -> None:
    if network.shared_sublayers != "all":
        raise errors.InputError(
            "decoder=transformer has no groups of layers that could share "
            "sublayers, and the network has shared_sublayers="
            f"{network.shared_sublayers}. Choose a recurrent decoder, or a "
            "network without shared_sublayers.",
            argument="decoder",
        )


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
        config = self.config
        self.token_table = None
        if not config.shares_table:
            self.token_table = self._table("token", config.vocab_size)
        self.position_table = None
        if config.kind == "transformer" and config.position == "learned":
            self.position_table = self._table(
                "position", config.max_position_embeddings
            )
        self._build_layers(num_embeddings=2)
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
        if self.config.kind != "transformer":
            return self._combined(x, training=training)
        if self.config.position == "sinusoidal":
            # Vaswani et al. 2017, 3.4; the sinusoids are up to 1.
            x = x * math.sqrt(self.config.embedding_width)
        positions = self._position_embeddings(ops.shape(ids)[1], position_ids)
        return self._combined(x, positions, training=training)
