"""Determines the oldest TFLite runtime that can run a file."""

import re

import numpy as np
from ai_edge_litert import schema_py_generated as schema

# The metadata entry in which the converter stores the minimum runtime version.
METADATA_NAME = "min_runtime_version"

# The first runtime whose int8 FULLY_CONNECTED supports per-channel weight
# scales. The op's version is the same as with one scale, so older runtimes do
# not refuse such a file: scores of tflite-runtime 2.9.1 are off by 0.4, those
# of 2.10.0 are right.
PER_CHANNEL_RUNTIME = (2, 10, 0)

# The oldest runtime that files were tested with; the converter may state an
# older one, which is untested.
OLDEST_TESTED = (2, 9, 0)

# ai-edge-litert 1.0.1, its first release, has the ops of this TFLite version.
LITERT_1_TFLITE_VERSION = (2, 17, 0)


def oldest_runtime(content: bytes) -> str:
    """Returns the oldest TFLite version with correct results, such as "2.9.0".

    This is the version that the converter writes into the file, raised to
    OLDEST_TESTED and PER_CHANNEL_RUNTIME if needed. Raises ValueError if the
    file's metadata has no version.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    stated = b"".join(
        np.asarray(model.buffers[each.buffer].data, np.uint8).tobytes()
        for each in model.metadata or ()
        if each.name.decode() == METADATA_NAME
    )
    match = re.match(rb"\d+(\.\d+)+", stated)
    if not match:
        raise ValueError(
            f"expected a version in the metadata entry {METADATA_NAME}, found "
            f"{stated!r}. Was the file written by TensorFlow's converter?"
        )
    version = max(version_numbers(match[0].decode()), OLDEST_TESTED)
    if _has_per_channel_scales(model):
        version = max(version, PER_CHANNEL_RUNTIME)
    return ".".join(map(str, version))


def version_numbers(version: str) -> tuple[int, ...]:
    """Parses a version to a tuple, for comparison."""
    return tuple(map(int, version.split(".")))


def _has_per_channel_scales(model: schema.ModelT) -> bool:
    """Returns whether an int8 matmul has per-channel weight scales."""
    for graph in model.subgraphs:
        for op in graph.operators:
            code = model.operatorCodes[op.opcodeIndex]
            if code.builtinCode != schema.BuiltinOperator.FULLY_CONNECTED:
                continue
            inputs, weights = (graph.tensors[i] for i in op.inputs[:2])
            scales = weights.quantization and weights.quantization.scale
            if (
                inputs.type == schema.TensorType.INT8
                and scales is not None
                and len(scales) > 1
            ):
                return True
    return False
