import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, predictor, signatures, tasks
from bert_keras.serving import saved_model as library
from bert_keras.serving import tf_serving_files
from export import saved_model
from tests import sharp, tiny
from tests.trainers import mains

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


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
        self.assertCountEqual(
            os.listdir(output), ["1", tf_serving_files.FOLDER]
        )
        for fact in ("text, text_pair ->", "docker compose", "out/serving"):
            self.assertIn(fact, done.stdout)
        # By hand and again: the manifest of what was written.
        checked = subprocess.run(
            [sys.executable, "-m", "export.verify", f"--model={output}/1"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        self.assertEqual(checked.returncode, 0, checked.stderr)
        self.assertIn("all as exported", checked.stdout)

    def test_data_of_a_language_model_is_a_text_file(self):
        path = self.create_tempfile(content="the film was fine\n北京\n")
        task = tasks.CausalLM(vocab_size=99)
        self.assertEqual(
            saved_model._data(path.full_path, task)["text"].numpy().tolist(),
            [b"the film was fine", "北京".encode()],
        )

    def test_data_of_a_task_with_labels_is_a_labelled_file(self):
        path = self.create_tempfile("rows.tsv", "text\tlabel\na\t1\nb\t0\n")
        task = tasks.Classification(labels=("0", "1"))
        self.assertEqual(
            saved_model._data(path.full_path, task)["text"].numpy().tolist(),
            [b"a", b"b"],
        )

    def test_a_folder_that_is_no_checkpoint_is_one_line(self):
        folder = self.create_tempdir().full_path
        output = os.path.join(folder, "out")
        done = self.run_main(f"--checkpoint={folder}", f"--output={output}")
        self.assertEqual(done.returncode, 1)
        self.assertStartsWith(done.stderr.splitlines()[-1], "error: ")
        self.assertNotIn("Traceback", done.stderr)
        self.assertFalse(os.path.exists(output))

    def test_the_help_has_every_signature(self):
        for name in (
            signatures.TEXT,
            signatures.TOKENS,
            signatures.CLASSIFY,
            signatures.WITH_SETTINGS,
        ):
            self.assertIn(f"\n  {name} ", saved_model.__doc__)

    def test_the_library_is_at_hand_under_the_mains_name(self):
        for name in ("export", "compare", "limited", "next_version", "save"):
            self.assertIs(getattr(saved_model, name), getattr(library, name))


class AnswerSettingsTest(parameterized.TestCase):
    def export(self, task, **flags):
        folder = self.create_tempdir().full_path
        model = sharp.make(task)
        checkpoint.save(f"{folder}/run", model.model, model.tokenizer, step=1)
        code, _, error = mains.call(
            "export.saved_model",
            checkpoint=f"{folder}/run",
            output=f"{folder}/served",
            **flags,
        )
        return folder, code, error

    @parameterized.parameters(
        {"top_k": 3}, {"candidates": "good,bad,the film,very good film"}
    )
    @pytest.mark.slow_after(1)
    def test_the_served_model_answers_as_predict_does(self, **flags):
        folder, code, error = self.export("masked_lm", **flags)
        self.assertEqual((code, error), (0, ""))
        served = tf.saved_model.load(f"{folder}/served/1")
        texts = ["a [MASK] film", "the [MASK] is [MASK]"]
        found = served.signatures["serving_default"](text=tf.constant(texts))
        model = predictor.load(f"{folder}/run", settings=flags)
        width = flags.get("top_k") or 4
        for row, expected in enumerate(model.predict(texts)):
            for mask, words in enumerate(expected["tokens"]):
                self.assertLen(words, width)
                self.assertEqual(
                    [w.decode() for w in found["tokens"].numpy()[row, mask]],
                    words,
                )
            np.testing.assert_allclose(
                found["scores"].numpy()[row, : len(expected["scores"])],
                expected["scores"],
                rtol=1e-5,
            )

    def test_a_setting_of_another_task_is_refused_in_one_line(self):
        for flags in ({"top_k": 2}, {"num_beams": 2}, {"normalize": False}):
            _, code, error = self.export("classification", **flags)
            self.assertEqual(code, 1)
            self.assertRegex(
                error,
                rf"^error: --{next(iter(flags))} is no setting of .*\.\n?$",
            )


if __name__ == "__main__":
    absltest.main()
