"""The sentences of a text that are most like its summary, chosen greedily.

They are the labels of extractive summarization, and the bound of what it can
reach (Liu and Lapata 2019, section 4.1).
"""

import collections
from collections.abc import Sequence

from bert_keras.metrics import generation

_Counts = collections.Counter[tuple[str, ...]]


def greedy(
    sentences: Sequence[str], references: Sequence[str], max_sentences: int
) -> list[int]:
    """Returns the indices of at most max_sentences sentences, ascending.

    The sentence that raises `overlap` most is added to those chosen before,
    until none raises it; of equal ones the first. The sentences are in the
    order of the text.

    references: summaries, of which the most similar one counts.
    """
    words = [generation.tokens(sentence) for sentence in sentences]
    counts = [_ngrams(generation.tokens(text)) for text in references]
    chosen: list[int] = []
    best = 0.0
    for _ in range(max_sentences):
        scored = []
        for index in range(len(sentences)):
            if index in chosen or not words[index]:
                continue
            together = sorted([*chosen, index])
            text = [word for each in together for word in words[each]]
            scored.append((_overlap(_ngrams(text), counts), -index))
        score, index = max(scored, default=(0.0, 0))
        if score <= best:
            break
        best = score
        chosen.append(-index)
    return sorted(chosen)


def overlap(text: str, references: Sequence[str]) -> float:
    """Returns the sum of ROUGE-1 and ROUGE-2 F1, 0 to 2, of a text.

    They are those of `generation.rouge`. Of several references the one with the
    largest sum counts.
    """
    counts = [_ngrams(generation.tokens(each)) for each in references]
    return _overlap(_ngrams(generation.tokens(text)), counts)


def _ngrams(words: Sequence[str]) -> tuple[_Counts, _Counts]:
    pairs = zip(words, words[1:], strict=False)
    return (
        collections.Counter((word,) for word in words),
        collections.Counter(pairs),
    )


def _overlap(
    text: tuple[_Counts, _Counts], references: Sequence[tuple[_Counts, _Counts]]
) -> float:
    return max(sum(map(_f1, text, reference)) for reference in references)


def _f1(text: _Counts, reference: _Counts) -> float:
    total = text.total() + reference.total()
    return 2 * (text & reference).total() / total if total else 0.0
