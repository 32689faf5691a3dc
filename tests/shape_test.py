"""How long functions may be, and what they may do to each other's variables."""

import ast
import pathlib
import re

from absl.testing import absltest

ROOT = pathlib.Path(__file__).absolute().parents[1]
MAX_LINES = 60  # of a function
FOLDERS = ("bert_keras", "trainers", "export")
# Where a variable that a closure changes is hard to follow.
ENGINE = ("bert_keras/training", "bert_keras/serving", "bert_keras/device")

# Methods that change the list, set or dict that they are called on.
CHANGING = {"append", "extend", "add", "update", "pop", "clear", "insert"}


def _functions(folders=FOLDERS):
    files = [path for each in folders for path in (ROOT / each).rglob("*.py")]
    for path in sorted(files):
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield path.relative_to(ROOT), node


def _own_names(function):
    """Names that a function binds: its arguments and what it assigns."""
    arguments = function.args
    names = {
        argument.arg
        for argument in (
            *arguments.posonlyargs,
            *arguments.args,
            *arguments.kwonlyargs,
            *filter(None, (arguments.vararg, arguments.kwarg)),
        )
    }
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def _changed_from_within(function):
    """(line, name) of variables of `function` that a closure changes."""
    outer = _own_names(function)
    closures = [
        node
        for node in ast.walk(function)
        if isinstance(node, (ast.FunctionDef, ast.Lambda))
        and node is not function
    ]
    for closure in closures:
        own = _own_names(closure)
        for node in ast.walk(closure):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in CHANGING
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in outer - own
            ):
                yield node.lineno, node.func.value.id


class ShapeTest(absltest.TestCase):
    def test_functions_of_training_are_short(self):
        long = [
            f"{path}:{node.lineno} {node.name} has {lines} lines; at most "
            f"{MAX_LINES}."
            for path, node in _functions()
            if (lines := node.end_lineno - node.lineno + 1) > MAX_LINES
        ]
        self.assertEmpty(long, "\n" + "\n".join(long))

    def test_no_function_of_training_changes_variables_of_another(self):
        wrong = [
            f"{path}:{each.lineno} is nonlocal or global: return the value."
            for path, node in _functions((*ENGINE, "export"))
            for each in ast.walk(node)
            if isinstance(each, (ast.Nonlocal, ast.Global))
        ]
        wrong += [
            f"{path}:{line} changes {name} of {node.name} from a closure."
            for path, node in _functions((*ENGINE, "export"))
            for line, name in _changed_from_within(node)
        ]
        self.assertEmpty(wrong, "\n" + "\n".join(wrong))


class MarksTest(absltest.TestCase):
    def test_no_mark_is_lost(self):
        """parameterized makes new tests, which a mark above it is not on."""
        lost = []
        for path in sorted((ROOT / "tests").rglob("*_test.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [
                    ast.unparse(each)
                    for each in getattr(node, "decorator_list", ())
                ]
                above = "".join(
                    "p" if name.startswith("parameterized.") else "m"
                    for name in names
                    if name.startswith(("parameterized.", "pytest.mark."))
                )
                if "mp" in above:
                    lost.append(f"{path.relative_to(ROOT)}:{node.lineno}")
        self.assertEmpty(lost)


class MessagesTest(absltest.TestCase):
    def test_errors_of_the_library_speak_of_arguments(self):
        """Mains turn `name` and name= into flags (errors.as_flags)."""
        wrong = []
        for path in sorted((ROOT / "bert_keras").rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
            for node in ast.walk(tree):
                name = getattr(node, "func", None)
                name = getattr(name, "attr", getattr(name, "id", ""))
                if not name.endswith("Error"):
                    continue
                text = "".join(
                    part.value
                    for part in ast.walk(node)
                    if isinstance(part, ast.Constant)
                    and isinstance(part.value, str)
                )
                # Whole commands are written as they are typed.
                commands = ("python -m", "pip install", "--flagfile", "--help")
                whole = "commands.command_line(" in ast.unparse(node)
                if re.search(r"--[a-z]", text) and not (
                    whole or any(command in text for command in commands)
                ):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
        self.assertEmpty(wrong, "\n" + "\n".join(wrong))


if __name__ == "__main__":
    absltest.main()
