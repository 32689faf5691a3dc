import math

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import layers


def derivative(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return y, tape.gradient(y, x)


class GeluTest(parameterized.TestCase):
    @parameterized.parameters(("float32", 1e-6), ("bfloat16", 2**-7))
    def test_training_s_gelu_is_x_times_the_share_below_x(self, kind, within):
        x = tf.cast(tf.linspace(-9.0, 9.0, 2001), kind)
        exact = x.numpy().astype(np.float64)
        share = np.array([0.5 + 0.5 * math.erf(v / 2**0.5) for v in exact])
        density = np.exp(-0.5 * exact**2) / math.sqrt(2 * math.pi)
        y, slope = derivative(layers.TRAINED["gelu"], x)
        self.assertEqual((y.dtype, slope.dtype), (x.dtype, x.dtype))
        for found, expected in (
            (y, exact * share),
            (slope, share + exact * density),
        ):
            np.testing.assert_allclose(
                tf.cast(found, tf.float64), expected, rtol=within, atol=within
            )

    def test_it_is_that_of_inference(self):
        x = tf.random.stateless_normal((1000,), seed=(1, 2))
        for ours, theirs in zip(
            derivative(layers.TRAINED["gelu"], x),
            derivative(layers.ACTIVATIONS["gelu"], x),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


if __name__ == "__main__":
    absltest.main()
