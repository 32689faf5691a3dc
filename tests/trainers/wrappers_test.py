"""--wrappers as a user gives them: what is learned, saved and continued."""

import json
import os

import pytest
from absl.testing import absltest

from bert_keras import checkpoint, errors, predictor
from bert_keras.tasks import classification
from bert_keras.training import finetune
from bert_keras.wrappers import label_smoothing, r_drop
from tests.trainers import mains
from tests.trainers.mains import call


def tearDownModule():
    mains.close()


BOTH = {"wrappers": "r_drop,label_smoothing", "label_smoothing_epsilon": 0.3}


class WrappersTest(mains.Case):
    def losses(self, run):
        return [line["loss"] for line in self.log(run) if "loss" in line]

    def finetune(self, name, **changes):
        flags = self.finetune_flags(output=self.path(name), **changes)
        code, _, error = call("trainers.finetune", **flags)
        self.assertEqual((code, error), (0, ""))
        return flags["output"]

    def test_a_wrapper_changes_the_loss_and_nothing_that_is_served(self):
        before = self.losses(self.tuned)
        run = self.finetune("both", r_drop_alpha=5, **BOTH)
        self.assertNotEqual(self.losses(run), before)
        saved = checkpoint.read(run)
        self.assertIs(type(saved.task), classification.Classification)
        self.assertEqual(
            checkpoint.read(self.tuned).head_values().keys(),
            saved.head_values().keys(),
        )
        (answer,) = predictor.load(run).predict(["a good film"])
        self.assertIn(answer["label"], ("good", "bad"))
        with open(os.path.join(run, "settings.json")) as file:
            settings = json.load(file)["settings"]
        self.assertEqual(settings["task"], "classification")
        self.assertEqual(settings["wrappers"], "r_drop,label_smoothing")
        self.assertEqual(settings["r_drop_alpha"], 5.0)

    def test_wrappers_that_do_nothing_change_nothing(self):
        run = self.finetune(
            "nothing", wrappers="label_smoothing", label_smoothing_epsilon=0
        )
        self.assertEqual(self.losses(run), self.losses(self.tuned))

    @pytest.mark.slow
    def test_a_run_continues_in_its_wrappers_alone(self):
        whole = self.finetune("whole", **BOTH)
        flags = self.finetune_flags(output=self.path("again"), **BOTH)
        code, _, _ = call("trainers.finetune", **flags)
        self.assertEqual(code, 0)
        self.assertEqual(self.losses(self.path("again")), self.losses(whole))
        for changes in ({"wrappers": ""}, {"r_drop_alpha": 2}):
            changed = {k: v for k, v in flags.items() if "smooth" not in k}
            changed |= {"wrappers": BOTH["wrappers"]} | changes
            if not changed["wrappers"]:
                changed.pop("r_drop_alpha", None)
            code, _, error = call("trainers.finetune", **changed)
            self.assertEqual(code, 1)
            self.assertIn("other settings", error)
        code, _, error = call(
            "trainers.finetune", flagfile=os.path.join(whole, "flags.txt")
        )
        self.assertEqual((code, error), (0, ""))

    def test_settings_of_every_wrapper_are_checked(self):
        task = r_drop.RDrop(
            label_smoothing.LabelSmoothing(
                classification.Classification(), epsilon=-3.0
            )
        )
        with self.assertRaisesRegex(errors.InputError, "ing_epsilon=-3"):
            finetune.finetune(
                self.base, self.rows, task=task, output=self.path("checked")
            )

    def test_pretraining_takes_wrappers_too(self):
        run = self.path("smooth")
        flags = self.pretrain_flags(output=run, wrappers="label_smoothing")
        code, _, error = call("trainers.pretrain", **flags)
        self.assertEqual((code, error), (0, ""))
        first, plain = self.log(run)[0], self.log(self.base)[0]
        self.assertNotEqual(first["loss/masked_lm"], plain["loss/masked_lm"])
        code, _, error = call(
            "trainers.pretrain", flagfile=os.path.join(run, "flags.txt")
        )
        self.assertEqual((code, error), (0, ""))

    def test_pretraining_is_scored_without_wrappers(self):
        metrics = []
        for name in ("", "label_smoothing"):
            run = self.path(f"scored-{name}")
            flags = self.pretrain_flags(
                output=run,
                wrappers=name,
                learning_rate=0,
                steps=1,
                evaluate_every=1,
            )
            self.assertEqual(call("trainers.pretrain", **flags)[0], 0)
            metrics += [
                line["dev/loss/masked_lm"]
                for line in self.log(run)
                if "dev/loss/masked_lm" in line
            ]
        self.assertLen(metrics, 2)
        self.assertEqual(metrics[0], metrics[1])

    def test_what_does_not_fit_is_one_line(self):
        for changes, message in (
            ({"wrappers": "dropout"}, "label_smoothing"),
            ({"wrappers": "r_drop", "problem_type": "multi_label"}, "softmax"),
            ({"wrappers": "r_drop", "r_drop_alpha": -1}, "r_drop_alpha"),
            ({"r_drop_alpha": 1}, "r_drop_alpha"),
        ):
            flags = self.finetune_flags(output=self.path("bad"), **changes)
            code, _, error = call("trainers.finetune", **flags)
            self.assertEqual(code, 1, changes)
            self.assertIn(message, error)
            self.assertFalse(os.path.exists(self.path("bad")))


if __name__ == "__main__":
    absltest.main()
