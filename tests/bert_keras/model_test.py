"""BertModel as a `.keras` file: precision, flags, and whose code runs."""

import dataclasses
import json
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bert_keras import errors, heads, layers
from bert_keras import model as model_lib
from bert_keras.networks import bert as bert_lib
from bert_keras.tasks import classification, intent_slots, masked_lm
from tests import tiny

HALF = ("mixed_bfloat16", "mixed_float16")

TASKS = {
    "masked_lm": lambda: masked_lm.MaskedLM().adapt([], tiny.tokenizer()),
    "lstm": lambda: classification.Classification(
        labels=("no", "yes"), pooling="lstm"
    ),
    "intent_slots": lambda: intent_slots.IntentSlots(
        types=("PER",), intents=("ask", "tell")
    ),
    "none": lambda: None,
}


@dataclasses.dataclass(frozen=True)
class Unregistered(classification.Classification):
    """A user's task that Keras knows nothing of."""


def model(task_name="lstm", **options):
    bert = tiny.bert(embedding_size=8, norm_first=True)
    return model_lib.BertModel(
        bert_lib.BertEncoder(bert, **options), TASKS[task_name](), **options
    )


def policies(layer):
    """(class, policy) of all layers, in the order in which they were made."""
    return [
        (type(part).__name__, part.dtype_policy.name)
        for _, part in layers._sublayers(layer)
    ]


def features(task=None):
    inputs = tiny.inputs()
    return task.add_derived_features(inputs) if task else inputs


class KerasFileTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(keras.config.set_dtype_policy, "float32")
        self.path = os.path.join(self.create_tempdir().full_path, "m.keras")

    def saved_and_loaded(self, network, policy="float32"):
        network.save(self.path)
        keras.config.set_dtype_policy(policy)
        return keras.saving.load_model(self.path)

    @parameterized.parameters(
        *((kind, HALF[0], "float32") for kind in TASKS),
        ("lstm", HALF[1], "float32"),
        ("lstm", "float32", HALF[0]),
    )
    def test_it_computes_as_it_was_saved_under_any_policy(
        self, task_name, policy, later
    ):
        keras.config.set_dtype_policy(policy)
        one = model(task_name)
        self.assertIn(policy, dict(map(reversed, policies(one))))
        two = self.saved_and_loaded(one, later)
        self.assertEqual(policies(one), policies(two))
        inputs = features(one.task)
        expected = keras.tree.flatten(one(inputs))
        for value, again in zip(
            expected, keras.tree.flatten(two(inputs)), strict=True
        ):
            self.assertEqual(value.dtype, again.dtype)
            np.testing.assert_array_equal(value, again)

    @parameterized.parameters(*HALF, "float32")
    def test_an_encoder_alone_keeps_its_policy(self, policy):
        one = bert_lib.BertEncoder(tiny.bert(), dtype=policy, name="mine")
        two = self.saved_and_loaded(one, "float32")
        self.assertEqual(policies(one), policies(two))
        self.assertEqual(two.name, "mine")

    def test_parts_of_two_policies_stay_two(self):
        one = model_lib.BertModel(
            bert_lib.BertEncoder(tiny.bert(), dtype=HALF[0]),
            TASKS["masked_lm"](),
            dtype=HALF[1],
            name="two",
        )
        names = {policy for _, policy in policies(one.encoder)}
        self.assertEqual(names, {HALF[0], "float32"})
        two = self.saved_and_loaded(one)
        self.assertEqual(policies(one), policies(two))
        self.assertEqual((two.name, two.dtype_policy.name), ("two", HALF[1]))

    def test_a_file_without_a_policy_takes_the_global_one(self):
        # As version 1 wrote them.
        config = model().get_config()
        for part in (config, config["encoder"]["config"]):
            del part["dtype"], part["frozen"]
        keras.config.set_dtype_policy(HALF[0])
        again = model_lib.BertModel.from_config(config)
        self.assertEqual(policies(again), policies(model()))

    def test_what_is_frozen_stays_frozen(self):
        one = model()
        one.encoder.embeddings.trainable = False
        one.encoder.blocks[1].trainable = False
        one.encoder.blocks[1].attention.qkv.trainable = True
        one.head.trainable = False
        two = self.saved_and_loaded(one)
        self.assertEqual(
            [v.path for v in one.trainable_variables],
            [v.path for v in two.trainable_variables],
        )
        for part in ("head", "encoder"):
            self.assertEqual(
                layers.frozen(getattr(one, part)),
                layers.frozen(getattr(two, part)),
            )
        self.assertFalse(two.encoder.embeddings.trainable)
        self.assertTrue(two.encoder.blocks[1].attention.qkv.trainable)
        self.assertFalse(two.encoder.blocks[1].trainable)
        two.trainable = False
        two.save(self.path)
        self.assertEmpty(keras.saving.load_model(self.path).trainable_variables)

    def test_an_encoder_alone_stays_frozen(self):
        one = bert_lib.BertEncoder(tiny.bert())
        one.blocks[0].trainable = False
        two = self.saved_and_loaded(one)
        self.assertLen(two.trainable_variables, len(two.weights) - 12)
        self.assertEqual(layers.frozen(one), layers.frozen(two))

    @pytest.mark.slow
    def test_a_new_process_finds_the_task_of_a_file(self):
        model("intent_slots").save(self.path)
        code = (
            "import keras, bert_keras; bert_keras.BertModel; "
            f"print(keras.saving.load_model({self.path!r}).task.name)"
        )
        process = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True
        )
        self.assertEqual(process.stdout.strip(), "intent_slots", process.stderr)

    def test_a_task_that_keras_does_not_know_is_found_if_imported(self):
        one = model_lib.BertModel(
            bert_lib.BertEncoder(tiny.bert()),
            Unregistered(labels=("no", "yes")),
        )
        two = self.saved_and_loaded(one)
        self.assertEqual(two.task, one.task)
        self.assertIs(type(two.task), Unregistered)

    @parameterized.product(
        part=("task", "encoder"),
        names=(
            ("evil", "Evil", "Evil"),
            ("evil", "Evil", None),
            ("evil", "Evil", "bert_keras>Evil"),
            ("keras.layers", "Dense", None),
            ("builtins", "__lambda__", None),
            ("bert_keras.errors", "InputError", "InputError"),
        ),
    )
    def test_a_file_names_no_code_to_run(self, part, names):
        model().save(self.path)
        folder = os.path.dirname(self.path)
        with open(os.path.join(folder, "evil.py"), "w") as file:
            file.write("class Evil: from_config = classmethod(print)\n")
        sys.path.insert(0, folder)
        self.addCleanup(sys.path.remove, folder)
        with zipfile.ZipFile(self.path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        config = json.loads(files["config.json"])
        values = config["config"][part]
        values["module"], values["class_name"], name = names
        values["registered_name"] = name
        files["config.json"] = json.dumps(config)
        with zipfile.ZipFile(self.path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        with self.assertRaisesRegex(errors.InputError, "import its module"):
            keras.saving.load_model(self.path)
        self.assertNotIn("evil", sys.modules)


class DtypeTest(parameterized.TestCase):
    def test_float64_is_refused(self):
        with self.assertRaisesRegex(errors.InputError, "policy is float64"):
            bert_lib.BertEncoder(tiny.bert(), dtype="float64")

    @parameterized.parameters(*HALF, "bfloat16", "float16")
    def test_weights_of_layer_norm_are_float32(self, policy):
        norm = layers.layer_norm(tiny.bert(), dtype=policy)
        norm.build((None, 16))
        self.assertEqual({w.dtype for w in norm.weights}, {"float32"})
        self.assertEqual(norm.compute_dtype, policy.removeprefix("mixed_"))

    @parameterized.parameters(
        lambda **o: bert_lib.BertEncoder(tiny.bert(embedding_size=8), **o),
        lambda **o: bert_lib.BertEncoder(tiny.bert(norm_first=True), **o),
        lambda **o: model("masked_lm", **o),
        lambda **o: layers.Embeddings(tiny.bert(embedding_size=8), **o),
        lambda **o: layers.Block(tiny.bert(), **o),
        lambda **o: heads.MaskedLMHead(tiny.bert(), **o),
        lambda **o: heads.ClassificationHead(tiny.bert(), 2, "lstm", **o),
        lambda **o: heads.TokenClassificationHead(tiny.bert(), 2, **o),
        lambda **o: heads.SpanHead(tiny.bert(), **o),
        lambda **o: heads.NextSentenceHead(tiny.bert(), **o),
    )
    def test_the_argument_reaches_every_part_as_the_global_policy_does(
        self, make
    ):
        self.addCleanup(keras.config.set_dtype_policy, "float32")
        for policy in (*HALF, "bfloat16"):
            by_argument = policies(make(dtype=policy))
            self.assertEqual(keras.config.dtype_policy().name, "float32")
            keras.config.set_dtype_policy(policy)
            self.assertEqual(by_argument, policies(make()))
            plain = policies(make(dtype="float32"))
            keras.config.set_dtype_policy("float32")
            self.assertEqual(plain, policies(make()))


if __name__ == "__main__":
    absltest.main()
