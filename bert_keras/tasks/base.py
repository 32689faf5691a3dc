"""Task: what a network is trained for, as a handful of verbs.

Each verb runs in one place, and the same function runs in training,
evaluation and serving. A new task is one file in this folder with one
subclass; trainers, exporters and tests find it by the file's name.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, former_names, options, registry
from bert_keras.networks import base as networks
from bert_keras.tokenizers import base as tokenizers

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "bert_keras trains and serves with Keras' TensorFlow backend, but the "
        f"backend is {keras.backend.backend()!r}; set KERAS_BACKEND=tensorflow."
    )

Tensors = dict[str, tf.Tensor]
Targets = dict[str, tuple[tf.Tensor, tf.Tensor]]
Heads = Mapping[str, keras.layers.Layer]
Example = Mapping[str, str]
Answers = Sequence[Mapping[str, Any]]

knob = options.option  # the name that tasks of users know
MOST_TOKENS = 1 << 20  # of a row; a larger number is a mistake of a file
_RESERVED = {"name", "task", "wrapper", "wrappers"}
TOKENS = "tokens"  # the axis with a value for each token of a row


def as_tensors(examples: Sequence[Example], columns: Iterable[str]) -> Tensors:
    """Columns of examples as tensors (T,)."""
    dtype = None if examples else tf.string
    return {
        name: tf.constant([example[name] for example in examples], dtype)
        for name in columns
    }


class Table(NamedTuple):
    """Numbers with names; "confusion" is drawn as a picture."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray  # (rows, columns)


