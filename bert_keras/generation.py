"""Generates sequences token by token: greedily, by sampling or beam search.

It knows no network: a step function computes the logits of the next token.
Shapes are static but for the batch, and one loop in the graph runs until every
row has ended.

Shapes: B batch, S sequence, V vocabulary, G maximum number of new tokens, K
beams, N returned hypotheses of a row. R rows are B, or B K in a beam search.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bert_keras import beams, errors, options

Step = beams.Step
Beams = beams.Beams
tile = beams.tile

# logits (B, V), index of the new token () -> ids (B,) int32.
Choose = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# In the message of the tf.errors.InvalidArgumentError of `finite`.
DAMAGED = "the logits of the next token hold NaN or infinity"

# That of Hugging Face's generate: for long texts the score is then about six
# times the mean log-probability of a token.
LENGTH_PENALTY = 1.0

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
    min_new_tokens: int | None = options.option(
        None,
        "Minimum number of new tokens, before which the text cannot end. "
        "Default: 0.",
        value_type=int,
        minimum=0,
    )
    no_repeat_ngram_size: int | None = options.option(
        None,
        "No sequence of this many tokens occurs twice among the new ones; 0, "
        "the default: any may.",
        value_type=int,
        minimum=0,
    )
    num_beams: int | None = options.option(
        None,
        "Beam search: the number of texts that are continued side by side to "
        "find a probable one. Default: 1, no search.",
        value_type=int,
        minimum=1,
    )
    num_return_sequences: int | None = options.option(
        None,
        "Number of texts to answer with, the best of the beam search; at most "
        "num_beams. Default: 1.",
        value_type=int,
        minimum=1,
    )
    length_penalty: float | None = options.option(
        None,
        "Exponent of the length that beam search divides log-probabilities "
        "by (Wu et al. 2016): 0: none; more: longer texts. Default: 1.",
        value_type=float,
        # With it, scores of a million tokens are finite in float32.
        minimum=-5.0,
        maximum=5.0,
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


@dataclasses.dataclass(frozen=True)
class SequenceSettings(Settings):
    """How a model that reads a source text writes another one."""

    coverage_penalty: float | None = options.option(
        None,
        "Weight of the coverage penalty of beam search (Wu et al. 2016), for "
        "source tokens that got little attention. Default: 0, none.",
        value_type=float,
        # With it, scores of a million tokens are finite in float32.
        minimum=0.0,
        maximum=100.0,
    )


# These have an effect only on samples, and these only in a beam search.
OF_SAMPLES = ("temperature", "top_k", "top_p", "seed")
OF_BEAMS = ("length_penalty", "coverage_penalty")


def check(settings: Settings) -> None:
    """Raises InputError for a value out of bounds or without an effect."""
    options.check(settings)
    values = {k: v for k, v in vars(settings).items() if v is not None}
    beams = values.get("num_beams", 1)
    samples = [name for name in OF_SAMPLES if name in values]
    if settings.do_sample is False and samples:
        _refuse(values, samples[0], "with do_sample=False; leave one of them")
    if beams > 1 and (samples or settings.do_sample):
        name = "do_sample" if settings.do_sample else samples[0]
        _refuse(values, name, f"with num_beams={beams}; leave one of them")
    if beams > 1 and settings.max_new_tokens == 0:
        _refuse(values, "num_beams", "with max_new_tokens=0; leave one of them")
    for name in OF_BEAMS:
        if name in values and settings.num_beams is None:
            _refuse(values, name, "without `num_beams`; set that, or leave it")
    for name, largest in (
        ("num_return_sequences", "num_beams"),
        ("min_new_tokens", "max_new_tokens"),
    ):
        most = {"num_beams": 1, **values}.get(largest)
        if most is not None and values.get(name, 0) > most:
            raise errors.InputError(
                f"{name}={values[name]}: expected at most {most}, the value "
                f"of `{largest}`.",
                argument=name,
            )


def _refuse(values, name, reason):
    raise errors.InputError(
        f"{name}={values[name]} has no effect {reason} out.", argument=name
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
    no_repeat_ngram_size: int = 0,
    min_length: int = 0,
    limits: tf.Tensor | None = None,
    pad_id: int = 0,
) -> Generated:
    """Generates the most probable token at each step.

    Args:
      step, state: see Step.
      start_ids: (B,) int32, the tokens before the first new one.
      end_id: the token that ends a row; None: no token does.
      max_length: maximum number of new tokens, G.
      no_repeat_ngram_size, min_length: see `constrained`.
      limits: (B,) int32, a smaller maximum for each row.
    """

    def choose(logits, index):
        del index
        return tf.argmax(logits, axis=-1, output_type=tf.int32)

    return _loop(
        step,
        state,
        choose,
        _constraint(end_id, no_repeat_ngram_size, min_length),
        start_ids,
        end_id,
        max_length,
        limits,
        pad_id,
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
    no_repeat_ngram_size: int = 0,
    min_length: int = 0,
    limits: tf.Tensor | None = None,
    pad_id: int = 0,
) -> Generated:
    """Generates tokens drawn from the distribution of each step.

    The logits of allowed tokens (see `constrained`) are divided by
    `temperature`, then restricted to the top_k, then to the top_p of these.
    Each of the three is a number or (B,), one per row. The random numbers are a
    function of the row's seed and the index of the new token.

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
        step,
        state,
        choose,
        _constraint(end_id, no_repeat_ngram_size, min_length),
        start_ids,
        end_id,
        max_length,
        limits,
        pad_id,
    )


