"""A training method of a user's, in one file, through the whole life cycle."""

import json
import os
import shutil
import tempfile

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest

from bert_keras import checkpoint, errors, predictor
from bert_keras import model as model_lib
from bert_keras.serving import saved_model
from bert_keras.tasks import classification
from bert_keras.training import finetune, profiler
from tests import tiny
from tests.examples import length_too

ROWS = (
    "good film\tyes\na very good film .\tyes\nbad\tno\nthe plot is dull\tno\n"
)
TEXTS = ["good film", "the plot is dull", "", "very fine"]
HEAD = {"label/score/kernel", "label/score/bias"}


class OneFileTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.start, cls.rows, cls.output = (
            os.path.join(folder.name, name)
            for name in ("start", "train.tsv", "run")
        )
        keras.utils.set_random_seed(1)
        model = model_lib.BertModel(
            tiny.bert(
                initializer_range=0.3, dropout=0.0, attention_dropout=0.0
            ).build_encoder(),
            None,
        )
        checkpoint.save(cls.start, model, tiny.tokenizer(), step=0)
        with open(cls.rows, "w", encoding="utf-8") as file:
            file.write("text\tlabel\n" + 8 * ROWS)
        cls.model = cls.finetune(cls.output)

    @classmethod
    def finetune(cls, output, **settings):
        task = classification.Classification(seq_length=16)
        return finetune.finetune(
            cls.start,
            cls.rows,
            cls.rows,
            task=length_too.LengthToo(task, **settings),
            output=output,
            epochs=15,
            batch_size=8,
            learning_rate=0.01,
            log_every=1,
        )

    def log(self, run, name):
        with open(os.path.join(run, "log.jsonl")) as file:
            lines = [json.loads(line) for line in file]
        return [line[name] for line in lines if name in line]

    def test_steps_are_traced_only_where_asked(self):
        self.assertIn(profiler.TRACED[-1] + 1, self.log(self.output, "step"))
        self.assertNotIn("profile", os.listdir(self.output))

    def test_its_head_learns(self):
        losses = self.log(self.output, "loss/length")
        self.assertLess(np.mean(losses[-8:]), 0.5 * np.mean(losses[:8]))

    def test_only_the_tasks_head_is_served(self):
        saved = checkpoint.read(self.output)
        self.assertIs(type(saved.task), classification.Classification)
        self.assertEqual(set(saved.head_values()), HEAD)
        self.assertEqual(
            saved.metadata["trained_as"]["wrapper"], "tests.examples.length_too"
        )
        answers = self.model.predict(TEXTS)
        self.assertEqual(answers[0]["label"], "yes")
        folder = saved_model.export(
            predictor.load(self.output), self.create_tempdir().full_path
        )
        served = tf.saved_model.load(folder).signatures["serving_default"]
        np.testing.assert_allclose(
            served(text=tf.constant(TEXTS))["scores"],
            [answer["scores"] for answer in answers],
            atol=1e-5,
        )

    def test_a_run_continues_with_its_head(self):
        again = os.path.join(self.create_tempdir().full_path, "again")
        shutil.copytree(self.output, again)
        last = checkpoint.steps(again)[-1]
        shutil.rmtree(checkpoint.step_folder(again, last))
        checkpoint.mark(again, "latest", checkpoint.steps(again)[-1])
        self.finetune(again)
        for name in ("loss", "loss/length"):
            self.assertEqual(
                self.log(again, name)[-1], self.log(self.output, name)[-1]
            )

    def test_other_settings_of_it_are_another_run(self):
        with self.assertRaisesRegex(errors.InputError, "length_too_weight"):
            self.finetune(self.output, weight=0.1)


if __name__ == "__main__":
    absltest.main()
