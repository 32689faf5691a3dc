"""What every export does: write aside, reopen, compare, then move."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bert_keras import errors, locks
from bert_keras import predictor as predictor_lib
from bert_keras.tasks import base

# The arguments of Predictor.tokens.
TOKENS = ("token_ids", "segment_ids", "padding_mask")

# Names of a SavedModel's signatures.
TEXT, TOKENS_OF_TEXT, CLASSIFY = "serving_default", "tokens", "classify"

Signature = tuple[Callable, Mapping[str, tf.TensorSpec]]

# What artifacts are compared on: lengths from nothing to a cut one, two
# languages, a place to fill.
SENTENCES = (
    "A moving story, told with great care and played without a false note.",
    "The plot is thin, the jokes are old and the film is far too long.",
    "The capital of France is [MASK], and it has been so for centuries.",
    "She bought a new [MASK] because the old one had stopped working.",
    "On 14 July 2021 the river rose 8.5 metres; 1,200 people had to leave.",
    "Fine.",
    "这部电影的故事很感人，演员的表演也非常出色。",
    "酒店的房间又小又脏，服务员的态度很差，不会再来了。",
    "今天天气很好，我们一起去公园[MASK]步。",
    "北京是中国的首[MASK]。",
    "他在 iPhone 上看完了整部 Star Wars，觉得 still OK。",
    "",
    "The committee met again on Tuesday and could not agree. " * 40,
)


class ExportError(RuntimeError):
    """The model cannot be exported, or what was written answers wrongly."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far two sets of answers are apart."""

    # Largest distance of two numbers; of numbers above 1, as a part of them.
    numbers: float
    agreement: float  # share of rows whose words and whole numbers are equal
    texts: int = len(SENTENCES)

    def require(self, *, numbers: float, agreement: float) -> None:
        """Raises ExportError when the answers are further apart than this."""
        if self.numbers > numbers or self.agreement < agreement:
            raise ExportError(
                "what was written does not answer like the model: numbers "
                f"differ by {self.numbers:.2g} (allowed: {numbers:.2g}) and "
                f"{self.agreement:.0%} of the labels agree (needed: "
                f"{agreement:.0%}). Nothing was exported."
            )


def save(
    predictor: predictor_lib.Predictor,
    folder: str,
    signatures: Mapping[str, Signature],
) -> dict[str, dict[str, tf.TensorShape]]:
    """Writes functions of the predictor as a SavedModel without any Python.

    Returns the shape of each signature's outputs.
    """
    module = tf.Module()
    # The variables and not the model: with a keras.Model here the TFLite
    # converter does not freeze them, says nothing, and the file answers NaN.
    module.weights = [v.value for v in predictor.model.variables]
    graphs = {
        name: tf.function(function, autograph=False).get_concrete_function(
            **arguments
        )
        for name, (function, arguments) in signatures.items()
    }
    tf.saved_model.save(module, folder, signatures=graphs)
    return {
        name: {key: v.shape for key, v in graph.structured_outputs.items()}
        for name, graph in graphs.items()
    }


def token_specs(*shape: int | None) -> dict[str, tf.TensorSpec]:
    """The arguments of Predictor.tokens, each int32 of this shape."""
    return {name: tf.TensorSpec(shape, tf.int32, name=name) for name in TOKENS}


def texts(task: base.Task) -> dict[str, tf.Tensor]:
    """SENTENCES under the task's text names; a pair is two of them."""
    return {
        name: tf.constant(SENTENCES[place:] + SENTENCES[:place])
        for place, name in enumerate(task.text_columns)
    }


def examples(raw: Mapping[str, Sequence[str]]) -> list[bytes]:
    """Texts as serialized tf.Examples, one each."""

    def feature(text: str) -> tf.train.Feature:
        value = tf.train.BytesList(value=[tf.compat.as_bytes(text)])
        return tf.train.Feature(bytes_list=value)

    rows = zip(*raw.values(), strict=True)
    return [
        tf.train.Example(
            features=tf.train.Features(
                feature=dict(zip(raw, map(feature, row), strict=True))
            )
        ).SerializeToString()
        for row in rows
    ]


def compare(
    got: Mapping[str, Any],
    want: Mapping[str, Any],
    *,
    ranked: Sequence[str] = (),
) -> Difference:
    """Raises ExportError on other names, other shapes, NaN and infinity.

    Numbers are those of the texts whose words and whole numbers agree; of the
    answers `ranked` by score only the first have to.
    """
    if set(got) != set(want):
        raise ExportError(
            f"expected the answers {sorted(want)}, got {sorted(got)}."
        )
    agree, distances = np.ones(1, bool), []
    for name, value in want.items():
        ours, theirs = np.asarray(value), np.asarray(got[name])
        if ours.ndim != theirs.ndim or len(ours) != len(theirs):
            raise ExportError(
                f"{name}: expected the shape {ours.shape}, got {theirs.shape}."
            )
        if ours.shape != theirs.shape:
            # One of them found more in some text, which is not the same then.
            ours, theirs, more = _common(ours, theirs)
            agree = agree & ~more
        inner = tuple(range(1, ours.ndim))
        if ours.dtype.kind == "f":
            _finite(ours, f"the model itself answers {name}")
            _finite(theirs, f"what was written answers {name}")
            distance = np.abs(theirs - ours) / np.maximum(1.0, np.abs(ours))
            distances.append(distance.max(axis=inner, initial=0.0))
        else:
            if name in ranked and ours.ndim > 1:
                ours, theirs = ours[:, :1], theirs[:, :1]
            agree = agree & np.all(ours == theirs, axis=inner)
    # Where a text has another answer, its numbers are those of another.
    numbers = [np.max(d, where=agree, initial=0.0) for d in distances]
    share = float(agree.mean()) if agree.size else 1.0
    return Difference(float(max(numbers, default=0.0)), share)


def _common(ours: np.ndarray, theirs: np.ndarray):
    """Both without the columns that one lacks; (T,): which have more there."""
    width = min(ours.shape[1], theirs.shape[1])
    longer = ours if ours.shape[1] > width else theirs
    rest = longer[:, width:]
    empty = rest == b"" if rest.dtype == object else np.isin(rest, (0, -1))
    more = ~empty.reshape(len(rest), -1).all(axis=1)
    return ours[:, :width], theirs[:, :width], more


@contextlib.contextmanager
def aside(folder: str, name: str) -> Iterator[str]:
    """A folder to write in, inside `folder`; it goes away in the end.

    Nobody else exports into `folder` meanwhile.

    Its name begins with a dot, so nobody takes it for a result. A killed
    export leaves it behind, and the next one of the same name removes it.
    """
    path = os.path.join(folder, f".unfinished-{name}")
    with locks.hold(folder):
        try:
            if tf.io.gfile.exists(path):
                tf.io.gfile.rmtree(path)
            tf.io.gfile.makedirs(path)
        except tf.errors.OpError as error:
            raise errors.InputError(
                f"cannot write into {folder}: {error.message}. Choose another "
                "--output."
            ) from None
        try:
            yield path
        finally:
            if tf.io.gfile.exists(path):
                tf.io.gfile.rmtree(path)


def _finite(values: np.ndarray, what: str) -> None:
    if not np.all(np.isfinite(values)):
        raise ExportError(f"{what} with NaN or infinity. Nothing was exported.")
