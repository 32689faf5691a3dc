"""Packs segments of token ids and special tokens into rows.

`pack` and `windows` work in a TensorFlow graph, `pack_spans` on NumPy arrays.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bert_keras.tokenizers import base


def pack(
    segments: Sequence[tf.RaggedTensor],
    frame: base.Frame,
    *,
    seq_length: int,
    per_token: Mapping[str, Sequence[tf.RaggedTensor | None]] | None = None,
    padding_value: int = 0,
) -> dict[str, tf.Tensor]:
    """Packs one or two ragged (T, None) int32 segments into rows (T, S) int32.

    S is the length of the longest row, at most `seq_length`. A longer pair is
    truncated at the end of its longer segment, token by token (as Google's
    `_truncate_seq_pair`; if both are equally long, the second). "truncated"
    (T,) bool marks these rows.

    per_token: {name: one ragged (T, None) int32 per segment, with a value for
    each token; None: padding_value}. They are truncated like the tokens and
    become (T, S), with padding_value at special tokens and padding. For
    example, with [CLS] 2 and [SEP] 3:

      pack([[[7, 8]]], frame, seq_length=5, per_token={"start": [[[0, 3]]]},
           padding_value=-1)
      token_ids [[2, 7, 8, 3]]  start [[-1, 0, 3, -1]]
    """
    capacity = frame.capacity(seq_length, len(segments))
    length = tf.add_n([segment.row_lengths() for segment in segments])
    kept = _kept(segments, capacity)
    ids = _join(_gather(segments, kept), *frame[:3])
    token_ids = dense(ids)
    padding_mask = tf.sequence_mask(
        ids.row_lengths(), tf.shape(token_ids)[1], dtype=tf.int32
    )
    features = {
        frame.feature: token_ids,
        "segment_ids": tf.zeros_like(padding_mask),
        "padding_mask": padding_mask,
        "example_index": tf.range(tf.shape(padding_mask)[0]),
        "truncated": length > capacity,
    }
    if len(segments) == 2:
        second_start = (
            len(frame.start) + kept[0].row_lengths() + len(frame.between)
        )
        index = tf.range(tf.shape(padding_mask)[1], dtype=tf.int64)
        is_second = tf.cast(index >= second_start[:, tf.newaxis], tf.int32)
        features["segment_ids"] = is_second * padding_mask
    outside = [(padding_value,) * len(tokens) for tokens in frame[:3]]
    for name, values in (per_token or {}).items():
        complete = [
            _fill_like(segment, padding_value) if value is None else value
            for value, segment in zip(values, segments, strict=True)
        ]
        value = _join(_gather(complete, kept), *outside)
        features[name] = dense(value, padding_value)
    return features


def without_frame(
    features: Mapping[str, tf.Tensor],
    frame: base.Frame,
    values: Mapping[str, tf.Tensor],
) -> tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
    """Removes the frame's start and end from rows of one text.

    features: those of `pack`, (T, S). values: (T, S, ...), by name.
    Returns the ids (T, N) int32, the values (T, N, ...) and whether there is a
    token (T, N) bool, where N = S less the tokens of the frame.
    """
    start, end = len(frame.start), len(frame.end)
    mask = features["padding_mask"]
    width = tf.shape(mask)[1] - start - end
    size = tf.reduce_sum(mask, axis=1) - start - end

    def inside(value):
        return value[:, start : start + width]

    return (
        inside(features[frame.feature]),
        {name: inside(value) for name, value in values.items()},
        tf.sequence_mask(size, width),
    )


def first_tokens(ids: tf.RaggedTensor, count: tf.Tensor) -> tf.RaggedTensor:
    """Returns the first tokens of each row: (T, None), count (T,) int64."""
    start = ids.row_starts()
    (kept,) = _gather([ids], [tf.ragged.range(start, start + count)])
    return kept


def pack_separately(
    segments: Sequence[tf.RaggedTensor], frame: base.Frame, *, seq_length: int
) -> dict[str, tf.Tensor]:
    """Packs independent segments, ragged (T, None) int32 each, into one row.

    Each segment has its own special tokens and is truncated to an equal part of
    `seq_length`. padding_mask (T, S) is k on the k-th text, counted from 1,
    so that segments do not attend to each other; `position_ids` restarts at 0
    in each.
    """
    seq_length = seq_length // len(segments)
    capacity = frame.capacity(seq_length)
    rows = [
        _join(_gather([segment], _kept([segment], capacity)), *frame[:3])
        for segment in segments
    ]
    numbers = [_fill_like(row, number) for number, row in enumerate(rows, 1)]
    padding_mask = dense(tf.concat(numbers, axis=1))
    return {
        frame.feature: dense(tf.concat(rows, axis=1)),
        "segment_ids": tf.zeros_like(padding_mask),
        "padding_mask": padding_mask,
        "example_index": tf.range(tf.shape(padding_mask)[0]),
        "truncated": tf.reduce_any(
            [segment.row_lengths() > capacity for segment in segments], axis=0
        ),
    }


def position_ids(padding_mask: tf.Tensor, num_texts: int) -> tf.Tensor:
    """Returns positions (B, S) int32 that start at 0 in each text of a row.

    padding_mask (B, S) is k on the k-th text: [1, 1, 2, 2, 2, 0] gives
    positions [0, 1, 0, 1, 2, 0].
    """
    begin = tf.zeros_like(padding_mask)
    for number in range(1, num_texts):
        is_text = tf.cast(padding_mask == number, tf.int32)
        length = tf.reduce_sum(is_text, axis=1, keepdims=True)
        begin += tf.where(padding_mask > number, length, 0)
    positions = tf.range(tf.shape(padding_mask)[1]) - begin
    # Those of padding could be more than the network has.
    return tf.where(padding_mask > 0, positions, 0)


def restarting_positions(padding_mask: tf.Tensor) -> tf.Tensor:
    """Returns `position_ids` of rows of any number of texts.

    Texts are one after the other, and numbered in ascending order.
    """
    shape = tf.shape(padding_mask)
    row = tf.range(shape[0])[:, tf.newaxis] * (shape[1] + 1)
    index = tf.broadcast_to(tf.range(shape[1]), shape)
    text = padding_mask + row  # a text has a token, so its number fits
    begins = tf.math.unsorted_segment_min(
        tf.reshape(index, [-1]),
        tf.reshape(text, [-1]),
        shape[0] * (shape[1] + 1),
    )
    return tf.where(padding_mask > 0, index - tf.gather(begins, text), 0)


class Windows(NamedTuple):
    """T texts split into W >= T overlapping windows that cover all tokens.

    start is the index, in its text, of a window's first token. The tokens from
    own_start up to, but not including, own_stop, also indices in the text, are
    the ones the window is responsible for: each token of a text belongs to
    exactly one window, the one in which it has most context.
    Two windows of 4 tokens with stride 2, of a text of 6 tokens:

      values   [[10, 11, 12, 13], [12, 13, 14, 15]]
      start  [0, 2]   own_start  [0, 3]   own_stop  [3, 6]
    """

    values: tf.RaggedTensor  # (W, None) int32: one value per token, such as ids
    example_index: tf.Tensor  # (W,) int32: index of the window's text
    start: tf.Tensor  # (W,) int32
    own_start: tf.Tensor  # (W,) int32
    own_stop: tf.Tensor  # (W,) int32


def windows(
    values: tf.RaggedTensor, size: tf.Tensor | int, stride: tf.Tensor | int
) -> Windows:
    """Splits texts into windows of `size` tokens, `stride` tokens apart.

    values (T, None) int32: one per token; size and stride () or (T,) int32. A
    text that fits is one window, also if empty. The stride is clipped to
    1..size, so that no token is lost.
    """
    length = tf.cast(values.row_lengths(), tf.int32)
    size = tf.maximum(tf.broadcast_to(size, tf.shape(length)), 1)
    stride = tf.clip_by_value(
        tf.broadcast_to(stride, tf.shape(length)), 1, size
    )
    more = tf.maximum(length - size, 0)
    count = 1 + (more + stride - 1) // stride

    window_index = tf.ragged.range(count)  # (T, windows)
    example_index = tf.cast(window_index.value_rowids(), tf.int32)
    length, size, stride, count = (
        tf.gather(value, example_index)
        for value in (length, size, stride, count)
    )
    begin = window_index.values * stride
    stop = tf.minimum(begin + size, length)
    half = (size - stride) // 2
    tokens = tf.ragged.range(begin, stop)
    start = tf.gather(tf.cast(values.row_starts(), tf.int32), example_index)
    flat = tokens.values + tf.gather(start, tokens.value_rowids())
    return Windows(
        tokens.with_values(tf.gather(values.values, flat)),
        example_index,
        begin,
        own_start=tf.where(begin == 0, 0, begin + half),
        own_stop=tf.where(
            window_index.values + 1 == count, length, begin + stride + half
        ),
    )


def pack_spans(
    ids: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    frame: base.Frame,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Packs spans of a flat array of ids into rows, without truncation.

    ids (tokens,); first, second (rows, 2): begin and end offsets of the
    segments in ids. If a row's `second` is empty, it has one segment. Returns
    row_splits (rows + 1,) int64 and the concatenated rows: token_ids int32 and
    segment_ids uint8. For example, with [CLS] 2 and [SEP] 3:

      pack_spans([7, 8, 9], first=[[0, 1], [0, 2]], second=[[1, 3], [2, 2]])
      row_splits  [0, 6, 10]
      token_ids   [2, 7, 3, 8, 9, 3,  2, 7, 8, 3]
      segment_ids [0, 0, 0, 1, 1, 1,  0, 0, 0, 0]
    """
    sizes = [span[:, 1] - span[:, 0] for span in (first, second)]
    pairs = sizes[1] > 0
    # Lengths of both segments with their special tokens.
    lengths = [
        len(frame.start)
        + sizes[0]
        + np.where(pairs, len(frame.between), len(frame.end)),
        np.where(pairs, sizes[1] + len(frame.end), 0),
    ]
    ends = np.cumsum(np.stack(lengths, axis=1))  # first, second, first, ...
    row_splits = np.append(0, ends[1::2])
    begins = row_splits[:-1] + len(frame.start), ends[::2]
    token_ids = np.zeros(row_splits[-1], np.int32)
    for span, size, begin in zip((first, second), sizes, begins, strict=True):
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        token_ids[within + np.repeat(begin, size)] = ids[
            within + np.repeat(span[:, 0], size)
        ]
    for begin, part in (
        (row_splits[:-1], frame.start),
        ((begins[0] + sizes[0])[pairs], frame.between),
        (row_splits[1:] - len(frame.end), frame.end),
    ):
        for number, token in enumerate(part):
            token_ids[begin + number] = token
    segment_ids = np.repeat(
        np.tile(np.array([0, 1], np.uint8), len(first)),
        np.stack(lengths, axis=1).ravel(),
    )
    return row_splits, token_ids, segment_ids


