"""The probability of each token of a text, against one row after another."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import checkpoint, errors
from bert_keras import model as model_lib
from bert_keras.tasks import classification, masked_lm, token_scores
from tests import sharp, tiny

TOKENIZER = tiny.tokenizer()
VOCABULARY = TOKENIZER.vocabulary
TEXTS = ["the film was dull", "", "电影", "not very good " * 9, "zebra film"]


class TokenScoresTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        task = masked_lm.MaskedLM(objective="none", seq_length=16)
        encoder = tiny.bert().build_encoder()
        cls.model = model_lib.BertModel(encoder, task.adapt([], TOKENIZER))
        sharp.spread(cls.model, 1)

    def load(self, **settings):
        folder = self.create_tempdir().full_path
        checkpoint.save(folder, self.model, TOKENIZER, step=1)
        return bert_keras.load(folder, task="token_scores", settings=settings)

    def log_probs(self, ids, place):
        """log P of each entry (V,) at a place of a row of ids."""
        row = tf.constant([ids])
        features = {
            "token_ids": row,
            "segment_ids": tf.zeros_like(row),
            "padding_mask": tf.ones_like(row),
            "positions": tf.constant([[place]]),
        }
        logits = self.model(features)["masked_lm"][0, 0].numpy()
        logits = logits.astype(np.float64) - logits.max()
        return logits - np.log(np.exp(logits).sum())

    @parameterized.product(masked=(True, False), top_k=(None, 3))
    def test_the_scores_are_those_of_one_row_after_another(self, masked, top_k):
        settings = {"masked": masked} | ({"top_k": top_k} if top_k else {})
        answers = self.load(**settings).predict(TEXTS)
        for text, answer in zip(TEXTS, answers, strict=True):
            (inner,) = TOKENIZER(tf.constant([text])).to_list()
            inner = inner[:14]
            ids = [2, *inner, 3]
            self.assertEqual(answer["token"], [VOCABULARY[i] for i in inner])
            expected = []
            for place, own in enumerate(inner, start=1):
                asked = list(ids)
                if masked:
                    asked[place] = TOKENIZER.mask_id
                log_probs = self.log_probs(asked, place)
                expected.append(log_probs[own])
                if top_k:
                    best = np.argsort(-log_probs)[:top_k]
                    self.assertEqual(
                        answer["tokens"][place - 1],
                        [VOCABULARY[i] for i in best],
                    )
                    np.testing.assert_allclose(
                        answer["scores"][place - 1],
                        np.exp(log_probs[best]),
                        rtol=1e-4,
                    )
            np.testing.assert_allclose(
                answer["log_prob"], expected, rtol=1e-4, atol=1e-5
            )
            self.assertAlmostEqual(answer["score"], sum(expected), places=3)
            self.assertEqual("tokens" in answer, bool(top_k))
        self.assertEqual(answers[1]["token"], [])
        self.assertEqual(
            [answer["truncated"] for answer in answers],
            [False, False, False, True, False],
        )

    @parameterized.parameters(
        (classification.Classification(labels=("a", "b")), "classification"),
        (None, "no task"),
    )
    def test_a_checkpoint_without_the_head_is_refused(self, task, found):
        encoder = tiny.bert(max_position_embeddings=128).build_encoder()
        folder = self.create_tempdir().full_path
        checkpoint.save(
            folder, model_lib.BertModel(encoder, task), TOKENIZER, step=1
        )
        with self.assertRaisesRegex(
            errors.InputError,
            f"of a masked language model, found one of {found}",
        ):
            bert_keras.load(folder, task="token_scores")

    def test_it_has_no_labelled_rows_and_no_device_masks_each_token(self):
        task = token_scores.TokenScores()
        with self.assertRaisesRegex(errors.InputError, "x.tsv is to be read"):
            task.read_examples("x.tsv")
        with self.assertRaisesRegex(errors.InputError, "masked=true: a TFL"):
            task.for_device()
        as_it_is = token_scores.TokenScores(masked=False)
        self.assertEqual(as_it_is.for_device(), as_it_is)

    def test_less_than_one_is_refused(self):
        with self.assertRaisesRegex(errors.InputError, "top_k=0: expected 1"):
            self.load(top_k=0)


if __name__ == "__main__":
    absltest.main()
