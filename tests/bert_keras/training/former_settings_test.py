"""Folders of runs from before a setting was renamed, or before it existed."""

import dataclasses
import json
import os

from absl.testing import absltest

from bert_keras import errors, options
from bert_keras.tasks import base, classification
from bert_keras.training import run_folder
from bert_keras.training import settings as settings_lib
from bert_keras.wrappers import r_drop


@dataclasses.dataclass(frozen=True)
class Before:
    train: str = options.option("rows.tsv", "A file.", reads=True)
    output: str = options.option("run", "A folder.", identity=False)
    seed: int = options.option(1, "A number.")
    rate: float = options.option(0.5, "A number.")


@dataclasses.dataclass(frozen=True)
class Today:
    train: str = options.option("rows.tsv", "A file.", reads=True)
    output: str = options.option("run", "A folder.", identity=False)
    seed: int = options.option(1, "A number.")
    learning_rate: float = options.option(
        0.5, "A number.", formerly=("rate", "speed")
    )
    # Runs had no decay before there was the setting.
    decay: float = options.option(0.1, "A number.", absent=0.0)


def identity(settings):
    return run_folder.Identity("finetune", (settings,), {"train": "contents"})


class FormerSettingsTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        os.makedirs(os.path.join(self.folder, "step-00000001"))
        self.create_file("step-00000001/config.json", "{}")
        run_folder.write_identity(self.folder, identity(Before(rate=0.25)))

    def create_file(self, name, text):
        with open(os.path.join(self.folder, name), "w") as file:
            file.write(text)

    def check(self, **changes):
        settings = Today(**{"learning_rate": 0.25, "decay": 0.0} | changes)
        return run_folder.check(
            self.folder, identity(settings), names=("step-*",), has_results=True
        )

    def assert_known_by_former_names(self):
        self.assertTrue(self.check())
        for changes, message in (
            ({"learning_rate": 0.5}, "learning_rate=0.25 before, 0.5 now"),
            ({"decay": 0.1}, "decay=0.0 before, 0.1 now"),
            ({"seed": 2}, "seed=1 before, 2 now"),
        ):
            with self.assertRaisesRegex(errors.InputError, message):
                self.check(**changes)

    def test_settings_are_read_through_their_former_names(self):
        self.assert_known_by_former_names()

    def test_flags_of_runs_without_settings_are_read_alike(self):
        os.remove(os.path.join(self.folder, run_folder.IDENTITY))
        self.assert_known_by_former_names()
        path = os.path.join(self.folder, run_folder.FLAGS)
        with open(path) as file:
            text = file.read()
        self.create_file(run_folder.FLAGS, text.replace("--rate", "--speed"))
        self.assert_known_by_former_names()

    def test_what_nobody_declares_is_refused_by_name(self):
        path = os.path.join(self.folder, run_folder.IDENTITY)
        with open(path) as file:
            values = json.load(file)
        values["settings"]["sharpness"] = 3
        self.create_file(run_folder.IDENTITY, json.dumps(values))
        with self.assertRaisesRegex(
            errors.InputError, "sharpness=3 before, unknown now"
        ):
            self.check()


@dataclasses.dataclass(frozen=True)
class Renamed(base.Task):
    """Its field was called otherwise once."""

    problem_type: str = options.option("one", "A word.", formerly=("kind",))


