import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from bert_keras import checkpoint, errors, predictor, verification
from bert_keras import model as model_lib
from bert_keras.device import runtimes, tflite, tflite_converter, tflite_readme
from bert_keras.device import tflite_runner as on_device
from bert_keras.tasks import classification
from export import run_tflite
from tests import made, sharp, tiny
from tests.examples import length_too

LENGTH = 24

# What generates a text has a loop, which int8 cannot be calibrated with.
TASKS = tuple(task for task in sharp.TASKS if task != "sequence_to_sequence")
EVERY_FILE = tuple(
    (task, quantization)
    for task in TASKS
    for quantization in tflite_converter.QUANTIZATIONS
)


# The newest versions of ops that TFLite 2.9 has.
OPS_OF_2_9 = {
    "ADD": 4,
    "ARG_MAX": 3,
    "BATCH_MATMUL": 4,
    "CAST": 4,
    "CONCATENATION": 3,
    "DEQUANTIZE": 5,
    "DIV": 2,
    "EQUAL": 3,
    "FLOOR_DIV": 2,
    "FLOOR_MOD": 1,
    "FULLY_CONNECTED": 9,
    "GATHER": 5,
    "GELU": 2,
    "GREATER": 2,
    "LESS": 2,
    "LOGICAL_AND": 1,
    "LOGICAL_NOT": 1,
    "LOGISTIC": 3,
    "MAXIMUM": 4,
    "MEAN": 3,
    "MINIMUM": 4,
    "MUL": 5,
    "NEG": 1,
    "PACK": 3,
    "PAD": 4,
    "PADV2": 4,
    "QUANTIZE": 3,
    "REDUCE_MAX": 3,
    "RESHAPE": 1,
    "RSQRT": 2,
    "SELECT": 2,
    "SELECT_V2": 1,
    "SOFTMAX": 3,
    "STRIDED_SLICE": 6,
    "SUB": 5,
    "SUM": 2,
    "TANH": 3,
    "TOPK_V2": 2,
    "TRANSPOSE": 5,
    "UNPACK": 4,
}

# Of float32, what the converter states; int8 has a scale for each output of a
# matmul, dynamic its FULLY_CONNECTED 12.
OLDEST = {
    "float32": "2.9.0",
    "float16": "2.9.0",
    "int8": "2.10.0",
    "dynamic": "2.17.0",
}

# Runs files in a runtime of another environment: their answers as JSON, or why
# it refuses one.
OTHER_RUNTIME = """
import json, sys
import numpy as np
try:
    from ai_edge_litert import interpreter as litert
    version = None
except ImportError:
    import tflite_runtime
    from tflite_runtime import interpreter as litert
    version = tflite_runtime.__version__
answers = {}
for path, rows in json.load(sys.stdin):
    try:
        run = litert.Interpreter(path).get_signature_runner("tokens")
        answers[path] = [
            {name: value.tolist() for name, value in run(
                **{name: np.array(ids, np.int32) for name, ids in row.items()}
            ).items()}
            for row in rows
        ]
    except (ValueError, RuntimeError) as error:
        answers[path] = str(error)
print(json.dumps([version, answers]))
"""


@dataclasses.dataclass(frozen=True)
class Bits(classification.Classification):
    """Asks for an op that TFLite does not have."""

    def decode(self, outputs, inputs):
        labels = tf.argmax(outputs["label"], axis=-1, output_type=tf.int32)
        with tf.name_scope("lowest_bit"):
            return {"bit": tf.bitwise.bitwise_and(labels, 1)}


def rows(task):
    """Rows for ranges: no labels are needed."""
    texts = [
        "a very good film",
        "很好 电影",
        "the plot is old",
        "",
        "dull " * 30,
    ]
    return [dict.fromkeys(task.text_columns, text) for text in texts]


def ops(content):
    """{op: newest version of it} of a file."""
    names = {
        number: name
        for name, number in vars(schema.BuiltinOperator).items()
        if name.isupper()
    }
    versions = {}
    for code in schema.ModelT.InitFromPackedBuf(content).operatorCodes:
        name = names[code.builtinCode]
        versions[name] = max(code.version, versions.get(name, 0))
    return versions


class TfliteTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.predictors = made.Made(sharp.make)
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.paths = made.Made(
            lambda task_and_quantization: cls.export(*task_and_quantization)
        )

    @classmethod
    def export(cls, task, quantization):
        model = cls.predictors[task]
        return tflite.export(
            model,
            os.path.join(cls.folder, task),
            quantization=quantization,
            seq_length=LENGTH,
            data=rows(model.task),
        )

    def output(self):
        return os.path.join(self.create_tempdir().full_path, "mobile")

    @parameterized.parameters(*TASKS)
    @pytest.mark.slow_after(3)
    def test_float32_answers_like_the_predictor(self, task):
        difference = tflite.compare(
            self.paths[task, "float32"], self.predictors[task]
        )
        self.assertLess(difference.distance, 1e-5)
        self.assertEqual(difference.agreement, 1.0)

    @parameterized.parameters(*TASKS)
    @pytest.mark.slow_after(3)
    def test_int8_answers_nearly_like_the_predictor(self, task):
        difference = tflite.compare(
            self.paths[task, "int8"], self.predictors[task]
        )
        # Numbers of question answering are sums of logits, and its best span
        # depends on the CPU: 6 of 13 agree on one with VNNI.
        if task == "question_answering":
            self.assertGreater(difference.agreement, 0.3)
        else:
            self.assertGreater(difference.agreement, 0.5)
            # multiple_choice answers with a logit, which is not in [0, 1].
            limit = 1.0 if task == "multiple_choice" else 0.3
            self.assertLess(difference.distance, limit)

    @parameterized.parameters(*EVERY_FILE)
    @pytest.mark.slow_after(4)  # one task
    def test_every_op_is_built_in(self, task, quantization):
        interpreter = litert.Interpreter(self.paths[task, quantization])
        ops = {op["op_name"] for op in interpreter._get_ops_details()}
        self.assertIn("SOFTMAX", ops)
        self.assertEmpty([op for op in ops if "Flex" in op or op == "CUSTOM"])

    @parameterized.parameters(*EVERY_FILE)
    @pytest.mark.slow_after(4)
    def test_the_oldest_runtime_has_every_op(self, task, quantization):
        path = self.paths[task, quantization]
        content = self.read(path)
        for op, version in ops(content).items():
            if (op, quantization) == ("FULLY_CONNECTED", "dynamic"):
                self.assertEqual(version, 12)
            else:
                self.assertLessEqual(version, OPS_OF_2_9[op], op)
        oldest = OLDEST[quantization]
        self.assertEqual(runtimes.oldest_runtime(content), oldest)
        metadata = json.loads(self.read(path.replace(".tflite", ".json")))
        self.assertEqual(metadata["oldest_runtime"], oldest)
        text = self.read(path.replace(".tflite", ".md")).decode()
        self.assertIn(f"TFLite {oldest} or newer", text)

    def test_no_runtime_is_stated_that_nobody_tried(self):
        model = tiny.classifier(activation="relu")
        content = tflite_converter.convert(
            predictor.Predictor(model, tiny.tokenizer()),
            tflite_converter.QUANTIZATIONS["float32"],
            [LENGTH],
        )
        self.assertIn(b"2.3.0", content)
        self.assertEqual(runtimes.oldest_runtime(content), "2.9.0")

    def test_a_file_without_a_stated_runtime_is_an_error(self):
        content = self.read(self.paths["pair", "float32"])
        with self.assertRaisesRegex(ValueError, "expected a version"):
            runtimes.oldest_runtime(
                content.replace(b"min_runtime", b"max_runtime")
            )

    def test_old_runtimes_answer_alike_or_refuse(self):
        pythons = os.environ.get("TFLITE_PYTHONS")
        if not pythons:
            self.skipTest("TFLITE_PYTHONS names no Pythons with old runtimes")
        asked, expected = [], {}
        for task, quantization in EVERY_FILE:
            path = self.paths[task, quantization]
            file = on_device.File(path, self.predictors[task])
            inputs = file.inputs(verification.sentences(file.task))
            some = [file.row(inputs, number) for number in (0, 5, 6, 12)]
            expected[path] = [file.call(row) for row in some]
            some = [{n: ids.tolist() for n, ids in r.items()} for r in some]
            asked.append((path, some))
        for python in pythons.split(os.pathsep):
            done = subprocess.run(
                [python, "-c", OTHER_RUNTIME],
                input=json.dumps(asked),
                check=True,
                capture_output=True,
                text=True,
            )
            version, answers = json.loads(done.stdout.splitlines()[-1])
            # The first ai-edge-litert is new enough for all.
            version = runtimes.version_numbers(version or OLDEST["dynamic"])
            for (task, quantization), path in self.paths.items():
                with self.subTest(python, task=task, quantization=quantization):
                    if version >= runtimes.version_numbers(
                        OLDEST[quantization]
                    ):
                        self.assert_alike(
                            answers[path], expected[path], quantization
                        )
                    elif quantization == "dynamic":
                        self.assertIn("FULLY_CONNECTED", answers[path])

    def assert_alike(self, answers, expected, quantization):
        self.assertIsInstance(answers, list, answers)
        for answer, want in zip(answers, expected, strict=True):
            for name, value in want.items():
                if value.dtype.kind == "f":
                    # Some round int8 otherwise.
                    most = 0.2 if quantization == "int8" else 1e-4
                    np.testing.assert_allclose(answer[name], value, atol=most)
                elif quantization != "int8":
                    np.testing.assert_array_equal(answer[name], value)

    def read(self, path):
        with open(path, "rb") as file:
            return file.read()

    @parameterized.parameters(*TASKS)
    @pytest.mark.slow_after(3)
    def test_weights_are_frozen(self, task):
        interpreter = litert.Interpreter(self.paths[task, "float32"])
        ops = {op["op_name"] for op in interpreter._get_ops_details()}
        self.assertNotIn("READ_VARIABLE", ops)

    def test_int8_weights_take_less_than_float16_than_float32(self):
        # A vocabulary of some size, or the graph outweighs the weights.
        wide = tiny.classifier(hidden_size=64, intermediate_size=512)
        wide = predictor.Predictor(wide, tiny.tokenizer())
        sizes = [
            len(
                tflite_converter.convert(
                    wide, tflite_converter.QUANTIZATIONS[name], [LENGTH]
                )
            )
            for name in ("dynamic", "float16", "float32")
        ]
        self.assertLess(sizes[0], 0.7 * sizes[1])
        self.assertLess(sizes[1], 0.7 * sizes[2])

    def test_the_description_names_the_tensors_in_their_order(self):
        path = self.paths["classification", "dynamic"]
        with open(path.replace(".tflite", ".json"), encoding="utf-8") as file:
            metadata = json.load(file)
        self.assertEqual(metadata["model"], os.path.basename(path))
        interpreter = litert.Interpreter(path)
        interpreter.allocate_tensors()
        inputs = self.predictors["classification"].task.preprocess(
            {"text": tf.constant(["the film is not very good"])},
            tiny.tokenizer(),
        )
        row = {
            name: tf.pad(ids, [[0, 0], [0, LENGTH - ids.shape[1]]])
            for name, ids in inputs.items()
            if name in tiny.bert().inputs
        }
        details = interpreter.get_input_details()
        for tensor, named in zip(details, metadata["inputs"], strict=True):
            self.assertEqual(named["shape"], [1, LENGTH])
            interpreter.set_tensor(tensor["index"], row[named["name"]])
        interpreter.invoke()
        (output,) = interpreter.get_output_details()
        np.testing.assert_allclose(
            interpreter.get_tensor(output["index"]),
            self.predictors["classification"].tokens(**row)["scores"],
            atol=0.05,
        )

    def test_vocabulary_and_labels_lie_beside_the_file(self):
        folder, other = (
            os.path.dirname(self.paths[task, "float32"])
            for task in ("classification", "question_answering")
        )
        with open(os.path.join(folder, "vocab.txt"), "rb") as file:
            vocabulary = file.read().decode().split("\n")[:-1]
        self.assertEqual(vocabulary, tiny.VOCABULARY)
        with open(os.path.join(folder, "labels.txt"), "rb") as file:
            self.assertEqual(file.read().decode(), "bad\nso so\n好\n")
        self.assertNotIn("labels.txt", os.listdir(other))

    def test_several_lengths_are_signatures_that_share_weights(self):
        wide = tiny.classifier(hidden_size=64, intermediate_size=512)
        wide = predictor.Predictor(wide, tiny.tokenizer())
        one, two = (
            tflite.export(
                wide,
                os.path.join(self.create_tempdir().full_path, "out"),
                seq_length=lengths,
            )
            for lengths in ([32], [16, 32])
        )
        self.assertEqual(
            on_device.lengths(two), {"tokens_16": 16, "tokens_32": 32}
        )
        self.assertLess(os.path.getsize(two), 1.3 * os.path.getsize(one))
        with open(two.replace(".tflite", ".md"), encoding="utf-8") as file:
            text = file.read()
        self.assertIn("MediaPipe requires a file of one length", text)
        self.assertNotIn("without changes", text)
        model = run_tflite.Model(two, 1)
        for text, length in (("good", 16), ("good " * 20, 32), ("a " * 90, 32)):
            row = model.inputs([text])
            self.assertEqual(row["token_ids"].shape, (1, length))
            expected = wide.predict([text])[0]
            self.assertEqual(model.answer([text])["label"], expected["label"])

    def test_an_embedding_is_of_one_text(self):
        path = self.paths["embedding", "float32"]
        file = on_device.File(path, self.predictors["embedding"])
        self.assertEqual(file.task.text_columns, ("text",))
        rows = [{"text": "a good film"}]
        (answer,) = file.predict(rows)
        self.assertEqual(set(answer), {"embedding"})
        pair = self.predictors["embedding"].predict([("a good film", "dull")])
        np.testing.assert_allclose(
            answer["embedding"], pair[0]["embedding"], atol=1e-5
        )

    @parameterized.parameters(*TASKS)
    @pytest.mark.slow_after(3)
    def test_the_readme_names_every_output(self, task):
        path = self.paths[task, "int8"]
        with open(path.replace(".tflite", ".md"), encoding="utf-8") as file:
            readme = file.read()
        with open(path.replace(".tflite", ".json"), encoding="utf-8") as file:
            metadata = json.load(file)
        for output in metadata["outputs"]:
            self.assertIn(f'"{output["name"]}" to ', readme)
            self.assertIn(f'output(named: "{output["name"]}")', readme)
        for_all = task in ("classification", "embedding")
        self.assertEqual("MediaPipe" in readme, for_all)

    @parameterized.product(
        task=("tagging", "intent_slots", "question_answering"),
        program=("node", "java"),
    )
    def test_the_notes_convert_offsets_in_other_languages(self, task, program):
        path = self.paths[task, "float32"].replace(".tflite", ".md")
        name = {"node": "javascript", "java": "java"}[program]
        _, block = self.read(path).decode().split(f"```{name}\n")
        line, _ = block.split("\n```", maxsplit=1)
        if not shutil.which(program):
            self.skipTest(f"{program} is not here")
        text = "a 😀👍🏽 e\u0301 很 film"
        _, starts, ends = tiny.tokenizer().with_offsets(tf.constant([text]))
        start, end = (int(offsets[0, -1]) for offsets in (starts, ends))
        self.assertEqual(text[start:end], "film")
        if program == "node":
            definitions = f"const text = {json.dumps(text)}, start = {start}, "
            command = ["-e", f"{definitions} end = {end}; console.log({line})"]
        else:
            command = [os.path.join(self.create_tempdir(), "Line.java")]
            with open(command[0], "w", encoding="utf-8") as file:
                file.write(
                    "class Line { public static void main(String[] none) {\n"
                    f"int start = {start}, end = {end};\n"
                    f"String text = {json.dumps(text)};\n"
                    f"System.out.println({line}); }} }}"
                )
        done = subprocess.run(
            [program, *command], check=True, capture_output=True, text=True
        )
        self.assertEqual(done.stdout.strip(), "film")

    @parameterized.product(
        name=("classification", "multi", "embedding"), lowercase=(True, False)
    )
    def test_the_notes_warn_of_mediapipes_lower_casing(self, name, lowercase):
        task = "classification" if name == "multi" else name
        path = self.paths[task, "float32"].replace(".tflite", ".json")
        metadata = json.loads(self.read(path)) | {"lowercase": lowercase}
        if name == "multi":
            metadata["settings"]["problem_type"] = "multi_label"
        card = tflite_readme.readme(self.predictors[task], metadata)
        text = " ".join(str(card).split())
        cased = "This model is cased, and MediaPipe lower-cases A to Z"
        self.assertEqual(cased in text, not lowercase)
        self.assertEqual("lower-cases only A to Z" in text, lowercase)
        answers = "vectors" if name == "embedding" else "scores"
        self.assertIn(f"its {answers} differ", text)

    @parameterized.parameters(*TASKS)
    @pytest.mark.slow_after(3)
    def test_the_notes_tell_of_padding(self, task):
        path = self.paths[task, "int8"].replace(".tflite", ".md")
        text = " ".join(self.read(path).decode().split())
        self.assertIn("padded with 0 at its end, in all inputs", text)
        several = "a longer text becomes several rows" in text
        self.assertEqual(
            several, task in ("tagging", "intent_slots", "question_answering")
        )

    def test_int8_is_calibrated_by_rows(self):
        output = self.output()
        with self.assertRaisesRegex(errors.InputError, "needs `data`"):
            tflite.export(
                self.predictors["classification"],
                output,
                quantization="int8",
                seq_length=LENGTH,
            )
        self.assertFalse(os.path.exists(output))
        interpreter = litert.Interpreter(self.paths["classification", "int8"])
        # Products read what was quantized, and not weights alone.
        ops = [op["op_name"] for op in interpreter._get_ops_details()]
        self.assertGreaterEqual(
            ops.count("QUANTIZE"), ops.count("FULLY_CONNECTED") // 2
        )
        dynamic = litert.Interpreter(self.paths["classification", "dynamic"])
        ops = [op["op_name"] for op in dynamic._get_ops_details()]
        self.assertNotIn("QUANTIZE", ops)

    def test_a_file_below_the_least_score_is_refused(self):
        output, predictor_ = self.output(), self.predictors["classification"]
        texts = rows(predictor_.task)
        answers = predictor_.predict(texts)
        gold = [
            row | {"label": answer["label"]}
            for row, answer in zip(texts, answers, strict=True)
        ]
        settings = {"seq_length": 32, "least": 1.0}
        path = tflite.export(predictor_, output, data=gold, **settings)
        self.assertTrue(os.path.exists(path))
        with self.assertRaisesRegex(
            verification.ExportError, "accuracy 0.8000 .* below the 1.0000"
        ):
            tflite.export(
                predictor_,
                os.path.join(output, "worse"),
                data=[gold[0] | {"label": "none"}, *gold[1:]],
                **settings,
            )
        self.assertNotIn("worse", os.listdir(output))

    def test_with_a_metric_labels_of_other_sentences_may_change(self):
        predictor_ = self.predictors["classification"]
        gold = [row | {"label": "bad"} for row in rows(predictor_.task)]
        apart = verification.Difference(0.1, 0.5)
        with mock.patch.object(tflite, "compare", lambda *_: apart):
            for precision, least, refused in (
                ("dynamic", None, True),
                ("dynamic", 0.0, False),
                ("float32", 0.0, True),
            ):
                output = self.output()
                settings = {"quantization": precision, "least": least}
                if refused:
                    with self.assertRaises(verification.ExportError):
                        tflite.export(
                            predictor_, output, seq_length=32, **settings
                        )
                else:
                    tflite.export(
                        predictor_, output, seq_length=32, data=gold, **settings
                    )

    def test_an_op_that_is_not_built_in_stops_the_export_by_name(self):
        output, model = self.output(), self.predictors["classification"].model
        bits = predictor.Predictor(
            model_lib.BertModel(
                model.encoder, Bits(seq_length=32, labels=("bad", "good"))
            ),
            tiny.tokenizer(),
        )
        with self.assertRaisesRegex(
            verification.ExportError, "BitwiseAnd in lowest_bit"
        ):
            tflite.export(bits, output, seq_length=LENGTH)
        self.assertFalse(os.path.exists(output))

    def test_other_answers_are_an_error_and_leave_nothing(self):
        output, other = self.output(), sharp.make("classification", seed=2)
        with open(self.paths["classification", "float32"], "rb") as file:
            content = file.read()
        with (
            mock.patch.object(tflite_converter, "convert", lambda *_: content),
            self.assertRaisesRegex(verification.ExportError, "does not answer"),
        ):
            tflite.export(other, output, seq_length=LENGTH)
        self.assertFalse(os.path.exists(output))

    @parameterized.parameters(3, 65)
    def test_a_length_the_model_has_no_positions_for_is_refused(self, length):
        output = self.output()
        with self.assertRaisesRegex(errors.InputError, "expected 4 to 64"):
            tflite.export(
                self.predictors["classification"], output, seq_length=length
            )
        self.assertFalse(os.path.exists(output))

    def test_a_label_of_two_lines_is_refused(self):
        output, model = self.output(), self.predictors["classification"].model
        task = dataclasses.replace(model.task, labels=("bad", "so\nso", "好"))
        broken = predictor.Predictor(
            model_lib.BertModel(model.encoder, task), tiny.tokenizer()
        )
        with self.assertRaisesRegex(
            errors.InputError, r"'so\\nso' contains a newline"
        ):
            tflite.export(broken, output, seq_length=LENGTH)
        self.assertFalse(os.path.exists(output))

    def test_files_of_another_model_are_not_mixed(self):
        output = self.output()
        os.makedirs(output)
        with open(os.path.join(output, "vocab.txt"), "w") as file:
            file.write("[PAD]\n")
        with self.assertRaisesRegex(errors.InputError, "another model"):
            tflite.export(
                self.predictors["classification"], output, seq_length=LENGTH
            )
        self.assertEqual(os.listdir(output), ["vocab.txt"])


