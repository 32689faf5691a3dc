"""BertModel: an encoder and the heads of a task, one keras.Model."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import keras

from bert_keras import errors, layers, placement, registry
from bert_keras.networks import base as networks
from bert_keras.types import Shape, Tensor

if TYPE_CHECKING:
    from bert_keras.tasks import base as tasks


@keras.saving.register_keras_serializable("bert_keras")
class BertModel(keras.Model):
    """An encoder with the heads of a task; it is trained, saved and served.

    features {name: (B, S, ...) int32 for each of the network's `inputs`, and
    what the task reads} -> the task's outputs {name: (B, ...)}. With task=None
    it returns the encoder's outputs. The heads are `model.head.NAME`.

    It is an ordinary keras.Model: `summary`, `fit`, `get_config` and saving as
    `.keras` work. The constructor builds all weights.

    >>> task = bert_keras.tasks.Classification(labels=("bad", "good"))
    >>> config = bert_keras.BertConfig(
    ...     vocab_size=50, hidden_size=32, num_layers=2, num_heads=2,
    ...     intermediate_size=64)
    >>> model = bert_keras.BertModel(config, task)

    Keras' own loop uses the task's loss, if `compile` gets no other:

    >>> tokenizer = bert_keras.Tokenizer.from_file("vocab.txt")
    >>> texts, labels = ["a good film", "a bad one"], ["good", "bad"]
    >>> data = bert_keras.to_dataset(texts, labels, task, tokenizer)
    >>> model.compile(optimizer="adamw", weighted_metrics=["accuracy"])
    >>> history = model.fit(data, epochs=2, verbose=0)
    >>> sorted(history.history)
    ['accuracy', 'loss']

    encoder: an encoder, or the config to build one from.
    """

    def __init__(
        self,
        encoder: keras.Model | networks.NetworkConfig,
        task: "tasks.Task | None",
        name: str = "bert",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        if isinstance(encoder, networks.NetworkConfig):
            with layers.global_policy(self.dtype_policy):
                encoder = encoder.build_encoder()
        self.encoder = encoder
        self.task: Any = task  # Any: most callers have a model with a task
        self._devices = placement.current()
        with self._on_last_device():
            with layers.global_policy(self.dtype_policy):
                heads = task.build_heads(encoder.config) if task else {}
                self.head = Heads(heads, name="head")
            self.head.build()
        self.built = True
        self.check_heads()

    def check_heads(self) -> None:
        """Raises InputError for heads and weights that could not be loaded.

        A checkpoint identifies heads by their names in `Task.head_signatures`.
        """
        if self.task is None:
            return
        heads, signatures = self.head.by_name(), self.task.head_signatures
        if set(heads) != set(signatures):
            raise errors.InputError(
                f"the task {self.task.name} builds the heads "
                f"{', '.join(heads) or 'none'}, but its `head_signatures` "
                f"names {', '.join(signatures) or 'none'}: heads would be "
                "saved and never loaded. Name every head there, with what its "
                "outputs mean."
            )
        late = [
            variable.path
            for variable in self.head.weights
            if not variable.path.endswith("seed_generator_state")
            and variable.path not in self.head.built_paths
        ]
        if late:
            raise errors.InputError(
                f"a head of {self.task.name} made weights when it was called, "
                f"which would be saved and never loaded: {', '.join(late)}. "
                "Build every layer in the head's `build`."
            )

    def call(
        self,
        features: Mapping[str, Tensor],
        targets: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        training: bool | None = None,
        encoder: Any = None,
    ) -> dict[str, Any]:
        """Computes the task's outputs.

        targets: the batch's if a loss is computed from the outputs, else None.
        encoder: what runs the encoder in another way, with its attributes that
          tasks read, such as a RecordedEncoder; None: the encoder itself.
        """
        if self.task is None:
            return networks.encode(self.encoder, features, training=training)
        with self._on_last_device():
            return self.task.forward(
                self.encoder if encoder is None else encoder,
                self.head.by_name(),
                features,
                targets=targets,
                training=training,
            )

    def _on_last_device(self) -> AbstractContextManager[object]:
        return placement.on(self._devices, -1)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Computes the task's loss, for Keras' `fit` and `evaluate`.

        x: the features; y: {loss term: labels}; sample_weight: {loss term:
          weights}. `to_dataset` makes batches of them.

        The loss of a term is its weighted mean over the batch. So is it in our
        own training, but there over all replicas and accumulation steps, while
        Keras averages the means of each. With `compile(loss=...)` it is that
        loss.
        """
        if self.task is None or getattr(self, "loss", None) is not None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        if self.task.reads_targets:
            raise errors.InputError(
                f"{self.task.name} reads the targets in its forward pass, "
                "which Keras' `fit` does not give it; train it with "
                "`bert_keras.finetune`."
            )
        targets = _targets(y, sample_weight, self.task.name)
        losses = self.task.loss(y_pred, x, targets)
        means = [
            self.task.loss_weights.get(term, 1.0)
            * keras.ops.divide_no_nan(losses[term], keras.ops.sum(weights))
            for term, (_, weights) in targets.items()
        ]
        # Keras adds up the replicas' gradients.
        return sum(means) / self.distribute_strategy.num_replicas_in_sync

    def build_from_config(self, config: Mapping[str, Any]) -> None:
        del config  # the constructor has built everything

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "task": keras.saving.serialize_keras_object(self.task),
            "frozen": layers.frozen(self),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "BertModel":
        # Import here: only loading a model needs the tasks.
        from bert_keras.tasks import base

        task = config["task"]
        if task is not None:
            tasks = [*base.classes(), *_subclasses(base.Task)]
            task = _restored(task, tasks, "task")
        model = cls(
            _restored(config["encoder"], _encoders(), "encoder"),
            task,
            name=config["name"],
            dtype=config.get("dtype"),  # older files have none
        )
        layers.freeze(model, config.get("frozen", ()))
        return model


