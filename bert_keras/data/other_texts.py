"""Adds pairs that do not belong together to pairs that do."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

Pair = dict[str, str]


def add(pairs: Sequence[Pair], number: int) -> Iterator[Pair]:
    """Yields the pairs; each match is followed by its negatives.

    pairs: {"text", "text_pair", "label"}; the label of a match is "1". A
      negative has the label "0", the match's first text, and another second
      text: any that no pair has with this first text is drawn with equal
      probability, `number` of them without replacement, or all if there are
      fewer. The draw depends on the pairs alone.
    """
    source = _Source(pairs)
    for pair in pairs:
        yield pair
        if pair["label"] == "1":
            for text in source.draw(pair["text"], number):
                yield {**pair, "text_pair": text, "label": "0"}


class _Source:
    """Draws second texts of some pairs."""

    def __init__(self, pairs: Iterable[Pair]):
        own: dict[str, set[str]] = {}  # the second texts of each first text
        texts: dict[str, None] = {}
        for pair in pairs:
            own.setdefault(pair["text"], set()).add(pair["text_pair"])
            texts[pair["text_pair"]] = None
        self._own, self._texts = own, list(texts)
        self._others: dict[str, list[str]] = {}
        self._random = np.random.default_rng(0)

    def draw(self, text: str, number: int) -> list[str]:
        own = self._own[text]
        if 2 * (len(own) + number) >= len(self._texts):
            others = self._all_others(text)
            count = min(number, len(others))
            chosen = self._random.choice(len(others), count, replace=False)
            return [others[index] for index in chosen]
        # Most texts may be drawn: try until there are enough.
        drawn: dict[str, None] = {}
        while len(drawn) < number:
            tries = self._random.integers(len(self._texts), size=2 * number)
            others = (self._texts[index] for index in tries)
            drawn |= dict.fromkeys(each for each in others if each not in own)
        return list(itertools.islice(drawn, number))

    def _all_others(self, text: str) -> list[str]:
        if text not in self._others:
            own = self._own[text]
            self._others = {text: [t for t in self._texts if t not in own]}
        return self._others[text]
