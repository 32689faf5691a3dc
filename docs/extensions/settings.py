"""The directive `settings`: a table of a dataclass's options.

    ```{settings} bert_keras.training.settings.TrainSettings
    :only: batch_size learning_rate
    ```

A row has the name, the default and the help that the commands show, read from
the class itself. `:without:` leaves fields out, `:prefix:` stands before their
names, as for wrappers.
"""

import dataclasses
import importlib
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective


class Settings(SphinxDirective):
    """A table of options; the argument is the dotted name of the dataclass."""

    required_arguments = 1
    option_spec = {
        "only": directives.unchanged,
        "without": directives.unchanged,
        "prefix": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        fields = options(getattr(importlib.import_module(module), name))
        only = self.options.get("only", "").split() or list(fields)
        without = self.options.get("without", "").split()
        unknown = sorted({*only, *without} - set(fields))
        if unknown:
            raise self.error(f"{name} has no options {', '.join(unknown)}")
        prefix = self.options.get("prefix", "")
        rows = [
            row(prefix + each, fields[each])
            for each in only
            if each not in without
        ]
        table = "\n".join(
            ["| Setting | Default | Meaning |", "|---|---|---|", *rows]
        )
        return self.parse_text_to_nodes(table)


def options(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """Returns the fields that a user may set, by name."""
    return {
        field.name: field
        for field in dataclasses.fields(cls)
        if "help" in field.metadata
    }


def row(name: str, field: dataclasses.Field[Any]) -> str:
    """Returns the row of an option, in Markdown."""
    meaning = " ".join(field.metadata["help"].split())
    choices = field.metadata["choices"]
    if choices:
        meaning += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    meaning = meaning.replace("|", r"\|").replace("*", r"\*")
    return f"| `{name}` | {default(field.default)} | {meaning} |"


def default(value: Any) -> str:
    """Formats a default value; empty if there is none."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"`{text.replace('e-0', 'e-')}`"


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("settings", Settings)
    return {"parallel_read_safe": True}
