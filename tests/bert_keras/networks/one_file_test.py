"""A network of a user's, in one file, through the whole life cycle."""

import json
import os
import sys
import tempfile
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest

from bert_keras import (
    checkpoint,
    errors,
    formats,
    named_networks,
    predictor,
    vocabulary_surgery,
)
from bert_keras import model as model_lib
from bert_keras.data import records
from bert_keras.serving import saved_model
from bert_keras.training import finetune
from tests import tiny
from tests.examples import mean_network
from trainers import describe

CONFIG = mean_network.MeanConfig(vocab_size=len(tiny.VOCABULARY))
ROWS = "good film\tyes\nfine film\tyes\nbad film\tno\ndull plot\tno\n"
TEXTS = ["a good film", "the plot is dull", "", "very fine"]


class OneFileTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        start, train, cls.run_folder = (
            os.path.join(folder.name, name)
            for name in ("start", "train.tsv", "run")
        )
        model = model_lib.BertModel(CONFIG.build_encoder(), None)
        checkpoint.save(start, model, tiny.tokenizer(), step=0)
        with open(train, "w", encoding="utf-8") as file:
            file.write("text\tlabel\n" + 8 * ROWS)
        cls.model = finetune.finetune(
            start,
            train,
            train,
            task="classification",
            output=cls.run_folder,
            epochs=20,
            batch_size=8,
            seq_length=16,
            learning_rate=0.01,
        )

    def test_learns_from_records_and_predicts(self):
        labels = [a["label"] for a in self.model.predict(TEXTS[:2])]
        self.assertEqual(labels, ["yes", "no"])
        self.assertLen(
            records.Records(os.path.join(self.run_folder, "records")), 32
        )

    def test_its_checkpoint_names_it(self):
        saved = checkpoint.read(self.run_folder)
        self.assertEqual(saved.config, CONFIG)
        self.assertEqual(
            saved.metadata["network"]["name"], "tests.examples.mean_network"
        )
        again = predictor.load(self.run_folder)
        self.assertEqual(again.predict(TEXTS), self.model.predict(TEXTS))

    def test_its_checkpoint_imports_nothing(self):
        with mock.patch.dict(sys.modules):
            del sys.modules["tests.examples.mean_network"]
            with self.assertRaisesRegex(
                errors.InputError, "config.json: its network is in the module"
            ):
                checkpoint.read(self.run_folder)
            self.assertNotIn("tests.examples.mean_network", sys.modules)

    def test_its_savedmodel_answers_alike(self):
        folder = os.path.join(self.create_tempdir().full_path, "mean")
        served = tf.saved_model.load(saved_model.export(self.model, folder))
        tokens = served.signatures["tokens"]
        self.assertEqual(
            set(tokens.structured_input_signature[1]), set(CONFIG.inputs)
        )
        answers = served.signatures["serving_default"](text=tf.constant(TEXTS))
        np.testing.assert_array_equal(
            [label.decode() for label in answers["label"].numpy()],
            [answer["label"] for answer in self.model.predict(TEXTS)],
        )

    def test_saves_as_a_keras_file(self):
        path = os.path.join(self.create_tempdir().full_path, "mean.keras")
        self.model.model.save(path)
        again = keras.saving.load_model(path)
        self.assertEqual(again.encoder.config, CONFIG)
        np.testing.assert_array_equal(
            again(tiny.inputs())["label"],
            self.model.model(tiny.inputs())["label"],
        )

    def test_is_in_no_format_of_berts(self):
        for module in formats.FORMATS.values():
            with self.assertRaisesRegex(
                errors.InputError, "expected an? (BERT|ELMo)"
            ):
                module.write(
                    self.create_tempdir().full_path,
                    self.model.model,
                    self.model.tokenizer,
                )

    def test_a_json_file_of_the_users_names_it(self):
        path = self.create_tempfile("mean.json").full_path
        with open(path, "w", encoding="utf-8") as file:
            json.dump(CONFIG.to_dict() | {"hidden_size": 24}, file)
        self.assertEqual(
            named_networks.parse(path, vocab_size=9),
            mean_network.MeanConfig(vocab_size=9, hidden_size=24),
        )

    def test_is_described_weight_by_weight(self):
        parts = list(describe.parts(CONFIG, seq_length=8))
        encoder = self.model.model.encoder
        self.assertEqual(
            sum(part.parameters for part in parts), encoder.count_params()
        )
        # One matmul of each token and the mean beside it, 2 FLOPs a weight.
        self.assertEqual(sum(part.flops for part in parts), 2 * 8 * 32 * 16)
        self.assertEqual(CONFIG.describe(), "1 layers x 16, vocabulary 36")

    def test_its_vocabulary_stays(self):
        with self.assertRaisesRegex(errors.InputError, "a BERT network"):
            vocabulary_surgery.add_tokens(
                self.model.model, self.model.tokenizer, ["movie"]
            )

    def test_its_weights_have_a_depth(self):
        depths = {
            variable.path: CONFIG.layer_index(variable.path)
            for variable in self.model.model.trainable_variables
        }
        self.assertEqual(
            depths,
            {
                "encoder/token": 0,
                "encoder/mix/kernel": 1,
                "encoder/mix/bias": 1,
                "head/label/score/kernel": 2,
                "head/label/score/bias": 2,
            },
        )


class OneSegmentTest(absltest.TestCase):
    """The whole of GPT's network, whose inputs are fewer than BERT's."""

    @pytest.mark.slow
    def test_answers_and_is_served_without_segments(self):
        model = predictor.Predictor(
            tiny.classifier(num_segments=1, causal=True, embedding_norm=False),
            tiny.tokenizer(),
        )
        folder = os.path.join(self.create_tempdir().full_path, "gpt")
        served = tf.saved_model.load(saved_model.export(model, folder))
        inputs = served.signatures["tokens"].structured_input_signature[1]
        self.assertEqual(set(inputs), {"token_ids", "padding_mask"})
        served = served.signatures["serving_default"](text=tf.constant(TEXTS))
        np.testing.assert_allclose(
            served["score"],
            [answer["score"] for answer in model.predict(TEXTS)],
            atol=1e-5,
        )


if __name__ == "__main__":
    absltest.main()
