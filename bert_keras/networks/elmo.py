"""ELMo: a bidirectional language model over characters (Peters et al. 2018).

Its first layer is a convolution over the characters of each word (Kim et al.
2016, Jozefowicz et al. 2016), which no other word changes. The others are LSTMs
of two directions, with weights of their own. The equations are those of
bilm-tf, whose published weights give the same vectors.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from bert_keras import elmo_layers, errors, layers, recurrent_layers
from bert_keras.types import Shape, Tensor

_MOST = 2**31 - 1  # far above any network's


@dataclasses.dataclass(frozen=True)
class ElmoConfig(elmo_layers.RecurrentConfig):
    """The shape of a bidirectional language model over characters.

    >>> from bert_keras.networks import elmo
    >>> config = elmo.named("elmo_small", vocab_size=10000)
    >>> config.hidden_size, config.num_layers, sorted(config.inputs)
    (256, 2, ['characters', 'padding_mask'])
    """

    vocab_size: int  # words, which only the language model's head reads
    projection_size: int  # P, the width of a direction; hidden_size is 2 P
    lstm_size: int  # D, the width of an LSTM's cell; at least P
    num_layers: int = 2
    character_size: int = 16
    # The convolutions: how many characters each reads, and its filters.
    filter_widths: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)
    filter_counts: tuple[int, ...] = (32, 32, 64, 128, 256, 512, 1024)
    num_highways: int = 2
    character_activation: str = "relu"  # relu or tanh
    cell_clip: float = 3.0  # largest absolute value of a cell; 0: any
    projection_clip: float = 3.0  # the same of a projected state
    residual: bool = True  # each layer but the first LSTM's adds its input
    dropout: float = 0.1  # of each LSTM's input and of the last one's output
    initializer_range: float = 0.02  # of heads
    layer_norm_epsilon: float = 1e-12

    activation = "gelu"  # of heads

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "projection_size", "lstm_size", "num_layers")
        for name in (*sizes, "character_size"):
            if not 1 <= getattr(self, name) <= _MOST:
                raise errors.InputError(
                    f"{name} is {getattr(self, name)}; expected a whole number "
                    f"from 1 to {_MOST:,}."
                )
        if self.num_layers > 1000 or not 0 <= self.num_highways <= 1000:
            raise errors.InputError(
                f"num_layers is {self.num_layers} and num_highways "
                f"{self.num_highways}; expected at most 1000, and 0 or more."
            )
        if self.projection_size > self.lstm_size:
            raise errors.InputError(
                f"projection_size is {self.projection_size} and lstm_size "
                f"{self.lstm_size}; expected a projection that is not larger."
            )
        if not 0 <= self.dropout < 1:
            raise errors.InputError(
                f"dropout is {self.dropout}; expected a share from 0 up to, "
                "but not, 1."
            )
        for name in ("cell_clip", "projection_clip", "initializer_range"):
            if not 0 <= getattr(self, name) < math.inf:
                raise errors.InputError(
                    f"{name} is {getattr(self, name)}; expected 0 or more."
                )
        names = elmo_layers.ACTIVATIONS
        if self.character_activation not in names:
            raise errors.InputError(
                f"character_activation must be one of {', '.join(names)}; got "
                f"{self.character_activation!r}."
            )
        self._check_filters()

    def _check_filters(self) -> None:
        widths, counts = self.filter_widths, self.filter_counts
        if (
            not widths
            or len(widths) != len(counts)
            or not all(
                1 <= width <= elmo_layers.MAX_CHARACTERS for width in widths
            )
            or not all(1 <= count <= _MOST for count in counts)
        ):
            raise errors.InputError(
                f"filter_widths is {list(widths)} and filter_counts "
                f"{list(counts)}; expected a count of 1 or more for each width "
                f"from 1 to {elmo_layers.MAX_CHARACTERS}."
            )

    @property
    def hidden_size(self) -> int:  # type: ignore[override]
        """The width of both directions together."""
        return 2 * self.projection_size

    @property
    def inputs(self) -> Mapping[str, tuple[int, ...]]:
        return {"characters": (elmo_layers.MAX_CHARACTERS,), "padding_mask": ()}

    @property
    def max_length(self) -> int | None:
        return None

    def build_encoder(self) -> "ElmoEncoder":
        return ElmoEncoder(self)

    def check_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        expected = {
            "characters/table": (
                elmo_layers.NUM_CHARACTERS - 1,
                self.character_size,
            ),
            "lstm_0/forward/recurrent_kernel": (
                self.projection_size,
                4 * self.lstm_size,
            ),
            f"characters/conv_{len(self.filter_counts) - 1}/kernel": (
                self.filter_widths[-1],
                self.character_size,
                self.filter_counts[-1],
            ),
        }
        blocks = {path.split("/")[0] for path in shapes if "lstm_" in path}
        for name, shape in expected.items():
            if shapes.get(name) != shape or self.num_layers != len(blocks):
                raise errors.InputError(
                    f"does not fit the model: {name} is {shapes.get(name)} "
                    f"there and {shape} in the model, with {len(blocks)} LSTM "
                    f"layers there and {self.num_layers} in the model."
                )

    def layer_index(self, path: str) -> int:
        top, *rest = path.split("/")
        part = rest[0] if rest and top != "head" else ""
        if part == "characters":
            return 0
        layer = re.fullmatch(r"lstm_(\d+)", part)
        return int(layer[1]) + 1 if layer else self.num_layers + 1

    def describe(self) -> str:
        return (
            f"{self.num_layers} bidirectional LSTMs x {self.lstm_size}, "
            f"projected to 2 x {self.projection_size}, {self.num_filters:,} "
            f"character filters, vocabulary {self.vocab_size:,}"
        )


# The fields that differ from ElmoConfig's defaults. elmo_base is the network of
# Peters et al. 2018, section 3.4; elmo_medium and elmo_small were published
# beside it; elmo_tiny is for tests and CPUs.
SIZES: Mapping[str, Mapping[str, Any]] = {
    "elmo_tiny": {
        "projection_size": 64,
        "lstm_size": 256,
        "filter_widths": (1, 2, 3, 4),
        "filter_counts": (16, 16, 32, 64),
        "num_highways": 1,
    },
    "elmo_small": {
        "projection_size": 128,
        "lstm_size": 1024,
        "num_highways": 1,
    },
    "elmo_medium": {
        "projection_size": 256,
        "lstm_size": 2048,
        "num_highways": 1,
    },
    "elmo_base": {"projection_size": 512, "lstm_size": 4096},
}


VOCABULARY = 793_471  # words of Jozefowicz et al. 2016, section 4


def named(name: str, *, vocab_size: int) -> ElmoConfig:
    """Returns the config of a size in SIZES."""
    return ElmoConfig(vocab_size=vocab_size, **SIZES[name])


@keras.saving.register_keras_serializable("bert_keras")
class ElmoEncoder(keras.Model):
    """The bidirectional language model without its softmax.

    characters (B, S, 50), padding_mask (B, S) int32 ->
      "hidden": L + 1 tensors (B, S, 2 P): the words' vectors, twice, so that
        all have one width (bilm-tf), then each LSTM's forward and backward
        states; 0 at padding;
      "pooled": (B, 2 P), the mean of the last of them over the tokens.

    Padding is at the end of a row. padding_mask is k on the k-th packed text;
    each text starts with the state 0, in both directions.
    """

    def __init__(
        self, config: ElmoConfig, name: str = "encoder", **kwargs: Any
    ):
        super().__init__(name=name, **kwargs)
        self.config = config
        dtype = self.dtype_policy
        if dtype.compute_dtype == "float64":
            raise errors.InputError(
                "the dtype policy is float64, but the LSTMs' cells are "
                "float32; take float32 or a 16-bit policy."
            )
        self.characters = elmo_layers.CharacterConvolutions(
            config, name="characters", dtype=dtype
        )
        self.lstms = [
            elmo_layers.BidirectionalLSTM(
                config,
                residual=config.residual and layer > 0,
                name=f"lstm_{layer}",
                dtype=dtype,
            )
            for layer in range(config.num_layers)
        ]
        self.dropout = layers.Dropout(config.dropout, dtype=dtype)
        self.build()

    def build(self, input_shape: Shape | None = None) -> None:
        self.characters.build()
        for lstm in self.lstms:
            lstm.build()
        self.built = True

    @property
    def token_table(self) -> None:
        """None: no table has the embeddings of tokens."""
        return None

    def call(
        self,
        *,
        characters: Tensor,
        padding_mask: Tensor,
        position_ids: Tensor | None = None,
        training: bool | None = None,
    ) -> dict[str, Any]:
        del position_ids  # an LSTM needs none
        words = self.characters(characters)  # (B, S, P)
        order = recurrent_layers.reversed_order(padding_mask)
        real = ops.expand_dims(ops.greater(padding_mask, 0), -1)
        keeps = [
            recurrent_layers.step_masks(mask).keep
            for mask in (
                padding_mask,
                recurrent_layers.reorder(padding_mask, order),
            )
        ]
        # Time first, so that a step of the LSTMs reads contiguous memory. The
        # second direction reads each row from its last token on.
        states = [
            ops.transpose(x, (1, 0, 2))  # (S, B, P)
            for x in (words, layers.gather(words, order))
        ]
        hidden = [ops.concatenate([words, words], axis=-1)]
        for lstm in self.lstms:
            states = lstm(states, keeps, training=training)
            forward, backward = (ops.transpose(x, (1, 0, 2)) for x in states)
            backward = layers.gather(backward, order)
            hidden.append(ops.concatenate([forward, backward], axis=-1))
        hidden = [x * ops.cast(real, x.dtype) for x in hidden]
        hidden[-1] = self.dropout(hidden[-1], training=training)
        return {"hidden": hidden, "pooled": _mean(hidden[-1], real)}

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "config": self.config.to_dict(),
            "frozen": layers.frozen(self),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ElmoEncoder":
        encoder = cls(
            ElmoConfig.from_dict(config["config"]),
            name=config["name"],
            dtype=config["dtype"],
        )
        layers.freeze(encoder, config.get("frozen", ()))
        return encoder


def _mean(x: Tensor, real: Tensor) -> Tensor:
    """Averages x (B, S, H) over the tokens, real (B, S, 1) -> (B, H)."""
    count = ops.sum(ops.cast(real, "float32"), axis=1)
    total = ops.sum(ops.cast(x, "float32"), axis=1)
    return ops.cast(total / ops.maximum(count, 1.0), x.dtype)
