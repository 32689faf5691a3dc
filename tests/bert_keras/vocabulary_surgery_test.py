import re

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, predictor, vocabulary_surgery
from bert_keras import model as model_lib
from bert_keras.tokenizers import wordpiece
from bert_keras.wrappers import base as wrappers
from tests import tiny

TEXTS = ("a good film", "The plots, dulled!", "很 坏 的 电影", "xyz", "")


def randomise(model):
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0, 0.3, variable.shape))
    return model


def encode(model, tokenizer, texts=TEXTS):
    inputs = model.task.preprocess({"text": tf.constant(texts)}, tokenizer)
    names = model.encoder.config.inputs
    return inputs, model.encoder(**{name: inputs[name] for name in names})


def assert_same_encoding(one, two, texts=TEXTS):
    """one, two: a model and its tokenizer."""
    _, expected = encode(*one, texts)
    _, got = encode(*two, texts)
    for one_layer, other_layer in zip(
        expected["hidden"], got["hidden"], strict=True
    ):
        np.testing.assert_array_equal(one_layer, other_layer)
    np.testing.assert_array_equal(expected["pooled"], got["pooled"])


def bias(model):
    return model.head.masked_lm.bias.numpy()


class ResizeTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.tokenizer = tiny.tokenizer()
        self.classifier = randomise(tiny.classifier())
        self.masked_lm = randomise(tiny.masked_lm_model())

    def saved(self, model, tokenizer):
        """What comes back from an ordinary checkpoint folder."""
        folder = self.create_tempdir().full_path
        checkpoint.save(folder, model, tokenizer, step=1)
        return predictor.load(folder)

    def test_a_new_word_is_one_piece_and_the_mean_of_its_pieces(self):
        model, tokenizer = vocabulary_surgery.add_tokens(
            self.masked_lm, self.tokenizer, ["films", "goodfilm"]
        )
        ids = tokenizer(tf.constant(["films goodfilm"])).to_list()
        self.assertEqual(ids, [[36, 37]])
        old = self.masked_lm.encoder.token_table.numpy()
        new = model.encoder.token_table.numpy()
        film, s = self.tokenizer(tf.constant(["films"])).to_list()[0]
        np.testing.assert_array_equal(new[:36], old)
        np.testing.assert_allclose(new[36], (old[film] + old[s]) / 2, 1e-6)
        np.testing.assert_array_equal(new[37], old[self.tokenizer.unk_id])
        old, new = bias(self.masked_lm), bias(model)
        np.testing.assert_array_equal(new[:36], old)
        np.testing.assert_allclose(new[36], (old[film] + old[s]) / 2, 1e-6)

    def test_growing_changes_no_answer_on_other_texts(self):
        for model in (self.classifier, self.masked_lm):
            grown = vocabulary_surgery.add_tokens(
                model, self.tokenizer, ["actors", "goods"]
            )
            assert_same_encoding((model, self.tokenizer), grown)
        before = predictor.Predictor(self.classifier, self.tokenizer)
        after = vocabulary_surgery.add_tokens(
            self.classifier, self.tokenizer, ["actors"]
        )
        self.assertEqual(
            before.predict(TEXTS), self.saved(*after).predict(TEXTS)
        )

    def test_the_model_that_was_given_stays(self):
        before = [w.numpy() for w in self.masked_lm.weights]
        vocabulary_surgery.add_tokens(self.masked_lm, self.tokenizer, ["films"])
        vocabulary_surgery.prune_tokens(self.masked_lm, self.tokenizer, TEXTS)
        vocabulary_surgery.resize_positions(self.masked_lm, 128)
        for value, weight in zip(before, self.masked_lm.weights, strict=True):
            np.testing.assert_array_equal(value, weight)

    def test_words_are_cleaned_and_known_ones_passed_over(self):
        words = ["film", " Ｆilms ", "Films", "FÍLMS", "", "[MASK]", "电"]
        _, tokenizer = vocabulary_surgery.add_tokens(
            self.masked_lm, self.tokenizer, words
        )
        self.assertEqual(
            tokenizer.vocabulary, (*tiny.VOCABULARY, "ｆilms", "films")
        )
        same, tokenizer = vocabulary_surgery.add_tokens(
            self.masked_lm, self.tokenizer, []
        )
        self.assertEqual(tokenizer.fingerprint, self.tokenizer.fingerprint)
        np.testing.assert_array_equal(bias(same), bias(self.masked_lm))

    @parameterized.parameters(
        "good film", "film-like", "##er", "电视", "a" * 201
    )
    def test_a_word_that_text_is_split_within_is_refused(self, word):
        with self.assertRaisesRegex(
            errors.InputError, f"are split at .*: .*{re.escape(word)}"
        ):
            vocabulary_surgery.add_tokens(
                self.masked_lm, self.tokenizer, ["films", word]
            )

    def test_a_masked_lm_follows_its_vocabulary(self):
        task = self.masked_lm.task
        grown, tokenizer = vocabulary_surgery.add_tokens(
            self.masked_lm, self.tokenizer, ["films"]
        )
        self.assertEqual(grown.task.vocab_size, 37)
        self.assertEqual(grown.task.mask_id, task.mask_id)
        answer = self.saved(grown, tokenizer).predict(["a [MASK] films"])
        self.assertIn(answer[0]["token"][0], tokenizer.vocabulary)
        moved = wordpiece.Tokenizer(
            ["[PAD]", "x", *tiny.VOCABULARY[1:5], "y"], lowercase=True
        )
        model = randomise(tiny.masked_lm_model(vocab_size=7))
        trimmed, _ = vocabulary_surgery.prune_tokens(model, moved, ["y"])
        self.assertEqual(trimmed.task.mask_id, 4)
        self.assertEqual(trimmed.task.special_ids, (2, 3))
        self.assertEqual(trimmed.task.vocab_size, 6)
        wrapped = model_lib.BertModel(
            model.encoder, wrappers.Wrapper(model.task)
        )
        trimmed, _ = vocabulary_surgery.prune_tokens(wrapped, moved, ["y"])
        self.assertEqual(trimmed.task.unwrapped.vocab_size, 6)

    def test_trimming_keeps_specials_and_what_occurs_in_order(self):
        _, tokenizer = vocabulary_surgery.prune_tokens(
            self.masked_lm, self.tokenizer, TEXTS
        )
        text = "a good film plot ##s dull ##ed 很 坏 电 影 the , !".split()
        self.assertCountEqual(
            tokenizer.vocabulary, [*tiny.VOCABULARY[:5], *text]
        )
        indices = [tiny.VOCABULARY.index(p) for p in tokenizer.vocabulary]
        self.assertEqual(indices, sorted(indices))

    def test_trimming_changes_no_answer_on_the_texts(self):
        for model in (self.classifier, self.masked_lm):
            trimmed = vocabulary_surgery.prune_tokens(
                model, self.tokenizer, TEXTS
            )
            self.assertLess(trimmed[1].vocab_size, 36)
            assert_same_encoding((model, self.tokenizer), trimmed)
        before = predictor.Predictor(self.classifier, self.tokenizer)
        after = vocabulary_surgery.prune_tokens(
            self.classifier, self.tokenizer, TEXTS
        )
        self.assertEqual(
            before.predict(TEXTS), self.saved(*after).predict(TEXTS)
        )

    @parameterized.parameters("abc", "—abc", "x—abc", "好abc")
    def test_an_unknown_word_stays_unknown(self, text):
        # "abc" is "ab" and then nothing. Without "ab" it would be a ##bc.
        pieces = ["ab", "a", "##bc", "x", "##b", "##a", "c", "—", "好"]
        tokenizer = wordpiece.Tokenizer(
            [*tiny.VOCABULARY[:5], *pieces], lowercase=True
        )
        model = randomise(tiny.classifier(vocab_size=tokenizer.vocab_size))
        texts = [text, "a", "xbc"]
        trimmed = vocabulary_surgery.prune_tokens(model, tokenizer, texts)
        self.assertIn("ab", trimmed[1].vocabulary)
        assert_same_encoding((model, tokenizer), trimmed, texts)

    def test_a_known_word_beside_an_unknown_one_keeps_its_pieces_alone(self):
        _, tokenizer = vocabulary_surgery.prune_tokens(
            self.masked_lm, self.tokenizer, ["plots 一 zzz ☃"]
        )
        self.assertEqual(set(tokenizer.vocabulary[5:]), {"plot", "##s", "一"})

    def test_texts_without_any_piece_are_named(self):
        with self.assertRaisesRegex(errors.InputError, "found none"):
            vocabulary_surgery.prune_tokens(
                self.masked_lm, self.tokenizer, ["", "☃"]
            )

    def test_a_cut_position_table_answers_short_texts_alike(self):
        cut = vocabulary_surgery.resize_positions(self.classifier, 16)
        self.assertEqual(cut.encoder.config.max_position_embeddings, 16)
        self.assertEqual(cut.task.seq_length, 16)
        assert_same_encoding(
            (self.classifier, self.tokenizer), (cut, self.tokenizer)
        )
        self.assertLen(
            self.saved(cut, self.tokenizer).predict(["good " * 60]), 1
        )

    def test_a_longer_position_table_begins_with_the_old_one(self):
        longer = vocabulary_surgery.resize_positions(self.classifier, 200)
        old = self.classifier.encoder.embeddings.position_table.numpy()
        new = longer.encoder.embeddings.position_table.numpy()
        self.assertEqual(new.shape, (200, 16))
        np.testing.assert_array_equal(new[:64], old)
        # Su's formula, with his basis u.
        basis = (old - vocabulary_surgery.ALPHA * old[0]) / (
            1 - vocabulary_surgery.ALPHA
        )
        for position in (64, 100, 127, 128, 199):
            coarse, fine = divmod(position, 64)
            np.testing.assert_allclose(
                new[position],
                vocabulary_surgery.ALPHA * basis[coarse]
                + (1 - vocabulary_surgery.ALPHA) * basis[fine],
                atol=1e-6,
            )
        self.assertLen(np.unique(new, axis=0), 200)
        assert_same_encoding(
            (self.classifier, self.tokenizer), (longer, self.tokenizer)
        )
        longer(tiny.inputs(length=150))

    @parameterized.parameters(0, 1, 64 * 64 + 1)
    def test_an_impossible_length_is_named(self, length):
        with self.assertRaisesRegex(errors.InputError, "2 to 4,096 positions"):
            vocabulary_surgery.resize_positions(self.classifier, length)

    def test_sinusoidal_positions_have_no_table(self):
        with self.assertRaisesRegex(errors.InputError, "no table"):
            vocabulary_surgery.resize_positions(
                tiny.classifier(position="sinusoidal"), 128
            )


if __name__ == "__main__":
    absltest.main()
