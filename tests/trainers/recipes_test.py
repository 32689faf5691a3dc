import dataclasses
import glob
import os
import re
import sys
from unittest import mock

from absl import flags as absl_flags
from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.tasks import base
from bert_keras.training import settings
from bert_keras.wrappers import base as wrappers
from trainers import finetune, flags, pretrain

FOLDER = os.path.join(
    os.path.dirname(__file__), "..", "..", "trainers", "recipes"
)
SETTINGS = {
    "pretrain": settings.PretrainSettings,
    "finetune": settings.FinetuneSettings,
}


def type_of(field):
    """The type of a setting, also of one whose default is None."""
    return field.metadata.get("value_type", type(field.default))


class RecipesTest(absltest.TestCase):
    def test_every_recipe_names_its_command_and_flags_that_exist(self):
        paths = glob.glob(os.path.join(FOLDER, "*.flags"))
        self.assertNotEmpty(paths)
        for path in paths:
            with open(path) as file:
                text = file.read()
            name = os.path.basename(path).removesuffix(".flags")
            command = re.match(rf"# bert-keras (\w+) --recipe={name} ", text)[1]
            self.assertIn("Expected", text)
            # By which --recipe tells the commands' recipes apart.
            self.assertEqual("--task=" in text, command == "finetune")
            fields = dataclasses.fields(SETTINGS[command])
            types = {f.name: type_of(f) for f in fields}
            for name, value in re.findall(r"^--(\w+)=(.*)$", text, re.M):
                if name == "wrappers":
                    for wrapper in wrappers.parse(value):
                        fields = wrappers.own_options(wrapper)
                        types |= {n: type(f.default) for n, f in fields.items()}
                    continue
                if name in ("task", "objective"):
                    task_class = base.find(value)
                    types |= {
                        f.name: type_of(f)
                        for f in dataclasses.fields(task_class)
                    }
                    continue
                self.assertIn(name, types, path)
                types[name](value)


class RecipeFlagTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        before = set(absl_flags.FLAGS)
        self.addCleanup(self.remove_flags, before)

    def remove_flags(self, before):
        for name in set(absl_flags.FLAGS) - before:
            delattr(absl_flags.FLAGS, name)
        absl_flags.FLAGS.mark_as_parsed()  # as other tests expect them

    def define(self, main, *arguments):
        """Parses the command line of a main."""
        absl_flags.FLAGS.unparse_flags()
        with mock.patch.object(sys, "argv", ["main", *arguments]):
            main.define_flags()
            absl_flags.FLAGS(sys.argv)

    @parameterized.parameters(
        ("--recipe=squad_small", "--epochs=7"),
        ("--epochs=7", "--recipe=squad_small"),
    )
    def test_a_flag_wins_over_the_recipe_in_any_order(self, *arguments):
        self.define(finetune, *arguments)
        run, task = finetune.read_flags()
        self.assertEqual(run.epochs, 7)
        self.assertEqual(run.learning_rate, 1e-4)
        self.assertEqual(run.precision, "mixed_bfloat16")
        self.assertEqual(task.name, "question_answering")
        self.assertEqual(task.doc_stride, 96)

    def test_a_recipe_of_pretraining(self):
        self.define(pretrain, "--recipe=tiny_zh")
        run = flags.read(settings.PretrainSettings)
        self.assertEqual((run.model, run.steps), ("tiny", 1600))

    @parameterized.parameters("--warmup=0.2", "--warmup_ratio=0.2")
    def test_a_ratio_wins_over_the_recipes_steps(self, flag):
        self.define(pretrain, "--recipe=base_128", flag)
        run = flags.read(settings.PretrainSettings)
        self.assertEqual((run.warmup_ratio, run.warmup_steps), (0.2, 0))

    def test_a_former_name_of_a_flag_wins_as_well(self):
        self.define(pretrain, "--recipe=tiny_zh", "--warmup=0.5")
        run = flags.read(settings.PretrainSettings)
        self.assertEqual((run.warmup_ratio, run.steps), (0.5, 1600))

    @parameterized.parameters(
        (finetune, "nothing", "sst2", "tiny_zh"),
        (finetune, "tiny_zh", "sst2", "tiny_zh"),
        (finetune, "../recipes/sst2", "sst2", "tiny_zh"),
        (pretrain, "sst2", "tiny_zh", "sst2"),
    )
    def test_an_unknown_recipe_lists_the_known_ones(
        self, main, name, listed, other
    ):
        with self.assertRaises(errors.InputError) as caught:
            self.define(main, f"--recipe={name}")
        start, _, names = str(caught.exception).partition(": expected one of ")
        self.assertEqual(start, f"recipe={name}")
        self.assertIn(listed, names.strip(".").split(", "))
        self.assertNotIn(other, names.strip(".").split(", "))

    def test_a_recipe_of_another_task_is_refused(self):
        with self.assertRaisesRegex(errors.InputError, "doc_stride=96"):
            self.define(
                finetune, "--recipe=squad_small", "--task=classification"
            )


if __name__ == "__main__":
    absltest.main()