class FormerTaskTest(absltest.TestCase):
    def test_a_saved_task_is_read_through_its_former_names(self):
        for name in ("kind", "problem_type"):
            task = Renamed.from_config({name: "several", "seq_length": 32})
            self.assertEqual(task, Renamed(32, problem_type="several"))
        with self.assertRaisesRegex(errors.InputError, "unknown.*sort"):
            Renamed.from_config({"sort": "several"})

    def test_classes_saved_under_the_kinds_of_before_are_read(self):
        for former, today in (
            ("single", "single_label"),
            ("multi", "multi_label"),
            ("number", "regression"),
        ):
            task = classification.Classification.from_config({"kind": former})
            self.assertEqual(task.problem_type, today)
            # Heads of before go on: their meaning has the name of before.
            self.assertEqual(task.head_signatures["label"][1], former)
            with self.assertWarnsRegex(FutureWarning, f"problem_type={today}"):
                made = classification.Classification(kind=former)
            self.assertEqual(made, task)
        with self.assertRaisesRegex(errors.InputError, "problem_type=both"):
            classification.Classification.from_config({"kind": "both"})

    def test_keywords_of_before_are_taken_with_a_warning(self):
        for former, today in (
            ({"keep": 5}, {"max_checkpoints_to_keep": 5}),
            ({"random_start": True}, {"from_scratch": True}),
            ({"warmup": 0.25}, {"warmup_ratio": 0.25}),
            ({"warmup": 0}, {"warmup_ratio": 0}),
            ({"warmup": 40}, {"warmup_steps": 40}),
        ):
            with self.assertWarnsRegex(FutureWarning, next(iter(today))):
                settings, _ = settings_lib.from_keywords(
                    settings_lib.FinetuneSettings, "classification", former
                )
            self.assertEqual(settings, settings_lib.FinetuneSettings(**today))

    def test_keywords_of_prepare_are_those_of_googles_script(self):
        former = {
            "held_out": 0.2,
            "passes": 3,
            "masked_share": 0.2,
            "max_predictions": 7,
            "objective": "sop",
        }
        today = options.renamed(former, settings_lib.PrepareSettings)
        self.assertEqual(
            today,
            {
                "dev_fraction": 0.2,
                "dupe_factor": 3,
                "masked_lm_prob": 0.2,
                "max_predictions_per_seq": 7,
                "sentence_objective": "sop",
            },
        )
        settings_lib.PrepareSettings(**today)

    def test_a_setting_under_two_names_is_refused(self):
        with self.assertRaisesRegex(errors.InputError, "names of one setting"):
            settings_lib.from_keywords(
                settings_lib.FinetuneSettings,
                "classification",
                {"keep": 5, "max_checkpoints_to_keep": 4},
            )

    def test_a_ratio_and_steps_are_one_setting_of_before(self):
        with self.assertRaisesRegex(errors.InputError, "names of one setting"):
            settings_lib.from_keywords(
                settings_lib.FinetuneSettings,
                "classification",
                {"warmup": 0.2, "warmup_steps": 100},
            )

    def test_what_is_no_number_is_refused_under_its_former_name(self):
        for warmup in (float("nan"), float("inf"), "abc", None):
            with self.assertWarns(FutureWarning):
                with self.assertRaisesRegex(errors.InputError, "warmup_ratio"):
                    settings, _ = settings_lib.from_keywords(
                        settings_lib.FinetuneSettings,
                        "classification",
                        {"warmup": warmup},
                    )
                    options.check(settings)
        with self.assertWarns(FutureWarning):
            with self.assertRaisesRegex(errors.InputError, "problem_type"):
                options.check(classification.Classification(kind=["multi"]))

    def test_with_settings_takes_the_former_names(self):
        task = classification.Classification()
        with self.assertWarns(FutureWarning):
            multi = task.with_settings(kind="multi")
        self.assertEqual(multi.problem_type, "multi_label")
        with self.assertWarns(FutureWarning):
            wrapped = r_drop.RDrop(task).with_settings(kind="single")
        self.assertEqual(wrapped.task.problem_type, "single_label")

    def test_flags_files_hold_text(self):
        for former, today in (
            ("0.1", {"warmup_ratio": "0.1", "warmup_steps": "0"}),
            ("500", {"warmup_steps": "500"}),
            ("500.0", {"warmup_steps": "500"}),
        ):
            self.assertEqual(
                options.renamed(
                    {"warmup": former}, settings_lib.FinetuneSettings
                ),
                today,
            )


if __name__ == "__main__":
    absltest.main()
