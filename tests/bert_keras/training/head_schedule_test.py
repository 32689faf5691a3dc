"""head_learning_rate and head_warmup_ratio: the heads' own schedule in runs."""

import json
import os

import numpy as np
from absl.testing import absltest, parameterized
from tensorboard.backend.event_processing import event_accumulator

import bert_keras
from bert_keras import checkpoint, errors, optimizers
from bert_keras import model as model_lib
from bert_keras.networks import bert
from bert_keras.tasks import embedding
from bert_keras.training import run_folder, trainer
from bert_keras.training import settings as settings_lib
from tests import devices, tiny  # noqa: F401 (devices: two CPUs)
from tests.trainers import mains
from tests.trainers.runs import Run

HEAD = optimizers.Schedule(peak=1e-2, warmup_steps=2, total_steps=80)
ROWS = "text\tlabel\n" + mains.ROWS


def is_head(path):
    return path.startswith("head/")


class StepTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.start = Run("classification").weights()
        cls.alone = cls.weights()
        cls.without = cls.weights(head_schedule=None)

    @classmethod
    def weights(cls, strategy="one_device", micro_batches=1, **options):
        options = {"head_schedule": HEAD, "clip_norm": 0.1} | options
        run = Run("classification", strategy, micro_batches, **options)
        run.train(stop=6)
        return run.weights()

    @parameterized.parameters(("one_device", 4), ("mirrored", 2))
    def test_parts_and_replicas_update_as_one(self, *shape):
        for path, value in self.weights(*shape).items():
            np.testing.assert_allclose(
                value, self.alone[path], atol=1e-6, err_msg=path
            )

    def test_heads_alone_move_further(self):
        moved, before = (
            {
                path: np.abs(value - self.start[path]).mean()
                for path, value in weights.items()
            }
            for weights in (self.alone, self.without)
        )
        for path, distance in moved.items():
            if is_head(path):
                self.assertGreater(distance, 20 * before[path])
            else:
                self.assertLess(distance, 3 * before[path] + 1e-9)


