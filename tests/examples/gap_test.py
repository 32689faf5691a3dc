"""The objective of gap.py, from a folder of a user's to a served model."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest

import bert_keras
from bert_keras.data import sentence_pairs
from bert_keras.serving import saved_model
from tests import tiny
from tests.bert_keras.data import sentence_pairs_test
from tests.trainers import mains

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
CLASSES = ("adjacent", "gap")
PAIRS = [("the film is good .", "not bad ?"), ("a story", "很 好")]


class GapTest(absltest.TestCase):
    def test_labels_are_what_they_are_called(self):
        documents = sentence_pairs_test.random_documents(500)
        (pairs,) = sentence_pairs.sample_pairs(
            sentence_pairs_test.text_of(documents),
            max_tokens=500,
            objective="tests.examples.gap",
            short_probability=0.0,
            generator=np.random.default_rng(0),
        )
        sizes = np.diff(pairs.first) + np.diff(pairs.second)
        is_complete = sizes[:, 0] < 500  # others are truncated at any end
        has_gap = (pairs.second[:, 0] > pairs.first[:, 1])[is_complete]
        np.testing.assert_array_equal(pairs.labels[is_complete], has_gap)
        self.assertGreater(len(has_gap), 300)
        self.assertAlmostEqual(pairs.labels.mean(), 0.5, delta=0.05)

    @pytest.mark.slow
    def test_it_is_learned_and_served_without_its_module(self):
        folder = self.create_tempdir().full_path
        os.makedirs(f"{folder}/my_objectives")
        shutil.copy(
            f"{ROOT}/tests/examples/gap.py", f"{folder}/my_objectives/gap.py"
        )
        self.run_command(
            folder,
            *("prepare", "--sentence_objective=my_objectives.gap"),
            f"--input={mains.write(f'{folder}/corpus.txt', mains.CORPUS)}",
            f"--vocab={self.vocab(folder)}",
            *("--seq_length=32", "--dev_fraction=0.1", "--output=records"),
            *("--workers=2", "--shard_mb=0.001"),
        )
        shutil.rmtree(f"{folder}/my_objectives")
        with open(f"{folder}/records/train/manifest.json") as file:
            manifest = json.load(file)
        self.assertEqual(manifest["objective"], "my_objectives.gap")
        self.assertEqual(manifest["sentence_classes"], [*CLASSES])
        out = self.run_command(
            folder, "describe", "--records=records", "--rows=9"
        )
        self.assertRegex(out, "Targets: next_sentence: (adjacent|gap)\n")
        network = json.dumps(tiny.bert().to_dict())
        self.run_command(
            folder,
            *("pretrain", "--records=records", "--output=base", "--steps=4"),
            f"--model={mains.write(f'{folder}/model.json', network)}",
            "--batch_size=8",
        )
        out = self.run_command(
            folder, "evaluate", "--checkpoint=base", "--data=records/dev"
        )
        self.assertIn("next_sentence_accuracy", out)
        self.check_answers(f"{folder}/base")

    def check_answers(self, run):
        asked = bert_keras.load(run, task="next_sentence")
        self.assertEqual(asked.task.class_names, CLASSES)
        answers = asked.predict(PAIRS)
        for answer in answers:
            best = int(np.argmax(answer["scores"]))
            self.assertEqual(answer["label"], CLASSES[best])
            self.assertAlmostEqual(answer["score"], answer["scores"][best])
            self.assertAlmostEqual(sum(answer["scores"]), 1, delta=1e-5)
        path = saved_model.export(asked, self.create_tempdir().full_path)
        served = tf.saved_model.load(path).signatures["serving_default"]
        first, second = (tf.constant(x) for x in zip(*PAIRS, strict=True))
        got = served(text=first, text_pair=second)
        np.testing.assert_allclose(
            got["scores"], [a["scores"] for a in answers], atol=1e-6
        )
        self.assertEqual(
            [label.decode() for label in got["label"].numpy()],
            [answer["label"] for answer in answers],
        )

    def vocab(self, folder):
        return mains.write(f"{folder}/vocab.txt", "\n".join(tiny.VOCABULARY))

    def run_command(self, folder, command, *arguments):
        """Runs a command in the folder, from which it may import modules."""
        path = os.pathsep.join([".", os.path.abspath(ROOT)])
        done = subprocess.run(
            [sys.executable, "-m", f"trainers.{command}", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        return done.stdout


if __name__ == "__main__":
    absltest.main()