def _targets(
    labels: Any, weights: Any, task: str
) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns {loss term: (labels, weights)}."""
    if not isinstance(labels, Mapping) or not isinstance(weights, Mapping):
        raise errors.InputError(
            f"{task}: expected batches of (features, labels by loss term, "
            "weights by loss term), as `bert_keras.to_dataset` makes them; "
            f"found labels as {type(labels).__name__} and weights as "
            f"{type(weights).__name__}."
        )
    return {term: (label, weights[term]) for term, label in labels.items()}


def _restored(
    values: Mapping[str, Any], classes: Sequence[type[Any]], noun: str
) -> Any:
    """Returns the object that Keras saved, an instance of one of `classes`.

    Only these classes are considered: a file must not choose code to import.
    """
    name = values.get("registered_name")
    module = values.get("module"), values.get("class_name")
    matches = [
        each for each in classes if (each.__module__, each.__name__) == module
    ] or [
        each
        for each in classes
        if keras.saving.get_registered_name(each) == name
    ]
    if not matches:
        raise errors.InputError(
            f"the file holds {name!r} of {'.'.join(map(str, module))}, which "
            f"is no {noun} known here. If it is yours, import its "
            "module before loading."
        )
    return matches[0].from_config(values["config"])


def _encoders() -> list[type[Any]]:
    """Returns the encoder classes in the modules of all known networks."""
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


def _subclasses(base: type[Any]) -> Iterator[type[Any]]:
    for each in base.__subclasses__():
        yield each
        yield from _subclasses(each)


class Heads(keras.layers.Layer):
    """The container of a task's heads; each is an attribute of its own name.

    It prefixes the paths of their weights. It is never called itself.
    """

    def __init__(self, heads: Mapping[str, keras.layers.Layer], **kwargs: Any):
        super().__init__(**kwargs)
        taken = set(dir(self))
        for name, head in heads.items():
            if name in taken or not name.isidentifier():
                raise errors.InputError(
                    f"a head cannot have the name {name!r}: it has to be an "
                    "identifier, and none of a Keras layer's attributes."
                )
            head.name = name
            setattr(self, name, head)
        self._names = tuple(heads)

    # Not a property: Keras saves layers by all attributes' names, properties'
    # too.
    def by_name(self) -> dict[str, keras.layers.Layer]:
        return {name: getattr(self, name) for name in self._names}

    def build(self, input_shape: Shape | None = None) -> None:
        for head in self.by_name().values():
            head.build()
        self.built_paths = tuple(variable.path for variable in self.weights)
        self.built = True
