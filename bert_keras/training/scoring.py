"""Averages of losses and metrics over the batches of an evaluation."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bert_keras.tasks import base
from bert_keras.training import step as step_lib


def score(
    task: base.Task,
    evaluate_step: Callable[[step_lib.Batch], Mapping[str, Any]],
    batches: Iterable[step_lib.Batch],
) -> dict[str, float]:
    """Returns the means of `average`, and the task's metrics of these means."""
    return task.summarize(average(evaluate_step, batches))


def average(
    evaluate_step: Callable[[step_lib.Batch], Mapping[str, Any]],
    batches: Iterable[step_lib.Batch],
) -> dict[str, float]:
    """Returns weighted means over all batches: total sum / total weight.

    evaluate_step: batch -> {metric: (2,) sum and weight}.
    """
    totals: dict[str, Any] = {}
    for batch in batches:
        for name, pair in evaluate_step(batch).items():
            totals[name] = totals.get(name, 0.0) + pair.numpy()
    return {
        name: float(total / weight) if weight else 0.0
        for name, (total, weight) in totals.items()
    }
