"""Several texts in one row of a record, which the encoder reads one by one.

Records, shuffling, replicas and accumulation know rows. The texts that one
example needs together, such as the choices of a question, are therefore one
row: one after the other, numbered 1, 2, ... by padding_mask. The encoder gets
each text as a row of its own, as it would be served, so that every network can
be used and positions begin at 0.

  rows (W, S)       [2 7 3 0]  [2 8 9 3]       of the example 0
  join              [2 7 3 2 8 9 3]            padding_mask [1 1 1 2 2 2 2]
  text_index        [[0 1 2 -1] [3 4 5 6]]     -1: no token
  separate          [2 7 3 0]  [2 8 9 3]
"""

from collections.abc import Iterable, Mapping, Sequence

import tensorflow as tf

from bert_keras.data import packing
from bert_keras.tokenizers import base

INDEX = "text_index"  # the derived feature that `separate` reads
# Lengths are multiples of this, so that XLA compiles few graphs.
_MULTIPLE = 8


def join(
    features: Mapping[str, tf.Tensor],
    number: tf.Tensor,
    *,
    feature: str,
    num_examples: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """Joins the rows of each example, which are consecutive, into one row.

    Args:
      features: those of `packing.pack` for W rows, (W, S, ...).
      number: (W,) int32, the number of each row's text, from 1.
      feature: the name of the ids, as in `Frame`.
      num_examples: T; each example has a row.

    Returns features of T rows; padding_mask is the number of the text.
    """
    example_index = features["example_index"]
    length = tf.reduce_sum(features["padding_mask"], axis=1)

    def joined(value):
        rows = tf.RaggedTensor.from_tensor(value, lengths=length)
        return packing.dense(
            tf.RaggedTensor.from_value_rowids(
                rows.values,
                tf.gather(example_index, rows.value_rowids()),
                nrows=num_examples,
            )
        )

    numbers = features["padding_mask"] * tf.expand_dims(number, 1)
    truncated = tf.math.unsorted_segment_max(
        tf.cast(features["truncated"], tf.int32), example_index, num_examples
    )
    return {
        feature: joined(features[feature]),
        "segment_ids": joined(features["segment_ids"]),
        "padding_mask": joined(numbers),
        "example_index": tf.range(num_examples),
        "truncated": truncated > 0,
    }


def both_orders(
    segments: Sequence[tf.RaggedTensor], frame: base.Frame, *, seq_length: int
) -> dict[str, tf.Tensor]:
    """Packs pairs of segments twice into a row: in their order, and exchanged.

    segments: two, ragged (T, None) int32. Each order is a text of at most
    `seq_length` tokens, as `packing.pack` makes it.
    """
    first, second = segments
    count = tf.cast(first.nrows(), tf.int32)
    # Both orders of an example are neighbours: 0, T, 1, T + 1, ...
    order = tf.reshape(
        tf.stack([tf.range(count), count + tf.range(count)], axis=1), [-1]
    )
    rows = packing.pack(
        [
            tf.gather(tf.concat([first, second], axis=0), order),
            tf.gather(tf.concat([second, first], axis=0), order),
        ],
        frame,
        seq_length=seq_length,
    )
    example_index = tf.repeat(tf.range(count), 2)
    return join(
        rows | {"example_index": example_index},
        tf.tile([1, 2], [count]),
        feature=frame.feature,
        num_examples=count,
    )


def text_index(
    padding_mask: tf.Tensor, *, num_texts: int, max_length: int
) -> tf.Tensor:
    """Returns the positions of each text's tokens, (B, num_texts, s) int32.

    padding_mask: (B, S), k on the k-th text of the row.
    max_length: the number of tokens of the longest possible text.

    s is the length of the longest text, rounded up; if S is static, as for
    TFLite and in a graph for XLA, the longest that it can be. The index is -1
    after the end of a text.
    """
    width = padding_mask.shape[1]
    lengths = tf.stack(
        [
            tf.reduce_sum(tf.cast(padding_mask == number, tf.int32), axis=1)
            for number in range(1, num_texts + 1)
        ],
        axis=1,
    )  # (B, K)
    if width is not None and not tf.executing_eagerly():
        longest = min(max_length, width)
    else:
        longest = tf.reduce_max(lengths)
        longest = (longest + _MULTIPLE - 1) // _MULTIPLE * _MULTIPLE
        longest = tf.clip_by_value(longest, 2, max_length)
    within = tf.reshape(tf.range(longest), (1, 1, -1))
    begin = tf.expand_dims(tf.cumsum(lengths, axis=1, exclusive=True), -1)
    is_token = within < tf.expand_dims(lengths, -1)
    return tf.where(is_token, begin + within, -1)


def separate(
    features: Mapping[str, tf.Tensor], names: Iterable[str]
) -> dict[str, tf.Tensor]:
    """Returns each text as a row: (B, S, ...) -> (B num_texts, s, ...).

    features: with INDEX, the result of `text_index`.
    names: the network's inputs among the features.

    padding_mask is 1 on the tokens; a text that the row lacks is padding only.
    """
    index = features[INDEX]
    batch, count, longest = tf.unstack(tf.shape(index))
    length = tf.shape(features["padding_mask"])[1]
    offset = tf.reshape(tf.range(batch) * length, (-1, 1, 1))
    is_token = index >= 0
    flat_index = tf.where(is_token, index + offset, 0)
    rows = {}
    for name in names:
        value = features[name]
        if name == "padding_mask":
            value = tf.cast(value > 0, value.dtype)
        rest = value.shape[2:]
        flat = tf.gather(tf.reshape(value, (-1, *rest)), flat_index)
        mask = tf.reshape(
            tf.cast(is_token, value.dtype),
            tf.concat([tf.shape(index), tf.ones(len(rest), tf.int32)], axis=0),
        )
        shape = tf.concat([[batch * count, longest], rest], axis=0)
        row = tf.reshape(flat * mask, shape)
        row.set_shape((None, index.shape[2], *rest))
        rows[name] = row
    return {**features, **rows}
