"""What lies beside the served versions, for the server and for its users."""

import json
import os
import re
import shutil
import subprocess

import pytest
from absl.testing import absltest, parameterized

from bert_keras.serving import compatibility, tf_serving_files
from bert_keras.tasks import (
    classification,
    embedding,
    intent_slots,
    masked_lm,
    question_answering,
    tagging,
)

TEXT_OPS = ["FastWordpieceTokenizeWithOffsets", "NormalizeUTF8"]


class BundleTest(parameterized.TestCase):
    def write(self, name="sst2", task=None):
        """{file: content} of the folder `serving`."""
        output = self.create_tempdir().full_path
        tf_serving_files.write(
            output,
            name,
            task or tagging.Tagging(types=("FILM",)),
            max_entities=9,
            text_ops=TEXT_OPS,
        )
        folder = os.path.join(output, tf_serving_files.FOLDER)
        contents = {}
        for file in os.listdir(folder):
            with open(os.path.join(folder, file), encoding="utf-8") as opened:
                contents[file] = opened.read()
        return contents

    @parameterized.parameters(
        *("2026", "1.5", "1_000", "0x1", "0o7", "1e3", ".5", ".inf", ".nan"),
        *("null", "Null", "true", "no", "on", "y", "2026-01-01", "---"),
        *("-", "-a", ".b", "_", "sst2", "a.b-c_D"),
    )
    def test_any_models_name_is_a_string_of_the_compose_file(self, name):
        yaml = pytest.importorskip("yaml")
        compose = yaml.safe_load(self.write(name)["docker-compose.yaml"])
        ((service, content),) = compose["services"].items()
        self.assertEqual(service, name)
        self.assertIsInstance(service, str)
        self.assertEqual(content["volumes"], [f"..:/models/{name}:ro"])
        self.assertIn(
            f"--model_config_file=/models/{name}/serving/models.config",
            content["command"],
        )
        environment = content["environment"]
        self.assertEqual(environment, tf_serving_files.ENVIRONMENT)
        for each in (
            *content["command"],
            *content["ports"],
            *environment.values(),
        ):
            self.assertIsInstance(each, str)

    def test_the_image_is_of_the_newest_server_known(self):
        contents = self.write()
        image = f"tensorflow/serving:{compatibility.NEWEST}"
        self.assertIn(f"image: {image}\n", contents["docker-compose.yaml"])
        self.assertIn(f"{image}-gpu", contents["README.md"])
        newest = max(compatibility.SERVERS, key=compatibility.minor)
        self.assertStartsWith(compatibility.NEWEST, f"{newest}.")

    def test_batching_is_described_as_it_is(self):
        contents = self.write()
        batching, readme = contents["batching.config"], contents["README.md"]
        self.assertIn("pad_variable_length_inputs: false", batching)
        self.assertIn("in rows of 128 tokens", " ".join(readme.split()))
        self.assertIn(
            "pad shorter rows with 0 in all inputs", " ".join(readme.split())
        )
        self.assertNotIn("{", re.sub("```.*?```|-d '.*'", "", readme, flags=16))

    @parameterized.parameters(
        (
            tagging.Tagging(types=("A",)),
            "have 9 items",
            "larger --max_entities",
        ),
        (intent_slots.IntentSlots(types=("A",)), "have 9 items", '"", "", -1'),
        (
            question_answering.QuestionAnswering(n_best=7),
            "have 7 items",
            "There are never more",
        ),
        (masked_lm.MaskedLM(), "have 20 items", "A [MASK] after the 20th"),
    )
    def test_padding_is_explained(self, task, *sentences):
        readme = self.write(task=task)["README.md"]
        for fact in sentences:
            self.assertIn(fact, readme)

    @parameterized.parameters(
        (tagging.Tagging(types=("A",)), True),
        (intent_slots.IntentSlots(types=("A",)), True),
        (question_answering.QuestionAnswering(), True),
        (classification.Classification(labels=("a", "b")), False),
        (embedding.Embedding(), False),
        (masked_lm.MaskedLM(), False),
    )
    def test_offsets_are_explained_where_there_are_some(
        self, task, has_offsets
    ):
        readme = self.write(task=task)["README.md"]
        for language in ("js", "java", "swift"):
            self.assertEqual(f"  ```{language}" in readme, has_offsets)
        self.assertEqual("code points" in readme, has_offsets)

    def test_the_line_of_javascript_finds_what_python_finds(self):
        node = shutil.which("node")
        if not node:
            self.skipTest("node is not installed")
        line = re.search(r"```js\s+(.*)\n", self.write()["README.md"])[1]
        text, start, end = "👩‍🔧 in 東京 😀, naïve 𝒳yz", 6, 17
        script = (
            f"const text = {json.dumps(text)}, start = {start}, end = {end};"
            f"console.log(JSON.stringify([{line}, text.slice(start, end)]))"
        )
        done = subprocess.run(
            [node, "-e", script], capture_output=True, check=True
        )
        entity, sliced = json.loads(done.stdout)
        self.assertEqual(entity, text[start:end])
        self.assertNotEqual(sliced, entity)

    def test_the_libraries_are_those_of_the_models_ops(self):
        readme = self.write()["README.md"]
        libraries = ["_fast_wordpiece_tokenizer.so", "_normalize_ops.so"]
        self.assertEqual(
            re.findall(r'TF_LoadLibrary\("(.*?)"', readme), libraries
        )
        self.assertEqual(
            re.findall(r'TensorFlow.loadLibrary\("(.*?)"', readme), libraries
        )
        import tensorflow_text

        folder = os.path.join(
            os.path.dirname(tensorflow_text.__file__), "python", "ops"
        )
        for library in libraries:
            self.assertIn(library, os.listdir(folder))


if __name__ == "__main__":
    absltest.main()