@dataclasses.dataclass(frozen=True)
class Task:
    """What is read, learned and answered; fields are the settings saved.

    T texts become W >= T rows of at most `seq_length` tokens; strings never
    reach the device, and T = 0 gives no answer, not an error. A task that
    works, with the 11 members that an author writes:

        @dataclasses.dataclass(frozen=True)
        class Question(base.Task):
            head_signatures = {"question": "whether the text is one"}
            metric_names = ("accuracy",)
            def read_examples(self, path):
                return labelled_files.read(path, needed=("text", "label"))
            def preprocess(self, raw, tokenizer):
                ids, frame = tokenizer(raw["text"]), tokenizer.frame
                return packing.pack([ids], frame, seq_length=self.seq_length)
            def make_targets(self, raw, features, tokenizer):
                labels = tf.cast(raw["label"] == "yes", tf.float32)
                return {"question": (labels, tf.ones_like(labels))}
            def build_heads(self, config):
                return {"question": heads_lib.ClassificationHead(config, 1)}
            def outputs(self, encoded, heads, features, *, training):
                head, mask = heads["question"], features["padding_mask"]
                return {"score": head(encoded, mask, training=training)[:, 0]}
            def loss(self, outputs, features, targets):
                labels, weights = targets["question"]
                losses = tf.square(outputs["score"] - labels)
                return {"question": tf.reduce_sum(losses * weights)}
            def decode(self, outputs, features):
                return {"score": outputs["score"]}
            def postprocess(self, decoded, features, raw, tokenizer):
                return {"question": decoded["score"] > 0.5}
            def metrics(self, predictions, examples):
                answers = [prediction["question"] for prediction in predictions]
                gold = [example["label"] == "yes" for example in examples]
                return {"accuracy": float(np.mean(np.equal(answers, gold)))}
    """

    seq_length: int = options.option(
        128,
        "Maximum row length in tokens, [CLS] and [SEP] included; longer rows "
        "are truncated.",
        least=4,
        most=MOST_TOKENS,
    )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        former_names.refuse_members(cls)
        _read_all_if_overridden(cls)

    # What an author writes. Attributes that depend on fields are properties.

    # Head -> what its outputs mean; the names are `build_heads`'. A head that
    # was trained for one task is taken over by another whose head of this name
    # means the same.
    head_signatures: ClassVar[Mapping[str, Any]] = {}
    # What evaluation gives while training; the first picks the best. Names of
    # `metrics`, or of `metric_sums` and "loss/TERM" where records are scored.
    metric_names: ClassVar[tuple[str, ...]] = ()

    def read_examples(self, path: str) -> Iterator[Example]:
        """Rows of a labelled file, each with all columns the task needs.

        Where the iterator has a `note`, trainers say it after the last row.
        Rows with the same `group` stay together when a part is held out.
        """
        raise errors.InputError(
            f"the task {self.name} reads no labelled files; it learns from "
            "the records of trainers.prepare."
        )

    def preprocess(
        self, raw: Tensors, tokenizer: tokenizers.Tokenizer
    ) -> Tensors:
        """T strings each -> the features of W rows; in a graph.

        What the network's `inputs` name, (W, S, ...) int32, padding_mask among
        it, S the longest row's; "example_index" (W,) int32: the text a row
        came from; "truncated" (W,) bool: whether tokens of it were left out.
        What else `make_targets` and `postprocess` want to know of the rows may
        be added; it stays on the host unless `stored_features` names it.
        """
        raise NotImplementedError

    def make_targets(
        self, raw: Tensors, features: Tensors, tokenizer: tokenizers.Tokenizer
    ) -> Targets:
        """{term: (labels (W, ...), weights (W, ...) float32)}; not in a graph.

        raw: all columns of the examples (T,); features: of `preprocess`.
        """
        raise NotImplementedError(f"{self.name} learns from records only")

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        """The layers with weights that stand on the encoder, by name.

        A layer gets the name it has here, so the paths of its weights begin
        with it; its `build` makes all weights and needs no input shape.
        """
        raise NotImplementedError

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: Heads,
        features: Tensors,
        *,
        training: bool | None,
    ) -> Tensors:
        """What `loss` and `decode` read, {name: (B, ...)}.

        encoded: {"hidden": L + 1 of (B, S, H), "pooled": (B, H)}, and the
          encoder's "token_table" (V, E), which some heads borrow. If
          "positions_read" is in it, the last of "hidden" is (B, P, H).
        features: those of `preprocess` that the network or records have, and
          derived ones. Static shapes, no strings, as in all that follows.
        """
        raise NotImplementedError

    def loss(
        self, outputs: Tensors, features: Tensors, targets: Targets
    ) -> Tensors:
        """{term: weighted sum ()}; the mean is made once, globally."""
        raise NotImplementedError

    def decode(self, outputs: Tensors, features: Tensors) -> Tensors:
        """Small numbers (W, ...); compiles under XLA."""
        raise NotImplementedError

    def postprocess(
        self,
        decoded: Tensors,
        features: Tensors,
        raw: Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> Tensors:
        """T answers, dense, batch first; in a graph, on the host.

        features: of `preprocess`; windows of a text are merged.
        """
        raise NotImplementedError

    def metrics(
        self, predictions: Answers, examples: Sequence[Example]
    ) -> dict[str, float]:
        """Official metrics of answers against their labelled examples."""
        raise NotImplementedError(f"{self.name} has no labelled rows")

    # Declared, where the default does not fit.

    # Names of the strings that `preprocess` reads: a served signature.
    text_columns: ClassVar[tuple[str, ...]] = ("text",)
    # Factor of each loss term in the total; 1 where not named.
    loss_weights: ClassVar[Mapping[str, float]] = {}
    # Loss terms that are softmax cross entropy over outputs[term]: (..., C) are
    # logits, labels (...) int32. Training methods that change how classes are
    # learned apply to these.
    softmax_terms: ClassVar[tuple[str, ...]] = ()
    # Columns of the "scores" (T, C) of `postprocess`, or none.
    class_names: ClassVar[tuple[str, ...]] = ()
    # What `preprocess` gives and records keep beside token_ids and
    # segment_ids, with the axis of its values: TOKENS where there is one of
    # each token, (W, S), or None where all rows have one shape. padding_mask
    # is named by a task whose rows hold several texts; otherwise it is 1 on
    # every token. Whatever heads and `loss` read has to be named here, unless
    # `randomize` or `add_derived_features` makes it.
    stored_features: ClassVar[Mapping[str, str | None]] = {}
    # The same of the labels and weights of loss terms; None if not named.
    target_axes: ClassVar[Mapping[str, str | None]] = {}
    # What `decode` and `postprocess` list by rank: (W, N) and (T, N). Rounding
    # may exchange neighbours; exporters compare the first ones.
    ranked_outputs: ClassVar[tuple[str, ...]] = ()
    # What `postprocess` lists of a text, (T, N), and what is past the end;
    # its width N where that is a setting, None: of the text with most items.
    lists: ClassVar[Mapping[str, Any]] = {}
    list_width: ClassVar[int | None] = None

    @property
    def unwrapped(self) -> "Task":
        """This task; of a wrapper the one in the middle."""
        return self

    @property
    def num_positions(self) -> int:
        """Positions that the longest text in a row takes.

        Less than `seq_length` where a row holds several texts, each of which
        counts its positions from 0.
        """
        return self.seq_length

    # On the host.

    def adapt(
        self, examples: Iterable[Example], tokenizer: tokenizers.Tokenizer
    ) -> "Task":
        """This task with what only data and vocabulary tell filled in."""
        del examples, tokenizer
        return self

    def bind(self, load: Callable[[str], Any]) -> "Task":
        """This task with the models that it needs, such as a teacher.

        load: the path of a checkpoint -> its model, under the strategy's scope.
        """
        del load
        return self

    def calibrated(self, metrics: Mapping[str, float]) -> "Task":
        """This task with what `metrics` of the dev examples tell filled in."""
        del metrics
        return self

    def with_settings(self, **fields: Any) -> "Task":
        """This task with other values of its fields."""
        return dataclasses.replace(self, **fields)

    def for_serving(self) -> "Task":
        """This task as checkpoints save and load it.

        Its heads are some of this task's, or all: the others are only needed
        to continue the run, and stay with the optimizer's state.
        """
        return self

    def for_device(self) -> "Task":
        """This task as a phone asks it; its heads have the same weights."""
        return self

    def to_python(self, answer: dict[str, Any]) -> dict[str, Any]:
        """An answer of `postprocess` as Python sees it: without padding."""
        return answer

    def tables(
        self, predictions: Answers, examples: Sequence[Example]
    ) -> "dict[str, Table]":
        """What people look at beside metrics: per class, confusions."""
        del predictions, examples
        return {}

    def unseen(self, example: Example) -> Sequence[str]:
        """Labels of an example that training did not know: always wrong."""
        del example
        return ()

    # In a graph, on the host.

    def randomize(
        self, features: Tensors, targets: Targets, seeds: tf.Tensor
    ) -> tuple[Tensors, Targets]:
        """The same two, changed anew each epoch; given: unchanged.

        seeds (W, 2) int32: one per row, made of the run's seed, the step and
        the row's index in the global batch.
        """
        del seeds
        return features, targets

    # In a graph, on the device.

    def add_derived_features(self, features: Tensors) -> Tensors:
        """The features, and others that the network's inputs contain.

        Batches have them after `randomize`, and the Predictor makes them; they
        are neither stored in records nor served.
        """
        return features

    def positions_read(self, features: Tensors) -> tf.Tensor | None:
        """(B, P) int32: the last hidden states that heads read; None: all.

        A network may leave the others out: `outputs` then gets those of the
        P positions, in their order. "pooled" is always there and not counted.
        A class that overrides `outputs` or `build_heads` reads all, unless it
        overrides this as well.
        """
        del features
        return None

    def forward(
        self,
        encoder: keras.Model,
        heads: Heads,
        features: Tensors,
        *,
        targets: Targets | None = None,
        training: bool | None = False,
    ) -> Tensors:
        """Features (B, ...) -> `outputs` (B, ...).

        targets: given where a loss follows, in training and in evaluation on
          records; None where the model answers.
        training: dropout is on, and nothing else differs.
        A task that needs more than the encoder's outputs overrides this. Under
        a mixed precision Keras casts float arguments: read integers only.
        """
        del targets
        encoded = networks.encode(
            encoder,
            features,
            positions_read=self.positions_read(features),
            training=training,
        )
        encoded["token_table"] = encoder.token_table
        return self.outputs(encoded, heads, features, training=training)

    def metric_sums(
        self, outputs: Tensors, features: Tensors, targets: Targets
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """{metric: (sum (), weight ())} for evaluation on records."""
        del outputs, features, targets
        return {}

    # Saving.

    @property
    def name(self) -> str:
        """What `--task` takes: the file's name, or a user's module."""
        return registry.name_of(_PACKAGE, type(self))

    def to_dict(self) -> dict[str, Any]:
        """What a folder keeps; raises InputError if no load could find it."""
        values = dataclasses.asdict(self)
        require_free_names(self, values)
        require_findable(type(self))
        values = {"name": self.name} | values
        require_json(self, [values, dict(self.head_signatures)])
        return values

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Task":
        return options.construct(cls, config)


def _read_all_if_overridden(cls: type[Task]) -> None:
    """Resets `positions_read` where it was written for other heads."""
    if cls.positions_read is Task.positions_read:
        return
    names = {"positions_read", "outputs", "build_heads"}
    newest = next(each for each in cls.__mro__ if names & vars(each).keys())
    if "positions_read" not in vars(newest):
        cls.positions_read = Task.positions_read  # type: ignore[method-assign]


_PACKAGE = "bert_keras.tasks"
_MOST_WRAPPERS = 20
_WRAPPERS = "bert_keras.wrappers"  # tasks around a task, which import this


def find(name: str) -> type[Task]:
    """The Task subclass of a file here, or of a user's module: imports it."""
    return registry.find(_PACKAGE, name, Task)


def require_findable(cls: type[Task]) -> None:
    """Raises InputError where the name of a task does not lead back to it."""
    registry.require_findable(_PACKAGE, cls, Task)


def classes() -> list[type[Task]]:
    """The classes of all tasks and wrappers that come with the package."""
    return [
        registry.find(package, name, Task)
        for package in (_PACKAGE, _WRAPPERS)
        for name in registry.names(package)
    ]


def require_free_names(task: Task, fields: Iterable[str]) -> None:
    """Raises InputError for a field that folders keep something else under."""
    for name in _RESERVED.intersection(fields):
        raise errors.InputError(
            f"{type(task).__name__} has a field {name}, which folders use "
            "themselves; give it another name."
        )


def require_json(task: Task, values: Any) -> None:
    """Raises InputError where a folder could not hold the values."""
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise errors.InputError(
            f"the settings of {type(task).__name__} and its `head_signatures` "
            f"are saved as JSON, which cannot hold one of them: {error}."
        ) from None


def names() -> list[str]:
    """Tasks that come with the package."""
    return registry.names(_PACKAGE)


def _check_nesting(values: Any) -> None:
    """Raises InputError for what is no task, and for a task too deep inside."""
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(values, Mapping):
            raise errors.InputError(
                f"expected a task, an object with its name, found "
                f"{str(values)[:40]!r}."
            )
        if "wrapper" not in values:
            return
        values = values.get("task")
    raise errors.InputError(
        f"expected at most {_MOST_WRAPPERS} wrappers around a task."
    )


def from_dict(values: Any) -> Task:
    """The task that `to_dict` wrote; the name it has imports nothing."""
    _check_nesting(values)
    values = dict(values)
    if "wrapper" in values:
        wrapper = values.pop("wrapper")
        return registry.lookup(_WRAPPERS, wrapper, Task).from_config(values)
    name = values.pop("name", None)
    return registry.lookup(_PACKAGE, name, Task).from_config(values)
