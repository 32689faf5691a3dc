"""Metrics of classification and regression, computed from their definitions.

The metrics of single-label classification are computed from a confusion matrix,
which has the gold classes as rows and the predicted ones as columns.
"""

import math
from collections.abc import Sequence

import numpy as np

Numbers = Sequence[float] | np.ndarray  # (T,)

# The columns of `per_class` and `of_sets`.
COLUMNS = ("precision", "recall", "f1", "rows", "answers")


def single_label(counts: np.ndarray) -> dict[str, float]:
    """Computes the metrics of a confusion matrix (C, C)."""
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
    """Computes the metrics of rows with any number of classes.

    Accuracy is the fraction of rows whose set of classes is exactly right.
    """
    same = sum(g == a for g, a in zip(gold, predictions, strict=True))
    return {
        "f1_micro": f1_micro(gold, predictions),
        "f1_macro": f1_macro(of_sets(gold, predictions, labels)),
        "accuracy": same / max(1, len(gold)),
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
    for one, other in zip(gold, predictions, strict=True):
        counts[class_index[one], class_index[other]] += 1
    return counts


def per_class(counts: np.ndarray) -> np.ndarray:
    """Returns (C, 5): precision, recall, F1, gold count, predicted count."""
    right = np.diag(counts)
    return _table(right, counts.sum(axis=0), counts.sum(axis=1))


def accuracy(counts: np.ndarray) -> float:
    return float(np.trace(counts) / max(1, counts.sum()))


def f1_macro(table: np.ndarray) -> float:
    """Averages F1 over the classes that occur in gold or in predictions."""
    occurs = table[:, 3] + table[:, 4] > 0
    return float(table[occurs, 2].mean()) if occurs.any() else 0.0


def matthews(counts: np.ndarray) -> float:
    """Computes Matthews correlation of C classes (Gorodkin 2004, eq. 8)."""
    counts = counts.astype(np.float64)
    total, right = counts.sum(), np.trace(counts)
    gold, predicted = counts.sum(axis=1), counts.sum(axis=0)
    over = right * total - gold @ predicted
    under = (total**2 - gold @ gold) * (total**2 - predicted @ predicted)
    return float(over / math.sqrt(under)) if under else 0.0


def of_sets(
    gold: Sequence[set[str]],
    predictions: Sequence[set[str]],
    labels: Sequence[str],
) -> np.ndarray:
    """Returns the table of `per_class` for rows with any number of classes."""
    pairs = list(zip(gold, predictions, strict=True))
    both = [g & a for g, a in pairs]
    return _table(
        np.array([sum(label in names for names in both) for label in labels]),
        np.array([sum(label in a for _, a in pairs) for label in labels]),
        np.array([sum(label in g for g, _ in pairs) for label in labels]),
    )


def f1_micro(
    gold: Sequence[set[str]], predictions: Sequence[set[str]]
) -> float:
    """Computes F1 over all pairs of a row and a class."""
    right = sum(len(g & a) for g, a in zip(gold, predictions, strict=True))
    both = sum(map(len, gold)) + sum(map(len, predictions))
    return 2 * right / both if both else 1.0


def pearson(one: Numbers, two: Numbers) -> float:
    """Computes linear correlation; 0 if one of the two is constant."""
    a = np.asarray(one, np.float64) - np.mean(one)
    b = np.asarray(two, np.float64) - np.mean(two)
    size = math.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size else 0.0


def spearman(one: Sequence[float], two: Sequence[float]) -> float:
    """Computes rank correlation; equal values have their mean rank."""
    return pearson(_ranks(one), _ranks(two))


def _ranks(values: Sequence[float]) -> np.ndarray:
    _, inverse, counts = np.unique(
        np.asarray(values, np.float64), return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _table(
    right: np.ndarray, predicted: np.ndarray, gold: np.ndarray
) -> np.ndarray:
    """Computes the columns of `per_class` from counts (C,) -> (C, 5)."""
    precision = right / np.maximum(predicted, 1)
    recall = right / np.maximum(gold, 1)
    f1 = 2 * right / np.maximum(predicted + gold, 1)
    return np.stack([precision, recall, f1, gold, predicted], axis=1)
