"""Wrapper: a training method, as a task that contains another task.

A wrapper changes how the inner task is trained (its loss, its forward pass,
additional models) and delegates everything else to it. Each wrapper is one file
in this folder. `--wrappers=a,b` is a(b(task)). The flags of a wrapper are its
fields with its name as a prefix, such as `--r_drop_alpha`.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bert_keras import errors, options, registry
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

PACKAGE = "bert_keras.wrappers"


@dataclasses.dataclass(frozen=True)
class Wrapper(base.Task):
    """A task that delegates to an inner task what a subclass does not override.

    A subclass is a frozen dataclass whose own fields are its settings. A method
    that extends the inner task's calls `self.task.METHOD`.
    """

    # Required; has a default only because fields of subclasses have defaults.
    task: base.Task = None  # type: ignore[assignment]
    # A copy of the inner task's seq_length; neither set by users nor saved.
    seq_length: int = dataclasses.field(init=False, repr=False, compare=False)

    # True: only the inner task is served. False: the served model has heads or
    # answers of the wrapper.
    leaves_no_trace = True
    # Whether rows are moved, replaced or added before each step.
    changes_rows = False
    # Whether it has stored something of each row, which has to stay as it is.
    needs_unchanged_rows = False

    def __post_init__(self) -> None:
        if not isinstance(self.task, base.Task):
            raise errors.InputError(
                f"{type(self).__name__}: expected a task in it, as "
                f"{type(self).__name__}(Classification()), found "
                f"{self.task!r}."
            )
        self._check_forward()
        # Two wrappers of the same name would have the same flags and heads.
        options.require_distinct(
            "wrappers", [_prefix(type(each)) for each in unwrap(self)[1]]
        )
        self._check_together()
        object.__setattr__(self, "seq_length", self.task.seq_length)

    def _check_together(self) -> None:
        """Raises InputError for wrappers that undo each other's work."""
        chain = (self, *unwrap(self.task)[1])
        changing = [each.name for each in chain if each.changes_rows]
        storing = [each.name for each in chain if each.needs_unchanged_rows]
        if changing and storing:
            raise errors.InputError(
                f"{storing[0]} has stored answers for rows that "
                f"{changing[0]} changes in each step; leave "
                f"{storing[0]}_store or {changing[0]} out.",
                argument="wrappers",
            )
        traces = [each.name for each in chain if not each.leaves_no_trace]
        if len(traces) > 1:
            raise errors.InputError(
                f"{' and '.join(sorted(traces))} both change how the served "
                "model computes and cannot be combined; choose one.",
                argument="wrappers",
            )

    def _check_forward(self) -> None:
        """Raises InputError if `forward` would ignore an inner wrapper's."""
        if type(self).forward is not base.Task.forward:
            return
        for inner in unwrap(self.task)[1]:
            if type(inner).forward not in (Wrapper.forward, base.Task.forward):
                raise errors.InputError(
                    f"{self.name} runs the network itself, so {inner.name} "
                    "in it would do nothing; name that one first: "
                    f"wrappers={inner.name},{self.name}.",
                    argument="wrappers",
                )

    def __getattr__(self, name: str) -> Any:
        """Returns attributes that only the inner task has, such as labels."""
        if name == "task" or name.startswith("__"):  # not constructed yet
            raise AttributeError(name)
        return getattr(self.task, name)

    def settings(self) -> dict[str, Any]:
        """Returns the wrapper's own fields, by name."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("task", "seq_length")
        }

    def with_task(self, task: base.Task) -> "Wrapper":
        """Returns this wrapper around another task."""
        return dataclasses.replace(self, task=task)

    # Methods that return a changed task return it wrapped.

    def for_records(self, manifest: Mapping[str, Any]) -> base.Task:
        return self.with_task(self.task.for_records(manifest))

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        return self.with_task(self.task.adapt(examples, tokenizer))

    def read_records(self, count_tokens: Callable[[], np.ndarray]) -> base.Task:
        return self.with_task(self.task.read_records(count_tokens))

    def bind(self, load: Callable[[str], Any]) -> base.Task:
        return self.with_task(self.task.bind(load))

    def calibrated(self, metrics: Mapping[str, float]) -> base.Task:
        return self.with_task(self.task.calibrated(metrics))

    def for_device(self) -> base.Task:
        inner = self.task.for_device()
        return inner if self.leaves_no_trace else self.with_task(inner)

    def for_serving(self) -> base.Task:
        inner = self.task.for_serving()
        return inner if self.leaves_no_trace else self.with_task(inner)

    def with_settings(self, **fields: Any) -> base.Task:
        """Returns a copy with other fields of the wrapper or the inner task."""
        own = {k: v for k, v in fields.items() if k in self.settings()}
        inner = {k: v for k, v in fields.items() if k not in own}
        task = self.task.with_settings(**inner) if inner else self.task
        return dataclasses.replace(self, task=task, **own)

    @property
    def unwrapped(self) -> base.Task:
        return self.task.unwrapped

    @property
    def reads_targets(self) -> bool:
        if type(self).forward is Wrapper.forward:
            return self.task.reads_targets
        return super().reads_targets

    # Saving: the inner task's dict is nested in the wrapper's.

    @property
    def name(self) -> str:
        return registry.name_of(PACKAGE, type(self))

    def to_dict(self) -> dict[str, Any]:
        base.require_free_names(self, self.settings())
        if "seq_length" in {f.name for f in own_options(type(self)).values()}:
            raise errors.InputError(
                f"{type(self).__name__} has an option seq_length, which is "
                "that of the task in it; give it another name."
            )
        if self.seq_length != self.task.seq_length:
            raise errors.InputError(
                f"{type(self).__name__}: its __post_init__ does not call "
                "super().__post_init__(); add the call."
            )
        registry.require_findable(PACKAGE, type(self), Wrapper)
        own = {"wrapper": self.name} | self.settings()
        base.require_json(self, [own, dict(self.head_signatures)])
        return own | {"task": self.task.to_dict()}

    def get_config(self) -> dict[str, Any]:
        return self.settings() | {"task": self.task.to_dict()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Wrapper":
        return options.construct(
            cls, {**config, "task": base.from_dict(config.get("task"))}
        )


def _delegate(name: str, member: Any) -> Any:
    """Returns a property or method that delegates to the inner task."""
    if not inspect.isfunction(member):
        return property(lambda self: getattr(self.task, name))

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.task, name)(*args, **kwargs)

    method.__name__, method.__doc__ = name, member.__doc__
    return method


# Delegate all other public members of Task to the inner task. They are listed
# from Task itself, so that new members of Task are not forgotten.
for _name, _member in vars(base.Task).items():
    if not _name.startswith("_") and _name not in (
        *vars(Wrapper),
        *(field.name for field in dataclasses.fields(base.Task)),
    ):
        setattr(Wrapper, _name, _delegate(_name, _member))


def find(name: str) -> type[Wrapper]:
    """Imports and returns the wrapper of a file here, or a user's module."""
    return registry.import_class(PACKAGE, name, Wrapper)


