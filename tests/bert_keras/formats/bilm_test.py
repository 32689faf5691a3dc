"""bilm-tf's files: read, written, refused."""

import json
import os

import h5py
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors, formats
from bert_keras import model as model_lib
from bert_keras.formats import bilm
from bert_keras.tokenizers import characters
from tests import elmo_reference, tiny


class Folder:
    """A folder of bilm-tf's with random weights of a config."""

    def __init__(self, path, config, *, words=None):
        self.path, self.config = path, config
        self.weights = elmo_reference.random_weights(config)
        self.file = os.path.join(path, "elmo_weights.hdf5")
        elmo_reference.write(self.file, self.weights)
        self.options = bilm.options_of(config)
        self.write_options(self.options)
        if words is not None:
            with open(os.path.join(path, "vocab.txt"), "w") as file:
                file.write("".join(f"{word}\n" for word in words))

    def write_options(self, options):
        with open(os.path.join(self.path, "elmo_options.json"), "w") as file:
            json.dump(options, file)


def ids_of(words):
    return characters.encode(tf.constant(words)).numpy()


class BilmTest(parameterized.TestCase):
    def folder(self, config=None, **more):
        config = config or tiny.elmo()
        return Folder(self.create_tempdir().full_path, config, **more)

    @parameterized.parameters(
        {},
        {"num_layers": 1, "residual": False},
        {"num_layers": 3, "cell_clip": 0.3, "projection_clip": 0.2},
        {"character_activation": "tanh", "num_highways": 2},
        {"num_highways": 0, "filter_counts": (2, 2, 4)},  # no projection
        {"lstm_size": 8, "cell_clip": 0.0, "projection_clip": 0.0},
    )
    def test_vectors_are_those_of_the_equations(self, **changes):
        config = tiny.elmo(**changes)
        folder = self.folder(config)
        source = formats.read(folder.path)
        self.assertIsInstance(source, bilm.BilmCheckpoint)
        self.assertEqual(
            source.config.to_dict() | {"vocab_size": 0},
            config.to_dict() | {"vocab_size": 0},
        )
        encoder = source.config.build_encoder()
        source.load_encoder(encoder)
        texts = ["a very good film !".split(), "naïve 电 x".split()]
        ids = np.zeros((2, 6, 50), np.int32)
        mask = np.zeros((2, 6), np.int32)
        for row, words in enumerate(texts):
            ids[row, : len(words)] = ids_of(words)
            mask[row, : len(words)] = 1
        hidden = encoder(characters=ids, padding_mask=mask)["hidden"]
        for row, words in enumerate(texts):
            expected = elmo_reference.layers(
                config, folder.weights, ids_of(words)
            )
            self.assertLen(hidden, len(expected))
            for layer, values in zip(hidden, expected, strict=True):
                np.testing.assert_allclose(
                    layer[row, : len(words)], values, atol=2e-6, rtol=2e-6
                )
                self.assertGreater(np.abs(values).max(), 0.05)
                np.testing.assert_array_equal(layer[row, len(words) :], 0)

    def test_a_written_folder_is_the_same(self):
        config = tiny.elmo(character_activation="tanh", residual=False)
        tokenizer = tiny.characters()
        model = model_lib.BertModel(config.build_encoder(), None)
        folder = self.create_tempdir().full_path
        bilm.write(folder, model, tokenizer)
        source = formats.read(folder)
        self.assertEqual(source.config, config)
        self.assertEqual(source.tokenizer().fingerprint, tokenizer.fingerprint)
        for path, value in source.encoder_values().items():
            (variable,) = (
                each
                for each in model.encoder.variables
                if each.path == f"encoder/{path}"
            )
            np.testing.assert_array_equal(value, variable.numpy())
        self.assertLen(
            source.encoder_values(), len(model.encoder.trainable_variables)
        )

    def test_a_matrix_has_the_inputs_rows_then_the_states(self):
        folder = self.folder()
        values = formats.read(folder.path).encoder_values()
        np.testing.assert_array_equal(
            np.concatenate(
                [
                    values["lstm_1/backward/kernel"],
                    values["lstm_1/backward/recurrent_kernel"],
                ]
            ),
            folder.weights["RNN_1/RNN/MultiRNNCell/Cell1/LSTMCell/W_0"],
        )

    def test_vocabularies(self):
        path = self.folder().path
        self.assertEqual(
            formats.read(path).tokenizer().vocabulary, characters.SPECIAL_WORDS
        )
        path = self.folder(words=["<S>", "film", "</S>"]).path
        self.assertEqual(
            formats.read(path).tokenizer().vocabulary,
            ("<UNK>", "<S>", "film", "</S>"),
        )
        with open(os.path.join(path, "vocab_2.txt"), "w") as file:
            file.write("film\n")
        with self.assertRaisesRegex(errors.InputError, "several vocabularies"):
            formats.read(path)

    @parameterized.parameters(
        ({"n_characters": 300}, "262 or 261 for n_characters, found 300"),
        ({"max_characters_per_token": 20}, "expected 50 for max_characters"),
        ({"filters": [[1]]}, "expected pairs of a width and a number"),
        ({"filters": [[1.5, 2]]}, "expected pairs of a width and a number"),
        ({"activation": "selu"}, "one of relu, tanh; got 'selu'"),
        ({"activation": ["relu"]}, "a string for activation, found"),
        ({"embedding": {}}, "number for embedding dim, got None"),
        ({"n_highway": -1}, "n_highway"),
        ({"embedding": 4}, "a JSON object for embedding"),
    )
    def test_wrong_options_are_refused(self, changes, message):
        folder = self.folder()
        options = folder.options
        options["char_cnn"] |= changes
        folder.write_options(options)
        with self.assertRaisesRegex(errors.InputError, message):
            formats.read(folder.path)

    def test_other_tensors_are_refused(self):
        folder = self.folder()
        with h5py.File(folder.file, "r+") as file:
            del file["CNN_proj/b_proj"]
            file["CNN_proj/c"] = np.zeros(3)
        with self.assertRaisesRegex(
            errors.InputError, r"missing \['CNN_proj/b_proj'\], unexpected"
        ):
            formats.read(folder.path)

    def test_another_shape_is_refused(self):
        folder = self.folder()
        folder.write_options(
            bilm.options_of(tiny.elmo(lstm_size=16, num_layers=2))
        )
        source = formats.read(folder.path)
        with self.assertRaisesRegex(errors.InputError, "belong to the same"):
            source.encoder_values()

    def test_numbers_in_another_file_are_refused(self):
        folder = self.folder()
        with h5py.File(folder.file, "r+") as file:
            del file["CNN_proj/b_proj"]
            file.create_dataset(
                "CNN_proj/b_proj", (8,), "f4", external="/etc/passwd"
            )
        with self.assertRaisesRegex(errors.InputError, "in another file"):
            formats.read(folder.path).encoder_values()

    def test_a_folder_without_weights_is_refused(self):
        folder = self.folder()
        os.remove(folder.file)
        with self.assertRaisesRegex(errors.InputError, r"one file \*weights"):
            formats.read(folder.path)

    def test_allow_missing_is_refused(self):
        with self.assertRaisesRegex(errors.InputError, "Leave it out"):
            formats.read(self.folder().path, allow_missing="x")

    def test_a_lowercase_tokenizer_is_not_written(self):
        model = model_lib.BertModel(tiny.elmo().build_encoder(), None)
        lower = characters.Characters(
            tiny.characters().vocabulary, lowercase=True
        )
        with self.assertRaisesRegex(errors.InputError, "without lowercase"):
            bilm.write(self.create_tempdir().full_path, model, lower)


if __name__ == "__main__":
    absltest.main()
