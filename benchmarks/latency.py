"""Compares the latency of an exported BERT with that of other runtimes.

  make bench
  .venv-bench/bin/python -m benchmarks.latency --group=saved_model
  .venv-bench/bin/python -m benchmarks.latency --group=tflite

A side is one model in one runtime. All sides have the same BERT-base with two
classes and random weights, and read the same token ids. The sides of
--group=saved_model:

  bert_keras, float32    the exported SavedModel
  bert_keras, packed     the same with huge pages and weights packed once, which
                         takes their memory again: see tf_serving_files
  bert_keras, bfloat16   the bfloat16 export in the same environment
  bert_keras, TFLite     the float32 file
  KerasHub's export      a SavedModel
  PyTorch                Hugging Face's network
  ONNX Runtime           Hugging Face's network as exported by PyTorch
  ONNX Runtime, fused    the same with ONNX Runtime's fusions for BERT
  OpenVINO               the same ONNX file
  CTranslate2            the encoder only; NumPy computes the head

The sides of --group=tflite:

  bert_keras, float32    the TFLite file
  bert_keras, dynamic    the same with int8 weights
  bert_keras, int8       the same with int8 matmuls
  KerasHub's LiteRT      KerasHub's export
  ONNX Runtime, dynamic  Hugging Face's network with int8 weights

Each side has its own process with the same number of threads. The sides run
alternately, a few calls per turn; the others are idle meanwhile. KerasHub uses
the tanh approximation of GELU, so its scores differ slightly. CPU time is that
of a call, summed over threads.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np
import rich.console
import rich.table
from absl import flags

import benchmarks
from bert_keras.serving import tf_serving_files

GROUP = flags.DEFINE_enum(
    "group",
    "saved_model",
    ["saved_model", "tflite"],
    "Format of the exported model, which selects the runtimes to compare.",
)
LAYERS = flags.DEFINE_integer("layers", 12, "Number of encoder layers.", 1)
WIDTH = flags.DEFINE_integer(
    "width",
    768,
    "Hidden size H, a multiple of 64: each head has a width of 64.",
    64,
)
BATCH = flags.DEFINE_integer("batch_size", 1, "Rows per call.", 1)
LENGTH = flags.DEFINE_integer("seq_length", 128, "Tokens per row.", 4)
THREADS = flags.DEFINE_integer("threads", 2, "Threads of each side.", 1)
ROUNDS = flags.DEFINE_integer("rounds", 12, "Turns of each side.", 1)
CALLS = flags.DEFINE_integer("calls", 10, "Calls per turn.", 1)
ONLY = flags.DEFINE_integer(
    "only",
    None,
    "Internal: run only the side with this index, as a child process.",
)
FOLDER = flags.DEFINE_string(
    "folder", None, "Internal: folder of the models that --only reads."
)

VOCABULARY = 30522


def features():
    """Returns the features that every side reads, {name: (B, S) int64}."""
    random = np.random.default_rng(0)
    token_ids = random.integers(1000, VOCABULARY, (BATCH.value, LENGTH.value))
    return {
        "token_ids": token_ids,
        "segment_ids": np.zeros_like(token_ids),
        "padding_mask": np.ones_like(token_ids),
    }


# Each make_... returns a function without arguments that runs the model on
# `features()` and returns probabilities (B, 2). `folder` has the models of
# `write_models`.


def make_saved_model(folder, precision):
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    served = tf.saved_model.load(os.path.join(folder, precision, "1"))
    inputs = {
        name: tf.constant(value, tf.int32) for name, value in features().items()
    }
    return lambda: served.signatures["tokens"](**inputs)["scores"].numpy()


def make_keras_hub(folder):
    import keras_hub
    import tensorflow as tf

    classifier = keras_hub.models.BertTextClassifier.from_preset(
        os.path.join(folder, "keras_hub"), preprocessor=None
    )
    path = os.path.join(folder, "keras_hub_export")
    classifier.export(path, verbose=False)
    served = tf.saved_model.load(path)
    inputs = {
        name: tf.constant(value, tf.int32) for name, value in features().items()
    }

    def answer():
        return tf.nn.softmax(served.serve(inputs)).numpy()

    return answer


def load_hugging_face(folder):
    """Returns Hugging Face's PyTorch network and the inputs it is called with.

    inputs: {name: (B, S) tensor}.
    """
    import torch
    import transformers

    torch.set_num_threads(THREADS.value)
    model = transformers.BertForSequenceClassification.from_pretrained(
        os.path.join(folder, "hugging_face")
    ).eval()
    names = ("input_ids", "token_type_ids", "attention_mask")
    inputs = {
        name: torch.tensor(value)
        for name, value in zip(names, features().values(), strict=True)
    }
    return model, inputs


def make_pytorch(folder):
    import torch

    model, inputs = load_hugging_face(folder)

    def answer():
        with torch.inference_mode():
            return model(**inputs).logits.softmax(-1).numpy()

    return answer


def export_onnx(folder):
    """Exports Hugging Face's network with softmax; returns path and inputs."""
    import torch

    model, inputs = load_hugging_face(folder)
    path = os.path.join(tempfile.mkdtemp(dir=folder), "model.onnx")

    class Probabilities(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *values):
            return self.model(
                **dict(zip(inputs, values, strict=True))
            ).logits.softmax(-1)

    torch.onnx.export(
        Probabilities().eval(),
        tuple(inputs.values()),
        path,
        input_names=list(inputs),
        output_names=["scores"],
        verbose=False,
    )
    return path, {name: value.numpy() for name, value in inputs.items()}