class SettingsTest(parameterized.TestCase):
    def schedules(self, **changes):
        """(network's, heads') of a run of 100 steps."""
        values = {"learning_rate": 1e-3, "warmup_ratio": 0.1} | changes
        optimizer = trainer.make_optimizer(
            tiny.classifier().trainable_variables,
            settings_lib.TrainSettings(**values),
            100,
        )
        return optimizer.schedule, optimizer.head_schedule

    @parameterized.parameters(
        ({}, 1e-3, 10),
        ({"head_learning_rate": 0.5}, 0.5, 10),
        ({"head_warmup_ratio": 0.25}, 1e-3, 25),
        ({"head_warmup_ratio": 0.0}, 1e-3, 0),
        ({"warmup_steps": 7}, 1e-3, 7),
        ({"warmup_steps": 7, "head_warmup_ratio": 0.2}, 1e-3, 20),
        ({"head_learning_rate": 0.5, "head_warmup_ratio": 1.0}, 0.5, 100),
    )
    def test_what_is_not_set_is_the_networks(self, changes, peak, warmup):
        network, head = self.schedules(**changes)
        self.assertEqual(head, optimizers.Schedule(peak, warmup, 100))
        warmup = changes.get("warmup_steps", 10)
        self.assertEqual(network, optimizers.Schedule(1e-3, warmup, 100))

    @parameterized.parameters(
        *[(100, 10), (1000, 100), (10_000, 1000), (40_000, 1000)],
        *[(100_000, 1000), (1_000_000, 10_000)],
    )
    def test_the_warm_up_of_a_short_pretraining_is_no_hundredth(
        self, steps, expected
    ):
        for ratio, warmup in ((None, expected), (0.01, steps // 100), (0.0, 0)):
            settings = settings_lib.PretrainSettings(
                **({} if ratio is None else {"warmup_ratio": ratio})
            )
            optimizer = trainer.make_optimizer(
                tiny.classifier().trainable_variables, settings, steps
            )
            self.assertEqual(optimizer.schedule.warmup_steps, warmup)

    def test_a_task_without_heads_refuses_it(self):
        model = model_lib.BertModel(
            bert.BertEncoder(tiny.bert()), embedding.Embedding(pair=True)
        )
        for name in ("head_learning_rate", "head_warmup_ratio"):
            settings = settings_lib.TrainSettings(**{name: 0.5})
            with self.assertRaisesRegex(errors.InputError, "no weights of its"):
                trainer.make_optimizer(model.trainable_variables, settings, 9)

    @parameterized.parameters(
        ({"head_learning_rate": -1.0}, "head_learning_rate=-1.0: expected at"),
        ({"head_warmup_ratio": 1.5}, "head_warmup_ratio=1.5: expected 0.0 to"),
        ({"head_learning_rate": float("nan")}, "head_learning_rate is nan"),
    )
    def test_bounds(self, changes, message):
        task = bert_keras.tasks.Classification()
        with self.assertRaisesRegex(errors.InputError, message):
            settings_lib.check(settings_lib.TrainSettings(**changes), task)


class RunTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        self.rows = mains.write(os.path.join(self.folder, "rows.tsv"), ROWS)
        self.init = os.path.join(self.folder, "init")
        checkpoint.save(
            self.init, tiny.masked_lm_model(), tiny.tokenizer(), step=0
        )

    def finetune(self, name, **changes):
        run = os.path.join(self.folder, name)
        values = {"epochs": 2, "batch_size": 8, "log_every": 1} | changes
        bert_keras.finetune(
            self.init,
            self.rows,
            task="classification",
            seq_length=16,
            output=run,
            **values,
        )
        return run

    def log(self, run, name):
        with open(os.path.join(run, "log.jsonl")) as file:
            return [json.loads(line).get(name) for line in file]

    def test_it_is_logged_beside_the_networks(self):
        run = self.finetune(
            "two", head_learning_rate=0.01, head_warmup_ratio=0.5
        )
        expected = [0.01 * share for share in (1 / 2, 2 / 2, 2 / 2, 1 / 2)]
        rates = self.log(run, "head_learning_rate")
        np.testing.assert_allclose(rates, expected, rtol=1e-6)
        self.assertLess(max(self.log(run, "learning_rate")), 1e-4)
        board = event_accumulator.EventAccumulator(
            os.path.join(run, "tensorboard")
        )
        board.Reload()
        tensors = board.Tensors("head_learning_rate")
        self.assertEqual([each.step for each in tensors], [1, 2, 3, 4])
        with open(os.path.join(run, run_folder.IDENTITY)) as file:
            settings = json.load(file)["settings"]
        self.assertEqual(settings["head_learning_rate"], 0.01)
        with self.assertRaisesRegex(
            errors.InputError, "head_learning_rate=0.01 before, 0.02 now"
        ):
            self.finetune("two", head_learning_rate=0.02, head_warmup_ratio=0.5)

    def test_a_frozen_network_leaves_the_heads_rate(self):
        run = self.finetune(
            "frozen", freeze="encoder", head_learning_rate=0.01, weight_decay=0
        )
        before, after = checkpoint.read(self.init), checkpoint.read(run)
        for path, value in before.encoder_values().items():
            np.testing.assert_array_equal(after.encoder_values()[path], value)
        self.assertAlmostEqual(
            max(self.log(run, "head_learning_rate")), 0.01, 6
        )
        bias = after.head_values()["label/score/bias"]
        self.assertBetween(np.abs(bias).max(), 2e-3, 4e-2)

    def test_a_run_from_before_these_settings_resumes(self):
        run = self.finetune("before")
        self.assertNotIn("head_learning_rate", self.log(run, "loss"))
        path = os.path.join(run, run_folder.IDENTITY)
        with open(path) as file:
            values = json.load(file)
        for name in ("head_learning_rate", "head_warmup_ratio"):
            del values["settings"][name]
        mains.write(path, json.dumps(values))
        with self.assertRaisesRegex(
            errors.InputError, "head_warmup_ratio= before, 0.5 now"
        ):
            self.finetune("before", head_warmup_ratio=0.5)
        self.finetune("before")
        self.assertEqual(set(self.log(run, "head_learning_rate")), {None})


if __name__ == "__main__":
    absltest.main()
