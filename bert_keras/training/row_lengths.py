"""Lengths of rows and of their targets, of which records store no padding."""

from collections.abc import Mapping, Sequence

import numpy as np

from bert_keras import errors
from bert_keras.tasks import base


def of_rows(task: base.Task, mask: np.ndarray) -> np.ndarray:
    """Returns each row's number of tokens (W,), from padding_mask (W, S).

    Raises InputError if records, which store only lengths, would lose a part
    of the mask.
    """
    lengths = (mask > 0).sum(axis=1)
    if (mask[:, ::-1].cumsum(axis=1) > 0).sum() != lengths.sum():
        raise errors.InputError(
            f"{task.name}: expected padding at the end of each row, but "
            "padding_mask has a 0 before the last token."
        )
    if mask.max(initial=0) > 1 and "padding_mask" not in task.stored_features:
        raise errors.InputError(
            f"{task.name}: padding_mask numbers several texts in a row, which "
            'records would not keep. Name "padding_mask" in the task\'s '
            "stored_features."
        )
    return lengths


def of_targets(
    task: base.Task, values: Mapping[str, np.ndarray], names: Sequence[str]
) -> np.ndarray:
    """Returns each row's number of target tokens (W,), from weights (W, T).

    values: features by their names in records, such as "targets/TERM/weights".
    names: those with the axis TARGET_TOKENS, (W, T, ...).

    Raises InputError if the shapes or the weights of the terms contradict each
    other, if a weight is 0 at a token, or if targets are too long.
    """
    terms = [
        name.removeprefix("targets/").removesuffix("/weights")
        for name in names
        if name.startswith("targets/") and name.endswith("/weights")
    ]
    if not terms:
        raise errors.InputError(
            f"{task.name}: expected a loss term with the axis "
            f"{base.TARGET_TOKENS}, whose weights specify the length of "
            f"{', '.join(names)}; found none. Name one in target_axes."
        )
    _require_same_width(task, {name: values[name] for name in names})
    lengths = {
        term: _of_term(task, term, values[f"targets/{term}/weights"])
        for term in terms
    }
    first = lengths[terms[0]]
    for term in terms[1:]:
        if (lengths[term] != first).any():
            raise errors.InputError(
                f"{task.name}: expected one number of target tokens per row, "
                f"but the terms {terms[0]} and {term} have weights > 0 at "
                "different tokens. Give them weights > 0 at the same ones."
            )
    longest, maximum = int(first.max(initial=0)), task.max_target_length
    if maximum is None or longest > maximum:
        raise errors.InputError(
            f"{task.name}: expected targets of at most {maximum or 0} tokens "
            f"(max_target_length), but {terms[0]} has one of {longest}. "
            "Truncate them in make_targets."
        )
    return first


def _require_same_width(
    task: base.Task, values: Mapping[str, np.ndarray]
) -> None:
    """Raises InputError unless all values are (W, T, ...) with equal W, T."""
    shapes = {name: value.shape for name, value in values.items()}
    if (
        min(map(len, shapes.values())) < 2
        or len({shape[:2] for shape in shapes.values()}) > 1
    ):
        raise errors.InputError(
            f"{task.name}: expected shapes (W, T, ...) with the same T of all "
            f"features with the axis {base.TARGET_TOKENS}, found {shapes}."
        )


def _of_term(task: base.Task, term: str, weights: np.ndarray) -> np.ndarray:
    lengths = (weights > 0).sum(axis=1)
    is_token = np.arange(weights.shape[1]) < lengths[:, np.newaxis]
    wrong = ((weights != 0) != is_token).any(axis=1)
    if wrong.any():
        found = weights[wrong.argmax()][:20].tolist()
        raise errors.InputError(
            f"{task.name}: expected weights of the term {term} > 0 at the "
            "tokens of a row's target and 0 at the padding after them, found "
            f"{found}. Records would lose a token of weight 0."
        )
    return lengths
