import dataclasses

import numpy as np
from absl.testing import absltest

from bert_keras import errors, predictor
from bert_keras import model as model_lib
from bert_keras.networks import bert
from bert_keras.tasks import embedding
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


if __name__ == "__main__":
    absltest.main()