def make_onnx_runtime(folder, *, quantized=False, fused=False):
    import onnx
    import onnxruntime
    from onnxruntime import quantization
    from onnxruntime.transformers import optimizer

    path, feed = export_onnx(folder)
    if fused:
        fused_model = optimizer.optimize_model(
            path,
            model_type="bert",
            num_heads=WIDTH.value // 64,
            hidden_size=WIDTH.value,
        )
        fused_ops = fused_model.get_fused_operator_statistics()
        if not fused_ops["SkipLayerNormalization"]:
            sys.exit(f"error: ONNX Runtime fused no ops: {fused_ops}")
        path = path.replace(".onnx", "_fused.onnx")
        fused_model.save_model_to_file(path)
    if quantized:
        # Remove the exporter's shapes: they conflict with the inferred ones.
        model = onnx.load(path)
        del model.graph.value_info[:]
        path = path.replace(".onnx", "_int8.onnx")
        quantization.quantize_dynamic(
            model, path, weight_type=quantization.QuantType.QInt8
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS.value
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(["scores"], feed)[0]


def make_openvino(folder):
    import openvino

    path, feed = export_onnx(folder)
    compiled = openvino.Core().compile_model(
        path,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": THREADS.value,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    request = compiled.create_infer_request()
    return lambda: request.infer(feed)[0]


def make_ctranslate2(folder):
    import ctranslate2
    import torch
    from ctranslate2 import converters

    path = os.path.join(tempfile.mkdtemp(dir=folder), "ctranslate2")
    converters.TransformersConverter(f"{folder}/hugging_face").convert(path)
    encoder = ctranslate2.Encoder(
        path, compute_type="float32", intra_threads=THREADS.value
    )
    model, _ = load_hugging_face(folder)
    with torch.inference_mode():
        kernel, bias = (
            each.numpy()
            for each in (model.classifier.weight, model.classifier.bias)
        )
    ids = features()["token_ids"].tolist()

    def answer():
        pooled = np.array(encoder.forward_batch(ids).pooler_output)
        logits = pooled @ kernel.T + bias
        return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)

    return answer


def make_tflite(path):
    """Runs a TFLite file of bert_keras or KerasHub.

    The names of their signatures and inputs differ.
    """
    from ai_edge_litert import interpreter

    run = interpreter.Interpreter(path, num_threads=THREADS.value)
    (signature,) = run.get_signature_list()
    call = run.get_signature_runner(signature)
    inputs = {}
    for input_name, details in call.get_input_details().items():
        # It contains the feature's name: serving_default_token_ids:0.
        (feature,) = (name for name in features() if name in input_name)
        inputs[input_name] = features()[feature].astype(details["dtype"])

    def answer():
        (scores,) = call(**inputs).values()
        if np.allclose(scores.sum(-1), 1):
            return scores
        # KerasHub's file returns logits.
        return np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)

    return answer


def make_keras_hub_tflite(folder):
    import keras_hub

    path = os.path.join(folder, "keras_hub.tflite")
    classifier = keras_hub.models.BertTextClassifier.from_preset(
        os.path.join(folder, "keras_hub"), preprocessor=None
    )
    classifier.export(
        path,
        format="litert",
        verbose=False,
        input_signature={
            name: keras.InputSpec(
                "int32", (BATCH.value, LENGTH.value), name=name
            )
            for name in features()
        },
    )
    return make_tflite(path)


