import itertools

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from tests import devices, tiny  # noqa: F401 (devices: two CPUs)
from tests.trainers.runs import BATCH, Run, batches
from trainers import loop


class TrainStepTest(parameterized.TestCase):
    @parameterized.parameters("one_device", "mirrored")
    def test_resume_is_bit_equal_with_dropout(self, strategy):
        whole = Run("masked_lm", strategy, dropout=0.3)
        whole.train()
        first = Run("masked_lm", strategy, dropout=0.3)
        first.train(stop=12)
        second = Run("masked_lm", strategy, dropout=0.3)
        for ours, theirs in zip(
            [
                *second.model.trainable_variables,
                *second.optimizer.state().values(),
            ],
            [
                *first.model.trainable_variables,
                *first.optimizer.state().values(),
            ],
            strict=True,
        ):
            ours.assign(theirs)
        second.train(start=12)
        weights = second.weights()
        for path, value in whole.weights().items():
            np.testing.assert_array_equal(value, weights[path], path)

    def test_dropout_differs_between_steps_replicas_and_parts(self):
        run = Run("classification", dropout=0.5)
        batch = next(batches(run.task, 1))
        places = [0, 1, 2]
        trainer = loop.TrainStep(
            run.model,
            run.task,
            run.optimizer,
            loop.fixed_loss_scale(),
            7,
            1,
            1.0,
        )
        outputs = []
        for step, place in itertools.product((0, 1), places):
            trainer._seed_dropout(tf.constant(step, tf.int64), place)
            outputs.append(
                run.model(batch["inputs"], training=True)["label"].numpy()
            )
        for one, two in itertools.combinations(outputs, 2):
            self.assertFalse(np.allclose(one, two))
        trainer._seed_dropout(tf.constant(0, tf.int64), 0)
        np.testing.assert_array_equal(
            run.model(batch["inputs"], training=True)["label"], outputs[0]
        )

    def test_learns_by_heart(self):
        run = Run("classification", peak=3e-3)
        batch = next(batches(run.task, 1))
        first = float(run.step(batch)["loss"])
        for step in range(1, 60):
            batch["step"] = tf.constant(step, tf.int64)
            last = float(run.step(batch)["loss"])
        self.assertLess(last, 0.1 * first)

    @parameterized.parameters("one_device", "mirrored")
    def test_a_gradient_that_is_not_finite_is_skipped(self, strategy):
        run = Run("classification", strategy)
        with run.strategy.scope():
            scale = loop.LossScale(1024.0)
        run.step = loop.make_train_step(
            run.model,
            run.task,
            run.optimizer,
            strategy=run.strategy,
            seed=7,
            loss_scale=scale,
        )
        before = run.weights()
        batch = next(batches(run.task, 1))
        labels, weights = batch["targets"]["label"]
        # Only the last row, on the last replica, is poisoned.
        poison = tf.constant([0.0] * (BATCH - 1) + [np.nan], tf.float32)
        bad = batch | {"targets": {"label": (labels, weights + poison)}}
        metrics = run.step(run._split(bad))
        self.assertEqual(int(metrics["skipped"]), 1)
        self.assertEqual(float(scale.scale.numpy()), 512.0)
        for path, value in run.weights().items():
            np.testing.assert_array_equal(value, before[path], path)
        metrics = run.step(run._split(batch))
        self.assertEqual(int(metrics["skipped"]), 0)

    def test_loss_scale_changes_no_update(self):
        plain = Run("classification")
        scaled = Run("classification")
        scaled.step = loop.make_train_step(
            scaled.model,
            scaled.task,
            scaled.optimizer,
            strategy=scaled.strategy,
            seed=7,
            loss_scale=loop.LossScale(2.0**10),
        )
        np.testing.assert_allclose(plain.train(), scaled.train(), atol=1e-6)

    def test_one_graph_serves_all_lengths(self):
        run = Run("classification")
        for length in (12, 16, 24, 32):
            inputs = tiny.inputs(rows=BATCH, length=length)
            run.step(
                {
                    "inputs": inputs,
                    "targets": {
                        "label": (tf.zeros(BATCH, tf.int32), tf.ones(BATCH))
                    },
                    "step": tf.constant(0, tf.int64),
                }
            )
        self.assertLessEqual(run.step.experimental_get_tracing_count(), 2)

    def test_compiles_under_xla_with_equal_losses(self):
        plain, compiled = Run("masked_lm"), Run("masked_lm", xla=True)
        np.testing.assert_allclose(
            plain.train(stop=5), compiled.train(stop=5), atol=1e-5
        )


class EvaluateTest(absltest.TestCase):
    def test_means_are_made_once_over_all_rows(self):
        run = Run("classification")
        step = loop.make_evaluate_step(
            run.model, run.task, strategy=run.strategy
        )
        scores = loop.evaluate(step, batches(run.task, 3))
        losses, right, weight = 0.0, 0.0, 0.0
        for batch in batches(run.task, 3):
            labels, weights = batch["targets"]["label"]
            logits = run.model(batch["inputs"])["label"]
            rows = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, logits
            )
            losses += float(tf.reduce_sum(rows * weights))
            hit = tf.cast(tf.argmax(logits, -1, tf.int32) == labels, tf.float32)
            right += float(tf.reduce_sum(hit * weights))
            weight += float(tf.reduce_sum(weights))
        self.assertAlmostEqual(scores["loss/label"], losses / weight, places=5)
        self.assertAlmostEqual(scores["accuracy"], right / weight, places=5)


class TrainTest(absltest.TestCase):
    def test_actions_fire_when_due_and_after_the_last_step(self):
        fired = []
        loop.train(
            lambda batch: {},
            itertools.count(),
            start=2,
            stop=8,
            actions=[
                loop.every(3, lambda step, metrics: fired.append(("a", step))),
                loop.every(0, lambda step, metrics: fired.append(("b", step))),
            ],
        )
        self.assertEqual(fired, [("a", 3), ("a", 6), ("a", 8), ("b", 8)])


if __name__ == "__main__":
    absltest.main()
