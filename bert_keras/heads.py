"""What stands on the encoder: one small layer per kind of answer.

Like the encoder's layers, heads build from the configuration alone.
"""

import keras
from keras import ops

from bert_keras import config as config_lib
from bert_keras import layers


class MaskedLMHead(keras.layers.Layer):
    """Scores the vocabulary at the masked positions (BERT, 3.1, task 1).

    hidden (B, S, H), positions (B, P) int32, table (V, E) -> logits
    (B, P, V), float32. Positions past the last mask are padding; their
    logits are ignored by weight 0.
    """

    def __init__(self, config: config_lib.BertConfig, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        self.transform = layers.dense(
            config, config.embedding_width, name="transform"
        )
        self.activation = layers.ACTIVATIONS[config.activation]
        self.norm = layers.layer_norm(config, name="norm")

    def build(self, input_shape=None):
        self.transform.build((None, None, self.config.hidden_size))
        self.norm.build((None, None, self.config.embedding_width))
        self.bias = self.add_weight(
            name="bias",
            shape=(self.config.vocab_size,),
            initializer="zeros",
            autocast=False,
        )
        self.built = True

    def call(self, hidden, positions, table):
        length, width = ops.shape(hidden)[1], self.config.hidden_size
        rows = ops.arange(ops.shape(positions)[0], dtype="int32") * length
        places = positions + ops.expand_dims(rows, 1)  # in the flat batch
        x = ops.take(ops.reshape(hidden, (-1, width)), places, axis=0)
        x = self.norm(self.activation(self.transform(x)))  # (B, P, E)
        table = ops.cast(table, self.compute_dtype)
        logits = ops.matmul(x, ops.transpose(table))
        return ops.cast(logits, "float32") + self.bias


class NextSentenceHead(keras.layers.Layer):
    """Is the second segment the first one's? pooled (B, H) -> (B, 2).

    Logits are float32; class 0 = it is, 1 = it is not, as in Google's files
    (BERT, 3.1, task 2). Sentence order uses the same head (ALBERT, 3.1).
    """

    def __init__(self, config: config_lib.BertConfig, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        self.score = layers.dense(config, 2, name="score", dtype="float32")

    def build(self, input_shape=None):
        self.score.build((None, self.config.hidden_size))
        self.built = True

    def call(self, pooled):
        return self.score(pooled)


class ClassificationHead(keras.layers.Layer):
    """Scores C classes of a text or a pair: pooled (B, H) -> (B, C).

    Dropout, then one product (BERT, 4.1). Logits are float32.
    """

    def __init__(
        self, config: config_lib.BertConfig, num_classes: int, **kwargs
    ):
        super().__init__(**kwargs)
        self.config = config
        self.dropout = keras.layers.Dropout(config.dropout)
        self.score = layers.dense(
            config, num_classes, name="score", dtype="float32"
        )

    def build(self, input_shape=None):
        self.score.build((None, self.config.hidden_size))
        self.built = True

    def call(self, pooled, training=None):
        return self.score(self.dropout(pooled, training=training))


class TokenClassificationHead(keras.layers.Layer):
    """Scores C classes of each token: hidden (B, S, H) -> (B, S, C).

    Dropout, then one product (BERT, 5.3). Logits are float32.
    """

    def __init__(
        self, config: config_lib.BertConfig, num_classes: int, **kwargs
    ):
        super().__init__(**kwargs)
        self.config = config
        self.dropout = keras.layers.Dropout(config.dropout)
        self.score = layers.dense(
            config, num_classes, name="score", dtype="float32"
        )

    def build(self, input_shape=None):
        self.score.build((None, None, self.config.hidden_size))
        self.built = True

    def call(self, hidden, training=None):
        return self.score(self.dropout(hidden, training=training))
