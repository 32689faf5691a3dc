"""Wrapper: a training method as a task around a task.

A wrapper changes how a task learns (its loss, what is computed for it, what
is trained beside it) and leaves everything else to the task inside. Each is
one file in this folder; `--wrappers=a,b` is a(b(task)), and the flags of a
wrapper are its fields behind its name, as `--r_drop_alpha`.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bert_keras import errors, options, registry
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

PACKAGE = "bert_keras.wrappers"


@dataclasses.dataclass(frozen=True)
class Wrapper(base.Task):
    """A task that is the task inside it but for what a subclass overrides.

    A subclass is a frozen dataclass whose own fields are its settings. It
    calls `self.task.METHOD` where it adds to a method.
    """

    # Required; fields of subclasses have defaults.
    task: base.Task = None  # type: ignore[assignment]
    # The inner task's, for those who read it; never set or saved here.
    seq_length: int = dataclasses.field(init=False, repr=False, compare=False)

    # True: what is served is the inner task alone. False: a head, or what an
    # answer says, comes from the wrapper.
    leaves_no_trace = True

    def __post_init__(self) -> None:
        if not isinstance(self.task, base.Task):
            raise errors.InputError(
                f"{type(self).__name__}: expected a task in it, as "
                f"{type(self).__name__}(Classification()), found "
                f"{self.task!r}."
            )
        self._check_forward()
        # Their settings and heads would have the same names.
        options.require_distinct(
            "wrappers", [_prefix(type(each)) for each in unwrap(self)[1]]
        )
        object.__setattr__(self, "seq_length", self.task.seq_length)

    def _check_forward(self) -> None:
        """Raises InputError where this leaves out how a wrapper inside runs."""
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
        """What only the task inside has, such as its labels."""
        if name == "task" or name.startswith("__"):  # while it is being made
            raise AttributeError(name)
        return getattr(self.task, name)

    def settings(self) -> dict[str, Any]:
        """The wrapper's own fields."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("task", "seq_length")
        }

    def with_task(self, task: base.Task) -> "Wrapper":
        """The same wrapper around another task."""
        return dataclasses.replace(self, task=task)

    # What returns another task returns it wrapped.

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        return self.with_task(self.task.adapt(examples, tokenizer))

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
        """Fields of the wrapper, and of the task inside."""
        own = {k: v for k, v in fields.items() if k in self.settings()}
        inner = {k: v for k, v in fields.items() if k not in own}
        task = self.task.with_settings(**inner) if inner else self.task
        return dataclasses.replace(self, task=task, **own)

    @property
    def unwrapped(self) -> base.Task:
        return self.task.unwrapped

    # Saving: one dictionary inside the other.

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
    """A member of Wrapper that is that of the task inside."""
    if not inspect.isfunction(member):
        return property(lambda self: getattr(self.task, name))

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.task, name)(*args, **kwargs)

    method.__name__, method.__doc__ = name, member.__doc__
    return method


# Every other public member of Task is the inner task's. The list is Task's
# own, so that a member that Task gains is not forgotten here.
for _name, _member in vars(base.Task).items():
    if not _name.startswith("_") and _name not in (
        *vars(Wrapper),
        *(field.name for field in dataclasses.fields(base.Task)),
    ):
        setattr(Wrapper, _name, _delegate(_name, _member))


def find(name: str) -> type[Wrapper]:
    """The wrapper `bert_keras/wrappers/<name>.py`, or of a user's module."""
    return registry.find(PACKAGE, name, Wrapper)


def names() -> list[str]:
    """Wrappers that come with the package."""
    return registry.names(PACKAGE)


def own_options(cls: type[Wrapper]) -> dict[str, dataclasses.Field[Any]]:
    """The options of a wrapper, by their names on a command line."""
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
    """The classes that "a,b" or ("a", "b") names, the outermost first."""
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
    """The task in the wrappers; values by the names of `own_options`."""
    for cls in reversed(classes):
        fields = {
            field.name: values[name]
            for name, field in own_options(cls).items()
            if name in values
        }
        task = cls(task=task, **fields)
    return task


def unwrap(task: base.Task) -> tuple[base.Task, list[Wrapper]]:
    """The task in the middle, and its wrappers, the outermost first."""
    wrappers = []
    while isinstance(task, Wrapper):
        wrappers.append(task)
        task = task.task
    return task, wrappers


def all_of(task: base.Task) -> list[base.Task]:
    """The task in the middle and all wrappers, each with its own settings."""
    inner, wrappers = unwrap(task)
    return [inner, *wrappers]


def require_softmax_terms(wrapper: Wrapper) -> None:
    """Raises InputError if the inner task has no loss over classes."""
    if not wrapper.task.softmax_terms:
        raise errors.InputError(
            f"{wrapper.name} needs a task whose loss is a softmax over classes "
            "(classification with problem_type=single_label, tagging, "
            f"intent_slots, masked_lm); {wrapper.task.name} has none with "
            "these settings."
            + (
                f" Name {wrapper.task.name} first."
                if isinstance(wrapper.task, Wrapper)
                else ""
            )
        )
