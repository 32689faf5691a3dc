"""Gives the outputs of served models a width that does not depend on the batch.

TF Serving splits large requests, computes the parts and concatenates their
outputs along the first axis without comparing the other axes (its
batching_session.cc and TensorFlow's tensor::Concat). If each part had the width
of its longest row, the server would crash or return other texts' answers.
"""

from collections.abc import Mapping

import tensorflow as tf

from bert_keras import predictor as predictor_lib
from bert_keras import verification
from bert_keras.tasks import base

# The maximum in 19,664 labelled sentences of five NER data sets is 27.
MAX_ENTITIES = 64

COUNT = "count"


def fit(
    answers: Mapping[str, tf.Tensor], task: base.Task, max_entities: int
) -> dict[str, tf.Tensor]:
    """Pads or truncates lists to one width, and adds "count" (T,) int32.

    The width is task.list_width or, if that is None, max_entities. "count" is
    the number of items before truncation.
    """
    if not task.list_padding:
        return dict(answers)
    if COUNT in answers:
        raise verification.ExportError(
            f"{task.name} answers {COUNT!r}, the name that a served model "
            "gives to the number of items in its lists; rename the answer."
        )
    is_real = [
        answers[name] != padding for name, padding in task.list_padding.items()
    ]
    count = tf.math.count_nonzero(
        tf.reduce_any(is_real, axis=0), axis=1, dtype=tf.int32
    )
    width = task.list_width or max_entities
    lists = {
        name: tf.ensure_shape(
            tf.pad(
                answers[name], [[0, 0], [0, width]], constant_values=padding
            )[:, :width],
            (None, width),
        )
        for name, padding in task.list_padding.items()
    }
    return {**answers, **lists, COUNT: count}


def tokens(
    predictor: predictor_lib.Predictor, **rows: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Computes `predictor.tokens` of rows (W, S), skipping padding.

    Columns that are padding in all rows are not computed; per-token outputs are
    0 there. S is the task's max_row_length.
    """
    length = predictor.task.max_row_length
    rows = {
        name: tf.ensure_shape(value, (None, length, *value.shape[2:]))
        for name, value in rows.items()
    }
    is_real = tf.reduce_any(rows["padding_mask"] > 0, axis=0)
    # At least two columns, for [CLS] and [SEP].
    last = tf.where(is_real, tf.range(1, length + 1), 2)
    size = tf.reduce_max(last)
    decoded = predictor.tokens(
        **{name: value[:, :size] for name, value in rows.items()}
    )
    return {
        name: _pad_tokens(value, size, length)
        for name, value in decoded.items()
    }


def _pad_tokens(value: tf.Tensor, size: tf.Tensor, length: int) -> tf.Tensor:
    """Pads per-token outputs (W, size, ...) to (W, length, ...).

    Other outputs, whose second axis is static, are returned unchanged.
    """
    if value.shape.rank < 2 or value.shape[1] is not None:
        return value
    rest = value.shape[2:]
    missing = [[0, 0], [0, length - size], *([[0, 0]] * len(rest))]
    return tf.ensure_shape(tf.pad(value, missing), (None, length, *rest))


def require(shapes: Mapping[str, Mapping[str, tf.TensorShape]]) -> None:
    """Raises ExportError if an output's shape is dynamic beyond the batch."""
    for signature, outputs in shapes.items():
        for name, shape in outputs.items():
            if shape.rank is None or not shape.rank:
                raise verification.ExportError(
                    f"{name} of {signature} has the shape {shape}; expected "
                    "the batch as its first axis."
                )
            if not shape[1:].is_fully_defined():
                raise verification.ExportError(
                    f"{name} of {signature} has the shape {shape}, which may "
                    "differ from batch to batch: a server could not join the "
                    "parts of a request. Name it in the task's `list_padding`, "
                    "or give it a static shape."
                )
