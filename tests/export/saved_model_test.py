import json
import os
import subprocess
import sys
import tempfile
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors
from export import artifact, saved_model
from tests import tiny
from tests.export import sharp

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")

# What a process does that knows nothing of this project.
STRANGER = """
import json, sys
import tensorflow as tf, tensorflow_text
answer = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
answers = answer(text=tf.constant(json.loads(sys.argv[2])))
assert not [name for name in sys.modules if name.startswith("bert_keras")]
print(json.dumps({
    "label": [label.decode() for label in answers["label"].numpy()],
    "scores": answers["scores"].numpy().tolist(),
}))
"""


class SavedModelTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.predictors, cls.served, cls.paths = {}, {}, {}
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        for task in sharp.TASKS:
            predictor = sharp.make(task)
            path = saved_model.export(
                predictor, os.path.join(folder.name, task)
            )
            cls.predictors[task], cls.paths[task] = predictor, path
            cls.served[task] = tf.saved_model.load(path)

    def output(self):
        return os.path.join(self.create_tempdir().full_path, "served")

    @parameterized.parameters(*sharp.TASKS)
    def test_both_signatures_answer_like_the_predictor(self, task):
        difference = saved_model.compare(
            self.served[task], self.predictors[task]
        )
        self.assertLess(difference.numbers, 1e-5)
        self.assertEqual(difference.agreement, 1.0)

    def test_texts_get_different_answers(self):
        predictor = self.predictors["classification"]
        answers = predictor.text(**artifact.texts(predictor.task))
        self.assertGreater(np.std(answers["score"]), 0.05)

    @parameterized.product(
        task=sharp.TASKS,
        texts=(
            [],
            [""],
            ["", "the film is [MASK]"],
            [b"\xff\xfe\xc3 bad \xe5\xbd"],
            ["a very old story " * 20_000],
            ["很好"] * 70,
        ),
    )
    def test_any_batch_of_any_text_is_answered(self, task, texts):
        raw = {
            name: tf.constant(texts, tf.string)
            for name in self.predictors[task].task.texts
        }
        answers = self.served[task].signatures[saved_model.TEXT](**raw)
        for name, answer in answers.items():
            self.assertLen(answer, len(texts), name)
        expected = self.predictors[task].text(**raw)
        difference = artifact.compare(answers, expected)
        difference.require(numbers=1e-5, agreement=1.0)

    def test_opens_where_the_project_is_not(self):
        texts = ["a very good film", "坏 电影", ""]
        run = subprocess.run(
            [sys.executable, "-I", "-c", STRANGER]
            + [self.paths["classification"], json.dumps(texts)],
            cwd=self.create_tempdir().full_path,
            capture_output=True,
            text=True,
        )
        self.assertEqual(run.returncode, 0, run.stderr)
        answers = json.loads(run.stdout.splitlines()[-1])
        expected = self.predictors["classification"].predict(texts)
        self.assertEqual(answers["label"], [a["label"] for a in expected])
        np.testing.assert_allclose(
            answers["scores"], [a["scores"] for a in expected], atol=1e-5
        )

    def test_the_folder_holds_no_assets(self):
        for path in self.paths.values():
            assets = os.path.join(path, "assets")
            self.assertEmpty(os.path.isdir(assets) and os.listdir(assets))

    def test_the_next_version_follows_the_highest(self):
        output = self.output()
        self.assertEqual(saved_model.next_version(output), 1)
        for name in ("1", "7", ".unfinished-9", "notes"):
            os.makedirs(os.path.join(output, name))
        self.assertEqual(saved_model.next_version(output), 8)

    def test_a_version_that_is_there_stays(self):
        output = self.output()
        os.makedirs(os.path.join(output, "3"))
        with self.assertRaisesRegex(errors.InputError, "next free.* is 4"):
            saved_model.export(self.predictors["classification"], output, 3)
        self.assertEqual(os.listdir(output), ["3"])

    def test_no_version_is_seen_before_it_is_whole(self):
        output, seen = self.output(), []

        def rename(source, target):
            seen.extend(os.listdir(output))
            seen.extend(os.listdir(source))
            os.rename(source, target)

        os.makedirs(os.path.join(output, ".unfinished-1", "of a killed one"))
        with mock.patch.object(tf.io.gfile, "rename", rename):
            path = saved_model.export(self.predictors["classification"], output)
        self.assertEqual(path, os.path.join(output, "1"))
        self.assertIn("saved_model.pb", seen)
        self.assertNotIn("1", seen)
        self.assertEqual(os.listdir(output), ["1"])
        self.assertNotIn("of a killed one", os.listdir(path))

    def test_an_interrupted_export_leaves_nothing(self):
        output, save = self.output(), tf.saved_model.save

        def interrupted(*args, **kwargs):
            save(*args, **kwargs)
            raise KeyboardInterrupt

        with (
            mock.patch.object(tf.saved_model, "save", interrupted),
            self.assertRaises(KeyboardInterrupt),
        ):
            saved_model.export(self.predictors["classification"], output)
        self.assertFalse(os.path.exists(output))

    def test_other_answers_are_an_error_and_leave_nothing(self):
        output, other = self.output(), sharp.make("classification", seed=2)
        loaded = self.served["classification"]
        with (
            mock.patch.object(tf.saved_model, "load", lambda path: loaded),
            self.assertRaisesRegex(artifact.ExportError, "does not answer"),
        ):
            saved_model.export(other, output)
        self.assertFalse(os.path.exists(output))

    def test_a_model_that_answers_nan_is_not_exported(self):
        output, broken = self.output(), sharp.make("classification")
        weight = broken.model.head.weights[0]
        weight.assign(np.full(weight.shape, np.nan))
        with self.assertRaisesRegex(artifact.ExportError, "model itself.*NaN"):
            saved_model.export(broken, output)
        self.assertFalse(os.path.exists(output))


class MainTest(absltest.TestCase):
    def run_main(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "export.saved_model", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )

    def test_exports_a_checkpoint_and_says_how_to_serve_it(self):
        folder = self.create_tempdir().full_path
        run, output = os.path.join(folder, "run"), os.path.join(folder, "out")
        model = sharp.make("pair").model
        checkpoint.save(run, model, tiny.tokenizer(), step=1)
        done = self.run_main(f"--checkpoint={run}", f"--output={output}")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(os.listdir(output), ["1"])
        for fact in ("text, text_pair ->", "docker run", "/models/out", "curl"):
            self.assertIn(fact, done.stdout)

    def test_a_folder_that_is_no_checkpoint_is_one_line(self):
        folder = self.create_tempdir().full_path
        output = os.path.join(folder, "out")
        done = self.run_main(f"--checkpoint={folder}", f"--output={output}")
        self.assertEqual(done.returncode, 1)
        self.assertStartsWith(done.stderr.splitlines()[-1], "error: ")
        self.assertNotIn("Traceback", done.stderr)
        self.assertFalse(os.path.exists(output))


if __name__ == "__main__":
    absltest.main()
