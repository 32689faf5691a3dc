"""What an export may write over."""

import dataclasses
import json
import os

from absl.testing import absltest

from bert_keras import errors, options, predictor
from bert_keras import model as model_lib
from bert_keras.device import tflite_sidecars
from bert_keras.tasks import classification
from bert_keras.wrappers import base as wrappers
from tests import tiny
from tests.trainers import mains


@dataclasses.dataclass(frozen=True)
class Served(wrappers.Wrapper):
    """A user's wrapper that is served, with a field named as the task's."""

    kind: str = options.option("other", "Of the wrapper.")

    leaves_no_trace = False


class OutputTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.output = self.create_tempdir().full_path

    def put(self, name, text):
        mains.write(os.path.join(self.output, name), text)

    def test_files_of_an_earlier_export_may_be_written_over(self):
        tflite_sidecars.check_overwrites(self.output, "model_int8.tflite")
        self.put("model_int8.json", json.dumps({"model": "model_int8.tflite"}))
        for name in ("model_int8.tflite", "model_int8.md"):
            self.put(name, "")
        tflite_sidecars.check_overwrites(self.output, "model_int8.tflite")

    def test_files_of_others_are_refused(self):
        for name in ("tflite", "md", "json"):
            self.put(f"model_{name}.{name}", "mine")
            with self.assertRaisesRegex(errors.InputError, "overwritten"):
                tflite_sidecars.check_overwrites(
                    self.output, f"model_{name}.tflite"
                )


class MeaningTest(absltest.TestCase):
    def test_of_a_wrapper_that_is_served_the_task_is_told(self):
        task = classification.Classification(
            labels=("bad", "good"), problem_type="multi_label", seq_length=16
        )
        model = model_lib.BertModel(tiny.bert().build_encoder(), Served(task))
        meaning = tflite_sidecars._describe_model(
            predictor.Predictor(model, tiny.tokenizer())
        )
        self.assertEqual(meaning["task"], "classification")
        self.assertEqual(meaning["settings"], task.get_config())


if __name__ == "__main__":
    absltest.main()
