"""What an export may write over."""

import json
import os

from absl.testing import absltest

from bert_keras import errors
from bert_keras.device import tflite_sidecars
from tests.trainers import mains


class OutputTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.output = self.create_tempdir().full_path

    def put(self, name, text):
        mains.write(os.path.join(self.output, name), text)

    def test_files_of_an_earlier_export_may_be_written_over(self):
        tflite_sidecars.check_own(self.output, "model_int8.tflite")
        self.put("model_int8.json", json.dumps({"model": "model_int8.tflite"}))
        for name in ("model_int8.tflite", "model_int8.md"):
            self.put(name, "")
        tflite_sidecars.check_own(self.output, "model_int8.tflite")

    def test_files_of_others_are_refused(self):
        for name in ("tflite", "md", "json"):
            self.put(f"model_{name}.{name}", "mine")
            with self.assertRaisesRegex(errors.InputError, "would write over"):
                tflite_sidecars.check_own(self.output, f"model_{name}.tflite")


if __name__ == "__main__":
    absltest.main()
