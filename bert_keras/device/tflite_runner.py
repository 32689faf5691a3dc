"""A TFLite file with a task around it: texts in, answers and scores out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import interpreter as litert

from bert_keras import predictor as predictor_lib
from bert_keras import signatures
from bert_keras.tasks import base


def signature(seq_length: int, among: Sequence[int]) -> str:
    """Name of the signature of a length, among all of the file's."""
    return (
        signatures.TOKENS
        if len(among) == 1
        else f"{signatures.TOKENS}_{seq_length}"
    )


def lengths(path: str) -> dict[str, int]:
    """The signatures of a file, and the tokens of their rows."""
    interpreter = litert.Interpreter(path)
    return {
        name: int(
            interpreter.get_signature_runner(name).get_input_details()[
                "padding_mask"
            ]["shape"][1]
        )
        for name in interpreter.get_signature_list()
    }


def task_of(predictor: predictor_lib.Predictor, seq_length: int) -> base.Task:
    """The predictor's task for a device, with rows of another length.

    What a file reads and answers; the predictor's own task stays as it is.
    """
    return predictor.task.for_device().with_settings(seq_length=seq_length)


# Texts that are tokenized at once; the file reads one row at a time.
TEXTS = 256


class File:
    """One signature of a .tflite file, by default that of the longest rows.

    seq_length: tokens of a row; task: the predictor's with that length, as a
    device asks it.
    """

    def __init__(
        self,
        path: str,
        predictor: predictor_lib.Predictor,
        *,
        name: str | None = None,
        threads: int | None = None,
    ):
        lengths_by_name = lengths(path)
        name = name or max(
            lengths_by_name, key=lambda each: lengths_by_name[each]
        )
        self._interpreter = litert.Interpreter(path, num_threads=threads)
        self._run = self._interpreter.get_signature_runner(name)
        self.seq_length = lengths_by_name[name]
        self.task = task_of(predictor, self.seq_length)
        self._predictor = predictor

    def inputs(self, raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Texts (T,) -> features (W, ...), rows padded to seq_length."""
        return padded(self._predictor, self.task, raw)

    def row(self, inputs: Mapping[str, Any], number: int) -> dict[str, Any]:
        """One row of `inputs`, as the file takes it."""
        return {
            name: np.asarray(inputs[name][number : number + 1])
            for name in self._predictor.model.encoder.config.inputs
        }

    def call(self, row: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._run(**row)

    def numbers(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The task's small numbers of all rows (W, ...)."""
        rows = [
            self.call(self.row(inputs, number))
            for number in range(len(inputs["example_index"]))
        ]
        return {
            name: np.concatenate([row[name] for row in rows])
            for name in rows[0]
        }

    def predict(
        self, examples: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Answers to labelled rows, in plain Python."""
        answers = []
        for start in range(0, len(examples), TEXTS):
            raw = base.as_tensors(
                examples[start : start + TEXTS], self.task.text_columns
            )
            inputs = self.inputs(raw)
            numbers = {
                name: tf.constant(value)
                for name, value in self.numbers(inputs).items()
            }
            batch = self.task.postprocess(
                numbers, inputs, raw, self._predictor.tokenizer
            )
            answers += predictor_lib.rows_of(self.task, batch)
        return answers

    def metrics(
        self, examples: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """The task's metrics of labelled rows."""
        return self.task.metrics(self.predict(examples), examples)


def padded(
    predictor: predictor_lib.Predictor,
    task: base.Task,
    raw: dict[str, tf.Tensor],
) -> dict[str, tf.Tensor]:
    """The task's features; what the encoder reads is (W, seq_length, ...)."""
    inputs = task.preprocess(raw, predictor.tokenizer)
    config = predictor.model.encoder.config
    return inputs | signatures.padded(inputs, config, task.seq_length)
