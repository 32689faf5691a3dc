"""Early exit: texts that are easy leave the network at a lower layer."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, exits, options, recorded_encoder
from bert_keras.networks import base as networks
from bert_keras.networks import bert
from bert_keras.tasks import base as tasks
from bert_keras.wrappers import base
from bert_keras.wrappers.distillation import divergence_from

HEAD = "exits"
LAYER = "exit_layer"  # of the answers


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class EarlyExit(base.Wrapper):
    """Puts a classifier on every layer, which learns from the last one.

    Each learns the distribution that the task's own head has on the last layer
    (Liu et al. 2020, FastBERT, section 3.3: self-distillation); no gradient of
    theirs reaches the network, which is trained as without them. A text is
    answered by the first layer whose entropy, as a share of the largest
    possible, is below `speed`, and the layers above do not compute it. With 0
    the answers are those of the task alone. Each answer has its `exit_layer`.
    """

    speed: float = options.option(
        0.5,
        "A text leaves at the first layer that is surer than this, from 0, the "
        "last layer, to 1, the first one. It can be changed later.",
        minimum=0.0,
        maximum=1.0,
    )

    # Set by `for_device`: the exit is a branch, of a batch of one row.
    one_row: bool = dataclasses.field(default=False, repr=False, compare=False)

    leaves_no_trace = False
    request_settings = {"speed": "float32"}
    # The exits' loss is a divergence.
    softmax_terms = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.task.softmax_terms) != 1:
            self._refuse()

    def _refuse(self):
        raise errors.InputError(
            "early_exit needs a task with one softmax over classes for each "
            "text, such as classification with problem_type=single_label; "
            f"found {self.task.name}.",
            argument="wrappers",
        )

    def settings(self) -> dict[str, Any]:
        return {k: v for k, v in super().settings().items() if k != "one_row"}

    def for_device(self) -> tasks.Task:
        inner = self.task.for_device()
        return dataclasses.replace(self, task=inner, one_row=True)

    @property
    def _term(self) -> str:
        (term,) = self.task.softmax_terms
        return term

    @property
    def head_signatures(self) -> Mapping[str, Any]:  # type: ignore[override]
        inner = self.task.head_signatures
        return {**inner, HEAD: list(self.unwrapped.class_names)}

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        if not isinstance(config, bert.BertConfig) or config.num_layers < 2:
            raise errors.InputError(
                "wrappers=early_exit: expected a Transformer network of 2 or "
                f"more layers, found {config.name} with {config.num_layers}.",
                argument="wrappers",
            )
        count = len(self.unwrapped.class_names)
        if not count:
            self._refuse()
        return {
            **self.task.build_heads(config),
            HEAD: exits.ExitHeads(config, count),
        }

    def randomize(
        self, features: tasks.Tensors, targets: tasks.Targets, seeds: tf.Tensor
    ) -> tuple[tasks.Tensors, tasks.Targets]:
        features, targets = self.task.randomize(features, targets, seeds)
        return features, {**targets, HEAD: targets[self._term]}

    def positions_read(self, features: tasks.Tensors) -> tf.Tensor | None:
        return self.task.positions_read(features)

    def forward(
        self,
        encoder: keras.Model,
        heads: tasks.Heads,
        features: tasks.Tensors,
        *,
        targets: tasks.Targets | None = None,
        training: bool | None = False,
    ) -> tasks.Tensors:
        """Adds "exits", logits (B, L - 1, C) of the layers before the last."""
        recorder = recorded_encoder.RecordedEncoder(encoder)
        outputs = self.task.forward(
            recorder,
            {name: head for name, head in heads.items() if name != HEAD},
            features,
            targets=targets,
            training=training,
        )
        ((inputs, encoded),) = recorder.calls
        hidden = [tf.stop_gradient(x) for x in encoded["hidden"][1:-1]]
        logits = heads[HEAD](hidden, inputs["padding_mask"], training=training)
        return outputs | {HEAD: logits}

    def loss(
        self,
        outputs: tasks.Tensors,
        features: tasks.Tensors,
        targets: tasks.Targets,
    ) -> tasks.Tensors:
        terms = self.task.loss(outputs, features, targets)
        last = self.task.softmax_logits(outputs, features, self._term)
        shares = tf.stop_gradient(tf.nn.softmax(last))[:, tf.newaxis]
        divergence = divergence_from(shares, outputs[HEAD])  # (B, L - 1)
        _, weights = targets[HEAD]
        mean = tf.reduce_mean(divergence, axis=1)
        return {**terms, HEAD: tf.reduce_sum(mean * weights)}

    def infer(self, model: Any, features: tasks.Tensors) -> tasks.Tensors:
        """Runs each row up to its exit: {TERM: (B, C), "exit_layer": (B,)}."""
        encoder = model.encoder
        inputs = {name: features[name] for name in encoder.config.inputs}
        x, mask = encoder.start(
            **inputs,
            position_ids=features.get("position_ids"),
            training=False,
        )
        speed = features.get("speed")
        if speed is None:
            speed = tf.fill(tf.shape(x)[:1], float(self.speed))
        rows = {
            "x": x,
            "mask": mask,
            "padding_mask": features["padding_mask"],
            "speed": speed,
        }
        if self.one_row and x.shape[0] == 1:
            logits, layer = self._branch(model, rows, 1)
            return {self._term: logits, LAYER: layer}
        count = len(self.unwrapped.class_names)
        remaining = exits.Remaining(rows, count)
        for layer in range(1, len(encoder.blocks) + 1):
            logits, leaves = self._layer(model, remaining.rows, layer)
            remaining.leave(logits, layer, leaves)
        return {self._term: remaining.logits, LAYER: remaining.layer}

    def _layer(self, model, rows, layer):
        """Computes a layer, as "x" of the rows.

        Returns its logits (R, C), and whether each row leaves (R,) bool: all
        leave the last one.
        """
        encoder, heads = model.encoder, model.head.by_name()
        before, padding_mask = rows["x"], rows["padding_mask"]
        x = encoder.blocks[layer - 1](before, rows["mask"], training=False)
        rows["x"] = x
        if layer < len(encoder.blocks):
            head = heads[HEAD].heads[layer - 1]
            logits = head(x, padding_mask, training=False)
            return logits, exits.uncertainty(logits) < rows["speed"]
        encoded = encoder.finish([before, x], padding_mask)
        encoded["token_table"] = encoder.token_table
        outputs = self.task.outputs(
            encoded, heads, {"padding_mask": padding_mask}, training=False
        )
        return outputs[self._term], tf.ones_like(rows["speed"], tf.bool)

    def _branch(self, model, rows, layer):
        """Computes a row from a layer on: logits (1, C), its exit (1,)."""
        rows = dict(rows)
        logits, leaves = self._layer(model, rows, layer)
        answer = logits, tf.constant([layer])
        if layer == len(model.encoder.blocks):
            return answer
        return tf.cond(
            leaves[0],
            lambda: answer,
            lambda: self._branch(model, rows, layer + 1),
        )

    def decode(
        self, outputs: tasks.Tensors, features: tasks.Tensors
    ) -> tasks.Tensors:
        decoded = self.task.decode(outputs, features)
        return {**decoded, LAYER: outputs[LAYER]}

    def postprocess(
        self,
        decoded: tasks.Tensors,
        features: tasks.Tensors,
        raw: tasks.Tensors,
        tokenizer: Any,
    ) -> tasks.Tensors:
        """Returns the task's answers and "exit_layer" (T,) int32, from 1."""
        answers = self.task.postprocess(decoded, features, raw, tokenizer)
        return {**answers, LAYER: decoded[LAYER]}

    def metrics(
        self, predictions: tasks.Answers, examples: Sequence[tasks.Example]
    ) -> dict[str, float]:
        """Adds the mean exit layer."""
        found = self.task.metrics(predictions, examples)
        layers = [answer[LAYER] for answer in predictions]
        return {**found, "mean_exit_layer": float(np.mean(layers))}
