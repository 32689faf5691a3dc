"""A mix of a network's layers as the input of a task (Peters et al. 2018)."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from bert_keras import errors, options
from bert_keras import heads as heads_lib
from bert_keras.networks import base as networks
from bert_keras.tasks import base as tasks
from bert_keras.wrappers import base

HEAD = "mix"


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class Mix(base.Wrapper):
    """Gives the task gamma * sum_j softmax(w)_j h_j in place of the last layer.

    h_0 is the embeddings, h_1 to h_L the layers (section 3.2, equation 1). w
    and gamma are learned with the task and are served. What the task knows as
    the pooled text is the mean of the mix over the tokens.
    """

    layers: str = options.option(
        "all",
        "The layers to mix: all, or indices with commas between, as 0,2. 0 is "
        "the embeddings, which for ELMo have no context.",
    )
    layer_norm: bool = options.option(
        False, "Normalise each token of each layer before mixing (section 3.2)."
    )
    l2: float = options.option(
        0.0,
        "Factor of the sum of w^2 in the loss; a large one keeps the mix near "
        "the mean of the layers.",
        minimum=0.0,
    )

    leaves_no_trace = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers != "all":
            self._indices()

    def _indices(self) -> list[int]:
        try:
            indices = [int(part) for part in self.layers.split(",")]
        except ValueError:
            indices = []
        if not indices or min(indices) < 0 or len({*indices}) < len(indices):
            raise errors.InputError(
                f"layers is {self.layers!r}; expected all, or different "
                "indices from 0 with commas between, such as 0,2.",
                argument=f"{HEAD}_layers",
            )
        return indices

    @property
    def head_signatures(self) -> dict[str, Any]:  # type: ignore[override]
        return {
            **self.task.head_signatures,
            HEAD: [self.layers, self.layer_norm],
        }

    @property
    def reads_targets(self) -> bool:
        return self.task.reads_targets or bool(self.l2)

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        if type(self.unwrapped).infer is not tasks.Task.infer:
            raise errors.InputError(
                f"wrappers={self.name}: {self.unwrapped.name} predicts with "
                "the last layer of the network, whatever it was trained with. "
                "Leave the wrapper out.",
                argument="wrappers",
            )
        count = config.num_layers + 1
        indices = range(count) if self.layers == "all" else self._indices()
        if max(indices) >= count:
            raise errors.InputError(
                f"layers is {self.layers}, but the network has the layers 0 to "
                f"{count - 1}.",
                argument=f"{HEAD}_layers",
            )
        mix = heads_lib.LayerMix(
            config, tuple(indices), layer_norm=self.layer_norm
        )
        return {**self.task.build_heads(config), HEAD: mix}

    def positions_read(self, features: tasks.Tensors) -> tf.Tensor | None:
        del features
        return None  # all: the layers are mixed at the same positions

    def forward(
        self,
        encoder: keras.Model,
        heads: tasks.Heads,
        features: tasks.Tensors,
        *,
        targets: tasks.Targets | None = None,
        training: bool | None = False,
    ) -> tasks.Tensors:
        outputs = self.task.forward(
            _MixedEncoder(encoder, heads[HEAD]),
            {name: head for name, head in heads.items() if name != HEAD},
            features,
            targets=targets,
            training=training,
        )
        if not self.l2 or targets is None:
            return outputs
        weights = tf.convert_to_tensor(heads[HEAD].layer_bias)
        return outputs | {HEAD: tf.reduce_sum(tf.square(weights))}

    def randomize(
        self, features: tasks.Tensors, targets: tasks.Targets, seeds: tf.Tensor
    ) -> tuple[tasks.Tensors, tasks.Targets]:
        """Adds the term of `l2`, whose mean over the rows it is itself."""
        features, targets = self.task.randomize(features, targets, seeds)
        if not self.l2:
            return features, targets
        real = tf.reduce_any(features["padding_mask"] > 0, axis=1)
        weights = tf.cast(real, tf.float32)
        return features, targets | {HEAD: (tf.zeros_like(weights), weights)}

    def loss(
        self,
        outputs: tasks.Tensors,
        features: tasks.Tensors,
        targets: tasks.Targets,
    ) -> tasks.Tensors:
        inner = {k: v for k, v in targets.items() if k != HEAD}
        terms = self.task.loss(outputs, features, inner)
        if HEAD in targets:
            _, weights = targets[HEAD]
            terms[HEAD] = self.l2 * outputs[HEAD] * tf.reduce_sum(weights)
        return terms


class _MixedEncoder:
    """An encoder whose last hidden states are a mix of all of its layers.

    It is called as networks.base.encode calls an encoder.
    """

    def __init__(self, encoder: Any, mix: heads_lib.LayerMix):
        self.config = encoder.config
        self.token_table = encoder.token_table
        self.trainable_variables = encoder.trainable_variables
        self._encoder, self._mix = encoder, mix

    def start(self, **inputs: Any) -> Any:
        return self._encoder.start(**inputs)

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        encoded = self._encoder(**inputs)
        mixed = self._mix(encoded["hidden"])
        pooled = heads_lib.pool(mixed, inputs["padding_mask"])
        hidden = [*encoded["hidden"][:-1], mixed]
        return encoded | {
            "hidden": hidden,
            "pooled": tf.cast(pooled, mixed.dtype),
        }
