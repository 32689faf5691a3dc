"""A training method in one file: a task that learns a text's length beside."""

import dataclasses

import keras
import tensorflow as tf

from bert_keras import heads, options
from bert_keras.tasks import base as tasks
from bert_keras.wrappers import base


@keras.saving.register_keras_serializable("tests")
@dataclasses.dataclass(frozen=True)
class LengthToo(base.Wrapper):
    """A second head learns whether a text is long; it is not served."""

    weight: float = options.option(0.5, "Weight of its loss.", minimum=0.0)
    long: int = options.option(
        5, "Tokens of the shortest long text.", minimum=1
    )

    @property
    def head_signatures(self):
        return {**self.task.head_signatures, "length": self.long}

    @property
    def loss_weights(self):
        return {**self.task.loss_weights, "length": self.weight}

    def make_targets(self, raw, features, *more):
        lengths = tf.reduce_sum(features["padding_mask"], axis=1)
        label = tf.cast(lengths >= self.long, tf.int32)
        return {
            **self.task.make_targets(raw, features, *more),
            "length": (label, tf.ones_like(label, tf.float32)),
        }

    def build_heads(self, config):
        length = heads.ClassificationHead(config, 2, name="length")
        return {**self.task.build_heads(config), "length": length}

    forward = tasks.Task.forward  # one encoding for both

    def outputs(self, encoded, heads, features, *, training):
        scores = heads["length"](
            encoded, features["padding_mask"], training=training
        )
        inner = self.task.outputs(encoded, heads, features, training=training)
        return {**inner, "length": scores}

    def loss(self, outputs, features, targets):
        labels, weights = targets["length"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels, outputs["length"]
        )
        terms = self.task.loss(outputs, features, targets)
        return {**terms, "length": tf.reduce_sum(losses * weights)}
