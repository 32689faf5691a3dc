import os
import subprocess
import sys

from absl.testing import absltest

from bert_keras import checkpoint
from bert_keras.device import tflite as library
from export import tflite
from tests import sharp, tiny

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


class MainTest(absltest.TestCase):
    def test_exports_a_checkpoint(self):
        folder = self.create_tempdir().full_path
        run, output = os.path.join(folder, "run"), os.path.join(folder, "out")
        model = sharp.make("masked_lm").model
        checkpoint.save(run, model, tiny.tokenizer(), step=1)
        done = subprocess.run(
            [sys.executable, "-m", "export.tflite", f"--checkpoint={run}"]
            + [f"--output={output}", "--quantization=dynamic"]
            + ["--seq_length=32"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertSameElements(
            os.listdir(output),
            [
                *("model_dynamic.tflite", "model_dynamic.json"),
                *("model_dynamic.md", "vocab.txt"),
            ],
        )
        self.assertIn("labels equal", done.stdout)

    def test_the_library_is_at_hand_under_the_mains_name(self):
        for name in ("export", "compare"):
            self.assertIs(getattr(tflite, name), getattr(library, name))


if __name__ == "__main__":
    absltest.main()
