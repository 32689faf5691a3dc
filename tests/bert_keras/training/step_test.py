import itertools
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors, heads
from bert_keras.tasks import base, classification, tagging
from bert_keras.training import scoring
from bert_keras.training import step as step_lib
from tests import devices, tiny  # noqa: F401 (devices: two CPUs)
from tests.trainers.runs import BATCH, TASKS, Run, batches


class Infinite(tagging.Tagging):
    """Its loss is infinite where a batch holds a certain token."""

    mark = 5

    def loss(self, outputs, inputs, targets):
        marked = tf.reduce_any(inputs["token_ids"][:, 0] == self.mark)
        (loss,) = super().loss(outputs, inputs, targets).values()
        return {"tag": loss * tf.where(marked, np.inf, 1.0)}


class LateHead(heads.TokenClassificationHead):
    """Has a layer that is first built when it is called."""

    def __init__(self, config, num_classes, **kwargs):
        super().__init__(config, num_classes, **kwargs)
        self.more = keras.layers.Dense(num_classes, name="more")

    def call(self, hidden, training=None):
        return self.more(super().call(hidden, training=training))


class Late(tagging.Tagging):
    def build_heads(self, config):
        return {"tag": LateHead(config, len(self.labels))}


class Forced(classification.Classification):
    """Outputs the correct class wherever a loss is computed."""

    def forward(
        self, encoder, heads, features, *, targets=None, training=False
    ):
        outputs = super().forward(encoder, heads, features, training=training)
        if targets is None:
            return outputs
        labels, _ = targets["label"]
        return {"label": 0 * outputs["label"] + 20 * tf.one_hot(labels, 2)}


