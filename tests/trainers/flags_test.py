import dataclasses
from unittest import mock

from absl import flags as absl_flags
from absl.testing import absltest

from bert_keras import errors, options
from trainers import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    flags_test_rate: float = options.option(
        0.5, "A number.", minimum=0.0, formerly=("flags_test_speed",)
    )
    flags_test_share: float = options.option(
        0.1,
        "A number.",
        formerly=("flags_test_percent",),
        translate=lambda percent: {"flags_test_share": percent / 100},
    )


FLAGS = [f"flags_test_{name}" for name in ("rate", "speed", "share", "percent")]


class FlagsTest(absltest.TestCase):
    def tearDown(self):
        for name in FLAGS:
            delattr(absl_flags.FLAGS, name)
        super().tearDown()

    def read(self, *arguments):
        """The settings, and what is said about their names."""
        absl_flags.FLAGS.unparse_flags()
        absl_flags.FLAGS(["program", *arguments])
        with mock.patch.object(flags.console, "say") as say:
            return flags.read(Settings), [
                call.args[0] for call in say.mock_calls
            ]

    def test_a_flag_is_known_by_its_former_names(self):
        flags.define(Settings)
        self.assertEqual(
            self.read("--flags_test_rate=0.25"), (Settings(0.25), [])
        )
        settings, (said,) = self.read("--flags_test_speed=0.25")
        self.assertEqual(settings, Settings(0.25))
        self.assertIn("--flags_test_speed is deprecated", said)
        self.assertIn("use --flags_test_rate=0.25.", said)

    def test_a_former_value_is_translated(self):
        flags.define(Settings)
        settings, (said,) = self.read("--flags_test_percent=50")
        self.assertEqual(settings, Settings(flags_test_share=0.5))
        self.assertIn("use --flags_test_share=0.5.", said)

    def test_a_flag_under_two_names_is_refused(self):
        flags.define(Settings)
        with self.assertRaisesRegex(errors.InputError, "names of one setting"):
            self.read("--flags_test_rate=0.25", "--flags_test_speed=0.25")


if __name__ == "__main__":
    absltest.main()
