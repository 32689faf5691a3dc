"""Every main as a user calls it: in processes of their own, on tiny data."""

import json
import os
import shutil
import tempfile

import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bert_keras import checkpoint
from bert_keras.data import records
from bert_keras.training import meter
from tests.trainers import mains
from tests.trainers.mains import call, write


def tearDownModule():
    mains.close()


class MainsTest(mains.Case):
    def test_prepare_holds_documents_out(self):
        train = records.Records(os.path.join(self.records, "train"))
        dev = records.Records(os.path.join(self.records, "dev"))
        self.assertGreater(len(train), len(dev))
        self.assertLessEqual(train.lengths.max(), 32)
        labels = [
            train.read([row], 32)["targets/next_sentence/labels"][0]
            for row in range(len(train))
        ]
        self.assertEqual(set(labels), {0, 1})

    def test_pretraining_logs_every_step_once_and_evaluates(self):
        lines = self.log(self.base)
        steps = [line["step"] for line in lines if "loss" in line]
        self.assertEqual(steps, [1, 2, 3, 4])
        self.assertIn("dev/masked_lm_accuracy", lines[-1])
        self.assertEqual(checkpoint.read(self.base).step, 4)
        self.assertIn("parameters", self.printed["pretrain"])

    def test_a_finished_run_is_left_alone(self):
        before = self.log(self.base)
        code, _, error = call("trainers.pretrain", **self.pretrain_flags())
        self.assertEqual((code, error), (0, ""))
        self.assertEqual(self.log(self.base), before)

    def test_a_run_goes_on_from_its_last_checkpoint(self):
        def run(folder, **changes):
            return call(
                "trainers.pretrain",
                **self.pretrain_flags(
                    output=folder, steps=6, save_every=3, **changes
                ),
            )

        whole, broken = self.path("whole"), self.path("broken")
        self.assertEqual(run(whole)[0], 0)
        self.assertEqual(run(broken)[0], 0)
        # As if it had been killed after step 3 was saved and 5 was logged.
        last = checkpoint.step_folder(broken, 6)
        os.remove(os.path.join(last, checkpoint.CONFIG))
        os.remove(os.path.join(broken, "best"))
        checkpoint.mark(broken, "latest", 3)
        lines = self.log(broken)
        with open(os.path.join(broken, "log.jsonl"), "w") as file:
            for line in lines[:5]:
                file.write(json.dumps(line) + "\n")
            file.write('{"step": 6, "lo')
        self.assertEqual(run(broken)[0], 0)

        def results(folder):
            return [
                {k: v for k, v in line.items() if k not in meter.TIMES}
                for line in self.log(folder)
            ]

        self.assertEqual(results(broken), results(whole))
        one, two = (
            checkpoint.read(checkpoint.step_folder(folder, 6)).metadata[
                "sha256"
            ]
            for folder in (whole, broken)
        )
        self.assertEqual(one, two)

    def test_other_flags_in_the_same_folder_are_refused(self):
        code, _, error = call(
            "trainers.pretrain", **self.pretrain_flags(learning_rate=1)
        )
        self.assertEqual(code, 1)
        self.assertRegex(error, "learning_rate=0.0001 before, 1.0 now")

    def test_a_run_begun_before_there_was_a_flag_goes_on(self):
        run = self.path("older")
        shutil.copytree(self.base, run)
        os.remove(os.path.join(run, "settings.json"))
        path = os.path.join(run, "flags.txt")
        with open(path) as file:
            lines = file.readlines()
        with open(path, "w") as file:
            file.writelines(x for x in lines if "bucket_lengths" not in x)
        # A profile changes no result.
        flags = self.pretrain_flags(output=run, profile=True)
        for changes in ({"bucket_lengths": False}, {"model": "tiny"}):
            code, _, error = call("trainers.pretrain", **flags | changes)
            self.assertEqual(code, 1)
            (name,) = changes
            self.assertRegex(error, f"--{name}=.* before, {changes[name]} now")
        code, _, error = call("trainers.pretrain", **flags)
        self.assertEqual((code, error), (0, ""))

    def test_a_damaged_checkpoint_is_passed_over(self):
        folder = self.path("damaged")
        flags = self.pretrain_flags(output=folder, steps=4, save_every=2)
        self.assertEqual(call("trainers.pretrain", **flags)[0], 0)
        expected = checkpoint.read(checkpoint.step_folder(folder, 4))
        last = os.path.join(expected.folder, checkpoint.ENCODER)
        with open(last, "r+b") as file:
            file.truncate(100)
        self.assertEqual(call("trainers.pretrain", **flags)[0], 0)
        again = checkpoint.read(checkpoint.step_folder(folder, 4))
        self.assertEqual(again.metadata["sha256"], expected.metadata["sha256"])

    def test_a_run_that_was_moved_goes_on(self):
        moved = self.path("moved")
        shutil.copytree(self.base, moved)
        code, _, error = call(
            "trainers.pretrain", **self.pretrain_flags(output=moved)
        )
        self.assertEqual((code, error), (0, ""))

    def test_a_wrong_flag_can_be_mended_in_the_same_folder(self):
        folder = self.path("mended")
        for size, code in (("huge", 1), (self.model, 0)):
            flags = self.pretrain_flags(output=folder, model=size, steps=2)
            self.assertEqual(call("trainers.pretrain", **flags)[0], code)

    def test_a_run_is_replayed_from_its_flags(self):
        replay = self.path("replay")
        code, _, error = call(
            "trainers.finetune",
            flagfile=os.path.join(self.tuned, "flags.txt"),
            output=replay,
        )
        self.assertEqual((code, error), (0, ""))
        one, two = (
            checkpoint.read(run).metadata["sha256"]
            for run in (self.tuned, replay)
        )
        self.assertEqual(one, two)

    def test_evaluate_and_predict_agree(self):
        answers = self.path("answers.jsonl")
        code, out, error = call(
            "trainers.evaluate",
            checkpoint=self.tuned,
            data=self.rows,
            output=answers,
        )
        self.assertEqual((code, error), (0, ""))
        self.assertIn("accuracy", out)
        self.assertIn("confusion", out)
        with open(self.path("answers-confusion.png"), "rb") as file:
            self.assertEqual(file.read(4), b"\x89PNG")
        with open(answers) as file:
            expected = [json.loads(line) for line in file]
        lines = write(
            self.path("lines.txt"),
            "".join(line["row"]["text"] + "\n" for line in expected),
        )
        code, out, _ = call(
            "trainers.predict", checkpoint=self.tuned, input=lines
        )
        got = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(
            [line["answer"]["label"] for line in expected],
            [answer["label"] for answer in got],
        )

    def test_evaluate_reads_records(self):
        code, out, error = call(
            "trainers.evaluate",
            checkpoint=self.base,
            data=os.path.join(self.records, "dev"),
        )
        self.assertEqual((code, error), (0, ""))
        self.assertIn("next_sentence_accuracy", out)

    def test_describe_counts_base(self):
        code, out, _ = call("trainers.describe", model="base")
        self.assertEqual(code, 0)
        self.assertIn("109,482,240", out)
        code, out, _ = call("trainers.describe", checkpoint=self.tuned)
        self.assertEqual(code, 0)
        self.assertIn("classification", out)

    @parameterized.parameters(
        ("pretrain", {"precision": "mixed_bfloat16"}),
        ("pretrain", {"precision": "mixed_float16"}),
        ("pretrain", {"strategy": "mirrored"}),
        ("finetune", {"strategy": "mirrored"}),
        ("pretrain", {"xla": True}),
        ("pretrain", {"best_metric": "loss/masked_lm", "deterministic": True}),
        ("pretrain", {"gradient_accumulation_steps": 2}),
        ("finetune", {"pipeline_stages": 2, "precision": "mixed_float16"}),
        ("pretrain", {"optimizer": "lamb"}),
        ("pretrain", {"init": True, "model": "tiny"}),
        ("finetune", {"from_scratch": True}),
        ("finetune", {"pooling": "lstm", "class_weights": True}),
        ("finetune", {"dev": "", "bucket_lengths": False}),
    )
    @pytest.mark.slow_after(7)
    def test_trains_two_steps_with(self, name, changes):
        self.train_two_steps(name, changes)

    @parameterized.parameters(
        (
            "pretrain",
            {
                "strategy": "mirrored",
                "precision": "mixed_float16",
                "gradient_accumulation_steps": 2,
            },
        ),
        ("pretrain", {"optimizer": "adam"}),
        ("pretrain", {"xla": True, "strategy": "mirrored"}),
        ("pretrain", {"precision": "mixed_float16", "loss_scale": 128}),
        ("finetune", {"problem_type": "multi_label", "pooling": "layers"}),
        ("finetune", {"pooling": "concat", "xla": True}),
        ("finetune", {"pooling": "mean", "strategy": "mirrored"}),
    )
    @pytest.mark.slow
    def test_trains_two_steps_with_more(self, name, changes):
        self.train_two_steps(name, changes)

    def test_a_run_continues_on_other_devices(self):
        one = self.weights_after([{"gradient_accumulation_steps": 4}])
        others = self.weights_after(
            [
                {"pipeline_stages": 2, "micro_batches": 4},
                {"gradient_accumulation_steps": 4},
                {"strategy": "mirrored", "gradient_accumulation_steps": 2},
                {"pipeline_stages": 2, "pipeline_schedule": "gpipe"},
            ]
        )
        np.testing.assert_allclose(one, others, rtol=0, atol=1e-6)

    def test_an_elastic_run_has_the_same_bits_on_other_devices(self):
        elastic = {"elastic_shards": 4}
        one = self.weights_after([elastic])
        others = self.weights_after(
            [elastic, elastic | {"strategy": "mirrored"}, elastic]
        )
        np.testing.assert_array_equal(one, others)

    def weights_after(self, shapes):
        """Weights after 8 steps, the first 2, 4, ... of them on each shape."""
        output = tempfile.mkdtemp(dir=self.folder)
        flags = self.pretrain_flags(
            output=output, steps=8, save_every=2, max_checkpoints_to_keep=9
        )
        for number, shape in enumerate(shapes):
            code, _, error = call("trainers.pretrain", **flags | shape)
            self.assertEqual((code, error), (0, ""))
            # As if it had been killed: the rest is done on other devices.
            if number + 1 < len(shapes):
                for step in range(2 * number + 4, 9, 2):
                    shutil.rmtree(checkpoint.step_folder(output, step))
        values = checkpoint.read(output).encoder_values()
        return np.concatenate([np.ravel(values[name]) for name in values])

    def train_two_steps(self, name, changes):
        folder = tempfile.mkdtemp(dir=self.folder)
        if changes.get("init"):
            changes = changes | {"init": self.base}
        make = {
            "pretrain": self.pretrain_flags,
            "finetune": self.finetune_flags,
        }
        short = {"steps": 2} if name == "pretrain" else {"epochs": 1}
        code, _, error = call(
            f"trainers.{name}", **make[name](output=folder, **short, **changes)
        )
        self.assertEqual((code, error), (0, ""))
        self.assertEqual(checkpoint.read(folder).step, 2)

    def test_early_stopping_ends_the_run_for_good(self):
        folder = self.path("early")
        flags = self.finetune_flags(
            output=folder, epochs=8, early_stopping=2, learning_rate=0
        )
        for _ in range(2):  # started again, it stays at its end
            code, out, error = call("trainers.finetune", **flags)
            self.assertEqual((code, error), (0, ""))
            # Epoch 1 of 2 steps is the best, two later ones are no better.
            self.assertEqual(checkpoint.steps(folder), [2, 6])
            self.assertEqual(checkpoint.read(folder).step, 2)
            self.assertRegex(out, "steps +│ 6 ")


if __name__ == "__main__":
    absltest.main()
