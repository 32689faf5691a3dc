"""The interface of a sentence objective, and what it samples from.

A new objective is one file with one subclass of `SentenceObjective`. The
preparation imports it, by the name that its user gives; records and checkpoints
contain the names of its classes only.

Shapes: D documents, each of which gives one instance of a step. Offsets are
those of the tokens of all documents.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from bert_keras import errors, options, registry

_PACKAGE = "bert_keras.sentence_objectives"
CLASSES = "sentence_classes"  # a manifest's field: the names of the classes
# The classes of the published objectives of two. Neither manifests nor
# checkpoints contain their names: those of version 0.1 do not.
BINARY: Mapping[str, tuple[str, ...]] = {
    "nsp": ("next sentence", "random sentence"),
    "sop": ("in order", "swapped"),
}

Span = tuple[np.ndarray, np.ndarray]  # begin and end, each (D,)


class Sample(NamedTuple):
    """An instance of each document, before it is truncated.

    labels (D,): indices of `class_names`. next_begin (D,): the offset at which
    the document's next instance begins, after that of this one.
    """

    first: Span
    second: Span
    labels: np.ndarray
    next_begin: np.ndarray


class SentenceObjective:
    """Samples two segments of each document, and the class of the pair."""

    #: The names of the classes, by label. () is for rows of one segment.
    class_names: ClassVar[tuple[str, ...]] = ()

    def sample(self, step: "Step") -> Sample:
        """Returns an instance of each document that has tokens left.

        Everything random is drawn from `step`, so that the seed determines it.
        """
        raise NotImplementedError


class Boundaries:
    """Sentence boundaries of documents, looked up for many offsets at once."""

    def __init__(self, sentence_ends: np.ndarray, document_ends: np.ndarray):
        self.ends = sentence_ends
        self.starts = np.append(0, self.ends[:-1])
        self.stops = document_ends
        self.begins = np.append(0, self.stops[:-1])
        # Documents' first and last sentences.
        self.last = np.searchsorted(self.ends, self.stops)
        self.first = np.append(0, self.last[:-1] + 1)


class Step:
    """One step of sampling: an instance of each of D documents at once.

    document (D,): their numbers; begin (D,): where their instances begin;
    stop (D,): the documents' ends; target (D,): the lengths that the instances
    should have, max_tokens or with short_probability a shorter one, from 2.
    """

    def __init__(
        self,
        boundaries: Boundaries,
        generator: np.random.Generator,
        document: np.ndarray,
        begin: np.ndarray,
        *,
        max_tokens: int,
        short_probability: float,
    ):
        self._boundaries, self._generator = boundaries, generator
        self.document, self.begin = document, begin
        self.stop = boundaries.stops[document]
        short = 2 + (self.uniform() * (max_tokens - 1)).astype(np.int64)
        is_short = self.uniform() < short_probability
        self.target = np.where(is_short, short, max_tokens)

    def uniform(self) -> np.ndarray:
        """Returns random numbers in [0, 1), (D,)."""
        return self._generator.random(len(self.begin))

    def coin(self) -> np.ndarray:
        """Returns random booleans, (D,)."""
        return self.uniform() < 0.5

    def gather(self) -> np.ndarray:
        """Returns the first sentence end that reaches the target length.

        If there is none, it is the document's end; a sentence longer than the
        target is split at the target.
        """
        return self._gather(self.document, self.begin, self.target)

    def _gather(self, document, begin, target):
        at = self._boundaries
        index = np.searchsorted(at.ends, begin + target)
        index = np.minimum(index, at.last[document])
        end = at.ends[index]
        start = np.maximum(begin, at.starts[index])
        return np.where(end - start > target, begin + target, end)

    def fill(self) -> np.ndarray:
        """Returns the last sentence end within the target length.

        If no sentence fits, the sentence is split at the target.
        """
        ends = self._boundaries.ends
        limit = np.minimum(self.begin + self.target, self.stop)
        index = np.searchsorted(ends, limit, side="right") - 1
        end = ends[np.maximum(index, 0)]
        return np.where((index >= 0) & (end > self.begin), end, limit)

    def split(
        self, begin: np.ndarray, end: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns a random sentence end in between, or else the middle.

        Returns (offsets (D,), whether they are sentence ends (D,)). The middle
        of a single token is its begin.
        """
        ends, uniform = self._boundaries.ends, self.uniform()
        low = np.searchsorted(ends, begin, side="right")
        count = np.searchsorted(ends, end) - low
        chosen = low + (uniform * count).astype(np.int64)
        chosen = np.minimum(chosen, len(ends) - 1)
        middle = np.where(count > 0, ends[chosen], (begin + end) // 2)
        return middle, count > 0

    def other_segment(self, target: np.ndarray) -> Span:
        """Returns sentences of the target length (D,) of random documents.

        Each is of another document than the instance, from a random sentence.
        Raises InputError if there is only one document.
        """
        at = self._boundaries
        num_others = len(at.stops) - 1
        if not num_others:
            raise errors.InputError(
                "sentence_objective draws from another document, but there is "
                "only one. Put blank lines between documents, or use the "
                "objective sop or none.",
                argument="sentence_objective",
            )
        other = (self.uniform() * num_others).astype(np.int64)
        other += other >= self.document
        count = at.last[other] + 1 - at.first[other]
        sentence = at.first[other] + (self.uniform() * count).astype(np.int64)
        begin = at.starts[sentence]
        return begin, self._gather(other, begin, np.maximum(target, 1))

    def replace_second(
        self,
        end: np.ndarray,
        middle: np.ndarray,
        between_sentences: np.ndarray,
        is_random: np.ndarray,
    ) -> tuple[Span, Span, np.ndarray]:
        """Replaces second halves by segments of other documents.

        end is that of `gather`, middle and between_sentences are the result of
        `split`; is_random (D,): which are replaced. Returns the first and the
        second segment, and `next_begin`: what was replaced is gathered again.
        """
        # Do not split a single sentence that is shorter than the target.
        is_unsplit = is_random & (end - self.begin < self.target)
        middle = np.where(is_unsplit & ~between_sentences, end, middle)
        other = self.other_segment(self.target - (middle - self.begin))
        second = (
            np.where(is_random, other[0], middle),
            np.where(is_random, other[1], end),
        )
        next_begin = np.where(is_random, middle, end)
        return (self.begin, middle), second, next_begin


def find(name: str) -> SentenceObjective:
    """Imports the objective of a file of this folder, or of a user's module.

    Never call it with a name from data. Raises InputError if there is none, or
    if it does not have two or more classes with different names.
    """
    objective = registry.import_class(_PACKAGE, name, SentenceObjective)()
    classes: Any = objective.class_names
    if canonical_name(objective) != "none" and (
        not isinstance(classes, tuple)
        or len(classes) < 2
        or not all(isinstance(each, str) and each for each in classes)
    ):
        raise errors.InputError(
            f"sentence_objective={name}: expected class_names, a tuple of two "
            f"or more names, found {classes!r}.",
            argument="sentence_objective",
        )
    options.require_distinct(f"sentence_objective={name}", classes)
    return objective


def canonical_name(objective: SentenceObjective) -> str:
    """Returns the name by which records know an objective."""
    return registry.name_of(_PACKAGE, type(objective))


def class_names(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the classes of records; () for rows of one text."""
    published = BINARY.get(manifest.get("objective", "none"), ())
    return tuple(manifest.get(CLASSES, published))


def names() -> list[str]:
    """Returns the names of the package's objectives."""
    return registry.names(_PACKAGE)
