"""The console command: its list, its examples, and how it names itself."""

import ast
import os
import pathlib
import re
import subprocess
import sys
from unittest import mock

import pytest
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import commands

ROOT = pathlib.Path(__file__).absolute().parents[2]
COMMANDS = sorted(commands.COMMANDS)

# Calls the entry point and prints, last, whether TensorFlow was imported.
SCRIPT = """
import sys
sys.argv[0] = "bert-keras"
from bert_keras import commands
try:
    commands.main()
finally:
    print("tensorflow" in sys.modules)
"""


def call(*arguments):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_CACHE": "/-", "KAGGLEHUB_CACHE": "/-"},
    )


def source(command):
    """The module of a command, which is not imported."""
    path = ROOT / (commands.COMMANDS[command].replace(".", "/") + ".py")
    return ast.parse(path.read_text(encoding="utf-8"))


class CommandsTest(parameterized.TestCase):
    @parameterized.parameters((), ("--help",), ("-h",))
    def test_the_list_needs_no_tensorflow(self, *arguments):
        done = call(*arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        *lines, imported = done.stdout.splitlines()
        self.assertEqual(imported, "False")
        self.assertLessEqual(max(map(len, lines)), 80)
        listed = re.findall(r"^  ([a-z-]+)  +[A-Z]", done.stdout, re.MULTILINE)
        self.assertEqual(listed, list(commands.COMMANDS))

    def test_the_version_needs_no_tensorflow(self):
        line, imported = call("--version").stdout.splitlines()
        self.assertEqual(line, f"bert-keras {bert_keras.__version__}")
        self.assertEqual(imported, "False")

    @parameterized.parameters(
        ("finetunes", "did you mean finetune?"),
        ("fine-tune", "did you mean finetune?"),
        ("export_tflite", "did you mean export-tflite?"),
        ("xyz", "expected one of prepare, pretrain, "),
        ("--checkpoint=runs", "the command comes first, then its flags."),
    )
    def test_an_unknown_command_is_one_line(self, name, hint):
        done = call(name)
        self.assertEqual((done.returncode, done.stdout), (1, "False\n"))
        (line,) = done.stderr.splitlines()
        self.assertStartsWith(line, f"error: {name} is not a command")
        self.assertIn(hint, line)

    @parameterized.parameters(COMMANDS)
    def test_an_example_follows_the_first_sentence(self, command):
        tree = source(command)
        documentation = ast.get_docstring(tree)
        sentence, example = documentation.split("\n\n")[:2]
        self.assertRegex(sentence, r"^[A-Z].*\.$")
        self.assertRegex(
            example.splitlines()[0], rf"^  (\S.* )?bert-keras {command} "
        )
        self.assertIn(
            "run",
            {n.name for n in tree.body if isinstance(n, ast.FunctionDef)},
        )
        # Also when it says python -m.
        for line in commands.as_called(documentation).splitlines():
            self.assertLessEqual(len(line), 80, line)

    def test_every_command_in_a_docstring_exists(self):
        for command in COMMANDS:
            documentation = ast.get_docstring(source(command))
            self.assertNotIn("python -m", documentation)
            for name in re.findall(r"bert-keras ([\w-]+)", documentation):
                self.assertIn(name, commands.COMMANDS)

    def test_commands_are_named_as_the_running_one_was_called(self):
        text = "`bert-keras verify`, bert-keras export-savedmodel --x=1"
        self.assertEqual(
            commands.command_line("verify"), "python -m export.verify"
        )
        self.assertEqual(
            commands.as_called(text),
            "`python -m export.verify`, python -m export.saved_model --x=1",
        )
        with mock.patch.object(commands, "_called_by_name", True):
            self.assertEqual(
                commands.command_line("verify"), "bert-keras verify"
            )
            self.assertEqual(commands.as_called(text), text)

    def test_a_command_gets_its_flags_and_its_own_name(self):
        done = call("finetune", "--help")
        self.assertEqual(done.stderr, "")
        self.assertIn("\n  bert-keras finetune --task=", done.stdout)
        self.assertIn("\n  --recipe\n", done.stdout)
        self.assertIn("\n  --learning_rate=5e-05\n", done.stdout)
        self.assertNotIn("python -m", done.stdout)
        done = call("finetune", "--learning_rat=1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("error: Unknown command line flag", done.stderr)

    def test_ctrl_c_during_the_import_stops_with_an_exit_code(self):
        argv = ["bert-keras", "predict"]
        with (
            mock.patch.object(sys, "argv", argv),
            mock.patch.object(commands, "_called_by_name", False),
            mock.patch(
                "importlib.import_module", side_effect=KeyboardInterrupt
            ),
            self.assertRaisesRegex(SystemExit, "stopped"),
        ):
            commands.main()

    @pytest.mark.slow
    def test_a_hint_is_a_command_that_can_be_typed(self):
        done = call("predict", "--checkpoint=bert-base-uncased", "--input=x")
        self.assertEqual(done.returncode, 1)
        self.assertIn("hf download google-bert/bert-base", done.stderr)
        folder = self.create_tempdir().full_path
        done = call("pretrain", f"--records={folder}", f"--output={folder}/run")
        self.assertIn("Make one with `bert-keras prepare`.", done.stderr)


if __name__ == "__main__":
    absltest.main()
