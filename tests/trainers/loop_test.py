import functools
import itertools

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import encoder, optimization
from bert_keras import model as model_lib
from bert_keras.tasks import classification, masked_lm
from tests import devices, tiny  # noqa: F401 (devices: two CPUs)
from trainers import loop

STEPS = 20
BATCH = 8


def batches(task, count, size=BATCH):
    """Batches of rows of every length, with the task's targets."""
    for step in range(count):
        inputs = tiny.inputs(rows=size, length=12, seed=step)
        random = np.random.default_rng(step)
        labels = tf.constant(random.integers(0, 2, size), tf.int32)
        weights = tf.ones(size)
        if isinstance(task, masked_lm.MaskedLM):
            targets = {"next_sentence": (labels, weights)}
            seeds = tf.stack([tf.range(size), tf.fill([size], step)], axis=1)
            inputs, targets = task.draw(inputs, targets, seeds)
        else:
            # Rows of unequal weight: a mean per part would be wrong.
            weights = tf.constant(random.random(size), tf.float32)
            targets = {"label": (labels, weights)}
        yield {
            "inputs": inputs,
            "targets": targets,
            "step": tf.constant(step, tf.int64),
        }


@functools.cache
def mirrored():
    # One for the process: two strategies over the same devices hand out the
    # same keys for different collectives, and the second run fails.
    return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])


class Run:
    """A tiny training run under a strategy."""

    def __init__(self, kind, replicas=1, parts=1, **options):
        self.strategy = tf.distribute.get_strategy()
        if replicas > 1:
            self.strategy = mirrored()
        self.replicas = replicas
        keras.utils.set_random_seed(1)
        rate = options.pop("dropout", 0.0)
        rule = options.pop("rule", optimization.AdamW())
        peak = options.pop("peak", 1e-4)
        bert = tiny.bert(dropout=rate, attention_dropout=rate)
        self.task = {
            "masked_lm": masked_lm.MaskedLM().learn([], tiny.tokenizer()),
            "classification": classification.Classification(
                labels=("bad", "good")
            ),
        }[kind]
        with self.strategy.scope():
            self.model = model_lib.BertModel(
                encoder.BertEncoder(bert), self.task
            )
            self.optimizer = optimization.Optimizer(
                self.model.trainable_variables,
                rule=rule,
                schedule=optimization.Schedule(peak, 5, 4 * STEPS),
            )
        self.step = loop.make_train_step(
            self.model,
            self.task,
            self.optimizer,
            strategy=self.strategy,
            seed=7,
            gradient_accumulation_steps=parts,
            **options,
        )

    def train(self, start=0, stop=STEPS):
        losses = []
        for batch in itertools.islice(batches(self.task, stop), start, stop):
            losses.append(float(self.step(self._split(batch))["loss"]))
        return losses

    def _split(self, batch):
        if self.replicas == 1:
            return batch
        size = BATCH // self.replicas

        def own(context):
            first = context.replica_id_in_sync_group * size
            part = tf.nest.map_structure(
                lambda x: x[first : first + size] if x.shape.rank else x,
                batch,
            )
            return part

        return self.strategy.experimental_distribute_values_from_function(own)

    def weights(self):
        return {v.path: v.numpy() for v in self.model.trainable_variables}


class TrainStepTest(parameterized.TestCase):
    @parameterized.parameters(
        *itertools.product(
            ("masked_lm", "classification"), ((1, 4), (2, 1), (2, 2))
        )
    )
    def test_replicas_and_accumulation_give_one_result(self, kind, shape):
        replicas, parts = shape
        alone = Run(kind, clip_norm=0.1)
        many = Run(kind, replicas, parts, clip_norm=0.1)
        np.testing.assert_allclose(alone.train(), many.train(), atol=1e-6)
        weights = many.weights()
        for path, value in alone.weights().items():
            np.testing.assert_allclose(
                value, weights[path], atol=1e-6, err_msg=path
            )

    @parameterized.parameters(1, 2)
    def test_resume_is_bit_equal_with_dropout(self, replicas):
        whole = Run("masked_lm", replicas, dropout=0.3)
        whole.train()
        first = Run("masked_lm", replicas, dropout=0.3)
        first.train(stop=12)
        second = Run("masked_lm", replicas, dropout=0.3)
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
            run.model, run.task, run.optimizer, loop.no_loss_scale(), 7, 1, 1.0
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

    @parameterized.parameters(1, 2)
    def test_a_gradient_that_is_not_finite_is_skipped(self, replicas):
        run = Run("classification", replicas)
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
