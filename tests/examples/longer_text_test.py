"""The task of longer_text.py from a file of examples to a served model."""

import os

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest

from bert_keras import checkpoint, predictor
from bert_keras import model as model_lib
from bert_keras.data import records
from bert_keras.networks import bert
from bert_keras.serving import saved_model
from bert_keras.training import finetune
from tests import tiny
from tests.examples import longer_text


def write(path, count, seed):
    """Pairs of texts of 1 to 12 words, never of the same length."""
    random = np.random.default_rng(seed)
    with open(path, "w", encoding="utf-8") as file:
        file.write("text\ttext_pair\tlabel\n")
        for _ in range(count):
            sizes = random.choice(np.arange(1, 13), 2, replace=False)
            texts = [" ".join(random.choice(tiny.WORDS[:16], n)) for n in sizes]
            label = "yes" if sizes[0] > sizes[1] else "no"
            file.write("\t".join([*texts, label]) + "\n")
    return path


class LongerTextTest(absltest.TestCase):
    @pytest.mark.slow
    def test_it_is_learned_saved_loaded_and_served(self):
        folder = self.create_tempdir().full_path
        start = model_lib.BertModel(
            bert.BertEncoder(tiny.bert(initializer_range=0.2)), None
        )
        checkpoint.save(
            os.path.join(folder, "start"), start, tiny.tokenizer(), step=0
        )
        output = os.path.join(folder, "run")
        train = write(os.path.join(folder, "train.tsv"), 320, seed=1)
        dev = write(os.path.join(folder, "dev.tsv"), 64, seed=2)
        model = finetune.finetune(
            os.path.join(folder, "start"),
            train,
            dev,
            task=longer_text.LongerText(seq_length=32),
            output=output,
            epochs=4,
            batch_size=16,
            learning_rate=5e-3,
        )

        self.assertLen(records.Records(os.path.join(output, "records")), 320)
        metrics = checkpoint.read(output).metadata["scores"]
        self.assertGreater(metrics["accuracy"], 0.85)

        pairs = [("a very old film .", "good"), ("dull", "the story is new")]
        answers = predictor.load(output).predict(pairs)
        self.assertEqual([a["longer"] for a in answers], ["yes", "no"])
        self.assertEqual(answers, model.predict(pairs))

        served = tf.saved_model.load(
            saved_model.export(model, os.path.join(folder, "served"))
        )
        texts, others = map(tf.constant, zip(*pairs, strict=True))
        got = served.signatures["serving_default"](text=texts, text_pair=others)
        self.assertEqual(got["longer"].numpy().tolist(), [b"yes", b"no"])
        np.testing.assert_allclose(
            got["probability"], [a["probability"] for a in answers], atol=1e-4
        )


if __name__ == "__main__":
    absltest.main()
