import types

from absl.testing import absltest

from bert_keras import checkpoint, console
from bert_keras.training import input_pipeline
from tests import tiny


class InputPipelineTest(absltest.TestCase):
    def printed(self, function, *arguments):
        with console.console.capture() as captured:
            function(*arguments)
        return captured.get()

    def test_what_a_native_start_ignores_is_reported(self):
        run = self.create_tempdir().full_path
        checkpoint.save(run, tiny.classifier(), tiny.tokenizer(), step=1)
        for settings, names in (
            ({"lowercase": None, "allow_missing": ""}, []),
            ({"lowercase": False, "allow_missing": ""}, ["lowercase"]),
            (
                {"lowercase": True, "allow_missing": "pooler"},
                ["lowercase", "allow_missing"],
            ),
        ):
            printed = self.printed(
                input_pipeline.read_init,
                types.SimpleNamespace(**settings),
                run,
            )
            for name in ("lowercase", "allow_missing"):
                self.assertEqual(name in printed, name in names, printed)


if __name__ == "__main__":
    absltest.main()
