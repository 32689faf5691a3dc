import math
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import kernels, layers


def derivative(function, x, upstream=None):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return y, tape.gradient(y, x, output_gradients=upstream)


class GeluTest(parameterized.TestCase):
    @parameterized.product(
        pass_by_pass=(False, True),
        kind_within=(("float32", 1e-6), ("bfloat16", 2**-7)),
    )
    def test_it_is_x_times_the_share_below_x(self, pass_by_pass, kind_within):
        dtype, within = kind_within
        x = tf.cast(tf.linspace(-9.0, 9.0, 2001), dtype)
        exact = x.numpy().astype(np.float64)
        share = np.array([0.5 + 0.5 * math.erf(v / 2**0.5) for v in exact])
        density = np.exp(-0.5 * exact**2) / math.sqrt(2 * math.pi)
        if pass_by_pass:  # as on a GPU
            y, slope = kernels._gelu_ops(x)
        else:
            y, slope = derivative(kernels.gelu, x)
        self.assertEqual((y.dtype, slope.dtype), (x.dtype, x.dtype))
        for actual, expected in (
            (y, exact * share),
            (slope, share + exact * density),
        ):
            np.testing.assert_allclose(
                tf.cast(actual, tf.float64), expected, rtol=within, atol=within
            )

    def test_a_large_negative_number_gives_0(self):
        x = tf.constant([-5.6, -10.0, -1e4, -1e20])
        y, slope = derivative(kernels.gelu, x)
        np.testing.assert_allclose(y, [0, 0, 0, 0], atol=1e-7)
        np.testing.assert_allclose(slope, [0, 0, 0, 0], atol=5e-7)

    def test_it_is_that_of_inference(self):
        x = tf.random.stateless_normal((1000,), seed=(1, 2))
        for actual, expected in zip(
            derivative(kernels.gelu, x),
            derivative(layers.ACTIVATIONS["gelu"], x),
            strict=True,
        ):
            np.testing.assert_allclose(actual, expected, atol=1e-6)


class DropoutTest(parameterized.TestCase):
    @parameterized.parameters("float32", "bfloat16", "float16")
    def test_a_share_is_zero_and_the_rest_is_scaled(self, dtype):
        x = tf.ones((300, 1001), dtype)
        for rate in (0.1, 0.5, 0.9):
            y, slope = derivative(
                lambda x, rate=rate: kernels.dropout(x, rate, (3, 4)), x
            )
            self.assertEqual(y.dtype, x.dtype)
            # Forth and back alike.
            np.testing.assert_array_equal(
                tf.cast(y, tf.float32), tf.cast(slope, tf.float32)
            )
            share = np.mean(tf.cast(y == 0, tf.float32))
            deviation = math.sqrt(rate * (1 - rate) / 300_300)
            self.assertAlmostEqual(share, rate, delta=5 * deviation)
            scales = np.unique(tf.cast(y[y != 0], tf.float64))
            self.assertLen(scales, 1)
            self.assertAlmostEqual(scales[0] * (1 - rate), 1, delta=2e-3)

    def test_seeds_draw_apart_and_places_do_too(self):
        def zeros(seed):
            return kernels.dropout(tf.ones((64, 1024)), 0.5, seed).numpy() == 0

        one = zeros((1, 1))
        np.testing.assert_array_equal(one, zeros((1, 1)))
        others = [zeros((1, 2)), zeros((2, 1)), one[:, ::-1], one[::-1]]
        # The two halves of a number are neighbours.
        others.append(np.roll(one, 1, axis=1))
        for other in others:
            self.assertAlmostEqual(np.mean(one == other), 0.5, delta=0.01)

    @parameterized.parameters(0.0, 1.0)
    def test_nothing_and_all_of_it(self, rate):
        y = kernels.dropout(tf.ones((100, 100)), rate, (1, 1))
        self.assertAlmostEqual(np.mean(y == 0), rate, delta=1e-3)

    def test_an_odd_number_of_elements_and_none(self):
        for shape in ((3, 5), (1,), (0, 7)):
            y = kernels.dropout(tf.ones(shape), 0.5, (1, 1))
            self.assertEqual(y.shape, shape)

    def test_the_same_under_xla(self):
        x = tf.random.stateless_normal((17, 31), (1, 2))

        def both(x):
            return derivative(lambda x: kernels.dropout(x, 0.3, (5, 6)), x)

        for plain, compiled in zip(
            both(x), tf.function(both, jit_compile=True)(x), strict=True
        ):
            np.testing.assert_array_equal(plain, compiled)


