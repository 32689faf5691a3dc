import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized
from google.protobuf import text_format
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from bert_keras import checkpoint, errors, signatures, verification
from bert_keras import model as model_lib
from bert_keras import predictor as predictor_lib
from bert_keras.serving import (
    compatibility,
    manifest,
    saved_model,
    served_width,
    tf_serving_files,
)
from tests import made, sharp

# What a process does that knows nothing of this project.
STRANGER = """
import json, sys
import tensorflow as tf, tensorflow_text
answer = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
answer(text=tf.constant(["a first request, of another size"]))
answers = answer(text=tf.constant(json.loads(sys.argv[2])))
assert not [name for name in sys.modules if name.startswith("bert_keras")]
print(json.dumps({
    "label": [label.decode() for label in answers["label"].numpy()],
    "scores": answers["scores"].numpy().tolist(),
}))
"""


class SavedModelTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.predictors = made.Made(sharp.make)
        cls.paths = made.Made(
            lambda task: saved_model.export(
                cls.predictors[task], os.path.join(folder.name, task)
            )
        )
        cls.served = made.Made(
            lambda task: tf.saved_model.load(cls.paths[task])
        )

    def output(self):
        return os.path.join(self.create_tempdir().full_path, "served")

    @parameterized.parameters(*sharp.TASKS)
    @pytest.mark.slow_after(3)
    def test_both_signatures_answer_like_the_predictor(self, task):
        difference = saved_model.compare(
            self.served[task], self.predictors[task]
        )
        self.assertLess(difference.distance, 1e-5)
        self.assertEqual(difference.agreement, 1.0)

    def test_texts_get_different_answers(self):
        predictor = self.predictors["classification"]
        answers = predictor.serve_text(**verification.sentences(predictor.task))
        self.assertGreater(np.std(answers["score"]), 0.05)

    @parameterized.product(
        task=sharp.TASKS,
        texts=(
            [],
            [""],
            ["", "the film is [MASK]"],
            [b"\xff\xfe\xc3 bad \xe5\xbd"],
            ["a very old story " * 5_000],
            ["很好"] * 70,
        ),
    )
    @pytest.mark.slow_after(6)  # one task
    def test_any_batch_of_any_text_is_answered(self, task, texts):
        raw = {
            name: tf.constant(texts, tf.string)
            for name in self.predictors[task].task.text_columns
        }
        answers = self.served[task].signatures[signatures.TEXT](**raw)
        for name, answer in answers.items():
            self.assertLen(answer, len(texts), name)
        expected = saved_model.limited(self.predictors[task])(**raw)
        difference = verification.compare(answers, expected)
        difference.require(distance=1e-5, agreement=1.0)

    @parameterized.parameters(
        {"environment": {}},
        {"environment": tf_serving_files.ENVIRONMENT},
    )
    @pytest.mark.slow_after(1)
    def test_opens_where_the_project_is_not(self, environment):
        texts = ["a very good film", "坏 电影", ""]
        run = subprocess.run(
            [sys.executable, "-I", "-c", STRANGER]
            + [self.paths["classification"], json.dumps(texts)],
            cwd=self.create_tempdir().full_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        self.assertEqual(run.returncode, 0, run.stderr)
        answers = json.loads(run.stdout.splitlines()[-1])
        expected = self.predictors["classification"].predict(texts)
        self.assertEqual(answers["label"], [a["label"] for a in expected])
        np.testing.assert_allclose(
            answers["scores"], [a["scores"] for a in expected], atol=1e-5
        )

    @parameterized.parameters("classification", "pair")
    def test_classes_of_serialized_examples(self, task):
        predictor = self.predictors[task]
        raw = {
            name: ["a film", "", "坏"] for name in predictor.task.text_columns
        }
        answers = self.served[task].signatures[signatures.CLASSIFY](
            inputs=tf.constant(signatures.serialized_examples(raw))
        )
        expected = predictor.serve_text(**raw)
        np.testing.assert_allclose(
            answers["scores"], expected["scores"], atol=1e-5
        )
        classes = [
            [label.decode() for label in row]
            for row in answers["classes"].numpy()
        ]
        self.assertEqual(classes, [["bad", "so so", "好"]] * 3)

    @pytest.mark.slow
    def test_several_texts_of_a_beam_search_are_served(self):
        model = sharp.make("causal_lm")
        task = model.task.with_settings(num_beams=3, num_return_sequences=2)
        predictor = predictor_lib.Predictor(
            model_lib.BertModel(model.model.encoder, task), model.tokenizer
        )
        path = saved_model.export(predictor, self.output())
        served = tf.saved_model.load(path).signatures
        text = tf.constant(["the film", "a", ""])
        answers = served[signatures.TEXT](text=text)
        for answer, want in zip(
            predictor_lib.rows_of(task, answers),
            predictor.predict(text.numpy()),
            strict=True,
        ):
            self.assertEqual(answer["texts"], want["texts"])
            np.testing.assert_allclose(
                answer["scores"], want["scores"], rtol=1e-5
            )
        shapes = manifest.read(path)["signatures"]
        for signature in (signatures.TEXT, signatures.WITH_SETTINGS):
            _, shape = shapes[signature]["outputs"]["texts"]
            self.assertEqual(shape, [None, 2])
        self.assertEqual(
            set(shapes[signatures.WITH_SETTINGS]["inputs"]),
            {"text", "max_new_tokens"},
        )

    def test_an_example_without_the_text_is_an_error_that_names_it(self):
        answer = self.served["pair"].signatures[signatures.CLASSIFY]
        example = signatures.serialized_examples({"text": ["a film"]})
        with self.assertRaisesRegex(tf.errors.OpError, "text_pair"):
            answer(inputs=tf.constant(example))

    @parameterized.parameters(*sharp.TASKS)
    @pytest.mark.slow_after(3)
    def test_methods_are_those_the_server_asks_for(self, task):
        described = manifest.read(self.paths[task])["signatures"]
        methods = {name: each["method"] for name, each in described.items()}
        expected = {
            signatures.TEXT: "tensorflow/serving/predict",
            signatures.TOKENS: "tensorflow/serving/predict",
        }
        if task == "causal_lm":
            expected[signatures.WITH_SETTINGS] = expected[signatures.TEXT]
        if task in ("classification", "pair"):
            expected[signatures.CLASSIFY] = "tensorflow/serving/classify"
        self.assertEqual(methods, expected)

    @parameterized.parameters(*sharp.TASKS)
    @pytest.mark.slow_after(3)
    def test_all_answers_are_dense_with_the_batch_first(self, task):
        described = manifest.read(self.paths[task])["signatures"][
            signatures.TEXT
        ]
        for name, (dtype, shape) in described["outputs"].items():
            self.assertIsNone(shape[0], name)
            self.assertIn(dtype, ("string", "float32", "int32", "bool"), name)

    def test_what_was_too_long_to_be_read_is_said(self):
        texts = ["fine", "good " * 29, "good " * 30, "good " * 31, "a" * 199]
        answer = self.served["classification"].signatures[signatures.TEXT]
        truncated = answer(text=tf.constant(texts))["truncated"]
        self.assertEqual(
            truncated.numpy().tolist(), [False, False, False, True, False]
        )

    def test_a_text_is_read_up_to_the_limit(self):
        predictor = self.predictors["tagging"]
        texts = ["电影" * 50, "a film", b"\xff\xe5" * 200, "😀 film" * 20]
        path = saved_model.export(predictor, self.output(), max_characters=60)
        served = tf.saved_model.load(path)
        answers = served.signatures[signatures.TEXT](text=tf.constant(texts))
        self.assertEqual(
            answers["truncated"].numpy().tolist(), [True, False, True, True]
        )
        kept = [text[:60] for text in (texts[0], texts[1], "", texts[3])]
        expected = served_width.fit(
            predictor.serve_text(text=tf.constant(kept)), predictor.task, 64
        )
        for name in ("type", "start", "end", "text"):
            np.testing.assert_array_equal(answers[name], expected[name], name)
        self.assertEqual(manifest.read(path)["max_characters"], 60)

    @parameterized.parameters(*sharp.TASKS)
    @pytest.mark.slow_after(3)
    def test_warm_up_requests_are_answered(self, task):
        calls = []
        for record in tf.data.TFRecordDataset(
            os.path.join(self.paths[task], tf_serving_files.WARM_UP)
        ):
            log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
            calls.append(self.replay(self.served[task], log))
        sizes = [size for name, size in calls if name == signatures.TEXT]
        self.assertEqual(sizes, list(tf_serving_files.BATCHES))
        self.assertEqual(
            {name for name, _ in calls}, set(self.served[task].signatures)
        )

    def replay(self, served, log):
        """Answers a logged request as a server would; its signature, size."""
        if log.HasField("classify_log"):
            request = log.classify_log.request
            examples = request.input.example_list.examples
            inputs = {
                "inputs": tf.constant([e.SerializeToString() for e in examples])
            }
        else:
            request = log.predict_log.request
            inputs = {
                name: tf.constant(tf.make_ndarray(value))
                for name, value in request.inputs.items()
            }
        name = request.model_spec.signature_name
        answers = served.signatures[name](**inputs)
        (size,) = {len(value) for value in answers.values()}
        return name, size

    def test_what_lies_beside_the_versions_is_for_the_server(self):
        path = self.paths["pair"]
        folder = os.path.join(os.path.dirname(path), tf_serving_files.FOLDER)
        with open(os.path.join(folder, "models.config")) as file:
            models = text_format.Parse(
                file.read(), model_server_config_pb2.ModelServerConfig()
            )
        (model,) = models.model_config_list.config
        self.assertEqual(
            (model.name, model.base_path), ("pair", "/models/pair")
        )
        with open(os.path.join(folder, "docker-compose.yaml")) as file:
            compose = file.read()
        named = re.findall(r"/models/pair/serving/([\w.]+)", compose)
        self.assertLen(named, 3)
        for name in named:
            self.assertIn(name, os.listdir(folder))
        with open(os.path.join(folder, "README.md")) as file:
            bodies = re.findall(r"-d '(.*)'", file.read())
        self.assertLen(bodies, 3)
        for body in map(json.loads, bodies):
            self.assertIn("text_pair", str(body))

    def test_the_users_configurations_stay(self):
        output = self.output()
        os.makedirs(os.path.join(output, tf_serving_files.FOLDER))
        mine = os.path.join(output, tf_serving_files.FOLDER, "batching.config")
        with open(mine, "w") as file:
            file.write("max_batch_size { value: 7 }")
        saved_model.export(self.predictors["classification"], output)
        with open(mine) as file:
            self.assertEqual(file.read(), "max_batch_size { value: 7 }")
        self.assertIn("models.config", os.listdir(os.path.dirname(mine)))
        self.assertEqual(saved_model.next_version(output), 2)

    def test_the_manifest_says_what_the_server_needs(self):
        described = manifest.check(self.paths["classification"])
        self.assertIn("FastWordpieceTokenizeWithOffsets", described["text_ops"])
        self.assertContainsSubset(described["text_ops"], described["ops"])
        self.assertEqual(described["task"]["labels"], ["bad", "so so", "好"])
        self.assertLess(described["parity"]["sentences"]["numbers"], 1e-5)
        self.assertEqual(described["versions"]["tensorflow"], tf.__version__)
        self.assertIn("TensorListSetItem", described["attributes"])
        self.assertContainsSubset(
            ["2.18", "2.19", "2.20"], compatibility.servers(described)
        )
        self.assertContainsSubset(
            ["saved_model.pb", "assets.extra/tf_serving_warmup_requests"],
            described["files"],
        )

    @parameterized.named_parameters(
        (
            "changed",
            "variables/variables.index",
            b"x",
            "variables.index was changed",
        ),
        ("missing", "saved_model.pb", None, "saved_model.pb is missing"),
        ("new", "assets/more.txt", b"x", "assets/more.txt is not part"),
    )
    def test_a_file_is_caught_that_was(self, name, content, message):
        path = os.path.join(self.output(), "1")
        shutil.copytree(self.paths["classification"], path)
        name = os.path.join(path, name)
        if content:
            os.makedirs(os.path.dirname(name), exist_ok=True)
            with open(name, "ab") as file:
                file.write(content)
        else:
            os.remove(name)
        with self.assertRaisesRegex(manifest.DamagedError, message):
            manifest.check(path)

    def test_a_folder_that_is_no_version(self):
        with self.assertRaisesRegex(
            manifest.DamagedError, "not an exported version"
        ):
            manifest.check(self.create_tempdir().full_path)

    def test_the_models_name_fits_an_address(self):
        output = os.path.join(self.create_tempdir().full_path, "my model")
        with self.assertRaisesRegex(errors.InputError, "the model.s name"):
            saved_model.export(self.predictors["classification"], output)
        self.assertFalse(os.path.exists(output))

    def test_in_bfloat16(self):
        reference = self.predictors["classification"]
        folder = self.create_tempdir().full_path
        checkpoint.save(folder, reference.model, reference.tokenizer, step=1)
        predictor = predictor_lib.load(folder, precision="bfloat16")
        stored = {
            weight.path.split("/")[-1]
            for weight in predictor.model.weights
            if weight.dtype == "bfloat16"
        }
        self.assertEqual(stored, {"kernel", "bias"})
        path = saved_model.export(
            predictor, self.output(), reference=reference, precision="bfloat16"
        )
        parity = manifest.check(path)["parity"]["sentences"]
        self.assertBetween(parity["numbers"], 1e-5, 0.1)
        self.assertEqual(keras.config.dtype_policy().name, "float32")

    @parameterized.parameters(*sharp.TASKS)
    @pytest.mark.slow_after(3)
    def test_the_folder_holds_no_assets(self, task):
        assets = os.path.join(self.paths[task], "assets")
        self.assertEmpty(os.path.isdir(assets) and os.listdir(assets))

    def test_the_next_version_follows_the_highest(self):
        output = self.output()
        self.assertEqual(saved_model.next_version(output), 1)
        for name in ("1", "7", ".unfinished-9", "notes"):
            os.makedirs(os.path.join(output, name))
        self.assertEqual(saved_model.next_version(output), 8)

    def test_a_version_that_is_there_stays(self):
        output = self.output()
        os.makedirs(os.path.join(output, "3"))
        with self.assertRaisesRegex(errors.InputError, "next free.* is 4"):
            saved_model.export(self.predictors["classification"], output, 3)
        self.assertEqual(os.listdir(output), ["3"])

    def test_no_version_is_seen_before_it_is_whole(self):
        output, names = self.output(), []
        move = tf.io.gfile.rename

        def rename(source, target, **options):
            if os.path.isdir(source):  # a version, not a file of its own
                names.extend(os.listdir(output))
                names.extend(os.listdir(source))
            move(source, target, **options)

        os.makedirs(os.path.join(output, ".unfinished-1", "of a killed one"))
        with mock.patch.object(tf.io.gfile, "rename", rename):
            path = saved_model.export(self.predictors["classification"], output)
        self.assertEqual(path, os.path.join(output, "1"))
        self.assertIn("saved_model.pb", names)
        self.assertNotIn("1", names)
        self.assertCountEqual(
            os.listdir(output), ["1", tf_serving_files.FOLDER]
        )
        self.assertNotIn("of a killed one", os.listdir(path))

    def test_an_interrupted_export_leaves_nothing(self):
        output, save = self.output(), tf.saved_model.save

        def interrupted(*args, **kwargs):
            save(*args, **kwargs)
            raise KeyboardInterrupt

        with (
            mock.patch.object(tf.saved_model, "save", interrupted),
            self.assertRaises(KeyboardInterrupt),
        ):
            saved_model.export(self.predictors["classification"], output)
        self.assertFalse(os.path.exists(output))

    def test_other_answers_are_an_error_and_leave_nothing(self):
        output, other = self.output(), sharp.make("classification", seed=2)
        loaded = self.served["classification"]
        with (
            mock.patch.object(tf.saved_model, "load", lambda path: loaded),
            self.assertRaisesRegex(verification.ExportError, "does not answer"),
        ):
            saved_model.export(other, output)
        self.assertFalse(os.path.exists(output))

    def test_a_model_that_answers_nan_is_not_exported(self):
        output, broken = self.output(), sharp.make("classification")
        weight = broken.model.head.weights[0]
        weight.assign(np.full(weight.shape, np.nan))
        with self.assertRaisesRegex(
            verification.ExportError, "model itself.*NaN"
        ):
            saved_model.export(broken, output)
        self.assertFalse(os.path.exists(output))


if __name__ == "__main__":
    absltest.main()
