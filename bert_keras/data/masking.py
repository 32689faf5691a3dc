"""Masks tokens for masked language modelling.

Devlin et al. 2019, section 3.1 and appendix A.1: 15 % of the tokens are
chosen; of these 80 % become [MASK], 10 % a random entry of the vocabulary, and
10 % are unchanged.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from bert_keras.data import hiding

MASK_SHARE = 0.8
RANDOM_SHARE = 0.1

# splitmix64's increment, and the shifts and factors of its mixer (Steele et al.
# 2014, "Fast splittable pseudorandom number generators").
GAMMA = 0x9E3779B97F4A7C15
MIXER = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


@dataclasses.dataclass(frozen=True)
class Replacements:
    """What the chosen tokens become.

    mask_share, random_share: fractions of them that become [MASK] and a random
      token; the others stay as they are.
    token_counts: (V,), how often each id is drawn as a random token, in
      relation to the others; (): all alike.
    whole_groups: whether all tokens of a word or phrase share one draw of the
      three, where these are chosen; otherwise each token draws for itself.
    """

    mask_share: float = MASK_SHARE
    random_share: float = RANDOM_SHARE
    token_counts: Sequence[int] = ()
    whole_groups: bool = False

    def of(
        self,
        labels: tf.Tensor,
        action: tf.Tensor,
        word: tf.Tensor,
        mask_id: int,
        vocab_size: int,
    ) -> tf.Tensor:
        """Returns what the tokens `labels` become, (B, P) int32.

        action, word: (B, P), uniform in [0, 1).
        """
        if len(self.token_counts):
            random = random_tokens(word, self.token_counts)
        else:
            random = tf.cast(word * vocab_size, tf.int32)
        random_end = self.mask_share + self.random_share
        new = tf.where(action < random_end, random, labels)
        return tf.where(action < self.mask_share, mask_id, new)


def mask_tokens(
    token_ids: tf.Tensor,
    padding_mask: tf.Tensor,
    seeds: tf.Tensor,
    *,
    share: float | tf.Tensor,
    mask_id: int,
    special_ids: tuple[int, ...],
    vocab_size: int,
    num_masks: int | None = None,
    units: hiding.Units | None = None,
    replacements: Replacements = Replacements(),
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Masks `share` of each row's tokens.

    Args:
      token_ids, padding_mask: (B, S) int32.
      seeds: (B, 2) int32, one per row: a row's masks depend on no other row.
      share: fraction of a row's tokens, including [CLS] and [SEP], to choose;
        at least one token is chosen. With `units` that many at most: those that
        do not fit are left out.
      special_ids: ids that are never chosen.
      num_masks: P, at most S, the maximum to choose. None: ceil(share * S),
        for which share has to be a number.
      units: words or phrases, which are chosen completely or not at all; None:
        tokens.
      replacements: what the chosen tokens become.

    Returns:
      token_ids (B, S) with the chosen tokens replaced; positions (B, P) int32,
      ascending; labels (B, P) int32, the original tokens; weights (B, P)
      float32, 1 = chosen, 0 = padding.
    """
    length = tf.shape(token_ids)[1]
    if num_masks is None:
        num_masks = most_masks(share, length)
    maskable = padding_mask > 0
    tokens = tf.reduce_sum(tf.cast(maskable, tf.float32), axis=1)
    wanted = tf.maximum(tf.cast(tf.round(share * tokens), tf.int32), 1)
    wanted = tf.minimum(wanted, num_masks)
    for special in special_ids:
        maskable &= token_ids != special
    if units is None:
        draw = _draw_tokens(maskable, wanted, seeds, num_masks)
    else:
        draw = _draw_groups(
            units, maskable, wanted, seeds, num_masks, replacements.whole_groups
        )
    places, action, word = draw
    valid = places < length
    positions = tf.where(valid, places, 0)
    labels = tf.gather(token_ids, positions, batch_dims=1)
    new = replacements.of(labels, action, word, mask_id, vocab_size)
    weights = tf.cast(valid, tf.float32)
    token_ids = with_tokens(token_ids, positions, new, weights)
    return token_ids, positions, labels, weights


def is_chosen(
    positions: tf.Tensor, weights: tf.Tensor, length: int | tf.Tensor
) -> tf.Tensor:
    """Returns where tokens were chosen: (B, P), (B, P) -> (B, length) bool."""
    places = tf.where(weights > 0, positions, -1)[:, :, tf.newaxis]
    return tf.reduce_any(places == tf.range(length), axis=1)


def with_tokens(
    token_ids: tf.Tensor,
    positions: tf.Tensor,
    new: tf.Tensor,
    weights: tf.Tensor,
) -> tf.Tensor:
    """Returns token_ids (B, S) with other ids (B, P) at positions (B, P).

    Those of weight 0 change nothing.
    """
    rows, length = tf.unstack(tf.shape(token_ids))
    row = tf.broadcast_to(tf.range(rows)[:, tf.newaxis], tf.shape(positions))
    # Padding is at position 0, whose token may be chosen, too (rows without
    # [CLS]): it is written into a column that is dropped.
    column = tf.where(weights > 0, positions, length)
    changed = tf.tensor_scatter_nd_update(
        tf.pad(token_ids, [[0, 0], [0, 1]]),
        tf.stack([row, column], axis=-1),
        new,
    )
    return changed[:, :length]


