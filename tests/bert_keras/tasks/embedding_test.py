import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, predictor
from bert_keras import model as model_lib
from bert_keras.networks import base as networks
from bert_keras.networks import bert
from bert_keras.tasks import base, embedding
from bert_keras.training import evaluate
from tests import tiny

ROWS = [
    {"text": "a good film", "text_pair": "a fine film", "label": "5"},
    {"text": "a very bad old plot .", "text_pair": "", "label": "0"},
    {"text": "很好电影", "text_pair": "dull", "label": "2.5"},
]


class EmbeddingTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.task = embedding.Embedding(seq_length=32).adapt(ROWS, None)
        model = model_lib.BertModel(
            bert.BertEncoder(tiny.bert(initializer_range=0.5)), cls.task
        )
        cls.model = predictor.Predictor(model, tiny.tokenizer())

    def test_learns_that_there_are_pairs_and_the_highest_label(self):
        self.assertEqual((self.task.pair, self.task.highest), (True, 5.0))
        for label in ("near", "0"):
            with self.assertRaises(errors.InputError):
                self.task.adapt([{"label": label}], None)

    def test_a_text_has_one_vector_alone_or_beside_another(self):
        alone = predictor.Predictor(
            model_lib.BertModel(
                self.model.model.encoder,
                dataclasses.replace(self.task, pair=False, seq_length=16),
            ),
            self.model.tokenizer,
        )
        for row, answer in zip(ROWS, self.model.predict(ROWS), strict=True):
            expected = alone.predict([row["text"], row["text_pair"]])
            for name, vector in zip(
                ("embedding", "embedding_pair"), expected, strict=True
            ):
                np.testing.assert_allclose(
                    answer[name], vector["embedding"], atol=1e-6
                )
                self.assertAlmostEqual(np.linalg.norm(answer[name]), 1, 5)
            self.assertAlmostEqual(
                answer["similarity"],
                np.dot(answer["embedding"], answer["embedding_pair"]),
                places=5,
            )

    def test_a_long_text_is_cut_in_its_half_of_the_row(self):
        text = " ".join(["film"] * 99)
        answer = self.model.predict([(text, "good"), (text, text)])
        np.testing.assert_allclose(
            answer[0]["embedding"], answer[1]["embedding_pair"], atol=1e-6
        )
        self.assertAlmostEqual(answer[1]["similarity"], 1.0, 5)


class VectorsTest(parameterized.TestCase):
    """Which vector of a text it is, against NumPy on the text alone."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.encoder = tiny.bert(initializer_range=0.5).build_encoder()

    def vector(self, text, layers, pooling, normalize):
        tokenizer = tiny.tokenizer()
        (ids,) = tokenizer(tf.constant([text])).to_list()
        row = tf.constant([[2, *ids, 3]])
        features = {
            "token_ids": row,
            "segment_ids": tf.zeros_like(row),
            "padding_mask": tf.ones_like(row),
        }
        hidden = networks.encode(self.encoder, features, training=False)
        states = np.mean([hidden["hidden"][i][0] for i in layers], axis=0)
        pool = {
            "mean": lambda x: x.mean(axis=0),
            "max": lambda x: x.max(axis=0),
            "first": lambda x: x[0],
        }
        vector = pool[pooling](states)
        return vector / np.linalg.norm(vector) if normalize else vector

    @parameterized.parameters(
        ((-1,), "mean", True),
        ((0,), "max", False),
        ((-1, 1, 0), "first", False),
        ((-1, 1, 0), "max", True),
    )
    @pytest.mark.slow_after(1)
    def test_of_layers_poolings_and_lengths(self, layers, pooling, normalize):
        settings = {
            "layers": ",".join(map(str, layers)),
            "pooling": pooling,
            "normalize": normalize,
        }
        for pair in (False, True):
            task = embedding.Embedding(seq_length=32, pair=pair, **settings)
            model = predictor.Predictor(
                model_lib.BertModel(self.encoder, task), tiny.tokenizer()
            )
            for row, answer in zip(ROWS, model.predict(ROWS), strict=True):
                vectors = [
                    self.vector(row[name], layers, pooling, normalize)
                    for name in ("text", "text_pair")
                ]
                np.testing.assert_allclose(
                    answer["embedding"], vectors[0], atol=2e-5
                )
                if pair:
                    np.testing.assert_allclose(
                        answer["embedding_pair"], vectors[1], atol=2e-5
                    )
                    lengths = np.linalg.norm(vectors, axis=1)
                    self.assertAlmostEqual(
                        answer["similarity"],
                        np.dot(*vectors) / np.prod(lengths),
                        places=4,
                    )

    @parameterized.parameters(
        ({"layers": "x"}, "layers='x': expected indices"),
        ({"layers": ""}, "layers='': expected indices"),
        ({"layers": "3"}, "layers=3: the network has the layers 0 to 2"),
        ({"layers": "0,-4"}, "layers=0,-4: the network has the layers 0 to 2"),
        ({"pooling": "sum"}, "pooling=sum: expected mean, max, first"),
    )
    def test_what_is_no_layer_or_pooling_is_refused(self, settings, message):
        with self.assertRaisesRegex(errors.InputError, message):
            task = embedding.Embedding(seq_length=32, **settings)
            model_lib.BertModel(self.encoder, task)

    def test_a_saved_default_is_that_of_before_there_were_layers(self):
        old = embedding.Embedding(seq_length=32).to_dict()
        self.assertEqual(
            set(old), {"name", "seq_length", "columns", "pair", "highest"}
        )
        other = embedding.Embedding(layers="0", pooling="max", normalize=False)
        for task in (embedding.Embedding(), other):
            self.assertEqual(base.from_dict(task.to_dict()), task)

    def test_an_encoder_is_evaluated_on_pairs(self):
        folder = self.create_tempdir().full_path
        checkpoint.save(
            folder,
            model_lib.BertModel(self.encoder, None),
            tiny.tokenizer(),
            step=1,
        )
        path = os.path.join(folder, "pairs.tsv")
        with open(path, "w", encoding="utf-8") as file:
            file.write("text\ttext_pair\tlabel\n")
            for row in ROWS[:1] * 2 + ROWS[2:]:
                file.write("\t".join(row.values()) + "\n")
        by_setting = {
            pooling: evaluate.evaluate(
                folder, path, task="embedding", pooling=pooling
            )
            for pooling in ("mean", "max")
        }
        mean = evaluate.evaluate(folder, path, task="embedding")
        self.assertEqual(by_setting["mean"], mean)
        self.assertNotEqual(by_setting["max"], mean)
        self.assertIn("spearman", mean)


if __name__ == "__main__":
    absltest.main()