class Halved(classification.Classification):
    """A device asks it with half of the tokens."""

    def for_device(self):
        return dataclasses.replace(self, seq_length=16)


class ForDeviceTest(absltest.TestCase):
    def test_the_head_of_another_task_on_a_device_has_the_same_weights(self):
        model = sharp.make_classifier(labels=("bad", "good")).model
        task = Halved(seq_length=32, labels=("bad", "good"))
        halved = model_lib.BertModel(model.encoder, task)
        sharp.spread(halved, 2)
        device = tflite._for_device(
            predictor.Predictor(halved, tiny.tokenizer())
        )
        self.assertEqual(device.task.seq_length, 16)
        want = checkpoint.weights(halved.head)
        got = checkpoint.weights(device.model.head)
        self.assertEqual(set(got), set(want))
        for path, value in want.items():
            np.testing.assert_array_equal(got[path], value, path)

    def test_what_only_training_needs_stays_behind(self):
        model = sharp.make_classifier(labels=("bad", "good")).model
        both = model_lib.BertModel(
            model.encoder, length_too.LengthToo(model.task)
        )
        sharp.spread(both, 2)
        device = tflite._for_device(predictor.Predictor(both, tiny.tokenizer()))
        self.assertEqual(device.task, model.task)
        want = checkpoint.weights(both.head)
        got = checkpoint.weights(device.model.head)
        self.assertContainsSubset(got, want)
        self.assertLess(len(got), len(want))
        for path, value in got.items():
            np.testing.assert_array_equal(value, want[path], path)


