"""Segments of ids -> [CLS] a [SEP] b [SEP], in graph and on arrays."""

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


def pack_arrays(
    first: np.ndarray, second: np.ndarray, *, cls_id: int, sep_id: int
) -> dict[str, np.ndarray]:
    """The same for one row that fits: ids and segment ids (length,).

    An empty `second` makes the one-segment form.
    """
    parts = [[cls_id], first, [sep_id]]
    if len(second):
        parts += [second, [sep_id]]
    token_ids = np.concatenate(parts).astype(np.int32)
    segment_ids = np.zeros(len(token_ids), np.uint8)
    segment_ids[len(first) + 2 :] = 1
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
