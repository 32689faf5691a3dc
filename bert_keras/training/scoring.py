"""Metrics of answers to labelled rows, with what makes them meaningless."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bert_keras import console, errors, predictor
from bert_keras.tasks import base

Tables = dict[str, base.Table]


def score(
    task: base.Task,
    answers: Sequence[Mapping[str, Any]],
    rows: Sequence[base.Row],
) -> tuple[dict[str, float], Tables]:
    """Metrics and tables of the answers.

    All metrics are NaN, and there are no tables, if an answer holds NaN or
    infinity: an argmax over NaN is the first class, and some rows have it.
    """
    metrics = task.metrics(answers, rows)
    try:
        scores = {name: float(value) for name, value in metrics.items()}
    except (AttributeError, TypeError, ValueError):
        raise errors.InputError(
            f"the metrics of {task.name} are {str(metrics)[:100]}; expected a "
            "dict of names and numbers."
        ) from None
    broken = sum(not predictor.is_finite(answer) for answer in answers)
    if not broken:
        return scores, task.tables(answers, rows)
    console.say(
        f"{broken:,} of {len(answers):,} answers hold NaN or infinity: the "
        "weights are damaged, or the learning rate was too high"
    )
    return dict.fromkeys(scores, math.nan), {}
