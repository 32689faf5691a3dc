"""Compares all exported forms of the demo's model and summarizes the demo."""

import collections
import functools
import json
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from bert_keras import checkpoint, console, predictor
from bert_keras.device import tflite_runner
from bert_keras.tasks import base as tasks
from export import flags

QUESTIONS = 10


def closing_table(
    base: str,
    tuned: str,
    random: str,
    predictions: str,
    served: str,
    device: str,
) -> dict[str, str]:
    """Returns the rows of the demo's summary, in the order of its steps."""
    with open(predictions, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    labels = collections.Counter(line["row"]["label"] for line in lines)
    majority = max(labels.values()) / len(lines)
    right = sum(
        line["answer"]["label"] == line["row"]["label"] for line in lines
    )
    pretrained = checkpoint.read(base)
    start = checkpoint.read(random)
    metrics = pretrained.metadata["scores"]
    values = {
        "pretraining": f"{pretrained.step:,} steps; of hidden tokens "
        f"{metrics['masked_lm_accuracy']:.1%} are guessed, of sentence pairs "
        f"{metrics['next_sentence_accuracy']:.1%}",
        "task": f"{len(labels)} labels, {len(lines)} dev rows",
        "majority guess": f"{majority:.1%}",
        "random start": f"{start.metadata['best'][0]:.1%}",
        "pretrained start": f"{right / len(lines):.1%}",
    }
    questions = [line["row"] for line in lines[:: -(-len(lines) // QUESTIONS)]]
    return (
        values
        | _ask(questions, tuned, served, device)
        | {
            "checkpoint": tuned,
            "next": f"python -m trainers.predict --checkpoint={tuned}",
        }
    )


def _ask(
    questions: Sequence[tasks.Example], tuned: str, served: str, device: str
) -> dict[str, str]:
    """Compares every exported form with the checkpoint on the same texts."""
    model = predictor.load(tuned)
    raw = tasks.as_tensors(questions, model.task.text_columns)
    expected = model.predict(questions)
    scores = np.array([answer["scores"] for answer in expected])
    version = os.path.join(served, "1")
    answer = tf.saved_model.load(version).signatures["serving_default"]

    def form(path: str, got: np.ndarray, ask_one: Callable[[], object]) -> str:
        same = np.sum(got.argmax(axis=1) == scores.argmax(axis=1))
        return (
            f"{console.size_of(path)}, {flags.milliseconds(ask_one):.1f} ms a "
            f"text; {same} of {len(got)} labels equal, scores within "
            f"{np.abs(got - scores).max():.1g}"
        )

    one = {name: texts[:1] for name, texts in raw.items()}
    values = {
        "SavedModel": form(
            version, answer(**raw)["scores"].numpy(), lambda: answer(**one)
        )
    }
    for quantization in ("float32", "dynamic"):
        path = os.path.join(device, f"model_{quantization}.tflite")
        file = tflite_runner.File(path, model)
        features = file.inputs(raw)
        got, row = file.raw_outputs(features)["scores"], file.row(features, 0)
        values[f"TFLite {quantization}"] = form(
            path, got, functools.partial(file.call, row)
        )
    return values
