"""Asks the same questions of every form of the model; tells how it went."""

import collections
import json
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from ai_edge_litert import interpreter as litert

from bert_keras import checkpoint, predictor

QUESTIONS = 10


def closing_table(
    base: str,
    tuned: str,
    random: str,
    predictions: str,
    served: str,
    device: str,
) -> dict[str, str]:
    """What the demo made, in the order it was made."""
    with open(predictions, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    labels = collections.Counter(line["row"]["label"] for line in lines)
    majority = max(labels.values()) / len(lines)
    right = sum(
        line["answer"]["label"] == line["row"]["label"] for line in lines
    )
    pretrained = checkpoint.read(base)
    start = checkpoint.read(random)
    scores = pretrained.facts["scores"]
    facts = {
        "pretraining": f"{pretrained.step:,} steps; of hidden tokens "
        f"{scores['masked_lm_accuracy']:.1%} are guessed, of sentence pairs "
        f"{scores['next_sentence_accuracy']:.1%}",
        "task": f"{len(labels)} labels, {len(lines)} dev rows",
        "majority guess": f"{majority:.1%}",
        "random start": f"{start.facts['best'][0]:.1%}",
        "pretrained start": f"{right / len(lines):.1%}",
    }
    questions = [line["row"] for line in lines[:: -(-len(lines) // QUESTIONS)]]
    return (
        facts
        | _ask(questions, tuned, served, device)
        | {
            "checkpoint": tuned,
            "next": f"python -m trainers.predict --checkpoint={tuned}",
        }
    )


def _ask(questions, tuned: str, served: str, device: str) -> dict[str, str]:
    """Every exported form against Python, on the same texts."""
    model = predictor.load(tuned)
    task = model.task
    raw = {
        name: tf.constant([row[name] for row in questions])
        for name in task.text_columns
    }
    expected = model.predict(questions)
    scores = np.array([answer["scores"] for answer in expected])
    version = os.path.join(served, "1")
    answer = tf.saved_model.load(version).signatures["serving_default"]

    def form(path: str, got: np.ndarray, ask_one: Callable[[], object]) -> str:
        same = np.sum(got.argmax(axis=1) == scores.argmax(axis=1))
        return (
            f"{_megabytes(path)}, {_milliseconds(ask_one):.1f} ms a text; "
            f"{same} of {len(got)} labels equal, scores within "
            f"{np.abs(got - scores).max():.1g}"
        )

    one = {name: texts[:1] for name, texts in raw.items()}
    facts = {
        "SavedModel": form(
            version, answer(**raw)["scores"].numpy(), lambda: answer(**one)
        )
    }
    for kind in ("float32", "dynamic"):
        path = os.path.join(device, f"model_{kind}.tflite")
        run = litert.Interpreter(path).get_signature_runner("tokens")
        length = run.get_input_details()["token_ids"]["shape"][1]
        rows = [_padded(row, length) for row in _rows(model, raw)]
        got = np.concatenate([run(**row)["scores"] for row in rows])
        facts[f"TFLite {kind}"] = form(
            path, got, lambda run=run, row=rows[0]: run(**row)
        )
    return facts


def _rows(model: predictor.Predictor, raw):
    inputs = model.task.preprocess(raw, model.tokenizer)
    for number in range(len(inputs["token_ids"])):
        yield {
            name: inputs[name][number : number + 1]
            for name in ("token_ids", "segment_ids", "padding_mask")
        }


def _padded(row, length: int):
    return {
        name: np.pad(value, [(0, 0), (0, length - value.shape[1])])
        for name, value in row.items()
    }


def _milliseconds(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(15):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def _megabytes(path: str) -> str:
    size = os.path.getsize(path) if os.path.isfile(path) else 0
    for where, _, names in os.walk(path):
        size += sum(os.path.getsize(os.path.join(where, n)) for n in names)
    return f"{size / 1e6:.1f} MB"
