"""Draws pretraining instances, one segment or a pair, from documents of ids.

The procedure is the one of Devlin et al. 2019 (BERT), appendix A.2: gather
sentences up to a target length, split them between two sentences, and half of
the time take the second segment from another document; what was not used is
then gathered again. Lan et al. 2020 (ALBERT) swap the two segments instead,
Liu et al. 2019 (RoBERTa, FULL-SENTENCES) do not split.

A document is joined into one array once, and from there on segments are
positions in it: tokens are never touched one by one, and what comes out are
views. Two rules keep every token and both labels where sentences are long: a
sentence longer than the target is cut there, its rest opening the next
instance; and a lone sentence is split in its middle.
"""

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bert_keras import errors


class Pair(NamedTuple):
    """One instance, without special tokens."""

    first: np.ndarray
    second: np.ndarray  # empty where the objective is "none"
    label: int  # 0 = in order, 1 = another document's (nsp) or swapped (sop)


def draw(
    documents: Sequence[Sequence[np.ndarray]],
    *,
    max_tokens: int,
    objective: str,
    short_probability: float = 0.1,
    generator: np.random.Generator,
) -> Iterator[Pair]:
    """Documents, lists of sentences (1-D ids), -> the instances of one pass.

    max_tokens is the sequence length less the special tokens. With
    `short_probability` an instance aims at a shorter length, under every
    objective. Instances come document by document; another call with the same
    generator draws others. Partners of "nsp" come from `documents`, of which
    it needs two.
    """
    if objective not in _OBJECTIVES:
        raise errors.InputError(
            f"Expected an objective of {', '.join(_OBJECTIVES)}; "
            f"found {objective!r}."
        )
    if max_tokens < 2:
        raise errors.InputError(
            f"Expected room for 2 tokens at least beside the special ones; "
            f"there is room for {max_tokens}. Use longer sequences."
        )
    sources = [source for source in map(_Source, documents) if source.ends]
    if objective == "nsp" and len(sources) == 1:
        raise errors.InputError(
            "Next-sentence prediction draws from another document, but there "
            "is only one. Put blank lines between documents, or use the "
            "objective sop or none."
        )
    draws = _Draws(generator, max_tokens, short_probability)
    return _OBJECTIVES[objective](sources, draws)


class _Source:
    """A document as one array and the positions where its sentences end."""

    def __init__(self, sentences: Sequence[np.ndarray]):
        ends = itertools.accumulate(len(s) for s in sentences if len(s))
        self.ends = list(ends)
        if self.ends:
            self.token_ids = np.concatenate([s for s in sentences if len(s)])

    def gather(self, begin: int, target: int) -> int:
        """The first sentence end that reaches the target, or the last."""
        index = bisect.bisect_left(self.ends, begin + target)
        index = min(index, len(self.ends) - 1)
        end = self.ends[index]
        last = max(begin, self.ends[index - 1] if index else 0)
        return begin + target if end - last > target else end

    def fill(self, begin: int, target: int) -> int:
        """The last sentence end that still fits the target."""
        limit = begin + target
        index = bisect.bisect_right(self.ends, limit)
        end = self.ends[index - 1] if index else 0
        return end if end > begin else limit

    def splits(self, begin: int, end: int) -> list[int]:
        """Sentence ends inside, where a pair may be split."""
        low = bisect.bisect_right(self.ends, begin)
        return self.ends[low : bisect.bisect_left(self.ends, end, low)]


class _Draws:
    """Random numbers: drawn in blocks, as one call each costs too much."""

    def __init__(
        self,
        generator: np.random.Generator,
        max_tokens: int,
        short_probability: float,
    ):
        self._uniforms = itertools.chain.from_iterable(
            generator.random(1024).tolist() for _ in itertools.count()
        )
        self.max_tokens = max_tokens
        self._short_probability = short_probability

    def coin(self) -> bool:
        return next(self._uniforms) < 0.5

    def below(self, limit: int) -> int:
        return int(next(self._uniforms) * limit)

    def target(self) -> int:
        """The length to aim at: mostly all there is room for."""
        if next(self._uniforms) < self._short_probability:
            return 2 + self.below(self.max_tokens - 1)
        return self.max_tokens

    def truncate(
        self, first: np.ndarray, second: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Both cut to fit, the longer one first, each at a random end."""
        excess = len(first) + len(second) - self.max_tokens
        if excess <= 0:
            return first, second
        shorter = min(len(first), len(second))
        longer = max(self.max_tokens - shorter, -(-self.max_tokens // 2))
        shorter = self.max_tokens - longer
        is_longer = len(first) > len(second)
        return (
            self._cut(first, longer if is_longer else shorter),
            self._cut(second, shorter if is_longer else longer),
        )

    def _cut(self, segment: np.ndarray, length: int) -> np.ndarray:
        if len(segment) == length:
            return segment
        return segment[:length] if self.coin() else segment[-length:]


def _next_sentence(sources: list[_Source], draws: _Draws) -> Iterator[Pair]:
    for index, source in enumerate(sources):
        begin, stop = 0, source.ends[-1]
        while stop - begin > 1:
            target = draws.target()
            end = source.gather(begin, target)
            middle = _split(source, begin, end, draws)
            label = int(draws.coin())
            if label:
                if end - begin < target and not source.splits(begin, end):
                    middle = end  # a short rest stays whole
                other = draws.below(len(sources) - 1)
                partner = sources[other + (other >= index)]
                second = _segment(partner, target - (middle - begin), draws)
                end = middle
            else:
                second = source.token_ids[middle:end]
            first = source.token_ids[begin:middle]
            yield Pair(*draws.truncate(first, second), label)
            begin = end


def _sentence_order(sources: list[_Source], draws: _Draws) -> Iterator[Pair]:
    for source in sources:
        begin, stop = 0, source.ends[-1]
        while stop - begin > 1:  # one token cannot be split
            end = source.gather(begin, draws.target())
            middle = _split(source, begin, end, draws)
            first = source.token_ids[begin:middle]
            second = source.token_ids[middle:end]
            label = int(draws.coin())
            if label:
                first, second = second, first
            yield Pair(*draws.truncate(first, second), label)
            begin = end


def _full_sentences(sources: list[_Source], draws: _Draws) -> Iterator[Pair]:
    for source in sources:
        begin, stop = 0, source.ends[-1]
        while begin < stop:
            end = min(source.fill(begin, draws.target()), stop)
            yield Pair(source.token_ids[begin:end], source.token_ids[:0], 0)
            begin = end


def _split(source: _Source, begin: int, end: int, draws: _Draws) -> int:
    """A random sentence end inside; the middle where there is none."""
    splits = source.splits(begin, end)
    if splits:
        return splits[draws.below(len(splits))]
    return (begin + end) // 2


def _segment(source: _Source, target: int, draws: _Draws) -> np.ndarray:
    """Sentences from a random one on, up to the target."""
    start = draws.below(len(source.ends))
    begin = source.ends[start - 1] if start else 0
    return source.token_ids[begin : source.gather(begin, max(target, 1))]


_OBJECTIVES: dict[str, Callable[[list[_Source], _Draws], Iterator[Pair]]] = {
    "nsp": _next_sentence,
    "sop": _sentence_order,
    "none": _full_sentences,
}
