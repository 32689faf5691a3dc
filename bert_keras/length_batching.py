"""Rows of similar length through the network together: padding is not work."""

from collections.abc import Callable, Mapping

import tensorflow as tf

# One more pass through the network reads all weights again, which takes about
# as long as these many tokens: so much padding is cheaper than another pass.
OVERHEAD_TOKENS = 64
# Tokens of one pass, padding included: its memory does not grow with the rows.
MAX_TOKENS = 8192


def in_length_batches(
    decode: tf.types.experimental.PolymorphicFunction,
    inputs: Mapping[str, tf.Tensor],
) -> dict[str, tf.Tensor]:
    """`decode` of rows (W, S), in batches that are as long as their longest.

    decode: a tf.function of the inputs by name -> {name: (W, ...)}, whose
      second axis is the tokens' where its size is not static.
    inputs: what the network reads, (W, S, ...) int32, with its padding_mask.

    The outputs have the order of the rows; those over tokens are padded up to
    S with 0. In a graph this is a loop around one copy of the network. Rows of
    3, 90, 41, 3, 90 and 40 tokens need three passes:

        90 ###################
        90 ###################
        41 ########...........   49 tokens of padding; 99 with the next row
        --
        40 ########
         3 #.......              37; with the next row, 74
        --
         3 #
    """
    any_rows = {
        name: tf.TensorSpec((None, None, *value.shape[2:]), value.dtype)
        for name, value in inputs.items()
    }
    outputs = decode.get_concrete_function(**any_rows).structured_outputs
    real = tf.cast(inputs["padding_mask"] > 0, tf.int32)
    length = tf.reduce_sum(real, axis=1)
    order = tf.argsort(length, direction="DESCENDING", stable=True)
    decoded = _decode_descending(
        decode,
        outputs,
        {name: tf.gather(value, order) for name, value in inputs.items()},
        tf.gather(length, order),
    )
    back = tf.math.invert_permutation(order)
    return {
        name: tf.ensure_shape(tf.gather(value, back), outputs[name].shape)
        for name, value in decoded.items()
    }


def _decode_descending(
    decode: Callable[..., dict[str, tf.Tensor]],
    outputs: Mapping[str, tf.TensorSpec],
    inputs: Mapping[str, tf.Tensor],
    length: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """`in_length_batches` of rows whose length (W,) descends."""
    names = sorted(outputs)
    width = tf.shape(inputs["padding_mask"])[1]

    def one_pass(begin, number, *arrays):
        end, longest = _batch(length, begin)
        decoded = decode(
            **{name: v[begin:end, :longest] for name, v in inputs.items()}
        )
        padded = (
            _pad_tokens(decoded[name], width - longest, outputs[name].shape)
            for name in names
        )
        written = (
            array.write(number, value)
            for array, value in zip(arrays, padded, strict=True)
        )
        return end, number + 1, *written

    arrays = (
        tf.TensorArray(
            outputs[name].dtype, 0, dynamic_size=True, infer_shape=False
        )
        for name in names
    )
    # Without rows there is one pass, for the shapes of its outputs.
    _, _, *arrays = tf.while_loop(
        lambda begin, number, *_: (begin < tf.size(length)) | (number == 0),
        one_pass,
        (0, 0, *arrays),
        parallel_iterations=1,
    )
    concatenated = (array.concat() for array in arrays)
    return dict(zip(names, concatenated, strict=True))


def _batch(length: tf.Tensor, begin: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the batch that begins there ends, and its longest row.

    length (W,), descending. Rows join until their padding costs more than
    another pass.
    """
    # Without rows, a row of [CLS] and [SEP] would be the shortest.
    longest = tf.maximum(tf.pad(length, [[0, 1]])[begin], 2)
    before = tf.pad(tf.cumsum(length), [[1, 0]])  # real tokens of earlier rows
    count = tf.size(length)
    area = (tf.range(1, count + 1) - begin) * longest
    padding = area - (before[1:] - before[begin])
    fits = (area <= MAX_TOKENS) & (padding <= OVERHEAD_TOKENS)
    joined = tf.reduce_sum(tf.cast(fits[begin:], tf.int32))
    return tf.minimum(begin + tf.maximum(joined, 1), count), longest


def _pad_tokens(
    value: tf.Tensor, missing: tf.Tensor, shape: tf.TensorShape
) -> tf.Tensor:
    """(W, s, ...) -> (W, s + missing, ...), if s is the number of tokens."""
    if shape.rank < 2 or shape[1] is not None:
        return value
    rest = [[0, 0]] * (shape.rank - 2)
    return tf.pad(value, [[0, 0], [0, missing], *rest])
