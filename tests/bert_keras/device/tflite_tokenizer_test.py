import json
import os
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from bert_keras import errors, verification
from bert_keras.device import tflite, tflite_tokenizer
from tests import sharp

LENGTH = 24
ROWS = [
    {"text": "a very good film", "text_pair": "很 好"},
    {"text": "", "text_pair": "The plot is dull, and OLD!"},
    {"text": "good " * 30, "text_pair": "bad " * 40},
    {"text": "naïve café [MASK]", "text_pair": "not"},
]


class StringsTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.predictors, cls.paths = {}, {}
        for task in ("classification", "pair"):
            cls.predictors[task] = sharp.make(task)
            output = os.path.join(folder.name, task)
            tflite.export(
                cls.predictors[task],
                output,
                seq_length=LENGTH,
                data=ROWS,
                with_strings=True,
            )
            cls.paths[task] = os.path.join(
                output, "model_float32_strings.tflite"
            )

    @parameterized.parameters("classification", "pair")
    def test_numbers_are_those_of_the_predictor(self, task):
        predictor = self.predictors[task]
        difference = tflite_tokenizer.compare(
            self.paths[task], predictor, LENGTH
        )
        self.assertGreater(difference.texts, 5)
        self.assertLess(difference.distance, 1e-5)
        call = tflite_tokenizer.runner(self.paths[task])
        rows = [
            {name: row[name] for name in predictor.task.text_columns}
            for row in (ROWS[0], ROWS[1], ROWS[3])
        ]
        expected = predictor.predict(rows)
        for row, answer in zip(rows, expected, strict=True):
            np.testing.assert_allclose(
                call(**row)["scores"][0], answer["scores"], atol=1e-5
            )

    def test_what_it_needs_is_beside_it(self):
        folder = os.path.dirname(self.paths["classification"])
        with open(
            os.path.join(folder, "model_float32.json"), encoding="utf-8"
        ) as file:
            metadata = json.load(file)["strings"]
        self.assertEqual(metadata["model"], "model_float32_strings.tflite")
        self.assertEqual(metadata["oldest_runtime"], "2.9.0")
        with open(
            os.path.join(folder, "model_float32.md"), encoding="utf-8"
        ) as file:
            text = file.read()
        self.assertIn("model_float32_strings.tflite has string inputs", text)
        self.assertIn("FastBertNormalize", text)

    def test_texts_that_it_would_cut_otherwise_are_counted(self):
        predictor = self.predictors["classification"]
        same = [{"text": "a good film"}] * 999
        self.assertEqual(tflite_tokenizer.require_equal_ids(predictor, same), 0)
        one = [*same, {"text": "电影！好"}]
        self.assertAlmostEqual(
            tflite_tokenizer.require_equal_ids(predictor, one), 0.001
        )
        with self.assertRaisesRegex(
            errors.InputError, "2 of 1,001 texts .*0.2%.*fold.*电影！好"
        ):
            tflite_tokenizer.require_equal_ids(
                predictor, [*one, {"text": "a film！"}]
            )

    def test_such_rows_stop_the_export(self):
        output = os.path.join(self.create_tempdir().full_path, "out")
        with self.assertRaisesRegex(
            errors.InputError, "Use the file with id inputs"
        ):
            tflite.export(
                self.predictors["classification"],
                output,
                seq_length=LENGTH,
                data=[{"text": "电影！"}],
                with_strings=True,
            )
        self.assertFalse(os.path.exists(output))

    def test_a_task_that_answers_with_places_is_refused(self):
        for task in ("tagging", "question_answering", "extractive_summary"):
            with self.assertRaisesRegex(
                errors.InputError, "needs features .*string inputs"
            ):
                tflite_tokenizer.signature(sharp.make(task), LENGTH)

    def test_other_custom_ops_are_refused(self):
        with open(self.paths["classification"], "rb") as file:
            content = file.read()
        tflite_tokenizer.require_known_ops(content)
        other = content.replace(b"FastBertNormalize", b"FastBertNormalise")
        with self.assertRaisesRegex(verification.ExportError, "Normalise"):
            tflite_tokenizer.require_known_ops(other)

    def test_it_is_written_with_rows_to_compare_alone(self):
        with self.assertRaisesRegex(errors.InputError, "string inputs needs"):
            tflite.export(
                self.predictors["classification"],
                self.create_tempdir().full_path,
                seq_length=LENGTH,
                with_strings=True,
            )


if __name__ == "__main__":
    absltest.main()
