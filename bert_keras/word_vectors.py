"""Vectors of words in their contexts, and how they compare.

A word is found in a text by its characters, so that a Chinese word is found
without a segmenter; its vector is the mean of its tokens' vectors.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bert_keras import errors, formats, predictor, static_vectors, token_vectors

# Each Chinese character is a word, unless it is part of a given one.
_CHINESE = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
_LETTER = rf"[^\W{_CHINESE}]"
_TEXTS_PER_CALL = 256
_MAX_LENGTH = 512  # tokens of a text, if the network has no limit


class Occurrence(NamedTuple):
    """A word in a text: text[start:end], in characters."""

    word: str
    text: str
    start: int
    end: int


class WordFinder:
    """Finds words in texts by their characters.

    A text is split at white space and punctuation, and each Chinese character
    is a word; but the longest of the given words that begins at a character is
    one word, so that 苹果 is not found in 苹果汁 if both are given. Given words
    of letters are found as complete words only.

    ignore_case: whether words are compared, and returned, in lower case.

    >>> finder = word_vectors.WordFinder(["苹果", "new york"], ignore_case=True)
    >>> [each.word for each in finder.find("New York 的苹果")]
    ['new york', '的', '苹果']
    """

    def __init__(self, words: Iterable[str], *, ignore_case: bool):
        self._ignore_case = ignore_case
        given = sorted({self.key(word) for word in words}, key=len)
        parts = [_bounded(word) for word in reversed(given) if word]
        self._pattern = re.compile(
            "|".join([*parts, f"[{_CHINESE}]", f"{_LETTER}+"]),
            re.IGNORECASE if ignore_case else 0,
        )

    def key(self, word: str) -> str:
        """Returns a word as `find` returns it."""
        word = word.strip()
        return word.lower() if self._ignore_case else word

    def find(self, text: str) -> Iterator[Occurrence]:
        """Yields all words of a text, from its start."""
        for match in self._pattern.finditer(text):
            yield Occurrence(self.key(match[0]), text, *match.span())


def _bounded(word: str) -> str:
    """Returns a pattern of a word; its letters have no letter beside them."""
    before = f"(?<!{_LETTER})" if re.match(_LETTER, word) else ""
    after = f"(?!{_LETTER})" if re.match(_LETTER, word[-1]) else ""
    return before + re.escape(word) + after


class ContextualVectors:
    """Computes the vectors of words in texts by a network.

    source: a checkpoint, or a model, whose task does not matter.
    layer: which hidden states; 0 is the embeddings, -1 the last layer.

    >>> model = word_vectors.ContextualVectors("runs/base")
    >>> finder = model.finder(["film"])
    >>> found = [*finder.find("a fine film"), *finder.find("the film is good")]
    >>> vectors, is_read = model([f for f in found if f.word == "film"])
    >>> vectors.shape, is_read.tolist()
    ((2, 16), [True, True])
    """

    def __init__(self, source: str | predictor.Predictor, *, layer: int = -1):
        config = (
            formats.read(source).config
            if isinstance(source, str)
            else source.model.encoder.config
        )
        task = token_vectors.TokenVectors(
            layers=str(layer),
            seq_length=min(config.max_length or _MAX_LENGTH, _MAX_LENGTH),
        )
        self.predictor = (
            predictor.load(source, task=task)
            if isinstance(source, str)
            else predictor.with_task(source, task)
        )
        self.tokenizer = self.predictor.tokenizer
        self._name = f"layer_{layer}"
        self._states = tf.function(
            self.predictor.serve_text, reduce_retracing=True, autograph=False
        )

    def finder(self, words: Iterable[str]) -> WordFinder:
        """Returns a finder that ignores case if the tokenizer does."""
        ignore_case = bool(getattr(self.tokenizer, "lowercase", False))
        return WordFinder(words, ignore_case=ignore_case)

    def __call__(
        self, occurrences: Sequence[Occurrence]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns vectors (N, H) float32 and whether each was read (N,) bool.

        One is not read, and 0, if the text is truncated before its end, or if
        it has no token.
        """
        width = self.predictor.model.encoder.config.hidden_size
        vectors = np.zeros((len(occurrences), width), np.float32)
        is_read = np.zeros(len(occurrences), bool)
        rows: dict[str, list[int]] = {}
        for row, each in enumerate(occurrences):
            rows.setdefault(each.text, []).append(row)
        texts = list(rows)
        for start in range(0, len(texts), _TEXTS_PER_CALL):
            batch = texts[start : start + _TEXTS_PER_CALL]
            for text, states, spans in self._read(batch):
                for row in rows[text]:
                    indices = _overlapping(spans, occurrences[row])
                    if indices and indices[-1] < len(states):
                        vectors[row] = states[indices].mean(axis=0)
                        is_read[row] = True
        return vectors, is_read

    def _read(
        self, texts: Sequence[str]
    ) -> Iterator[tuple[str, np.ndarray, list[tuple[int, int]]]]:
        """Yields each text, its tokens' states (tokens, H) and their spans.

        Truncated tokens have a span but no state; after the last token there
        may be states of padding.
        """
        raw = tf.constant(texts)
        _, starts, ends = self.tokenizer.with_offsets(raw)
        answers = self._states(text=raw)[self._name].numpy()
        spans = zip(starts.to_list(), ends.to_list(), strict=True)
        for text, states, (first, last) in zip(
            texts, answers, spans, strict=True
        ):
            yield text, states, list(zip(first, last, strict=True))

    def means(
        self, occurrences: Iterable[Occurrence], *, at_most: int
    ) -> tuple[static_vectors.StaticVectors, dict[str, int]]:
        """Returns the mean vector of each word, and of how many occurrences.

        at_most: the number of occurrences of each word, the first ones.
        """
        counts: dict[str, int] = {}
        chosen = []
        for each in occurrences:
            counts[each.word] = counts.get(each.word, 0) + 1
            if counts[each.word] <= at_most:
                chosen.append(each)
        vectors, is_read = self(chosen)
        of_word: dict[str, list[int]] = {}
        for row in np.flatnonzero(is_read).tolist():
            of_word.setdefault(chosen[row].word, []).append(row)
        means = [vectors[rows].mean(axis=0) for rows in of_word.values()]
        values = np.reshape(np.array(means), (-1, vectors.shape[1]))
        return (
            static_vectors.StaticVectors(tuple(of_word), values),
            {word: len(rows) for word, rows in of_word.items()},
        )


