"""Compares the latency of an exported BERT with other runtimes, in turns.

  make bench
  .venv-bench/bin/python -m benchmarks.latency --of=saved_model
  .venv-bench/bin/python -m benchmarks.latency --of=tflite

The model is a BERT-base with two classes and random weights, the same on all
sides; inputs are token ids.

--of=saved_model: bert_keras in float32, with the server environment of its
compose file, and in bfloat16 with that environment; its TFLite file; KerasHub's
export; Hugging Face's network on PyTorch, in ONNX Runtime (as exported, and
with its fusions for BERT), in OpenVINO, and in CTranslate2, which has only the
encoder, so NumPy computes the head.
--of=tflite: bert_keras in float32 and with int8 weights, KerasHub's LiteRT
export, and ONNX Runtime's dynamic int8.

Each side has its own process with the same number of threads, and idles while
another one runs. KerasHub uses the tanh approximation of GELU, so its scores
differ slightly. "processor" is the CPU time of a call, summed over threads.
"""

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

OF = flags.DEFINE_enum(
    "of", "saved_model", ["saved_model", "tflite"], "What is compared."
)
LAYERS = flags.DEFINE_integer("layers", 12, "Of the encoder.", 1)
WIDTH = flags.DEFINE_integer("width", 768, "H, of 64 to a head.", 64)
BATCH = flags.DEFINE_integer("batch_size", 1, "Rows.", 1)
LENGTH = flags.DEFINE_integer("seq_length", 128, "Tokens in a row.", 4)
THREADS = flags.DEFINE_integer("threads", 2, "Of each side.", 1)
ROUNDS = flags.DEFINE_integer("rounds", 12, "Turns of each side.", 1)
CALLS = flags.DEFINE_integer("calls", 10, "Of a turn.", 1)
ONLY = flags.DEFINE_integer("only", None, "The number of a side, to be one.")
FOLDER = flags.DEFINE_string("folder", None, "Of the models, of --only.")

VOCABULARY = 30522


def rows():
    """Returns the features of all sides, (B, S) int64."""
    random = np.random.default_rng(0)
    token_ids = random.integers(1000, VOCABULARY, (BATCH.value, LENGTH.value))
    return {
        "token_ids": token_ids,
        "segment_ids": np.zeros_like(token_ids),
        "padding_mask": np.ones_like(token_ids),
    }


def saved(folder, precision):
    """Makes a function without arguments that returns probabilities (B, 2)."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    served = tf.saved_model.load(os.path.join(folder, precision, "1"))
    inputs = {
        name: tf.constant(value, tf.int32) for name, value in rows().items()
    }
    return lambda: served.signatures["tokens"](**inputs)["scores"].numpy()


def keras_hubs(folder):
    import keras_hub
    import tensorflow as tf

    classifier = keras_hub.models.BertTextClassifier.from_preset(
        os.path.join(folder, "keras_hub"), preprocessor=None
    )
    path = os.path.join(folder, "keras_hub_export")
    classifier.export(path, verbose=False)
    served = tf.saved_model.load(path)
    inputs = {
        name: tf.constant(value, tf.int32) for name, value in rows().items()
    }

    def answer():
        return tf.nn.softmax(served.serve(inputs)).numpy()

    return answer


def hugging_faces(folder):
    import torch
    import transformers

    torch.set_num_threads(THREADS.value)
    model = transformers.BertForSequenceClassification.from_pretrained(
        os.path.join(folder, "hugging_face")
    ).eval()
    names = ("input_ids", "token_type_ids", "attention_mask")
    inputs = {
        name: torch.tensor(value)
        for name, value in zip(names, rows().values(), strict=True)
    }
    return model, inputs


def torchs(folder):
    import torch

    model, inputs = hugging_faces(folder)

    def answer():
        with torch.inference_mode():
            return model(**inputs).logits.softmax(-1).numpy()

    return answer


def onnx_file(folder):
    """Exports Hugging Face's network with softmax; returns path and inputs."""
    import torch

    model, inputs = hugging_faces(folder)
    path = os.path.join(tempfile.mkdtemp(dir=folder), "model.onnx")

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *values):
            return self.model(
                **dict(zip(inputs, values, strict=True))
            ).logits.softmax(-1)

    torch.onnx.export(
        Logits().eval(),
        tuple(inputs.values()),
        path,
        input_names=list(inputs),
        output_names=["scores"],
        verbose=False,
    )
    return path, {name: value.numpy() for name, value in inputs.items()}


