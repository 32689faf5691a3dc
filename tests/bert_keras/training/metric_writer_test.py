"""Trackers beside log.jsonl: which ones, and what they are told."""

import os
from unittest import mock

from absl.testing import absltest, parameterized
from tensorboard.backend.event_processing import event_accumulator

from bert_keras import errors
from bert_keras.training import metric_writer


def board(run):
    """{name: [(step, ...)]} as TensorBoard shows them."""
    folder = os.path.join(run, "tensorboard")
    events = event_accumulator.EventAccumulator(
        folder, size_guidance={event_accumulator.TENSORS: 0}
    )
    events.Reload()
    return {
        name: [event.step for event in events.Tensors(name)]
        for name in events.Tags()["tensors"]
    }


class MetricWriterTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.run_folder = self.create_tempdir().full_path

    def writer(self, start=0, **options):
        return metric_writer.MetricWriter(
            self.run_folder, start=start, **options
        )

    @parameterized.parameters(
        ("tensorboard", ("tensorboard",)),
        (" tensorboard, tensorboard", ("tensorboard",)),
        ("", ()),
        (" , ", ()),
    )
    def test_trackers_are_named(self, text, names):
        self.assertEqual(metric_writer.parse(text), names)

    @parameterized.parameters("wandb", "tensorboard,all", "none")
    def test_an_unknown_tracker_is_refused(self, text):
        with self.assertRaisesRegex(
            errors.InputError, "expected tensorboard or mlflow"
        ):
            metric_writer.parse(text)

    def test_a_missing_package_is_named_with_how_to_install_it(self):
        with mock.patch("importlib.util.find_spec", return_value=None):
            with self.assertRaisesRegex(
                errors.InputError, r"pip install 'bert-keras\[mlflow\]'"
            ):
                metric_writer.parse("mlflow")

    def test_without_trackers_the_log_is_all_there_is(self):
        writer = self.writer(report_to=())
        writer.write(1, {"loss": 2.0})
        writer.close(finished=True)
        self.assertEqual(os.listdir(self.run_folder), [metric_writer.LOG])
        self.assertEqual(
            metric_writer.read(self.run_folder), [{"step": 1, "loss": 2.0}]
        )

    def test_after_a_restart_no_step_is_there_twice(self):
        writer = self.writer()
        for step in (1, 2, 3):
            writer.write(step, {"loss": 2.0, "dev/nan": float("nan")})
        writer.close(finished=False)
        writer = self.writer(start=2)
        writer.write(3, {"loss": 1.0})
        writer.close(finished=True)
        self.assertEqual(board(self.run_folder), {"loss": [1, 2, 3]})
        log = metric_writer.read(self.run_folder)
        self.assertEqual([line["step"] for line in log], [1, 2, 3])

    @parameterized.parameters("NaN", "Infinity", "-Infinity", "1" + "0" * 400)
    def test_a_number_that_json_or_floats_lack_makes_a_line_invalid(self, text):
        log = os.path.join(self.run_folder, metric_writer.LOG)
        with open(log, "w", encoding="utf-8") as file:
            file.write(f'{{"step": 1, "loss": {text}}}\n{{"step": 2}}\n')
        self.writer(start=2)
        with open(log, encoding="utf-8") as file:
            self.assertEqual(file.read(), '{"step": 2}\n')

    def test_a_tracker_that_is_added_later_gets_what_the_log_has(self):
        writer = self.writer(report_to=())
        writer.write(1, {"loss": 2.0})
        self.writer(start=1).close(finished=True)
        self.assertEqual(board(self.run_folder), {"loss": [1]})


if __name__ == "__main__":
    absltest.main()
