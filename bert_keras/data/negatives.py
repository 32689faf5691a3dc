"""Draws negatives, what a row's own class or text is compared with.

All draws are functions of the rows' seeds, so of (seed, step, row index).

Shapes: B batch, C classes, K negatives.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from bert_keras.data import masking


def other_classes(
    own: tf.Tensor,
    seeds: tf.Tensor,
    number: int,
    frequencies: Sequence[int] | np.ndarray,
) -> tf.Tensor:
    """Draws classes that are not the row's own, with replacement.

    own (B,) int32, seeds (B, 2) int32, frequencies (C,) whole numbers from 1
    -> (B, number) int32. Class j is drawn with the probability
    frequencies[j] / (sum of the frequencies of all classes but the own one).

    The classes are intervals of a line, without that of the own class: for
    frequencies 2, 1, 3 and own class 1, the numbers 0 1 2 3 4 are the classes
    0 0 2 2 2.
    """
    sizes = np.asarray(frequencies, np.int64)
    ends = np.cumsum(sizes)
    own_size = tf.gather(tf.constant(sizes), own)[:, tf.newaxis]  # (B, 1)
    own_start = tf.gather(tf.constant(ends - sizes), own)[:, tf.newaxis]
    # Two numbers of 24 bits each: one has too few for many rows.
    high, low = tf.split(
        tf.cast(masking.uniform(seeds, 2 * number), tf.float64), 2, axis=1
    )
    left = tf.cast(ends[-1] - own_size, tf.float64)
    point = tf.cast((high + low * 2.0**-24) * left, tf.int64)
    point += tf.where(point >= own_start, own_size, tf.zeros_like(own_size))
    classes = tf.searchsorted(
        tf.constant(ends), tf.reshape(point, [-1]), side="right"
    )
    return tf.reshape(classes, tf.shape(point))


def log_expected_counts(
    candidates: tf.Tensor, frequencies: Sequence[int] | np.ndarray
) -> tf.Tensor:
    """Returns the log of how often each candidate is expected in the draws.

    candidates (B, 1 + K) int32: the own class, which is there for certain, and
    K draws of `other_classes` -> (B, 1 + K) float32.
    """
    sizes = np.asarray(frequencies, np.float64)
    number = tf.cast(tf.shape(candidates)[1] - 1, tf.float32)
    log_sizes = tf.constant(np.log(sizes), tf.float32)
    log_left = tf.constant(np.log(sizes.sum() - sizes), tf.float32)
    own, drawn = candidates[:, :1], candidates[:, 1:]
    logs = (
        tf.math.log(number)
        + tf.gather(log_sizes, drawn)
        - tf.gather(log_left, own)
    )
    return tf.pad(logs, [[0, 0], [1, 0]])


def other_rows(
    is_negative: tf.Tensor, seeds: tf.Tensor, number: int
) -> tf.Tensor:
    """Draws up to `number` of each row's negatives, without replacement.

    is_negative (B, B) bool: whether the column's row is a negative of the row;
    seeds (B, 2) int32 -> (B, B) bool, the drawn ones.
    """
    size = tf.shape(is_negative)[1]
    order = tf.where(is_negative, masking.uniform(seeds, size), -1.0)
    _, chosen = tf.math.top_k(order, tf.minimum(number, size))
    drawn = tf.reduce_any(tf.one_hot(chosen, size, True, False), axis=1)
    return tf.logical_and(drawn, is_negative)