def onnx_runtimes(folder, *, quantized=False, fused=False):
    import onnx
    import onnxruntime
    from onnxruntime import quantization
    from onnxruntime.transformers import optimizer

    path, feed = onnx_file(folder)
    if fused:
        model = optimizer.optimize_model(
            path,
            model_type="bert",
            num_heads=WIDTH.value // 64,
            hidden_size=WIDTH.value,
        )
        fused_ops = model.get_fused_operator_statistics()
        if not fused_ops["SkipLayerNormalization"]:
            sys.exit(f"error: ONNX Runtime has fused nothing: {fused_ops}")
        path = path.replace(".onnx", "_fused.onnx")
        model.save_model_to_file(path)
    if quantized:
        # Remove the exporter's shapes: they conflict with the inferred ones.
        whole = onnx.load(path)
        del whole.graph.value_info[:]
        path = path.replace(".onnx", "_int8.onnx")
        quantization.quantize_dynamic(
            whole, path, weight_type=quantization.QuantType.QInt8
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS.value
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(["scores"], feed)[0]


def openvinos(folder):
    import openvino

    path, feed = onnx_file(folder)
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


def ctranslate2s(folder):
    import ctranslate2
    import torch
    from ctranslate2 import converters

    path = os.path.join(tempfile.mkdtemp(dir=folder), "ctranslate2")
    converters.TransformersConverter(f"{folder}/hugging_face").convert(path)
    encoder = ctranslate2.Encoder(
        path, compute_type="float32", intra_threads=THREADS.value
    )
    model, _ = hugging_faces(folder)
    with torch.inference_mode():
        kernel, bias = (
            each.numpy()
            for each in (model.classifier.weight, model.classifier.bias)
        )
    ids = rows()["token_ids"].tolist()

    def answer():
        pooled = np.array(encoder.forward_batch(ids).pooler_output)
        logits = pooled @ kernel.T + bias
        return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)

    return answer


def tflites(path):
    """Makes a function that runs a TFLite file of bert_keras or KerasHub.

    The names of their signatures and inputs differ.
    """
    from ai_edge_litert import interpreter

    run = interpreter.Interpreter(path, num_threads=THREADS.value)
    (signature,) = run.get_signature_list()
    call = run.get_signature_runner(signature)
    inputs = {}
    for each, details in call.get_input_details().items():
        (name,) = (name for name in rows() if name in each)
        inputs[each] = rows()[name].astype(details["dtype"])

    def answer():
        (scores,) = call(**inputs).values()
        if np.allclose(scores.sum(-1), 1):
            return scores
        return np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)

    return answer


def keras_hubs_tflite(folder):
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
            for name in rows()
        },
    )
    return tflites(path)


ALL_SIDES = {
    "saved_model": {
        "bert_keras, float32": lambda folder: saved(folder, "float32"),
        "bert_keras, as served": lambda folder: saved(folder, "float32"),
        "bert_keras, bfloat16": lambda folder: saved(folder, "bfloat16"),
        "bert_keras, TFLite": lambda folder: tflites(
            f"{folder}/tflite/model_float32.tflite"
        ),
        "KerasHub's export": keras_hubs,
        "PyTorch": torchs,
        "ONNX Runtime": onnx_runtimes,
        "ONNX Runtime, fused": lambda folder: onnx_runtimes(folder, fused=True),
        "OpenVINO": openvinos,
        "CTranslate2": ctranslate2s,
    },
    "tflite": {
        "bert_keras, float32": lambda folder: tflites(
            f"{folder}/tflite/model_float32.tflite"
        ),
        "bert_keras, dynamic": lambda folder: tflites(
            f"{folder}/tflite/model_dynamic.tflite"
        ),
        "bert_keras, int8": lambda folder: tflites(
            f"{folder}/tflite/model_int8.tflite"
        ),
        "KerasHub's LiteRT": keras_hubs_tflite,
        "ONNX Runtime, dynamic": lambda folder: onnx_runtimes(
            folder, quantized=True
        ),
    },
}


# Sides that run with the environment of an export's compose file.
AS_SERVED = "bert_keras, as served", "bert_keras, bfloat16"


