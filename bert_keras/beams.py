"""Beam search: the sequences with the best scores, of those that it looks at.

It knows no network: see `generation`, whose `beam_search` is its interface.

Shapes: B batch, S source, V vocabulary, G maximum number of new tokens, K
beams, N returned hypotheses of a row.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

# ids (B,) int32, state -> logits (B, V) float32 of the token after them, state.
# The state is a nest of tensors whose shapes do not change.
Step = Callable[[tf.Tensor, Any], tuple[tf.Tensor, Any]]
# logits (R, V), ids (R, G), their number () -> logits (R, V): `constrained`.
Constrain = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


class Beams(NamedTuple):
    """The N hypotheses of each row with the best scores, the best first.

    The score of a hypothesis Y is log P(Y) / ((5 + |Y|) / 6)^length_penalty +
    coverage_penalty * sum over source positions i of log(min(a_i, 1)), where
    |Y| counts the end token, and a_i is the sum of the attention to i in all
    steps, at least 1e-37 (Wu et al. 2016, section 7). If a row has fewer
    hypotheses, the rest are empty, and their score and log_prob are -inf.
    """

    ids: tf.Tensor  # (B, N, G) int32, padded, without the end token
    length: tf.Tensor  # (B, N) int32: number of ids that are not padding
    ended: tf.Tensor  # (B, N) bool: whether the end token came
    score: tf.Tensor  # (B, N) float32
    log_prob: tf.Tensor  # (B, N) float32: log P(Y), the end token's included


def tile(nest: Any, num_beams: int) -> Any:
    """Repeats each row of a nest of tensors: (B, ...) -> (B K, ...)."""
    return tf.nest.map_structure(
        lambda tensor: tf.repeat(tensor, num_beams, axis=0), nest
    )


class _Live(NamedTuple):
    """The hypotheses that are extended.

    Those that do not exist have a log_prob of -inf.
    """

    ids: tf.Tensor  # (B, K, G) int32
    log_prob: tf.Tensor  # (B, K) float32
    coverage: tf.Tensor  # (B, K, S) float32: sum of the attention of all steps


@dataclasses.dataclass(frozen=True)
class Search:
    """Beam search: K hypotheses of each row, which are live or complete.

    Each step extends the live hypotheses by all tokens. An extension survives
    if it is among the K best of all extensions and complete hypotheses: these
    are compared by their score, extensions by the score that they would have
    now, without the coverage penalty. A survivor is complete if it has the end
    token, or as many tokens as `limits` allows; otherwise it is live. So the
    search becomes narrower by complete hypotheses with good scores only, and
    the K best of them are never lost. A row ends when none of its live
    hypotheses can become better than the worst of the N best complete ones.

    Of equal scores, the first is that which was complete first, then that of
    the first beam, then that of the lower token.
    """

    end_id: int | None
    max_length: int
    num_beams: int
    num_return: int
    length_penalty: float
    coverage_penalty: float
    attention: Callable[[Any], tf.Tensor] | None
    source_mask: tf.Tensor | None  # (B, S)
    constrain: Constrain
    pad_id: int

    def __post_init__(self) -> None:
        if not 1 <= self.num_return <= self.num_beams:
            raise ValueError(
                f"num_return={self.num_return}: expected a number from 1 to "
                f"num_beams={self.num_beams}."
            )
        if self.coverage_penalty < 0:
            raise ValueError(
                f"coverage_penalty={self.coverage_penalty}: expected at least "
                "0, so that a score has a bound."
            )
        if self.coverage_penalty and (
            self.attention is None or self.source_mask is None
        ):
            raise ValueError(
                f"coverage_penalty={self.coverage_penalty}: expected "
                "`attention` and `source_mask` as well."
            )

    def run(
        self, step: Step, state: Any, start_ids: tf.Tensor, limits: tf.Tensor
    ) -> Beams:
        """Runs the loop; start_ids and limits are (B,) int32."""
        batch = tf.shape(start_ids)[0]
        first_row = tf.range(batch)[:, tf.newaxis] * self.num_beams

        def body(index, last, state, live, kept):
            logits, state = step(last, state)
            live = self._with_attention(live, state)
            live, parents, tokens = self._extend(index, logits, live, kept)
            rows = tf.reshape(first_row + parents, [-1])
            state = tf.nest.map_structure(lambda x: tf.gather(x, rows), state)
            live, kept = self._settle(
                live, kept, index + 1, limits, self._is_end(tokens)
            )
            return index + 1, tf.reshape(tokens, [-1]), state, live, kept

        last = tile(start_ids, self.num_beams)
        live, kept = self._start(batch, limits)
        *_, kept = tf.while_loop(
            lambda index, last, state, live, kept: tf.reduce_any(
                live.log_prob > -np.inf
            ),
            body,
            (tf.constant(0), last, state, live, kept),
            parallel_iterations=1,
            maximum_iterations=self.max_length,
        )
        return Beams(*(values[:, : self.num_return] for values in kept))

    def _is_end(self, tokens: tf.Tensor) -> tf.Tensor:
        return tokens == (-1 if self.end_id is None else self.end_id)

    def _start(
        self, batch: tf.Tensor, limits: tf.Tensor
    ) -> tuple[_Live, Beams]:
        """Returns one empty hypothesis for each row: complete, if that is all.

        Without a coverage penalty, there are S = 0 source positions.
        """
        shape = [batch, self.num_beams]
        ids = tf.fill([*shape, self.max_length], self.pad_id)
        none = tf.fill(shape, -np.inf)
        zeros = tf.zeros(shape, tf.int32)
        is_first = tf.range(self.num_beams) == 0
        size = tf.shape(self.source_mask)[1] if self.coverage_penalty else 0
        live = _Live(
            ids, tf.where(is_first, 0.0, none), tf.zeros([*shape, size])
        )
        ended = zeros > 0
        kept = Beams(ids, zeros, ended, none, none)
        return self._settle(live, kept, tf.constant(0), limits, ended)

    def _with_attention(self, live: _Live, state: Any) -> _Live:
        """Adds the attention of a step to the coverage."""
        if not self.coverage_penalty or self.attention is None:
            return live
        shape = tf.shape(live.coverage)
        new = tf.reshape(
            tf.cast(self.attention(state), tf.float32),
            [shape[0], self.num_beams, shape[2]],
        )
        return live._replace(coverage=live.coverage + new)

    def _extend(
        self, index: tf.Tensor, logits: tf.Tensor, live: _Live, kept: Beams
    ) -> tuple[_Live, tf.Tensor, tf.Tensor]:
        """Returns the extensions that survive, (B, K).

        Also the beam (B, K) int32 that each extends, and its new token.
        """
        ids = tf.reshape(live.ids, [tf.shape(logits)[0], self.max_length])
        log_prob, parents, tokens = _best_extensions(
            live.log_prob, logits, self.constrain(logits, ids, index)
        )
        score = log_prob / self._divisor(index + 1)
        # How many complete ones are better than each extension.
        better = tf.math.count_nonzero(
            kept.score[:, tf.newaxis] >= score[:, :, tf.newaxis],
            axis=2,
            dtype=tf.int32,
        )
        survives = tf.range(self.num_beams) + better < self.num_beams
        is_new = tf.logical_not(self._is_end(tokens))[:, :, tf.newaxis]
        is_new &= tf.range(self.max_length) == index
        ids = tf.gather(live.ids, parents, batch_dims=1)
        live = _Live(
            tf.where(is_new, tokens[:, :, tf.newaxis], ids),
            tf.where(survives, log_prob, -np.inf),
            tf.gather(live.coverage, parents, batch_dims=1),
        )
        return live, parents, tokens

    def _settle(
        self,
        live: _Live,
        kept: Beams,
        length: tf.Tensor,
        limits: tf.Tensor,
        ended: tf.Tensor,
    ) -> tuple[_Live, Beams]:
        """Moves complete hypotheses from `live` to `kept`; ends rows.

        length (): |Y| of all of `live`; ended (B, K): those with the end token.
        """
        complete = ended | (length >= limits)[:, tf.newaxis]
        new = Beams(
            live.ids,
            length - tf.cast(ended, tf.int32),
            ended,
            tf.where(complete, self._score(length, live), -np.inf),
            live.log_prob,
        )
        both = [tf.concat(pair, axis=1) for pair in zip(kept, new, strict=True)]
        _, best = tf.math.top_k(Beams(*both).score, self.num_beams)
        kept = Beams(*(tf.gather(each, best, batch_dims=1) for each in both))
        log_prob = tf.where(complete, -np.inf, live.log_prob)
        # Log-probabilities only fall. So the best that a live one can become is
        # as probable as it is now, and as long as is best for the penalty.
        divisor = tf.maximum(
            self._divisor(tf.minimum(length + 1, limits)),
            self._divisor(limits),
        )
        possible = tf.reduce_max(log_prob, axis=1) / divisor
        is_over = kept.score[:, self.num_return - 1] >= possible
        log_prob = tf.where(is_over[:, tf.newaxis], -np.inf, log_prob)
        return live._replace(log_prob=log_prob), kept

    def _divisor(self, length: tf.Tensor) -> tf.Tensor:
        """Returns the length penalty of lengths |Y|: int32 -> float32."""
        lengths = np.arange(self.max_length + 1)
        return tf.gather(
            tf.constant(((5 + lengths) / 6) ** self.length_penalty, tf.float32),
            length,
        )

    def _score(self, length: tf.Tensor, live: _Live) -> tf.Tensor:
        """Returns the scores (B, K) of hypotheses; see Beams."""
        score = live.log_prob / self._divisor(length)
        if not self.coverage_penalty or self.source_mask is None:
            return score
        covered = tf.math.log(tf.clip_by_value(live.coverage, 1e-37, 1.0))
        is_real = (self.source_mask > 0)[:, tf.newaxis]
        sums = tf.reduce_sum(tf.where(is_real, covered, 0.0), axis=2)
        return score + self.coverage_penalty * sums


def _best_extensions(
    log_prob: tf.Tensor, logits: tf.Tensor, allowed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the K most probable extensions of K hypotheses by a token.

    log_prob (B, K); logits (B K, V); allowed: the same, -inf where forbidden.
    Returns log_prob, descending, the beam and the token of each: (B, K).
    """
    beams, size = log_prob.shape[1], logits.shape[1]
    # No more than K of a beam can be among the best. The logits themselves are
    # compared, so that rounding does not change the order within a beam.
    count = min(beams, size)
    values, tokens = tf.math.top_k(allowed, count)  # (B K, count)
    largest = tf.reduce_max(logits, axis=1, keepdims=True)
    total = tf.reduce_sum(tf.exp(logits - largest), axis=1, keepdims=True)
    values = values - largest - tf.math.log(total)
    shape = [tf.shape(log_prob)[0], beams * count]
    values = tf.reshape(values, [shape[0], beams, count])
    values = tf.reshape(log_prob[:, :, tf.newaxis] + values, shape)
    log_prob, best = tf.math.top_k(values, beams)
    tokens = tf.gather(tf.reshape(tokens, shape), best, batch_dims=1)
    return log_prob, best // count, tokens
