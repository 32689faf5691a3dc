"""Nothing that a folder or a file says names code to import."""

import base64
import functools
import json
import os
import sys
import zipfile

import keras
from absl.testing import absltest, parameterized

from bert_keras import errors, formats, loading
from bert_keras.formats import google, hugging_face, keras_hub
from tests import tiny

# Importing it is noticed, as is calling anything in it.
MODULE = "module_that_a_folder_names"
CODE = """
import pathlib
pathlib.Path(__file__).with_name("imported").touch()
class Mine: pass
BertTokenizer = BertBackbone = BertModel = Classification = Mine
"""


class UntrustedTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        self.path = functools.partial(os.path.join, self.folder)
        importable = self.create_tempdir().full_path
        with open(os.path.join(importable, f"{MODULE}.py"), "w") as file:
            file.write(CODE)
        self.trace = os.path.join(importable, "imported")
        sys.path.insert(0, importable)
        self.addCleanup(sys.path.remove, importable)
        before = os.getcwd()
        os.chdir(importable)
        self.addCleanup(os.chdir, before)

    def read(self):
        """Reads the folder in full; whether it was refused."""
        try:
            source = formats.read(self.folder)
            source.encoder_values()
            if source.task is not None:
                loading.load_model(source)
            return ""
        except errors.InputError as error:
            return str(error)
        finally:
            self.assertNotIn(MODULE, sys.modules)
            self.assertFalse(os.path.exists(self.trace))

    def change(self, name, **changes):
        with open(self.path(name)) as file:
            values = json.load(file)
        with open(self.path(name), "w") as file:
            json.dump(values | changes, file)

    @parameterized.parameters(
        ("config.json", {"auto_map": {"AutoModel": f"{MODULE}.BertModel"}}),
        ("config.json", {"auto_map": {"AutoTokenizer": [f"{MODULE}.Mine"]}}),
        ("config.json", {"model_type": MODULE}),
        (
            "tokenizer_config.json",
            {"auto_map": {"AutoTokenizer": [f"{MODULE}.Mine", None]}},
        ),
        (
            "tokenizer_config.json",
            {"tokenizer_class": f"{MODULE}.BertTokenizer"},
        ),
    )
    def test_hugging_face_s_names_are_refused(self, file, changes):
        hugging_face.write(self.folder, tiny.classifier(), tiny.tokenizer())
        self.change(file, **changes)
        self.assertIn(MODULE, self.read())

    @parameterized.parameters(
        {"architectures": [f"{MODULE}.BertModel"]},
        {
            "architectures": [MODULE],
            "custom_pipelines": {"x": {"impl": MODULE}},
        },
        {"transformers_version": MODULE, "torch_dtype": MODULE},
        {"bert_keras": {"name": f"{MODULE}", "seq_length": 8}},
        {"bert_keras": {"name": f"{MODULE}.Classification"}},
    )
    def test_hugging_face_s_other_names_are_only_compared(self, **changes):
        hugging_face.write(self.folder, tiny.classifier(), tiny.tokenizer())
        self.change("config.json", **changes)
        self.read()

    @parameterized.parameters(
        ("config.json", {"class_name": MODULE}),
        ("config.json", {"registered_name": f"keras_hub>{MODULE}"}),
        ("config.json", {"registered_name": f"keras_hub>..{MODULE}>Mine"}),
        ("tokenizer.json", {"class_name": MODULE}),
        ("tokenizer.json", {"registered_name": f"{MODULE}>BertTokenizer"}),
    )
    def test_keras_hub_s_names_are_refused(self, file, changes):
        self.write_keras_hub()
        self.change(file, **changes)
        self.assertIn(MODULE, self.read())

    @parameterized.parameters("config.json", "tokenizer.json", "task.json")
    def test_keras_hub_s_modules_are_not_imported(self, file):
        self.write_keras_hub()
        self.change(file, module=MODULE, package=MODULE)
        self.assertEqual(self.read(), "")

    def write_keras_hub(self):
        model = tiny.classifier(activation="gelu_tanh")
        keras_hub.write(self.folder, model, tiny.tokenizer())

    def test_google_s_names_are_only_compared(self):
        model = tiny.masked_lm_model(activation="gelu_tanh")
        google.write(self.folder, model, tiny.tokenizer())
        self.change("bert_config.json", task=MODULE, module=MODULE)
        self.assertEqual(self.read(), "")

    @parameterized.parameters("encoder", "task", None)
    def test_a_keras_file_imports_nothing(self, part):
        path = self.path("model.keras")
        tiny.classifier().save(path)
        mine = {
            "module": MODULE,
            "class_name": "Mine",
            "registered_name": f"{MODULE}>Mine",
            "config": {},
        }
        code = base64.b64encode(b"any code").decode()
        function = {"class_name": "__lambda__", "config": {"value": code}}
        layer = {
            "module": "keras.layers",
            "class_name": "Lambda",
            "registered_name": None,
            "config": {"name": "x", "function": function},
        }
        for changed in (mine, layer):
            with zipfile.ZipFile(path) as file:
                content = {name: file.read(name) for name in file.namelist()}
            config = json.loads(content["config.json"])
            if part is None:
                config = changed
            else:
                config["config"][part] = changed
            content["config.json"] = json.dumps(config)
            changed_path = self.path("changed.keras")
            with zipfile.ZipFile(changed_path, "w") as file:
                for name, data in content.items():
                    file.writestr(name, data)
            with self.assertRaises((TypeError, ValueError)):
                keras.models.load_model(changed_path)
            self.assertNotIn(MODULE, sys.modules)
            self.assertFalse(os.path.exists(self.trace))
        self.assertIsNotNone(keras.models.load_model(path))


if __name__ == "__main__":
    absltest.main()
