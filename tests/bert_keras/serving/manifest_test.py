"""Manifests of anybody: read as data, compared with the files."""

import json
import os
from unittest import mock

import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras.serving import manifest
from tests.bert_keras.serving.manifests import MANIFEST

DEEP = "[" * 100_000


class ManifestTest(parameterized.TestCase):
    def version(self, **changes):
        folder = self.create_tempdir().full_path
        with open(os.path.join(folder, "saved_model.pb"), "w") as file:
            file.write("graph")
        manifest.write(folder, MANIFEST | changes)
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
        described = manifest.read(folder)
        described["files"][name] = {"bytes": 1, "sha256": "0" * 64}
        self.rewrite(folder, json.dumps(described))
        with self.assertRaisesRegex(
            manifest.DamagedError, "a path inside the folder"
        ):
            manifest.check(folder)

    def test_names_with_dots_are_files_like_others(self):
        folder = self.version()
        for name in ("..data", "variables.data-00000-of-00001", "a..b"):
            with open(os.path.join(folder, name), "w") as file:
                file.write(name)
        manifest.write(folder, MANIFEST)
        self.assertLen(manifest.check(folder)["files"], 4)

    @parameterized.parameters(
        ("", "is not valid"),
        ("[]", "an object as the manifest"),
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
            ("parity", {"x": MANIFEST["parity"]["sentences"] | {key: value}})
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

    def test_a_link_to_nothing_is_refused(self):
        folder = self.version()
        os.symlink("missing", os.path.join(folder, "link"))
        with self.assertRaisesRegex(manifest.DamagedError, "is a link to"):
            manifest.check(folder)

    def test_a_file_that_cannot_be_read_is_damage(self):
        folder = self.version()
        error = tf.errors.PermissionDeniedError(None, None, "saved_model.pb")
        with mock.patch.object(tf.io.gfile, "walk", side_effect=error):
            with self.assertRaisesRegex(
                manifest.DamagedError, "cannot be read: saved_model.pb"
            ):
                manifest.check(folder)

    def test_a_link_to_a_file_of_the_version_is_followed(self):
        folder = self.version()
        os.symlink("saved_model.pb", os.path.join(folder, "link"))
        manifest.write(folder, MANIFEST)
        self.assertIn("link", manifest.check(folder)["files"])

    @parameterized.parameters("file", "folder", "loop")
    def test_a_link_out_of_the_version_is_refused(self, target):
        outside = self.create_tempdir().full_path
        if target == "file":
            outside = os.path.join(outside, "secret")
            with open(outside, "w") as file:
                file.write("secret")
        folder = self.version()
        os.symlink(
            folder if target == "loop" else outside,
            os.path.join(folder, "link"),
        )
        with self.assertRaisesRegex(manifest.DamagedError, "is a link to"):
            manifest.check(folder)


if __name__ == "__main__":
    absltest.main()
