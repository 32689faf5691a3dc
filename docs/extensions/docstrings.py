"""Converts the project's docstrings to reStructuredText for autodoc.

Docstrings here are plain text: backticks mark code, an indented paragraph is
shown as it is, and a line `name: meaning`, under `Args:` or not, describes an
argument. Napoleon reads only the lines under `Args:`, and reStructuredText
takes the indentation, the stars and the bars of the rest for markup.
"""

import inspect
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

_ARGUMENT = re.compile(r"(\*{0,2}\w+(?:, \*{0,2}\w+)*): +(\S.*)")
_FIELD = "Alias for field number"  # of a NamedTuple, by Python


def to_rst(lines: Sequence[str], arguments: Collection[str]) -> list[str]:
    """Converts the lines of a docstring.

    arguments: the names that may be described by `name: meaning`.
    """
    described: list[str] = []
    rest: list[str] = []
    for block in _blocks(lines):
        if block[0].strip() in ("Args:", "Arguments:"):
            block = _dedented(block[1:])
        if not block:
            continue
        if block[0].startswith(">>>"):
            rest += _literal(block)
        elif all(line.startswith(" ") for line in block):
            rest += _literal(_dedented(block))
        else:
            texts, items = _split(block, arguments)
            described += items
            rest += [line for text in texts for line in (_inline(text), "")]
    return [*rest, *described, ""]


def _blocks(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yields runs of lines without a blank line; code is one run."""
    block: list[str] = []
    for line in lines:
        if line.strip():
            block.append(line.rstrip())
        elif block:
            yield block
            block = []
    if block:
        yield block


def _split(
    block: Sequence[str], arguments: Collection[str]
) -> tuple[list[str], list[str]]:
    """Splits a paragraph into texts and descriptions of arguments."""
    texts: list[str] = []
    items: list[tuple[str, str]] = []
    is_item = False
    for line in block:
        match = _ARGUMENT.fullmatch(line)
        is_indented = line.startswith(" ")
        names = re.sub(r"\*", "", match[1]).split(", ") if match else []
        if match and set(names) <= set(arguments):
            items.append((match[1].replace("*", ""), match[2]))
            is_item = True
        elif is_item and (is_indented or not items[-1][1].endswith(".")):
            items[-1] = (items[-1][0], f"{items[-1][1]} {line.strip()}")
        elif is_item or not texts:
            texts.append(line.strip())
            is_item = False
        else:
            texts[-1] += f" {line.strip()}"
    return texts, [
        f":param {name}: {_inline(text)}"
        for names, text in items
        for name in names.split(", ")
    ]


def _inline(text: str) -> str:
    """Marks code and escapes what else would be markup."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without a partner
        return re.sub(r"([\\*_|`])", r"\\\1", text)
    return "".join(
        f"``{part}``\\ " if index % 2 else re.sub(r"([\\*_|])", r"\\\1", part)
        for index, part in enumerate(parts)
    )


def _literal(block: Sequence[str]) -> list[str]:
    return [
        ".. code-block:: python"
        if block[0].startswith((">>>", "@", "import", "with"))
        else ".. code-block:: text",
        "",
        *(f"   {line}" for line in block),
        "",
    ]


def _dedented(block: Sequence[str]) -> list[str]:
    return inspect.cleandoc("\n" + "\n".join(block)).split("\n")


def _arguments(item: Any) -> set[str]:
    try:
        return set(inspect.signature(item).parameters)
    except (TypeError, ValueError):
        return set()


def _process(
    app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]
) -> None:
    del app, what, name, options
    lines[:] = to_rst(lines, _arguments(item))


def _skip(
    app: Any, what: str, name: str, item: Any, skip: bool, options: Any
) -> bool | None:
    """Leaves out fields of a NamedTuple, which Python describes by numbers."""
    del app, what, name, skip, options
    is_field = (getattr(item, "__doc__", None) or "").startswith(_FIELD)
    return True if is_field else None  # None: as autodoc decides


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}
