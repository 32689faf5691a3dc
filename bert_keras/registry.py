"""Finds networks, tokenizers, tasks and wrappers by the name of their file.

Each file of a package such as `bert_keras.tasks` defines one subclass of the
base class in the package's `base.py`. A user's class is referred to by the
dotted name of its module, such as my_package.my_task.

`import_class` takes a name from the user and imports its module.
`class_from_data` takes a name from a checkpoint and imports only modules of the
package: data must never choose which code is imported.
"""

import importlib
import inspect
import pkgutil
import sys
from types import ModuleType
from typing import Any

from bert_keras import errors


class UnknownNameError(errors.InputError):
    """A checkpoint names a class that is not available.

    Its module has not been imported, or does not define exactly one.
    """


def names(package: str) -> list[str]:
    """Returns the names of the package's files, without `base`."""
    modules = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return sorted(item.name for item in modules if item.name != "base")


def name_of(package: str, cls: type) -> str:
    """Returns the name by which `import_class` finds a class.

    `class_from_data` finds it by the same name.
    """
    return cls.__module__.removeprefix(f"{package}.")


def import_class(package: str, name: str, base_class: type) -> type[Any]:
    """Imports a module of `package`, or a user's, and returns its class.

    Never call it with a name from data: it imports the module. Raises
    InputError if there is no such module, or if it does not define exactly one
    subclass of `base_class`.
    """
    argument = f"{_argument(package)}={name}"
    short = name.removeprefix(f"{package}.")
    if short in names(package):
        name = f"{package}.{short}"
    module = _import(name)
    if module is None:
        raise errors.InputError(
            f"{argument}: expected one of {', '.join(names(package))}, or the "
            "dotted name of a module of yours, such as my_package."
            f"my_{_noun(package)}, which is importable here."
        )
    classes = classes_of(module, base_class)
    if len(classes) != 1:
        raise errors.InputError(
            f"{argument}: expected one {base_class.__name__} subclass in that "
            f"module, found {[item.__name__ for item in classes] or 'none'}."
        )
    return classes[0]


def import_modules(modules: str) -> None:
    """Imports a user's modules, such as "a.b,c.d".

    `class_from_data` may then return their classes. Names of the package's own
    tasks are allowed and need no import. Raises InputError if there is no such
    module.
    """
    own = names("bert_keras.tasks")
    for name in filter(None, map(str.strip, modules.split(","))):
        if name not in own and not _import(name):
            raise errors.InputError(
                f"modules={name}: expected dotted names of modules of yours, "
                "such as my_package.my_task, which are importable here.",
                argument="modules",
            )


def _import(name: str) -> ModuleType | None:
    """Imports and returns a module.

    Returns None if there is no such module, or if the name has no dot.
    """
    if "." not in name or not all(map(str.isidentifier, name.split("."))):
        return None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise  # the module exists, but a module that it imports does not
        return None


def class_from_data(package: str, name: Any, base_class: type) -> type[Any]:
    """Returns the class that a checkpoint names.

    Its module must be one of the package, or already imported, and must define
    exactly one such class; otherwise raises UnknownNameError.
    """
    noun = _noun(package)
    if not isinstance(name, str):
        raise UnknownNameError(
            f"its {noun} is {name!r:.40}; expected the name of a module, a "
            "string."
        )
    if name.removeprefix(f"{package}.") in names(package):
        return import_class(package, name, base_class)
    if name not in sys.modules:
        raise UnknownNameError(
            f"its {noun} is in the module {name!r}, which is neither one of "
            f"{', '.join(names(package))} nor imported here; a checkpoint "
            "must not choose which code runs. If the module is yours, import "
            f"it before loading; a command does so with modules={name}."
        )
    classes = classes_of(sys.modules[name], base_class)
    if len(classes) != 1:
        raise UnknownNameError(
            f"its {noun} is in the module {name!r}, which is imported here and "
            f"defines {len(classes)} {noun}s; expected exactly one."
        )
    return classes[0]


def require_findable(package: str, cls: type, base_class: type) -> None:
    """Raises InputError if `import_class` would not return this class.

    A class is saved by the name of its module. So that name must have a dot,
    and the module must define no other subclass of `base_class`.
    """
    noun, module = _noun(package), cls.__module__
    if "." not in module:
        problem = (
            f"the name of the module {module} has no dot"
            if module != "__main__"
            else "it is defined in `__main__`"
        )
    elif (classes := classes_of(sys.modules[module], base_class)) != [cls]:
        others = [item.__name__ for item in classes if item is not cls]
        problem = f"the module {module} " + (
            f"has other {noun}s too ({', '.join(others)})"
            if others
            else "does not have it at its top level"
        )
    else:
        return
    raise errors.InputError(
        f"the {noun} {cls.__qualname__} could not be loaded again: {problem}. "
        "Define it in a module of its own that is part of a package, such as "
        f"my_package/my_{noun}.py, and import it from there."
    )


def classes_of(module: ModuleType, base_class: type) -> list[type[Any]]:
    """Returns the subclasses of `base_class` that a module defines."""
    classes = {
        item: None
        for item in vars(module).values()
        if inspect.isclass(item)
        and issubclass(item, base_class)
        and item is not base_class
        and item.__module__ == module.__name__
    }
    return list(classes)


def _argument(package: str) -> str:
    """Returns the argument that takes a name: bert_keras.tasks -> task.

    It is plural for wrappers, of which there can be several.
    """
    noun = _noun(package)
    return "wrappers" if noun == "wrapper" else noun


def _noun(package: str) -> str:
    """bert_keras.tasks -> task."""
    return package.rpartition(".")[2].removesuffix("s")
