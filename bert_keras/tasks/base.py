"""Task: what a network is trained for, as a handful of verbs.

Each verb runs in one place, and the same function runs in training,
evaluation and serving. A new task is one file in this folder with one
subclass; trainers, exporters and tests find it by the file's name.
"""

import collections
import dataclasses
import importlib
import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, options, registry
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
Row = Mapping[str, str]


knob = options.option  # the name that tasks of users know
MOST_TOKENS = 1 << 20  # of a row; a larger number is a mistake of a file


def as_tensors(rows: Sequence[Row], columns: Iterable[str]) -> Tensors:
    """Columns of rows as tensors (T,)."""
    kind = None if rows else tf.string
    return {
        name: tf.constant([row[name] for row in rows], kind) for name in columns
    }


class Table(NamedTuple):
    """Numbers with names; "confusion" is drawn as a picture."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray  # (rows, columns)


# Members of a Task by the names that they had in version 0.1.
_FORMER_NAMES = {
    "answers": "head_signatures",
    "classes": "class_names",
    "coefficients": "loss_weights",
    "complete": "add_derived_features",
    "draw": "randomize",
    "examples": "read_examples",
    "head": "build_heads",
    "inputs": "preprocess",
    "learn": "adapt",
    "on_device": "for_device",
    "plain": "to_python",
    "predict": "postprocess",
    "ranked": "ranked_outputs",
    "scores": "metric_names",
    "sums": "metric_sums",
    "targets": "make_targets",
    "texts": "text_columns",
    "token_terms": "target_axes",
    "tuned": "calibrated",
}


@dataclasses.dataclass(frozen=True)
class Task:
    """The verbs and their shapes; fields are the settings that are saved.

    T texts become W >= T rows of at most `seq_length` tokens; strings never
    reach the device, and T = 0 gives no answer, not an error.
    """

    seq_length: int = options.option(
        128,
        "Longest row in tokens, [CLS] and [SEP] included; longer is cut.",
        least=4,
        most=MOST_TOKENS,
    )

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        old = [name for name in vars(cls) if name in _FORMER_NAMES]
        if old:
            renamed = ", ".join(f"{n} -> {_FORMER_NAMES[n]}" for n in old)
            raise errors.InputError(
                f"the task {cls.__qualname__} has members whose names have "
                f"changed; rename them: {renamed}."
            )

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Names of the strings that `preprocess` reads: a served signature."""
        return ("text",)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Factor of each loss term in the total; 1 where not named."""
        return {}

    @property
    def softmax_terms(self) -> tuple[str, ...]:
        """Loss terms that are softmax cross entropy over outputs[term].

        outputs[term] (..., C) are logits, labels (...) int32: training methods
        that change how classes are learned apply to these.
        """
        return ()

    @property
    def target_axes(self) -> tuple[str, ...]:
        """Loss terms whose labels and weights are one per token, (W, S)."""
        return ()

    @property
    def stored_features(self) -> tuple[str, ...]:
        """Names in `preprocess` that records keep, one value per token (W, S).

        token_ids and segment_ids are always kept. padding_mask is kept if it
        is named here, which a task needs whose rows hold several texts;
        otherwise it is 1 on every token. Anything else that the head or
        `loss` reads, and `randomize` cannot derive from these, is named here.
        """
        return ()

    @property
    def num_positions(self) -> int:
        """Positions that the longest text in a row takes.

        Less than `seq_length` where a row holds several texts, each of which
        counts its positions from 0.
        """
        return self.seq_length

    @property
    def head_signatures(self) -> Mapping[str, Any]:
        """Head -> what its outputs mean; the names are `build_heads`'.

        A head that was trained for one task is taken over by another whose
        head of this name means the same.
        """
        return {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Columns of the "scores" (T, C) of `postprocess`, or none."""
        return ()

    @property
    def ranked_outputs(self) -> tuple[str, ...]:
        """What `decode` and `postprocess` list by rank: (W, N) and (T, N).

        Rounding may exchange neighbours; exporters compare the first ones.
        """
        return ()

    @property
    def lists(self) -> Mapping[str, Any]:
        """What `postprocess` lists of a text, (T, N), and what is past the end.

        A served list has a width that no batch changes, and its true number.
        """
        return {}

    @property
    def list_width(self) -> int | None:
        """N where it is a setting; None: of the text with most items."""
        return None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What evaluation gives while training; the first picks the best.

        Names of `metrics`, or of `metric_sums` and "loss/TERM" for a task
        that is scored on records.
        """
        raise NotImplementedError

    # On the host: files and rows.

    def read_examples(self, path: str) -> Iterator[Row]:
        """Rows of a labelled file, each with all columns the task needs.

        Where the iterator has a `note`, trainers say it after the last row.
        Rows with the same `group` stay together when a part is held out.
        """
        raise errors.InputError(
            f"the task {self.name} reads no labelled files; it learns from "
            "the records of trainers.prepare."
        )

    def adapt(
        self, rows: Iterable[Row], tokenizer: tokenizers.Tokenizer
    ) -> "Task":
        """This task with what only data and vocabulary tell filled in."""
        del rows, tokenizer
        return self

    def calibrated(self, scores: Mapping[str, float]) -> "Task":
        """This task with what `metrics` of the dev rows tell filled in."""
        del scores
        return self

    def with_settings(self, **fields: Any) -> "Task":
        """This task with other values of some fields."""
        return dataclasses.replace(self, **fields)

    def for_serving(self) -> "Task":
        """This task as checkpoints save and load it.

        Its heads are some of this task's, or all: the others are only needed
        to continue the run, and stay with the optimizer's state.
        """
        return self

    def for_device(self) -> "Task":
        """This task as a phone asks it; its head has the same weights."""
        return self

    def to_python(self, answer: dict[str, Any]) -> dict[str, Any]:
        """An answer of `postprocess` as Python sees it: without filling."""
        return answer

    def metrics(
        self, predictions: Sequence[Mapping[str, Any]], rows: Sequence[Row]
    ) -> dict[str, float]:
        """Official scores of answers against their labelled rows."""
        raise NotImplementedError(f"{self.name} has no labelled rows")

    def tables(
        self, predictions: Sequence[Mapping[str, Any]], rows: Sequence[Row]
    ) -> "dict[str, Table]":
        """What people look at beside the scores: per class, confusions."""
        del predictions, rows
        return {}

    def unseen(self, row: Row) -> Sequence[str]:
        """Labels of a row that training did not know: no answer is right."""
        del row
        return ()

    # In graph, on the host: strings and random draws.

    def preprocess(
        self, raw: Tensors, tokenizer: tokenizers.Tokenizer
    ) -> Tensors:
        """T strings each -> W rows.

        {"token_ids", "segment_ids", "padding_mask" (W, S) int32,
        "example_index" (W,) int32: the text a row came from,
        "truncated" (W,) bool: whether tokens of it were left out}. S is the
        longest row's.
        What else `make_targets` and `postprocess` want to know of the rows may
        be added; the model and the records do without it.
        """
        raise NotImplementedError

    def make_targets(self, raw: Tensors, inputs: Tensors) -> Targets:
        """{term: (labels (W, ...), weights (W, ...) float32)}."""
        raise NotImplementedError(f"{self.name} learns from records only")

    def randomize(
        self, inputs: Tensors, targets: Targets, seeds: tf.Tensor
    ) -> tuple[Tensors, Targets]:
        """The same two, changed anew each epoch; given: unchanged.

        seeds (W, 2) int32: one per row, made of the run's seed, the step and
        the row's place in the global batch.
        """
        del seeds
        return inputs, targets

    def postprocess(
        self,
        decoded: Tensors,
        inputs: Tensors,
        raw: Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> Tensors:
        """T answers, dense, batch first; windows of a text are merged."""
        raise NotImplementedError

    # In graph, on the device: numbers of static shape, no strings.

    def add_derived_features(self, inputs: Tensors) -> Tensors:
        """`preprocess` with what the head reads and the ids alone tell."""
        return inputs

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        """The layers with weights that stand on the encoder, by name.

        A layer gets the name it has here, so the paths of its weights begin
        with it; its `build` makes all weights and needs no input shape.
        """
        raise NotImplementedError

    def forward(
        self,
        encoder: keras.Model,
        heads: Heads,
        features: Tensors,
        *,
        targets: Targets | None = None,
        training: bool | None = False,
    ) -> Tensors:
        """Features (B, ...) -> what `loss` and `decode` read (B, ...).

        targets: given where a loss follows, in training and in evaluation on
          records; None where the model answers.
        training: dropout is on, and nothing else differs.
        A task that needs more than the encoder's outputs overrides this. Under
        a mixed precision Keras casts float arguments: read integers only.
        """
        del targets
        encoded = networks.encode(encoder, features, training=training)
        encoded["token_table"] = encoder.token_table
        return self.outputs(encoded, heads, features, training=training)

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: Heads,
        features: Tensors,
        *,
        training: bool | None,
    ) -> Tensors:
        """The outputs of the heads, {name: (B, ...)}.

        encoded: {"hidden": L + 1 of (B, S, H), "pooled": (B, H)}, and the
          encoder's "token_table" (V, E), which some heads borrow.
        """
        raise NotImplementedError

    def loss(
        self, outputs: Tensors, inputs: Tensors, targets: Targets
    ) -> Tensors:
        """{term: weighted sum ()}; the mean is made once, globally."""
        raise NotImplementedError

    def metric_sums(
        self, outputs: Tensors, inputs: Tensors, targets: Targets
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """{score: (sum (), weight ())} for evaluation on records."""
        del outputs, inputs, targets
        return {}

    def decode(self, outputs: Tensors, inputs: Tensors) -> Tensors:
        """Small numbers (W, ...); compiles under XLA."""
        raise NotImplementedError

    # Saving.

    @property
    def name(self) -> str:
        """What `--task` takes: the file's name, or a user's module."""
        module = type(self).__module__
        return module.removeprefix("bert_keras.tasks.")

    def to_dict(self) -> dict[str, Any]:
        """What a folder keeps; raises InputError if no load could find it."""
        require_findable(type(self))
        values = {"name": self.name} | dataclasses.asdict(self)
        try:
            json.dumps([values, dict(self.head_signatures)], allow_nan=False)
        except (TypeError, ValueError) as error:
            raise errors.InputError(
                f"the settings of {type(self).__name__} and its "
                f"`head_signatures` are saved as JSON, which cannot hold one "
                f"of them: {error}."
            ) from None
        return values

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Task":
        config = options.renamed(config, cls)
        # JSON has no tuples.
        values = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in config.items()
        }
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise errors.InputError(
                f"{cls.__name__} has the settings {sorted(known)}; "
                f"unknown: {unknown}."
            )
        options.check_types(cls, config)
        options.check_bounds(cls, config)
        return cls(**values)


def require_distinct(what: str, names: Sequence[str]) -> None:
    """Raises InputError where two of the names are the same."""
    if len(set(names)) < len(names):
        twice = [n for n, c in collections.Counter(names).items() if c > 1]
        raise errors.InputError(f"{what} has {twice[:5]} more than once.")


class UnknownTaskError(errors.InputError):
    """A folder names a module that nobody has imported."""


def find(name: str) -> type[Task]:
    """The Task subclass of `bert_keras/tasks/<name>.py`, or of a module.

    Imports the module, so `name` has to come from the user: a name that a
    folder holds goes to `from_dict`. Raises InputError when there is no such
    module, or no task in it.
    """
    if name.removeprefix(_PACKAGE) in names():
        name = _PACKAGE + name.removeprefix(_PACKAGE)
    dotted = "." in name and all(map(str.isidentifier, name.split(".")))
    try:
        if not dotted:
            raise ModuleNotFoundError(name=name)
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there and misses something itself
        raise errors.InputError(
            f"task={name}: expected one of {', '.join(names())}, or the "
            "dotted name of a module of yours, such as my_package.my_task, "
            "which is importable here."
        ) from None
    classes = _tasks_in(module)
    if len(classes) != 1:
        raise errors.InputError(
            f"task={name}: expected one Task subclass in that module, "
            f"found {[item.__name__ for item in classes] or 'none'}."
        )
    return classes[0]


def register(name: str) -> None:
    """Lets folders use the task of the user's module `name`; "" is none."""
    if name:
        find(name)


