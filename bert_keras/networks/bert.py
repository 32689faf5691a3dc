"""BERT and its relatives: the configuration, published sizes, the encoder.

ALBERT, a causal decoder or a small student are not classes of their own, but
values of BertConfig.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import keras
from keras import ops

from bert_keras import errors, layers, options, placement
from bert_keras.types import Shape, Tensor

POSITIONS = ("learned", "sinusoidal", "sinusoidal_scaled")
SHARED_SUBLAYERS = ("all", "attention", "feed_forward")
# Far above any network's: a larger number is an error in a file.
_MOST, _MOST_LAYERS = 2**31 - 1, 10_000
# Fields that `to_dict` leaves out at their default: earlier versions can read
# the files of networks that do not need them.
_LATER = (
    "token_rank",
    "embedding_sum",
    "shared_query_key",
    "shared_sublayers",
    "num_task_types",
    "task_type",
)
_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_layers",
    "num_heads",
    "intermediate_size",
    "embedding_size",
    "token_rank",
    "max_position_embeddings",
    "num_segments",
)


@dataclasses.dataclass(frozen=True)
class BertConfig(layers.TransformerConfig):
    """The shape of a BERT; its fields can be combined freely.

    Every field is used here or in layers.py.

    >>> config = bert_keras.BertConfig(
    ...     vocab_size=30522, hidden_size=128, num_layers=2, num_heads=2,
    ...     intermediate_size=512)
    >>> config.build_encoder().count_params()
    4385920
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    # Groups of neighbouring layers that share weights: None = no layers share,
    # 1 = all do (ALBERT).
    num_hidden_groups: int | None = None
    # None = hidden_size; another size is projected to hidden_size (ALBERT).
    embedding_size: int | None = None
    # None = a table (vocab_size, embedding_size); otherwise it is the product
    # of one with so many columns and a matrix, as `convert --token_rank` makes
    # it. What follows is unlike embedding_size's, which all embeddings have.
    token_rank: int | None = None
    max_position_embeddings: int = 512
    num_segments: int = 2  # 1: the encoder takes no segment_ids
    causal: bool = False  # each token attends only to itself and earlier ones
    # True: pre-LN, which normalises each sublayer's input and the last output
    # (Xiong et al. 2020). False: post-LN, after each residual sum.
    norm_first: bool = False
    embedding_norm: bool = True  # LayerNorm after the embeddings; GPT has none
    # A dense layer with tanh on the pooled token; without it, as in GPT, heads
    # read its hidden state (Radford et al. 2018, equation 3).
    pooler: bool = True
    # gelu (erf), gelu_tanh (Google's code), relu, or swiglu, whose feed-forward
    # layer has a second kernel of the same size (Shazeer 2020).
    activation: str = "gelu"
    # "learned", or "sinusoidal" for any length (Vaswani et al. 2017, 3.5);
    # "sinusoidal_scaled": multiplied by max_position_embeddings^-0.5, so that
    # they are not much larger than the token embeddings.
    position: str = "learned"
    # False, for experiments: in place of the sum, token, segment and position
    # embeddings are concatenated and projected to hidden_size.
    embedding_sum: bool = True
    # False, for experiments: a sublayer's output replaces its input, to which
    # it is added otherwise.
    residual: bool = True
    # True: one projection gives the queries and the keys (Reformer, Kitaev et
    # al. 2020, section 2, without the normalisation of its keys).
    shared_query_key: bool = False
    # What the layers of a group share: "all", or "attention" or "feed_forward"
    # alone (ALBERT, 4.4). Each LayerNorm belongs to its sublayer.
    shared_sublayers: str = "all"
    # Rows of a table of task types (ERNIE 2.0, Sun et al. 2020, 3.1); 0 = no
    # table. The row `task_type` is added to the embeddings of all tokens.
    num_task_types: int = 0
    task_type: int = 0
    dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    layer_norm_epsilon: float = 1e-12

    def __post_init__(self) -> None:
        for name in _SIZES:
            value = getattr(self, name)
            if value is not None and not 1 <= value <= _MOST:
                raise errors.InputError(
                    f"{name} is {value}; expected a whole number from 1 to "
                    f"{_MOST:,}."
                )
        if self.num_layers > _MOST_LAYERS:
            raise errors.InputError(
                f"num_layers is {self.num_layers:,}; expected at most "
                f"{_MOST_LAYERS:,}."
            )
        if self.layer_norm_epsilon <= 0 or self.initializer_range < 0:
            raise errors.InputError(
                f"layer_norm_epsilon is {self.layer_norm_epsilon} and "
                f"initializer_range {self.initializer_range}; expected more "
                "than 0, and 0 or more."
            )
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise errors.InputError(
                    f"{name} is {getattr(self, name)}; expected a share from "
                    "0 up to, but not, 1."
                )
        if self.hidden_size % self.num_heads:
            raise errors.InputError(
                f"hidden_size {self.hidden_size} is not a multiple of "
                f"num_heads {self.num_heads}; change one of them."
            )
        if not 0 <= self.num_task_types <= _MOST or not (
            0 <= self.task_type < max(1, self.num_task_types)
        ):
            raise errors.InputError(
                f"num_task_types is {self.num_task_types} and task_type "
                f"{self.task_type}; expected 0 or more task types, and one of "
                "them, counted from 0."
            )
        if self.token_rank and self.token_rank >= self.embedding_width:
            raise errors.InputError(
                f"token_rank is {self.token_rank}; expected less than the "
                f"width of the embeddings, {self.embedding_width}, or none."
            )
        groups = self.num_hidden_groups
        if groups is not None and not 1 <= groups <= self.num_layers:
            raise errors.InputError(
                f"num_hidden_groups must be in 1..{self.num_layers} "
                f"(num_layers), got {groups}."
            )
        _one_of("activation", self.activation, tuple(layers.ACTIVATIONS))
        _one_of("position", self.position, POSITIONS)
        _one_of("shared_sublayers", self.shared_sublayers, SHARED_SUBLAYERS)
        if self.shared_sublayers != "all" and groups is None:
            raise errors.InputError(
                f"shared_sublayers={self.shared_sublayers} has no effect "
                "without groups of layers; give num_hidden_groups, 1 for a "
                "single group."
            )

    @property
    def embedding_width(self) -> int:
        return self.embedding_size or self.hidden_size

    @property
    def inputs(self) -> Mapping[str, tuple[int, ...]]:
        segments = {"segment_ids": ()} if self.num_segments > 1 else {}
        return {"token_ids": (), **segments, "padding_mask": ()}

    @property
    def max_length(self) -> int | None:
        """The size of the learned position table; None if sinusoidal."""
        if self.position == "learned":
            return self.max_position_embeddings
        return None

    def group(self, layer: int) -> int:
        """Returns the index of the group that `layer` is in."""
        groups = self.num_hidden_groups or self.num_layers
        return layer * groups // self.num_layers

    def block(self, layer: int) -> int:
        """Returns the index of the distinct block that is used at `layer`.

        That of the group, whose layers are one block if they share everything.
        """
        return self.group(layer) if self.shared_sublayers == "all" else layer

    @property
    def num_blocks(self) -> int:
        """The number of distinct blocks."""
        return 1 + self.block(self.num_layers - 1)

    def to_dict(self) -> dict[str, Any]:
        return options.without_defaults(super().to_dict(), self, _LATER)

    def build_encoder(self) -> "BertEncoder":
        return BertEncoder(self)

    def check_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        name = "embeddings/token"
        width = self.token_rank or self.embedding_width
        expected = (self.vocab_size, width)
        blocks = {path.split("/")[0] for path in shapes if "block_" in path}
        if (
            shapes.get(name) != expected
            or self.num_blocks > 10 * len(blocks) + 10
        ):
            raise errors.InputError(
                f"does not fit the model: {name} is {shapes.get(name)} there "
                f"and {expected} in the model, with {len(blocks)} blocks there "
                f"and {self.num_blocks} in the model."
            )

    def layer_index(self, path: str) -> int:
        top, *rest = path.split("/")
        part = rest[0] if rest and top != "head" else ""
        if part == "embeddings":
            return 0
        block = re.fullmatch(r"block_(\d+)", part)
        if block is None:
            return self.num_layers + 1
        layers_ = range(self.num_layers)
        return 1 + [self.block(layer) for layer in layers_].index(int(block[1]))

    def describe(self) -> str:
        return (
            f"{self.num_layers} layers x {self.hidden_size}, "
            f"{self.num_heads} heads, vocabulary {self.vocab_size:,}"
        )