def write(folder):
    """Writes the same weights for all sides."""
    import dataclasses

    from bert_keras import checkpoint, predictor
    from bert_keras import model as model_lib
    from bert_keras.formats import hugging_face, keras_hub
    from bert_keras.networks import bert as bert_lib
    from bert_keras.tasks import classification
    from bert_keras.tokenizers import wordpiece
    from export import saved_model, tflite

    pieces = [f"w{number}" for number in range(VOCABULARY - 5)]
    tokenizer = wordpiece.Tokenizer(
        [*wordpiece.SPECIAL_TOKENS, *pieces], lowercase=True
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
    elif OF.value == "saved_model":
        quantizations = ("float32",)
    text = " ".join(pieces[: LENGTH.value])
    for quantization in quantizations:
        tflite.export(
            reference,
            os.path.join(folder, "tflite"),
            quantization=quantization,
            seq_length=LENGTH.value,
            data=[{"text": text}] * 4,
        )
    for precision in ("float32", "bfloat16"):
        if OF.value != "saved_model":
            break
        saved_model.export(
            predictor.load(os.path.join(folder, "run"), precision=precision),
            os.path.join(folder, precision),
            reference=reference,
            precision=precision,
        )
    other = model_lib.BertModel(
        bert_lib.BertEncoder(dataclasses.replace(bert, activation="gelu_tanh")),
        task,
    )
    other.set_weights(model.get_weights())
    keras_hub.write(os.path.join(folder, "keras_hub"), other, tokenizer)


def only(make):
    """Runs one side: prints times and scores for each line of its input."""
    answer = make(FOLDER.value)
    for _ in range(3):
        answer()
    print("ready", flush=True)
    for _ in sys.stdin:
        seconds, busy = [], []
        for _ in range(CALLS.value):
            began = time.perf_counter(), time.process_time()
            scores = answer()
            seconds.append(time.perf_counter() - began[0])
            busy.append(time.process_time() - began[1])
        result = {
            "seconds": seconds,
            "processor": busy,
            "scores": np.asarray(scores).tolist(),
        }
        print(json.dumps(result), flush=True)


def start(number, folder, environment):
    own = OF, LAYERS, WIDTH, BATCH, LENGTH, THREADS, CALLS
    values = {flag.name: flag.value for flag in own}
    values |= {"only": number, "folder": folder}
    threads = str(THREADS.value)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.latency"]
        + [f"--{name}={value}" for name, value in values.items()],
        env={
            **os.environ,
            "TF_NUM_INTRAOP_THREADS": threads,
            "TF_NUM_INTEROP_THREADS": threads,
            **environment,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while (line := process.stdout.readline()) != "ready\n":
        if not line:
            sys.exit("error: a side ended early; see above.")
    return process


def main(_):
    sides = dict(ALL_SIDES[OF.value])
    if BATCH.value > 1:
        sides.pop("bert_keras, TFLite", None)
    if ONLY.value is not None:
        only(list(sides.values())[ONLY.value])
        return
    seconds = {name: [] for name in sides}
    processor = {name: [] for name in sides}
    scores = {}
    with tempfile.TemporaryDirectory() as folder:
        write(folder)
        processes = [
            start(
                number,
                folder,
                tf_serving_files.ENVIRONMENT if name in AS_SERVED else {},
            )
            for number, name in enumerate(sides)
        ]
        for _ in range(ROUNDS.value):
            for name, process in zip(sides, processes, strict=True):
                process.stdin.write("go\n")
                process.stdin.flush()
                result = json.loads(process.stdout.readline())
                seconds[name].append(float(np.median(result["seconds"])))
                processor[name].append(float(np.mean(result["processor"])))
                scores[name] = np.array(result["scores"])
        for process in processes:
            process.communicate()
    mine = np.array(seconds["bert_keras, float32"])
    busy = np.array(processor["bert_keras, float32"])
    table = rich.table.Table(
        title=f"{LAYERS.value} x {WIDTH.value}, {BATCH.value} x {LENGTH.value}"
        f" tokens, {THREADS.value} threads, {ROUNDS.value} turns of "
        f"{CALLS.value}"
    )
    for column in (
        "",
        "median",
        "to bert_keras in float32",
        "processor",
        "to bert_keras",
        "scores differ by",
    ):
        table.add_column(column)
    for name, values in seconds.items():
        ratios = np.array(values) / mine
        apart = np.abs(scores[name] - scores["bert_keras, float32"]).max()
        table.add_row(
            name,
            f"{1000 * np.median(values):.1f} ms",
            f"{np.median(ratios):.2f} ({ratios.min():.2f} to "
            f"{ratios.max():.2f})",
            f"{1000 * np.median(processor[name]):.1f} ms",
            f"{np.median(np.array(processor[name]) / busy):.2f}",
            f"{apart:.1g}",
        )
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    benchmarks.run(main)