# Group -> the label of each side -> its make_... function.
ALL_SIDES = {
    "saved_model": {
        "bert_keras, float32": lambda folder: make_saved_model(
            folder, "float32"
        ),
        "bert_keras, packed": lambda folder: make_saved_model(
            folder, "float32"
        ),
        "bert_keras, bfloat16": lambda folder: make_saved_model(
            folder, "bfloat16"
        ),
        "bert_keras, TFLite": lambda folder: make_tflite(
            f"{folder}/tflite/model_float32.tflite"
        ),
        "KerasHub's export": make_keras_hub,
        "PyTorch": make_pytorch,
        "ONNX Runtime": make_onnx_runtime,
        "ONNX Runtime, fused": lambda folder: make_onnx_runtime(
            folder, fused=True
        ),
        "OpenVINO": make_openvino,
        "CTranslate2": make_ctranslate2,
    },
    "tflite": {
        "bert_keras, float32": lambda folder: make_tflite(
            f"{folder}/tflite/model_float32.tflite"
        ),
        "bert_keras, dynamic": lambda folder: make_tflite(
            f"{folder}/tflite/model_dynamic.tflite"
        ),
        "bert_keras, int8": lambda folder: make_tflite(
            f"{folder}/tflite/model_int8.tflite"
        ),
        "KerasHub's LiteRT": make_keras_hub_tflite,
        "ONNX Runtime, dynamic": lambda folder: make_onnx_runtime(
            folder, quantized=True
        ),
    },
}


# Sides that run with huge pages, and with weights packed once by oneDNN.
PACKED = "bert_keras, packed", "bert_keras, bfloat16"
PACKED_ENVIRONMENT = tf_serving_files.ENVIRONMENT | {
    tf_serving_files.FROZEN_WEIGHTS: "1"
}


def write_models(folder):
    """Writes one random model in the formats that the sides read."""
    import dataclasses

    from bert_keras import checkpoint, predictor
    from bert_keras import model as model_lib
    from bert_keras.formats import hugging_face, keras_hub
    from bert_keras.networks import bert as bert_lib
    from bert_keras.tasks import classification
    from bert_keras.tokenizers import wordpiece
    from export import saved_model, tflite

    wordpieces = [f"w{number}" for number in range(VOCABULARY - 5)]
    tokenizer = wordpiece.Tokenizer(
        [*wordpiece.SPECIAL_TOKENS, *wordpieces], lowercase=True
    )
    bert = bert_lib.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH.value,
        num_layers=LAYERS.value,
        num_heads=WIDTH.value // 64,
        intermediate_size=4 * WIDTH.value,
    )
    task = classification.Classification(
        labels=("no", "yes"), seq_length=LENGTH.value
    )
    keras.utils.set_random_seed(1)
    model = model_lib.BertModel(bert_lib.BertEncoder(bert), task)
    hugging_face.write(os.path.join(folder, "hugging_face"), model, tokenizer)
    checkpoint.save(os.path.join(folder, "run"), model, tokenizer, step=1)
    reference = predictor.Predictor(model, tokenizer)
    quantizations = "float32", "dynamic", "int8"
    if BATCH.value > 1:
        quantizations = ()  # TFLite files have a batch size of 1
    elif GROUP.value == "saved_model":
        quantizations = ("float32",)
    text = " ".join(wordpieces[: LENGTH.value])
    for quantization in quantizations:
        tflite.export(
            reference,
            os.path.join(folder, "tflite"),
            quantization=quantization,
            seq_length=LENGTH.value,
            data=[{"text": text}] * 4,
        )
    if GROUP.value == "saved_model":
        run = os.path.join(folder, "run")
        for precision in ("float32", "bfloat16"):
            saved_model.export(
                predictor.load(run, precision=precision),
                os.path.join(folder, precision),
                reference=reference,
                precision=precision,
            )
    # KerasHub's BERT uses the tanh approximation of GELU.
    tanh_model = model_lib.BertModel(
        bert_lib.BertEncoder(dataclasses.replace(bert, activation="gelu_tanh")),
        task,
    )
    tanh_model.set_weights(model.get_weights())
    keras_hub.write(os.path.join(folder, "keras_hub"), tanh_model, tokenizer)


