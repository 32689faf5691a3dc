"""NetworkConfig: what every network states about itself.

A network is one file in this folder: a frozen dataclass derived from
NetworkConfig, found by the name of its file, and the encoder that it builds.
Layers, heads and tasks read nothing of a network but what is declared here.
"""

from collections.abc import Mapping


class NetworkConfig:
    """The shape of a network and what its encoder reads.

    A subclass is a frozen dataclass whose fields are saved; it declares the
    attributes below as fields or as properties.
    """

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
