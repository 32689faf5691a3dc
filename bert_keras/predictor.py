"""Predictor: the one place where text, inputs, model, decode and predict meet.

Python, the trainers and the exporters all call the same two functions, so
what was evaluated is what is served.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bert_keras import errors, formats
from bert_keras import model as model_lib
from bert_keras.data import tokenizer as tokenizer_lib

# A text, a pair, or a row with the task's text columns.
Example = str | Sequence[str] | Mapping[str, Any]

# Texts are brought together by length within this many batches.
SORTED_BATCHES = 50


class Predictor:
    """A model, its tokenizer and its task, ready to answer."""

    def __init__(
        self,
        model: model_lib.BertModel,
        tokenizer: tokenizer_lib.Tokenizer,
    ):
        self.model = model
        self.task = model.task
        self.tokenizer = tokenizer
        self._answer = tf.function(
            self.text,
            input_signature=None,
            reduce_retracing=True,
            autograph=False,
        )

    def text(self, **raw: tf.Tensor) -> dict[str, tf.Tensor]:
        """Strings (T,) under the task's text names -> answers (T, ...)."""
        inputs = self.task.inputs(raw, self.tokenizer)
        decoded = self._decode(inputs)
        return self.task.predict(decoded, inputs, raw, self.tokenizer)

    def tokens(
        self,
        token_ids: tf.Tensor,
        segment_ids: tf.Tensor,
        padding_mask: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """(W, S) int32 three times -> the task's small numbers (W, ...)."""
        return self._decode(
            {
                "token_ids": token_ids,
                "segment_ids": segment_ids,
                "padding_mask": padding_mask,
            }
        )

    def _decode(self, inputs):
        inputs = self.task.complete(inputs)
        return self.task.decode(self.model(inputs, training=False), inputs)

    def predict(
        self, examples: Iterable[Example], *, batch_size: int = 32
    ) -> list[dict[str, Any]]:
        """Answers in the order of the examples, as plain Python values."""
        return list(self.stream(examples, batch_size=batch_size))

    def stream(
        self,
        examples: Iterable[Example],
        *,
        batch_size: int = 32,
        ahead: int = SORTED_BATCHES,
    ) -> Iterator[dict[str, Any]]:
        """The same, one by one; `ahead` batches are read before the first."""
        block = []
        for example in examples:
            block.append(self._columns(example))
            if len(block) == ahead * batch_size:
                yield from self._block(block, batch_size)
                block = []
        yield from self._block(block, batch_size)

    def _block(self, rows: list[dict[str, str]], batch_size: int):
        """Answers rows of similar length together, in their own order."""
        size = [sum(map(len, row.values())) for row in rows]
        order = np.argsort(size, kind="stable")
        answers: list[Any] = [None] * len(rows)
        for start in range(0, len(rows), batch_size):
            places = order[start : start + batch_size]
            raw = {
                name: tf.constant([rows[place][name] for place in places])
                for name in self.task.texts
            }
            batch = {
                name: value.numpy()
                for name, value in self._answer(**raw).items()
            }
            for number, place in enumerate(places):
                answers[place] = self.task.plain(
                    {
                        name: _plain(value[number])
                        for name, value in batch.items()
                    }
                )
        yield from answers

    def _columns(self, example: Example) -> dict[str, str]:
        names = self.task.texts
        if isinstance(example, str):
            example = (example,)
        if not isinstance(example, Mapping):
            if len(example) != len(names):
                raise errors.InputError(
                    f"{self.task.name} reads {len(names)} texts "
                    f"({', '.join(names)}); got {len(example)}."
                )
            return dict(zip(names, example, strict=True))
        missing = [name for name in names if name not in example]
        if missing:
            raise errors.InputError(
                f"{self.task.name} reads the columns {', '.join(names)}; "
                f"got {', '.join(example) or 'none'}."
            )
        return {name: str(example[name]) for name in names}


def load(path: str, *, lowercase: bool | None = None) -> Predictor:
    """The predictor of a run, a step folder, or another format's folder.

    `lowercase` is the casing of text for a foreign folder that does not say.
    """
    found = formats.read(path, lowercase=lowercase)
    return Predictor(found.model(), found.tokenizer())


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    value = value.tolist()
    if isinstance(value, list):
        return [v.decode("utf-8") if isinstance(v, bytes) else v for v in value]
    return value
