"""Gradients of the recurrent kernels. Their values are in recurrent_layers_test
and in formats/bilm_test.py."""

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import recurrent_kernels

STEPS, BATCH, CELL, STATE = 5, 3, 4, 2  # STATE: of a projected LSTM
# A second text starts in row 0, row 1 has padding; without and with it.
KEEP = np.ones((STEPS, BATCH, 1), np.int32)
KEEP[3, 0] = 0
REAL = np.ones((STEPS, BATCH, 1), np.int32)
REAL[3:, 1] = 0
MASKS = {
    "none": None,
    "texts": recurrent_kernels.Masks(tf.constant(KEEP)),
    "padding": recurrent_kernels.Masks(tf.constant(KEEP), tf.constant(REAL)),
}
KERNELS = ("lstm", "projected", "clipped", "gru")


def arguments(kernel, dtype=tf.float32):
    """Random gates, weights and states, by name."""
    random = np.random.default_rng(0)
    count, state = (3, CELL) if kernel == "gru" else (4, CELL)
    if kernel in ("projected", "clipped"):
        state = STATE
    shapes = {
        "gates": (STEPS, BATCH, count * CELL),
        "recurrent": (state, count * CELL),
        "h": (BATCH, state),
    }
    if kernel == "gru":
        shapes["bias"] = (CELL,)
    else:
        shapes["c"] = (BATCH, CELL)
    if state != CELL:
        shapes["projection"] = (CELL, state)
    values = {name: random.normal(size=s) for name, s in shapes.items()}
    return {name: tf.constant(v, dtype) for name, v in values.items()}


def run(kernel, values, *, training, masks="none"):
    """Returns the states and the parts of the last state."""
    options = {"masks": MASKS[masks], "training": training}
    if kernel == "gru":
        options["state"] = (tf.cast(values["h"], tf.float32),)
        states, last = recurrent_kernels.gru(
            values["gates"], values["recurrent"], values["bias"], **options
        )
        return [states, *last]
    if kernel == "clipped":
        options |= {"cell_clip": 0.7, "projection_clip": 0.4}
    options["state"] = values["h"], tf.cast(values["c"], tf.float32)
    states, last = recurrent_kernels.lstm(
        values["gates"],
        values["recurrent"],
        values.get("projection"),
        **options,
    )
    return [states, *last]


def total(outputs):
    """A scalar in which each output has another weight."""
    random = np.random.default_rng(1)
    return tf.add_n(
        [
            tf.reduce_sum(tf.sin(2.0 * tf.cast(x, tf.float32)) * weights)
            for x in outputs
            for weights in [random.normal(size=x.shape).astype(np.float32)]
        ]
    )


def gradients(kernel, values, **options):
    with tf.GradientTape() as tape:
        tape.watch(values)
        outputs = run(kernel, values, **options)
        loss = total(outputs)
    return outputs, tape.gradient(loss, values)


