"""What a call of finetune or pretrain may say, and what it is told else."""

import dataclasses
import os
import pathlib

import numpy as np
from absl.testing import absltest, parameterized

from bert_keras import errors, options
from bert_keras.tasks import classification
from bert_keras.training import run_folder, settings
from bert_keras.wrappers import base as wrappers
from bert_keras.wrappers import label_smoothing

TASK = classification.Classification()


@dataclasses.dataclass(frozen=True)
class WithSeed(classification.Classification):
    seed: int = options.option(0, "Also a setting of the run.")


@dataclasses.dataclass(frozen=True)
class WithFormer(wrappers.Wrapper):
    weight: float = options.option(1.0, "A number.", formerly=("factor",))


@dataclasses.dataclass(frozen=True)
class Named(classification.Classification):
    name: str = options.option("", "What folders know a task by.")


@dataclasses.dataclass(frozen=True)
class Nested(wrappers.Wrapper):
    wrapper: str = options.option("", "What folders know a wrapper by.")


@dataclasses.dataclass(frozen=True)
class Reads(wrappers.Wrapper):
    words: str = options.option("", "A file.", reads=True)


@dataclasses.dataclass(frozen=True)
class Lengthy(wrappers.Wrapper):
    seq_length: int = options.option(8, "Not that of the task.")


@dataclasses.dataclass(frozen=True)
class Forgetful(wrappers.Wrapper):
    def __post_init__(self):
        pass


class SettingsTest(parameterized.TestCase):
    def keywords(self, task="classification", **keywords):
        return settings.from_keywords(settings.FinetuneSettings, task, keywords)

    @parameterized.parameters((classification.Classification,), (None,), (1,))
    def test_a_task_is_a_name_or_an_object(self, task):
        with self.assertRaisesRegex(
            errors.InputError, "task=.*expected the name of a task"
        ):
            self.keywords(task)

    def test_no_wrappers_may_be_none(self):
        self.assertEqual(
            self.keywords(wrappers=None)[1], classification.Classification()
        )
        for wrong in (
            [label_smoothing.LabelSmoothing],
            label_smoothing.LabelSmoothing,
            {"label_smoothing": {"epsilon": 0.2}},
            {"label_smoothing"},
            True,
        ):
            with self.assertRaisesRegex(
                errors.InputError, "expected their names"
            ):
                self.keywords(wrappers=wrong)

    def test_a_run_is_known_by_plain_values(self):
        chosen, task = self.keywords(
            wrappers="r_drop",
            r_drop_alpha=2,
            dev_fraction=0,
            epochs=np.int64(2),
            train=pathlib.Path("rows.tsv"),
        )
        values = task.alpha, chosen.dev_fraction, chosen.epochs, chosen.train
        self.assertEqual(repr(values), "(2.0, 0.0, 2, 'rows.tsv')")

    def test_a_wrappers_value_is_named_as_the_option(self):
        with self.assertRaisesRegex(
            errors.InputError, "^label_smoothing_epsilon=2.0: expected"
        ) as caught:
            settings.check(
                settings.FinetuneSettings(),
                label_smoothing.LabelSmoothing(TASK, epsilon=2.0),
            )
        self.assertEqual(caught.exception.argument, "label_smoothing_epsilon")

    def test_fields_of_a_task_in_wrappers_are_set_there(self):
        with self.assertRaisesRegex(
            errors.InputError, "problem_type is a field of the task"
        ):
            self.keywords(
                label_smoothing.LabelSmoothing(TASK), problem_type="multi_label"
            )

    def test_what_an_option_of_a_wrapper_reads_is_known_by_its_contents(self):
        path = self.create_tempfile(content="one").full_path
        before = run_folder.options_fingerprints(Reads(TASK, words=path))
        (name,) = before
        self.assertEndsWith(name, "_words")
        with open(path, "w") as file:
            file.write("two")
        self.assertNotEqual(
            before, run_folder.options_fingerprints(Reads(TASK, words=path))
        )
        self.assertEqual(run_folder.options_fingerprints(Reads(TASK)), {})

    def test_a_flagfile_has_flags_alone(self):
        identity = run_folder.Identity(
            "pretrain", (TASK,), {}, without_flags=("task", "seq_length")
        )
        folder = self.create_tempdir().full_path
        run_folder.write_identity(folder, identity)
        with open(os.path.join(folder, "flags.txt")) as file:
            values = run_folder.parse_flagfile(file.read())
        self.assertContainsSubset(["problem_type"], values)
        self.assertNoCommonElements(["task", "seq_length"], values)
        self.assertTrue(
            run_folder.check(folder, identity, names=(), has_results=True)
        )

    def test_a_misspelt_setting_of_a_wrapper_is_told_the_name(self):
        with self.assertRaisesRegex(
            errors.InputError, "did you mean label_smoothing_epsilon"
        ):
            self.keywords(
                wrappers="label_smoothing", label_smoothing_epsilom=0.1
            )

    def test_a_name_is_of_the_run_or_of_the_task(self):
        with self.assertRaisesRegex(errors.InputError, "^seed is a setting of"):
            settings.check(settings.FinetuneSettings(), WithSeed())

    def test_no_field_has_a_name_that_folders_use(self):
        task = classification.Classification()
        for task_made in (Named(), Nested(task)):
            with self.assertRaisesRegex(
                errors.InputError, "a reserved name in checkpoints"
            ):
                task_made.to_dict()
        with self.assertRaisesRegex(errors.InputError, "option seq_length"):
            Lengthy(task=task).to_dict()

    def test_a_wrapper_keeps_the_length_of_its_task(self):
        task = classification.Classification(seq_length=16)
        with self.assertRaisesRegex(errors.InputError, "super"):
            Forgetful(task).to_dict()

    def test_a_folder_may_have_the_former_name_of_a_wrappers_setting(self):
        task = WithFormer(classification.Classification())
        prefix = __name__.rpartition(".")[2]
        identity = run_folder.Identity("finetune", (task,), {})
        self.assertEqual(
            identity.renamed({f"{prefix}_factor": 2.0, "factor": 3.0}),
            {f"{prefix}_weight": 2.0, "factor": 3.0},
        )


class DefaultsTest(parameterized.TestCase):
    @parameterized.parameters(
        settings.PrepareSettings,
        settings.PretrainSettings,
        settings.FinetuneSettings,
        classification.Classification,
    )
    def test_defaults_are_allowed_and_help_is_sentences(self, cls):
        options.check(cls())
        for field in dataclasses.fields(cls):
            if "help" in field.metadata:
                self.assertRegex(field.metadata["help"], r"(?s)^.{7,}[.]$")

    def test_steps_and_processes_have_their_least_values(self):
        options.check(settings.PretrainSettings(steps=1))
        options.check(settings.PrepareSettings(workers=0))

    @parameterized.parameters(
        (settings.FinetuneSettings(epochs=-1), TASK, "epochs"),
        (settings.FinetuneSettings(), TASK.with_settings(seq_length=-1), "seq"),
    )
    def test_a_run_checks_its_own_settings_and_the_tasks(
        self, run, task, message
    ):
        with self.assertRaisesRegex(errors.InputError, message):
            settings.check(run, task)


if __name__ == "__main__":
    absltest.main()
