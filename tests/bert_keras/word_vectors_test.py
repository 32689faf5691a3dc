"""Words in context, against the network's states and NumPy."""

import os
import tempfile

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, static_vectors, word_vectors
from bert_keras import model as model_lib
from bert_keras.data import packing
from bert_keras.networks import bert
from tests import sharp, tiny

TEXTS = ["很好电影好", "the old film and new films", "电影 is good"]


def found(texts, word, *given, ignore_case=True):
    finder = word_vectors.WordFinder([word, *given], ignore_case=ignore_case)
    return [
        each
        for text in texts
        for each in finder.find(text)
        if each.word == word
    ]


class FinderTest(parameterized.TestCase):
    @parameterized.parameters(
        ("我喜欢吃苹果,苹果!", "苹果", (), [(4, 6), (7, 9)]),
        ("喝苹果汁", "苹果", (), [(1, 3)]),
        ("喝苹果汁", "苹果", ("苹果汁",), []),
        ("Bank, banks of the BANK", "bank", (), [(0, 4), (19, 23)]),
        ("the embankment bank's", "bank", (), [(15, 19)]),
        ("买iPhone手机", "iphone", (), [(1, 7)]),
        ("in New York 的 new yorker", "new york", (), [(3, 11)]),
        ("C++ and c++.", "c++", (), [(0, 3), (8, 11)]),
    )
    def test_words_are_found_by_their_characters(
        self, text, word, given, spans
    ):
        occurrences = found([text], word, *given)
        self.assertEqual(
            [(each.start, each.end) for each in occurrences], spans
        )

    def test_case_counts_if_the_tokenizer_keeps_it(self):
        (one,) = found(["a bank, a Bank"], "Bank", ignore_case=False)
        self.assertEqual((one.start, one.end), (10, 14))

    def test_a_text_is_split_to_words_and_characters(self):
        finder = word_vectors.WordFinder(["苹果"], ignore_case=True)
        words = [each.word for each in finder.find("苹果Pay支付, 3 good!")]
        self.assertEqual(words, ["苹果", "pay", "支", "付", "3", "good"])


class ContextTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        keras.utils.set_random_seed(1)
        config = tiny.bert(max_position_embeddings=8)
        model = model_lib.BertModel(bert.BertEncoder(config), None)
        sharp.spread(model, 1)
        cls.encoder = model.encoder
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = os.path.join(folder.name, "run")
        checkpoint.save(cls.folder, model, tiny.tokenizer(), step=1)
        cls.model = word_vectors.ContextualVectors(cls.folder, layer=1)

    def states(self, text):
        """The states of a text's own tokens, read alone."""
        tokenizer = tiny.tokenizer()
        ids = tokenizer(tf.constant([text]))
        rows = packing.pack([ids], tokenizer.frame, seq_length=8)
        inputs = {n: rows[n] for n in self.encoder.config.inputs}
        return self.encoder(**inputs)["hidden"][1].numpy()[0, 1:-1]

    @parameterized.parameters(
        ("电影", [(0, slice(2, 4)), (2, slice(0, 2))]),
        ("films", [(1, slice(5, 6))]),
        ("film", [(1, slice(2, 3))]),
    )
    def test_a_vector_is_the_mean_of_the_words_tokens(self, word, expected):
        occurrences = found(TEXTS, word)
        vectors, is_read = self.model(occurrences)
        self.assertLen(occurrences, len(expected))
        for vector, read, (text, tokens) in zip(
            vectors, is_read, expected, strict=True
        ):
            states = self.states(TEXTS[text])[tokens]
            # "films" is two tokens, of which the row has room for one.
            self.assertEqual(read, word != "films")
            if read:
                np.testing.assert_allclose(
                    vector, states.mean(axis=0), atol=1e-5
                )
            else:
                np.testing.assert_array_equal(vector, 0)

    def test_the_same_word_differs_with_its_context(self):
        one, two = self.model(found(TEXTS, "电影"))[0]
        self.assertGreater(np.abs(one - two).max(), 1e-2)

    def test_means_are_over_the_first_occurrences(self):
        texts = ["good film", "film is bad", "the film !"]
        occurrences = found(texts, "film") + found(texts, "bad")
        means, counts = self.model.means(occurrences, at_most=2)
        self.assertEqual(means.words, ("film", "bad"))
        self.assertEqual(counts, {"film": 2, "bad": 1})
        film = [self.states(texts[0])[1], self.states(texts[1])[0]]
        expected = [np.mean(film, axis=0), self.states(texts[1])[2]]
        np.testing.assert_allclose(means.values, expected, atol=1e-5)


class ComparisonTest(absltest.TestCase):
    def test_cosines_and_neighbours(self):
        random = np.random.default_rng(0)
        one, two = random.normal(size=(2, 4)), random.normal(size=(6, 4))
        two[3] = 0
        expected = np.zeros((2, 6))
        for row, column in np.ndindex(2, 6):
            x, y = one[row], two[column]
            if column != 3:
                expected[row, column] = (
                    x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
                )
        actual = word_vectors.cosines(one, two)
        np.testing.assert_allclose(actual, expected, atol=1e-12)
        vectors = static_vectors.StaticVectors(tuple("abcdef"), two)
        nearest = word_vectors.neighbours(one[1], vectors, 3)
        best = sorted(range(6), key=lambda i: -expected[1, i])[:3]
        self.assertEqual(
            [word for word, _ in nearest], ["abcdef"[i] for i in best]
        )
        np.testing.assert_allclose(
            [value for _, value in nearest], expected[1, best]
        )

    def test_principal_components_are_those_of_the_covariance(self):
        random = np.random.default_rng(0)
        vectors = random.normal(size=(30, 5)) * [5, 3, 1, 1, 1] + 7
        points, shares = word_vectors.principal_components(vectors)
        values, axes = np.linalg.eigh(np.cov(vectors.T))  # ascending
        np.testing.assert_allclose(shares, values[:-3:-1] / values.sum())
        centred = vectors - vectors.mean(axis=0)
        np.testing.assert_allclose(
            np.abs(points), np.abs(centred @ axes[:, :-3:-1]), atol=1e-9
        )
        largest = np.abs(points).argmax(axis=0)
        self.assertTrue((points[largest, [0, 1]] > 0).all())
        with self.assertRaisesRegex(errors.InputError, "3 or more"):
            word_vectors.principal_components(vectors[:2])


if __name__ == "__main__":
    absltest.main()
