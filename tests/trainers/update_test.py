"""What reaches the update: loss weights, dropout of parts, decay."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import optimizers
from bert_keras.tasks import intent_slots
from bert_keras.training import settings, trainer
from bert_keras.training import step as step_lib
from tests import devices, tiny  # noqa: F401 (devices: two CPUs)
from tests.trainers.runs import BATCH, Run, batches


class Weighted(intent_slots.IntentSlots):
    """Its terms count 3 times and half."""

    loss_weights = {"tag": 3.0, "intent": 0.5}


def weighted_run(strategy="one_device", micro_batches=1):
    """A run of plain gradient descent, and its learning rate."""
    run = Run("intent_slots", strategy, micro_batches, rule=optimizers.Sgd())
    task = Weighted(types=("PER",), intents=("ask", "tell"))
    run.optimizer.schedule = optimizers.Schedule(1e-2, 0, 10**6)
    run.optimizer.decays = [0.0] * len(run.optimizer.variables)
    run.step = step_lib.make_train_step(
        run.model,
        task,
        run.optimizer,
        strategy=run.strategy,
        seed=7,
        gradient_accumulation_steps=micro_batches,
        clip_norm=0.0,
    )
    return run, task, 1e-2


class LossWeightsTest(parameterized.TestCase):
    @parameterized.parameters(("one_device", 1), ("mirrored", 2))
    def test_they_are_in_the_gradient_and_in_the_total(
        self, strategy, micro_batches
    ):
        """Total = sum over terms of coefficient * sum of losses / weight."""
        run, task, rate = weighted_run(strategy, micro_batches)
        batch = next(batches(task, 1))
        variables = run.model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = run.model(batch["inputs"], training=False)
            losses = task.loss(outputs, batch["inputs"], batch["targets"])
            means = {
                term: loss / tf.reduce_sum(batch["targets"][term][1])
                for term, loss in losses.items()
            }
            total = 3.0 * means["tag"] + 0.5 * means["intent"]
        gradients = tape.gradient(total, [v.value for v in variables])
        gradients = [
            tf.zeros(v.shape) if g is None else tf.convert_to_tensor(g)
            for v, g in zip(variables, gradients, strict=True)
        ]
        expected = [
            v.numpy() - rate * gradient
            for v, gradient in zip(variables, gradients, strict=True)
        ]
        metrics = run.step(run.split(batch))
        self.assertAlmostEqual(float(metrics["loss"]), float(total), places=5)
        for term, mean in means.items():
            actual = float(metrics[f"loss/{term}"])
            self.assertAlmostEqual(actual, float(mean), places=5)
        real = np.sum(batch["inputs"]["padding_mask"].numpy() > 0)
        self.assertEqual(float(metrics["tokens"]), real)
        norm = float(tf.linalg.global_norm(gradients))
        self.assertAlmostEqual(float(metrics["gradient_norm"]), norm, places=4)
        for variable, value in zip(variables, expected, strict=True):
            np.testing.assert_allclose(
                variable, value, atol=1e-7, err_msg=variable.path
            )


class ClipTest(parameterized.TestCase):
    def test_a_long_gradient_has_the_length_of_the_clip(self):
        """g min(1, clip / |g|) (Pascanu et al. 2013, algorithm 1)."""
        moved = []
        for clip in (0.0, 0.1, 1e6):
            run, task, rate = weighted_run()
            run.step = step_lib.make_train_step(
                run.model,
                task,
                run.optimizer,
                strategy=run.strategy,
                seed=7,
                clip_norm=clip,
                loss_scale=step_lib.fixed_loss_scale(2.0**10),
            )
            before = run.weights()
            norm = float(run.step(next(batches(task, 1)))["gradient_norm"])
            moved.append(
                np.concatenate(
                    [
                        (before[path] - value).ravel() / rate
                        for path, value in run.weights().items()
                    ]
                )
            )
        self.assertGreater(norm, 1)
        np.testing.assert_allclose(moved[1], moved[0] * 0.1 / norm, atol=1e-5)
        np.testing.assert_allclose(moved[2], moved[0], atol=1e-5)
        length = np.linalg.norm(moved[0].astype(float))
        self.assertAlmostEqual(length / norm, 1, delta=1e-3)


class DropoutOfPartsTest(parameterized.TestCase):
    @parameterized.parameters(("one_device", 2), ("mirrored", 2))
    def test_each_part_of_each_replica_draws_its_own_mask(
        self, strategy, micro_batches
    ):
        # The parts hold the same rows, so that only masks tell them apart.
        run = Run("classification", strategy, micro_batches, dropout=0.5)
        count = run.replicas * micro_batches
        one = next(batches(run.task, 1, size=BATCH // count))
        batch = {
            key: tf.nest.map_structure(
                lambda x: tf.repeat(x[None], count, axis=0), one[key]
            )
            for key in ("inputs", "targets")
        }
        batch = tf.nest.map_structure(
            lambda x: tf.reshape(x, (-1, *x.shape[2:])), batch
        )
        batch["step"] = one["step"]
        single = step_lib.TrainStep(
            run.model,
            run.task,
            run.optimizer,
            step_lib.fixed_loss_scale(),
            7,
            1,
            1.0,
        )
        means = []
        for micro_batch in range(count):
            single._seed_dropout(one["step"], micro_batch)
            outputs = run.model(one["inputs"], training=True)
            loss = run.task.loss(outputs, one["inputs"], one["targets"])
            weight = tf.reduce_sum(one["targets"]["label"][1])
            means.append(float(loss["label"] / weight))
        self.assertLen(set(np.round(means, 4)), count)
        actual = float(run.step(run.split(batch))["loss"])
        self.assertAlmostEqual(actual, np.mean(means), places=5)


class DecayTest(parameterized.TestCase):
    def test_a_pooler_that_no_loss_reads_does_not_decay(self):
        run = Run("tagging", peak=1e-2)
        run.optimizer.decays = [100 * decay for decay in run.optimizer.decays]
        before = run.weights()
        for batch in batches(run.task, 3):
            run.step(batch)
        for path, value in run.weights().items():
            still = np.array_equal(value, before[path])
            self.assertEqual(still, "pooler" in path, path)

    @parameterized.parameters("adamw", "adam", "lamb", "sgd")
    def test_flags_choose_what_decays_and_what_is_adapted(self, name):
        variables = tiny.classifier().trainable_variables
        for decay in (0.0, 0.3):
            optimizer = trainer.make_optimizer(
                variables,
                settings.TrainSettings(
                    optimizer=name,
                    weight_decay=decay,
                    bias_correction=False,
                    warmup_ratio=0.25,
                ),
                100,
            )
            expected = 0.0 if name == "adam" else decay
            self.assertEqual(set(optimizer.decays), {0.0, expected})
            self.assertEqual(set(optimizer.adapted), {False, True})
            self.assertFalse(getattr(optimizer.rule, "bias_correction", False))
            self.assertEqual(optimizer.schedule.warmup_steps, 25)


class ScheduleOfTheStepTest(absltest.TestCase):
    def test_the_logged_rate_is_that_of_the_step(self):
        run = Run("classification")
        for step, batch in enumerate(batches(run.task, 7)):
            metrics = run.step(batch)
            expected = 1e-4 * min((step + 1) / 5, (80 - step) / 75)
            self.assertAlmostEqual(
                float(metrics["learning_rate"]), expected, delta=1e-9
            )


if __name__ == "__main__":
    absltest.main()
