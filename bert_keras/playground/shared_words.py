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
_LENGTHS = (4, 3, 2)  # of Chinese words, in characters


class SharedWords:
    """Compares the vectors of a word in several lines, by the last layer.

    The longest words are shown. Chinese ones are sequences of 2 to 4 characters
    that two lines have, and no longer sequence of both lines contains.
    """

    def __init__(self, predictor: Predictor):
        self.predictor = predictor

    @functools.cached_property
    def _vectors(self) -> word_vectors.ContextualVectors:
        return word_vectors.ContextualVectors(self.predictor)

    def show(self, lines: Sequence[str]) -> list[blocks.Block]:
        """Returns bars of the cosines with the first use of each word."""
        key = self._vectors.finder([]).key
        words = in_common([key(line) for line in lines])[:MOST_WORDS]
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


def in_common(lines: Sequence[str]) -> list[str]:
    """Returns the words that two lines or more have, the longest first.

    >>> in_common(["我喜欢吃苹果", "苹果和华为", "a red apple", "an apple"])
    ['apple', '苹果']
    """
    counts: dict[str, int] = {}
    for line in lines:
        for word in _words(line):
            counts[word] = counts.get(word, 0) + 1
    shared = [word for word, count in counts.items() if count > 1]
    shared.sort(key=len, reverse=True)  # the order of equal lengths stays
    return [
        word
        for index, word in enumerate(shared)
        if not _CHINESE.match(word)
        or not any(word in longer for longer in shared[:index])
    ]


def _words(line: str) -> dict[str, None]:
    """Returns the words of a line, each once."""
    words = dict.fromkeys(_WORD.findall(line))
    for run in _CHINESE.findall(line):
        for length in _LENGTHS:
            for start in range(len(run) - length + 1):
                words[run[start : start + length]] = None
    return words
