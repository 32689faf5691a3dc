"""BertModel: an encoder and the head of a task, one keras.Model."""

import keras

from bert_keras import errors


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
        self.check_head()

    def check_head(self):
        """Raises InputError for weights of the head that no load would find.

        Checkpoints know the parts of a head by the names of `Task.answers`.
        """
        if self.task is None:
            return
        parts = {
            variable.path.split("/")[1]
            for variable in self.head.weights
            if not variable.path.endswith("seed_generator_state")
        }
        unknown = sorted(parts - set(self.task.answers))
        if unknown:
            raise errors.InputError(
                f"the head of {self.task.name} has weights in "
                f"{', '.join(unknown)}, but the task's `answers` names "
                f"{', '.join(self.task.answers) or 'nothing'}: they would be "
                "saved and never loaded. Name every layer of the head there, "
                "with what its outputs mean."
            )

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