# name: (layers, hidden, heads, intermediate). base and large are from Devlin et
# al. 2019, section 3; the others from Turc et al. 2019, table 1.
SIZES = {
    "tiny": (2, 128, 2, 512),
    "mini": (4, 256, 4, 1024),
    "small": (4, 512, 8, 2048),
    "medium": (8, 512, 8, 2048),
    "base": (12, 768, 12, 3072),
    "large": (24, 1024, 16, 4096),
}

# Sizes of ALBERT: albert_base is from Lan et al. 2020, table 1; albert_mini has
# the size of mini.
ALBERT_SIZES = {"albert_base": SIZES["base"], "albert_mini": SIZES["mini"]}
# What makes BERT an ALBERT (section 3.1): all layers share their weights.
ALBERT: dict[str, Any] = {"num_hidden_groups": 1, "embedding_size": 128}

# Sizes of GPT: gpt is from Radford et al. 2018, section 4.1; gpt_mini has the
# size of mini.
GPT_SIZES = {"gpt": SIZES["base"], "gpt_mini": SIZES["mini"]}
# What makes BERT a GPT. The epsilon is that of OpenAI's code.
GPT: dict[str, Any] = {
    "causal": True,
    "embedding_norm": False,
    "num_segments": 1,
    "activation": "gelu_tanh",
    "layer_norm_epsilon": 1e-5,
    "pooler": False,
}

