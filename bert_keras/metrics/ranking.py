"""Metrics of a search: the rank of the right text among candidates."""

import bisect
import math
from collections.abc import Sequence

import numpy as np

ROWS = 1000  # queries that are compared with all candidates at a time


def ranks(
    queries: np.ndarray,
    candidates: np.ndarray,
    own: Sequence[int],
    right: Sequence[set[int]],
) -> np.ndarray:
    """Returns the rank of each query's own candidate by cosine, from 1: (T,).

    queries (T, H), candidates (D, H); own: the index of the own candidate;
    right: the indices of all right ones, of which the others are left out. A
    candidate with an equal cosine counts as a better one, so that equal vectors
    for all texts are no good answer.
    """
    queries, candidates = _unit(queries), _unit(candidates)
    result = []
    for start in range(0, len(queries), ROWS):
        cosines = queries[start : start + ROWS] @ candidates.T
        for row, scores in enumerate(cosines, start):
            is_better = scores >= scores[own[row]]
            is_better[list(right[row])] = False
            result.append(1 + int(is_better.sum()))
    return np.array(result, np.int64)


def grouped_ranks(
    groups: Sequence[str], scores: Sequence[float], is_right: Sequence[bool]
) -> np.ndarray:
    """Returns the rank of each right row in its group, from 1: (R,).

    groups, scores, is_right: (T,). Other right rows of the group are left out;
    a row with an equal score counts as a better one. A right row of a group
    without others has no rank.
    """
    wrong: dict[str, list[float]] = {}
    rows = list(zip(groups, scores, is_right, strict=True))
    for group, score, right in rows:
        if not right:
            wrong.setdefault(group, []).append(score)
    ordered = {group: sorted(each) for group, each in wrong.items()}
    result = [
        1 + len(others) - bisect.bisect_left(others, score)
        for group, score, right in rows
        if right and (others := ordered.get(group))
    ]
    return np.array(result, np.int64)


def retrieval(ranks: np.ndarray) -> dict[str, float]:
    """Computes the mean reciprocal rank, and how often the rank is 1.

    nan without ranks.
    """
    if not len(ranks):
        return dict.fromkeys(("mrr", "accuracy_at_1"), math.nan)
    return {
        "mrr": float(np.mean(1 / ranks)),
        "accuracy_at_1": float(np.mean(ranks == 1)),
    }


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, 1e-12)
