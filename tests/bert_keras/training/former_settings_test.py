"""Folders of runs from before a setting was renamed, or before it existed."""

import dataclasses
import json
import os

from absl.testing import absltest

from bert_keras import errors, options
from bert_keras.tasks import base
from bert_keras.training import run_folder


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
        run_folder.take(self.folder, identity(Before(rate=0.25)))

    def create_file(self, name, text):
        with open(os.path.join(self.folder, name), "w") as file:
            file.write(text)

    def check(self, **changes):
        settings = Today(**{"learning_rate": 0.25, "decay": 0.0} | changes)
        return run_folder.check(
            self.folder, identity(settings), names=("step-*",), begun=True
        )

    def assert_known_by_former_names(self):
        self.assertTrue(self.check())
        for changes, message in (
            ({"learning_rate": 0.5}, "learning_rate=0.25 there, 0.5 now"),
            ({"decay": 0.1}, "decay=0.0 there, 0.1 now"),
            ({"seed": 2}, "seed=1 there, 2 now"),
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
            errors.InputError, "sharpness=3 there, unknown now"
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


if __name__ == "__main__":
    absltest.main()
