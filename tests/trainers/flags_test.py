import dataclasses

from absl import flags as absl_flags
from absl.testing import absltest

from bert_keras import options
from trainers import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    flags_test_rate: float = options.option(
        0.5, "A number.", least=0.0, formerly=("flags_test_speed",)
    )


class FlagsTest(absltest.TestCase):
    def tearDown(self):
        for name in ("flags_test_speed", "flags_test_rate"):
            delattr(absl_flags.FLAGS, name)
        super().tearDown()

    def test_a_flag_is_known_by_its_former_name(self):
        flags.define(Settings)
        for argument in ("--flags_test_rate=0.25", "--flags_test_speed=0.25"):
            absl_flags.FLAGS(["program", argument])
            self.assertEqual(flags.read(Settings), Settings(0.25))


if __name__ == "__main__":
    absltest.main()
