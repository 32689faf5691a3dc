"""Predictor: runs the whole inference pipeline, from text to answers.

`predict`, the trainers and the exporters call the same two functions,
`serve_text` and `tokens`, so the served model computes what was evaluated.
"""

import functools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, formats, length_batching, loading, model_card
from bert_keras import model as model_lib
from bert_keras.data import json_lines
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

# A text, a pair of texts, or a dict with the task's text columns. Bytes are
# UTF-8.
Text = str | bytes
Example = Text | Sequence[Text] | Mapping[str, Any]

# Texts are sorted by length within this many batches.
SORTED_BATCHES = 50
# A batch has at most this factor times `batch_size` texts, if they are short:
# beyond about 1,000 tokens throughput no longer grows on two cores, and the
# answers of some tasks are large per row.
MAX_ROWS_FACTOR = 2


class Predictor:
    """A model with its tokenizer and its task, to predict from raw text."""

    def __init__(
        self,
        model: model_lib.BertModel,
        tokenizer: tokenizers.Tokenizer,
        *,
        card: model_card.Card | None = None,
    ):
        self.card = card  # of the checkpoint, for what is made of the model
        self.model = model
        self.task = model.task
        self.tokenizer = tokenizer
        graph = functools.partial(
            tf.function, reduce_retracing=True, autograph=False
        )
        self._answer = graph(self.serve_text)
        self._decode = graph(self.tokens)
        self._measure = graph(self._measures)

    def serve_text(self, **raw: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answers texts: strings (T,) by text column -> answers (T, ...).

        Returns the outputs of `Task.postprocess` and "truncated" (T,) bool:
        whether part of the text was too long for the model.
        """
        features = self.task.preprocess(raw, self.tokenizer)
        decoded = length_batching.in_length_batches(
            self._decode,
            {name: features[name] for name in self.model.encoder.config.inputs},
        )
        answers = self.task.postprocess(decoded, features, raw, self.tokenizer)
        truncated = tf.math.unsorted_segment_max(
            tf.cast(features["truncated"], tf.int32),
            features["example_index"],
            tf.size(next(iter(raw.values()))),
        )
        return answers | {"truncated": truncated > 0}

    def tokens(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Runs the model: inputs (W, S, ...) -> `Task.decode`'s (W, ...).

        inputs: {name: int32} as in `NetworkConfig.inputs`.
        """
        features = self.task.add_derived_features(inputs)
        return self.task.decode(self.model(features, training=False), features)

    def _measures(self, **raw):
        """Measures texts (T,): number of windows, length of the longest (T,).

        For two texts of which the first has windows of 8 and 5 tokens and the
        second one window of 3 tokens: [2, 1] and [8, 3].
        """
        features = self.task.preprocess(raw, self.tokenizer)
        real = tf.cast(features["padding_mask"] > 0, tf.int32)
        lengths = tf.reduce_sum(real, axis=1)
        example_index = features["example_index"]
        num_texts = tf.size(next(iter(raw.values())))
        return (
            tf.math.unsorted_segment_sum(
                tf.ones_like(lengths), example_index, num_texts
            ),
            tf.math.unsorted_segment_max(lengths, example_index, num_texts),
        )

    def predict(
        self, examples: Example | Iterable[Example], *, batch_size: int = 32
    ) -> list[dict[str, Any]]:
        """Returns one answer per example, in order, as plain Python values.

        examples: one text, one row as a dict, or an iterable of examples.
          Arrays and tensors of strings count as lists, a data frame as a list
          of rows. For a task that reads pairs, [("a", "b")] is one pair;
          ["a", "b"] is refused. Raises InputError with the index of an example
          that has no text (None, NaN, a number, a list).
        batch_size: a batch has at most batch_size * seq_length tokens, padding
          included, and 2 * batch_size texts. A text with more tokens than that,
          in several windows, is a batch of its own.
        """
        return list(self.stream(examples, batch_size=batch_size))

    def stream(
        self,
        examples: Example | Iterable[Example],
        *,
        batch_size: int = 32,
        ahead: int = SORTED_BATCHES,
    ) -> Iterator[dict[str, Any]]:
        """Yields the answers of `predict` one by one.

        ahead: `ahead` times `batch_size` examples are read before the first
          answer, to batch them by length.
        """
        for name, value in (("batch_size", batch_size), ("ahead", ahead)):
            if (
                not isinstance(value, (int, np.integer))
                or isinstance(value, bool)
                or value < 1
            ):
                raise errors.InputError(
                    f"{name}: expected a whole number from 1, found {value!r}."
                )
        return self._stream(_examples(examples), int(batch_size), int(ahead))

    def _stream(
        self, examples: Iterable[Any], batch_size: int, ahead: int
    ) -> Iterator[dict[str, Any]]:
        block = []
        for number, example in enumerate(examples):
            block.append(self._columns(example, number))
            if len(block) == ahead * batch_size:
                yield from self._answer_chunk(block, batch_size)
                block = []
        yield from self._answer_chunk(block, batch_size)

    def _answer_chunk(
        self, examples: list[dict[str, str]], batch_size: int
    ) -> Iterator[dict[str, Any]]:
        """Yields the answers in order; batches have texts of similar length."""
        answers: list[Any] = [None] * len(examples)
        for indices in self._batches(examples, batch_size):
            raw = self._raw([examples[index] for index in indices])
            batch = rows_of(self.task, self._answer(**raw))
            for index, answer in zip(indices, batch, strict=True):
                answers[index] = answer
        yield from answers

    def _batches(
        self, examples: list[dict[str, str]], batch_size: int
    ) -> Sequence[Sequence[int]]:
        """Returns batches of indices, of examples of similar length.

        With seq_length 128 and batch_size 2 a batch may have 256 tokens. Texts
        whose windows are [1, 2, 1] and whose longest window is [20, 128, 90]
        make the batches [0, 2] (2 windows of up to 90 tokens) and [1] (2
        windows of 128).
        """
        if len(examples) < 2:
            return [range(len(examples))] if examples else []
        measured = [
            self._measure(**self._raw(examples[start : start + batch_size]))
            for start in range(0, len(examples), batch_size)
        ]
        windows, longest = np.concatenate(measured, axis=1)
        most = batch_size * self.task.seq_length
        batches: list[list[int]] = [[]]
        count = 0
        for index in np.argsort(longest, kind="stable"):
            count += windows[index]
            full = len(batches[-1]) == MAX_ROWS_FACTOR * batch_size
            if full or (batches[-1] and count * longest[index] > most):
                batches.append([])
                count = windows[index]
            batches[-1].append(index)
        return batches

    def _raw(self, examples: list[dict[str, str]]) -> dict[str, tf.Tensor]:
        return base.as_tensors(examples, self.task.text_columns)

    def _columns(self, example: Any, number: int) -> dict[str, str]:
        """Returns an example's texts by the task's column names."""
        names = self.task.text_columns
        example = _to_python(example)
        if isinstance(example, (str, bytes)):
            example = (example,)
        if isinstance(example, (list, tuple)):
            if len(example) != len(names):
                hint = " Write one pair as [(a, b)]." * (len(names) == 2)
                raise errors.InputError(
                    f"example {number}: {self.task.name} reads {len(names)} "
                    f"texts ({', '.join(names)}); got {len(example)}.{hint}"
                )
            example = dict(zip(names, example, strict=True))
        if not isinstance(example, Mapping):
            raise errors.InputError(
                f"example {number}: expected text, found {_describe(example)}."
            )
        missing = [name for name in names if name not in example]
        if missing:
            raise errors.InputError(
                f"example {number}: {self.task.name} reads the columns "
                f"{', '.join(names)}; got "
                f"{', '.join(map(str, example)) or 'none'}."
            )
        return {name: _text(example[name], name, number) for name in names}


def _examples(examples: Any) -> Iterable[Any]:
    """Converts the argument of `predict` to an iterable of examples."""
    for method in ("to_dicts", "to_pylist"):  # Polars, Arrow
        if hasattr(examples, method):
            return getattr(examples, method)()
    if hasattr(examples, "iterrows"):  # pandas; iterating yields columns
        return examples.to_dict("records")
    examples = _to_python(examples)
    if isinstance(examples, (str, bytes, Mapping)):
        return [examples]
    if not isinstance(examples, Iterable) or isinstance(
        examples, (set, frozenset)
    ):
        raise errors.InputError(
            f"expected texts, found {_describe(examples)}; give a list of them."
        )
    return examples


def _to_python(value: Any) -> Any:
    """Converts tensors, arrays and NumPy scalars to lists and strings."""
    if isinstance(value, (tf.Tensor, tf.Variable)):
        value = value.numpy()
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    return bytes(value) if isinstance(value, (bytearray, memoryview)) else value


def _text(value: Any, name: str, number: int) -> str:
    value = _to_python(value)
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise errors.InputError(
                f"example {number}, {name}: byte {error.start} is not valid "
                "UTF-8."
            ) from None
    if not isinstance(value, str):
        raise errors.InputError(
            f"example {number}, {name}: expected text, found "
            f"{_describe(value)}."
        )
    return json_lines.valid_text(value)


def _describe(value: Any) -> str:
    return "None" if value is None else json_lines.name_of(value)


def load(
    path: str, *, lowercase: bool | None = None, precision: str | None = None
) -> Predictor:
    """Loads a Predictor from a run, a step folder, or another format's folder.

    lowercase: whether text is lower-cased, for another format's folder that
      does not specify it.
    precision: a Keras dtype policy; None: the current one. "bfloat16" stores
      kernels and computes matmuls in bfloat16, everything else in float32.
    """
    checkpoint = formats.read(path, lowercase=lowercase)
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(precision or before)
        return Predictor(
            loading.load_model(checkpoint),
            checkpoint.tokenizer(),
            card=model_card.read(checkpoint.folder),
        )
    finally:
        keras.config.set_dtype_policy(before)


def is_finite(answer: Any) -> bool:
    """Returns whether no number in an answer is NaN or infinite."""
    if isinstance(answer, Mapping):
        answer = list(answer.values())
    if isinstance(answer, (list, tuple)):
        return all(map(is_finite, answer))
    return not isinstance(answer, float) or math.isfinite(answer)


def as_json(answer: Mapping[str, Any]) -> str:
    """Formats an answer as a line of JSON; NaN and infinity become null."""

    def nan_to_none(value):
        if isinstance(value, Mapping):
            return {name: nan_to_none(each) for name, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [nan_to_none(each) for each in value]
        return value if is_finite(value) else None

    if not is_finite(answer):
        answer = nan_to_none(answer)
    return json.dumps(answer, ensure_ascii=False)


def rows_of(
    task: base.Task, answers: Mapping[str, tf.Tensor]
) -> list[dict[str, Any]]:
    """Splits the outputs of `Task.postprocess` (T, ...) into T answers."""
    columns = {name: value.numpy() for name, value in answers.items()}
    return [
        task.to_python(
            {
                name: _decode_bytes(value)
                for name, value in zip(columns, row, strict=True)
            }
        )
        for row in zip(*columns.values(), strict=True)
    ]


def _decode_bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    value = value.tolist()
    if isinstance(value, list):
        return [v.decode("utf-8") if isinstance(v, bytes) else v for v in value]
    return value
