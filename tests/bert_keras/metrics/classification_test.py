import math
import random

import numpy as np
from absl.testing import absltest

from bert_keras.metrics import classification


class ConfusionTest(absltest.TestCase):
    # Gold a a a b b c; answers a a b b c c. Worked out by hand.
    counts = classification.confusion("aaabbc", "aabbcc", "abc")

    def test_counts_and_scores(self):
        np.testing.assert_array_equal(
            self.counts, [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
        )
        self.assertAlmostEqual(classification.accuracy(self.counts), 4 / 6)
        table = classification.per_class(self.counts)
        np.testing.assert_allclose(table[:, 0], [1, 1 / 2, 1 / 2])
        np.testing.assert_allclose(table[:, 1], [2 / 3, 1 / 2, 1])
        np.testing.assert_allclose(table[:, 2], [4 / 5, 1 / 2, 2 / 3])
        self.assertAlmostEqual(
            classification.f1_macro(table), (4 / 5 + 1 / 2 + 2 / 3) / 3
        )

    def test_matthews_is_the_correlation_of_one_hot_columns(self):
        # Gorodkin 2004: covariances summed over the classes.
        numbers = random.Random(1)
        gold = numbers.choices("abcd", k=300)
        answers = [
            g if numbers.random() < 0.6 else numbers.choice("abcd")
            for g in gold
        ]
        one, two = (
            np.array([[c == label for label in "abcd"] for c in values], float)
            for values in (gold, answers)
        )
        one, two = one - one.mean(axis=0), two - two.mean(axis=0)
        expected = (one * two).sum() / math.sqrt(
            (one**2).sum() * (two**2).sum()
        )
        counts = classification.confusion(gold, answers, "abcd")
        self.assertAlmostEqual(classification.matthews(counts), expected)

    def test_one_answer_for_all_has_no_correlation(self):
        counts = classification.confusion("aabb", "aaaa", "ab")
        self.assertEqual(classification.matthews(counts), 0.0)


class SetsTest(absltest.TestCase):
    def test_micro_and_macro(self):
        gold = [{"a", "b"}, {"b"}, set()]
        answers = [{"a"}, {"b", "c"}, set()]
        self.assertAlmostEqual(classification.f1_micro(gold, answers), 4 / 6)
        table = classification.per_class_multi_label(gold, answers, "abc")
        np.testing.assert_allclose(table[:, 2], [1, 2 / 3, 0])

    def test_micro_and_macro_f1_agree_on_examples_without_classes(self):
        metrics = classification.multi_label([set()] * 2, [set()] * 2, "ab")
        self.assertEqual(
            metrics, {"f1_micro": 0.0, "f1_macro": 0.0, "accuracy": 1.0}
        )


class CorrelationTest(absltest.TestCase):
    def test_spearman_is_pearson_of_mean_ranks(self):
        one = [1.0, 2.0, 2.0, 5.0, 9.0]
        two = [3.0, 1.0, 4.0, 4.0, 80.0]
        expected = np.corrcoef([1, 2.5, 2.5, 4, 5], [2, 1, 3.5, 3.5, 5])[0, 1]
        self.assertAlmostEqual(classification.spearman(one, two), expected)
        self.assertAlmostEqual(
            classification.pearson(one, two), np.corrcoef(one, two)[0, 1]
        )

    def test_any_rising_curve_has_rank_correlation_one(self):
        values = np.linspace(0.1, 5, 40)
        self.assertAlmostEqual(
            classification.spearman(values, np.exp(values)), 1.0
        )

    def test_a_constant_has_no_correlation(self):
        self.assertEqual(classification.spearman([1, 2, 3], [4, 4, 4]), 0.0)
        # In floating point, the mean of three times 0.1 is not 0.1.
        for one, two in (([0.1] * 3, [0.7] * 3), ([0.1] * 3, [1, 2, 3])):
            self.assertEqual(classification.pearson(one, two), 0.0)
            self.assertEqual(classification.pearson(two, one), 0.0)
        self.assertEqual(classification.pearson([], []), 0.0)

    def test_the_mean_of_float32_values_is_not_rounded_to_float32(self):
        random = np.random.default_rng(0)
        one = (random.normal(size=1000) + 1e4).astype(np.float32)
        two = random.normal(size=1000)
        self.assertAlmostEqual(
            classification.pearson(one, two),
            np.corrcoef(one.astype(np.float64), two)[0, 1],
            places=12,
        )


if __name__ == "__main__":
    absltest.main()
