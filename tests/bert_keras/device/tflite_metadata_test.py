import json
import os
import subprocess
import tempfile

import flatbuffers
import numpy as np
from absl.testing import absltest, parameterized
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from bert_keras.device import tflite, tflite_metadata
from tests import sharp, tiny

# mediapipe 0.10.21 and TensorFlow 2.21 want different protobufs, so it has an
# environment of its own.
MEDIAPIPE = """
import json, sys
from mediapipe.tasks import python as tasks
from mediapipe.tasks.python import text
options = text.TextClassifierOptions(
    base_options=tasks.BaseOptions(model_asset_path=sys.argv[1]))
found = []
with text.TextClassifier.create_from_options(options) as classifier:
    for each in sys.argv[2:]:
        (answers,) = classifier.classify(each).classifications
        best = max(answers.categories, key=lambda c: c.score)
        found.append((best.category_name, best.score))
print(json.dumps(found))
"""


# TFLite Support, too, whose newest wheel is for Python 3.11.
NL_CLASSIFIER = """
import json, sys
from tflite_support.task import text
classifier = text.BertNLClassifier.create_from_file(sys.argv[1])
found = []
for each in sys.argv[2:]:
    (answers,) = classifier.classify(each).classifications
    best = max(answers.categories, key=lambda c: c.score)
    found.append((best.category_name, best.score))
print(json.dumps(found))
"""


def table(buf, position):
    return flatbuffers.table.Table(buf, position)


def offset(parent, slot):
    return parent.Offset(4 + 2 * slot)


def string(parent, slot):
    position = offset(parent, slot)
    return parent.String(position + parent.Pos).decode() if position else None


def tables(parent, slot):
    """The tables of a vector, read by its slot in the schema."""
    position = offset(parent, slot)
    if not position:
        return []
    start = parent.Vector(position)
    return [
        table(parent.Bytes, parent.Indirect(start + 4 * number))
        for number in range(parent.VectorLen(position))
    ]


class MetadataTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.paths = {
            task: tflite.export(
                sharp.make(task),
                os.path.join(folder.name, task),
                seq_length=24,
            )
            for task in ("classification", "tagging")
        }

    def model(self, task):
        with open(self.paths[task], "rb") as file:
            content = file.read()
        return content, schema.ModelT.InitFromPackedBuf(content)

    def graph(self, task):
        _, model = self.model(task)
        (number,) = [
            each.buffer
            for each in model.metadata
            if each.name == b"TFLITE_METADATA"
        ]
        packed = bytes(np.asarray(model.buffers[number].data, np.uint8))
        self.assertEqual(packed[4:8], b"M001")
        root = flatbuffers.encode.Get(flatbuffers.packer.uoffset, packed, 0)
        root = table(packed, root)
        self.assertEqual(string(root, 0), task)
        (graph,) = tables(root, 3)
        return graph

    def test_inputs_are_named_in_the_models_order(self):
        graph = self.graph("classification")
        named = [string(each, 0) for each in tables(graph, 2)]
        path = self.paths["classification"]
        details = litert.Interpreter(path).get_input_details()
        run = litert.Interpreter(path).get_signature_runner("tokens")
        names = {
            each["index"]: name
            for name, each in run.get_input_details().items()
        }
        self.assertEqual(
            named,
            [tflite_metadata.INPUTS[names[each["index"]]] for each in details],
        )
        self.assertCountEqual(named, ["ids", "mask", "segment_ids"])

    def test_the_tokenizer_is_berts_with_this_vocabulary(self):
        graph = self.graph("classification")
        (unit,) = tables(graph, 5)
        unit_type = unit.Get(
            flatbuffers.number_types.Uint8Flags, unit.Pos + offset(unit, 0)
        )
        self.assertEqual(unit_type, 4)
        options = table(unit.Bytes, unit.Indirect(unit.Pos + offset(unit, 1)))
        (file,) = tables(options, 0)
        self.assertEqual(string(file, 0), "vocab.txt")
        files = tflite_metadata.read(self.paths["classification"])
        self.assertEqual(
            files["vocab.txt"].decode().split("\n")[:-1], tiny.VOCABULARY
        )

    def test_scores_have_labels_and_tags_have_none(self):
        (scores,) = tables(self.graph("classification"), 3)
        (file,) = tables(scores, 6)
        self.assertEqual(string(file, 0), "labels.txt")
        files = tflite_metadata.read(self.paths["classification"])
        self.assertEqual(files["labels.txt"].decode(), "bad\nso so\n好\n")
        for each in tables(self.graph("tagging"), 3):
            self.assertEmpty(tables(each, 6))
        self.assertCountEqual(
            tflite_metadata.read(self.paths["tagging"]), ["vocab.txt"]
        )

    def test_scores_have_the_name_that_a_runtime_looks_for(self):
        (scores,) = tables(self.graph("classification"), 3)
        self.assertEqual(string(scores, 0), "probability")
        # The signature's own name is the task's.
        runner = litert.Interpreter(
            self.paths["classification"]
        ).get_signature_runner("tokens")
        self.assertEqual(list(runner.get_output_details()), ["scores"])
        self.assertNotIn(
            "probability",
            [string(each, 0) for each in tables(self.graph("tagging"), 3)],
        )

    def test_weights_begin_at_multiples_of_16_bytes(self):
        content, _ = self.model("classification")
        model = schema.Model.GetRootAs(content, 0)
        starts = set()
        for number in range(model.BuffersLength()):
            buffer_table = model.Buffers(number)._tab
            if position := offset(buffer_table, 0):
                starts.add(buffer_table.Vector(position) % 16)
        self.assertEqual(starts, {0})

    def test_equal_models_are_equal_files(self):
        content, model = self.model("classification")
        again = tflite_metadata.add(
            content,
            name="classification",
            files=tflite_metadata.read(self.paths["classification"]),
            vocabulary="vocab.txt",
            labels="labels.txt",
        )
        third = tflite_metadata.add(
            content,
            name="classification",
            files=tflite_metadata.read(self.paths["classification"]),
            vocabulary="vocab.txt",
            labels="labels.txt",
        )
        self.assertEqual(again, third)
        self.assertLen(
            schema.ModelT.InitFromPackedBuf(again).buffers,
            len(model.buffers) + 1,
        )

    @parameterized.parameters(
        ("MEDIAPIPE_PYTHON", MEDIAPIPE),
        ("TFLITE_SUPPORT_PYTHON", NL_CLASSIFIER),
    )
    def test_a_classifier_of_others_takes_the_file(self, variable, program):
        python = os.environ.get(variable)
        if not python:
            self.skipTest(f"{variable} names no Python with it")
        texts = ["a very good film", "the plot is old .", "很 好"]
        kept = ("PATH", "LD_LIBRARY_PATH")
        done = subprocess.run(
            [python, "-c", program, self.paths["classification"], *texts],
            check=True,
            env={name: os.environ[name] for name in kept if name in os.environ},
            stdout=subprocess.PIPE,
            text=True,
        )
        expected = sharp.make("classification").predict(texts)
        classified = json.loads(done.stdout.splitlines()[-1])
        for (label, score), answer in zip(classified, expected, strict=True):
            self.assertEqual(label, answer["label"])
            self.assertAlmostEqual(score, answer["score"], delta=1e-4)


if __name__ == "__main__":
    absltest.main()
