"""Formats texts from data (labels, paths, names) as Markdown, safely.

In the result nothing of the text is markup: `| a`, `---` and `<script>` are
shown as they are written.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any


def code(text: str) -> str:
    r"""Formats a text as an inline code span, in which nothing is markup.

    Line ends and other invisible characters become escapes, such as \n.
    """
    text = printable(text)
    longest = _longest_fence(text)
    # Markdown strips one space on each side. Text that starts or ends with a
    # backtick needs that space; blank text, and text with spaces on both sides,
    # would lose its own.
    if longest or not text.strip() or text[0] == text[-1] == " ":
        text = f" {text} "
    fence = "`" * (longest + 1)
    return f"{fence}{text}{fence}"


def code_block(text: str, language: str = "") -> str:
    """Formats a text as a block of code."""
    fence = "`" * max(3, _longest_fence(text) + 1)
    text = "\n".join(map(printable, text.split("\n")))
    return f"{fence}{language}\n{text}\n{fence}"


def bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Formats a table; `|` in a cell does not end it, not even in code."""
    cells = [list(header), *map(list, rows)]
    lines = [
        "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |"
        for row in cells
    ]
    lines.insert(1, "|---" * len(cells[0]) + "|")
    return "\n".join(lines)


def command(name: str, flags: Mapping[str, Any]) -> str:
    """Formats a command line of this project, with one flag on each line."""
    return " \\\n  ".join(
        [
            f"bert-keras {name}",
            *(
                f"--{flag}={shlex.quote(str(value))}"
                for flag, value in flags.items()
            ),
        ]
    )


def escaped(text: str) -> str:
    r"""Escapes a text outside of code: `*a*` becomes `\*a\*`."""
    return _MARKUP.sub(r"\\\1", printable(text))


def unescaped(text: str) -> str:
    """Reverses `escaped`."""
    return re.sub(rf"\\{_MARKUP.pattern}", r"\1", text)


def printable(text: str) -> str:
    r"""Replaces invisible characters by escapes, such as \n and \u202e."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text
    )


# Characters that are markup anywhere in a line. Block markup, such as "- ",
# counts only at the start of a line or an item, where callers put no text.
_MARKUP = re.compile(r"([\\`*_\[\]<>#|&~])")


def _longest_fence(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
