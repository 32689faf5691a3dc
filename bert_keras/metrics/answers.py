"""Exact match and F1 of answers against gold texts.

`English` follows the evaluation script of SQuAD 2.0, `Chinese` that of
CMRC 2018. Both score one answer against one gold text; `best` takes the best
score over several gold texts, and `best_threshold` finds the no-answer
threshold.
"""

import collections
import dataclasses
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class AnswerMetrics:
    exact_match: float
    f1: float


class English:
    """Compares words, without case, ASCII punctuation and articles."""

    def segments(self, text: str) -> list[str]:
        text = text.lower().translate(_WITHOUT_PUNCTUATION)
        return re.sub(r"\b(?:a|an|the)\b", " ", text).split()

    def score(self, answer: str, gold: str) -> AnswerMetrics:
        """Computes exact match, and F1 from the number of shared words.

        The order of the words does not change F1.
        """
        predicted, expected = self.segments(answer), self.segments(gold)
        common = collections.Counter(predicted) & collections.Counter(expected)
        return AnswerMetrics(
            float(predicted == expected),
            _f1(common.total(), len(predicted), len(expected)),
        )


class Chinese:
    """Compares Chinese characters and non-Chinese words.

    Case and the punctuation that CMRC's script removes are ignored. Text that
    is not Chinese is split into words by a regular expression; the original
    script calls NLTK.
    """

    def segments(self, text: str) -> list[str]:
        return _SEGMENT.findall(self._normalize(text))

    def score(self, answer: str, gold: str) -> AnswerMetrics:
        """Computes exact match, and F1 from the longest common run.

        A run is a sequence of consecutive segments.
        """
        predicted, expected = self.segments(answer), self.segments(gold)
        common = _longest_common_run(predicted, expected)
        return AnswerMetrics(
            float(self._normalize(answer) == self._normalize(gold)),
            _f1(common, len(predicted), len(expected)),
        )

    def _normalize(self, text: str) -> str:
        return text.lower().strip().translate(_WITHOUT_MARKS)


Language = English | Chinese


def question_answering(
    predictions: Sequence[Mapping[str, Any]],
    golds: Sequence[Sequence[str]],
    language: Language,
    *,
    unanswerable: bool,
) -> dict[str, float]:
    """Computes mean F1 and exact match of the predictions.

    predictions: {"answer", "answers": the best spans, "no_answer_score"}.
    golds: the gold texts of each question.
    unanswerable: whether some questions have no answer. Then best_f1 is the F1
      with the best no-answer threshold, best_f1_threshold, which is chosen on
      these same predictions; likewise best_exact_match.
    """
    scored = _metrics_by_name(
        [p["answer"] for p in predictions], golds, language
    )
    means = {
        name: sum(values) / len(predictions) for name, values in scored.items()
    }
    if not unanswerable:
        return means
    best_texts = [p["answers"][0] if p["answers"] else "" for p in predictions]
    answered = _metrics_by_name(best_texts, golds, language)
    unanswered = _metrics_by_name([""] * len(predictions), golds, language)
    no_answer_scores = [p["no_answer_score"] for p in predictions]
    for name in scored:
        threshold, mean = best_threshold(
            no_answer_scores, answered[name], unanswered[name]
        )
        means[f"best_{name}"] = mean
        means[f"best_{name}_threshold"] = threshold
    return means


def _metrics_by_name(
    answers: Sequence[str], golds: Sequence[Sequence[str]], language: Language
) -> dict[str, list[float]]:
    metrics = [
        best(answer, texts, language)
        for answer, texts in zip(answers, golds, strict=True)
    ]
    return {
        name: [getattr(each, name) for each in metrics]
        for name in ("f1", "exact_match")
    }


def best(
    answer: str, golds: Sequence[str], language: Language
) -> AnswerMetrics:
    """Returns the best exact match and the best F1 over the gold texts.

    If there is no gold text, or none with a word in it, the gold text is "".
    """
    golds = [gold for gold in golds if language.segments(gold)] or [""]
    metrics = [language.score(answer, gold) for gold in golds]
    return AnswerMetrics(
        max(each.exact_match for each in metrics),
        max(each.f1 for each in metrics),
    )


def best_threshold(
    no_answer_scores: Sequence[float],
    answered: Sequence[float],
    unanswered: Sequence[float],
) -> tuple[float, float]:
    """Returns the threshold with the best mean metric, and that mean.

    A question is answered if its no-answer score is at most the threshold.

    answered, unanswered: each question's metric (exact match or F1) with the
      model's best span as the answer, and with "".

    The threshold is midway between two no-answer scores, so that rounding does
    not change an answer. Of equally good thresholds it is the lowest.
    """
    order = sorted(
        range(len(no_answer_scores)), key=no_answer_scores.__getitem__
    )
    total = sum(unanswered)
    # Below the lowest score, the threshold is 1 below it.
    threshold, highest = no_answer_scores[order[0]] - 1.0, total
    for rank, index in enumerate(order):
        score = no_answer_scores[index]
        total += answered[index] - unanswered[index]
        # Above the highest score, the threshold is 1 above it.
        next_score = score + 2.0
        if rank + 1 < len(order):
            next_score = no_answer_scores[order[rank + 1]]
        if next_score > score and total > highest:
            threshold, highest = (score + next_score) / 2, total
    return threshold, highest / len(order)


def _f1(common: int, predicted: int, expected: int) -> float:
    """Computes F1 from counts; two texts without segments agree."""
    if not predicted or not expected:
        return float(predicted == expected)
    return 2 * common / (predicted + expected)


def _longest_common_run(one: Sequence[str], two: Sequence[str]) -> int:
    longest = 0
    # ending[i]: length of the common run that ends at `segment` and two[i - 1].
    ending = [0] * (len(two) + 1)
    for segment in one:
        ending = [0] + [
            length + 1 if segment == other else 0
            for length, other in zip(ending, two, strict=False)
        ]
        longest = max(longest, *ending)
    return longest


_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)

# The characters that CMRC's script removes. Its list has `……`, too, which never
# matches, as it is compared with single characters.
_MARKS = r"-:_*^/\~`+=" "，。：？！“”；’《》·、「」（）－～『』"
_WITHOUT_MARKS = str.maketrans("", "", _MARKS)

# Matches a Chinese character, a word (also `3.5` and `don't`), or a symbol.
# `_` and `’`, which `_normalize` removes, do not occur.
_WORD_CHARACTER = r"[^\W\u4e00-\u9fa5]"
_SEGMENT = re.compile(
    rf"[\u4e00-\u9fa5]|{_WORD_CHARACTER}+(?:[.,']{_WORD_CHARACTER}+)*"
    r"|[^\w\s]"
)
