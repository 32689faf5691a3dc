"""Generates sequences token by token: greedily or by sampling.

It knows no network: a step function computes the logits of the next token.
Shapes are static but for the batch, and one loop in the graph runs until every
row has ended.

Shapes: B batch, S sequence, V vocabulary, G maximum number of new tokens.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bert_keras import options

# ids (B,) int32, state -> logits (B, V) float32 of the token after them, state.
# The state is a nest of tensors whose shapes do not change.
Step = Callable[[tf.Tensor, Any], tuple[tf.Tensor, Any]]
# logits (B, V), index of the new token () -> ids (B,) int32.
Choose = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# In the message of the tf.errors.InvalidArgumentError of `finite`.
DAMAGED = "the logits of the next token hold NaN or infinity"

# Odd constants of splitmix64 (Steele et al. 2014), which mix all bits.
_GOLDEN, _FIRST, _SECOND = (
    np.uint64(0x9E3779B97F4A7C15),
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a model continues texts; None: as the checkpoint specifies."""

    max_new_tokens: int | None = options.option(
        None,
        "For a model that continues texts: maximum number of new tokens; 0: "
        "only the most probable next one. Default: the checkpoint's; at first "
        "40, or half a row if that is less.",
        value_type=int,
        minimum=0,
    )
    do_sample: bool | None = options.option(
        None,
        "Sample from the distribution of the next token; false: take the most "
        "probable one. Default: true with any of the settings below.",
        value_type=bool,
    )
    temperature: float | None = options.option(
        None,
        "Divisor of the logits before sampling: below 1 the probable tokens "
        "become more probable; 0: the most probable token. Default: 1.",
        value_type=float,
        minimum=0.0,
    )
    top_k: int | None = options.option(
        None,
        "Sample from this many most probable tokens; 0, the default: from all.",
        value_type=int,
        minimum=0,
    )
    top_p: float | None = options.option(
        None,
        "Sample from the fewest most probable tokens that together have at "
        "least this probability (Holtzman et al. 2020). Default: 1, all.",
        value_type=float,
        minimum=0.0,
        maximum=1.0,
    )
    seed: int | None = options.option(
        None,
        "Seed of sampling: the same seed and text give the same answer. "
        "Default: 0.",
        value_type=int,
        minimum=0,
        maximum=options.MAX_SEED,
    )


class Generated(NamedTuple):
    """New tokens: the ids without the end token, padded; `ended` at one."""

    ids: tf.Tensor  # (B, G) int32
    length: tf.Tensor  # (B,) int32: number of ids that are not padding
    ended: tf.Tensor  # (B,) bool: whether the end token came


def greedy(
    step: Step,
    state: Any,
    *,
    start_ids: tf.Tensor,
    end_id: int | None,
    max_length: int,
    limits: tf.Tensor | None = None,
    pad_id: int = 0,
) -> Generated:
    """Generates the most probable token at each step.

    Args:
      step, state: see Step.
      start_ids: (B,) int32, the tokens before the first new one.
      end_id: the token that ends a row; None: no token does.
      max_length: maximum number of new tokens, G.
      limits: (B,) int32, a smaller maximum for each row.
    """

    def choose(logits, index):
        del index
        return tf.argmax(logits, axis=-1, output_type=tf.int32)

    return _loop(
        step, state, choose, start_ids, end_id, max_length, limits, pad_id
    )


def sample(
    step: Step,
    state: Any,
    *,
    start_ids: tf.Tensor,
    seeds: tf.Tensor,
    end_id: int | None,
    max_length: int,
    temperature: tf.Tensor | float = 1.0,
    top_k: tf.Tensor | int = 0,
    top_p: tf.Tensor | float = 1.0,
    limits: tf.Tensor | None = None,
    pad_id: int = 0,
) -> Generated:
    """Generates tokens drawn from the distribution of each step.

    The logits are divided by `temperature`, then restricted to the top_k, then
    to the top_p of these. Each of the three is a number or (B,), one per row.
    The random numbers are a function of the row's seed and the index of the new
    token.

    Args:
      seeds: (B,) uint64, from `row_seeds`.
      The others are those of `greedy`.
    """
    restricted = not (_is(top_k, 0) and _is(top_p, 1.0))
    batch = tf.shape(start_ids)[:1]
    temperature = tf.broadcast_to(tf.cast(temperature, tf.float32), batch)
    top_k = tf.broadcast_to(tf.cast(top_k, tf.int32), batch)
    top_p = tf.broadcast_to(tf.cast(top_p, tf.float32), batch)

    def choose(logits, index):
        best = tf.argmax(logits, axis=-1, output_type=tf.int32)
        # Where the temperature is 0, `best` is taken: divide by anything.
        divisor = tf.where(temperature > 0, temperature, 1.0)
        # The largest becomes 0: one divided by 1e-38 would be infinite.
        logits -= tf.reduce_max(logits, axis=-1, keepdims=True)
        logits = logits / divisor[:, tf.newaxis]
        if restricted:
            logits = restrict(logits, top_k=top_k, top_p=top_p)
        drawn = draw(logits, uniform(seeds, index))
        return tf.where(temperature > 0, drawn, best)

    return _loop(
        step, state, choose, start_ids, end_id, max_length, limits, pad_id
    )


def finite(logits: tf.Tensor) -> tf.Tensor:
    """Returns the logits of a network; with NaN or infinity the graph fails.

    Otherwise each new token would be the first of the vocabulary.
    """
    return tf.debugging.check_numerics(logits, DAMAGED)


