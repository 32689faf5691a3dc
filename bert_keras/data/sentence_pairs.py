"""Samples pretraining instances, single segments or pairs, from documents.

The procedure is that of Devlin et al. 2019 (BERT), appendix A.2: gather
sentences up to a target length, split them at a sentence boundary, and half of
the time replace the second segment by one of another document; the replaced
sentences are gathered again. Lan et al. 2020 (ALBERT) swap the two segments
instead; Liu et al. 2019 (RoBERTa, FULL-SENTENCES) do not split.

An instance starts where the document's previous one ends, but documents are
independent: one step makes an instance of every document at once, on arrays. An
instance is two spans of offsets; token ids are not read. Two rules for long
sentences keep every token and both labels: a sentence longer than the target is
split there and its rest starts the next instance, and a single sentence is
split in its middle.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bert_keras import errors


class TokenizedDocuments(NamedTuple):
    """Concatenated documents; no document and no sentence is empty.

    token_ids (tokens,); sentence_ends (sentences,) and document_ends
    (documents,) int64: ascending offsets in token_ids, the last len(token_ids).
    table (distinct tokens, ids) int32: if a token is several ids, the tokens
    whose numbers the token_ids are. unit_starts (tokens,) uint8: the facts of
    word_boundaries.Finder, if they are stored.
    """

    token_ids: np.ndarray
    sentence_ends: np.ndarray
    document_ends: np.ndarray
    table: np.ndarray | None = None
    unit_starts: np.ndarray | None = None


class Pairs(NamedTuple):
    """Instances without special tokens, as offsets in the documents.

    first and second (rows, 2) int64: begin and end of a segment; the second is
    empty for the objective "none". labels (rows,) int32: 0 = in order, 1 = from
    another document (nsp) or swapped (sop).
    """

    first: np.ndarray
    second: np.ndarray
    labels: np.ndarray


def sample_pairs(
    documents: TokenizedDocuments,
    *,
    max_tokens: int,
    objective: str,
    short_probability: float = 0.1,
    passes: int = 1,
    generator: np.random.Generator,
) -> list[Pairs]:
    """Samples the instances of each pass, in the order of the documents.

    max_tokens: the sequence length without special tokens.
    short_probability: probability that an instance has a shorter target length,
      for every objective.

    "nsp" samples second segments from these documents and needs at least two.
    """
    if objective not in _OBJECTIVES:
        raise errors.InputError(
            f"Expected an objective of {', '.join(_OBJECTIVES)}; "
            f"found {objective!r}."
        )
    if max_tokens < 2:
        raise errors.InputError(
            "Expected room for at least 2 tokens besides the special ones; "
            f"there is room for {max_tokens}. Use longer sequences."
        )
    if objective == "nsp" and len(documents.document_ends) == 1:
        raise errors.InputError(
            "Next-sentence prediction draws from another document, but there "
            "is only one. Put blank lines between documents, or use the "
            "objective sop or none."
        )
    step = _OBJECTIVES[objective]
    source = _Source(documents)
    count = len(documents.document_ends)
    index = np.arange(passes * count)  # pass by pass, document by document
    document = index % count
    begin, stop = source.begins[document], source.stops[document]
    samples = [(index[:0], *_NO_PAIRS)]
    # One token cannot be split into a pair.
    has_more = stop - begin > (objective != "none")
    while has_more.any():
        index, document = index[has_more], document[has_more]
        begin, stop = begin[has_more], stop[has_more]
        random_numbers = _RandomNumbers(generator, len(begin), max_tokens)
        target = random_numbers.target(short_probability)
        pairs, begin = step(source, random_numbers, document, begin, target)
        samples.append((index, *pairs))
        has_more = stop - begin > (objective != "none")
    index, *pairs = map(np.concatenate, zip(*samples, strict=True))
    order = np.argsort(index, kind="stable")
    pass_ends = np.searchsorted(index[order], count * np.arange(1, passes))
    by_pass = [np.split(value[order], pass_ends) for value in pairs]
    return [Pairs(*arrays) for arrays in zip(*by_pass, strict=True)]


class _Source:
    """Sentence boundaries of documents, looked up for many offsets at once."""

    def __init__(self, documents: TokenizedDocuments):
        self.ends = documents.sentence_ends
        self.starts = np.append(0, self.ends[:-1])
        self.stops = documents.document_ends
        self.begins = np.append(0, self.stops[:-1])
        # Documents' first and last sentences.
        self.last = np.searchsorted(self.ends, self.stops)
        self.first = np.append(0, self.last[:-1] + 1)

    def gather(self, document, begin, target):
        """Returns the first sentence end that reaches the target length.

        If there is none, it is the document's end; a sentence longer than the
        target is split at the target.
        """
        index = np.searchsorted(self.ends, begin + target)
        index = np.minimum(index, self.last[document])
        end = self.ends[index]
        start = np.maximum(begin, self.starts[index])
        return np.where(end - start > target, begin + target, end)

    def fill(self, document, begin, target):
        """Returns the last sentence end within the target length.

        If no sentence fits, the sentence is split at the target.
        """
        limit = np.minimum(begin + target, self.stops[document])
        index = np.searchsorted(self.ends, limit, side="right") - 1
        end = self.ends[np.maximum(index, 0)]
        return np.where((index >= 0) & (end > begin), end, limit)

    def split(self, begin, end, uniform):
        """Returns a random sentence end in between, or else the middle.

        Returns (offsets, whether they are sentence ends).
        """
        low = np.searchsorted(self.ends, begin, side="right")
        count = np.searchsorted(self.ends, end) - low
        chosen = low + (uniform * count).astype(np.int64)
        chosen = np.minimum(chosen, len(self.ends) - 1)
        middle = np.where(count > 0, self.ends[chosen], (begin + end) // 2)
        return middle, count > 0

    def segment(self, document, target, uniform):
        """Returns (begin, end): from a random sentence to the target length."""
        count = self.last[document] + 1 - self.first[document]
        sentence = self.first[document] + (uniform * count).astype(np.int64)
        begin = self.starts[sentence]
        return begin, self.gather(document, begin, np.maximum(target, 1))


class _RandomNumbers:
    """Random numbers of one step, an array with one value per document."""

    def __init__(
        self, generator: np.random.Generator, count: int, max_tokens: int
    ):
        self._generator, self._count = generator, count
        self.max_tokens = max_tokens

    def uniform(self) -> np.ndarray:
        return self._generator.random(self._count)

    def coin(self) -> np.ndarray:
        return self.uniform() < 0.5

    def target(self, short_probability: float) -> np.ndarray:
        """Returns target lengths: max_tokens, or with a probability shorter."""
        short = 2 + (self.uniform() * (self.max_tokens - 1)).astype(np.int64)
        is_short = self.uniform() < short_probability
        return np.where(is_short, short, self.max_tokens)

    def pairs(self, first, second, labels):
        """Truncates segments to max_tokens together, each at a random end.

        The longer one is truncated first: for max_tokens 10, lengths (8, 4)
        become (6, 4) and (8, 7) become (5, 5).
        """
        sizes = [end - begin for begin, end in (first, second)]
        shorter, longer = np.minimum(*sizes), np.maximum(*sizes)
        room = self.max_tokens
        longer = np.minimum(longer, np.maximum(room - shorter, -(-room // 2)))
        shorter = np.minimum(shorter, room - longer)
        first_is_longer = sizes[0] > sizes[1]
        spans = [
            self._truncate(first, np.where(first_is_longer, longer, shorter)),
            self._truncate(second, np.where(first_is_longer, shorter, longer)),
        ]
        return (*spans, labels.astype(np.int32))

    def _truncate(self, span, size):
        """Removes tokens at a random end of each span until it has `size`."""
        begin, end = span
        begin = np.where(self.coin(), begin, end - size)
        return np.stack([begin, begin + size], axis=1)


def _next_sentence(
    source: _Source,
    random_numbers: _RandomNumbers,
    document: np.ndarray,
    begin: np.ndarray,
    target: np.ndarray,
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    end = source.gather(document, begin, target)
    middle, between_sentences = source.split(
        begin, end, random_numbers.uniform()
    )
    is_random = random_numbers.coin()
    # Do not split a single sentence that is shorter than the target.
    is_unsplit = is_random & (end - begin < target) & ~between_sentences
    middle = np.where(is_unsplit, end, middle)
    # A random document other than this one.
    num_others = len(source.stops) - 1
    other_document = (random_numbers.uniform() * num_others).astype(np.int64)
    other_document += other_document >= document
    random_segment = source.segment(
        other_document, target - (middle - begin), random_numbers.uniform()
    )
    second = [
        np.where(is_random, *both)
        for both in zip(random_segment, (middle, end), strict=True)
    ]
    pairs = random_numbers.pairs((begin, middle), second, is_random)
    return pairs, np.where(is_random, middle, end)


def _sentence_order(
    source: _Source,
    random_numbers: _RandomNumbers,
    document: np.ndarray,
    begin: np.ndarray,
    target: np.ndarray,
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    end = source.gather(document, begin, target)
    middle, _ = source.split(begin, end, random_numbers.uniform())
    is_swapped = random_numbers.coin()
    first = np.where(is_swapped, [middle, end], [begin, middle])
    second = np.where(is_swapped, [begin, middle], [middle, end])
    return random_numbers.pairs(first, second, is_swapped), end


def _full_sentences(
    source: _Source,
    random_numbers: _RandomNumbers,
    document: np.ndarray,
    begin: np.ndarray,
    target: np.ndarray,
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    end = source.fill(document, begin, target)
    first = np.stack([begin, end], axis=1)
    second = np.stack([end, end], axis=1)
    return (first, second, np.zeros(len(begin), np.int32)), end


_NO_PAIRS = (
    np.zeros((0, 2), np.int64),
    np.zeros((0, 2), np.int64),
    np.zeros(0, np.int32),
)
_OBJECTIVES: dict[str, Callable[..., Any]] = {
    "nsp": _next_sentence,
    "sop": _sentence_order,
    "none": _full_sentences,
}
