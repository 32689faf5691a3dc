"""GELU, dropout and LayerNorm, each with a gradient of its own.

Keras has the same functions, op by op; each op is a pass over memory, forth
and back, and a step has more of them than of products. In TensorFlow, for
random bits and for XLA.
"""

import math
from collections.abc import Callable

import tensorflow as tf


@tf.custom_gradient
def gelu(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """GELU by erf (Hendrycks & Gimpel 2016) -> like x.

    The slope is made at once, and nothing else is kept. In float32:
    element-wise bfloat16 is slow on a CPU and loses bits.
    """
    y, slope = _gelu_and_slope(x)
    return y, lambda upstream: upstream * slope


def _on_cpu_alone() -> bool:
    kinds = {device.device_type for device in tf.config.list_logical_devices()}
    return kinds == {"CPU"}


def _gelu_and_slope(x):
    # On a GPU, XLA needs parts of CUDA that TensorFlow runs without; for a TPU
    # everything is XLA's anyway.
    return _gelu_in_one_pass(x) if _on_cpu_alone() else _gelu_ops(x)


def _gelu_ops(x):
    wide = tf.cast(x, tf.float32)
    share = 0.5 + 0.5 * tf.math.erf(wide * math.sqrt(0.5))
    density = tf.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
    slope = share + wide * density
    return tf.cast(wide * share, x.dtype), tf.cast(slope, x.dtype)


# Over (2048, 2048), two cores: 5 ms, op by op 11 in float32 and 13 in bfloat16.
# Each new shape is compiled, which takes 0.1 to 0.25 s.
_gelu_in_one_pass = tf.function(
    _gelu_ops, jit_compile=True, reduce_retracing=True, autograph=False
)


def dropout(x: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Zeros a share `rate` of x and scales the rest -> like x.

    seed (2,) int. A draw takes 16 bits, so the share is a multiple of 2^-16,
    and so is the scale: 0.1 is 0.100006. Kept for the gradient: a bool each.
    """
    dropped = min(round(rate * 2**16), 2**16 - 2)  # float16 holds 2^15
    size = tf.size(x)
    # Half as many numbers, and none of them a float: 4 ms in place of 7 forth
    # and back over (16, 8, 128, 128), two cores; in bfloat16 3.6 of 8.
    random_bits = tf.random.stateless_uniform(
        [(size + 1) // 2],
        tf.cast(seed, tf.int32),
        minval=None,
        maxval=None,
        dtype=tf.uint32,
    )
    random_bits = tf.reshape(tf.bitcast(random_bits, tf.uint16), [-1])[:size]
    kept = tf.reshape(random_bits >= dropped, tf.shape(x))
    scale = tf.constant(2**16 / (2**16 - dropped), x.dtype)

    @tf.custom_gradient
    def thinned(x):
        def gradient(upstream):
            return upstream * (tf.cast(kept, x.dtype) * scale)

        return x * (tf.cast(kept, x.dtype) * scale), gradient

    return thinned(x)


def layer_norm(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tf.Tensor:
    """LayerNorm over the last axis (Ba et al. 2016) -> like x.

    x (..., H), gamma and beta (H,) float32; computed in float32.
    """

    # A custom gradient takes tensors, not variables.
    gamma, beta = map(tf.convert_to_tensor, (gamma, beta))

    @tf.custom_gradient
    def normalised(x, gamma, beta):
        width, shape = x.shape[-1], tf.shape(x)
        rows = tf.reshape(tf.cast(x, tf.float32), (-1, width))
        rows -= tf.reduce_mean(rows, axis=-1, keepdims=True)
        variance = tf.reduce_mean(rows * rows, axis=-1, keepdims=True)
        inverse = tf.math.rsqrt(variance + epsilon)
        rows *= inverse

        def gradient(upstream):
            back = tf.reshape(tf.cast(upstream, tf.float32), (-1, width))
            along = back * rows
            weight = tf.reshape(gamma, (width, 1)) / width
            change = back * gamma - _product(back, weight)
            change -= rows * _product(along, weight)
            change = tf.reshape(tf.cast(change * inverse, x.dtype), shape)
            ones = tf.ones((1, tf.shape(back)[0]))
            sums = _product(ones, along), _product(ones, back)
            return change, *(tf.reshape(s, (width,)) for s in sums)

        y = tf.reshape(rows * gamma + beta, shape)
        return tf.cast(y, x.dtype), gradient

    return normalised(x, gamma, beta)


def reshape_like(x: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """x in the shape of `like` -> like `like`, but of x's dtype.

    Keras' shapes are tuples, in which an unknown size is another each time;
    of this one TensorFlow knows that the two are equal, and so can fuse sums.
    """
    return tf.reshape(x, tf.shape(like))


def matmul_transposed(x: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """(R, E), (V, E) -> (R, V): each row of x with each of the table.

    The gradient of the table is computed in its own layout; that of Keras'
    `matmul(x, transpose(table))` is transposed, 62 MB for BERT's at E = 512.
    """
    return tf.matmul(x, table, transpose_b=True)


def _product(one, two):
    """(R, W) x (W, 1) or (1, R) x (R, W), in float32 everywhere.

    On a CPU twice as fast as a reduction; a GPU or a TPU would round the
    factors of a product to 10 or 7 bits.
    """
    if _on_cpu_alone():
        return tf.matmul(one, two)
    if two.shape[-1] == 1:
        two = tf.reshape(two, (1, -1))
        return tf.reduce_sum(one * two, axis=1, keepdims=True)
    return tf.reduce_sum(tf.reshape(one, (-1, 1)) * two, axis=0, keepdims=True)
