"""A network in one file: each token beside the mean of its text."""

import dataclasses

import keras
from keras import ops

from bert_keras import layers
from bert_keras.networks import base


@dataclasses.dataclass(frozen=True)
class MeanConfig(base.NetworkConfig):
    vocab_size: int
    hidden_size: int = 16
    activation: str = "relu"
    dropout: float = 0.1
    initializer_range: float = 0.1
    layer_norm_epsilon: float = 1e-6

    num_layers = 1
    max_length = None
    inputs = {"token_ids": (), "padding_mask": ()}

    def build_encoder(self):
        return MeanEncoder(self)

    def layer_index(self, path):
        return {"token": 0, "mix": 1}.get(path.split("/")[1], 2)


@keras.saving.register_keras_serializable("tests")
class MeanEncoder(keras.Model):
    def __init__(self, config, name="encoder", **kwargs):
        super().__init__(name=name, **kwargs)
        self.config = config
        self.mix = layers.dense(config, config.hidden_size, name="mix")
        self.build()

    def build(self, input_shape=None):
        shape = self.config.vocab_size, self.config.hidden_size
        initializer = layers.initializer(self.config)
        self.token_table = self.add_weight(shape, initializer, name="token")
        self.mix.build((None, None, 2 * self.config.hidden_size))
        self.built = True

    def call(self, token_ids, padding_mask, position_ids=None, training=None):
        x = ops.take(self.token_table, token_ids, axis=0)
        real = ops.cast(ops.expand_dims(padding_mask > 0, -1), x.dtype)
        count = ops.maximum(ops.sum(real, 1, keepdims=True), 1)
        mean = ops.sum(x * real, 1, keepdims=True) / count
        mixed = self.mix(ops.concatenate([x, x * 0 + mean], axis=-1))
        return {"hidden": [x, mixed], "pooled": mixed[:, 0]}

    def get_config(self):
        return {"config": self.config.to_dict(), "name": self.name}

    @classmethod
    def from_config(cls, values):
        return cls(base.from_dict(values["config"]), values["name"])