class LayerNormTest(parameterized.TestCase):
    @parameterized.parameters(("float32", 2e-6), ("mixed_bfloat16", 2**-6))
    def test_it_is_keras_with_keras_gradients(self, policy, within):
        norm = keras.layers.LayerNormalization(epsilon=1e-12, dtype=policy)
        norm.build((None, None, 48))
        gamma, beta = tf.random.stateless_normal((2, 48), (3, 3)) + 1.0
        norm.set_weights([gamma, beta])
        x, upstream = 5 * tf.random.stateless_normal((2, 3, 7, 48), (1, 1)) + 3
        x = tf.cast(x, norm.compute_dtype)
        upstream = tf.cast(upstream, norm.compute_dtype)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([x, gamma, beta])
            y = kernels.layer_norm(x, gamma, beta, 1e-12)
            keras_y = norm(x)
        self.assertEqual(y.dtype, keras_y.dtype)
        weights = norm.gamma.value, norm.beta.value
        # Where the variance is small, epsilon counts.
        small = kernels.layer_norm(x * 1e-3, gamma, beta, 1e-5)
        keras_small = keras.layers.LayerNormalization(epsilon=1e-5)
        keras_small.build((None, None, 48))
        keras_small.set_weights([gamma, beta])
        if policy == "float32":
            np.testing.assert_allclose(small, keras_small(x * 1e-3), atol=1e-4)
        for actual, expected in (
            (y, keras_y),
            *zip(
                tape.gradient(y, [x, gamma, beta], upstream),
                tape.gradient(keras_y, [x, *weights], upstream),
                strict=True,
            ),
        ):
            actual, expected = (
                tf.cast(actual, "float32"),
                tf.cast(expected, "float32"),
            )
            np.testing.assert_allclose(
                actual,
                expected,
                rtol=within,
                atol=within * np.abs(expected).max(),
            )


class ProductTest(parameterized.TestCase):
    @parameterized.parameters(False, True)
    def test_it_is_the_product_on_every_device(self, cpu_alone):
        x = tf.random.stateless_normal((5, 7), (1, 1))
        column = tf.random.stateless_normal((7, 1), (1, 2))
        row = tf.random.stateless_normal((1, 5), (1, 3))
        exact = [value.numpy().astype(float) for value in (x, column, row)]
        with mock.patch.object(kernels, "_on_cpu_alone", lambda: cpu_alone):
            actual = kernels._product(x, column), kernels._product(row, x)
        expected = exact[0] @ exact[1], exact[2] @ exact[0]
        for product, keras_product in zip(actual, expected, strict=True):
            self.assertEqual(product.shape, keras_product.shape)
            np.testing.assert_allclose(product, keras_product, atol=1e-5)


class LayersTest(absltest.TestCase):
    def test_answers_are_those_of_keras(self):
        x = tf.random.stateless_normal((2, 3, 8), (1, 1))
        norm = layers.LayerNorm(epsilon=1e-12)
        np.testing.assert_allclose(
            norm(x, training=True), norm(x, training=False), atol=1e-6
        )
        drop = layers.Dropout(0.5)
        np.testing.assert_array_equal(drop(x, training=False), x)
        self.assertGreater(np.sum(drop(x, training=True) == 0), 0)


if __name__ == "__main__":
    absltest.main()
