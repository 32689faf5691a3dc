"""NetworkConfig: what every network states about itself.

A network is one file in this folder: a frozen dataclass derived from
NetworkConfig, found by the name of its file, and the encoder that it builds.
Layers, heads and tasks read nothing of a network but what is declared here.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from bert_keras import errors, options, registry

_PACKAGE = "bert_keras.networks"
# Before networks had names, there was one.
_UNNAMED = "bert"


# typing.Self came with Python 3.11.
Config = TypeVar("Config", bound="NetworkConfig")


class NetworkConfig:
    """The shape of a network and what its encoder reads.

    A subclass is a frozen dataclass whose fields are saved; it declares the
    attributes below as fields or as properties.
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
        """The features that the encoder reads, int32, in a fixed order.

        Each is (B, S, *shape) of the shape given here, that of one token.
        padding_mask (B, S) is always one of them.
        """
        raise NotImplementedError

    @property
    def max_length(self) -> int | None:
        """The most positions that a text may take; None: any number."""
        raise NotImplementedError

    def build_encoder(self) -> Any:
        """A new keras.Model, complete, of Keras' global dtype policy.

        It is called as encoder(**inputs, position_ids=None, training=...)
        -> {"hidden": L + 1 of (B, S, H), "pooled": (B, H)}, is named
        "encoder", and has the attributes `config` and `token_table` (V, E).

        Its `call` may have an argument positions_read (B, P) int32: the last
        of "hidden" is then (B, P, H), of these positions in their order,
        "pooled" is as without, and "positions_read" is among the outputs.
        """
        raise NotImplementedError

    def check_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raises InputError where an encoder's tensors, by path, do not fit.

        It is called before the encoder is built, so that fields which ask for
        more than memory holds are found before any of it is taken.
        """

    def layer_index(self, path: str) -> int:
        """How deep a variable is, by its path in a BertModel.

        0: embeddings; 1 to L: the blocks, a shared block at its first layer;
        L + 1: the pooler and what follows it, and heads.
        """
        raise NotImplementedError

    def describe(self) -> str:
        """The network's size in a line."""
        return (
            f"{self.num_layers} layers x {self.hidden_size}, "
            f"vocabulary {self.vocab_size:,}"
        )

    @property
    def name(self) -> str:
        """The name of its file, or of a user's module."""
        return registry.name_of(_PACKAGE, type(self))

    def to_dict(self) -> dict[str, Any]:
        """What a folder keeps; raises InputError if no load could find it."""
        registry.require_findable(_PACKAGE, type(self), NetworkConfig)
        return {"name": self.name} | dataclasses.asdict(self)

    @classmethod
    def from_dict(cls: type[Config], values: Mapping[str, Any]) -> Config:
        """Raises InputError for a field that is unknown, missing or wrong."""
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
    """The network that `to_dict` wrote.

    Raises InputError for values that do not fit, and for a name that is
    neither a file of this folder nor a module that was imported before.
    """
    return find(values.get("name", _UNNAMED)).from_dict(values)


def find(name: Any) -> type[NetworkConfig]:
    """The network that a folder names; raises registry.UnknownNameError."""
    return registry.lookup(_PACKAGE, name, NetworkConfig)


def names() -> list[str]:
    """Networks that come with the package."""
    return registry.names(_PACKAGE)


def encode(
    encoder: Any,
    features: Mapping[str, Any],
    *,
    positions_read: Any = None,
    training: bool | None = False,
) -> dict[str, Any]:
    """The encoder's outputs for features that hold its inputs and more.

    {"hidden": L + 1 of (B, S, H), "pooled": (B, H)}. position_ids (B, S) are
    read if features have them. Where "positions_read" (B, P) is among the
    outputs, the last of "hidden" is (B, P, H), of these positions alone; an
    encoder whose `call` does not take them computes all.
    """
    inputs = {name: features[name] for name in encoder.config.inputs}
    inputs["position_ids"] = features.get("position_ids")
    if "positions_read" in inspect.signature(encoder.call).parameters:
        inputs["positions_read"] = positions_read
    return encoder(**inputs, training=training)