# Sizes of the Transformer's encoder: transformer_base is that of Vaswani et al.
# 2017, table 3; transformer_mini has the size of mini.
TRANSFORMER_SIZES = {
    "transformer_base": (6, 512, 8, 2048),
    "transformer_mini": SIZES["mini"],
}
# What makes BERT that encoder: section 3.1 to 3.5 and 5.4. It has no dropout of
# attention distributions. The epsilon is tensor2tensor's, and so is the
# initializer_range, hidden_size^-0.5. One thing differs, as BertConfig has no
# such field: the paper multiplies the token embeddings by sqrt(hidden_size)
# before it adds the positions (section 3.4). Here they start smaller than the
# positions by that factor.
TRANSFORMER: dict[str, Any] = {
    "position": "sinusoidal",
    "embedding_norm": False,
    "num_segments": 1,
    "activation": "relu",
    "attention_dropout": 0.0,
    "layer_norm_epsilon": 1e-6,
    "pooler": False,
}
NAMES = (*SIZES, *ALBERT_SIZES, *GPT_SIZES, *TRANSFORMER_SIZES)

UNCASED_ENGLISH = 30522  # size of Google's uncased English vocabulary


def named(name: str, *, vocab_size: int = UNCASED_ENGLISH) -> BertConfig:
    """Returns the config of a published size, with another vocabulary.

    name: one of NAMES.
    """
    _one_of("model", name, NAMES)
    sizes = SIZES | ALBERT_SIZES | GPT_SIZES | TRANSFORMER_SIZES
    layers, hidden_size, heads, intermediate = sizes[name]
    more: Mapping[str, Any] = {}
    if name in ALBERT_SIZES:
        more = ALBERT
    elif name in GPT_SIZES:
        more = GPT
    elif name in TRANSFORMER_SIZES:
        more = TRANSFORMER | {"initializer_range": hidden_size**-0.5}
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=layers,
        num_heads=heads,
        intermediate_size=intermediate,
        **more,
    )