def restrict(
    logits: tf.Tensor, *, top_k: tf.Tensor, top_p: tf.Tensor
) -> tf.Tensor:
    """Sets the logits of tokens that may not be drawn to -inf.

    logits (B, V); top_k (B,) int32, 0: all; top_p (B,) float32. Kept are the
    top_k largest logits, and of these the fewest that together have at least
    the probability top_p, always one. Logits equal to the smallest kept one are
    kept too. For probabilities (0.5, 0.3, 0.2) and top_p 0.6 two are kept.
    """
    descending = tf.sort(logits, axis=-1, direction="DESCENDING")
    size = tf.shape(logits)[1]
    rank = tf.range(size)[tf.newaxis]
    count = tf.where(top_k > 0, tf.minimum(top_k, size), size)
    kept = rank < count[:, tf.newaxis]
    shares = tf.nn.softmax(tf.where(kept, descending, -np.inf), axis=-1)
    before = tf.cumsum(shares, axis=-1, exclusive=True)
    top_p = top_p[:, tf.newaxis]
    # The sum of all may be rounded to 1 before the last token.
    kept &= (before < top_p) | (rank == 0) | (top_p >= 1.0)
    smallest = tf.reduce_min(
        tf.where(kept, descending, np.inf), axis=-1, keepdims=True
    )
    return tf.where(logits >= smallest, logits, -np.inf)


def draw(logits: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """Draws a token per row: the inverse of the cumulative distribution.

    logits (B, V), uniform (B,) float32 in [0, 1) -> ids (B,) int32.
    """
    total = tf.cumsum(tf.nn.softmax(logits, axis=-1), axis=-1)
    threshold = uniform[:, tf.newaxis] * total[:, -1:]
    # The first token whose cumulative probability is above the threshold: a
    # token of probability 0 never is.
    return tf.reduce_sum(tf.cast(total <= threshold, tf.int32), axis=-1)


def row_seeds(
    ids: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor | int
) -> tf.Tensor:
    """Hashes the tokens of each row and a seed: (B, S), (B, S) -> (B,) uint64.

    It depends neither on padding nor on other rows: a text gets the same random
    numbers alone and in any batch.

    seed: () or (B,) integer.
    """
    position = tf.cast(tf.range(1, tf.shape(ids)[1] + 1), tf.uint64)
    values = tf.cast(ids, tf.uint64) + position * _GOLDEN
    hashes = tf.where(mask > 0, _mix(values), tf.constant(0, tf.uint64))
    seed = tf.cast(seed, tf.uint64) * _FIRST
    # Sums wrap: addition is modulo 2^64.
    return _mix(tf.reduce_sum(hashes, axis=1) + _mix(seed + _GOLDEN))


def uniform(seeds: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Returns a uniform number in [0, 1) per row: (B,) uint64 -> (B,) float32.

    index (): the number of the draw. It is a multiple of 2^-23, so that a
    product with it is always below the other factor.
    """
    mixed = _mix(seeds + tf.cast(index + 1, tf.uint64) * _GOLDEN)
    bits = tf.bitwise.right_shift(mixed, tf.constant(41, tf.uint64))
    return tf.cast(tf.cast(bits, tf.int32), tf.float32) * 2.0**-23


def _mix(x: tf.Tensor) -> tf.Tensor:
    """Mixes the bits of uint64 numbers: splitmix64 (Steele et al. 2014)."""
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, np.uint64(1))):
        shifted = tf.bitwise.right_shift(x, tf.constant(shift, tf.uint64))
        x = tf.bitwise.bitwise_xor(x, shifted) * factor
    return x


def _is(value: tf.Tensor | float, number: float) -> bool:
    """Whether a setting is a Python number and equal to `number`."""
    return isinstance(value, (int, float)) and value == number


def _loop(
    step: Step,
    state: Any,
    choose: Choose,
    start_ids: tf.Tensor,
    end_id: int | None,
    max_length: int,
    limits: tf.Tensor | None,
    pad_id: int,
) -> Generated:
    columns = tf.range(max_length)[tf.newaxis]
    if limits is None:
        limits = tf.fill(tf.shape(start_ids), max_length)

    def body(index, last, state, ids, length, done, ended):
        logits, state = step(last, state)
        chosen = choose(logits, index)
        if end_id is not None:
            is_end = tf.logical_not(done) & (chosen == end_id)
            ended, done = ended | is_end, done | is_end
        is_new = tf.logical_not(done)[:, tf.newaxis] & (columns == index)
        ids = tf.where(is_new, chosen[:, tf.newaxis], ids)
        length += tf.cast(tf.logical_not(done), tf.int32)
        done |= length >= limits
        return index + 1, chosen, state, ids, length, done, ended

    zeros = tf.zeros_like(start_ids)
    _, _, _, ids, length, _, ended = tf.while_loop(
        lambda index, *rest: (
            (index < max_length) & tf.logical_not(tf.reduce_all(rest[-2]))
        ),
        body,
        (
            tf.constant(0),
            start_ids,
            state,
            tf.fill([tf.shape(start_ids)[0], max_length], pad_id),
            zeros,
            limits <= 0,
            tf.zeros_like(start_ids, tf.bool),
        ),
        parallel_iterations=1,
        maximum_iterations=max_length,
    )
    return Generated(ids, length, ended)
