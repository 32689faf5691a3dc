"""The wheel is complete: installed, its commands run in an empty folder."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

import pytest
from absl.testing import absltest
from packaging import requirements

from bert_keras import commands

ROOT = pathlib.Path(__file__).absolute().parents[1]
PACKAGES = ("bert_keras", "trainers", "export")
FILES = ("pyproject.toml", "requirements.txt", "README.md", "LICENSE")
TOOLS = ("pip", "setuptools", "wheel")


def run(*arguments, **options):
    done = subprocess.run(
        list(map(str, arguments)), capture_output=True, text=True, **options
    )
    if done.returncode:
        raise AssertionError(f"{arguments}:\n{done.stdout}{done.stderr}")
    return done.stdout


def build(folder):
    """The wheel, built from a copy: setuptools writes beside the sources."""
    sources = folder / "sources"
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, sources / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, sources)
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index")
    run(*pip, "--no-build-isolation", "-w", folder, sources)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel, folder):
    """An environment with the wheel, and the packages that run this test."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install"),
        *("--no-deps", "--no-index", wheel),
    )
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith("-packages")]
    (packages / "of_the_test.pth").write_text("\n".join(ours))
    return python


@pytest.mark.slow
class WheelTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        lacking = [name for name in TOOLS if not importlib.util.find_spec(name)]
        if lacking:
            raise absltest.SkipTest(f"without {', '.join(lacking)}")
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        folder = pathlib.Path(temporary.name)
        cls.wheel = build(folder)
        cls.python = install(cls.wheel, folder / "environment")
        cls.empty = folder / "empty"
        cls.empty.mkdir()

    def call(self, *arguments):
        """Runs the console command in an empty folder."""
        keep = ("PYTHONPATH", "PYTHONHOME")
        environment = {k: v for k, v in os.environ.items() if k not in keep}
        environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
        return run(
            self.python.parent / commands.NAME,
            *arguments,
            cwd=self.empty,
            env=environment,
        )

    def test_every_file_is_in_it(self):
        with zipfile.ZipFile(self.wheel) as file:
            names = set(file.namelist())
        info = self.wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
        expected = {
            str(path.relative_to(ROOT))
            for package in PACKAGES
            for pattern in ("*.py", "*.flags", "*.html", "py.typed")
            for path in (ROOT / package).rglob(pattern)
        }
        self.assertContainsSubset(
            [f"{package}/py.typed" for package in PACKAGES], expected
        )
        self.assertEqual(
            {name for name in names if not name.startswith(info)}, expected
        )
        self.assertIn(f"{info}/licenses/LICENSE", names)

    def test_it_requires_what_requirements_txt_lists(self):
        with zipfile.ZipFile(self.wheel) as file:
            (name,) = (n for n in file.namelist() if n.endswith("/METADATA"))
            lines = file.read(name).decode().splitlines()
        found = {
            str(requirements.Requirement(line.partition(": ")[2]))
            for line in lines
            if line.startswith("Requires-Dist: ") and "extra ==" not in line
        }
        wanted = {
            str(requirements.Requirement(text))
            for line in (ROOT / "requirements.txt").read_text().splitlines()
            if (text := line.partition("#")[0].strip())
        }
        self.assertEqual(found, wanted)
        self.assertIn("License-Expression: Apache-2.0", lines)

    def test_every_command_prints_its_help(self):
        for command in commands.COMMANDS:
            with self.subTest(command):
                text = self.call(command, "--help")
                self.assertIn(f"bert-keras {command} ", text[:300])

    def test_a_model_is_described(self):
        # The number of parameters that KerasHub states of bert_tiny_en_uncased.
        text = self.call("describe", "--model=tiny")
        self.assertIn("4,385,920", text)

    def test_recipes_are_found_by_name(self):
        text = self.call("finetune", "--recipe=squad_small", "--help")
        self.assertIn("--doc_stride=96\n", text)
        self.assertIn("--task=question_answering\n", text)

    def test_the_version_is_that_of_the_wheel(self):
        version = self.wheel.name.split("-")[1]
        self.assertEqual(
            self.call("--version").split(), ["bert-keras", version]
        )

    def test_type_checkers_see_the_types(self):
        if not importlib.util.find_spec("mypy"):
            self.skipTest("without mypy")
        path = self.empty / "user.py"
        path.write_text(
            "import bert_keras\nreveal_type(bert_keras.load('runs'))\n"
        )
        text = run(
            *(sys.executable, "-m", "mypy", "--ignore-missing-imports"),
            *("--python-executable", self.python, "--cache-dir", os.devnull),
            *("--follow-imports", "silent", "user.py"),
            cwd=self.empty,
        )
        self.assertIn('"bert_keras.predictor.Predictor"', text)


if __name__ == "__main__":
    absltest.main()