def names() -> list[str]:
    """Returns the names of the package's wrappers."""
    return registry.names(PACKAGE)


def own_options(cls: type[Wrapper]) -> dict[str, dataclasses.Field[Any]]:
    """Returns the options of a wrapper, by the names of their flags."""
    return {
        f"{_prefix(cls)}_{field.name}": field
        for field in dataclasses.fields(cls)
        if "help" in field.metadata
    }


def check(wrapper: Wrapper) -> None:
    """Raises InputError for a value that a wrapper's option does not allow."""
    try:
        options.check(wrapper)
    except errors.InputError as error:
        if not error.argument:
            raise
        prefix = f"{_prefix(type(wrapper))}_"
        raise errors.InputError(
            f"{prefix}{error}", argument=f"{prefix}{error.argument}"
        ) from None


def _prefix(cls: type[Wrapper]) -> str:
    return cls.__module__.rpartition(".")[2]


def parse(wrappers: str | Sequence[str] | None) -> list[type[Wrapper]]:
    """Returns the classes for "a,b" or ("a", "b"), the outermost first."""
    if isinstance(wrappers, str):
        wrappers = [name.strip() for name in wrappers.split(",")]
    wrappers = wrappers or ()
    if not isinstance(wrappers, (list, tuple)) or not all(
        isinstance(name, str) for name in wrappers
    ):
        raise errors.InputError(
            f"wrappers={wrappers!r}: expected their names, such as "
            '"r_drop,label_smoothing" or ["r_drop"].',
            argument="wrappers",
        )
    classes = [find(name) for name in wrappers if name]
    options.require_distinct("wrappers", [_prefix(cls) for cls in classes])
    return classes


def wrap(
    task: base.Task,
    classes: Sequence[type[Wrapper]],
    values: Mapping[str, Any],
) -> base.Task:
    """Wraps a task; `values` are those of the options in `own_options`."""
    for cls in reversed(classes):
        fields = {
            field.name: values[name]
            for name, field in own_options(cls).items()
            if name in values
        }
        task = cls(task=task, **fields)
    return task


def unwrap(task: base.Task) -> tuple[base.Task, list[Wrapper]]:
    """Returns the innermost task and its wrappers, the outermost first."""
    wrappers = []
    while isinstance(task, Wrapper):
        wrappers.append(task)
        task = task.task
    return task, wrappers


def all_of(task: base.Task) -> list[base.Task]:
    """Returns the innermost task and all wrappers, in one list."""
    inner, wrappers = unwrap(task)
    return [inner, *wrappers]


def require_softmax_terms(wrapper: Wrapper) -> None:
    """Raises InputError if the inner task has no loss over classes."""
    if not wrapper.task.softmax_terms:
        raise errors.InputError(
            f"{wrapper.name} needs a task whose loss is a softmax over classes "
            "(classification with problem_type=single_label, matching, "
            "multiple_choice, tagging, intent_slots, question_answering, "
            "masked_lm, token_order, causal_lm, sequence_to_sequence); "
            f"{wrapper.task.name} has none with these settings."
            + (
                ""
                if not isinstance(wrapper.task, Wrapper)
                else f" Name {wrapper.task.name} first."
                if wrapper.task.leaves_no_trace
                else f" Train with {wrapper.name} first, and then with "
                f"{wrapper.task.name} from that checkpoint."
            )
        )