def beam_search(
    step: Step,
    state: Any,
    *,
    start_ids: tf.Tensor,
    end_id: int | None,
    max_length: int,
    num_beams: int,
    num_return: int = 1,
    length_penalty: float = LENGTH_PENALTY,
    no_repeat_ngram_size: int = 0,
    min_length: int = 0,
    coverage_penalty: float = 0.0,
    attention: Callable[[Any], tf.Tensor] | None = None,
    source_mask: tf.Tensor | None = None,
    limits: tf.Tensor | None = None,
    pad_id: int = 0,
) -> Beams:
    """Searches for the sequences with the best scores.

    `beams.Search` describes how, `Beams` what a score is. With one beam it is
    `greedy`; with as many as there are sequences it finds the best of all.

    Args:
      step: see Step, for B K rows; the K of a text are consecutive.
      state: its tensors have B K rows already, see `tile`. After each step
        their rows are gathered. Tensors that never change, such as keys of an
        encoder, do not belong here: `step` has them from its closure.
      start_ids, end_id, max_length, limits: as in `greedy`, (B,).
      num_beams, num_return: K and N, at most K.
      length_penalty: above 0 for longer sequences, below 0 for shorter ones.
      no_repeat_ngram_size, min_length: see `constrained`. What is forbidden
        does not change the probabilities of other tokens.
      coverage_penalty: at least 0; above 0 it needs `attention`, (B K, S) of a
        state after a step, and `source_mask`, (B, S), above 0 at real tokens.

    Raises ValueError for a num_return or coverage_penalty that is not so.
    """
    return beams.Search(
        end_id=end_id,
        max_length=max_length,
        num_beams=num_beams,
        num_return=num_return,
        length_penalty=length_penalty,
        coverage_penalty=coverage_penalty,
        attention=attention,
        source_mask=source_mask,
        constrain=_constraint(end_id, no_repeat_ngram_size, min_length),
        pad_id=pad_id,
    ).run(step, state, start_ids, _limits(limits, start_ids, max_length))


