"""Damages texts that an encoder-decoder learns to rebuild (Lewis et al. 2020).

All functions take rows of ids with padding at their end, and give rows of the
same width S; what is deleted leaves padding. Random numbers are arguments.

Shapes: B batch, S sequence.
"""

import math

import tensorflow as tf

SWAP_DISTANCE = 3  # Lample et al. 2018, section 2.3
SPAN_LENGTH = 3.0  # mean tokens of a span (Lewis et al. 2020, section 2.2)


def mask(
    ids: tf.Tensor,
    ordinary: tf.Tensor,
    uniform: tf.Tensor,
    *,
    share: float,
    mask_id: int,
) -> tf.Tensor:
    """Replaces a share of the ordinary tokens by the mask.

    ids (B, S) int32, ordinary (B, S) bool: what may be damaged, uniform (B, S)
    in [0, 1).
    """
    return tf.where(ordinary & (uniform < share), mask_id, ids)


def delete(
    ids: tf.Tensor, is_token: tf.Tensor, deleted: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Deletes tokens: returns ids, and a mask (B, S) int32 of what is left.

    With the third of [2, 7, 8, 9, 3] deleted: [2, 7, 9, 3, 0].
    """
    kept = is_token & tf.logical_not(deleted)
    order = tf.argsort(
        tf.cast(tf.logical_not(kept), tf.int32), axis=1, stable=True
    )
    count = tf.reduce_sum(tf.cast(kept, tf.int32), axis=1)
    left = tf.sequence_mask(count, tf.shape(ids)[1], tf.int32)
    return tf.gather(ids, order, batch_dims=1) * left, left


def swap(ids: tf.Tensor, ordinary: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """Shuffles ordinary tokens, each by at most SWAP_DISTANCE positions.

    They are sorted by their position + uniform * (SWAP_DISTANCE + 1); all other
    tokens keep their positions if they are at the ends of the row.
    """
    position = tf.cast(tf.range(tf.shape(ids)[1]), tf.float32)
    shift = tf.where(ordinary, uniform * (SWAP_DISTANCE + 1), 0.0)
    # Tokens after the ordinary ones, [SEP] and padding, stay behind them.
    last = tf.reduce_max(tf.where(ordinary, position, -1.0), 1, keepdims=True)
    behind = tf.where(
        tf.logical_not(ordinary) & (position > last), SWAP_DISTANCE + 1.0, 0.0
    )
    order = tf.argsort(position + shift + behind, axis=1, stable=True)
    return tf.gather(ids, order, batch_dims=1)


def edit(
    is_token: tf.Tensor,
    ordinary: tf.Tensor,
    uniform: tf.Tensor,
    *,
    swap_share: float,
    delete_share: float,
    insert_share: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Exchanges, deletes and inserts tokens, as a map of positions.

    Of the ordinary tokens, about swap_share change places with a neighbour,
    delete_share are deleted, and before insert_share one is inserted, as long
    as the row has room. Neighbours are the first and second token, the third
    and fourth and so on, or the second and third and so on, by the row.

    is_token, ordinary: (B, S) bool; uniform (B, 3 S + 1) in [0, 1).

    Returns source (B, S) int32, the position that each token comes from, S at
    padding; and is_new (B, S) bool, whether it was inserted before the token of
    that position. If the second token of [2, 7, 8, 3] goes behind the third,
    and one is inserted before that: source [0, 2, 2, 1, 3], is_new
    [False, True, False, False, False].
    """
    length = tf.shape(is_token)[1]
    moved, deleted, inserted, phase = tf.split(
        uniform, [length, length, length, 1], axis=1
    )
    is_first = tf.range(length) % 2 == tf.cast(phase < 0.5, tf.int32)
    # The next one has to be ordinary, too: [SEP] keeps its place.
    follows = tf.pad(ordinary[:, 1:], [[0, 0], [0, 1]])
    goes_back = ordinary & follows & is_first & (moved < swap_share)
    place = tf.cast(tf.range(length), tf.float32)
    place = place + tf.where(goes_back, 1.5, 0.0)
    order = tf.argsort(place, axis=1, stable=True)

    def ordered(values):
        return tf.gather(values, order, batch_dims=1)

    is_kept = ordered(is_token & ~(ordinary & (deleted < delete_share)))
    is_before = ordered(ordinary & (inserted < insert_share)) & is_kept
    copies = tf.cast(is_kept, tf.int32)
    room = length - tf.reduce_sum(copies, axis=1, keepdims=True)
    is_before &= tf.cumsum(tf.cast(is_before, tf.int32), axis=1) <= room
    copies += tf.cast(is_before, tf.int32)
    ends = tf.cumsum(copies, axis=1)
    slots = tf.broadcast_to(tf.range(length), tf.shape(ends))
    index = tf.searchsorted(ends, slots, side="right")
    is_real = index < length
    index = tf.minimum(index, length - 1)
    last = tf.gather(ends, index, batch_dims=1) - 1
    is_new = is_real & tf.gather(is_before, index, batch_dims=1)
    is_new &= slots < last
    source = tf.gather(order, index, batch_dims=1)
    return tf.where(is_real, source, length), is_new


def sentence_borders(
    ordinary: tf.Tensor, is_special: tf.Tensor, is_end: tf.Tensor
) -> tf.Tensor:
    """Returns where a sentence may be inserted: before which tokens (B, S).

    These are the first ordinary token of each text, the one after a sentence's
    end, and the special token after a text. ordinary, is_special, is_end:
    (B, S) bool, the last for ordinary tokens that end a sentence.

    Of [CLS] a . b . [SEP]: before a, b and [SEP].
    """

    def before(values):
        return tf.pad(values[:, :-1], [[0, 0], [1, 0]])

    return (
        (ordinary & before(is_special))
        | (ordinary & ~is_end & before(is_end))
        | (is_special & before(ordinary))
    )


def insert_span(
    is_token: tf.Tensor,
    is_border: tf.Tensor,
    uniform: tf.Tensor,
    *,
    share: float,
    lengths: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Inserts one of K spans before a random border of a share of the rows.

    A row without room for its span stays as it is. is_token, is_border: (B, S)
    bool; uniform (B, 3) in [0, 1): whether, where and which; lengths (K,) int32
    of the spans.

    Returns source (B, S) int32, the position that each token comes from, that
    of the border for new ones; span (B, 1), the index of the row's span; and
    offset (B, S), of the new tokens in it, -1 at others. If a span of length 2
    is inserted before the second token of [2, 7, 3]: source [0, 1, 1, 1, 2],
    offset [-1, 0, 1, -1, -1].
    """
    width = tf.shape(is_token)[1]
    count = tf.reduce_sum(tf.cast(is_token, tf.int32), axis=1, keepdims=True)
    borders = tf.cumsum(tf.cast(is_border, tf.int32), axis=1)
    whether, where, which = tf.split(uniform, 3, axis=1)
    span = _index(which, tf.size(lengths))
    length = tf.gather(lengths, span)
    is_inserted = (
        (whether < share) & (borders[:, -1:] > 0) & (count + length <= width)
    )
    length = tf.where(is_inserted, length, 0)
    # The first position at which as many borders are counted.
    begin = tf.searchsorted(borders, 1 + _index(where, borders[:, -1:]))
    slots = tf.range(width)[tf.newaxis]
    offset = slots - begin
    is_new = (offset >= 0) & (offset < length)
    source = tf.where(is_new, begin, slots - tf.where(offset < 0, 0, length))
    return source, span, tf.where(is_new, offset, -1)


def _index(uniform: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns uniform numbers of 0..count-1 from those in [0, 1)."""
    index = tf.cast(uniform * tf.cast(count, tf.float32), tf.int32)
    return tf.minimum(index, tf.maximum(count - 1, 0))  # float32 rounds up


def spans(
    ids: tf.Tensor,
    is_token: tf.Tensor,
    ordinary: tf.Tensor,
    starts: tf.Tensor,
    lengths: tf.Tensor,
    *,
    share: float,
    mask_id: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Replaces spans of ordinary tokens by one mask each.

    A span starts at an ordinary token with a probability such that about
    `share` of the tokens are covered; its length is 1 + Poisson(SPAN_LENGTH -
    1). Spans that touch become one.

    starts, lengths: (B, S), uniform in [0, 1).

    Returns ids and a mask (B, S) int32. If the second and third token of
    [2, 7, 8, 9, 3] are a span: [2, mask_id, 9, 3, 0].
    """
    position = tf.range(tf.shape(ids)[1])
    # A token is not covered if no span starts at it or at one of the `length`
    # - 1 tokens before it: (1 - p)^length, here of the mean length.
    probability = 1.0 - (1.0 - share) ** (1.0 / SPAN_LENGTH)
    size = 1 + poisson(lengths, SPAN_LENGTH - 1.0)
    reach = tf.where(ordinary & (starts < probability), position + size, 0)
    reach = _running_maximum(reach)
    covered = ordinary & (position < reach)
    begins = covered & tf.logical_not(tf.pad(covered[:, :-1], [[0, 0], [1, 0]]))
    ids = tf.where(begins, mask_id, ids)
    return delete(ids, is_token, covered & tf.logical_not(begins))


def poisson(uniform: tf.Tensor, mean: float, most: int = 20) -> tf.Tensor:
    """Draws Poisson numbers from uniform ones: (...) -> (...) int32.

    They are the count of values of the cumulative distribution that are not
    above the uniform number; those above `most` become `most`.
    """
    total, probability = 0.0, math.exp(-mean)
    count = tf.zeros_like(uniform, tf.int32)
    for number in range(most):
        total += probability
        probability *= mean / (number + 1)
        count += tf.cast(uniform >= total, tf.int32)
    return count


def _running_maximum(x: tf.Tensor) -> tf.Tensor:
    """Returns the maximum of each row up to each position, (B, S)."""
    length = tf.shape(x)[1]
    before = tf.range(length)[:, tf.newaxis] >= tf.range(length)
    return tf.reduce_max(tf.where(before, x[:, tf.newaxis], 0), axis=2)
