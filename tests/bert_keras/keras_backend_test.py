"""Another backend of Keras is named in one line, whoever meets it first."""

import json
import os
import pathlib
import subprocess
import sys

from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import keras_backend

ROOT = pathlib.Path(__file__).absolute().parents[2]

# What the installed script `bert-keras` runs.
CONSOLE = """
import sys
sys.argv[0] = "/somewhere/bin/bert-keras"
from bert_keras.commands import main
main()
"""

try:
    import tomllib
except ImportError:  # Python 3.10
    tomllib = None


def run(*arguments, **environment):
    variables = dict(os.environ)
    variables.pop("KERAS_BACKEND", None)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=variables | environment,
        capture_output=True,
        text=True,
    )


class BackendTest(parameterized.TestCase):
    @parameterized.product(
        backend=("jax", "torch", "a_mistake"),
        code=(
            "import bert_keras; bert_keras.load",
            "import bert_keras; bert_keras.BertConfig",
            "from bert_keras.networks import bert",
        ),
    )
    def test_python_says_so_in_its_last_line(self, backend, code):
        """None of these backends need be installed."""
        done = run("-c", code, KERAS_BACKEND=backend)
        self.assertRegex(
            done.stderr.splitlines()[-1],
            rf"ImportError: .*TensorFlow.*'{backend}'.*BACKEND=tensorflow",
        )
        self.assertNotIn("No module named", done.stderr)

    @parameterized.parameters(
        "trainers.predict", "trainers.finetune", "export.saved_model"
    )
    def test_a_command_prints_one_line(self, command):
        done = run("-m", command, "--help", KERAS_BACKEND="jax")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(
            done.stderr, r"\Aerror: .*KERAS_BACKEND=tensorflow.*\n\Z"
        )
        self.assertEmpty(done.stdout)

    def test_the_console_command_prints_one_line(self):
        done = run("-c", CONSOLE, "predict", "--help", KERAS_BACKEND="jax")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(
            done.stderr, r"\Aerror: .*KERAS_BACKEND=tensorflow.*\n\Z"
        )

    @parameterized.parameters("--help", "--version")
    def test_the_console_command_answers_with_any_backend(self, flag):
        done = run("-c", CONSOLE, flag, KERAS_BACKEND="jax")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("bert-keras", done.stdout)

    def test_the_file_of_keras_is_named_if_it_chooses(self):
        home = self.create_tempdir().full_path
        path = os.path.join(home, "keras.json")
        with open(path, "w") as file:
            json.dump({"backend": "jax"}, file)
        done = run("-c", "import bert_keras", KERAS_HOME=home)
        self.assertIn(path, done.stderr.splitlines()[-1])
        done = run(
            "-c",
            "import bert_keras",
            KERAS_HOME=home,
            KERAS_BACKEND="tensorflow",
        )
        self.assertEqual(done.returncode, 0, done.stderr)

    @parameterized.parameters("{", "[]", '{"backend": null}', "")
    def test_an_odd_file_of_keras_is_left_to_keras(self, content):
        home = self.create_tempdir().full_path
        with open(os.path.join(home, "keras.json"), "w") as file:
            file.write(content)
        done = run("-c", "import bert_keras", KERAS_HOME=home)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_keras_itself_is_asked_once_it_is_imported(self):
        import keras

        self.assertEqual(keras_backend.configured()[0], keras.backend.backend())


class VersionTest(absltest.TestCase):
    def test_the_package_has_the_version_that_python_shows(self):
        if tomllib is None:
            self.skipTest("tomllib is part of Python 3.11.")
        with open(ROOT / "pyproject.toml", "rb") as file:
            project = tomllib.load(file)
        self.assertIn("version", project["project"]["dynamic"])
        self.assertNotIn("version", project["project"])
        (attribute,) = project["tool"]["setuptools"]["dynamic"][
            "version"
        ].values()
        self.assertEqual(attribute, "bert_keras.__version__")
        self.assertRegex(bert_keras.__version__, r"^\d+\.\d+\.\d+$")

    def test_the_citation_has_it_too(self):
        text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
        self.assertIn(f"\nversion: {bert_keras.__version__}\n", text)

    def test_importing_it_imports_no_tensorflow(self):
        code = (
            "import bert_keras, sys; print(bert_keras.__version__, "
            "{'keras', 'tensorflow', 'numpy'} & set(sys.modules))"
        )
        self.assertEqual(
            run("-c", code).stdout, f"{bert_keras.__version__} set()\n"
        )


if __name__ == "__main__":
    absltest.main()
