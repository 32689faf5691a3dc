"""Draws of negatives: their distribution, and that they are of their seeds."""

from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras.data import negatives

FREQUENCIES = {
    "uniform": (1,) * 7,
    "of rows": (5, 1, 20, 3, 3, 1, 60),
    "many rows": (1, 2**24, 1, 2**30, 2**20, 2**27, 1),
}


def seeds(count, step=3):
    rows = tf.range(count)
    return tf.stack([tf.fill([count], 7), rows * 64 + step], axis=1)


class OtherClassesTest(parameterized.TestCase):
    @parameterized.product(of=tuple(FREQUENCIES), own=(0, 3, 6))
    def test_the_distribution_is_that_of_the_other_classes(self, of, own):
        sizes = np.array(FREQUENCIES[of], np.float64)
        drawn = negatives.other_classes(
            tf.fill([200], own), seeds(200), 500, FREQUENCIES[of]
        )
        counts = np.bincount(drawn.numpy().ravel(), minlength=7)
        self.assertEqual(counts[own], 0)
        sizes[own] = 0
        expected = sizes / sizes.sum() * drawn.numpy().size
        often = expected > 5
        differences = (counts - expected)[often]
        statistic = (differences**2 / expected[often]).sum()
        # 22.5 is the 0.999 quantile of chi-square with 6 degrees of freedom.
        self.assertLess(statistic, 22.5)

    @mock.patch.object(negatives.masking, "uniform")
    def test_a_draw_has_48_bits(self, uniform):
        # 24 bits, and 24 more: 2^-25 of the 2^26 rows of others is the third.
        uniform.return_value = tf.constant([[0.0, 0.5]])
        sizes = (1, 2, 2**26 - 2)
        own, one = tf.constant([0]), seeds(1)
        np.testing.assert_array_equal(
            negatives.other_classes(own, one, 1, sizes), [[2]]
        )

    def test_the_expected_counts_are_those_of_the_distribution(self):
        sizes = np.array(FREQUENCIES["of rows"], np.float64)
        candidates = tf.constant([[0, 2, 6, 2], [6, 0, 1, 3]])
        logs = negatives.log_expected_counts(candidates, sizes).numpy()
        for row, (own, *others) in enumerate(candidates.numpy()):
            self.assertEqual(logs[row, 0], 0)
            chance = sizes[others] / (sizes.sum() - sizes[own])
            np.testing.assert_allclose(logs[row, 1:], np.log(3 * chance), 1e-6)

    def test_a_draw_is_of_its_own_seeds_alone(self):
        own = tf.constant([0, 3, 3, 6])
        drawn, again = (
            negatives.other_classes(own, seeds(4), 50, (1,) * 7)
            for _ in range(2)
        )
        np.testing.assert_array_equal(drawn, again)
        part = negatives.other_classes(own[2:], seeds(4)[2:], 50, (1,) * 7)
        np.testing.assert_array_equal(drawn[2:], part)
        self.assertFalse((drawn[1].numpy() == drawn[2].numpy()).all())
        later = negatives.other_classes(own, seeds(4, step=4), 50, (1,) * 7)
        self.assertFalse((drawn.numpy() == later.numpy()).all())


class OtherRowsTest(absltest.TestCase):
    def test_each_row_draws_its_negatives_alike(self):
        size, number = 6, 2
        allowed = ~np.eye(size, dtype=bool)
        allowed[:, 4] = False
        allowed[5, 1:] = False  # has one negative only
        counts = np.zeros((size, size))
        for step in range(60):
            drawn = negatives.other_rows(
                tf.constant(allowed), seeds(size, step), number
            ).numpy()
            self.assertFalse((drawn & ~allowed).any())
            np.testing.assert_array_equal(drawn.sum(1), [2, 2, 2, 2, 2, 1])
            counts += drawn
        for row in range(5):
            mean = 60 * number / allowed[row].sum()
            np.testing.assert_allclose(
                counts[row, allowed[row]], mean, atol=4.5 * mean**0.5
            )

    def test_more_than_there_are_is_all(self):
        allowed = tf.constant(~np.eye(3, dtype=bool))
        drawn = negatives.other_rows(allowed, seeds(3), 99)
        np.testing.assert_array_equal(drawn, allowed)


if __name__ == "__main__":
    absltest.main()
