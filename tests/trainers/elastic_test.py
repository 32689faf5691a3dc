"""Elastic shards: the same bits on one and on two replicas."""

import contextlib
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.tasks import classification, multiple_choice
from bert_keras.training import devices as run_devices
from bert_keras.training import elastic, settings
from bert_keras.wrappers import r_drop
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

    def test_four_replicas_add_as_one_does(self):
        random = np.random.default_rng(2)
        values = (random.normal(size=(4, 2, 50)) * 1e3).astype(np.float32)
        context = mock.Mock(num_replicas_in_sync=4)
        context.all_gather.side_effect = lambda value, axis: tf.constant(
            values.reshape(4, 100)
        )
        step = mock.create_autospec(elastic.ElasticStep, instance=True)
        found = elastic.ElasticStep._reduce(
            step, context, [tf.constant(each) for each in values[0]]
        )
        a, b, c, d = values
        np.testing.assert_array_equal(found, (a + b) + (c + d))

    @parameterized.parameters(
        (multiple_choice.MultipleChoice(num_choices=2, joined=True), True),
        (classification.Classification(labels=("a", "b")), False),
    )
    def test_texts_as_long_as_a_replica_needs_are_refused(self, task, refused):
        run = settings.TrainSettings(elastic_shards=4)
        for each in (task, r_drop.RDrop(task)) if not refused else (task,):
            context = contextlib.nullcontext()
            if refused:
                context = self.assertRaisesRegex(
                    errors.InputError, "the length of the longest one"
                )
            with context:
                run_devices.require_complete_batches(
                    run, each, tf.distribute.get_strategy()
                )

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
