"""--help: an example first, every flag once, in a group, with its default."""

import dataclasses
import os
import re
import subprocess
import sys

from absl.testing import absltest, parameterized

from bert_keras import command_help
from bert_keras.compression import search
from bert_keras.training import evaluate
from bert_keras.training import settings as settings_lib


def help_of(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return done.stdout


class CommandHelpTest(parameterized.TestCase):
    @parameterized.parameters(
        settings_lib.PrepareSettings,
        settings_lib.PretrainSettings,
        settings_lib.FinetuneSettings,
        evaluate.EvaluateSettings,
        search.CompressSettings,
    )
    def test_every_setting_of_a_command_is_in_one_group(self, settings):
        grouped = [
            name for names in command_help.GROUPS.values() for name in names
        ]
        self.assertLen(set(grouped), len(grouped))
        self.assertContainsSubset(
            [
                field.name
                for field in dataclasses.fields(settings)
                if "help" in field.metadata
            ],
            grouped,
        )

    @parameterized.parameters("trainers.finetune", "export.saved_model")
    def test_an_example_comes_first_and_flags_after_it(self, module):
        text = help_of(module)
        self.assertBetween(text.index(f"  python -m {module}"), 1, 400)
        flags = re.findall(
            r"^  --(?:\[no\])?(\w+)(?:=\S*)?$", text, re.MULTILINE
        )
        self.assertLen(set(flags), len(flags))
        titles = re.findall(r"^([A-Z][a-z ]+):$", text, re.MULTILINE)
        titles = [title for title in titles if title != "Signatures"]
        expected = [*command_help.GROUPS, command_help.REST]
        self.assertEqual(titles, [t for t in expected if t in titles])
        # Nothing of TensorFlow's or absl's own, and no former name.
        for name in ("hbm_oom_exit", "verbosity", "warmup", "keep"):
            self.assertNotIn(name, flags)
        has_former = "\nFormer names, until version 0.3: --" in text
        self.assertEqual(has_former, module == "trainers.finetune")

    def test_defaults_choices_and_bounds_are_shown(self):
        text = " ".join(help_of("trainers.finetune").split())
        for entry in (
            "--learning_rate=5e-05 Peak learning rate. (a non-negative number)",
            "--[no]xla=false Compile",
            "--optimizer=adamw The update rule",
            "(one of adamw, adam, lamb, sgd)",
        ):
            self.assertIn(entry, text)


if __name__ == "__main__":
    absltest.main()
