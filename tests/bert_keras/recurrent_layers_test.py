"""Recurrent layers: Keras' own equations, steps, padding and packed texts."""

import random
import warnings

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, layers, recurrent_layers
from tests import recurrent_reference

BATCH, LENGTH, WIDTH, UNITS = 3, 7, 4, 5
CELLS = recurrent_layers.CELLS


def layer_of(cell):
    layer = recurrent_layers.Recurrent(cell, UNITS, name="recurrent")
    layer.build((None, None, WIDTH))
    generator = np.random.default_rng(0)
    for variable in layer.weights:
        variable.assign(generator.normal(0, 0.7, variable.shape))
    return layer


def inputs(batch=BATCH, length=LENGTH, seed=1):
    values = np.random.default_rng(seed)
    return tf.constant(values.normal(size=(batch, length, WIDTH)), tf.float32)


def random_state(cell):
    values = np.random.default_rng(2)
    return tuple(
        tf.constant(values.normal(size=(BATCH, UNITS)), tf.float32)
        for _ in range(2 if cell == "lstm" else 1)
    )


def padded_mask():
    return tf.constant(
        [[1] * 7, [1] * 5 + [0] * 2, [1] + [0] * 6], dtype=tf.int32
    )


class RecurrentTest(parameterized.TestCase):
    @parameterized.product(cell=CELLS, training=(False, True))
    def test_is_keras_layer_with_the_same_weights(self, cell, training):
        layer = layer_of(cell)
        mask, state = padded_mask(), random_state(cell)
        outputs, last = layer(
            inputs(), state=state, mask=mask, training=training
        )
        expected, *expected_last = recurrent_reference.in_keras(layer, WIDTH)(
            inputs(), initial_state=list(state), mask=tf.cast(mask, tf.bool)
        )
        real = tf.cast(mask, tf.float32)[..., tf.newaxis]
        np.testing.assert_allclose(outputs, expected * real, atol=1e-6)
        for one, other in zip(last, expected_last, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)

    @parameterized.product(cell=CELLS, given=(False, True))
    def test_steps_give_what_the_sequence_gives(self, cell, given):
        layer = layer_of(cell)
        first = random_state(cell) if given else None
        outputs, last = layer(inputs(), state=first)
        state = first if given else layer.zero_state(BATCH)
        for index in range(LENGTH):
            output, state = layer.step(inputs()[:, index], state)
            np.testing.assert_allclose(output, outputs[:, index], atol=1e-6)
        for one, other in zip(state, last, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)

    @parameterized.parameters(*CELLS)
    def test_a_sequence_can_be_continued(self, cell):
        layer = layer_of(cell)
        outputs, last = layer(inputs())
        begin, state = layer(inputs()[:, :3])
        end, state = layer(inputs()[:, 3:], state=state)
        np.testing.assert_allclose(
            tf.concat([begin, end], axis=1), outputs, atol=1e-6
        )
        for one, other in zip(state, last, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
        _, state = layer.step(inputs()[:, 0], None)
        np.testing.assert_allclose(state[0], outputs[:, 0], atol=1e-6)

    @parameterized.parameters(*CELLS)
    def test_padding_changes_nothing(self, cell):
        layer = layer_of(cell)
        mask = padded_mask()
        outputs, last = layer(inputs(), mask=mask)
        other = tf.where(
            mask[..., tf.newaxis] > 0, inputs(), inputs(seed=3) * 100
        )
        for one, expected in zip(
            tf.nest.flatten(layer(other, mask=mask)),
            tf.nest.flatten((outputs, last)),
            strict=True,
        ):
            np.testing.assert_array_equal(one, expected)
        np.testing.assert_array_equal(outputs[1, 5:], 0)
        # The state is that of the last real token.
        np.testing.assert_allclose(last[0][1], outputs[1, 4], atol=1e-6)
        # Nor does padding before the text, with a given state.
        shifted = tf.pad(inputs(), [[0, 0], [2, 0], [0, 0]])
        state = random_state(cell)
        for one, expected in zip(
            tf.nest.flatten(
                layer(
                    shifted,
                    state=state,
                    mask=tf.pad(mask, [[0, 0], [2, 0]]),
                )[1]
            ),
            layer(inputs(), state=state, mask=mask)[1],
            strict=True,
        ):
            np.testing.assert_allclose(one, expected, atol=1e-6)

    @parameterized.parameters(*CELLS)
    def test_packed_texts_do_not_influence_each_other(self, cell):
        layer = layer_of(cell)
        x = inputs(batch=1, length=9)
        state = tuple(value[:1] for value in random_state(cell))
        for numbers in (
            [1] * 3 + [2] * 4 + [0] * 2,
            [3, 1, 1, 2, 2, 2, 2, 0, 0],
        ):
            mask = tf.constant([numbers])
            packed, _ = layer(x, state=state, mask=mask)
            for number in set(numbers) - {0}:
                where = np.flatnonzero(np.array(numbers) == number)
                text = x[:, where[0] : where[-1] + 1]
                # Only the row's first text continues the given state.
                alone, _ = layer(text, state=None if where[0] else state)
                np.testing.assert_allclose(
                    packed[:, where[0] : where[-1] + 1], alone, atol=1e-6
                )

    def test_masks_of_steps(self):
        mask = tf.constant([[1, 1, 2, 2, 0], [0, 1, 1, 0, 2], [0] * 5])
        keep, real = recurrent_layers.step_masks(mask)
        np.testing.assert_array_equal(
            keep[..., 0],
            np.transpose([[1, 1, 0, 1, 1], [1, 1, 1, 1, 0], [1] * 5]),
        )
        np.testing.assert_array_equal(
            real[..., 0], np.transpose(mask.numpy() > 0)
        )

    def test_orders(self):
        mask = tf.constant([[1, 1, 2, 0], [0] * 4, [1, 2, 3, 4]])
        order = recurrent_layers.reversed_order(mask)
        np.testing.assert_array_equal(
            order, [[2, 1, 0, 3], [0, 1, 2, 3], [3, 2, 1, 0]]
        )
        np.testing.assert_array_equal(
            recurrent_layers.reorder(mask, order),
            [[2, 1, 1, 0], [0] * 4, [4, 3, 2, 1]],
        )

    @parameterized.parameters(*CELLS)
    def test_graphs_of_any_length_and_xla_give_the_same(self, cell):
        layer = layer_of(cell)
        expected = tf.nest.flatten(layer(inputs(), mask=padded_mask()))
        specs = [
            tf.TensorSpec((None, None, WIDTH)),
            tf.TensorSpec((None, None), tf.int32),
        ]

        def both(x, mask):
            return layer(x, mask=mask)

        for graph in (
            tf.function(both, input_signature=specs),
            tf.function(both, jit_compile=True),
        ):
            actual = tf.nest.flatten(graph(inputs(), padded_mask()))
            for one, other in zip(actual, expected, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-6)

    @parameterized.product(
        cell=CELLS, policy=("mixed_bfloat16", "bfloat16", "mixed_float16")
    )
    def test_computes_in_16_bits(self, cell, policy):
        expected, _ = layer_of(cell)(inputs())
        with layers.global_policy(policy):
            layer = layer_of(cell)
        outputs, last = layer(inputs())
        dtype = tf.as_dtype(policy.removeprefix("mixed_"))
        self.assertEqual(outputs.dtype, dtype)
        np.testing.assert_allclose(
            tf.cast(outputs, tf.float32), expected, atol=0.06
        )
        # Cells stay float32 between calls and steps.
        self.assertEqual(last[-1].dtype, tf.float32)
        state = None
        for index in range(LENGTH):
            before = state
            output, state = layer.step(inputs()[:, index], state)
            self.assertEqual(output.dtype, dtype)
            again, same = layer(inputs()[:, index : index + 1], state=before)
            np.testing.assert_array_equal(again[:, 0], output)
            for one, other in zip(state, same, strict=True):
                self.assertEqual(one.dtype, other.dtype)
                np.testing.assert_array_equal(one, other)
        for one, other in zip(state, last, strict=True):
            self.assertEqual(one.dtype, other.dtype)
            np.testing.assert_array_equal(one, other)

    @parameterized.parameters(("lstm", 4, 1.0), ("gru", 3, 0.0))
    def test_weights_and_how_they_start(self, cell, gates, open_gates):
        keras.utils.set_random_seed(1)
        layer = recurrent_layers.Recurrent(cell, 32, name="recurrent")
        layer.build((None, None, 64))
        values = checkpoint.weight_values(layer)
        shapes = {
            "kernel": (64, gates * 32),
            "recurrent_kernel": (32, gates * 32),
            "bias": (gates * 32,),
        }
        if cell == "gru":
            shapes["recurrent_bias"] = (32,)
        self.assertEqual({k: v.shape for k, v in values.items()}, shapes)
        limit = np.sqrt(6 / (64 + gates * 32))
        self.assertBetween(np.abs(values["kernel"]).max(), 0.9 * limit, limit)
        recurrent = values["recurrent_kernel"]
        np.testing.assert_allclose(
            recurrent @ recurrent.T, np.eye(32), atol=1e-5
        )
        for name, value in values.items():
            if name.endswith("bias"):
                np.testing.assert_array_equal(value, 0)
        if cell == "lstm":  # the forget gate starts open
            _, (_, c) = layer.step(
                tf.zeros((1, 64)), (tf.zeros((1, 32)), tf.ones((1, 32)))
            )
            np.testing.assert_allclose(c, 1 / (1 + np.exp(-1)), atol=1e-6)

    def test_what_is_loaded_draws_nothing(self):
        before = random.getstate()  # Keras draws initializers' seeds from it
        with layers.skip_init():
            layer = recurrent_layers.Recurrent("gru", UNITS)
            layer.build((None, None, WIDTH))
        self.assertEqual(random.getstate(), before)
        for weight in layer.weights:
            np.testing.assert_array_equal(weight, 0)

    def test_masks_are_passed_without_a_warning(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            outputs, _ = layer_of("gru")(inputs(), mask=padded_mask())
        self.assertFalse(hasattr(outputs, "_keras_mask"))

    def test_unknown_cells_are_refused(self):
        with self.assertRaisesRegex(
            errors.InputError, "one of lstm, gru; got 'rnn'"
        ):
            recurrent_layers.Recurrent("rnn", UNITS)


if __name__ == "__main__":
    absltest.main()
