"""ELMo's network: what each of its vectors depends on, in every way to run it.

Its equations are in formats/bilm_test.py.
"""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, named_networks
from bert_keras.networks import base, elmo
from tests import tiny


def encoder(seed=1, **changes):
    keras.utils.set_random_seed(seed)
    built = tiny.elmo(**changes).build_encoder()
    for variable in built.trainable_variables:  # biases that are not 0
        variable.assign(variable + keras.random.normal(variable.shape) * 0.3)
    return built


class ElmoTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.encoder = encoder()
        self.inputs = tiny.elmo_inputs()

    def hidden(self, **inputs):
        return [x.numpy() for x in self.encoder(**inputs)["hidden"]]

    def test_padding_changes_nothing(self):
        wider = {
            name: tf.pad(x, [[0, 0], [0, 5]] + [[0, 0]] * (len(x.shape) - 2))
            for name, x in self.inputs.items()
        }
        narrow = self.encoder(**self.inputs)
        wide = self.encoder(**wider)
        for one, other in zip(narrow["hidden"], wide["hidden"], strict=True):
            np.testing.assert_allclose(one, other[:, :12], atol=1e-6)
            np.testing.assert_array_equal(other[:, 12:], 0)
        np.testing.assert_allclose(narrow["pooled"], wide["pooled"], atol=1e-6)

    def test_a_row_does_not_depend_on_its_batch(self):
        together = self.hidden(**self.inputs)
        for row in range(4):
            alone = self.hidden(
                **{name: x[row : row + 1] for name, x in self.inputs.items()}
            )
            for one, other in zip(alone, together, strict=True):
                np.testing.assert_allclose(one[0], other[row], atol=1e-6)

    def test_an_empty_row_is_zeros(self):
        inputs = {k: tf.zeros_like(x[:2]) for k, x in self.inputs.items()}
        outputs = self.encoder(**inputs)
        for x in (*outputs["hidden"], outputs["pooled"]):
            np.testing.assert_array_equal(x, 0)

    def test_an_empty_batch(self):
        inputs = {k: x[:0] for k, x in self.inputs.items()}
        self.assertEqual(self.encoder(**inputs)["pooled"].shape, (0, 16))

    def test_packed_texts_do_not_see_each_other(self):
        ids = self.inputs["characters"][:1]
        mask = np.array([[1] * 5 + [2] * 4 + [0] * 3])
        packed = self.hidden(characters=ids, padding_mask=mask)
        for begin, end in ((0, 5), (5, 9)):
            alone = self.hidden(
                characters=ids[:, begin:end],
                padding_mask=np.ones((1, end - begin)),
            )
            for one, other in zip(alone, packed, strict=True):
                np.testing.assert_allclose(one, other[:, begin:end], atol=1e-6)

    def test_what_a_word_changes(self):
        """Layer 0 itself; above, forward those after, backward those before."""
        ids = self.inputs["characters"][:1].numpy()
        mask = np.ones((1, 12), np.int32)
        before = self.hidden(characters=ids, padding_mask=mask)
        ids[0, 5] = ids[0, 4]
        after = self.hidden(characters=ids, padding_mask=mask)
        changed = [
            np.abs(one - other)[0].reshape(12, 2, 8).max(-1) > 1e-7
            for one, other in zip(before, after, strict=True)
        ]
        at = np.arange(12)
        np.testing.assert_array_equal(changed[0].T, [at == 5, at == 5])
        for layer in changed[1:]:
            np.testing.assert_array_equal(layer.T, [at >= 5, at <= 5])

    def test_padding_in_a_word_is_not_a_letter(self):
        table = self.encoder.characters.table
        before = self.hidden(**self.inputs)
        self.assertEqual(table.shape, (261, 4))
        table.assign(table + 1.0)
        self.assertGreater(
            np.abs(self.hidden(**self.inputs)[0] - before[0]).max(), 0.1
        )

    def test_the_pooled_text_is_the_mean_of_its_words(self):
        outputs = self.encoder(**self.inputs)
        mask = self.inputs["padding_mask"].numpy()
        for row in range(4):
            words = outputs["hidden"][-1].numpy()[row, : mask[row].sum()]
            np.testing.assert_allclose(
                outputs["pooled"][row], words.mean(0), atol=1e-6
            )

    @parameterized.parameters(True, False)
    def test_graphs_of_any_length_give_the_same(self, xla):
        expected = self.encoder(**self.inputs)["hidden"]
        specs = {
            name: tf.TensorSpec(
                x.shape if xla else (None, None, *x.shape[2:]), tf.int32
            )
            for name, x in self.inputs.items()
        }
        graph = tf.function(
            lambda **inputs: self.encoder(**inputs)["hidden"],
            input_signature=None,
            jit_compile=xla,
        ).get_concrete_function(**specs)
        for one, other in zip(graph(**self.inputs), expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)

    def test_dropout_is_in_training_only(self):
        one, two = (
            self.encoder(**self.inputs, training=True)["hidden"]
            for _ in range(2)
        )
        np.testing.assert_array_equal(one[0], two[0])  # none before the LSTMs
        self.assertGreater(np.abs(one[1] - two[1]).max(), 1e-3)

    def test_dropout_is_of_the_last_output_too(self):
        built = encoder(dropout=0.5, num_layers=1)
        inputs = tiny.elmo_inputs(rows=1, length=200)
        (last,) = built(**inputs, training=True)["hidden"][1:]
        self.assertBetween(np.mean(last == 0.0), 0.45, 0.55)

    def test_starts_as_bilm_tf_does(self):
        keras.utils.set_random_seed(1)
        built = tiny.elmo(filter_counts=(40, 40, 80)).build_encoder()
        values = checkpoint.weight_values(built)
        for name, width in (("highway_0/transform", 160), ("project", 160)):
            kernel = values[f"characters/{name}/kernel"]
            self.assertAlmostEqual(kernel.std(), width**-0.5, delta=0.004)
        for name, value in values.items():
            if name.endswith("bias"):
                expected = -2.0 if name.endswith("carry/bias") else 0.0
                np.testing.assert_array_equal(value, expected, name)

    @parameterized.parameters("mixed_bfloat16", "bfloat16", "mixed_float16")
    def test_computes_in_16_bits(self, policy):
        expected = self.encoder(**self.inputs)["hidden"]
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        self.addCleanup(keras.config.set_dtype_policy, before)
        narrow = encoder()
        for variable, other in zip(
            narrow.variables, self.encoder.variables, strict=True
        ):
            variable.assign(other)
        outputs = narrow(**self.inputs)["hidden"]
        self.assertEqual(outputs[-1].dtype, policy.removeprefix("mixed_"))
        np.testing.assert_allclose(
            tf.cast(outputs[-1], "float32"), expected[-1], atol=0.05
        )

    def test_depths(self):
        config = self.encoder.config
        depths = {
            path.split("/")[0]: config.layer_index(f"encoder/{path}")
            for path in checkpoint.weights(self.encoder)
        }
        self.assertEqual(depths, {"characters": 0, "lstm_0": 1, "lstm_1": 2})
        self.assertEqual(config.layer_index("head/word/table"), 3)

    def test_its_config_is_saved(self):
        config = tiny.elmo()
        self.assertEqual(base.from_dict(config.to_dict()), config)
        again = elmo.ElmoEncoder.from_config(self.encoder.get_config())
        self.assertEqual(again.config, config)

    @parameterized.parameters(
        ({"projection_size": 13}, "projection_size is 13 and lstm_size 12"),
        ({"filter_widths": (1, 2)}, r"\[1, 2\] and filter_counts \[4, 4, 6\]"),
        ({"filter_widths": (1, 2, 51)}, "each width from 1 to 50"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"num_layers": 10**6}, "at most 1000"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"cell_clip": -1.0}, "cell_clip is -1.0"),
        ({"character_activation": "gelu"}, "one of relu, tanh"),
    )
    def test_impossible_shapes_are_refused(self, changes, message):
        with self.assertRaisesRegex(errors.InputError, message):
            tiny.elmo(**changes)

    def test_saved_shapes_are_compared(self):
        shapes = {
            path: tuple(variable.shape)
            for path, variable in checkpoint.weights(self.encoder).items()
        }
        tiny.elmo().check_shapes(shapes)
        for changes in (
            {"num_layers": 3},
            {"lstm_size": 1 << 20},
            {"character_size": 5},
            {"filter_counts": (4, 4, 1 << 20)},
        ):
            with self.assertRaisesRegex(errors.InputError, "does not fit"):
                tiny.elmo(**changes).check_shapes(shapes)

    def test_sizes_have_names(self):
        """Parameters without the softmax, of Peters et al.'s models' cards."""
        counts = {
            name: named_networks.parse(name, vocab_size=3)
            .build_encoder()
            .count_params()
            for name in ("elmo_small", "elmo_medium")
        }
        self.assertEqual(
            {name: round(n / 1e6, 1) for name, n in counts.items()},
            {"elmo_small": 13.6, "elmo_medium": 28.0},
        )
        self.assertEqual(
            elmo.named("elmo_base", vocab_size=3).hidden_size, 1024
        )


if __name__ == "__main__":
    absltest.main()
