"""A task of a user's own: a label for every token, each with a weight."""

import dataclasses

import keras
import tensorflow as tf

from bert_keras.tasks import base


@dataclasses.dataclass(frozen=True)
class Tagger(base.Task):
    num_tags: int = 3

    @property
    def token_terms(self):
        return ("tag",)

    @property
    def scores(self):
        return ("accuracy", "loss/tag")

    def head(self, config):
        return TagHead(config.hidden_size, self.num_tags, name="head")

    def loss(self, outputs, inputs, targets):
        labels, weights = targets["tag"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels, outputs["tag"]
        )
        return {"tag": tf.reduce_sum(losses * weights)}

    def sums(self, outputs, inputs, targets):
        labels, weights = targets["tag"]
        guess = tf.argmax(outputs["tag"], axis=-1, output_type=tf.int32)
        right = tf.cast(guess == labels, tf.float32)
        return {
            "accuracy": (tf.reduce_sum(right * weights), tf.reduce_sum(weights))
        }


class TagHead(keras.layers.Layer):
    def __init__(self, hidden_size, num_tags, **kwargs):
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.tag = keras.layers.Dense(num_tags, dtype="float32", name="tag")

    def build(self, input_shape=None):
        self.tag.build((None, None, self.hidden_size))
        self.built = True

    def call(self, encoded, inputs, table, training=None):
        del inputs, table, training
        return {"tag": self.tag(encoded["hidden"][-1])}