def run_side(make_answer):
    """Prints times and scores of one turn for each line of standard input."""
    answer = make_answer(FOLDER.value)
    for _ in range(3):
        answer()
    print("ready", flush=True)
    for _ in sys.stdin:
        seconds, cpu_seconds = [], []
        for _ in range(CALLS.value):
            began = time.perf_counter(), time.process_time()
            scores = answer()
            seconds.append(time.perf_counter() - began[0])
            cpu_seconds.append(time.process_time() - began[1])
        result = {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "scores": np.asarray(scores).tolist(),
        }
        print(json.dumps(result), flush=True)


def start_side(index, name, folder):
    """Starts the process of a side; returns it once the model is loaded."""
    forwarded_flags = GROUP, LAYERS, WIDTH, BATCH, LENGTH, THREADS, CALLS
    values = {flag.name: flag.value for flag in forwarded_flags}
    values |= {"only": index, "folder": folder}
    threads = str(THREADS.value)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.latency"]
        + [f"--{name}={value}" for name, value in values.items()],
        env={
            **os.environ,
            "TF_NUM_INTRAOP_THREADS": threads,
            "TF_NUM_INTEROP_THREADS": threads,
            **(PACKED_ENVIRONMENT if name in PACKED else {}),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while read_line(process, name) != "ready\n":
        pass
    return process


def read_line(process, name):
    """Reads a line that a side prints; ends the benchmark if it has exited."""
    line = process.stdout.readline()
    if not line:
        sys.exit(
            f"error: the process of the side {name!r} exited with status "
            f"{process.wait()}; its output is above."
        )
    return line


def run_turn(process, name):
    """Runs one turn of a side; returns what `run_side` prints."""
    with contextlib.suppress(BrokenPipeError):  # it exited; see `read_line`
        process.stdin.write("run a turn\n")
        process.stdin.flush()
    return json.loads(read_line(process, name))


def main(_):
    if GROUP.value == "tflite" and BATCH.value > 1:
        sys.exit(
            f"error: --batch_size={BATCH.value}: expected 1, the batch size of "
            "TFLite files. Use --group=saved_model for larger batches."
        )
    sides = dict(ALL_SIDES[GROUP.value])
    if BATCH.value > 1:
        del sides["bert_keras, TFLite"]
    if ONLY.value is not None:
        run_side(list(sides.values())[ONLY.value])
        return
    seconds = {name: [] for name in sides}
    cpu_seconds = {name: [] for name in sides}
    scores = {}
    with tempfile.TemporaryDirectory() as folder:
        write_models(folder)
        processes = [
            start_side(index, name, folder) for index, name in enumerate(sides)
        ]
        for _ in range(ROUNDS.value):
            for name, process in zip(sides, processes, strict=True):
                result = run_turn(process, name)
                seconds[name].append(float(np.median(result["seconds"])))
                cpu_seconds[name].append(float(np.mean(result["cpu_seconds"])))
                scores[name] = np.array(result["scores"])
        for process in processes:
            process.communicate()
    print_table(seconds, cpu_seconds, scores)


def print_table(seconds, cpu_seconds, scores):
    """Prints one row per side: {side: seconds of each turn}, {side: scores}."""
    baseline = "bert_keras, float32"
    baseline_seconds = np.array(seconds[baseline])
    baseline_cpu_seconds = np.array(cpu_seconds[baseline])
    table = rich.table.Table(
        title=f"{LAYERS.value} x {WIDTH.value}, {BATCH.value} x {LENGTH.value}"
        f" tokens, {THREADS.value} threads, {ROUNDS.value} turns of "
        f"{CALLS.value}; ratios to {baseline}"
    )
    for column in ("", "median", "ratio", "CPU time", "ratio", "max. diff."):
        table.add_column(column)
    for name, values in seconds.items():
        ratios = np.array(values) / baseline_seconds
        cpu_ratios = np.array(cpu_seconds[name]) / baseline_cpu_seconds
        max_difference = np.abs(scores[name] - scores[baseline]).max()
        table.add_row(
            name,
            f"{1000 * np.median(values):.1f} ms",
            f"{np.median(ratios):.2f} ({ratios.min():.2f} to "
            f"{ratios.max():.2f})",
            f"{1000 * np.median(cpu_seconds[name]):.1f} ms",
            f"{np.median(cpu_ratios):.2f}",
            f"{max_difference:.1g}",
        )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    benchmarks.run(main)
