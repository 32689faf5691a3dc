"""Metrics of classification and regression, computed from their definitions.

The metrics of single-label classification are computed from a confusion matrix,
which has the gold classes as rows and the predicted ones as columns, or from
the counts of each class, which very many classes leave room for.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Numbers = Sequence[float] | np.ndarray  # (T,)

# The columns of `per_class` and `per_class_multi_label`.
COLUMNS = ("precision", "recall", "f1", "gold", "predicted")


class ClassCounts(NamedTuple):
    """The diagonal and the sums of a confusion matrix, (C,) each."""

    correct: np.ndarray
    predicted: np.ndarray
    gold: np.ndarray


def class_counts(
    gold: Sequence[str], predictions: Sequence[str], labels: Sequence[str]
) -> ClassCounts:
    """Counts the examples of each class, without a matrix (C, C)."""
    class_index = {label: index for index, label in enumerate(labels)}

    def count(names):
        indices = np.array([class_index[name] for name in names], np.int64)
        return np.bincount(indices, minlength=len(labels))

    correct = [g for g, p in zip(gold, predictions, strict=True) if g == p]
    return ClassCounts(count(correct), count(predictions), count(gold))


def _class_counts(counts: np.ndarray | ClassCounts) -> ClassCounts:
    if isinstance(counts, ClassCounts):
        return counts
    return ClassCounts(np.diag(counts), counts.sum(axis=0), counts.sum(axis=1))


def single_label(counts: np.ndarray | ClassCounts) -> dict[str, float]:
    """Computes the metrics of a confusion matrix (C, C), or of its sums."""
    return {
        "accuracy": accuracy(counts),
        "f1_macro": f1_macro(per_class(counts)),
        "mcc": matthews(counts),
    }


def multi_label(
    gold: Sequence[set[str]],
    predictions: Sequence[set[str]],
    labels: Sequence[str],
) -> dict[str, float]:
    """Computes the metrics of multi-label examples.

    Accuracy is the fraction of examples whose predicted classes are exactly the
    gold ones.
    """
    correct = sum(g == p for g, p in zip(gold, predictions, strict=True))
    table = per_class_multi_label(gold, predictions, labels)
    return {
        "f1_micro": f1_micro(gold, predictions),
        "f1_macro": f1_macro(table),
        "accuracy": correct / max(1, len(gold)),
    }


def correlations(
    gold: Sequence[float], predictions: Sequence[float]
) -> dict[str, float]:
    return {
        "spearman": spearman(gold, predictions),
        "pearson": pearson(gold, predictions),
    }


def regression(
    gold: Sequence[float], predictions: Sequence[float]
) -> dict[str, float]:
    error = np.array(gold) - np.array(predictions)
    return {
        **correlations(gold, predictions),
        "mean_squared_error": float(np.mean(error**2)),
    }


def confusion(
    gold: Sequence[str], predictions: Sequence[str], labels: Sequence[str]
) -> np.ndarray:
    """Returns the confusion matrix (C, C): row = gold, column = predicted."""
    class_index = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), np.int64)
    for expected, predicted in zip(gold, predictions, strict=True):
        counts[class_index[expected], class_index[predicted]] += 1
    return counts


def per_class(counts: np.ndarray | ClassCounts) -> np.ndarray:
    """Returns (C, 5): precision, recall, F1, gold count, predicted count."""
    return _table(*_class_counts(counts))


def accuracy(counts: np.ndarray | ClassCounts) -> float:
    correct, _, gold = _class_counts(counts)
    return float(correct.sum() / max(1, gold.sum()))


def f1_macro(table: np.ndarray) -> float:
    """Averages F1 over the classes that occur in gold or in predictions.

    It is 0 if none occurs.
    """
    occurs = table[:, 3] + table[:, 4] > 0
    return float(table[occurs, 2].mean()) if occurs.any() else 0.0


def matthews(counts: np.ndarray | ClassCounts) -> float:
    """Computes the Matthews correlation coefficient (Gorodkin 2004, eq. 8).

    counts: the confusion matrix (C, C), or its sums.
    """
    correct, predicted, gold = (
        each.astype(np.float64) for each in _class_counts(counts)
    )
    total, correct = gold.sum(), correct.sum()
    numerator = correct * total - gold @ predicted
    squared_denominator = (total**2 - gold @ gold) * (
        total**2 - predicted @ predicted
    )
    if not squared_denominator:
        return 0.0
    return float(numerator / math.sqrt(squared_denominator))


def per_class_multi_label(
    gold: Sequence[set[str]],
    predictions: Sequence[set[str]],
    labels: Sequence[str],
) -> np.ndarray:
    """Returns the table of `per_class` (C, 5) of multi-label examples."""
    shared = [g & p for g, p in zip(gold, predictions, strict=True)]
    correct, predicted, expected = (
        np.array([sum(label in names for names in sets) for label in labels])
        for sets in (shared, predictions, gold)
    )
    return _table(correct, predicted, expected)


def f1_micro(
    gold: Sequence[set[str]], predictions: Sequence[set[str]]
) -> float:
    """Computes F1 over all pairs of an example and a class.

    It is 0 if there are no pairs, as `f1_macro`.
    """
    correct = sum(len(g & p) for g, p in zip(gold, predictions, strict=True))
    total = sum(map(len, gold)) + sum(map(len, predictions))
    return 2 * correct / total if total else 0.0


def pearson(one: Numbers, two: Numbers) -> float:
    """Computes the linear correlation; 0 if one of the two is constant."""
    a, b = np.asarray(one, np.float64), np.asarray(two, np.float64)
    # Compare exactly: the deviations of a constant from its mean may be
    # rounding errors, which correlate.
    if any(not x.size or x.min() == x.max() for x in (a, b)):
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm else 0.0


def spearman(one: Sequence[float], two: Sequence[float]) -> float:
    """Computes the rank correlation; equal values have their mean rank."""
    return pearson(_ranks(one), _ranks(two))


def _ranks(values: Sequence[float]) -> np.ndarray:
    _, inverse, counts = np.unique(
        np.asarray(values, np.float64), return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _table(
    correct: np.ndarray, predicted: np.ndarray, gold: np.ndarray
) -> np.ndarray:
    """Computes the columns of `per_class` from counts (C,) -> (C, 5)."""
    precision = correct / np.maximum(predicted, 1)
    recall = correct / np.maximum(gold, 1)
    f1 = 2 * correct / np.maximum(predicted + gold, 1)
    return np.stack([precision, recall, f1, gold, predicted], axis=1)
