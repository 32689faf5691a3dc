"""Segments of ids -> [CLS] a [SEP] b [SEP], in graph and on arrays."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text


def pack(
    segments: list[tf.RaggedTensor],
    *,
    cls_id: int,
    sep_id: int,
    seq_length: int,
) -> dict[str, tf.Tensor]:
    """One or two ragged (T, None) int32 segments -> rows (T, S) int32.

    S is the longest row's length, at most `seq_length`; a longer pair loses
    tokens from the end of its longer segment, one by one (Google's
    `_truncate_seq_pair`, of equal ones the second).
    """
    room = seq_length - 1 - len(segments)
    ids, segment_ids = tf_text.combine_segments(
        _truncate(segments, room), cls_id, sep_id
    )
    token_ids = _dense(ids)
    return {
        "token_ids": token_ids,
        "segment_ids": _dense(segment_ids),
        "padding_mask": tf.sequence_mask(
            ids.row_lengths(), tf.shape(token_ids)[1], dtype=tf.int32
        ),
        "text": tf.range(tf.shape(token_ids)[0]),
    }


class Windows(NamedTuple):
    """T texts cut into W >= T windows; all of their tokens are in some.

    A token that is in two windows has the most context in the one whose
    [first, last) holds it; each token is in one of these.
    """

    ids: tf.RaggedTensor  # (W, None) int32
    text: tf.Tensor  # (W,) int32: the text a window is of
    begin: tf.Tensor  # (W,) int32: which token of the text comes first
    first: tf.Tensor  # (W,) int32, of the text's tokens
    last: tf.Tensor  # (W,) int32


def windows(ids: tf.RaggedTensor, room, stride) -> Windows:
    """Overlapping windows of `room` tokens, each `stride` after the one before.

    ids (T, None) int32; room and stride () or (T,) int32. A text that fits, an
    empty one included, is one window. No token is lost: a stride above the
    room is the room, and at least 1.
    """
    length = tf.cast(ids.row_lengths(), tf.int32)
    room = tf.maximum(tf.broadcast_to(room, tf.shape(length)), 1)
    stride = tf.clip_by_value(
        tf.broadcast_to(stride, tf.shape(length)), 1, room
    )
    more = tf.maximum(length - room, 0)
    count = 1 + (more + stride - 1) // stride

    places = tf.ragged.range(count)  # (T, windows)
    text = tf.cast(places.value_rowids(), tf.int32)
    length, room, stride, count = (
        tf.gather(value, text) for value in (length, room, stride, count)
    )
    begin = places.values * stride
    stop = tf.minimum(begin + room, length)
    half = (room - stride) // 2
    tokens = tf.ragged.range(begin, stop)
    start = tf.gather(tf.cast(ids.row_starts(), tf.int32), text)
    flat = tokens.values + tf.gather(start, tokens.value_rowids())
    return Windows(
        tokens.with_values(tf.gather(ids.values, flat)),
        text,
        begin,
        first=tf.where(begin == 0, 0, begin + half),
        last=tf.where(
            places.values + 1 == count, length, begin + stride + half
        ),
    )


def pack_arrays(
    first: np.ndarray, second: np.ndarray, *, cls_id: int, sep_id: int
) -> dict[str, np.ndarray]:
    """The same for one row that fits: ids and segment ids (length,).

    An empty `second` makes the one-segment form.
    """
    middle = len(first) + 1
    size = middle + 1 + (len(second) + 1 if len(second) else 0)
    # Half the time of concatenate, and rows come by the hundred thousand.
    token_ids = np.empty(size, np.int32)
    token_ids[0], token_ids[middle] = cls_id, sep_id
    token_ids[1:middle] = first
    if len(second):
        token_ids[middle + 1 : -1] = second
        token_ids[-1] = sep_id
    segment_ids = np.zeros(size, np.uint8)
    segment_ids[middle + 1 :] = 1
    return {"token_ids": token_ids, "segment_ids": segment_ids}


def _dense(ids: tf.RaggedTensor) -> tf.Tensor:
    """Padded with 0; no row still has room for [CLS] and [SEP]."""
    padded = ids.to_tensor()
    missing = tf.maximum(2 - tf.shape(padded)[1], 0)
    return tf.pad(padded, [[0, 0], [0, missing]])


def _truncate(
    segments: list[tf.RaggedTensor], room: int
) -> list[tf.RaggedTensor]:
    if len(segments) == 1:
        return [segments[0][:, :room]]
    first, second = segments
    length = first.row_lengths()
    kept = tf.minimum(
        second.row_lengths(), tf.maximum(room - length, room // 2)
    )
    return [
        _first_tokens(first, tf.minimum(length, room - kept)),
        _first_tokens(second, kept),
    ]


def _first_tokens(ids: tf.RaggedTensor, count: tf.Tensor) -> tf.RaggedTensor:
    place = tf.ragged.range(ids.row_lengths())
    return tf.ragged.boolean_mask(ids, place < tf.expand_dims(count, 1))