class TrainStepTest(parameterized.TestCase):
    def test_weights_that_nothing_would_train_are_refused(self):
        with mock.patch.dict(TASKS, late=lambda: Late(types=("PER",))):
            with self.assertRaisesRegex(errors.InputError, "more/kernel"):
                Run("late").train(stop=1)

    def test_a_task_sees_the_targets_where_a_loss_follows(self):
        with mock.patch.dict(
            TASKS, forced=lambda: Forced(labels=("bad", "good"))
        ):
            run = Run("forced")
        self.assertLess(max(run.train(stop=2)), 1e-6)
        step = step_lib.make_evaluate_step(
            run.model, run.task, strategy=run.strategy
        )
        metrics = scoring.average(step, map(run.split, batches(run.task, 1)))
        self.assertLess(metrics["loss/label"], 1e-6)
        logits = run.model(tiny.inputs(), training=False)["label"]
        self.assertLess(np.abs(logits).max(), 5)

    @parameterized.parameters(
        ("masked_lm", "one_device", 4),
        ("sampled", "one_device", 1),
        ("bilstm_tagging", "mirrored", 2),
    )
    @pytest.mark.slow_after(1)
    def test_resume_is_bit_equal_with_dropout(self, *shape):
        self.check_resumed(*shape)

    @parameterized.parameters(
        ("masked_lm", "one_device", 1),
        ("masked_lm", "mirrored", 1),
        ("causal_lm", "one_device", 4),
        ("elmo_tagging", "mirrored", 1),
    )
    @pytest.mark.slow
    def test_resume_of_others_is_bit_equal_with_dropout(self, *shape):
        self.check_resumed(*shape)

    def check_resumed(self, task_name, strategy, micro_batches):
        whole = Run(task_name, strategy, micro_batches, dropout=0.3)
        whole.train()
        first = Run(task_name, strategy, micro_batches, dropout=0.3)
        first.train(stop=12)
        second = Run(task_name, strategy, micro_batches, dropout=0.3)
        for target, source in zip(
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
            target.assign(source)
        second.train(start=12)
        weights = second.weights()
        for path, value in whole.weights().items():
            np.testing.assert_array_equal(value, weights[path], path)

    def test_dropout_differs_between_steps_replicas_and_parts(self):
        run = Run("classification", dropout=0.5)
        batch = next(batches(run.task, 1))
        micro_batches = [0, 1, 2]
        trainer = step_lib.TrainStep(
            run.model,
            run.task,
            run.optimizer,
            step_lib.fixed_loss_scale(),
            7,
            1,
            1.0,
        )
        outputs = []
        for step, micro_batch in itertools.product((0, 1), micro_batches):
            trainer._seed_dropout(tf.constant(step, tf.int64), micro_batch)
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

    @parameterized.product(
        strategy=("one_device", "mirrored"), xla=(False, True)
    )
    @pytest.mark.slow_after(1)
    def test_infinity_on_the_last_replica_skips_the_step(self, strategy, xla):
        run = Run("tagging", strategy)
        with run.strategy.scope():
            scale = step_lib.LossScale(1024.0, growth_steps=2)
        run.step = step_lib.make_train_step(
            run.model,
            Infinite(),
            run.optimizer,
            strategy=run.strategy,
            seed=7,
            loss_scale=scale,
            xla=xla,
        )
        before = run.weights()
        slots = [v.numpy() for v in run.optimizer.state().values()]
        good = next(batches(run.task, 1))
        # Only the last row, on the last replica; weights stay finite.
        ids = good["inputs"]["token_ids"].numpy()
        ids[-1, 0] = Infinite.mark
        bad = good | {
            "inputs": good["inputs"] | {"token_ids": tf.constant(ids)}
        }
        metrics = run.step(run.split(bad))
        self.assertEqual(int(metrics["skipped"]), 1)
        self.assertEqual(float(metrics["loss_scale"]), 1024.0)
        self.assertEqual(float(scale.scale.numpy()), 512.0)
        for path, value in run.weights().items():
            np.testing.assert_array_equal(value, before[path], path)
        for one, two in zip(slots, run.optimizer.state().values(), strict=True):
            np.testing.assert_array_equal(one, two.numpy())
        for expected in (512.0, 1024.0):  # doubled after two good steps
            metrics = run.step(run.split(good))
            self.assertEqual(int(metrics["skipped"]), 0)
            self.assertEqual(float(scale.scale.numpy()), expected)

    def test_loss_scale_changes_no_update(self):
        plain = Run("classification")
        scaled = Run("classification")
        scaled.step = step_lib.make_train_step(
            scaled.model,
            scaled.task,
            scaled.optimizer,
            strategy=scaled.strategy,
            seed=7,
            loss_scale=step_lib.LossScale(2.0**10),
        )
        np.testing.assert_allclose(plain.train(), scaled.train(), atol=1e-6)

    @parameterized.parameters((False, 2), (True, 4))
    @pytest.mark.slow_after(1)
    def test_graphs_of_a_step(self, xla, most):
        # Without XLA one for all lengths, after the first; with it one each.
        run = Run("classification", xla=xla)
        targets = {"label": (tf.zeros(BATCH, tf.int32), tf.ones(BATCH))}
        for length in (12, 16, 24, 32, 24, 16):
            inputs = tiny.inputs(rows=BATCH, length=length)
            step = tf.constant(0, tf.int64)
            run.step({"inputs": inputs, "targets": targets, "step": step})
        self.assertLessEqual(run.graphs(), most)

    def test_every_task_is_compiled_here(self):
        # Those are asked, and have no training.
        trained = set(base.names()) - {"next_sentence", "token_scores"}
        self.assertContainsSubset(trained, TASKS)

    @parameterized.parameters(
        ("bidirectional_lm", "one_device", 1),
        ("classification", "one_device", 1),
        ("masked_lm", "mirrored", 2),
    )
    @pytest.mark.slow_after(1)
    def test_compiles_under_xla_with_equal_losses(self, *shape):
        self.check_compiled(*shape)

    @parameterized.parameters(*TASKS)
    @pytest.mark.slow
    def test_every_task_compiles_under_xla_with_equal_losses(self, task_name):
        self.check_compiled(task_name, "one_device", 1)

    def check_compiled(self, task_name, strategy, micro_batches):
        plain = Run(task_name, strategy, micro_batches)
        compiled = Run(task_name, strategy, micro_batches, xla=True)
        np.testing.assert_allclose(
            plain.train(stop=4), compiled.train(stop=4), atol=1e-5
        )
        self.assertEqual(compiled.graphs(), 1)
        metrics = []
        for xla in (False, True):
            step = step_lib.make_evaluate_step(
                plain.model, plain.task, strategy=plain.strategy, xla=xla
            )
            rows = batches(plain.task, 2, elmo=plain.is_elmo)
            rows = map(plain.split, rows)
            metrics.append(scoring.score(plain.task, step, rows))
        # The others are scored on rows, not here.
        if task_name in ("causal_lm", "masked_lm"):
            self.assertContainsSubset(plain.task.metric_names, metrics[0])
        self.assertEqual(set(metrics[0]), set(metrics[1]))
        for name, value in metrics[0].items():
            np.testing.assert_allclose(value, metrics[1][name], rtol=1e-5)


if __name__ == "__main__":
    absltest.main()