_PACKAGE = "bert_keras.tasks."
_WRAPPERS = "bert_keras.wrappers"  # tasks around a task, which import this


def _tasks_in(module) -> list[type[Task]]:
    """The tasks that a module defines, each once."""
    classes = {
        item: None
        for item in vars(module).values()
        if inspect.isclass(item)
        and issubclass(item, Task)
        and item is not Task
        and item.__module__ == module.__name__
    }
    return list(classes)


def require_findable(cls: type[Task]) -> None:
    """Raises InputError where the name of a task does not lead back to it.

    A saved task is known by its module: the module's name is dotted, so that
    `task` can take it, and holds no other task.
    """
    module = cls.__module__
    if "." not in module:
        problem = (
            f"the name of the module {module} has no dot"
            if module != "__main__"
            else "it is defined in the program that was started"
        )
    elif (classes := _tasks_in(sys.modules[module])) != [cls]:
        others = [item.__name__ for item in classes if item is not cls]
        problem = f"the module {module} " + (
            f"has other tasks too ({', '.join(others)})"
            if others
            else "does not have it at its top level"
        )
    else:
        return
    raise errors.InputError(
        f"the task {cls.__qualname__} could not be loaded again: {problem}. "
        "Define it in a module of its own that is part of a package, such as "
        "my_package/my_task.py, and import it from there."
    )


