"""Objectives beside masked LM, from the records to the exported model."""

import functools
import json
import os
import shutil
import tempfile

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import checkpoint
from tests import tiny
from tests.trainers import mains
from tests.trainers.prepare_test import corpus

OBJECTIVES = {
    "replaced_tokens": {"objective": "replaced_tokens"},
    "token_order": {"objective": "token_order", "masked_unit": "words"},
    "masked_lm": {
        "masked_group": "spans",
        "span_boundary": True,
        "detect_masked": True,
    },
}
TERMS = {"replaced_tokens": "replaced", "token_order": "token_order"}
_records = tempfile.TemporaryDirectory()
TEXTS = ["the film is very good", "a dull plot", ""]


@functools.cache
def records():
    """The folder of records of single texts, with word boundaries."""
    path = functools.partial(os.path.join, _records.name)
    code, _, error = mains.call(
        "trainers.prepare",
        input=mains.write(path("corpus.txt"), corpus(200)),
        vocab=mains.write(path("vocab.txt"), "\n".join(tiny.VOCABULARY)),
        output=path("records"),
        seq_length=32,
        sentence_objective="none",
        word_boundaries="tokenizer",
        dev_fraction=0.1,
        workers=1,
    )
    assert not code, error
    return path("records")


def tearDownModule():
    _records.cleanup()
    mains.close()


class ObjectivesTest(parameterized.TestCase):
    def pretrain(self, name, output, **flags):
        flags = {"steps": 12, "save_every": 4, "learning_rate": 3e-3} | flags
        code, _, error = mains.call(
            "trainers.pretrain",
            records=records(),
            output=output,
            model="" if "init" in flags else "tiny",
            batch_size=16,
            report_to="",
            evaluate_batches=1000,
            **OBJECTIVES[name],
            **flags,
        )
        self.assertEqual((code, error), (0, ""))
        with open(os.path.join(output, "log.jsonl"), encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def path(self, name):
        return os.path.join(self.create_tempdir().full_path, name)

    @parameterized.parameters(*OBJECTIVES)
    @pytest.mark.slow_after(1)
    def test_a_run_in_parts_is_the_run_and_is_evaluated_alike(self, name):
        output = self.path("run")
        *_, last = self.pretrain(name, output)
        metrics = bert_keras.evaluate(
            output, os.path.join(records(), "dev"), batch_size=16
        )
        self.assertNotEmpty(metrics)
        for metric, value in metrics.items():
            self.assertAlmostEqual(last[f"dev/{metric}"], value, places=5)
        whole = checkpoint.read(output).metadata["sha256"]
        first, *later = checkpoint.steps(output)
        for step in later:
            shutil.rmtree(checkpoint.step_folder(output, step))
        checkpoint.mark(output, "latest", first)
        if os.path.lexists(os.path.join(output, "best")):
            os.remove(os.path.join(output, "best"))
        self.pretrain(name, output)
        again = checkpoint.read(output).metadata["sha256"]
        self.assertEqual(again, whole)

    @pytest.mark.slow
    def test_the_generator_is_part_of_the_checkpoint(self):
        output, more = self.path("run"), self.path("more")
        *_, first = self.pretrain("replaced_tokens", output, steps=40)
        log = self.pretrain(
            "replaced_tokens", more, init=output, learning_rate=1e-9
        )
        self.assertAlmostEqual(
            log[-1]["dev/loss/generator"],
            first["dev/loss/generator"],
            places=2,
        )

    @parameterized.parameters("replaced_tokens", "token_order")
    @pytest.mark.slow
    def test_the_exported_model_answers_alike(self, name):
        output, exported = self.path("run"), self.path("exported")
        self.pretrain(name, output)
        code, _, error = mains.call(
            "export.saved_model", checkpoint=output, output=exported
        )
        self.assertEqual((code, error), (0, ""))
        code, _, error = mains.call(
            "export.tflite", checkpoint=output, output=self.path("a.tflite")
        )
        self.assertEqual((code, error), (0, ""))
        stored = tf.train.list_variables(
            os.path.join(exported, "1", "variables", "variables")
        )
        sizes = [
            np.prod(shape) for _, shape in stored if shape not in ([], [2])
        ]
        model = bert_keras.load(output).model
        read = model.encoder.count_params() + (
            model.head.by_name()[TERMS[name]].count_params()
        )
        self.assertLessEqual(sum(sizes), read)
        answers = bert_keras.load(output).predict(TEXTS)
        self.assertEqual(len(answers[0]["token"]), 5)
        self.assertTrue(
            np.isfinite(
                answers[0]["replaced" if name[0] == "r" else "score"]
            ).all()
        )


if __name__ == "__main__":
    absltest.main()