def dense(ids: tf.RaggedTensor, padding_value: int = 0) -> tf.Tensor:
    """Pads with `padding_value` to a dense tensor of at least two columns.

    This includes an empty batch (T = 0).
    """
    padding_value = tf.cast(padding_value, ids.dtype)
    padded = ids.to_tensor(padding_value)
    missing = tf.maximum(2 - tf.shape(padded)[1], 0)
    padding = [[0, 0], [0, missing]] + [[0, 0]] * (padded.shape.rank - 2)
    return tf.pad(padded, padding, constant_values=padding_value)


def _kept(
    segments: Sequence[tf.RaggedTensor], capacity: int
) -> list[tf.RaggedTensor]:
    """Returns, per segment, the indices of kept tokens in its flat values.

    With capacity 10, lengths (8, 4) are truncated to (6, 4) and (8, 7) to
    (5, 5).
    """
    lengths = [segment.row_lengths() for segment in segments]
    if len(segments) == 1:
        counts = [tf.minimum(lengths[0], capacity)]
    else:
        first, second = lengths
        second = tf.minimum(second, tf.maximum(capacity - first, capacity // 2))
        counts = [tf.minimum(first, capacity - second), second]
    starts = [segment.row_starts() for segment in segments]
    return [
        tf.ragged.range(start, start + count)
        for start, count in zip(starts, counts, strict=True)
    ]


def _gather(
    segments: Sequence[tf.RaggedTensor], kept: Sequence[tf.RaggedTensor]
) -> list[tf.RaggedTensor]:
    return [
        index.with_values(tf.gather(segment.values, index.values))
        for segment, index in zip(segments, kept, strict=True)
    ]


def _join(
    segments: Sequence[tf.RaggedTensor],
    start: Sequence[Any],
    between: Sequence[Any],
    end: Sequence[Any],
) -> tf.RaggedTensor:
    """Concatenates segments, with values before, between and after them."""
    rows, dtype = segments[0].nrows(), segments[0].dtype

    def repeat(values: Sequence[Any]) -> list[tf.RaggedTensor]:
        if not values:
            return []
        row = tf.constant(values, dtype)[tf.newaxis]
        return [tf.RaggedTensor.from_tensor(tf.repeat(row, rows, axis=0))]

    ragged = repeat(start)
    for number, segment in enumerate(segments):
        ragged += [*(repeat(between) if number else []), segment]
    return tf.concat([*ragged, *repeat(end)], axis=1)


def _fill_like(ids: tf.RaggedTensor, value: int) -> tf.RaggedTensor:
    size = tf.shape(ids.values)[:1]
    return ids.with_values(tf.fill(size, tf.constant(value, tf.int32)))
