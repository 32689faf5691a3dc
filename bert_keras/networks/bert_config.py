"""What a BERT network is: its configuration and the published sizes."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from bert_keras import errors, files, options
from bert_keras.networks import base

ACTIVATIONS = ("gelu", "gelu_tanh", "relu")
POSITIONS = ("learned", "sinusoidal")
# Far above any network's; a larger number is a mistake of a file.
_MOST, _MOST_LAYERS = 2**31 - 1, 10_000
_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_layers",
    "num_heads",
    "intermediate_size",
    "embedding_size",
    "max_position_embeddings",
    "num_segments",
)


@dataclasses.dataclass(frozen=True)
class BertConfig(base.NetworkConfig):
    """The network's shape; every field is read in layers.py or encoder.py.

    Any combination is a network: ALBERT, a causal decoder or a small student
    are values of these fields, not classes of their own.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    # Distinct layers: None = one each, 1 = all share (ALBERT).
    num_hidden_groups: int | None = None
    # None = hidden_size; otherwise embeddings are projected (ALBERT).
    embedding_size: int | None = None
    max_position_embeddings: int = 512
    num_segments: int = 2
    causal: bool = False  # a token sees itself and what stands before it
    # LayerNorm at the entrance of each sublayer and once at the end, in place
    # of after each residual sum (Xiong et al. 2020).
    norm_first: bool = False
    activation: str = "gelu"  # gelu (erf), gelu_tanh (Google's code), relu
    position: str = "learned"  # or sinusoidal (Vaswani et al. 2017, 3.5)
    dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    layer_norm_epsilon: float = 1e-12

    def __post_init__(self):
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
        groups = self.num_hidden_groups
        if groups is not None and not 1 <= groups <= self.num_layers:
            raise errors.InputError(
                f"num_hidden_groups must lie in 1..{self.num_layers} "
                f"(num_layers), got {groups}."
            )
        _one_of("activation", self.activation, ACTIVATIONS)
        _one_of("position", self.position, POSITIONS)

    @property
    def embedding_width(self) -> int:
        return self.embedding_size or self.hidden_size

    @property
    def inputs(self) -> Mapping[str, tuple[int, ...]]:
        return {"token_ids": (), "segment_ids": (), "padding_mask": ()}

    @property
    def max_length(self) -> int | None:
        """Learned positions end; sinusoidal ones are computed for any."""
        if self.position == "learned":
            return self.max_position_embeddings
        return None

    @property
    def head_width(self) -> int:
        return self.hidden_size // self.num_heads

    def group(self, layer: int) -> int:
        """Number of the distinct block that stands at `layer`."""
        groups = self.num_hidden_groups or self.num_layers
        return layer * groups // self.num_layers

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BertConfig":
        """Raises InputError on an unknown or a missing field."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        missing = sorted(
            name
            for name, field in fields.items()
            if field.default is dataclasses.MISSING and name not in values
        )
        if unknown or missing:
            raise errors.InputError(
                f"a BERT configuration has the fields {', '.join(fields)}; "
                f"unknown here: {unknown or 'none'}, "
                f"missing: {missing or 'none'}."
            )
        options.check_types(cls, values)
        return cls(**values)


# name: (layers, hidden, heads, intermediate). Devlin et al. 2019, section 3;
# the small ones: Turc et al. 2019, table 1.
SIZES = {
    "tiny": (2, 128, 2, 512),
    "mini": (4, 256, 4, 1024),
    "small": (4, 512, 8, 2048),
    "medium": (8, 512, 8, 2048),
    "base": (12, 768, 12, 3072),
    "large": (24, 1024, 16, 4096),
}

UNCASED_ENGLISH = 30522  # entries of Google's uncased English vocabulary


def named(name: str, *, vocab_size: int = UNCASED_ENGLISH) -> BertConfig:
    """The published size `name`, for a vocabulary of `vocab_size`."""
    _one_of("model", name, tuple(SIZES))
    layers, hidden, heads, intermediate = SIZES[name]
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        intermediate_size=intermediate,
    )


def parse(model: str, *, vocab_size: int | None = None) -> BertConfig:
    """A published size by name, or a JSON file with BertConfig's fields.

    Args:
      model: one of SIZES, or the path of a `.json` file.
      vocab_size: takes the place of the file's, or of the 30,522 of a named
        size.
    """
    if not model.endswith(".json"):
        return named(model, vocab_size=vocab_size or UNCASED_ENGLISH)
    if not os.path.exists(model):
        raise errors.InputError(
            f"--model={model}: there is no such file; name one, or one of "
            f"{', '.join(SIZES)}."
        )
    values = files.read_json(model)
    if vocab_size:
        values["vocab_size"] = vocab_size
    try:
        return BertConfig.from_dict(values)
    except errors.InputError as error:
        raise errors.InputError(f"{model}: {error}") from None


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise errors.InputError(
            f"{name} must be one of {', '.join(allowed)}; got {value!r}."
        )