class GradientsTest(parameterized.TestCase):
    @parameterized.product(kernel=KERNELS, masks=tuple(MASKS))
    def test_are_those_of_tensorflows_own_loop(self, kernel, masks):
        values = arguments(kernel)
        outputs, actual = gradients(kernel, values, masks=masks, training=True)
        plain, expected = gradients(kernel, values, masks=masks, training=False)
        for one, other in zip(outputs, plain, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
        for name, value in expected.items():
            np.testing.assert_allclose(
                actual[name], value, atol=1e-5, err_msg=name
            )
            self.assertGreater(np.abs(value).max(), 0.05, name)

    @parameterized.parameters(*KERNELS)
    @pytest.mark.slow_after(2)
    def test_are_those_of_finite_differences(self, kernel):
        values = arguments(kernel)
        names = list(values)

        @tf.function
        def loss(*tensors):
            return total(
                run(
                    kernel,
                    dict(zip(names, tensors, strict=True)),
                    masks="padding",
                    training=True,
                )
            )

        for name, theoretical, numerical in zip(
            names,
            *tf.test.compute_gradient(loss, list(values.values()), delta=2e-3),
            strict=True,
        ):
            np.testing.assert_allclose(
                theoretical, numerical, atol=2e-2, err_msg=name
            )

    @parameterized.parameters(*KERNELS)
    @pytest.mark.slow_after(2)
    def test_are_the_same_in_a_graph_and_under_xla(self, kernel):
        values = arguments(kernel)
        _, expected = gradients(kernel, values, masks="padding", training=True)
        for xla in (False, True):
            graph = tf.function(
                lambda values: gradients(
                    kernel, values, masks="padding", training=True
                )[1],
                jit_compile=xla,
            )
            actual = graph(values)
            for name, value in expected.items():
                np.testing.assert_allclose(
                    actual[name], value, atol=1e-5, err_msg=name
                )

    @parameterized.parameters(*KERNELS)
    def test_are_the_same_if_only_the_forward_pass_is_in_a_graph(self, kernel):
        values = arguments(kernel)
        _, expected = gradients(kernel, values, training=True)
        with tf.GradientTape() as tape:
            tape.watch(values)
            graph = tf.function(lambda x: run(kernel, x, training=True))
            loss = total(graph(values))
        actual = tape.gradient(loss, values)
        for name, value in expected.items():
            np.testing.assert_allclose(
                actual[name], value, atol=1e-5, err_msg=name
            )

    @parameterized.product(
        kernel=KERNELS, dtype=(tf.bfloat16, tf.float16), training=(False, True)
    )
    def test_in_16_bits_they_are_near_those_of_float32(
        self, kernel, dtype, training
    ):
        outputs, expected = gradients(
            kernel, arguments(kernel), masks="padding", training=training
        )
        narrow, actual = gradients(
            kernel, arguments(kernel, dtype), masks="padding", training=training
        )
        self.assertEqual(narrow[0].dtype, dtype)
        self.assertEqual(narrow[-1].dtype, tf.float32)
        for one, other in zip(narrow, outputs, strict=True):
            np.testing.assert_allclose(
                tf.cast(one, tf.float32), other, atol=0.04
            )
        if kernel == "clipped":
            return  # what is rounded to the limit has another gradient
        for name, value in expected.items():
            self.assertEqual(actual[name].dtype, dtype, name)
            largest = np.abs(value).max()
            np.testing.assert_allclose(
                tf.cast(actual[name], tf.float32) / largest,
                value / largest,
                atol=0.08,
                err_msg=name,
            )

    @parameterized.product(kernel=KERNELS, training=(False, True))
    def test_padding_has_none_and_leaves_the_state(self, kernel, training):
        values = arguments(kernel)
        outputs, actual = gradients(
            kernel, values, masks="padding", training=training
        )
        np.testing.assert_array_equal(actual["gates"][3:, 1], 0)
        for step in (3, 4):
            np.testing.assert_array_equal(outputs[0][step, 1], outputs[1][1])
            np.testing.assert_array_equal(outputs[0][step, 1], outputs[0][2, 1])

    @parameterized.product(kernel=KERNELS, training=(False, True))
    def test_a_text_has_none_of_the_text_before_it(self, kernel, training):
        values = arguments(kernel)
        with tf.GradientTape() as tape:
            tape.watch(values)
            states, *_ = run(kernel, values, masks="texts", training=training)
            loss = tf.reduce_sum(states[3:])
        gradient = tape.gradient(loss, values)
        np.testing.assert_array_equal(gradient["gates"][:3, 0], 0)
        np.testing.assert_array_equal(gradient["h"][0], 0)
        self.assertGreater(np.abs(gradient["gates"][:3, 2]).max(), 1e-4)


class LoopTest(parameterized.TestCase):
    @parameterized.parameters(("lstm", 7), ("gru", 5))
    def test_only_training_saves_what_gradients_read(self, kernel, saved):
        values = arguments(kernel)
        counts = []
        for training in (False, True):
            graph = tf.function(
                lambda: run(kernel, values, training=training)  # noqa: B023
            ).get_concrete_function()
            ops = graph.graph.get_operations()
            counts.append(sum(op.type == "TensorListReserve" for op in ops))
        self.assertEqual(counts[1] - counts[0], saved)

    @parameterized.parameters(*KERNELS)
    def test_weights_may_be_variables(self, kernel):
        values = arguments(kernel)
        _, expected = gradients(kernel, values, training=True)
        variables = {
            name: tf.Variable(value)
            for name, value in values.items()
            if name in ("recurrent", "projection", "bias")
        }
        _, actual = gradients(kernel, values | variables, training=True)
        for name in variables:
            np.testing.assert_array_equal(actual[name], expected[name])

    @parameterized.product(kernel=KERNELS, training=(False, True))
    def test_no_rows(self, kernel, training):
        values = arguments(kernel)
        values = {
            name: x[:, :0] if name == "gates" else x[:0] if name in "hc" else x
            for name, x in values.items()
        }
        outputs, actual = gradients(kernel, values, training=training)
        self.assertEqual(outputs[0].shape[:2], (STEPS, 0))
        np.testing.assert_array_equal(actual["recurrent"], 0)


if __name__ == "__main__":
    absltest.main()
