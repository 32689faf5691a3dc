import json
import os
import subprocess
import sys
import tempfile

import pytest
from absl.testing import absltest

from bert_keras import checkpoint
from tests import sharp, tiny
from tests.trainers import mains

LATIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.slow
class PredictTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.run_ = os.path.join(folder.name, "run")
        cls.predictor = sharp.make("classification")
        checkpoint.save(cls.run_, cls.predictor.model, tiny.tokenizer(), step=1)

    def start(self, **environment):
        return subprocess.Popen(
            [sys.executable, "-m", "trainers.predict"]
            + [f"--checkpoint={self.run_}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=mains.ROOT,
            env={**os.environ, **environment},
        )

    def test_text_is_utf8_in_any_locale(self):
        texts = ["很 好", "a very good film", "坏 电影 é"]
        process = self.start(**LATIN)
        lines = "".join(f"{text}\n" for text in texts)
        out, said = process.communicate(lines.encode())
        self.assertEqual(process.returncode, 0, said)
        labels = [json.loads(line)["label"] for line in out.splitlines()]
        expected = [a["label"] for a in self.predictor.predict(texts)]
        self.assertIn("好", expected)
        self.assertEqual(labels, expected)

    def test_bytes_that_are_not_utf8_are_refused_in_one_line(self):
        process = self.start(**LATIN)
        _, said = process.communicate(b"a \xff film\n")
        self.assertEqual(process.returncode, 1)
        self.assertIn(b"error: standard input, line 1: expected UTF-8", said)
        self.assertNotIn(b"Traceback", said)

    def test_a_reader_that_leaves_ends_it_quietly(self):
        process = self.start()
        process.stdin.write(b"a film\n")
        process.stdin.flush()
        self.assertIn(b'"label"', process.stdout.readline())
        process.stdout.close()
        _, said = process.communicate(b"a film\n" * 100)
        self.assertEqual(process.returncode, 0, said)
        self.assertNotIn(b"Error", said)
        self.assertNotIn(b"error", said)


if __name__ == "__main__":
    absltest.main()
