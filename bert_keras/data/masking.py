"""Masks tokens for masked language modelling.

Devlin et al. 2019, section 3.1 and appendix A.1: 15 % of the tokens are
chosen; of these 80 % become [MASK], 10 % a random entry of the vocabulary, and
10 % are unchanged.
"""

import math

import numpy as np
import tensorflow as tf

MASK_SHARE = 0.8
RANDOM_SHARE = 0.1

# splitmix64's increment, and the shifts and factors of its mixer (Steele et al.
# 2014, "Fast splittable pseudorandom number generators").
GAMMA = 0x9E3779B97F4A7C15
MIXER = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def mask_tokens(
    token_ids: tf.Tensor,
    padding_mask: tf.Tensor,
    seeds: tf.Tensor,
    *,
    share: float,
    mask_id: int,
    special_ids: tuple[int, ...],
    vocab_size: int,
    num_masks: int | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Masks `share` of each row's tokens.

    Args:
      token_ids, padding_mask: (B, S) int32.
      seeds: (B, 2) int32, one per row: a row's masks depend on no other row.
      share: fraction of a row's tokens, including [CLS] and [SEP], to choose;
        at least one token is chosen.
      special_ids: ids that are never chosen.
      num_masks: P, at most S, the maximum to choose. None: ceil(share * S).

    Returns:
      token_ids (B, S) with the chosen tokens replaced; positions (B, P) int32,
      ascending; labels (B, P) int32, the original tokens; weights (B, P)
      float32, 1 = chosen, 0 = padding.
    """
    shape = tf.shape(token_ids)
    if num_masks is None:
        # float64, because in float32 ceil(0.15 * 100) is 16.
        length = tf.cast(shape[1], tf.float64)
        num_masks = tf.cast(tf.math.ceil(share * length), tf.int32)
    sizes = [shape[1], num_masks, num_masks]
    order, action, word = tf.split(uniform(seeds, sum(sizes)), sizes, axis=1)

    maskable = padding_mask > 0
    for special in special_ids:
        maskable &= token_ids != special
    tokens = tf.reduce_sum(tf.cast(padding_mask > 0, tf.float32), axis=1)
    wanted = tf.maximum(tf.cast(tf.round(share * tokens), tf.int32), 1)
    num_maskable = tf.reduce_sum(tf.cast(maskable, tf.int32), axis=1)
    count = tf.minimum(tf.minimum(wanted, num_maskable), num_masks)
    count = count[:, tf.newaxis]  # (B, 1)

    _, chosen = tf.math.top_k(tf.where(maskable, order, -1.0), num_masks)
    valid = tf.range(num_masks) < count
    chosen = tf.sort(tf.where(valid, chosen, shape[1]), axis=1)
    positions = tf.where(valid, chosen, 0)
    labels = tf.gather(token_ids, positions, batch_dims=1)

    random = tf.cast(word * vocab_size, tf.int32)
    replacements = tf.where(action < MASK_SHARE + RANDOM_SHARE, random, labels)
    replacements = tf.where(action < MASK_SHARE, mask_id, replacements)
    # Padding writes the token of position 0 back: [CLS] is never chosen.
    replacements = tf.where(valid, replacements, labels)
    row = tf.broadcast_to(tf.range(shape[0])[:, tf.newaxis], tf.shape(chosen))
    token_ids = tf.tensor_scatter_nd_update(
        token_ids, tf.stack([row, positions], axis=-1), replacements
    )
    return token_ids, positions, labels, tf.cast(valid, tf.float32)


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
