"""Verifies that an exported model gives the same answers as the original."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bert_keras.tasks import base

# Texts for the comparison: from empty to truncated, in two languages, some with
# a [MASK].
SENTENCES = (
    "A moving story, told with great care and played without a false note.",
    "The plot is thin, the jokes are old and the film is far too long.",
    "The capital of France is [MASK], and it has been so for centuries.",
    "She bought a new [MASK] because the old one had stopped working.",
    "On 14 July 2021 the river rose 8.5 metres; 1,200 people had to leave.",
    "Fine.",
    "这部电影的故事很感人，演员的表演也非常出色。",
    "酒店的房间又小又脏，服务员的态度很差，不会再来了。",
    "今天天气很好，我们一起去公园[MASK]步。",
    "北京是中国的首[MASK]。",
    "他在 iPhone 上看完了整部 Star Wars，觉得 still OK。",
    "",
    "The committee met again on Tuesday and could not agree. " * 40,
)


class ExportError(RuntimeError):
    """The model cannot be exported, or the export gives other answers."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference between two sets of answers."""

    # Largest difference of two numbers; relative for numbers above 1.
    distance: float
    agreement: float  # fraction of rows with equal strings and integers
    texts: int = len(SENTENCES)

    def require(self, *, distance: float, agreement: float) -> None:
        """Raises ExportError if the difference is larger than allowed."""
        if self.distance > distance or self.agreement < agreement:
            raise ExportError(
                "what was written does not answer like the model: numbers "
                f"differ by {self.distance:.2g} (allowed: {distance:.2g}) and "
                f"{self.agreement:.0%} of the labels agree (needed: "
                f"{agreement:.0%}). Nothing was exported."
            )


def sentences(task: base.Task) -> dict[str, tf.Tensor]:
    """Returns SENTENCES by text column; a pair is a sentence and the next."""
    return {
        name: tf.constant(SENTENCES[index:] + SENTENCES[:index])
        for index, name in enumerate(task.text_columns)
    }


def compare(
    got: Mapping[str, Any],
    want: Mapping[str, Any],
    *,
    ranked: Sequence[str] = (),
) -> Difference:
    """Compares two sets of answers: {name: (T, ...)}.

    ranked: the answers with lists sorted by score, in their last axis; only
      the first of each list has to agree.

    Numbers are compared for the texts whose strings and integers agree. Raises
    ExportError for other names, other shapes, NaN and infinity.
    """
    if set(got) != set(want):
        raise ExportError(
            f"expected the answers {sorted(want)}, got {sorted(got)}."
        )
    agree, distances = np.ones(1, bool), []
    for name, value in want.items():
        expected, actual = np.asarray(value), np.asarray(got[name])
        if expected.ndim != actual.ndim or len(expected) != len(actual):
            raise ExportError(
                f"{name}: expected the shape {expected.shape}, got "
                f"{actual.shape}."
            )
        if expected.shape != actual.shape:
            # One list is longer: a text with more items does not agree.
            expected, actual, more = _common(expected, actual)
            agree = agree & ~more
        inner = tuple(range(1, expected.ndim))
        if expected.dtype.kind == "f":
            _finite(expected, f"the model itself answers {name}")
            _finite(actual, f"what was written answers {name}")
            distance = np.abs(actual - expected) / np.maximum(
                1.0, np.abs(expected)
            )
            distances.append(distance.max(axis=inner, initial=0.0))
        else:
            if name in ranked and expected.ndim > 1:
                expected, actual = expected[..., :1], actual[..., :1]
            agree = agree & np.all(expected == actual, axis=inner)
    # Where the label differs, its scores are not comparable.
    numbers = [np.max(d, where=agree, initial=0.0) for d in distances]
    share = float(agree.mean()) if agree.size else 1.0
    return Difference(float(max(numbers, default=0.0)), share)


def _common(
    expected: np.ndarray, actual: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Any]:
    """Truncates both to the shorter width; also (T,) bool: text had more."""
    width = min(expected.shape[1], actual.shape[1])
    longer = expected if expected.shape[1] > width else actual
    rest = longer[:, width:]
    empty = rest == b"" if rest.dtype == object else np.isin(rest, (0, -1))
    more = ~empty.reshape(len(rest), -1).all(axis=1)
    return expected[:, :width], actual[:, :width], more


def _finite(values: np.ndarray, what: str) -> None:
    if not np.all(np.isfinite(values)):
        raise ExportError(f"{what} with NaN or infinity. Nothing was exported.")
