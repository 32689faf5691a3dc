"""Masked words of a text: the best ones, and given ones of several tokens."""

import os

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors, mask_filling, predictor
from bert_keras import model as model_lib
from bert_keras.device import tflite, tflite_runner
from bert_keras.serving import saved_model
from bert_keras.tasks import masked_lm
from tests import sharp, tiny

TOKENIZER = tiny.tokenizer()
TEXTS = [
    "the [MASK] is [MASK] .",
    "[MASK]",
    "a film",
    "",
    "电影 [MASK] [MASK] 好",
    "not " * 40 + "[MASK]",  # truncated: it has no mask
]


def make(**settings):
    task = masked_lm.MaskedLM(
        objective="none", seq_length=16, **settings
    ).adapt([], TOKENIZER)
    encoder = tiny.bert().build_encoder()
    model = model_lib.BertModel(encoder, task)
    sharp.spread(model, 1)
    return predictor.Predictor(model, TOKENIZER)


def probabilities(model, tokens):
    """P of each token (S, V) of a row, which is all masks' and all places'."""
    ids = [2, *[TOKENIZER.vocabulary.index(t) for t in tokens], 3]
    row = tf.constant([ids])
    features = {
        "token_ids": row,
        "segment_ids": tf.zeros_like(row),
        "padding_mask": tf.ones_like(row),
        "positions": tf.range(len(ids))[tf.newaxis],
    }
    logits = model.model(features)["masked_lm"][0]
    return tf.nn.softmax(logits).numpy()[1:-1]


class TopKTest(parameterized.TestCase):
    @parameterized.parameters(1, 3, len(tiny.VOCABULARY) + 7)
    @pytest.mark.slow_after(1)
    def test_the_best_are_those_of_the_softmax(self, top_k):
        model = make(top_k=top_k)
        tokens = ["the", "[MASK]", "is", "[MASK]", "."]
        every = probabilities(model, tokens)
        answer = model.predict(TEXTS)[0]
        count = min(top_k, len(tiny.VOCABULARY))
        for number, place in enumerate((1, 3)):
            order = np.argsort(-every[place])[:count]
            self.assertEqual(
                answer["tokens"][number],
                [TOKENIZER.vocabulary[each] for each in order],
            )
            np.testing.assert_allclose(
                answer["scores"][number], every[place][order], rtol=1e-5
            )
        self.assertEqual(answer["token"], [t[0] for t in answer["tokens"]])
        self.assertEqual(answer["score"], [s[0] for s in answer["scores"]])

    def test_one_list_for_each_mask_of_the_text(self):
        counts = [
            len(answer["tokens"]) for answer in make(top_k=2).predict(TEXTS)
        ]
        self.assertEqual(counts, [2, 1, 0, 0, 2, 0])

    def test_without_it_the_answer_is_one_word(self):
        (answer,) = make().predict(TEXTS[:1])
        self.assertEqual(set(answer), {"token", "score", "truncated"})

    def test_less_than_one_is_refused(self):
        with self.assertRaisesRegex(errors.InputError, "top_k=0: expected 1"):
            make(top_k=0)


