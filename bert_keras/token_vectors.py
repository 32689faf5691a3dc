"""The vectors of a text's tokens, from chosen layers of any network."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from bert_keras import errors
from bert_keras.data import packing
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers


@dataclasses.dataclass(frozen=True)
class TokenVectors(base.Task):
    """Answers a text with its tokens and their vectors.

    It has no head and is not trained: it is a way to look into a checkpoint.

    layers: indices with commas between; 0 is the embeddings, -1 the last one.

    >>> from bert_keras import token_vectors
    >>> model = bert_keras.load(
    ...     "runs/base", task=token_vectors.TokenVectors(layers="0,-1"))
    >>> (answer,) = model.predict(["a fine film"])
    >>> answer["token"], len(answer["layer_0"]), len(answer["layer_-1"][0])
    (['a', 'fine', 'film'], 3, 16)
    """

    layers: str = "-1"

    def __post_init__(self) -> None:
        try:
            _ = self.indices
        except ValueError:
            raise errors.InputError(
                f"layers is {self.layers!r}; expected indices with commas "
                "between, such as 0,1,2 or -1.",
                argument="vectors",
            ) from None

    @property
    def indices(self) -> list[int]:
        return [int(part) for part in self.layers.split(",")]

    def preprocess(
        self, raw: base.Tensors, tokenizer: tokenizers.Tokenizer
    ) -> base.Tensors:
        return packing.pack(
            [tokenizer(raw["text"])],
            tokenizer.frame,
            seq_length=self.seq_length,
        )

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        count = config.num_layers + 1
        if not all(-count <= index < count for index in self.indices):
            raise errors.InputError(
                f"layers is {self.layers}, but the network has the layers 0 to "
                f"{count - 1}.",
                argument="vectors",
            )
        return {}

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: base.Heads,
        features: base.Tensors,
        *,
        training: bool | None,
    ) -> base.Tensors:
        return {
            f"layer_{index}": tf.cast(encoded["hidden"][index], tf.float32)
            for index in self.indices
        }

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        return outputs

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns {"token" (T, tokens), "layer_INDEX" (T, tokens, H)}.

        The frame is left out; padding is "" and 0.
        """
        frame, mask = tokenizer.frame, features["padding_mask"]
        first, last = len(frame.start), len(frame.end)
        width = tf.shape(mask)[1] - first - last
        valid = tf.sequence_mask(
            tf.reduce_sum(mask, axis=1) - first - last, width
        )
        tokens = tokenizer.token_texts(
            features[tokenizer.feature][:, first : first + width]
        )
        vectors = {
            name: tf.where(
                valid[..., tf.newaxis], value[:, first : first + width], 0.0
            )
            for name, value in decoded.items()
        }
        return {"token": tf.where(valid, tokens, ""), **vectors}

    def to_python(self, answer: dict[str, Any]) -> dict[str, Any]:
        count = sum(map(bool, answer["token"]))
        return {
            name: value[:count] if isinstance(value, list) else value
            for name, value in answer.items()
        }
