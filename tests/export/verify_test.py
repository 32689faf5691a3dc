import os
import subprocess
import sys

from absl.testing import absltest

from bert_keras.serving import manifest
from tests.bert_keras.serving.manifests import MANIFEST

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


class VerifyTest(absltest.TestCase):
    def version(self, **changes):
        folder = self.create_tempdir().full_path
        with open(os.path.join(folder, "saved_model.pb"), "w") as file:
            file.write("graph")
        manifest.write(folder, MANIFEST | changes)
        return folder

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