class CandidatesTest(parameterized.TestCase):
    WORDS = "good, 电影好，actor film,good"  # of 1, 3 and 2 tokens

    def test_a_word_is_scored_with_as_many_masks(self):
        model = make(candidates=self.WORDS)
        answer = model.predict(TEXTS)[0]
        words = {
            "good": ["good"],
            "电影好": ["电", "影", "好"],
            "actor film": ["actor", "film"],
        }
        for number in range(2):
            found = dict(
                zip(
                    answer["tokens"][number],
                    answer["scores"][number],
                    strict=True,
                )
            )
            self.assertEqual(set(found), set(words))
            for word, tokens in words.items():
                size = len(tokens)
                masks = ["[MASK]"] * size
                every = probabilities(model, ["the", *masks, "is", *masks, "."])
                first = 1 + number * (size + 1)
                expected = np.prod(
                    [
                        every[first + offset][TOKENIZER.vocabulary.index(token)]
                        for offset, token in enumerate(tokens)
                    ]
                )
                np.testing.assert_allclose(found[word], expected, rtol=1e-4)
            self.assertEqual(
                answer["scores"][number],
                sorted(answer["scores"][number], reverse=True),
            )

    def test_one_list_for_each_mask_of_the_text(self):
        for words in (self.WORDS, "actor film,电影好", "good"):
            answers = make(candidates=words, top_k=2).predict(TEXTS)
            counts = [len(answer["tokens"]) for answer in answers]
            self.assertEqual(counts, [2, 1, 0, 0, 2, 0], words)
            for answer in answers:
                for tokens, scores in zip(
                    answer["tokens"], answer["scores"], strict=True
                ):
                    self.assertLen(tokens, min(2, len(words.split(","))))
                    self.assertGreater(min(scores), 0)

    def test_a_mask_that_a_word_has_no_room_at_is_not_answered(self):
        texts = ["film " * 12 + "[MASK] [MASK]", "[MASK] " * 12]
        one, three = (
            make(candidates=words).predict(texts)
            for words in ("good", "good,电影好")
        )
        self.assertEqual([len(each["tokens"]) for each in one], [2, 12])
        # Rows of 14 tokens: 12 and 1 of 3 masks, and 4 of 3.
        self.assertEqual([len(each["tokens"]) for each in three], [0, 4])
        self.assertEqual([each["truncated"] for each in three], [True, True])
        many = masked_lm.MAX_PREDICTED_MASKS + 1
        valid = tf.sequence_mask([many, 3 * many], many - 1)
        words = mask_filling.Candidates("good,电影好", TOKENIZER)
        self.assertEqual(int(tf.math.count_nonzero(words.answered(valid))), 6)

    def test_texts_are_answered_alone_as_together(self):
        model = make(candidates=self.WORDS)
        for text, answer in zip(TEXTS, model.predict(TEXTS), strict=True):
            (alone,) = model.predict([text])
            self.assertEqual(alone["tokens"], answer["tokens"])
            np.testing.assert_allclose(
                np.ravel(alone["scores"]), np.ravel(answer["scores"]), rtol=1e-4
            )

    @parameterized.parameters(
        ("", "expected words with commas"),
        (" , ,", "expected words with commas"),
        ("good,xylophone", "found 'xylophone', which has an unknown token"),
    )
    def test_what_no_mask_can_be_is_refused(self, candidates, message):
        with self.assertRaisesRegex(errors.InputError, message):
            make(candidates=candidates).predict(TEXTS[:1])

    def test_words_of_both_commas_once_each(self):
        self.assertEqual(mask_filling.words("b,a， b ,,c d"), ("b", "a", "c d"))

    def test_a_device_reads_one_row(self):
        with self.assertRaisesRegex(errors.InputError, "one row of token ids"):
            make(candidates="good").task.for_device()


class ExportsTest(parameterized.TestCase):
    @parameterized.parameters(
        ({"top_k": 3},), ({"candidates": "good,actor film"},)
    )
    @pytest.mark.slow_after(1)
    def test_a_saved_model_answers_alike(self, settings):
        model = make(**settings)
        path = saved_model.export(model, self.create_tempdir().full_path)
        served = tf.saved_model.load(path).signatures["serving_default"]
        got = served(text=tf.constant(TEXTS))
        for name, value in model.serve_text(text=tf.constant(TEXTS)).items():
            if value.dtype == tf.string:
                self.assertEqual(
                    got[name].numpy().tolist(), value.numpy().tolist()
                )
            else:
                np.testing.assert_allclose(got[name], value, atol=1e-6)

    @pytest.mark.slow
    def test_a_device_has_the_best(self):
        model = make(top_k=3)
        path = tflite.export(
            model, self.create_tempdir().full_path, seq_length=16
        )
        file = tflite_runner.File(os.fspath(path), model)
        for got, want in zip(
            file.predict([{"text": text} for text in TEXTS]),
            model.predict(TEXTS),
            strict=True,
        ):
            self.assertEqual(got["tokens"], want["tokens"])


if __name__ == "__main__":
    absltest.main()
