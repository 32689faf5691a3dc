"""Compares a classifier's throughput with KerasHub's and Hugging Face's.

  make bench
  .venv-bench/bin/python -m benchmarks.predict --checkpoint=runs/sst2 \\
      --texts=texts.txt

A side is one model in one library. All sides have the same weights, written by
`bert_keras.formats`, and the same texts. These are split into --parts; the
sides run alternately, one part per turn. Hugging Face's pipeline runs on texts
in file order, and again sorted by length; KerasHub pads all texts to the
checkpoint's length. bert_keras limits the tokens of a batch: with short texts
it has up to twice --batch_size rows.
"""

import dataclasses
import os
import tempfile
import time

import keras_hub
import numpy as np
import rich.console
import rich.table
import torch
import transformers
from absl import flags

import benchmarks
from bert_keras import model as model_lib
from bert_keras import predictor
from bert_keras.formats import hugging_face
from bert_keras.formats import keras_hub as keras_hub_format
from bert_keras.networks import bert as bert_lib

CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Run or step folder of a classifier."
)
TEXTS = flags.DEFINE_string("texts", None, "File with one text per line.")
PARTS = flags.DEFINE_integer(
    "parts", 10, "Number of parts of the texts: turns of each side.", 1
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 32, "Texts per batch, on all sides.", 1
)


# Each make_... returns a function that maps texts to their labels.


def make_bert_keras(model):
    def answer(texts):
        answers = model.predict(texts, batch_size=BATCH_SIZE.value)
        return [answer["label"] for answer in answers]

    return answer


def make_hugging_face(model, folder, *, by_length):
    pipeline = transformers.pipeline(
        "text-classification",
        model=folder,
        tokenizer=folder,
        batch_size=BATCH_SIZE.value,
        truncation=True,
        max_length=model.task.seq_length,
    )

    def answer(texts):
        order = np.arange(len(texts))
        if by_length:
            order = np.argsort([len(text) for text in texts], kind="stable")
        with torch.inference_mode():
            answers = pipeline([texts[index] for index in order])
        labels = [""] * len(texts)
        for index, each in zip(order, answers, strict=True):
            labels[index] = each["label"]
        return labels

    return answer


def make_keras_hub(model, folder):
    # KerasHub always uses the tanh approximation of GELU.
    bert = model.model.encoder.config
    bert = dataclasses.replace(bert, activation="gelu_tanh")
    tanh_model = model_lib.BertModel(bert_lib.BertEncoder(bert), model.task)
    tanh_model.set_weights(model.model.get_weights())
    keras_hub_format.write(folder, tanh_model, model.tokenizer)
    classifier = keras_hub.models.BertTextClassifier.from_preset(folder)
    classifier.preprocessor.sequence_length = model.task.seq_length

    def answer(texts):
        logits = classifier.predict(
            texts, batch_size=BATCH_SIZE.value, verbose=0
        )
        return [model.task.labels[index] for index in np.argmax(logits, -1)]

    return answer


def main(_):
    model = predictor.load(CHECKPOINT.value)
    with open(TEXTS.value, encoding="utf-8") as file:
        texts = file.read().splitlines()
    with tempfile.TemporaryDirectory() as folder:
        hugging_face_folder = os.path.join(folder, "hugging_face")
        hugging_face.write(hugging_face_folder, model.model, model.tokenizer)
        sides = {
            "bert_keras": make_bert_keras(model),
            "KerasHub's predict": make_keras_hub(
                model, os.path.join(folder, "kh")
            ),
            "Hugging Face's pipeline": make_hugging_face(
                model, hugging_face_folder, by_length=False
            ),
            "the same, sorted by length": make_hugging_face(
                model, hugging_face_folder, by_length=True
            ),
        }
        parts = np.array_split(np.array(texts, object), PARTS.value)
        parts = [part.tolist() for part in parts]
        for answer in sides.values():
            answer(parts[0])  # tracing
        seconds = {name: [] for name in sides}
        labels = {name: [] for name in sides}
        for part in parts:
            for name, answer in sides.items():
                began = time.perf_counter()
                labels[name] += answer(part)
                seconds[name].append(time.perf_counter() - began)
    table = rich.table.Table(
        title=f"{len(texts):,} texts of {CHECKPOINT.value}, batches of "
        f"{BATCH_SIZE.value}, up to {model.task.seq_length} tokens"
    )
    for column in ("", "texts/s", "speed-up by bert_keras", "equal labels"):
        table.add_column(column)
    baseline_seconds = np.array(seconds["bert_keras"])
    for name, times in seconds.items():
        ratios = np.array(times) / baseline_seconds
        are_equal = np.equal(labels[name], labels["bert_keras"])
        table.add_row(
            name,
            f"{len(texts) / sum(times):.0f}",
            f"{np.median(ratios):.2f} ({ratios.min():.2f} to "
            f"{ratios.max():.2f})",
            f"{are_equal.sum():,}",
        )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    flags.mark_flags_as_required(["checkpoint", "texts"])
    benchmarks.run(main)
