"""Runs the code blocks of a Markdown page in order, as its reader would.

A `python` block runs in the page's one namespace, an `sh` block in bash; both
in the page's one folder. If the next block is `text`, it is what the block must
print, where "..." stands for any text. Blocks of other languages, and those
with `not-run` after the language, are only shown.
"""

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_FENCE = re.compile(r"^( *)(```+)([\w-]*)([^\n`]*)\n(.*?)^\1\2 *$", re.S | re.M)
_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    is_run: bool
    text: str
    line: int  # of its first line of code, from 1


def blocks(page: str) -> list[Block]:
    """Returns the fenced blocks of a page's text."""
    result = []
    for match in _FENCE.finditer(page):
        indent, _, language, rest, text = match.groups()
        result.append(
            Block(
                language,
                language in ("python", "sh") and "not-run" not in rest,
                re.sub(rf"^{indent}", "", text, flags=re.M),
                page.count("\n", 0, match.start(5)) + 1,
            )
        )
    return result


def run(
    path: str,
    folder: str,
    *,
    replace: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Runs a page's blocks in `folder` and returns how many ran.

    Args:
      replace: {text: text} in the code, such as the size of a model; each must
        occur in the page.
      environment: variables of the shell.

    Raises AssertionError, with the page's line, if a block fails or does not
    print what the page says.
    """
    with open(path, encoding="utf-8") as file:
        page = blocks(file.read())
    unused = {
        old
        for old in replace or {}
        if not any(old in each.text for each in page if each.is_run)
    }
    assert not unused, f"{path}: not in a block that runs: {unused}"
    namespace: dict[str, Any] = {"__name__": "__page__"}
    count = 0
    with _working_folder(folder):
        for block, after in zip(page, [*page[1:], None], strict=True):
            if not block.is_run:
                continue
            where, code = f"{path}:{block.line}", block.text
            for old, new in (replace or {}).items():
                code = code.replace(old, new)
            if block.language == "python":
                printed = _python(code, block.line, path, namespace)
            else:
                printed = _shell(code, where, environment or {})
            if after is not None and after.language == "text":
                _compare(printed, after.text, where)
            count += 1
    return count


def _python(code: str, line: int, path: str, namespace: dict[str, Any]) -> str:
    """Runs code, whose line numbers are the page's; returns what it prints."""
    compiled = compile("\n" * (line - 1) + code, path, "exec")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compiled, namespace)
    return output.getvalue()


def _shell(code: str, where: str, environment: Mapping[str, str]) -> str:
    """Runs commands by the tests' own Python; returns what they print."""
    path = os.pathsep.join(
        (os.path.dirname(sys.executable), os.environ["PATH"])
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path} | dict(environment),
    )
    assert not done.returncode, f"{where}: {done.stderr}\n{done.stdout}"
    return done.stdout


def _compare(printed: str, expected: str, where: str) -> None:
    checker = doctest.OutputChecker()
    if not checker.check_output(expected, printed, _OPTIONS):
        example = doctest.Example("", expected)
        difference = checker.output_difference(example, printed, _OPTIONS)
        raise AssertionError(f"{where} printed something else. {difference}")


@contextlib.contextmanager
def _working_folder(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
