"""Runs a TFLite file with its task's pre- and postprocessing."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import interpreter as litert

from bert_keras import predictor as predictor_lib
from bert_keras import signatures
from bert_keras.tasks import base


def signature(seq_length: int, all_lengths: Sequence[int]) -> str:
    """Returns the name of the signature for a length.

    all_lengths: the lengths of all signatures of the file.
    """
    return (
        signatures.TOKENS
        if len(all_lengths) == 1
        else f"{signatures.TOKENS}_{seq_length}"
    )


def lengths(path: str) -> dict[str, int]:
    """Returns {signature: tokens per row} of a file."""
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
    """Returns a copy of the predictor's task for a device and a row length.

    The predictor's own task is not changed.
    """
    return predictor.task.for_device().with_settings(seq_length=seq_length)


# Texts tokenized per call; the model runs on one row at a time.
TEXTS_PER_CALL = 256


class File:
    """One signature of a .tflite file, by default the one with longest rows.

    seq_length: tokens per row. task: the result of `task_of` for that length.
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
        """Converts texts (T,) to features (W, ...), padded to seq_length."""
        return padded(self._predictor, self.task, raw)

    def row(self, inputs: Mapping[str, Any], number: int) -> dict[str, Any]:
        """Selects one row of `inputs`, (1, ...), for `call`."""
        return {
            name: np.asarray(inputs[name][number : number + 1])
            for name in self._predictor.model.encoder.config.inputs
        }

    def call(self, row: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._run(**row)

    def raw_outputs(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Runs the model on all rows; returns its raw outputs (W, ...)."""
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
        """Predicts on examples; returns answers as Python values."""
        answers = []
        for start in range(0, len(examples), TEXTS_PER_CALL):
            raw = base.as_tensors(
                examples[start : start + TEXTS_PER_CALL], self.task.text_columns
            )
            inputs = self.inputs(raw)
            raw_outputs = {
                name: tf.constant(value)
                for name, value in self.raw_outputs(inputs).items()
            }
            batch = self.task.postprocess(
                raw_outputs, inputs, raw, self._predictor.tokenizer
            )
            answers += predictor_lib.rows_of(self.task, batch)
        return answers

    def metrics(
        self, examples: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Evaluates the task's metrics on labelled examples."""
        return self.task.metrics(self.predict(examples), examples)


def padded(
    predictor: predictor_lib.Predictor,
    task: base.Task,
    raw: dict[str, tf.Tensor],
) -> dict[str, tf.Tensor]:
    """Preprocesses texts and pads the encoder's inputs to (W, seq_length, ...).

    Also returns the task's other features, such as example_index.
    """
    inputs = task.preprocess(raw, predictor.tokenizer)
    config = predictor.model.encoder.config
    return inputs | signatures.padded(inputs, config, task.seq_length)