class GeneratedTextTest(absltest.TestCase):
    @pytest.mark.slow
    def test_the_loop_is_in_the_file(self):
        model = sharp.make("sequence_to_sequence")
        folder = self.create_tempdir().full_path
        for quantization in ("float32", "dynamic"):
            # The export compares the file's answers with the model's.
            path = tflite.export(
                model, folder, seq_length=LENGTH, quantization=quantization
            )
            interpreter = litert.Interpreter(path)
            ops = {op["op_name"] for op in interpreter._get_ops_details()}
            self.assertIn("WHILE", ops)
            self.assertEmpty(
                [op for op in ops if "Flex" in op or op == "CUSTOM"]
            )
        file = on_device.File(path.replace("dynamic", "float32"), model)
        texts = [{"text": "the film is good"}, {"text": "很 好 电影"}]
        task = model.task.for_device()
        alone = model_lib.BertModel(model.model.encoder, task)
        alone.head.set_weights(model.model.head.get_weights())
        expected = predictor.Predictor(alone, model.tokenizer).predict(texts)
        for answer, want in zip(file.predict(texts), expected, strict=True):
            self.assertEqual(answer["text"], want["text"])
            self.assertAlmostEqual(answer["score"], want["score"], places=4)

    def test_int8_is_refused(self):
        model = sharp.make("sequence_to_sequence")
        with self.assertRaisesRegex(verification.ExportError, "loop"):
            tflite.export(
                model,
                self.create_tempdir().full_path,
                quantization="int8",
                seq_length=LENGTH,
                data=[{"text": "the film is good"}],
            )


if __name__ == "__main__":
    absltest.main()
