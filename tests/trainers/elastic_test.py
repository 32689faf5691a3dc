"""Elastic shards: the same bits on one and on two replicas."""

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras.training import elastic
from tests import devices  # noqa: F401 (two CPUs)
from tests.trainers.runs import Run

SHARDS = 4


def trained(task_name, strategy, replicas, make):
    """(the losses, {path: value}) of 20 steps with dropout and clipping."""
    run = Run(
        task_name,
        strategy,
        SHARDS // replicas,
        clip_norm=0.1,
        dropout=0.1,
        peak=1e-2,
        make=make,
    )
    return run.train(), run.weights()


class ElasticTest(parameterized.TestCase):
    @parameterized.parameters(
        "tagging", "masked_lm", "classification", "sequence_to_sequence"
    )
    @pytest.mark.slow_after(1)
    def test_two_replicas_have_the_bits_of_one(self, name):
        one, two = (
            trained(name, strategy, replicas, elastic.ElasticStep)
            for strategy, replicas in (("one_device", 1), ("mirrored", 2))
        )
        self.assertEqual(one[0], two[0])
        for path, value in one[1].items():
            np.testing.assert_array_equal(value, two[1][path], path)

    def test_sums_are_those_of_a_tree(self):
        random = np.random.default_rng(1)
        values = (random.normal(size=(8, 50)) * 1e3).astype(np.float32)

        @tf.function
        def total(first, count):
            return elastic.tree_sum(lambda i: [values[i] * 1.0], first, count)

        a, b, c, d, e, f, g, h = values
        expected = ((a + b) + (c + d)) + ((e + f) + (g + h))
        self.assertFalse((expected == values.sum(axis=0)).all())
        np.testing.assert_array_equal(total(0, 8)[0], expected)
        np.testing.assert_array_equal(total(4, 2)[0], e + f)


if __name__ == "__main__":
    absltest.main()
