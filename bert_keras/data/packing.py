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
    `_truncate_seq_pair`, of equal ones the second). "truncated" (T,) bool
    tells which rows lost some.
    """
    room = seq_length - 1 - len(segments)
    wanted = tf.add_n([segment.row_lengths() for segment in segments])
    ids, segment_ids = tf_text.combine_segments(
        _truncate(segments, room), cls_id, sep_id
    )
    token_ids = dense(ids)
    return {
        "token_ids": token_ids,
        "segment_ids": dense(segment_ids),
        "padding_mask": tf.sequence_mask(
            ids.row_lengths(), tf.shape(token_ids)[1], dtype=tf.int32
        ),
        "example_index": tf.range(tf.shape(token_ids)[0]),
        "truncated": wanted > room,
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


def pack_spans(
    ids: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    cls_id: int,
    sep_id: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same for spans of a flat text; all of a row must fit.

    ids (N,); first, second (R, 2): where the segments begin and end there.
    Empty `second` ones make the one-segment form. Returns row_splits (R + 1,)
    int64 and, of all rows one after the other, token_ids int32 and segment_ids
    uint8.
    """
    sizes = [span[:, 1] - span[:, 0] for span in (first, second)]
    pieces = [sizes[0] + 2, sizes[1] + (sizes[1] > 0)]  # with [CLS] and [SEP]
    ends = np.cumsum(np.stack(pieces, axis=1))  # of a first, a second, ...
    row_splits = np.append(0, ends[1::2])
    begins = row_splits[:-1] + 1, ends[::2]
    # All that is not filled below is a [SEP].
    token_ids = np.full(row_splits[-1], sep_id, np.int32)
    token_ids[row_splits[:-1]] = cls_id
    for span, size, begin in zip((first, second), sizes, begins, strict=True):
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        token_ids[within + np.repeat(begin, size)] = ids[
            within + np.repeat(span[:, 0], size)
        ]
    segment_ids = np.repeat(
        np.tile(np.array([0, 1], np.uint8), len(first)),
        np.stack(pieces, axis=1).ravel(),
    )
    return row_splits, token_ids, segment_ids


def dense(ids: tf.RaggedTensor) -> tf.Tensor:
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
