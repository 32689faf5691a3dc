"""Packs the sentences of a text into a row, each with its own special tokens.

The input of BERTSum (Liu and Lapata 2019, section 3.1):

  sentences     [7 8]  [9]  [6 6]
  token_ids     [CLS] 7 8 [SEP] [CLS] 9 [SEP] [CLS] 6 6 [SEP]
  segment_ids   0     0 0 0     1     1 1     0     0 0 0
  positions     [0 4 7]  of the first tokens, or [3 6 10] of the last ones
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from bert_keras.data import masking, packing
from bert_keras.tokenizers import base


def pack(
    ids: tf.RaggedTensor,
    num_sentences: tf.Tensor,
    frame: base.Frame,
    *,
    seq_length: int,
    max_sentences: int,
) -> dict[str, tf.Tensor]:
    """Packs sentences into rows of at most `seq_length` tokens, in a graph.

    Args:
      ids: ragged (sentences, None, ...) int32, the sentences of all T texts.
      num_sentences: (T,) int64, how many of them are each text's.
      max_sentences: the maximum number of sentences in a row.

    Returns the features of `packing.pack`, and "num_read" (T,) int32, how many
    sentences are in the row. The last is truncated if it does not fit; those
    after it are left out. "truncated" marks both.
    """
    outside = len(frame.start) + len(frame.end)
    length = ids.row_lengths() + outside
    text_index = tf.repeat(tf.range(tf.size(num_sentences)), num_sentences)
    number = tf.ragged.range(num_sentences).values
    # Where each sentence begins in its row, if the row had no end.
    total = tf.cumsum(length, exclusive=True)
    first = tf.cumsum(num_sentences, exclusive=True)
    begin = total - tf.gather(total, tf.gather(first, text_index))
    # At least one token of a sentence must fit, if it has any.
    shortest = tf.minimum(length, outside + 1)
    is_read = (begin + shortest <= seq_length) & (number < max_sentences)
    kept = tf.minimum(length, seq_length - begin) - outside

    def of_texts(values: tf.Tensor) -> tf.Tensor:
        return tf.math.unsorted_segment_sum(
            values, text_index, tf.size(num_sentences)
        )

    num_read = of_texts(tf.cast(is_read, tf.int64))
    is_truncated = ~is_read | (kept < length - outside)
    ids = tf.ragged.boolean_mask(ids, is_read)
    kept = tf.boolean_mask(kept, is_read)
    rows = _framed(packing.first_tokens(ids, kept), frame)
    is_second = tf.cast(tf.boolean_mask(number, is_read) % 2, tf.int32)
    segment_ids = tf.repeat(is_second, rows.row_lengths())

    def of_rows(values: tf.Tensor) -> tf.Tensor:
        ragged = rows.with_values(values)
        ragged = tf.RaggedTensor.from_row_lengths(ragged, num_read)
        return packing.dense(ragged.merge_dims(1, 2))

    return {
        frame.feature: of_rows(rows.values),
        "segment_ids": of_rows(segment_ids),
        "padding_mask": of_rows(tf.ones_like(segment_ids)),
        "example_index": tf.range(tf.size(num_sentences)),
        "truncated": of_texts(tf.cast(is_truncated, tf.int32)) > 0,
        "num_read": tf.cast(num_read, tf.int32),
    }


def _framed(ids: tf.RaggedTensor, frame: base.Frame) -> tf.RaggedTensor:
    """Adds the special tokens around each of the ragged (sentences, None)."""

    def repeated(tokens: Sequence[Any]) -> list[tf.RaggedTensor]:
        if not tokens:
            return []
        row = tf.constant(tokens, ids.dtype)[tf.newaxis]
        row = tf.repeat(row, ids.nrows(), axis=0)
        return [tf.RaggedTensor.from_tensor(row)]

    return tf.concat(
        [*repeated(frame.start), ids, *repeated(frame.end)], axis=1
    )


def positions(
    ids: tf.Tensor, token: Sequence[int], max_sentences: int
) -> tf.Tensor:
    """Returns where a special token occurs, (B, max_sentences) int32.

    ids: (B, S), or (B, S, ...) if a token has several ids.
    token: its ids.

    Positions are ascending; -1 after the last one. Further ones are ignored.
    """
    if ids.shape.rank == 2:
        is_token = ids == token[0]
    else:
        is_token = tf.reduce_all(ids == tf.constant(token, ids.dtype), axis=-1)
    index, is_valid = masking.mask_positions(
        tf.cast(is_token, tf.int32), 1, max_sentences
    )
    return tf.where(is_valid, index, -1)
