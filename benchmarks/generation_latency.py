"""Compares the time to generate a text with Hugging Face's BART.

  make bench
  .venv-bench/bin/python -m benchmarks.generation_latency

One text at a time, greedy and with a beam search. All sides have an
encoder-decoder of the same sizes with random weights, of which each generates
--new_tokens tokens:

  SavedModel    bert_keras: raw text in, text and score out
  TFLite        bert_keras: token ids in and out; without a beam search
  Hugging Face  transformers on PyTorch: token ids in and out

They run in one process with the same number of threads, alternately, a few
calls per turn; the others are idle meanwhile. Processor time is that of a call,
summed over threads.
"""

import os
import tempfile
import time

import keras
import numpy as np
import rich.console
import rich.table
import tensorflow as tf
import torch
from absl import flags

import benchmarks
from benchmarks import encoder_decoders
from benchmarks.encoder_decoders import END, START
from bert_keras import model as model_lib
from bert_keras import predictor as predictor_lib
from bert_keras.device import tflite, tflite_runner
from bert_keras.serving import saved_model
from bert_keras.tasks import sequence_to_sequence
from bert_keras.tokenizers import wordpiece

LAYERS = flags.DEFINE_integer("layers", 3, "Layers of each of the two.", 1)
WIDTH = flags.DEFINE_integer("width", 256, "Hidden size, 64 per head.", 64)
VOCABULARY = flags.DEFINE_integer("vocab_size", 8000, "Entries.", 100)
SOURCE = flags.DEFINE_integer("source_words", 16, "Words of the text.", 1)
NEW = flags.DEFINE_integer("new_tokens", 16, "Tokens to generate.", 2)
BEAMS = flags.DEFINE_integer("num_beams", 4, "Of the beam search.", 2)
ROUNDS = flags.DEFINE_integer("rounds", 10, "Turns of each side.", 1)
CALLS = flags.DEFINE_integer("calls", 5, "Calls per turn.", 1)
THREADS = flags.DEFINE_integer("threads", 2, "Threads of each side.", 1)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def sizes():
    """Returns those of both sides."""
    return {
        "vocab_size": VOCABULARY.value,
        "width": WIDTH.value,
        "layers": LAYERS.value,
    }


def make_predictor(**settings):
    """Returns a predictor with random weights; settings: of its task."""
    keras.utils.set_random_seed(1)
    words = [f"w{number}" for number in range(VOCABULARY.value - len(SPECIAL))]
    tokenizer = wordpiece.Tokenizer([*SPECIAL, *words], lowercase=False)
    network = encoder_decoders.bert_config(**sizes())
    task = sequence_to_sequence.SequenceToSequence(
        seq_length=SOURCE.value + 2, max_target_length=NEW.value, **settings
    ).adapt([], tokenizer)
    model = model_lib.BertModel(network.build_encoder(), task)
    return predictor_lib.Predictor(model, tokenizer)


def make_saved_model(folder, beams):
    """Returns a function that generates, and the model's size in bytes."""
    predictor = make_predictor(num_beams=beams, min_new_tokens=NEW.value)
    path = saved_model.export(predictor, os.path.join(folder, f"model{beams}"))
    run = tf.saved_model.load(path).signatures["serving_default"]

    def call(ids):
        text = " ".join(f"w{each - len(SPECIAL)}" for each in ids)
        return run(text=tf.constant([text]))["text"].numpy()

    size = sum(
        os.path.getsize(os.path.join(where, name))
        for where, _, names in os.walk(path)
        for name in names
    )
    return call, size


def make_tflite(folder, beams):
    del beams
    predictor = make_predictor()
    path = tflite.export(
        predictor,
        os.path.join(folder, "device"),
        seq_length=SOURCE.value + 2,
    )
    file = tflite_runner.File(path, predictor, threads=THREADS.value)

    def call(ids):
        row = np.array([[START, *ids, END]], np.int32)
        return file.call({"token_ids": row, "padding_mask": np.ones_like(row)})

    return call, os.path.getsize(path)


def make_hugging_face(folder, beams):
    del folder
    model = encoder_decoders.make_bart(
        **sizes(),
        threads=THREADS.value,
        bos_token_id=START,
        pad_token_id=0,
        forced_eos_token_id=None,
    )
    model.eval()

    @torch.inference_mode()
    def call(ids):
        found = model.generate(
            torch.tensor([[START, *ids, END]]),
            num_beams=beams,
            do_sample=False,
            min_new_tokens=NEW.value,
            max_new_tokens=NEW.value,
        )
        return found[0].tolist()

    parameters = sum(p.numel() for p in model.parameters())
    return call, 4 * parameters


SIDES = {
    "SavedModel": make_saved_model,
    "TFLite": make_tflite,
    "Hugging Face": make_hugging_face,
}


def main(_):
    tf.config.threading.set_intra_op_parallelism_threads(THREADS.value)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            (name, beams): make(folder, beams)
            for beams in (1, BEAMS.value)
            for name, make in SIDES.items()
            if beams == 1 or name != "TFLite"
        }
        wall = {side: [] for side in sides}
        processor = {side: [] for side in sides}
        for turn in range(1 + ROUNDS.value):
            rows = random.integers(
                len(SPECIAL), VOCABULARY.value, (CALLS.value, SOURCE.value)
            )
            for side, (call, _) in sides.items():
                began, before = (
                    time.perf_counter(),
                    encoder_decoders.processor_seconds(),
                )
                for row in rows.tolist():
                    call(row)
                if turn:  # the first is not counted
                    wall[side].append(time.perf_counter() - began)
                    processor[side].append(
                        encoder_decoders.processor_seconds() - before
                    )
    table = rich.table.Table(
        title=f"{LAYERS.value} + {LAYERS.value} layers x {WIDTH.value}, "
        f"{SOURCE.value} tokens in, {NEW.value} out, one text at a time"
    )
    for column in ("", "beams", "size", "text", "processor time", "ratio"):
        table.add_column(column)
    for (name, beams), (_, size) in sides.items():
        peer = np.array(wall["Hugging Face", beams])
        ratios = peer / np.array(wall[name, beams])
        table.add_row(
            name,
            str(beams),
            f"{size / 1e6:.1f} MB",
            f"{1000 * np.median(wall[name, beams]) / CALLS.value:.1f} ms",
            f"{1000 * np.median(processor[name, beams]) / CALLS.value:.1f} ms",
            f"{np.median(ratios):.2f} ({ratios.min():.2f} to "
            f"{ratios.max():.2f})",
        )
    table.caption = "ratio: how many times as fast as Hugging Face"
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    benchmarks.run(main)
