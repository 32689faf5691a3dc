import json
import os
import subprocess
import sys
import tempfile
from unittest import mock

import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bert_keras import attention_map, checkpoint, predictor
from bert_keras import model as model_lib
from tests import sharp, tiny
from tests.trainers import mains
from trainers import predict

LATIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.slow
class PredictTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.run_ = os.path.join(folder.name, "run")
        cls.predictor = sharp.make("classification")
        checkpoint.save(cls.run_, cls.predictor.model, tiny.tokenizer(), step=1)

    def start(self, **environment):
        return subprocess.Popen(
            [sys.executable, "-m", "trainers.predict"]
            + [f"--checkpoint={self.run_}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=mains.ROOT,
            env={**os.environ, **environment},
        )

    def test_text_is_utf8_in_any_locale(self):
        texts = ["很 好", "a very good film", "坏 电影 é"]
        process = self.start(**LATIN)
        lines = "".join(f"{text}\n" for text in texts)
        out, said = process.communicate(lines.encode())
        self.assertEqual(process.returncode, 0, said)
        labels = [json.loads(line)["label"] for line in out.splitlines()]
        expected = [a["label"] for a in self.predictor.predict(texts)]
        self.assertIn("好", expected)
        self.assertEqual(labels, expected)

    def test_bytes_that_are_not_utf8_are_refused_in_one_line(self):
        process = self.start(**LATIN)
        _, said = process.communicate(b"a \xff film\n")
        self.assertEqual(process.returncode, 1)
        self.assertIn(b"error: standard input, line 1: expected UTF-8", said)
        self.assertNotIn(b"Traceback", said)

    def test_a_reader_that_leaves_ends_it_quietly(self):
        process = self.start()
        process.stdin.write(b"a film\n")
        process.stdin.flush()
        self.assertIn(b'"label"', process.stdout.readline())
        process.stdout.close()
        _, said = process.communicate(b"a film\n" * 100)
        self.assertEqual(process.returncode, 0, said)
        self.assertNotIn(b"Error", said)
        self.assertNotIn(b"error", said)


class ContinuedTest(parameterized.TestCase):
    @parameterized.parameters(0, 1, 3, 4, 6, 7)
    def test_it_has_the_batches_of_a_run_that_was_not_stopped(self, start):
        """Other batches would round differently in the last bits."""
        model = sharp.make("classification")
        lines = ["a", "the film a", "very good", "bad", "a", "the", "good bad"]
        sizes = {"batch_size": 2, "ahead": 2}
        batches = []
        answer = model._raw

        def spied(examples):
            batches.append([example["text"] for example in examples])
            return answer(examples)

        self.enter_context(mock.patch.object(model, "_raw", spied))
        whole = list(predict.predict(model, lines, **sizes))
        expected = batches.copy()
        batches.clear()
        rest = list(predict.predict_from(model, lines, start, **sizes))
        self.assertNotEmpty(batches)
        self.assertEqual(batches, expected[-len(batches) :])
        self.assertLen(rest, len(whole) - start)
        self.assertEqual(rest, whole[start:])


class VectorsTest(absltest.TestCase):
    def test_a_model_of_pairs_writes_the_vectors_of_texts(self):
        folder = self.create_tempdir()
        model = sharp.make("embedding")
        self.assertTrue(model.task.pair)
        checkpoint.save(folder.full_path, model.model, model.tokenizer, step=1)
        texts = folder.create_file("texts.txt", "the film\na\n").full_path
        path = os.path.join(self.create_tempdir().full_path, "x.npy")
        code, _, error = mains.call(
            "trainers.predict",
            checkpoint=folder.full_path,
            input=texts,
            output=path,
        )
        self.assertEqual((code, error), (0, ""))
        (pair,) = model.predict([{"text": "the film", "text_pair": "a"}])
        np.testing.assert_allclose(
            np.load(path),
            [pair["embedding"], pair["embedding_pair"]],
            atol=1e-6,
        )

    def test_damaged_weights_are_reported(self):
        folder = self.create_tempdir()
        model = sharp.make("embedding")
        table = model.model.weights[0]
        table.assign(np.full(table.shape, np.nan))
        checkpoint.save(folder.full_path, model.model, model.tokenizer, step=1)
        texts = folder.create_file("texts.txt", "the film\na\n").full_path
        code, _, _, said = mains.call_and_listen(
            "trainers.predict",
            checkpoint=folder.full_path,
            input=texts,
            output=os.path.join(self.create_tempdir().full_path, "x.npy"),
        )
        self.assertEqual(code, 0)
        self.assertIn("2 rows hold NaN or infinity", said)


class GenerationTest(parameterized.TestCase):
    def predict(self, task, **flags):
        folder = self.create_tempdir()
        model = sharp.make(task)
        checkpoint.save(folder.full_path, model.model, model.tokenizer, step=1)
        texts = folder.create_file("texts.txt", "the film\na\n")
        return mains.call(
            "trainers.predict",
            checkpoint=folder.full_path,
            input=texts.full_path,
            **flags,
        )

    @parameterized.parameters(
        {"max_new_tokens": 5, "top_p": 0.9, "seed": 3},
        {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5},
    )
    @pytest.mark.slow_after(1)
    def test_flags_change_the_task_that_generates(self, **flags):
        code, out, error = self.predict("causal_lm", **flags)
        self.assertEqual((code, error), (0, ""))
        model = sharp.make("causal_lm")
        task = model.task.with_settings(**flags)
        model = predictor.Predictor(
            model_lib.BertModel(model.model.encoder, task), model.tokenizer
        )
        self.assertEqual(
            [json.loads(line) for line in out.splitlines()],
            model.predict(["the film", "a"]),
        )

    def test_attention_is_that_of_the_first_text(self):
        model = sharp.make("sequence_to_sequence")
        picture = os.path.join(self.create_tempdir(), "attention.png")
        drawn = []

        def fake(model, text):
            drawn.append(text)
            return attention_map.AttentionMap(("a",), ("b",), np.ones((1, 1)))

        with mock.patch.object(attention_map, "attention_map", fake):
            list(predict._drawn(model, [], picture))
            self.assertFalse(os.path.exists(picture))
            lines = ['{"text": "the film"}\n', "a\n"]
            self.assertEqual(list(predict._drawn(model, lines, picture)), lines)
        self.assertEqual(drawn, ["the film"])
        self.assertTrue(os.path.exists(picture))

    def test_the_picture_is_written_over_nothing_else(self):
        folder = self.create_tempdir()
        texts = folder.create_file("texts.txt", "the film\n").full_path
        other = folder.create_file("other.png", "a").full_path
        for path, words in (
            (folder.full_path, "--attention=.* name of a file"),
            (texts, "--attention=.* is --input"),
            (other, "choose another --attention"),
        ):
            code, _, error = mains.call(
                "trainers.predict", checkpoint="c", input=texts, attention=path
            )
            self.assertEqual(code, 1)
            self.assertRegex(error, f"^error: .*{words}")

    def test_other_tasks_refuse_them_in_one_line(self):
        code, _, error = self.predict("classification", top_p=0.9)
        self.assertEqual(code, 1)
        self.assertRegex(
            error, r"^error: --top_p is no setting of .*\(classification\)"
        )

    @parameterized.parameters(
        ({"coverage_penalty": 0.2}, "--coverage_penalty is no setting of .*"),
        ({"num_beams": 2, "seed": 1}, "--seed=1 has no effect with --num_be"),
        ({"length_penalty": 0.0}, "--length_penalty=0.0 has no effect withou"),
        ({"num_return_sequences": 2}, "--num_return_sequences=2: expected at"),
    )
    def test_what_has_no_effect_is_refused_in_one_line(self, flags, words):
        code, _, error = self.predict("causal_lm", **flags)
        self.assertEqual(code, 1)
        self.assertRegex(error, f"^error: {words}.*\\Z")

    @parameterized.parameters(
        ({"vectors": "-1", "layers": "1"}, "--layers=1 has no effect with --v"),
        ({"dtype": "int8"}, "--dtype=int8 has no effect without an output"),
    )
    def test_a_flag_beside_another_type_of_answer(self, flags, words):
        code, _, error = self.predict("causal_lm", **flags)
        self.assertEqual(code, 1)
        self.assertRegex(error, f"^error: {words}.*\\Z")


class CopyTextsTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path

    def save(self, task):
        path = os.path.join(self.folder, task)
        checkpoint.save(path, sharp.make(task).model, tiny.tokenizer(), step=1)
        return path

    def test_texts_stand_before_their_answers(self):
        texts = ["a good film", "很 好", "dull"] * 30
        path = mains.write(
            os.path.join(self.folder, "texts.txt"), "\n".join(texts) + "\n"
        )
        model = self.save("classification")
        written = {}
        for copies in (False, True):
            code, out, said = mains.call(
                "trainers.predict",
                checkpoint=model,
                input=path,
                copy_texts=copies,
                batch_size=4,
            )
            self.assertEqual(code, 0, said)
            written[copies] = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(
            written[True],
            [
                {"text": text, **answer}
                for text, answer in zip(texts, written[False], strict=True)
            ],
        )

    def test_fields_of_the_same_name_are_refused(self):
        path = mains.write(os.path.join(self.folder, "a.txt"), "a film\n")
        code, _, said = mains.call(
            "trainers.predict",
            checkpoint=self.save("tagging"),
            input=path,
            copy_texts=True,
        )
        self.assertEqual(code, 1)
        self.assertIn("an answer of tagging has text itself", said)

    def test_an_array_has_no_texts(self):
        code, _, said = mains.call(
            "trainers.predict",
            checkpoint=self.save("embedding"),
            output=os.path.join(self.folder, "x.npy"),
            copy_texts=True,
        )
        self.assertEqual(code, 1)
        self.assertIn("has no texts", said)


if __name__ == "__main__":
    absltest.main()
