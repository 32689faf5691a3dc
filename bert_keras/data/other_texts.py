"""Adds pairs that do not belong together to pairs that do."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from bert_keras import errors

_BLOCK = 10_000  # rows whose second texts are drawn from each other

Pair = dict[str, str]


def add(pairs: Iterable[Pair], number: int) -> Iterator[Pair]:
    """Yields the pairs; each match is followed by its negatives.

    pairs: {"text", "text_pair", "label"}; the label of a match is "1". A
      negative has the label "0", the match's first text, and another second
      text: any that no pair has with this first text is drawn with equal
      probability, `number` of them without replacement, or all if there are
      fewer. They are drawn from a block of 10,000 pairs and from the one before
      it, so that a file need not be in memory; the draw depends on the pairs
      alone.

    Raises InputError if no match has a negative.
    """
    before: Sequence[Pair] = ()
    added, matches = 0, 0
    for index, block in enumerate(_blocks(pairs)):
        source = _Source([*before, *block], index)
        for pair in block:
            yield pair
            if pair["label"] != "1":
                continue
            matches += 1
            for text in source.draw(pair["text"], number):
                added += 1
                yield {**pair, "text_pair": text, "label": "0"}
        before = block
    if matches and not added:
        raise errors.InputError(
            f"negatives={number}: expected rows with different second texts, "
            "which are drawn for each other, found none; label pairs that do "
            "not belong together with 0, and set negatives=0.",
            argument="negatives",
        )


def _blocks(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    iterator = iter(pairs)
    while block := list(itertools.islice(iterator, _BLOCK)):
        yield block


class _Source:
    """Draws second texts of some pairs."""

    def __init__(self, pairs: Sequence[Pair], seed: int):
        self._texts = list(dict.fromkeys(pair["text_pair"] for pair in pairs))
        self._own: dict[str, set[str]] = {}  # those of each first text
        for pair in pairs:
            self._own.setdefault(pair["text"], set()).add(pair["text_pair"])
        self._random = np.random.default_rng(seed)

    def draw(self, text: str, number: int) -> list[str]:
        own = self._own[text]
        # Of so many, `number` are not the text's own.
        count = min(number + len(own), len(self._texts))
        order = self._random.choice(len(self._texts), count, replace=False)
        drawn = (self._texts[index] for index in order)
        others = (other for other in drawn if other not in own)
        return list(itertools.islice(others, number))
