"""Public functions have types, and mypy finds nothing wrong with them."""

import ast
import importlib.util
import pathlib
import subprocess
import sys

from absl.testing import absltest, parameterized

import bert_keras

ROOT = pathlib.Path(__file__).absolute().parents[1]
FOLDERS = ("bert_keras", "trainers", "export")


def _is_public(name):
    return not name.startswith("_") or name.startswith("__")


def _public_functions(body):
    """Functions, and methods of classes, that have no `_` before a name."""
    for node in body:
        if isinstance(node, ast.ClassDef) and _is_public(node.name):
            yield from _public_functions(node.body)
        elif isinstance(node, ast.FunctionDef) and _is_public(node.name):
            yield node


def _untyped(function):
    """What of a function has no type; `self`, `cls` and __init__ need none."""
    arguments = function.args
    for argument in (
        *arguments.posonlyargs,
        *arguments.args,
        *filter(None, [arguments.vararg]),
        *arguments.kwonlyargs,
        *filter(None, [arguments.kwarg]),
    ):
        if argument.annotation is None and argument.arg not in ("self", "cls"):
            yield argument.arg
    if function.returns is None and function.name != "__init__":
        yield "what it returns"


class TypesTest(parameterized.TestCase):
    def test_public_functions_have_types(self):
        wrong = []
        for folder in FOLDERS:
            for path in sorted((ROOT / folder).rglob("*.py")):
                tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
                wrong += [
                    f"{path.relative_to(ROOT)}:{function.lineno} "
                    f"{function.name}: {', '.join(missing)}"
                    for function in _public_functions(tree.body)
                    if (missing := list(_untyped(function)))
                ]
        self.assertEmpty(wrong, "\n" + "\n".join(wrong))

    @parameterized.named_parameters(
        ("package", bert_keras, bert_keras._MODULES),
        ("tasks", bert_keras.tasks, ()),
    )
    def test_type_checkers_see_the_public_names(self, package, modules):
        tree = ast.parse(pathlib.Path(package.__file__).read_text("utf-8"))
        seen = {
            alias.name: node.module.removeprefix(f"{package.__name__}.")
            for block in tree.body
            if isinstance(block, ast.If)
            for node in block.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        expected = dict.fromkeys(modules, package.__name__) | package._PUBLIC
        self.assertEqual(seen, expected)

    def test_mypy_finds_nothing(self):
        """It also knows what the oldest Python's library lacks."""
        if importlib.util.find_spec("mypy") is None:
            self.skipTest("mypy is not installed.")
        run = subprocess.run(
            [sys.executable, "-m", "mypy"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)


if __name__ == "__main__":
    absltest.main()
