"""Compares the exports of the demo's model, and summarizes the demo."""

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

# Number of dev rows on which the exports are compared.
NUM_EXAMPLES = 10


def rows(
    base: str,
    finetuned_run: str,
    scratch_run: str,
    predictions: str,
    served: str,
    device: str,
) -> dict[str, str]:
    """Returns the rows of the demo's summary, in the order of its steps.

    The arguments are paths: of three runs, the file of predictions, and the
    folders of the exports.
    """
    with open(predictions, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    labels = collections.Counter(line["row"]["label"] for line in lines)
    majority = max(labels.values()) / len(lines)
    correct = sum(
        line["answer"]["label"] == line["row"]["label"] for line in lines
    )
    pretrained = checkpoint.read(base)
    scratch = checkpoint.read(scratch_run)
    metrics = pretrained.metadata["scores"]
    values = {
        "pretraining": f"{pretrained.step:,} steps; "
        f"{metrics['masked_lm_accuracy']:.1%} of the masked tokens and "
        f"{metrics['next_sentence_accuracy']:.1%} of the sentence pairs are "
        "predicted correctly",
        "task": f"{len(labels)} labels, {len(lines)} dev rows",
        "accuracy of the most frequent label": f"{majority:.1%}",
        "accuracy, trained from scratch": f"{scratch.metadata['best'][0]:.1%}",
        "accuracy, pretrained": f"{correct / len(lines):.1%}",
    }
    stride = -(-len(lines) // NUM_EXAMPLES)
    examples = [line["row"] for line in lines[::stride]]
    return (
        values
        | _compare_exports(examples, finetuned_run, served, device)
        | {
            "checkpoint": finetuned_run,
            "next": f"python -m trainers.predict --checkpoint={finetuned_run}",
        }
    )


def _compare_exports(
    examples: Sequence[tasks.Example],
    finetuned_run: str,
    served: str,
    device: str,
) -> dict[str, str]:
    """Compares every export with the checkpoint on the same texts."""
    model = predictor.load(finetuned_run)
    raw = tasks.as_tensors(examples, model.task.text_columns)
    expected = model.predict(examples)
    scores = np.array([answer["scores"] for answer in expected])
    version = os.path.join(served, "1")
    serve = tf.saved_model.load(version).signatures["serving_default"]

    def compare(
        path: str, got: np.ndarray, predict_one: Callable[[], object]
    ) -> str:
        same = np.sum(got.argmax(axis=1) == scores.argmax(axis=1))
        return (
            f"{console.size_of(path)}, {flags.milliseconds(predict_one):.1f} "
            f"ms per text; {same} of {len(got)} labels equal, scores within "
            f"{np.abs(got - scores).max():.1g}"
        )

    one = {name: texts[:1] for name, texts in raw.items()}
    values = {
        "SavedModel": compare(
            version, serve(**raw)["scores"].numpy(), lambda: serve(**one)
        )
    }
    for quantization in ("float32", "dynamic"):
        path = os.path.join(device, f"model_{quantization}.tflite")
        file = tflite_runner.File(path, model)
        features = file.inputs(raw)
        got, row = file.raw_outputs(features)["scores"], file.row(features, 0)
        values[f"TFLite {quantization}"] = compare(
            path, got, functools.partial(file.call, row)
        )
    return values