def constrained(
    logits: tf.Tensor,
    ids: tf.Tensor,
    length: tf.Tensor,
    *,
    end_id: int | None,
    no_repeat_ngram_size: int = 0,
    min_length: int = 0,
) -> tf.Tensor:
    """Sets the logits of tokens that must not come next to -inf.

    logits (R, V); ids (R, G) int32, of which each row has `length` () so far.
    A token is forbidden if with it the last no_repeat_ngram_size ids would
    occur twice: after the ids 5 6 5, no_repeat_ngram_size=2 forbids 6. The end
    token is forbidden until there are min_length ids. If all tokens are
    forbidden, the end token is allowed; without an end token, all are.
    """
    if not (no_repeat_ngram_size or min_length):
        return logits
    is_end = tf.range(tf.shape(logits)[1]) == (-1 if end_id is None else end_id)
    allowed = logits
    if no_repeat_ngram_size:
        allowed = _without_repeats(logits, ids, length, no_repeat_ngram_size)
    allowed = tf.where(is_end & (length < min_length), -np.inf, allowed)
    fallback = logits
    if end_id is not None:
        # Finite, if the step itself forbids it.
        fallback = tf.maximum(logits, logits.dtype.min)
        fallback = tf.where(is_end, fallback, -np.inf)
    is_none = tf.reduce_max(allowed, axis=1, keepdims=True) == -np.inf
    return tf.where(is_none, fallback, allowed)


def _constraint(
    end_id: int | None, no_repeat_ngram_size: int, min_length: int
) -> beams.Constrain:
    return functools.partial(
        constrained,
        end_id=end_id,
        no_repeat_ngram_size=no_repeat_ngram_size,
        min_length=min_length,
    )


def _without_repeats(logits, ids, length, size):
    """Forbids tokens with which the last `size` tokens would be a repetition.

    logits (R, V), ids (R, G), length ().
    """
    rows, width = tf.shape(ids)[0], ids.shape[1]
    if size >= width:  # two of them have at least one token more
        return logits
    starts = tf.range(width - size + 1)
    offsets = tf.range(size)
    windows = tf.gather(ids, starts[:, tf.newaxis] + offsets, axis=1)
    # The last tokens; if there are too few, no window is complete.
    last = tf.maximum(length - size + 1 + offsets[:-1], 0)
    last = tf.gather(ids, last, axis=1)  # (R, size - 1)
    repeats = tf.reduce_all(windows[:, :, :-1] == last[:, tf.newaxis], axis=2)
    repeats &= starts + size <= length  # (R, width - size + 1)
    row = tf.broadcast_to(tf.range(rows)[:, tf.newaxis], tf.shape(repeats))
    # Rows that have ended hold padding, which need not be a token.
    token = tf.clip_by_value(windows[:, :, -1], 0, tf.shape(logits)[1] - 1)
    return tf.tensor_scatter_nd_min(
        logits,
        tf.stack([row, token], axis=2),
        tf.cast(tf.where(repeats, -np.inf, np.inf), logits.dtype),
    )


def finite(logits: tf.Tensor) -> tf.Tensor:
    """Returns the logits of a network; with NaN or infinity the graph fails.

    Otherwise each new token would be the first of the vocabulary.
    """
    return tf.debugging.check_numerics(logits, DAMAGED)


@contextlib.contextmanager
def checked() -> Iterator[None]:
    """Raises InputError where a graph in it fails in `finite`."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if DAMAGED not in str(error):
            raise
        raise errors.InputError(
            f"{DAMAGED}: the weights are damaged."
        ) from None


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
    constrain: beams.Constrain,
    start_ids: tf.Tensor,
    end_id: int | None,
    max_length: int,
    limits: tf.Tensor | None,
    pad_id: int,
) -> Generated:
    columns = tf.range(max_length)[tf.newaxis]
    limits = _limits(limits, start_ids, max_length)

    def body(index, last, state, ids, length, done, ended):
        logits, state = step(last, state)
        chosen = choose(constrain(logits, ids, index), index)
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


def _limits(
    limits: tf.Tensor | None, start_ids: tf.Tensor, max_length: int
) -> tf.Tensor:
    """Returns the maximum number of new tokens of each row: (B,) int32."""
    if limits is None:
        return tf.fill(tf.shape(start_ids), max_length)
    return tf.clip_by_value(limits, 0, max_length)
