"""Converts a predictor's functions to TFLite, optionally quantized."""

import dataclasses
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from tensorflow.core.protobuf import saved_model_pb2

from bert_keras import predictor as predictor_lib
from bert_keras import signatures, verification
from bert_keras.device import tflite_runner
from bert_keras.tasks import base

Examples = Sequence[Mapping[str, Any]]

# Maximum number of rows to calibrate int8 ranges on; more rows change them
# little.
MAX_CALIBRATION_ROWS = 200

# Ops that int8 leaves in float: all except matmuls with weights and embedding
# lookups. With a mask of -1e9, all other attention scores would share one int8
# step, and residual sums have a few large dimensions. Accuracy on SST-2, 6
# layers x 384, first 400 dev rows: 0.638 with all ops in int8, 0.850 with a
# mask of -30, 0.875 with sums and LayerNorm in float as well, 0.880 with
# FLOAT_OPS; 0.878 in float32.
FLOAT_OPS = sorted(
    name
    for name in vars(schema.BuiltinOperator)
    if name.isupper() and name not in ("FULLY_CONNECTED", "GATHER")
)


@dataclasses.dataclass(frozen=True)
class Quantization:
    """How to store weights, and the allowed differences from float32."""

    prepare: Callable[[tf.lite.TFLiteConverter], None]
    distance: float  # maximum difference; scores are in 0..1
    agreement: float  # minimum share of texts with the same labels
    calibrated: bool = False  # whether ranges are calibrated on examples


def _float32(converter):
    del converter


def _float16(converter):
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _dynamic(converter):
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


QUANTIZATIONS = {
    "float32": Quantization(_float32, distance=1e-4, agreement=1.0),
    "float16": Quantization(_float16, distance=0.02, agreement=0.9),
    "dynamic": Quantization(_dynamic, distance=0.25, agreement=0.75),
    # The loss depends on the task: the required metric decides.
    "int8": Quantization(
        _dynamic, distance=1.0, agreement=0.0, calibrated=True
    ),
}


def convert(
    predictor: predictor_lib.Predictor,
    quantization: Quantization,
    lengths: Sequence[int],
    data: Examples = (),
) -> bytes:
    """Converts `predictor.tokens` of one row to TFLite, for each length."""
    config = predictor.model.encoder.config
    functions = {
        tflite_runner.signature(length, lengths): (
            predictor.tokens,
            signatures.token_specs(config, 1, length),
        )
        for length in lengths
    }
    return convert_functions(
        predictor,
        functions,
        quantization,
        calibration_rows=lambda: _calibration_rows(predictor, lengths, data),
    )


def convert_functions(
    predictor: predictor_lib.Predictor,
    functions: Mapping[str, signatures.Signature],
    quantization: Quantization,
    *,
    calibration_rows: Callable[..., Any] | None = None,
    custom_ops: bool = False,
) -> bytes:
    """Converts functions of a predictor to TFLite, with built-in ops only.

    calibration_rows: yields them, if `quantization` is calibrated.
    custom_ops: allow other ops, which the caller must check.
    """
    with tempfile.TemporaryDirectory() as folder:
        signatures.save(predictor, folder, functions)
        if quantization.calibrated and _has_loop(folder):
            raise verification.ExportError(
                "expected a network without a loop for int8: TensorFlow's "
                "calibration cannot run the loop of a recurrent network, or "
                "of one that generates a text. Take `quantization`=dynamic, "
                "which stores matmul weights in 8 bits, too. Nothing was "
                "exported."
            )
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=list(functions)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.allow_custom_ops = custom_ops
        quantization.prepare(converter)
        try:
            if quantization.calibrated:
                converter.representative_dataset = calibration_rows
                return _convert_to_int8(converter)
            return converter.convert()
        # The converter's own exception has no public name.
        except Exception as error:
            raise verification.ExportError(_summarize(str(error))) from error


def _has_loop(folder: str) -> bool:
    """Whether a function of the SavedModel in `folder` has a loop.

    The calibrator does not refuse one, but ends the process by a segmentation
    fault (TensorFlow 2.21).
    """
    with open(os.path.join(folder, "saved_model.pb"), "rb") as file:
        saved = saved_model_pb2.SavedModel.FromString(file.read())
    return any(
        node.op in ("While", "StatelessWhile")
        for graph in saved.meta_graphs
        for function in graph.graph_def.library.function
        for node in function.node_def
    )


def _convert_to_int8(converter: tf.lite.TFLiteConverter) -> bytes:
    """Converts to int8 except FLOAT_OPS, which needs QuantizationDebugger."""
    tools = tf.lite.experimental
    with warnings.catch_warnings():
        # The debugger warns because it uses the deprecated tf.lite.Interpreter.
        warnings.simplefilter("ignore", UserWarning)
        debugger = tools.QuantizationDebugger(
            converter=converter,
            debug_dataset=converter.representative_dataset,
            debug_options=tools.QuantizationDebugOptions(
                denylisted_ops=FLOAT_OPS
            ),
        )
        return debugger.get_nondebug_quantized_model()


def _calibration_rows(
    predictor: predictor_lib.Predictor, lengths: Sequence[int], data: Examples
) -> Iterator[tuple[str, dict[str, tf.Tensor]]]:
    """Yields (signature, features) of the calibration rows."""
    raw = base.as_tensors(
        data[:MAX_CALIBRATION_ROWS], predictor.task.text_columns
    )
    for length in lengths:
        task = tflite_runner.task_of(predictor, length)
        inputs = tflite_runner.padded(predictor, task, raw)
        for number in range(
            min(MAX_CALIBRATION_ROWS, len(inputs["example_index"]))
        ):
            yield (
                tflite_runner.signature(length, lengths),
                {
                    name: inputs[name][number : number + 1]
                    for name in predictor.model.encoder.config.inputs
                },
            )


def _summarize(message: str) -> str:
    """Summarizes the converter's message: missing ops and their layers."""
    ops = re.search(r"(?:TF Select|Custom) ops: ([^\n]+)", message)
    if not ops:
        return f"the converter failed: {message.strip()[:500]}"
    names = [name.strip() for name in ops[1].split(",")]
    layers = {
        layer
        for layer in re.findall(r'"([^"@]+)@', message)
        if "/" in layer and layer.split("/")[-1].split("_")[0] in names
    }
    in_layers = f" in {', '.join(sorted(layers)[:5])}" if layers else ""
    return (
        f"TFLite has no built-in op for {', '.join(names)}{in_layers}: use "
        "other ops, as Flex is not supported here. Nothing was exported."
    )