def most_masks(share: float, length: int | tf.Tensor) -> tf.Tensor:
    """Returns P, the number of mask positions of rows of `length` tokens."""
    # float64, because in float32 ceil(0.15 * 100) is 16.
    return tf.cast(tf.math.ceil(share * tf.cast(length, tf.float64)), tf.int32)


def _draw_tokens(maskable, wanted, seeds, num_masks):
    """Chooses tokens at random.

    Returns places (B, P) int32, ascending, S at padding, and two uniform
    numbers for each, (B, P).
    """
    length = tf.shape(maskable)[1]
    sizes = [length, num_masks, num_masks]
    order, action, word = tf.split(uniform(seeds, sum(sizes)), sizes, axis=1)
    num_maskable = tf.reduce_sum(tf.cast(maskable, tf.int32), axis=1)
    count = tf.minimum(wanted, num_maskable)[:, tf.newaxis]
    _, chosen = tf.math.top_k(tf.where(maskable, order, -1.0), num_masks)
    valid = tf.range(num_masks) < count
    places = tf.sort(tf.where(valid, chosen, length), axis=1)
    return places, action, word


def _draw_groups(units, maskable, wanted, seeds, num_masks, whole):
    """Chooses groups of units, as `_draw_tokens`; whole: as whole_groups."""
    length = tf.shape(maskable)[1]
    sizes = [length, num_masks, num_masks, length, length]
    order, action, word, group_size, group_action = tf.split(
        uniform(seeds, sum(sizes)), sizes, axis=1
    )
    is_chosen, group = hiding.choose(
        units, maskable, wanted, num_masks, sizes=group_size, order=order
    )
    places = tf.where(is_chosen, tf.range(length), length)
    places = tf.sort(places, axis=1)[:, :num_masks]
    if whole:
        number = tf.minimum(places, length - 1)
        group = tf.gather(group, number, batch_dims=1)
        action = tf.gather(group_action, group, batch_dims=1)
    return places, action, word


def random_tokens(uniform: tf.Tensor, counts: Sequence[int]) -> tf.Tensor:
    """Draws ids by their counts (V,): uniform (...) -> (...) int32."""
    ends = np.cumsum(np.asarray(counts, np.float64))
    ends = (ends / ends[-1]).astype(np.float32)
    ids = tf.searchsorted(
        tf.constant(ends), tf.reshape(uniform, [-1]), side="right"
    )
    return tf.reshape(ids, tf.shape(uniform))


def uniform(seeds: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """Returns random numbers (B, count) float32 in [0, 1) from seeds (B, 2).

    A number is a hash of its row's two seeds and its column, so numbers do not
    depend on each other and are computed in parallel.
    """
    # Via int64: XLA does not define the cast of a negative int32 to uint64.
    seeds = tf.bitcast(tf.cast(seeds, tf.int64), tf.uint64)
    columns = tf.cast(tf.range(count), tf.uint64)
    rows = _splitmix(tf.zeros_like(seeds[:, :1]), seeds[:, :1])  # (B, 1)
    rows = _splitmix(rows, seeds[:, 1:])
    mixed = _splitmix(rows, columns)  # (B, count)
    # float32 has 24 bits: with more, a number could be rounded up to 1.
    return tf.cast(_shifted(mixed, 40), tf.float32) * 2.0**-24


def max_predictions(seq_length: int, share: float) -> int:
    """Returns P, the number of mask positions for `seq_length` tokens."""
    return math.ceil(share * seq_length)


def mask_positions(
    token_ids: tf.Tensor, mask_id: int, num_masks: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the [MASK] tokens of texts that contain masks.

    token_ids (B, S) -> positions (B, P) int32, ascending, and valid (B, P)
    bool, false at padding. P = `num_masks`; further masks are ignored.
    """
    length = tf.shape(token_ids)[1]
    is_mask = token_ids == mask_id
    positions = tf.where(is_mask, tf.range(length), length)
    positions = tf.pad(
        positions, [[0, 0], [0, num_masks]], constant_values=length
    )
    positions = tf.sort(positions, axis=1)[:, :num_masks]
    positions = tf.ensure_shape(positions, (None, num_masks))
    valid = positions < length
    return tf.where(valid, positions, 0), valid


def _splitmix(state: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Returns the index-th uint64, from 0, of splitmix64 started at `state`."""
    value = state + (index + np.uint64(1)) * np.uint64(GAMMA)
    for bits, factor in MIXER:
        value = (value ^ _shifted(value, bits)) * np.uint64(factor)
    return value ^ _shifted(value, 31)


def _shifted(value: tf.Tensor, bits: int) -> tf.Tensor:
    return tf.bitwise.right_shift(value, np.uint64(bits))