@keras.saving.register_keras_serializable("bert_keras")
class BertEncoder(keras.Model):
    """The BERT encoder (Devlin et al. 2019, section 3).

    token_ids, segment_ids, padding_mask (B, S) int32 ->
      "hidden": L + 1 tensors (B, S, H): the embeddings, then each layer;
      "pooled": (B, H), a dense layer with tanh of the first token's last
        hidden state, or in a causal network of the last token's; without a
        pooler, that state itself;
      "attentions": L tensors (B, N, S, S) float32, if requested.

    With positions_read (B, P) int32 the last layer is computed only at these
    positions: the last of "hidden" is (B, P, H) and the last of "attentions"
    (B, N, P, S). "pooled" is the same as without, and "positions_read" is
    returned as well.

    padding_mask is 0 on padding and k on the k-th packed text of a row; packed
    texts do not attend to each other. A network with one segment takes no
    segment_ids. `call` runs `start`, the blocks but the last, then `run_last`,
    which ends with `finish`.

    >>> encoder = bert_keras.load("runs/base").model.encoder
    >>> tokens = [[2, 5, 6, 3]]
    >>> outputs = encoder(
    ...     token_ids=np.array(tokens), segment_ids=np.zeros((1, 4), "int32"),
    ...     padding_mask=np.ones((1, 4), "int32"))
    >>> outputs["hidden"][-1].shape, outputs["pooled"].shape
    (TensorShape([1, 4, 16]), TensorShape([1, 16]))
    """

    def __init__(
        self, config: BertConfig, name: str = "encoder", **kwargs: Any
    ):
        super().__init__(name=name, **kwargs)
        self.config = config
        self.devices = placement.current()
        dtype = self.dtype_policy
        if dtype.compute_dtype == "float64":
            raise errors.InputError(
                "the dtype policy is float64, but softmax and LayerNorm "
                "compute in float32; take float32 or a 16-bit policy."
            )
        with self.on_device_of(0):
            self.embeddings = layers.Embeddings(
                config, name="embeddings", dtype=dtype
            )
        self.blocks = build_blocks(config, dtype, self.devices)
        self.final_norm = None
        if config.norm_first:
            self.final_norm = layers.layer_norm(
                config, name="final_norm", dtype=dtype
            )
        self.pooler = None
        if config.pooler:
            self.pooler = layers.dense(
                config,
                config.hidden_size,
                activation="tanh",
                name="pooler",
                dtype=dtype,
            )
        self.build()

    def on_device_of(self, layer: int) -> AbstractContextManager[object]:
        """Returns the context of a layer's device; see `placement.on`."""
        return placement.on(self.devices, layer)

    def build(self, input_shape: Shape | None = None) -> None:
        with self.on_device_of(0):
            self.embeddings.build()
        for number, block in enumerate(self.blocks, start=1):
            if not block.built:  # a shared block is in the list several times
                with self.on_device_of(number):
                    block.build()
        with self.on_device_of(-1):
            if self.final_norm:
                self.final_norm.build((None, None, self.config.hidden_size))
            if self.pooler:
                self.pooler.build((None, self.config.hidden_size))
        self.built = True

    def start(
        self,
        *,
        token_ids: Tensor,
        padding_mask: Tensor,
        segment_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        training: bool | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the embeddings (B, S, H) and the attention mask (B, S, S).

        The first part of `call`, for subclasses that run the blocks in another
        way.
        """
        with self.on_device_of(0):
            mask = layers.attention_mask(
                padding_mask, causal=self.config.causal
            )
            x = self.embeddings(
                token_ids, segment_ids, position_ids, training=training
            )
        return x, mask

    def run_blocks(
        self,
        x: Tensor,
        mask: Tensor,
        numbers: Iterable[int],
        *,
        training: bool | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Runs some blocks: their outputs, and their attention distributions.

        x, mask: as `start` returns them, or x the output of a block; numbers:
          of the blocks in `blocks`, which are neighbours.
        """
        hidden, distributions = [], []
        for number in numbers:
            with self.on_device_of(number + 1):
                x, attention = self.blocks[number](
                    x, mask, training=training, attentions=True
                )
            hidden.append(x)
            distributions.append(attention)
        return hidden, distributions

    def finish(
        self, hidden: Iterable[Tensor], padding_mask: Tensor
    ) -> dict[str, Any]:
        """Returns the outputs of `call`, from the hidden states of all layers.

        hidden: the embeddings and the output of each block, (B, S, H). The list
          may end early; its last entry counts as the last layer.
        """
        hidden = list(hidden)
        if self.final_norm:
            hidden[-1] = self.final_norm(hidden[-1])
        return {
            "hidden": hidden,
            "pooled": self.pool(hidden[-1], padding_mask),
        }

    def pool(self, hidden: Tensor, padding_mask: Tensor) -> Tensor:
        """Pools the [CLS], or the last token if causal: (B, S, H) -> (B, H).

        In a causal network the first token attends only to itself.
        """
        if self.config.causal:
            hidden = layers.gather(hidden, self.position_pooled(padding_mask))
        state = hidden[:, 0]
        return self.pooler(state) if self.pooler else state

    def position_pooled(self, padding_mask: Tensor) -> Tensor:
        """Returns the position that `pool` reads: (B, S) -> (B, 1) int32."""
        if not self.config.causal:
            return ops.zeros((ops.shape(padding_mask)[0], 1), "int32")
        real = ops.cast(ops.greater(padding_mask, 0), "int32")
        positions = ops.arange(ops.shape(padding_mask)[1], dtype="int32") * real
        return _max_per_row(positions)

    def call(
        self,
        *,
        token_ids: Tensor,
        padding_mask: Tensor,
        segment_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        positions_read: Tensor | None = None,
        attentions: bool = False,
        training: bool | None = None,
    ) -> dict[str, Any]:
        x, mask = self.start(
            token_ids=token_ids,
            padding_mask=padding_mask,
            segment_ids=segment_ids,
            position_ids=position_ids,
            training=training,
        )
        hidden, distributions = self.run_blocks(
            x, mask, range(len(self.blocks) - 1), training=training
        )
        with self.on_device_of(-1):
            encoded, attention = self.run_last(
                [x, *hidden],
                mask,
                padding_mask,
                positions_read,
                training=training,
            )
        if attentions:
            encoded["attentions"] = [*distributions, attention]
        return encoded

    def run_last(
        self,
        hidden: list[Tensor],
        mask: Tensor,
        padding_mask: Tensor,
        positions_read: Tensor | None = None,
        *,
        training: bool | None = None,
    ) -> tuple[dict[str, Any], Tensor]:
        """Runs the last block: the outputs of `call`, and its attention.

        The last part of `call`, for those that run the blocks before it in
        another way.

        hidden: the states (B, S, H) before it, of which it reads the last;
          `call` gives the embeddings and those of all blocks.
        """
        block = self.blocks[-1]
        if positions_read is None or self._reads_all_positions():
            x, attention = block(
                hidden[-1], mask, training=training, attentions=True
            )
            return self.finish([*hidden, x], padding_mask), attention
        pooled = self.position_pooled(padding_mask)
        positions = ops.concatenate([pooled, positions_read], axis=1)
        x, attention = block(
            hidden[-1],
            layers.gather(mask, positions),
            training=training,
            attentions=True,
            positions=positions,
        )
        encoded = self._finish_read([*hidden, x], padding_mask, positions_read)
        return encoded, attention[:, :, 1:]

    def _reads_all_positions(self) -> bool:
        """Whether a subclass or this object overrides what reads the layers."""
        return any(
            name in vars(self)
            or getattr(type(self), name) is not getattr(BertEncoder, name)
            for name in ("finish", "pool")
        )

    def _finish_read(self, hidden, padding_mask, positions_read):
        """Does the work of `finish` if the last of `hidden` is (B, 1 + P, H).

        Its first position is the one to pool, the others are positions_read.
        """
        # Mask it as a text of one token, which `pool` then reads, and padding.
        has_text = _max_per_row(padding_mask)
        padding_mask = ops.concatenate(
            [has_text, ops.zeros_like(positions_read)], axis=1
        )
        encoded = self.finish(hidden, padding_mask)
        encoded["hidden"][-1] = encoded["hidden"][-1][:, 1:]
        return encoded | {"positions_read": positions_read}

    @property
    def token_table(self) -> Tensor:
        """The token embeddings (V, E), for heads that share them."""
        with self.on_device_of(0):
            return self.embeddings.token_embeddings()

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "config": self.config.to_dict(),
            "frozen": layers.frozen(self),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "BertEncoder":
        encoder = cls(
            BertConfig.from_dict(config["config"]),
            name=config["name"],
            dtype=config.get("dtype"),  # older files have none
        )
        layers.freeze(encoder, config.get("frozen", ()))
        return encoder


def build_blocks(
    config: BertConfig,
    dtype: keras.DTypePolicy,
    devices: placement.Devices = (),
) -> list[layers.Block]:
    """Returns a block for each layer; those of a group share what it shares."""
    blocks: list[layers.Block] = []
    for layer in range(config.num_layers):
        group = None
        if layer and config.group(layer) == config.group(layer - 1):
            group = blocks[-1]
        if group is None or config.shared_sublayers != "all":
            with placement.on(devices, layer + 1):
                group = layers.Block(
                    config,
                    group=group,
                    name=f"block_{config.block(layer)}",
                    dtype=dtype,
                )
        blocks.append(group)
    return blocks


def _max_per_row(x: Tensor) -> Tensor:
    """Returns each row's maximum, (B, S) >= 0 -> (B, 1); B may be 0."""
    return ops.max(x, axis=1, keepdims=True, initial=0)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise errors.InputError(
            f"{name} must be one of {', '.join(allowed)}; got {value!r}."
        )
