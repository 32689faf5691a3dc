"""NetworkConfig: the interface of a network.

A network is one file in this folder, and is found by the name of its file. It
has a frozen dataclass derived from NetworkConfig, and the encoder that this
builds. Layers, heads and tasks use only what is declared here.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from bert_keras import errors, options, registry

_PACKAGE = "bert_keras.networks"
# The network of files from before networks had names.
_UNNAMED = "bert"


# typing.Self needs Python 3.11.
Config = TypeVar("Config", bound="NetworkConfig")


class NetworkConfig:
    """The shape of a network and the inputs of its encoder.

    A subclass is a frozen dataclass. Its fields are saved, and it declares the
    attributes below as fields or properties.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]  # every subclass has them

    vocab_size: int
    hidden_size: int
    num_layers: int
    activation: str  # one of layers.ACTIVATIONS
    dropout: float
    initializer_range: float
    layer_norm_epsilon: float

    @property
    def embedding_width(self) -> int:
        """E, the width of the encoder's `token_table` (V, E)."""
        return self.hidden_size

    @property
    def inputs(self) -> Mapping[str, tuple[int, ...]]:
        """The encoder's inputs, int32, in a fixed order: {name: shape}.

        `shape` is that of one token: the input is (B, S, *shape). padding_mask
        (B, S), with shape (), is always one of them.
        """
        raise NotImplementedError

    @property
    def max_length(self) -> int | None:
        """The maximum number of positions in a text; None: unlimited."""
        raise NotImplementedError

    def build_encoder(self) -> Any:
        """Returns a new, built keras.Model of Keras' global dtype policy.

        It is called as encoder(**inputs, position_ids=None, training=...)
        -> {"hidden": L + 1 of (B, S, H), "pooled": (B, H)}, is named
        "encoder", and has the attributes `config` and `token_table` (V, E), or
        None if it has no embeddings of tokens.

        Its `call` may have an argument positions_read (B, P) int32. If it is
        passed, the last of "hidden" is (B, P, H), the hidden states at these
        positions in their order; "pooled" is the same as without; and the
        outputs have "positions_read", too.
        """
        raise NotImplementedError

    def check_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raises InputError if saved tensors do not fit this config.

        shapes: the shape of each saved tensor, by path. It is called before the
        encoder is built, so that an absurdly large size in a damaged file is
        found before its memory is allocated.
        """

    def layer_index(self, path: str) -> int:
        """Returns the depth of a variable, by its path in a BertModel.

        0: embeddings; 1 to L: the blocks, where a shared block has the depth of
        its first layer; L + 1: all that follows the blocks, and the heads.
        """
        raise NotImplementedError

    def describe(self) -> str:
        """Returns the network's size as a phrase for messages."""
        return (
            f"{self.num_layers} layers x {self.hidden_size}, "
            f"vocabulary {self.vocab_size:,}"
        )

    @property
    def name(self) -> str:
        """The name of the network's file, or of a user's module."""
        return registry.name_of(_PACKAGE, type(self))

    def to_dict(self) -> dict[str, Any]:
        """Returns what a folder stores.

        Raises InputError if the class could not be found again when loading.
        """
        registry.require_findable(_PACKAGE, type(self), NetworkConfig)
        return {"name": self.name} | dataclasses.asdict(self)

    @classmethod
    def from_dict(cls: type[Config], values: Mapping[str, Any]) -> Config:
        """Constructs a config from values of `to_dict`.

        Raises InputError for a field that is unknown, missing or of another
        type.
        """
        values = {name: v for name, v in values.items() if name != "name"}
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        missing = sorted(
            name
            for name, field in fields.items()
            if field.default is dataclasses.MISSING and name not in values
        )
        if unknown or missing:
            raise errors.InputError(
                f"{cls.__name__} has the fields {', '.join(fields)}; "
                f"unknown here: {unknown or 'none'}, "
                f"missing: {missing or 'none'}."
            )
        options.check_types(cls, values)
        return cls(
            **{
                # JSON has no tuples.
                name: tuple(value) if isinstance(value, list) else value
                for name, value in values.items()
            }
        )


def from_dict(values: Mapping[str, Any]) -> NetworkConfig:
    """Constructs the network config that `to_dict` wrote.

    Raises InputError for invalid values, and for a name that is neither a file
    of this folder nor a module that was imported before.
    """
    return find(values.get("name", _UNNAMED)).from_dict(values)


def find(name: Any) -> type[NetworkConfig]:
    """Returns the network that a folder names, or raises UnknownNameError."""
    return registry.class_from_data(_PACKAGE, name, NetworkConfig)


def names() -> list[str]:
    """Returns the names of the package's networks."""
    return registry.names(_PACKAGE)


def encode(
    encoder: Any,
    features: Mapping[str, Any],
    *,
    positions_read: Any = None,
    training: bool | None = False,
) -> dict[str, Any]:
    """Calls the encoder on those of the features that are its inputs.

    features: the encoder's inputs, possibly "position_ids" (B, S), and others.
    positions_read (B, P): the positions of the last layer that are needed;
      None: all. An encoder whose `call` lacks the argument computes all.
    training: turns dropout on, unless the encoder is frozen.

    Returns {"hidden": L + 1 of (B, S, H), "pooled": (B, H)}. If it also has
    "positions_read" (B, P), the last of "hidden" is (B, P, H) and has only
    these positions.
    """
    # What a frozen network computes is input data, which dropout of its own
    # would only disturb.
    training = training and bool(encoder.trainable_variables)
    inputs = {name: features[name] for name in encoder.config.inputs}
    inputs["position_ids"] = features.get("position_ids")
    call = getattr(encoder, "call", encoder)
    if "positions_read" in inspect.signature(call).parameters:
        inputs["positions_read"] = positions_read
    return encoder(**inputs, training=training)
