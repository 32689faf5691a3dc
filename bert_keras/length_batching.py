"""Rows of like length through the network together: padding is not work."""

from collections.abc import Callable

import tensorflow as tf

# One more pass through the network reads all weights again, which takes about
# as long as these many tokens: so much padding is cheaper than another pass.
PASS = 64
# Tokens of one pass, padding included: its memory does not grow with the rows.
MOST = 8192

TOKENS = ("token_ids", "segment_ids", "padding_mask")


def by_length(decode: Callable, inputs: dict[str, tf.Tensor]):
    """`decode` of rows (W, S), in groups that are as long as their longest.

    decode: the three TOKENS, (W, S) int32 each -> {name: (W, ...)}, whose
      second axis is the tokens' where its size is not static. A tf.function.
    The outputs stand in the order of the rows; those over tokens are filled
    up to S with 0. In a graph this is a loop around one copy of the network.
    """
    tokens = {name: inputs[name] for name in TOKENS}
    width = tf.shape(tokens["token_ids"])[1]
    spec = decode.get_concrete_function(
        **{name: tf.TensorSpec((None, None), tf.int32) for name in TOKENS}
    ).structured_outputs
    names = sorted(spec)

    real = tf.cast(tokens["padding_mask"] > 0, tf.int32)
    length = tf.reduce_sum(real, axis=1)
    order = tf.argsort(length, direction="DESCENDING", stable=True)
    tokens = {name: tf.gather(value, order) for name, value in tokens.items()}
    length = tf.gather(length, order)
    before = tf.pad(tf.cumsum(length), [[1, 0]])  # real tokens of earlier rows
    count = tf.size(length)
    ends = tf.range(1, count + 1)

    def longest(begin):
        # Of no rows, a row of [CLS] and [SEP] would be the shortest.
        return tf.maximum(tf.pad(length, [[0, 1]])[begin], 2)

    def end_of(begin):
        """Rows join until their padding costs more than a pass."""
        area = (ends - begin) * longest(begin)
        padding = area - (before[1:] - before[begin])
        fits = (area <= MOST) & (padding <= PASS)
        joined = tf.reduce_sum(tf.cast(fits[begin:], tf.int32))
        return tf.minimum(begin + tf.maximum(joined, 1), count)

    def group(begin, number, *arrays):
        end, size = end_of(begin), longest(begin)
        decoded = decode(
            **{name: value[begin:end, :size] for name, value in tokens.items()}
        )
        return (
            end,
            number + 1,
            *(
                array.write(
                    number,
                    _fill(decoded[name], width - size, spec[name].shape),
                )
                for name, array in zip(names, arrays, strict=True)
            ),
        )

    arrays = (
        tf.TensorArray(
            spec[name].dtype, 0, dynamic_size=True, infer_shape=False
        )
        for name in names
    )
    # Of no rows there is one group, for the shapes of its outputs.
    _, _, *arrays = tf.while_loop(
        lambda begin, number, *_: (begin < count) | (number == 0),
        group,
        (0, 0, *arrays),
        parallel_iterations=1,
    )
    place = tf.math.invert_permutation(order)
    return {
        name: tf.ensure_shape(
            tf.gather(array.concat(), place), spec[name].shape
        )
        for name, array in zip(names, arrays, strict=True)
    }


def _fill(
    value: tf.Tensor, missing: tf.Tensor, shape: tf.TensorShape
) -> tf.Tensor:
    """(W, s, ...) -> (W, s + missing, ...), if s is the number of tokens."""
    if shape.rank < 2 or shape[1] is not None:
        return value
    rest = [[0, 0]] * (shape.rank - 2)
    return tf.pad(value, [[0, 0], [0, missing], *rest])
