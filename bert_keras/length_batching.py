"""Runs a batch through the network in groups of rows of similar length.

Grouping avoids computing on padding.
"""

from collections.abc import Callable, Mapping

import tensorflow as tf

# Another pass through the network reads all weights again, which takes about as
# long as computing this many tokens: up to that many, padding is faster.
OVERHEAD_TOKENS = 64
# Maximum tokens of one pass, padding included, which bounds its memory.
MAX_TOKENS = 8192


def in_length_batches(
    decode: tf.types.experimental.PolymorphicFunction,
    inputs: Mapping[str, tf.Tensor],
    *,
    per_row: Mapping[str, tf.Tensor] | None = None,
    steps: int = 1,
    copies: int = 1,
) -> dict[str, tf.Tensor]:
    """Calls `decode` on groups of rows, each padded to its longest row only.

    decode: a tf.function of the inputs by name -> {name: (W, ...)}. An output
      whose second axis has no static size is over tokens, (W, S, ...).
    inputs: {name: (W, S, ...) int32}, the network's inputs with padding_mask.
    per_row: {name: (W,)}, further inputs, one value per row.
    steps: how many times a pass runs the network, each time on one token more.
    copies: how many copies of its rows a pass has in memory, such as beams.

    Returns the outputs in the order of the rows; those over tokens are padded
    with 0 up to S. In a graph this is a loop around one copy of the network.
    Rows are sorted by length, descending, and join a group while its padding
    is at most OVERHEAD_TOKENS = 64 per step. With one step, rows of 3, 90, 41,
    3, 90 and 40 tokens need three passes:

        90 ###################
        90 ###################
        41 ########...........   49 tokens of padding; 99 with the next row
        --
        40 ########
         3 #.......              37 tokens of padding; 74 with the next row
        --
         3 #
    """
    per_row = per_row or {}
    specs = {
        name: tf.TensorSpec((None, None, *value.shape[2:]), value.dtype)
        for name, value in inputs.items()
    } | {
        name: tf.TensorSpec((None,), value.dtype)
        for name, value in per_row.items()
    }
    output_specs = decode.get_concrete_function(**specs).structured_outputs
    is_token = tf.cast(inputs["padding_mask"] > 0, tf.int32)
    length = tf.reduce_sum(is_token, axis=1)
    order = tf.argsort(length, direction="DESCENDING", stable=True)
    decoded = _decode_descending(
        decode,
        output_specs,
        {
            name: tf.gather(v, order)
            for name, v in ({**inputs, **per_row}).items()
        },
        tf.gather(length, order),
        steps,
        copies,
    )
    back = tf.math.invert_permutation(order)
    return {
        name: tf.ensure_shape(tf.gather(value, back), output_specs[name].shape)
        for name, value in decoded.items()
    }


def _decode_descending(
    decode: Callable[..., dict[str, tf.Tensor]],
    output_specs: Mapping[str, tf.TensorSpec],
    inputs: Mapping[str, tf.Tensor],
    length: tf.Tensor,
    steps: int,
    copies: int,
) -> dict[str, tf.Tensor]:
    """Does the work of `in_length_batches` for rows sorted by length (W,)."""
    names = sorted(output_specs)
    width = tf.shape(inputs["padding_mask"])[1]

    def one_pass(begin, number, *arrays):
        end, longest = _group(length, begin, steps, copies)
        rows = {name: value[begin:end] for name, value in inputs.items()}
        decoded = decode(
            **{
                name: value if value.shape.rank == 1 else value[:, :longest]
                for name, value in rows.items()
            }
        )
        padded = (
            _pad_tokens(
                decoded[name], width - longest, output_specs[name].shape
            )
            for name in names
        )
        written = (
            array.write(number, value)
            for array, value in zip(arrays, padded, strict=True)
        )
        return end, number + 1, *written

    arrays = (
        tf.TensorArray(
            output_specs[name].dtype, 0, dynamic_size=True, infer_shape=False
        )
        for name in names
    )
    # An empty batch still runs one pass, so that the outputs have shapes.
    _, _, *arrays = tf.while_loop(
        lambda begin, number, *_: (begin < tf.size(length)) | (number == 0),
        one_pass,
        (0, 0, *arrays),
        parallel_iterations=1,
    )
    concatenated = (array.concat() for array in arrays)
    return dict(zip(names, concatenated, strict=True))


def _group(
    length: tf.Tensor, begin: tf.Tensor, steps: int = 1, copies: int = 1
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the end of the group from row `begin`, and its longest length.

    length (W,), descending. Rows join until their padding costs more than
    another pass: for lengths [90, 90, 41, 40, 3, 3], begin=0 gives (3, 90),
    begin=3 gives (5, 40) and begin=5 gives (6, 3).
    """
    # The length is at least 2, for [CLS] and [SEP], also for an empty batch.
    longest = tf.maximum(tf.pad(length, [[0, 1]])[begin], 2)
    before = tf.pad(tf.cumsum(length), [[1, 0]])  # real tokens of earlier rows
    count = tf.size(length)
    rows = tf.range(1, count + 1) - begin
    area = rows * longest
    padding = area - (before[1:] - before[begin])
    tokens = area + rows * (steps - 1)
    fits = (tokens * copies <= MAX_TOKENS) & (
        padding <= OVERHEAD_TOKENS * steps
    )
    num_joined = tf.reduce_sum(tf.cast(fits[begin:], tf.int32))
    return tf.minimum(begin + tf.maximum(num_joined, 1), count), longest


def _pad_tokens(
    value: tf.Tensor, missing: tf.Tensor, shape: tf.TensorShape
) -> tf.Tensor:
    """Pads an output over tokens: (W, s, ...) -> (W, s + missing, ...).

    Other outputs, whose second axis has a static size, are returned unchanged.
    """
    if shape.rank < 2 or shape[1] is not None:
        return value
    rest = [[0, 0]] * (shape.rank - 2)
    return tf.pad(value, [[0, 0], [0, missing], *rest])
