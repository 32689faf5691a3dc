"""Metrics of predictions on labelled examples, and averages over batches."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bert_keras import console, errors, predictor
from bert_keras.tasks import base
from bert_keras.training import step as step_lib

Tables = dict[str, base.Table]


def score(
    task: base.Task,
    answers: Sequence[Mapping[str, Any]],
    examples: Sequence[base.Example],
) -> tuple[dict[str, float], Tables]:
    """Returns metrics and tables of the answers.

    If an answer contains NaN or infinity, all metrics are NaN and there are no
    tables: argmax over NaN gives class 0, which would be right for some rows.
    """
    values = task.metrics(answers, examples)
    try:
        metrics = {name: float(value) for name, value in values.items()}
    except (AttributeError, TypeError, ValueError):
        raise errors.InputError(
            f"the metrics of {task.name} are {str(values)[:100]}; expected a "
            "dict of names and numbers."
        ) from None
    broken = sum(not predictor.is_finite(answer) for answer in answers)
    if not broken:
        return metrics, task.tables(answers, examples)
    console.say(
        f"{broken:,} of {len(answers):,} answers hold NaN or infinity: the "
        "weights are damaged, or the learning rate was too high"
    )
    return dict.fromkeys(metrics, math.nan), {}


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
