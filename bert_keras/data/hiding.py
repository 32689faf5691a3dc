"""Chooses which words, phrases or spans of each row are hidden.

A row's tokens are divided into units, such as words, and these into groups of
one or more consecutive units. Groups are hidden completely or not at all.

Shapes: B batch, S sequence.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

# What a unit may be, and its level in the facts that records store.
LEVELS = {"tokens": 0, "words": 1, "phrases": 2, "entities": 3}

# Numbers of units in a group, by name: the probabilities of 1, 2, ... units.
# Lan et al. 2020, section 3.1: p(n) ~ 1 / n up to 3. Joshi et al. 2020, section
# 3.1: geometric with p = 0.2, up to 10, 3.8 on average.
GROUPS: dict[str, tuple[float, ...]] = {
    "one": (1.0,),
    "ngrams": tuple(1 / n for n in (1, 2, 3)),
    "spans": tuple(0.2 * 0.8**n for n in range(10)),
}


class Units(NamedTuple):
    """Units of tokens, and how many are chosen together.

    starts: (B, S) bool, whether a unit begins at the token. whole: (B, S) bool,
    whether all tokens of its unit are in the row. probabilities: those of
    groups of 1, 2, ... consecutive units, up to a factor.
    """

    starts: tf.Tensor
    whole: tf.Tensor
    probabilities: Sequence[float] = (1.0,)


def of_level(
    facts: tf.Tensor,
    level: int | tf.Tensor,
    probabilities: Sequence[float] = (1.0,),
) -> Units:
    """Returns the units of a level from stored facts.

    facts (B, S) int32, as `word_boundaries` makes them: of the levels 1 to 3
    two bits each, whether the token starts a unit and whether its unit is cut.
    Level 0 is a unit for each token.
    """
    level = tf.convert_to_tensor(level)
    bits = tf.bitwise.right_shift(facts, 2 * tf.maximum(level - 1, 0))
    bits = tf.where(level > 0, bits, 1)
    return Units(bits & 1 > 0, bits & 2 == 0, probabilities)


def choose(
    units: Units,
    maskable: tf.Tensor,
    budget: tf.Tensor,
    most: int | tf.Tensor,
    *,
    sizes: tf.Tensor,
    order: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Chooses groups of units at random, as long as they fit into a budget.

    A group that does not fit is left out, and the next one is tried.
    Where none fits, the budget is the length of the shortest one, or 0 if that
    is more than `most`.

    Args:
      units: of which those that are whole may be chosen.
      maskable: (B, S) bool; other tokens are in no unit, and separate groups.
      budget: (B,) int32, how many tokens may be chosen; from 1.
      most: the largest budget.
      sizes, order: (B, S), uniform in [0, 1).

    Returns:
      chosen (B, S) bool, and the number of each token's group (B, S) int32,
      less than S.
    """
    maskable &= units.whole
    group = _groups(units.starts, maskable, sizes, units.probabilities)
    lengths = _sum_by_group(tf.cast(maskable, tf.int32), group)
    longest = tf.shape(lengths)[1]
    shortest = tf.reduce_min(tf.where(lengths > 0, lengths, longest), axis=1)
    budget = tf.where(shortest > most, 0, tf.maximum(budget, shortest))
    turns = tf.argsort(tf.where(lengths > 0, order, 2.0), axis=1)
    taken = _take(tf.gather(lengths, turns, batch_dims=1), budget)
    places = tf.argsort(turns, axis=1)
    is_chosen = tf.gather(taken, places, batch_dims=1)
    return tf.gather(is_chosen, group, batch_dims=1) & maskable, group


def _groups(starts, maskable, sizes, probabilities):
    """Returns the number of each token's group, (B, S) int32, ascending."""
    before = tf.pad(maskable[:, :-1], [[0, 0], [1, 0]])
    begins = maskable & (starts | tf.logical_not(before))
    if len(probabilities) > 1:
        # The units that the k-th group of a row ends before.
        total = tf.cumsum(tf.constant(probabilities, tf.float32))
        drawn = tf.searchsorted(
            total[:-1] / total[-1], tf.reshape(sizes, [-1]), side="right"
        )
        ends = tf.cumsum(1 + tf.reshape(drawn, tf.shape(sizes)), axis=1)
        unit = tf.cumsum(tf.cast(begins, tf.int32), axis=1) - 1
        group = tf.searchsorted(ends, unit, side="right")
        differs = group[:, 1:] != group[:, :-1]
        differs = tf.pad(differs, [[0, 0], [1, 0]], constant_values=True)
        begins &= differs | tf.logical_not(before)
    number = tf.cumsum(tf.cast(begins, tf.int32), axis=1) - 1
    return tf.maximum(number, 0)


def _sum_by_group(values, group):
    """Sums the values of each group: (B, S), (B, S) -> (B, S) by number."""
    shape = tf.shape(values)
    row = tf.range(shape[0])[:, tf.newaxis] * shape[1]
    sums = tf.math.unsorted_segment_sum(
        tf.reshape(values, [-1]),
        tf.reshape(group + row, [-1]),
        shape[0] * shape[1],
    )
    return tf.reshape(sums, shape)


def _take(lengths, budget):
    """Takes lengths (B, S) one after the other if they still fit: (B, S) bool.

    Lengths of 0 are not taken. Each iteration takes all up to the first that
    does not fit, and drops all that are longer than what is left.
    """

    def rest(taken, is_open, left):
        total = tf.cumsum(tf.where(is_open, lengths, 0), axis=1)
        fits = is_open & (total <= left)
        left -= tf.reduce_sum(tf.where(fits, lengths, 0), 1, keepdims=True)
        is_open &= tf.logical_not(fits) & (lengths <= left)
        return taken | fits, is_open, left

    left = budget[:, tf.newaxis]
    taken, _, _ = tf.while_loop(
        lambda taken, is_open, left: tf.reduce_any(is_open),
        rest,
        (
            tf.zeros_like(lengths, tf.bool),
            (lengths > 0) & (lengths <= left),
            left,
        ),
    )
    return taken
