"""Scores answers against labelled examples, for the Predictor and training."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bert_keras import console, errors
from bert_keras.tasks import base

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
    broken = sum(not is_finite(answer) for answer in answers)
    if not broken:
        return metrics, task.tables(answers, examples)
    console.say(
        f"{broken:,} of {len(answers):,} answers hold NaN or infinity: the "
        "weights are damaged, or the learning rate was too high"
    )
    return dict.fromkeys(metrics, math.nan), {}


def unseen_labels(
    task: base.Task, examples: Sequence[base.Example], source: str
) -> str:
    """Reports labels that training has not seen; returns their counts as text.

    source: what the examples are from, for the message. Returns "" if there are
    no such labels. Raises InputError if every example has one.
    """
    unseen = [set(task.unseen(example)) for example in examples]
    counts = collections.Counter(label for each in unseen for label in each)
    if not counts:
        return ""
    num_unseen = sum(map(bool, unseen))
    shown = ", ".join(
        f"{label!r} {count:,}" for label, count in counts.most_common(10)
    )
    more = f" and {len(counts) - 10:,} more" if len(counts) > 10 else ""
    text = f"{num_unseen:,} of {len(examples):,} rows: {shown}{more}"
    if num_unseen == len(examples):
        raise errors.InputError(
            f"{source}: expected labels of the training file; all "
            f"rows have others: {text}. Write labels as there, or name another "
            "column."
        )
    console.say(
        f"{source}: labels never seen in training, for which every "
        f"prediction is wrong: {text}"
    )
    return text


def baseline(
    task: base.Task, examples: Sequence[base.Example]
) -> dict[str, float]:
    """Returns metrics of trivial answers: those of the task, if it has any.

    For other tasks with one class per text the accuracy of one answer to all,
    the most frequent label: {"accuracy of always 'x'": ...}. They are for
    display, to judge the model's metrics by.
    """
    task = task.unwrapped.for_serving()
    if own := task.baselines(examples):
        return own
    if task.softmax_terms != ("label",) or "accuracy" not in task.metric_names:
        return {}
    labels = collections.Counter(str(each["label"]) for each in examples)
    ((label, count),) = labels.most_common(1)
    shown = repr(label if len(label) < 40 else f"{label[:35]}...")
    return {f"accuracy of always {shown}": count / len(examples)}


def is_finite(answer: Any) -> bool:
    """Returns whether no number in an answer is NaN or infinite."""
    if isinstance(answer, Mapping):
        answer = list(answer.values())
    if isinstance(answer, (list, tuple)):
        return all(map(is_finite, answer))
    return not isinstance(answer, float) or math.isfinite(answer)
