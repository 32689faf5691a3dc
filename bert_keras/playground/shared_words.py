"""Words that several lines share, and how alike their contexts make them."""

import functools
import itertools
import re
from collections.abc import Sequence

import numpy as np

from bert_keras import word_vectors
from bert_keras.playground import blocks
from bert_keras.predictor import Predictor

MOST_WORDS = 3
_CHINESE = re.compile("[\u3400-\u9fff]+")
_WORD = re.compile(r"[^\W\u3400-\u9fff]{2,}")
_LENGTHS = range(8, 1, -1)  # of Chinese words, in characters


class SharedWords:
    """Compares the vectors of a word in several lines, by the last layer.

    Chinese words are sequences of 2 to 8 characters that two lines have.
    """

    def __init__(self, predictor: Predictor):
        self.predictor = predictor

    @functools.cached_property
    def _vectors(self) -> word_vectors.ContextualVectors:
        return word_vectors.ContextualVectors(self.predictor)

    def show(self, lines: Sequence[str]) -> list[blocks.Block]:
        """Returns bars of the cosines with the first use of each word."""
        key = self._vectors.finder([]).key
        words = in_common([key(line) for line in lines])
        return [block for word in words for block in self._bars(word, lines)]

    def _bars(self, word: str, lines: Sequence[str]) -> list[blocks.Block]:
        finder = self._vectors.finder([word])
        occurrences: list[word_vectors.Occurrence] = []
        for line in lines:
            found = (each for each in finder.find(line) if each.word == word)
            occurrences += itertools.islice(found, 1)
        vectors, is_read = self._vectors(occurrences)
        if is_read.sum() < 2:
            return []
        texts = [occurrences[row].text for row in np.flatnonzero(is_read)]
        vectors = vectors[is_read]
        cosines = word_vectors.cosines(vectors[:1], vectors)[0].tolist()
        bars = list(map(blocks.bar, texts, cosines))
        return [blocks.bars(f"{word}: cosine with its first use", bars[1:])]


def in_common(lines: Sequence[str], most: int = MOST_WORDS) -> list[str]:
    """Returns words that two lines or more have.

    Those of the most lines are first, and the longest of these. A Chinese word
    that shares two characters with one before it, of the same lines, is left
    out: it is a fragment.

    >>> in_common(["我喜欢吃苹果", "苹果和华为", "a red apple", "an apple"])
    ['apple', '苹果']
    """
    places: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        for word in _words(line):
            places.setdefault(word, []).append(number)
    shared = [word for word, found in places.items() if len(found) > 1]
    # The order of equal ones stays.
    shared.sort(key=lambda word: (-len(places[word]), -len(word)))
    chosen: list[str] = []
    for word in shared:
        if len(chosen) == most:
            break
        if not any(
            places[word] == places[other] and _overlap(word, other)
            for other in chosen
        ):
            chosen.append(word)
    return chosen


def _overlap(word: str, other: str) -> bool:
    """Whether two Chinese words have two characters in sequence in common."""
    if not _CHINESE.match(word):
        return False
    pairs = (word[start : start + 2] for start in range(len(word) - 1))
    return any(pair in other for pair in pairs)


def _words(line: str) -> dict[str, None]:
    """Returns the words of a line, each once."""
    words = dict.fromkeys(_WORD.findall(line))
    for run in _CHINESE.findall(line):
        for length in _LENGTHS:
            for start in range(len(run) - length + 1):
                words[run[start : start + length]] = None
    return words
