"""The oldest TFLite runtime of a file: which ops it has, in which versions."""

import re

import numpy as np
from ai_edge_litert import schema_py_generated as schema

# What the converter calls it in the file's metadata.
NAME = "min_runtime_version"

# Here a FULLY_CONNECTED of int8 learned to read weights with a scale for each
# output. The version of the op is that of weights with one scale, so older
# runtimes do not refuse such a file: scores of tflite-runtime 2.9.1 are off by
# 0.4, those of 2.10.0 are right.
SCALES_OF_OUTPUTS = (2, 10, 0)

# The oldest that files were run in; what the converter states of ops that are
# older yet nobody has tried.
OLDEST_TRIED = (2, 9, 0)

# The newest TFLite whose ops ai-edge-litert 1.0.1, its first release, has.
LITERT = (2, 17, 0)


def oldest(content: bytes) -> str:
    """Version of the oldest TFLite that answers as it should, as "2.9.0".

    What the converter writes into the file, from its table of the versions of
    ops, but for the two constants. Raises ValueError where there is nothing.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    stated = b"".join(
        np.asarray(model.buffers[each.buffer].data, np.uint8).tobytes()
        for each in model.metadata or ()
        if each.name.decode() == NAME
    )
    match = re.match(rb"\d+(\.\d+)+", stated)
    if not match:
        raise ValueError(
            f"expected a version as {NAME} in the file's metadata, found "
            f"{stated!r}; is it of TensorFlow's converter?"
        )
    version = max(numbers(match[0].decode()), OLDEST_TRIED)
    if _has_scales_of_outputs(model):
        version = max(version, SCALES_OF_OUTPUTS)
    return ".".join(map(str, version))


def numbers(version: str) -> tuple[int, ...]:
    """Of a version, to be compared."""
    return tuple(map(int, version.split(".")))


def _has_scales_of_outputs(model: schema.ModelT) -> bool:
    """Whether int8 is multiplied by weights with several scales."""
    for graph in model.subgraphs:
        for op in graph.operators:
            code = model.operatorCodes[op.opcodeIndex]
            if code.builtinCode != schema.BuiltinOperator.FULLY_CONNECTED:
                continue
            values, weights = (graph.tensors[i] for i in op.inputs[:2])
            scales = weights.quantization and weights.quantization.scale
            if (
                values.type == schema.TensorType.INT8
                and scales is not None
                and len(scales) > 1
            ):
                return True
    return False
