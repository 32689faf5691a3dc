"""Masked language modelling: which tokens are hidden, and by what.

Devlin et al. 2019, section 3.1 and appendix A.1: 15 % of the tokens are
chosen; of these 80 % become [MASK], 10 % a random entry of the vocabulary,
10 % stay as they are.
"""

import math

import numpy as np
import tensorflow as tf

MASK_SHARE = 0.8
RANDOM_SHARE = 0.1

# Steele et al. 2014, "Fast splittable pseudorandom number generators": the
# step of splitmix64's counter, and shifts and factors of its mixer.
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
    """Hides `share` of each row's tokens.

    Args:
      token_ids, padding_mask: (B, S) int32.
      seeds: (B, 2) int32, one per row: a row's draw depends on no other row.
      share: part of a row's tokens, [CLS] and [SEP] counted, that is chosen;
        at least one.
      special_ids: ids that are never chosen.
      num_masks: P, at most S; no more are chosen. None: `max_predictions` of S.

    Returns:
      token_ids (B, S) with the chosen ones replaced; positions (B, P) int32,
      rising; labels (B, P) int32, what stood there; weights (B, P) float32,
      1 = chosen, 0 = filling.
    """
    shape = tf.shape(token_ids)
    if num_masks is None:
        # In float32, 0.15 of 100 tokens would want 16 positions.
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
    # Filling writes position 0's own token back: [CLS] is never chosen.
    replacements = tf.where(valid, replacements, labels)
    row = tf.broadcast_to(tf.range(shape[0])[:, tf.newaxis], tf.shape(chosen))
    token_ids = tf.tensor_scatter_nd_update(
        token_ids, tf.stack([row, positions], axis=-1), replacements
    )
    return token_ids, positions, labels, tf.cast(valid, tf.float32)


def uniform(seeds: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """seeds (B, 2) int32 -> (B, count) float32 in [0, 1).

    A number is a hash of its row's two seeds and its column, so no number
    depends on another one and all are made at once.
    """
    # Through int64: XLA leaves open what a negative int32 is as uint64.
    seeds = tf.bitcast(tf.cast(seeds, tf.int64), tf.uint64)
    columns = tf.cast(tf.range(count), tf.uint64)
    rows = _splitmix(tf.zeros_like(seeds[:, :1]), seeds[:, :1])  # (B, 1)
    rows = _splitmix(rows, seeds[:, 1:])
    mixed = _splitmix(rows, columns)  # (B, count)
    # 24 bits are what a float32 holds without rounding up to 1.
    return tf.cast(_shifted(mixed, 40), tf.float32) * 2.0**-24


def max_predictions(seq_length: int, share: float) -> int:
    """P: positions for masks in a row of `seq_length` tokens."""
    return math.ceil(share * seq_length)


def mask_positions(
    token_ids: tf.Tensor, mask_id: int, num_masks: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Where [MASK] stands in a text that came with masks.

    token_ids (B, S) -> positions (B, P) int32 rising, and a (B, P) bool that
    is false on filling. P = `num_masks`: further masks stay unanswered.
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
    """The index-th number, from 0, of splitmix64 begun at `state`; uint64."""
    value = state + (index + np.uint64(1)) * np.uint64(GAMMA)
    for bits, factor in MIXER:
        value = (value ^ _shifted(value, bits)) * np.uint64(factor)
    return value ^ _shifted(value, 31)


def _shifted(value: tf.Tensor, bits: int) -> tf.Tensor:
    return tf.bitwise.right_shift(value, np.uint64(bits))
