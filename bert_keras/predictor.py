"""Predictor: the one place where text, inputs, model, decode and predict meet.

Python, the trainers and the exporters all call the same two functions, so
what was evaluated is what is served.
"""

import functools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, formats, length_batching, loading
from bert_keras import model as model_lib
from bert_keras.data import json_lines
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

# A text, a pair, or a row with the task's text columns. Bytes are UTF-8.
Text = str | bytes
Example = Text | Sequence[Text] | Mapping[str, Any]

# Texts are brought together by length within this many batches.
SORTED_BATCHES = 50
# Short texts fill a batch up to so many times `batch_size` rows: from 1,000
# tokens on, two cores are busy, and some answers are large in each row.
MOST_ROWS = 2


class Predictor:
    """A model, its tokenizer and its task, ready to answer."""

    def __init__(
        self,
        model: model_lib.BertModel,
        tokenizer: tokenizers.Tokenizer,
    ):
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
        """Strings (T,) under the task's text names -> answers (T, ...).

        What `Task.postprocess` gives, and "truncated" (T,) bool: whether some
        of the text was too long to be read.
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
        """The network's inputs (W, S, ...) -> what `decode` gives (W, ...).

        inputs: by the names of `NetworkConfig.inputs`, int32.
        """
        features = self.task.add_derived_features(inputs)
        return self.task.decode(self.model(features, training=False), features)

    def _measures(self, **raw):
        """Strings (T,) -> each text's windows and the longest of them (T,)."""
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
        """Answers in the order of the examples, as plain Python values.

        One text, or one row as a dict, is one example. Each item of anything
        else is: of a task that reads pairs, [("a", "b")] is one pair, and
        ["a", "b"] is refused. Arrays and tensors of strings are lists of
        them, and a data frame is a list of rows. What holds no text (None,
        NaN, a number, a list) is an InputError that says where.

        A batch has as many tokens as `batch_size` rows of the task's
        seq_length have: up to twice as many rows where texts are short, and
        fewer where they make several windows.
        """
        return list(self.stream(examples, batch_size=batch_size))

    def stream(
        self,
        examples: Example | Iterable[Example],
        *,
        batch_size: int = 32,
        ahead: int = SORTED_BATCHES,
    ) -> Iterator[dict[str, Any]]:
        """The same, one by one.

        `ahead` times `batch_size` examples are read before the first answer.
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
                yield from self._block(block, batch_size)
                block = []
        yield from self._block(block, batch_size)

    def _block(
        self, examples: list[dict[str, str]], batch_size: int
    ) -> Iterator[dict[str, Any]]:
        """Answers rows of similar length together, in their own order."""
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
        """Indices of examples, in batches of similar length."""
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
            full = len(batches[-1]) == MOST_ROWS * batch_size
            if full or (batches[-1] and count * longest[index] > most):
                batches.append([])
                count = windows[index]
            batches[-1].append(index)
        return batches

    def _raw(self, examples: list[dict[str, str]]) -> dict[str, tf.Tensor]:
        return base.as_tensors(examples, self.task.text_columns)

    def _columns(self, example: Any, number: int) -> dict[str, str]:
        """The texts of an example under the task's names for them."""
        names = self.task.text_columns
        example = _plain_python(example)
        if isinstance(example, (str, bytes)):
            example = (example,)
        if isinstance(example, (list, tuple)):
            if len(example) != len(names):
                hint = " One example is [(a, b)]." * (len(names) == 2)
                raise errors.InputError(
                    f"example {number}: {self.task.name} reads {len(names)} "
                    f"texts ({', '.join(names)}); got {len(example)}.{hint}"
                )
            example = dict(zip(names, example, strict=True))
        if not isinstance(example, Mapping):
            raise errors.InputError(
                f"example {number}: expected text, found {_name_of(example)}."
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
    """The examples of what a person gave; one text or row is one of them."""
    for rows in ("to_dicts", "to_pylist"):  # Polars, Arrow
        if hasattr(examples, rows):
            return getattr(examples, rows)()
    if hasattr(examples, "iterrows"):  # pandas; a frame's items are its columns
        return examples.to_dict("records")
    examples = _plain_python(examples)
    if isinstance(examples, (str, bytes, Mapping)):
        return [examples]
    if not isinstance(examples, Iterable) or isinstance(
        examples, (set, frozenset)
    ):
        raise errors.InputError(
            f"expected texts, found {_name_of(examples)}; give a list of them."
        )
    return examples


def _plain_python(value: Any) -> Any:
    """Lists and strings in place of tensors, arrays and NumPy's scalars."""
    if isinstance(value, (tf.Tensor, tf.Variable)):
        value = value.numpy()
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    return bytes(value) if isinstance(value, (bytearray, memoryview)) else value


def _text(value: Any, name: str, number: int) -> str:
    value = _plain_python(value)
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise errors.InputError(
                f"example {number}, {name}: expected bytes in UTF-8 (byte "
                f"{error.start})."
            ) from None
    if not isinstance(value, str):
        raise errors.InputError(
            f"example {number}, {name}: expected text, found {_name_of(value)}."
        )
    return json_lines.valid_text(value)


def _name_of(value: Any) -> str:
    return "None" if value is None else json_lines.name_of(value)


def load(
    path: str, *, lowercase: bool | None = None, precision: str | None = None
) -> Predictor:
    """The predictor of a run, a step folder, or another format's folder.

    `lowercase` is the casing of text for a foreign folder that does not say.
    `precision` is Keras' dtype policy, None the one that is set: "bfloat16"
    stores and computes the products so, and all else in float32.
    """
    checkpoint = formats.read(path, lowercase=lowercase)
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(precision or before)
        return Predictor(loading.load_model(checkpoint), checkpoint.tokenizer())
    finally:
        keras.config.set_dtype_policy(before)


def is_finite(answer: Any) -> bool:
    """Whether no number in an answer is NaN or infinite."""
    if isinstance(answer, Mapping):
        answer = list(answer.values())
    if isinstance(answer, (list, tuple)):
        return all(map(is_finite, answer))
    return not isinstance(answer, float) or math.isfinite(answer)


def as_json(answer: Mapping[str, Any]) -> str:
    """An answer as a line of JSON, which has no NaN and no infinity: null."""

    def plain(value):
        if isinstance(value, Mapping):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(each) for each in value]
        return value if is_finite(value) else None

    if not is_finite(answer):
        answer = plain(answer)
    return json.dumps(answer, ensure_ascii=False)


def rows_of(
    task: base.Task, answers: Mapping[str, tf.Tensor]
) -> list[dict[str, Any]]:
    """What `Task.postprocess` gave, (T, ...), as T answers in plain Python."""
    columns = {name: value.numpy() for name, value in answers.items()}
    return [
        task.to_python(
            {
                name: _plain(value)
                for name, value in zip(columns, row, strict=True)
            }
        )
        for row in zip(*columns.values(), strict=True)
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    value = value.tolist()
    if isinstance(value, list):
        return [v.decode("utf-8") if isinstance(v, bytes) else v for v in value]
    return value