def _overlapping(
    spans: Sequence[tuple[int, int]], occurrence: Occurrence
) -> list[int]:
    """Returns the indices of the tokens that have a part of the word."""
    return [
        index
        for index, (start, end) in enumerate(spans)
        if start < occurrence.end and end > occurrence.start
    ]


def cosines(one: Any, two: Any) -> np.ndarray:
    """Returns the cosines of vectors, (N, H) and (M, H) -> (N, M) float64.

    0 for a vector of zeros.
    """
    one, two = (_scaled(np.asarray(each, np.float64)) for each in (one, two))
    return one @ two.T


def _scaled(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def neighbours(
    vector: Any, vectors: static_vectors.StaticVectors, count: int
) -> list[tuple[str, float]]:
    """Returns the words with the largest cosines, the largest first.

    vector: (H,).
    """
    if not vectors.words:
        return []
    values = cosines(np.asarray(vector)[np.newaxis], vectors.values)[0]
    best = np.argsort(-values, kind="stable")[:count]
    return [(vectors.words[index], float(values[index])) for index in best]


def principal_components(vectors: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first two principal components, and their variance's share.

    vectors (N, H) -> (N, 2), (2,) float64: the coordinates of the centred
    vectors by SVD. The largest coordinate of each component is positive, as
    otherwise the sign would be arbitrary.
    """
    vectors = np.asarray(vectors, np.float64)
    if len(vectors) < 3:
        raise errors.InputError(
            "expected 3 or more vectors for a plane of two components, found "
            f"{len(vectors)}; give more texts."
        )
    left, values, _ = np.linalg.svd(
        vectors - vectors.mean(axis=0), full_matrices=False
    )
    points = (left * values)[:, :2]
    largest = np.argmax(np.abs(points), axis=0)
    points = points * np.where(points[largest, [0, 1]] < 0, -1.0, 1.0)
    total = max(float(np.sum(values**2)), np.finfo(float).tiny)
    return points, values[:2] ** 2 / total


def comparison(
    name: str,
    vectors: np.ndarray,
    candidates: static_vectors.StaticVectors,
    missing: Sequence[str],
    count: int,
) -> Mapping[str, Any]:
    """Returns what `bert-keras words` writes of one type of vectors.

    vectors: (N, H), of the word in each of N contexts.
    """
    return {
        "vectors": name,
        "cosines": cosines(vectors, vectors).round(4).tolist(),
        "neighbours": [
            [
                [word, round(value, 4)]
                for word, value in neighbours(each, candidates, count)
            ]
            for each in vectors
        ],
        "missing": list(missing),
    }
