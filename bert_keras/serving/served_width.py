"""Served answers have a width that no batch changes.

A server computes a large request in parts and joins the answers along the
first axis; the others it does not compare (TF Serving's batching_session.cc
and TensorFlow's tensor::Concat). Answers as wide as the longest of a part would
end the server, or come back as those of other texts.
"""

from collections.abc import Mapping

import tensorflow as tf

from bert_keras import predictor as predictor_lib
from bert_keras import verification
from bert_keras.tasks import base

# Of 19,664 labelled sentences in five NER data sets the richest has 27.
MAX_ENTITIES = 64

COUNT = "count"


def fit(
    answers: Mapping[str, tf.Tensor], task: base.Task, max_entities: int
) -> dict[str, tf.Tensor]:
    """The answers with lists of one width, and "count" (T,) int32.

    A list gets the task's own width or, where that is the longest list's,
    max_entities. "count" is the true number, also where it is more than that.
    """
    if not task.lists:
        return dict(answers)
    if COUNT in answers:
        raise verification.ExportError(
            f"{task.name} answers {COUNT!r}, the name that a served model "
            "gives to the number of items in its lists; rename the answer."
        )
    real = [answers[name] != empty for name, empty in task.lists.items()]
    count = tf.math.count_nonzero(
        tf.reduce_any(real, axis=0), axis=1, dtype=tf.int32
    )
    width = task.list_width or max_entities
    lists = {
        name: tf.ensure_shape(
            tf.pad(answers[name], [[0, 0], [0, width]], constant_values=empty)[
                :, :width
            ],
            (None, width),
        )
        for name, empty in task.lists.items()
    }
    return {**answers, **lists, COUNT: count}


def tokens(
    predictor: predictor_lib.Predictor, **rows: tf.Tensor
) -> dict[str, tf.Tensor]:
    """`predictor.tokens` of rows (W, seq_length), whatever their padding.

    The columns that are padding in all rows are not computed; what there is
    of each token is 0 there.
    """
    length = predictor.task.seq_length
    rows = {
        name: tf.ensure_shape(value, (None, length))
        for name, value in rows.items()
    }
    real = tf.reduce_any(rows["padding_mask"] > 0, axis=0)
    # [CLS] and [SEP] at least.
    last = tf.where(real, tf.range(1, length + 1), 2)
    size = tf.reduce_max(last)
    decoded = predictor.tokens(
        **{name: value[:, :size] for name, value in rows.items()}
    )
    return {
        name: _of_tokens(value, size, length) for name, value in decoded.items()
    }


def _of_tokens(value: tf.Tensor, size: tf.Tensor, length: int) -> tf.Tensor:
    """(W, size, ...) -> (W, length, ...); all else is static, and unchanged."""
    if value.shape.rank < 2 or value.shape[1] is not None:
        return value
    rest = value.shape[2:]
    missing = [[0, 0], [0, length - size], *([[0, 0]] * len(rest))]
    return tf.ensure_shape(tf.pad(value, missing), (None, length, *rest))


def require(shapes: Mapping[str, Mapping[str, tf.TensorShape]]) -> None:
    """Raises ExportError where an output of a signature has no known width."""
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
                    "parts of a request. Name it in the task's `lists`, or "
                    "give it a static shape."
                )
