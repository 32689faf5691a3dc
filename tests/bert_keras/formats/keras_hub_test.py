import functools
import json
import os
import shutil
import subprocess
import sys

import h5py
import keras_nlp
import numpy as np
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, formats, loading
from bert_keras.formats import keras_hub
from bert_keras.tokenizers import wordpiece
from tests import tiny

SIZES = {
    ours: getattr(tiny.bert(), ours)
    for ours in keras_hub.FIELDS
    if ours != "vocab_size"
}


def randomise(layer, seed=0):
    """No zeros and no ones: mixed-up names would show."""
    random = np.random.default_rng(seed)
    for variable in layer.weights:
        if not variable.path.endswith("seed_generator_state"):
            variable.assign(random.normal(0, 0.3, variable.shape))


def their_backbone(**changes):
    sizes = {keras_hub.FIELDS[ours]: size for ours, size in SIZES.items()}
    backbone = keras_nlp.models.BertBackbone(
        **{"vocabulary_size": len(tiny.VOCABULARY)} | sizes | changes
    )
    randomise(backbone)
    return backbone


def their_tokenizer(**options):
    return keras_nlp.models.BertTokenizer(
        tiny.VOCABULARY, **{"lowercase": True} | options
    )


def their_classifier(**options):
    classifier = keras_nlp.models.BertTextClassifier(
        their_backbone(),
        preprocessor=keras_nlp.models.BertTextClassifierPreprocessor(
            their_tokenizer(), sequence_length=24
        ),
        **{"num_classes": 3} | options,
    )
    randomise(classifier, seed=1)
    return classifier


def values(model):
    return {
        path: variable.numpy()
        for layer in (model.encoder, model.head)
        for path, variable in checkpoint.weights(layer).items()
    }


def virtual_layout(other, shape):
    layout = h5py.VirtualLayout(shape, "f4")
    layout[0, :] = h5py.VirtualSource(other, "x", (10_000,))[: shape[1]]
    return layout


class KerasHubTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        self.path = functools.partial(os.path.join, self.folder)

    def save_theirs(self, *parts):
        for part in parts or (their_backbone(), their_tokenizer()):
            part.save_to_preset(self.folder)

    def write(self, model=None, tokenizer=None):
        model = model or tiny.classifier(activation="gelu_tanh")
        randomise(model)
        keras_hub.write(self.folder, model, tokenizer or tiny.tokenizer())
        return model

    def change(self, name, **values):
        with open(self.path(name)) as file:
            described = json.load(file)
        described["config"] |= values
        with open(self.path(name), "w") as file:
            json.dump(described, file)

    def assert_equal_outputs(self, encoded, reference):
        inputs = tiny.inputs()
        real = inputs["padding_mask"].numpy() > 0
        expected = reference(inputs)
        encoded = encoded(**inputs)
        np.testing.assert_allclose(
            encoded["hidden"][-1].numpy()[real],
            expected["sequence_output"].numpy()[real],
            atol=1e-5,
        )
        np.testing.assert_allclose(
            encoded["pooled"], expected["pooled_output"], atol=1e-5
        )

    def test_what_was_written_comes_back_bit_equal(self):
        model = self.write()
        source = formats.read(self.folder)
        again = loading.load_model(source)
        self.assertEqual(again.encoder.config, model.encoder.config)
        self.assertEqual(again.task, model.task)
        self.assertEqual(
            source.tokenizer().fingerprint, tiny.tokenizer().fingerprint
        )
        expected, got = values(model), values(again)
        self.assertEqual(set(expected), set(got))
        for path, value in expected.items():
            np.testing.assert_array_equal(got[path], value, path)

    def test_keras_hub_loads_what_was_written(self):
        model = self.write()
        reference = keras_nlp.models.BertTextClassifier.from_preset(self.folder)
        self.assert_equal_outputs(model.encoder, reference.backbone)
        np.testing.assert_allclose(
            reference(tiny.inputs()), model(tiny.inputs())["label"], atol=1e-5
        )
        alone = keras_nlp.models.BertBackbone.from_preset(self.folder)
        self.assert_equal_outputs(model.encoder, alone)
        text = ["A gööd film, 电影 was dull!", "films, unknown"]
        words = keras_nlp.models.BertTokenizer.from_preset(self.folder)
        self.assertEqual(words(text), tiny.tokenizer()(text).to_list())

    def test_a_masked_lm_is_written_as_a_backbone(self):
        model = self.write(tiny.masked_lm_model(activation="gelu_tanh"))
        reference = keras_nlp.models.BertBackbone.from_preset(self.folder)
        self.assert_equal_outputs(model.encoder, reference)
        self.assertIsNone(formats.read(self.folder).task)

    def test_equals_their_backbone(self):
        backbone = their_backbone(num_segments=3, dropout=0.2)
        self.save_theirs(backbone, their_tokenizer(lowercase=False))
        source = formats.read(self.folder)
        self.assertIsNone(source.task)
        self.assertFalse(source.tokenizer().lowercase)
        self.assertEqual(source.config.attention_dropout, 0.2)
        model = loading.load_model(source, tiny.classifier().task)
        self.assert_equal_outputs(model.encoder, backbone)

    def test_equals_their_classifier(self):
        classifier = their_classifier()
        self.save_theirs(classifier)
        source = formats.read(self.folder)
        self.assertEqual(source.task.labels, ("0", "1", "2"))
        self.assertEqual(source.task.seq_length, 24)
        np.testing.assert_allclose(
            loading.load_model(source)(tiny.inputs())["label"],
            classifier(tiny.inputs()),
            atol=1e-5,
        )

    @parameterized.parameters({"activation": "sigmoid"}, {"num_classes": 1})
    def test_a_head_that_answers_otherwise_is_left_out(self, **options):
        self.save_theirs(their_classifier(**options))
        source = formats.read(self.folder)
        self.assertIsNone(source.task)
        with self.assertRaisesRegex(errors.InputError, "task.json describes"):
            loading.load_model(source)

    def test_their_masked_lm_is_read_as_an_encoder(self):
        if sys.version_info < (3, 11):
            self.skipTest("KerasHub 0.25 saves no task without preprocessor")
        self.save_theirs(
            keras_nlp.models.BertMaskedLM(their_backbone()), their_tokenizer()
        )
        self.assertIsNone(formats.read(self.folder).task)

    @parameterized.parameters("float32", "bfloat16")
    def test_reads_shards_and_half_precision(self, dtype):
        backbone = their_backbone(dtype=dtype)
        self.save_theirs(backbone, their_tokenizer())
        os.remove(self.path("model.weights.h5"))
        backbone.save_weights(
            self.path("model.weights.json"), max_shard_size=1e-5
        )
        self.assertTrue(os.path.exists(self.path("model_00001.weights.h5")))
        np.testing.assert_array_equal(
            formats.read(self.folder).encoder_values()["embeddings/token"],
            np.asarray(backbone.token_embedding.embeddings, np.float32),
        )

    def test_casing_can_be_overruled(self):
        self.save_theirs()
        self.assertTrue(formats.read(self.folder).tokenizer().lowercase)
        source = formats.read(self.folder, lowercase=False)
        self.assertFalse(source.tokenizer().lowercase)

    @parameterized.parameters(
        ({"num_layers": 1}, "not in the model model/.*encoder_1"),
        ({"num_layers": 3}, "missing model/layers/transformer_encoder_2"),
        ({"num_heads": 4}, r"is \(16, 2, 8\), but config.json specifies"),
        (
            {"hidden_dim": 32},
            r"is \(36, 16\), but config.json specifies \(36, 32",
        ),
        (
            {"intermediate_dim": 8},
            r"\(16, 32\), but config.json specifies \(16, 8",
        ),
        ({"vocabulary_size": 40}, "vocabulary_size 40, and the .* table 36"),
    )
    def test_another_shape_is_named(self, changes, message):
        self.save_theirs()
        self.change("config.json", **changes)
        with self.assertRaisesRegex(errors.InputError, message):
            loading.load_model(
                formats.read(self.folder), tiny.classifier().task
            )

    @parameterized.parameters(
        ({"num_layers": 10**9}, "1,000,000,000"),
        ({"num_heads": 0}, "num_heads"),
        ({"hidden_dim": "16"}, "hidden_dim, got '16'"),
        ({"dropout": float("nan")}, "dropout"),
        ({"vocabulary_size": 2 * 10**9}, "2,000,000,000"),
    )
    def test_a_number_that_cannot_be_is_named(self, changes, message):
        self.save_theirs()
        self.change("config.json", **changes)
        with self.assertRaisesRegex(errors.InputError, message):
            formats.read(self.folder)

    def test_a_larger_table_keeps_its_rows_and_the_load_says_so(self):
        self.save_theirs(their_backbone(vocabulary_size=50), their_tokenizer())
        with self.assertWarnsRegex(UserWarning, "50 rows .* 36 entries"):
            words = formats.read(self.folder).tokenizer()
        self.assertEqual(words.vocabulary[-1], "[unused_row49]")

    def test_weights_that_are_no_numbers_are_named(self):
        self.save_theirs()
        name = "layers/dense/vars/1"
        with h5py.File(self.path("model.weights.h5"), "r+") as file:
            del file[name]
            # A pickle that would run code if it were loaded as one.
            file[name] = np.array([b"cos\nsystem\n(S'false'\ntR."] * 16)
        with self.assertRaisesRegex(errors.InputError, "dense/vars/1"):
            formats.read(self.folder).encoder_values()

    @parameterized.named_parameters(
        (
            "external",
            lambda file, name, shape, other: file.create_dataset(
                name, shape, "f4", external=[(other, 0, h5py.h5f.UNLIMITED)]
            ),
            "in another file",
        ),
        (
            "virtual",
            lambda file, name, shape, other: file.create_virtual_dataset(
                name, virtual_layout(other, shape)
            ),
            "in another file",
        ),
        (
            "linked",
            lambda file, name, shape, other: file.__setitem__(
                name, h5py.ExternalLink(other, "x")
            ),
            "missing model/",
        ),
        (
            "empty",
            lambda file, name, shape, other: file.create_dataset(
                name, data=h5py.Empty("f4")
            ),
            "is empty",
        ),
        (
            "larger_than_memory",
            lambda file, name, shape, other: file.create_dataset(
                name, (shape[0], 10**12), "f4", chunks=(1, 1024)
            ),
            r"1000000000000\).*config.json specifies",
        ),
    )
    def test_a_tensor_is_not_read_that_is(self, put, message):
        other = self.create_tempfile().full_path
        with h5py.File(other, "w") as file:
            file["x"] = np.zeros(10_000, "f4")
        for name in ("reversible_embedding", "position_embedding"):
            self.write()
            with h5py.File(self.path("model.weights.h5"), "r+") as file:
                name = f"layers/{name}/vars/0"
                shape = file[name].shape
                del file[name]
                put(file, name, shape, other)
            with self.assertRaisesRegex(errors.InputError, message):
                keras_hub.read(self.folder).encoder_values()
            shutil.rmtree(self.folder)

    def test_a_flipped_byte_is_read_or_named(self):
        self.write()
        path = self.path("model.weights.h5")
        with open(path, "rb") as file:
            good = file.read()
        # A float32's type and the name of a group, where h5py raises errors of
        # other types than for a file that is cut.
        signs = (b"\x11\x20\x1f\x00\x04", b"vars")
        signs_at = {good.find(sign) for sign in signs}
        self.assertNotIn(-1, signs_at)
        damaged = 0
        for byte in sorted(n + i for n in signs_at for i in range(0, 24, 2)):
            changed = bytearray(good)
            changed[byte] ^= 0xFF
            with open(path, "wb") as file:
                file.write(changed)
            try:
                keras_hub.read(self.folder).encoder_values()
            except errors.InputError as error:
                damaged += 1
                self.assertNotIn("\n", str(error))
        self.assertGreater(damaged, 5)

    def test_shards_outside_of_the_folder_are_refused(self):
        self.save_theirs()
        os.remove(self.path("model.weights.h5"))
        for name in ("../model.weights.h5", ["/etc/x.h5"], 3):
            with open(self.path("model.weights.json"), "w") as file:
                json.dump({"weight_map": {"a": name}}, file)
            with self.assertRaisesRegex(errors.InputError, "beside it"):
                formats.read(self.folder)

    def test_what_is_missing_may_be_allowed(self):
        self.save_theirs()
        with h5py.File(self.path("model.weights.h5"), "r+") as file:
            del file["layers/dense/vars/0"], file["layers/dense/vars/1"]
        with self.assertRaisesRegex(errors.InputError, "missing model/layers"):
            formats.read(self.folder)
        source = formats.read(self.folder, allow_missing="^pooler/")
        loading.load_model(source, tiny.classifier().task)

    def test_a_left_over_tensor_is_named(self):
        self.save_theirs(their_classifier())
        with h5py.File(self.path("task.weights.h5"), "r+") as file:
            file["layers/dense_1/vars/0"] = np.zeros(3)
        with self.assertRaisesRegex(errors.InputError, "task/layers/dense_1"):
            formats.read(self.folder)

    @parameterized.parameters(
        "config.json", "tokenizer.json", "model.weights.h5", "task.weights.h5"
    )
    def test_a_cut_file_is_damaged(self, name):
        self.save_theirs(their_classifier())
        os.truncate(self.path(name), os.path.getsize(self.path(name)) // 2)
        with self.assertRaisesRegex(errors.InputError, name):
            formats.read(self.folder)

    @parameterized.parameters("tokenizer.json", "assets", "model.weights.h5")
    def test_a_missing_file_is_named(self, name):
        self.save_theirs()
        remove = os.remove if "." in name else shutil.rmtree
        remove(self.path(name))
        with self.assertRaisesRegex(errors.InputError, name):
            formats.read(self.folder)

    def test_another_tokenizer_or_network_is_named(self):
        self.save_theirs()
        self.change("tokenizer.json", suffix_indicator="@@")
        with self.assertRaisesRegex(errors.InputError, "'suffix_indicator': '"):
            formats.read(self.folder)
        name = "RobertaBackbone"
        other = {"class_name": name, "registered_name": f"keras_hub>{name}"}
        with open(self.path("config.json"), "w") as file:
            json.dump(other, file)
        with self.assertRaisesRegex(errors.InputError, "RobertaBackbone; of"):
            formats.read(self.folder)

    @parameterized.parameters(
        {"activation": "gelu"},
        {"embedding_size": 8},
        {"num_hidden_groups": 1},
        {"position": "sinusoidal"},
        {"layer_norm_epsilon": 1e-6},
        {"attention_dropout": 0.3},
        {"norm_first": True},
    )
    def test_a_network_that_theirs_cannot_be_is_refused(self, **changes):
        (name,) = changes
        changes = {"activation": "gelu_tanh"} | changes
        with self.assertRaisesRegex(errors.InputError, f"no field for {name}"):
            self.write(tiny.classifier(**changes))
        self.assertEmpty(os.listdir(self.folder))

    def test_the_same_in_other_words_is_written(self):
        self.write(
            tiny.classifier(
                activation="gelu_tanh",
                num_hidden_groups=2,
                embedding_size=16,
                initializer_range=0.1,
            )
        )

    def test_a_vocabulary_without_mask_is_refused(self):
        pieces = [p for p in tiny.VOCABULARY if p != "[MASK]"]
        words = wordpiece.Tokenizer([*pieces, "[MSK]"], lowercase=True)
        with self.assertRaisesRegex(errors.InputError, r"needs \[MASK\]"):
            self.write(tokenizer=words)

    def test_reading_imports_no_keras_hub(self):
        self.save_theirs()
        script = (
            "import sys\n"
            "from bert_keras import formats\n"
            f"formats.read({self.folder!r}).encoder_values()\n"
            "sys.exit(bool({'keras_hub', 'keras_nlp'} & set(sys.modules)))\n"
        )
        self.assertEqual(
            subprocess.call(
                [sys.executable, "-c", script],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            ),
            0,
        )


if __name__ == "__main__":
    absltest.main()
