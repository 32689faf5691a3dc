"""Compares two detectors of questions without an answer (SQuAD 2.0).

One is the [CLS] margin that answers are decided by, the other needs no score of
[CLS]: the best start of the context lies behind its best end. A context of
several windows counts by the window of its best span.

python -m benchmarks.unanswerable --checkpoint=runs/squad2 --data=dev.json
"""

from collections.abc import Iterable, Sequence

import numpy as np
from absl import flags

import benchmarks
from bert_keras import console, errors, predictor
from bert_keras.tasks import base, question_answering

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "A fine-tuned model of question answering."
)
_DATA = flags.DEFINE_string("data", None, "Questions as SQuAD's JSON.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Questions.", 1)
flags.mark_flags_as_required(["checkpoint", "data"])


def crossed(
    start: np.ndarray, end: np.ndarray, is_context: np.ndarray
) -> np.ndarray:
    """Returns whether the best start lies behind the best end.

    start, end: logits (W, S); is_context (W, S) bool: where to look for the
    best ones -> (W,) bool.
    """
    best_start, best_end = (
        np.where(is_context, logits, -np.inf).argmax(axis=1)
        for logits in (start, end)
    )
    return best_start > best_end


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Returns the area under the ROC curve; equal scores count as half.

    scores (T,), labels (T,) bool, of both kinds.
    """
    positive, negative = scores[labels], scores[~labels]
    above = positive[:, np.newaxis] > negative
    equal = positive[:, np.newaxis] == negative
    return float(np.mean(above + 0.5 * equal))


def detection(predicted: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Returns accuracy, and F1 of the questions without an answer."""
    both = np.sum(predicted & labels)
    return (
        float(np.mean(predicted == labels)),
        float(2 * both / max(np.sum(predicted) + np.sum(labels), 1)),
    )


def scores(
    model: predictor.Predictor,
    examples: Sequence[base.Example],
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether start and end are crossed, and the margins, (T,) each."""
    parts: list[tuple[bool, float]] = []
    task = model.task.unwrapped
    for first in range(0, len(examples), batch_size):
        batch = examples[first : first + batch_size]
        raw = base.as_tensors(batch, task.text_columns)
        features = task.preprocess(raw, model.tokenizer)
        outputs = task.infer(model.model, features)
        decoded = task.decode(outputs, features)
        is_crossed = crossed(
            outputs["start"].numpy(),
            outputs["end"].numpy(),
            features["ends"].numpy() > 0,
        )
        best, null = decoded["score"].numpy()[:, 0], decoded["null"].numpy()
        index = features["example_index"].numpy()
        for number in range(len(batch)):
            windows = np.flatnonzero(index == number)
            window = windows[best[windows].argmax()]
            margin = null[windows].min() - best[window]
            parts.append((bool(is_crossed[window]), float(margin)))
    flagged, margins = zip(*parts, strict=True)
    return np.array(flagged), np.array(margins)


def table(
    flagged: np.ndarray, margins: np.ndarray, labels: np.ndarray
) -> dict[str, dict[str, str]]:
    """Returns accuracy, F1 and AUC of each detector, formatted."""
    thresholds = [-np.inf, *np.sort(margins)]
    best = max(
        thresholds, key=lambda each: detection(margins > each, labels)[0]
    )
    rows = {
        "never": (np.zeros_like(labels), np.zeros(len(labels))),
        "start behind end": (flagged, flagged.astype(float)),
        "margin of [CLS] > 0": (margins > 0, margins),
        "margin, best threshold of these rows": (margins > best, margins),
    }
    result = {}
    for name, (predicted, values) in rows.items():
        accuracy, f1 = detection(predicted, labels)
        result[name] = {
            "accuracy": f"{accuracy:.3f}",
            "F1": f"{f1:.3f}",
            "AUC": f"{auc(values, labels):.3f}",
        }
    return result


def without_answer(examples: Iterable[base.Example]) -> np.ndarray:
    """Returns which questions have no answer, (T,) bool.

    Raises InputError unless there are both kinds of questions.
    """
    labels = np.array([each["is_impossible"] == "true" for each in examples])
    if labels.all() or not labels.any():
        raise errors.InputError(
            f"{_DATA.value}: expected questions with and without an answer, "
            f"found {np.sum(~labels)} and {np.sum(labels)}."
        )
    return labels


def main(_: list[str]) -> None:
    model = predictor.load(str(_CHECKPOINT.value))
    task = model.task.unwrapped
    if not isinstance(task, question_answering.QuestionAnswering):
        raise errors.InputError(
            f"{_CHECKPOINT.value}: expected a model of question_answering, "
            f"found {task.name}."
        )
    examples = list(task.read_examples(str(_DATA.value)))
    labels = without_answer(examples)
    flagged, margins = scores(model, examples, _BATCH_SIZE.value)
    console.output.print(
        f"{len(labels):,} questions, {np.mean(labels):.1%} without an answer. "
        f"The best start is behind the best end in {np.mean(flagged):.1%}: "
        f"{np.mean(flagged[labels]):.1%} of those without an answer, "
        f"{np.mean(flagged[~labels]):.1%} of the others."
    )
    console.comparison(
        "Questions without an answer", table(flagged, margins, labels)
    )


if __name__ == "__main__":
    benchmarks.run(main)
