"""Manifests of anybody: read as data, compared with files and servers."""

import json
import os
import subprocess
import sys

from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.serving import compatibility, manifest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
FACTS = {
    "task": {"name": "tagging"},
    "precision": "float32",
    "signatures": {"serving_default": {}},
    "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"},
    "ops": ["FastWordpieceTokenizeWithOffsets", "MatMul", "TensorListSetItem"],
    "text_ops": ["FastWordpieceTokenizeWithOffsets"],
    "attributes": {"TensorListSetItem": ["resize_if_index_out_of_bounds"]},
    "parity": {"sentences": {"numbers": 1e-7, "agreement": 1.0, "texts": 13}},
}
DEEP = "[" * 100_000


class VerifyTest(parameterized.TestCase):
    def version(self, **changes):
        folder = self.create_tempdir().full_path
        with open(os.path.join(folder, "saved_model.pb"), "w") as file:
            file.write("graph")
        manifest.write(folder, FACTS | changes)
        return folder

    def rewrite(self, folder, content):
        with open(os.path.join(folder, manifest.PATH), "w") as file:
            file.write(content)

    @parameterized.parameters(
        "/etc/passwd",
        "../saved_model.pb",
        "variables/../../secret",
        "..",
        "./saved_model.pb",
        "a//b",
        "",
        "C:\\secret",
        "..\\secret",
        "a\x00b",
    )
    def test_a_file_outside_the_folder_is_refused(self, name):
        folder = self.version()
        found = manifest.read(folder)
        found["files"][name] = {"bytes": 1, "sha256": "0" * 64}
        self.rewrite(folder, json.dumps(found))
        with self.assertRaisesRegex(
            manifest.DamagedError, "a path inside the folder"
        ):
            manifest.check(folder)

    def test_names_with_dots_are_files_like_others(self):
        folder = self.version()
        for name in ("..data", "variables.data-00000-of-00001", "a..b"):
            with open(os.path.join(folder, name), "w") as file:
                file.write(name)
        manifest.write(folder, FACTS)
        self.assertLen(manifest.check(folder)["files"], 4)

    @parameterized.parameters(
        ("", "cannot be read"),
        ("[]", "an object as the whole"),
        ("{}", "an object as files"),
        (DEEP, "nested too deeply"),
        ('{"files": ' + "9" * 5_000 + "}", "4,300 digits"),
        ('{"files": {}, "files": {}}', "twice"),
    )
    def test_what_is_no_manifest_is_one_line(self, content, message):
        folder = self.version()
        self.rewrite(folder, content)
        with self.assertRaisesRegex(manifest.DamagedError, message):
            manifest.check(folder)

    @parameterized.parameters(
        ("task", {"name": ["a"]}),
        ("task", "tagging"),
        ("signatures", []),
        ("versions", {}),
        ("versions", {"tensorflow": 2.21}),
        *(
            ("versions", {"tensorflow": version})
            for version in ("banana", "", "２.２０.０", "2", "9" * 5000)
        ),
        ("ops", "MatMul"),
        ("ops", [1]),
        ("text_ops", None),
        ("attributes", {"MatMul": 3}),
        ("precision", None),
        ("parity", {"sentences": 3}),
        ("parity", {"sentences": {"numbers": "a"}}),
        *(
            ("parity", {"x": FACTS["parity"]["sentences"] | {key: value}})
            for key in ("numbers", "agreement", "texts")
            for value in (10**400, -(10**400), 10**4000, float("nan"), 1e300)
        ),
        ("files", {"saved_model.pb": "0"}),
        ("files", {"saved_model.pb": {"bytes": "5", "sha256": "0"}}),
    )
    def test_a_part_of_another_type_is_named(self, name, value):
        folder = self.version()
        self.rewrite(folder, json.dumps(manifest.read(folder) | {name: value}))
        with self.assertRaisesRegex(
            manifest.DamagedError, f"expected .* as (file 'saved|{name})"
        ):
            manifest.check(folder)

    @parameterized.parameters(
        "pipe", "variables/pipe", manifest.PATH, "saved_model.pb"
    )
    def test_a_pipe_is_refused_and_not_waited_for(self, name):
        folder = self.version()
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.exists(path):
            os.remove(path)
        os.mkfifo(path)
        with self.assertRaisesRegex(manifest.DamagedError, "neither a file"):
            manifest.check(folder)
        os.rename(path, os.path.join(folder, "moved"))
        os.symlink("moved", os.path.join(folder, "link"))
        with self.assertRaises(manifest.DamagedError):
            manifest.check(folder)

    @parameterized.parameters("file", "folder", "loop")
    def test_a_link_out_of_the_version_is_refused(self, kind):
        outside = self.create_tempdir().full_path
        if kind == "file":
            outside = os.path.join(outside, "secret")
            with open(outside, "w") as file:
                file.write("secret")
        folder = self.version()
        os.symlink(
            folder if kind == "loop" else outside, os.path.join(folder, "link")
        )
        with self.assertRaisesRegex(manifest.DamagedError, "is a link to"):
            manifest.check(folder)

    @parameterized.parameters(*compatibility.SERVERS)
    def test_a_server_needs_the_attributes_that_are_set(self, server):
        problems = compatibility.problems(FACTS, server)
        # Measured: TensorFlow 2.12.1 loads such a model and fails in its loop,
        # "Trying to modify element 0 in a list with 0 elements"; 2.18.1 gives
        # the answers of 2.21.0.
        if server == "2.12":
            self.assertLen(problems, 1)
            self.assertIn("resize_if_index_out_of_bounds", problems[0])
        else:
            self.assertEmpty(problems)

    @parameterized.parameters(
        ("DecodeWebP", "2.19", "2.20"),
        ("GlobalShuffleDataset", "2.16", "2.17"),
        ("RFFTND", "2.14", "2.15"),
    )
    def test_a_server_needs_the_ops(self, op, without, having):
        facts = FACTS | {"ops": [*FACTS["ops"], op]}
        (problem,) = compatibility.problems(facts, without)
        self.assertIn(f"{op} came with TensorFlow {having}", problem)
        self.assertEmpty(compatibility.problems(facts, having))

    def test_an_op_that_nobody_knows_is_a_problem_of_every_server(self):
        for facts in (
            FACTS | {"ops": ["MyOwnOp"]},
            FACTS | {"text_ops": ["SentencepieceOp2"]},
        ):
            self.assertEmpty(compatibility.servers(facts))

    def test_an_older_manifest_counts_as_if_it_set_all_attributes(self):
        facts = {k: v for k, v in FACTS.items() if k != "attributes"}
        self.assertNotEmpty(compatibility.problems(facts, "2.15"))
        self.assertEmpty(compatibility.problems(facts, "2.16"))
        facts["versions"] = {"tensorflow": "2.16.2"}
        self.assertNotEmpty(compatibility.problems(facts, "2.15"))
        facts["versions"] = {"tensorflow": "2.15.1"}
        self.assertEmpty(compatibility.problems(facts, "2.15"))

    @parameterized.parameters("2.11.0", "2.21.0", "3.0", "latest", "", "2")
    def test_a_server_that_is_not_known(self, server):
        with self.assertRaisesRegex(errors.InputError, "--server"):
            compatibility.require_server(server)

    def run_main(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "export.verify", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )

    def test_the_command_says_which_servers(self):
        folder = self.version(task={"name": "\x1b[31mtagging\x07"})
        done = self.run_main(f"--model={folder}", "--server=2.18.1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("can serve it; its TensorFlow Text, 2.12.1", done.stdout)
        self.assertIn("2.13, 2.14", done.stdout)
        self.assertIn("\\x1b[31mtagging", done.stdout)
        self.assertNotIn("\x1b", done.stdout)
        done = self.run_main(f"--model={folder}", "--server=2.12")
        self.assertEqual(done.returncode, 1)
        error = done.stderr.strip().splitlines()[-1]
        self.assertStartsWith(error, "error: TF Serving 2.12 cannot serve")
        self.assertNotIn("Traceback", done.stderr)


if __name__ == "__main__":
    absltest.main()
