"""BUILD loads in Bazel and names every test and main; the lock fits the ranges.

Bazel runs without network here: a folder with the rules that Bazel before 8
has built in replaces rules_python. Where Bazel is not installed, or when
this test itself runs in Bazel, the questions to Bazel are skipped.
"""

import ast
import os
import pathlib
import shutil
import subprocess
import tempfile

from absl.testing import absltest, parameterized
from packaging import requirements, utils

ROOT = pathlib.Path(__file__).absolute().parents[1]

RULES = """
py_binary = native.py_binary
py_library = native.py_library
py_test = native.py_test
"""


def _paths(*patterns):
    """Python files of the project that match, as paths without .py."""
    return {
        str(file.relative_to(ROOT).with_suffix(""))
        for pattern in patterns
        for file in ROOT.glob(pattern)
    }


def _is_main(path):
    return path.endswith("__main__") or (
        'if __name__ == "__main__":' in (ROOT / f"{path}.py").read_text()
    )


def _lines(name):
    """The requirements in a file, without comments."""
    for line in (ROOT / name).read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line:
            yield requirements.Requirement(line)


def _holds(requirement, python):
    """Whether a requirement is meant for this Python (on Linux)."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }
    marker = requirement.marker
    return marker is None or marker.evaluate(environment)


class BazelTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if not shutil.which("bazel"):
            raise absltest.SkipTest("Bazel is not installed.")
        if "TEST_WORKSPACE" in os.environ:
            raise absltest.SkipTest("Already running in Bazel.")
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        scratch = pathlib.Path(folder.name)

        rules = scratch / "rules_python"
        (rules / "python").mkdir(parents=True)
        (rules / "WORKSPACE").touch()
        (rules / "python" / "BUILD").touch()
        (rules / "python" / "defs.bzl").write_text(RULES)

        bazel = [
            "bazel",
            "--nohome_rc",  # Debian's Bazel needs the system's.
            f"--output_user_root={scratch / 'user'}",
            f"--output_base={scratch / 'base'}",
            "--max_idle_secs=60",
        ]
        cls.addClassCleanup(
            subprocess.run, [*bazel, "shutdown"], cwd=ROOT, capture_output=True
        )
        query = subprocess.run(
            [
                *bazel,
                "query",
                "//...",
                "--output=label_kind",
                f"--override_repository=rules_python={rules}",
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if query.returncode:
            raise AssertionError(f"BUILD does not load:\n{query.stderr}")
        cls.targets = {
            "py_test": set(),
            "py_binary": set(),
            "py_library": set(),
        }
        for line in query.stdout.splitlines():
            rule, _, label = line.split()  # "py_test rule //:tests/build_test"
            if rule in cls.targets:
                cls.targets[rule].add(label.removeprefix("//:"))

    def test_every_test_has_its_target(self):
        self.assertEqual(_paths("tests/**/*_test.py"), self.targets["py_test"])

    def test_every_main_has_its_target(self):
        files = _paths("trainers/*.py", "export/*.py", "benchmarks/*.py")
        files |= _paths("demo/*.py")
        mains = {path for path in files if _is_main(path)}
        binaries = self.targets["py_binary"]
        self.assertEmpty(mains - binaries, "BUILD does not see these mains.")
        self.assertEmpty(
            binaries - mains,
            "These have no `if __name__ == '__main__'`: list them in BUILD "
            "among the libraries that lie beside the mains.",
        )

    def test_every_folder_has_its_library(self):
        folders = {"bert_keras", "trainers", "export", "demo", "benchmarks"}
        self.assertContainsSubset(folders, self.targets["py_library"])


class MainsTest(absltest.TestCase):
    """What BUILD says of mains, read without Bazel."""

    def test_the_libraries_beside_the_mains_are_listed(self):
        (listed,) = (
            ast.literal_eval(word.value)
            for node in ast.parse((ROOT / "BUILD").read_text()).body
            if isinstance(node, ast.Assign) and node.targets[0].id == "MAINS"
            for word in node.value.keywords
            if word.arg == "exclude"
        )
        beside = {
            f"*/{path.rpartition('/')[2]}.py"
            for path in _paths(
                "trainers/*.py", "export/*.py", "benchmarks/*.py"
            )
            if not _is_main(path)
        }
        self.assertEqual(set(listed), beside)


class RequirementsTest(parameterized.TestCase):
    @parameterized.parameters("3.10", "3.11", "3.12", "3.13")
    def test_the_lock_satisfies_every_range(self, python):
        locked = {
            utils.canonicalize_name(pin.name): pin
            for pin in _lines("requirements.lock")
            if _holds(pin, python)
        }
        for wanted in _lines("requirements.txt"):
            if not _holds(wanted, python):
                continue
            name = utils.canonicalize_name(wanted.name)
            self.assertIn(name, locked, "requirements.lock lacks it.")
            (pin,) = locked[name].specifier
            self.assertTrue(
                wanted.specifier.contains(pin.version),
                f"requirements.lock has {locked[name]}, requirements.txt asks "
                f"for {wanted}; lock again (requirements.lock says how).",
            )

    @parameterized.parameters(
        ("2.20.0", False),  # tensorflow/text#1486 came in 2.20.1
        ("2.20.1", True),
        ("2.21.0", False),
        ("2.21.1", True),
    )
    def test_releases_of_tensorflow_text_that_work(self, version, works):
        ranges = {
            line.name: line.specifier for line in _lines("requirements.txt")
        }
        self.assertEqual(ranges["tensorflow-text"].contains(version), works)
        # There is one for each minor that tensorflow may have.
        if works:
            minor = version.rpartition(".")[0]
            self.assertTrue(ranges["tensorflow"].contains(f"{minor}.0"))

    def test_bazel_knows_every_requirement(self):
        (listed,) = (
            ast.literal_eval(node.value)
            for node in ast.parse((ROOT / "BUILD").read_text()).body
            if isinstance(node, ast.Assign)
            and node.targets[0].id == "REQUIREMENTS"
        )
        wanted = {
            utils.canonicalize_name(line.name).replace("-", "_")
            for line in _lines("requirements.txt")
        }
        self.assertEqual(set(listed), wanted)


if __name__ == "__main__":
    absltest.main()
