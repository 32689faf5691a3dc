"""BertModel: an encoder and the head of a task, one keras.Model."""

import keras


@keras.saving.register_keras_serializable("bert_keras")
class BertModel(keras.Model):
    """What is trained, saved and served.

    inputs {"token_ids", "segment_ids", "padding_mask" (B, S) int32, and what
    the task's head reads} -> the head's outputs {name: (B, ...)}. Without a
    task, on its way to one: the encoder's outputs.

    An ordinary keras.Model: `summary`, `fit`, `get_config` and saving as
    `.keras` work. It is complete when constructed.
    """

    def __init__(self, encoder, task, name="bert", **kwargs):
        super().__init__(name=name, **kwargs)
        self.encoder = encoder
        self.task = task
        self.head = task.head(encoder.config) if task else NoHead(name="head")
        self.head.build()
        self.built = True

    def call(self, inputs, training=None):
        encoded = self.encoder(
            inputs["token_ids"],
            inputs["segment_ids"],
            inputs["padding_mask"],
            inputs.get("position_ids"),
            training=training,
        )
        return self.head(
            encoded, inputs, self.encoder.token_table, training=training
        )

    def build_from_config(self, config):
        del config  # the constructor has built everything

    def get_config(self):
        return {
            "name": self.name,
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "task": keras.saving.serialize_keras_object(self.task),
        }

    @classmethod
    def from_config(cls, config):
        return cls(
            keras.saving.deserialize_keras_object(config["encoder"]),
            keras.saving.deserialize_keras_object(config["task"]),
            name=config["name"],
        )


class NoHead(keras.layers.Layer):
    """Gives what the encoder gave; has no weights."""

    def build(self, input_shape=None):
        self.built = True

    def call(self, encoded, inputs, table, training=None):
        del inputs, table, training
        return encoded
