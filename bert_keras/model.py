"""BertModel: an encoder and the head of a task, one keras.Model."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from bert_keras import errors, layers, registry
from bert_keras.networks import base as networks


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
        with layers.global_policy(self.dtype_policy):
            self.head = (
                task.head(encoder.config) if task else NoHead(name="head")
            )
        self.head.build()
        self.built = True
        self.check_head()

    def check_head(self):
        """Raises InputError for weights of the head that no load would find.

        Checkpoints know the parts of a head by `Task.head_signatures`.
        """
        if self.task is None:
            return
        parts = {
            variable.path.split("/")[1]
            for variable in self.head.weights
            if not variable.path.endswith("seed_generator_state")
        }
        unknown = sorted(parts - set(self.task.head_signatures))
        if unknown:
            raise errors.InputError(
                f"the head of {self.task.name} has weights in "
                f"{', '.join(unknown)}, but the task's `head_signatures` names "
                f"{', '.join(self.task.head_signatures) or 'nothing'}: they "
                "would be saved and never loaded. Name every layer of the head "
                "there, with what its outputs mean."
            )

    def call(self, inputs, training=None):
        encoded = self.encoder(
            **{name: inputs[name] for name in self.encoder.config.inputs},
            position_ids=inputs.get("position_ids"),
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
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "task": keras.saving.serialize_keras_object(self.task),
            "frozen": layers.frozen(self),
        }

    @classmethod
    def from_config(cls, config):
        # Here, for a model needs no task but to be read.
        from bert_keras.tasks import base

        task = config["task"]
        if task is not None:
            tasks = [*map(base.find, base.names()), *_subclasses(base.Task)]
            task = _restored(task, tasks, "task")
        model = cls(
            _restored(config["encoder"], _encoders(), "encoder"),
            task,
            name=config["name"],
            dtype=config.get("dtype"),  # older files have none
        )
        layers.freeze(model, config.get("frozen", ()))
        return model


def _restored(
    values: Mapping[str, Any], known: Sequence[type], noun: str
) -> Any:
    """The object that Keras saved, of one of the `known` classes.

    Only these are looked through: a file names no code to import.
    """
    name = values.get("registered_name")
    module = values.get("module"), values.get("class_name")
    found = [
        each for each in known if (each.__module__, each.__name__) == module
    ] or [
        each for each in known if keras.saving.get_registered_name(each) == name
    ]
    if not found:
        raise errors.InputError(
            f"the file holds {name!r} of {'.'.join(map(str, module))}, which "
            f"is no {noun} known here. If it is yours, import its "
            "module before loading."
        )
    return found[0].from_config(values["config"])


def _encoders() -> list[type]:
    """The encoders in the files of the networks that are known here."""
    configs = [
        *map(networks.find, networks.names()),
        *_subclasses(networks.NetworkConfig),
    ]
    modules = dict.fromkeys(sys.modules[each.__module__] for each in configs)
    return [
        encoder
        for module in modules
        for encoder in registry.classes_of(module, keras.Model)
    ]


def _subclasses(base: type) -> Iterator[type]:
    for each in base.__subclasses__():
        yield each
        yield from _subclasses(each)


class NoHead(keras.layers.Layer):
    """Gives what the encoder gave; has no weights."""

    def build(self, input_shape=None):
        self.built = True

    def call(self, encoded, inputs, table, training=None):
        del inputs, table, training
        return encoded
