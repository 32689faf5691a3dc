"""What a call of finetune or pretrain may say, and what it is told else."""

import dataclasses

from absl.testing import absltest, parameterized

from bert_keras import errors, options
from bert_keras.tasks import classification
from bert_keras.training import run_folder, settings
from bert_keras.wrappers import base as wrappers
from bert_keras.wrappers import label_smoothing


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
        with self.assertRaisesRegex(errors.InputError, "expected their names"):
            self.keywords(wrappers=[label_smoothing.LabelSmoothing])

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
        for made in (Named(), Nested(task)):
            with self.assertRaisesRegex(errors.InputError, "which folders use"):
                made.to_dict()

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


if __name__ == "__main__":
    absltest.main()
