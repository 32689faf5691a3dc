"""Rows of records as a task learns from them: its input and its targets."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from bert_keras import errors, masked_rows
from bert_keras.data import batches as batches_lib
from bert_keras.sentence_objectives import base as objectives
from bert_keras.tasks import base, next_sentence
from bert_keras.tokenizers import base as tokenizers
from bert_keras.training import input_pipeline, pretrain

BATCH = 1000  # rows whose statistics are computed
# Terms whose labels are numbers and not tokens, and one known in training only.
_NUMBERS = ("token_order", "is_chosen")
_MASKS = ("masked_lm", "generator")
_UNKNOWN = ("replaced",)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row as text: its input, and the targets by loss term."""

    input: str
    targets: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Shown:
    """Some rows, and statistics of more of them, as numbers or shares."""

    rows: list[Row]
    statistics: Mapping[str, float]


def read(
    folder: str, task: base.Task, *, count: int, step: int = 0, steps: int = 1
) -> Shown:
    """Reads rows as step `step` of `steps` reads them, in the records' order.

    folder: of prepared records. count: how many rows are shown; the statistics
    are those of up to 1,000 rows.
    """
    if not 0 <= step < steps:
        raise errors.InputError(
            f"step={step}: expected one before the last of {steps} steps, from "
            "0.",
            argument="step",
        )
    train, _ = input_pipeline.open_records(folder)
    tokenizer = train.tokenizer()
    task = pretrain.adapted(task, train, tokenizer)
    if tokenizer.feature != "token_ids":
        raise errors.InputError(
            f"{folder}: expected records of token ids, found "
            f"{tokenizer.feature}.",
            argument="records",
        )
    sampler = batches_lib.BatchSampler(
        train.lengths, max(BATCH, count), shuffle=False
    )
    # Without a shuffle every epoch has these rows, with draws of its own.
    first = step * sampler.steps_per_epoch
    stream = batches_lib.stream(train, sampler, start_step=first)
    total = max(1, steps) * sampler.steps_per_epoch
    batch = next(iter(input_pipeline.completed(task, stream, total)))
    original = next(iter(stream))["inputs"]["token_ids"].numpy()
    features = {name: x.numpy() for name, x in batch["inputs"].items()}
    targets = {
        term: (labels.numpy(), weights.numpy())
        for term, (labels, weights) in batch["targets"].items()
    }
    classes = objectives.class_names(train.manifest)
    rows = [
        _row(number, features, targets, tokenizer, classes)
        for number in range(min(count, len(train)))
    ]
    return Shown(rows, _statistics(task, original, features, targets))


def _row(
    number: int,
    features: Mapping[str, np.ndarray],
    targets: Mapping[str, tuple[np.ndarray, np.ndarray]],
    tokenizer: tokenizers.Tokenizer,
    classes: Sequence[str],
) -> Row:
    length = int((features["padding_mask"][number] > 0).sum())
    ids = features["token_ids"][number][:length]
    shown = {}
    for term, (labels, weights) in targets.items():
        if term in _UNKNOWN:
            continue
        if labels.ndim == 1:
            label = labels[number]
            is_named = term == next_sentence.HEAD
            shown[term] = classes[label] if is_named else str(label)
            continue
        counted = np.flatnonzero(weights[number] > 0)
        at = counted
        positions = features.get("positions")
        if positions is not None and positions.shape == labels.shape:
            at = positions[number][counted]
        values = labels[number][counted]
        words = tokenizer.tokens(values)
        if term in _NUMBERS:
            words = [str(value) for value in values]
        shown[term] = ", ".join(
            f"{place} {word}" for place, word in zip(at, words, strict=True)
        )
    return Row(" ".join(tokenizer.tokens(ids)), shown)


def _statistics(
    task: base.Task,
    original: np.ndarray,
    features: Mapping[str, np.ndarray],
    targets: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> dict[str, float]:
    """Returns shares of the hidden tokens; {} for tasks that hide none."""
    inner = task.unwrapped
    term = next((t for t in _MASKS if t in targets), None)
    if not isinstance(inner, masked_rows.MaskedRows) or term is None:
        return {}
    labels, weights = targets[term]
    is_hidden = weights > 0
    read = np.take_along_axis(
        features["token_ids"], features["positions"], axis=1
    )[is_hidden]
    hidden = labels[is_hidden]
    texts = (features["padding_mask"] > 0) & ~np.isin(
        original, inner.special_ids
    )
    total = max(len(hidden), 1)
    return {
        "rows": float((features["padding_mask"] > 0).any(axis=1).sum()),
        "tokens hidden": len(hidden) / max(int(texts.sum()), 1),
        "of them [MASK]": float((read == inner.mask_id).sum()) / total,
        "of them as they were": float((read == hidden).sum()) / total,
        "special tokens hidden": float(
            np.isin(hidden, inner.special_ids).sum()
        ),
    }