def names() -> list[str]:
    """Tasks that come with the package."""
    import pkgutil

    import bert_keras.tasks

    found = pkgutil.iter_modules(bert_keras.tasks.__path__)
    return sorted(item.name for item in found if item.name != "base")


def from_dict(values: Mapping[str, Any]) -> Task:
    """The task that `to_dict` wrote.

    A folder does not choose what is imported: a module of the user's has to
    be there already, by an import or because `task` names it. Raises
    UnknownTaskError when it is not, InputError for values that do not fit.
    """
    values = dict(values)
    if "wrapper" in values:
        wrapper = values.pop("wrapper")
        return registry.lookup(_WRAPPERS, wrapper, Task).from_config(values)
    name = values.pop("name", None)
    if isinstance(name, str) and name.removeprefix(_PACKAGE) in names():
        return find(name).from_config(values)
    classes = []
    if isinstance(name, str) and name in sys.modules:
        classes = _tasks_in(sys.modules[name])
    if len(classes) != 1:
        raise UnknownTaskError(
            f"its task is the module {name!r}, which is none of "
            f"{', '.join(names())} and not imported here; a folder does not "
            "choose what code runs. If the module is yours, name it with "
            f"task={name}; in Python, import it before loading."
        )
    return classes[0].from_config(values)
