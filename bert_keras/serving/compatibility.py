"""Determines which TF Serving versions can load a model, from its ops.

The tables are from the servers' sources (workspace.bzl of each release) and
from the ops in TensorFlow's wheels. Attributes are included because a
TensorFlow that does not know an attribute ignores it: it would load the model
and compute other answers. Attributes with default values are not exported.
"""

import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from bert_keras import errors

# Minor version of a server -> the version of TensorFlow Text in it.
SERVERS = {
    "2.12": "2.12.1",
    "2.13": "2.12.1",
    "2.14": "2.12.1",
    "2.15": "2.12.1",
    "2.16": "2.12.1",
    "2.17": "2.12.1",
    "2.18": "2.12.1",
    "2.19": "2.12.1",
    "2.20": "2.20.0",
}
NEWEST = "2.20.0"

# Op -> its library in the wheel of TensorFlow Text. Their definitions are the
# same from TensorFlow Text 2.8.2, or 2.12.1 for FastSentencepieceTokenize, to
# 2.20.1.
TEXT_OPS = {
    "CaseFoldUTF8": "_normalize_ops.so",
    "FastWordpieceTokenizeWithOffsets": "_fast_wordpiece_tokenizer.so",
    "FindSourceOffsets": "_normalize_ops.so",
    "NormalizeUTF8": "_normalize_ops.so",
    "NormalizeUTF8WithOffsetsMap": "_normalize_ops.so",
    "RegexSplitWithOffsets": "_regex_split_ops.so",
    "SentencepieceOp": "_sentencepiece_tokenizer.so",
    "SentencepieceTokenizeOp": "_sentencepiece_tokenizer.so",
    "SentencepieceTokenizeWithOffsetsOp": "_sentencepiece_tokenizer.so",
    "TFText>FastSentencepieceTokenize": "_fast_sentencepiece_tokenizer.so",
}

# The first TensorFlow Text whose FastWordpieceTokenizer has a guard against
# endless loops.
GUARDED_TEXT = "2.19.0"

# Ops that TensorFlow 2.21 has and 2.12 lacks -> the first version with them.
OPS = {
    **dict.fromkeys(
        (
            "CollectiveAllToAllV2",
            "DebugIdentityV3",
            "RaggedFillEmptyRows",
            "RaggedFillEmptyRowsGrad",
            "SegmentMaxV2",
            "SegmentMinV2",
            "SnapshotChunkDataset",
        ),
        "2.13",
    ),
    **dict.fromkeys(
        (
            "Conv",
            "SparseSegmentMeanGradV2",
            "SparseSegmentSqrtNGradV2",
            "SparseSegmentSumGradV2",
            "TFRecordDatasetV2",
        ),
        "2.14",
    ),
    **dict.fromkeys(
        (
            "DynamicEnqueueTPUEmbeddingRaggedTensorBatch",
            "FFTND",
            "IFFTND",
            "IRFFTND",
            "RFFTND",
        ),
        "2.15",
    ),
    **dict.fromkeys(
        ("DatasetFingerprint", "ListSnapshotChunksDataset"), "2.16"
    ),
    **dict.fromkeys(
        (
            "GlobalShuffleDataset",
            "IndexFlatMapDataset",
            "IteratorGetModelProto",
            "WeightedFlatMapDataset",
        ),
        "2.17",
    ),
    "CheckPinned": "2.18",
    "DecodeWebP": "2.20",
    "TPUDummyInput": "2.20",
    "DecodeJxl": "2.21",
}
_POLICY = {"bad_indices_policy": "2.18"}
_GRADIENTS = {"grad_x": "2.16", "grad_y": "2.16"}
_SPARSE = {"sparse_gradient": "2.15"}
_COLLECTIVE = {"is_stateless": "2.15"}
# Op -> {attribute: the first TensorFlow version with it}. It omits debug_name
# of VarHandleOp (2.15), which does not change the results.
ATTRIBUTES = {
    "BatchFunction": {
        "low_priority_allowed_batch_sizes": "2.14",
        "low_priority_batch_timeout_micros": "2.14",
        "low_priority_max_batch_size": "2.14",
        "low_priority_max_enqueued_batches": "2.14",
        "mixed_priority_policy": "2.17",
        "batch_padding_policy": "2.18",
    },
    "BatchMatMul": _GRADIENTS,
    "BatchMatMulV2": _GRADIENTS,
    "BatchMatMulV3": _GRADIENTS,
    "CollectiveAllToAllV2": _COLLECTIVE,
    "CollectiveGatherV2": _COLLECTIVE,
    "CollectiveReduceScatterV2": _COLLECTIVE,
    "CollectiveReduceV2": _COLLECTIVE,
    "ConcatOffset": {"shape_type": "2.14"},
    "DatasetCardinality": {"cardinality_options": "2.13"},
    "ExperimentalMapDataset": {"force_synchronous": "2.18"},
    "GatherNd": {"bad_indices_policy": "2.17"},
    "MapDataset": {"force_synchronous": "2.18"},
    "MatMul": {"grad_a": "2.16", "grad_b": "2.16"},
    "ParallelMapDatasetV2": {"use_unbounded_threadpool": "2.18"},
    "ResourceScatterNdAdd": _POLICY,
    "ResourceScatterNdMax": _POLICY,
    "ResourceScatterNdMin": _POLICY,
    "ResourceScatterNdSub": _POLICY,
    "ResourceScatterNdUpdate": _POLICY,
    "ScatterNd": _POLICY,
    "ScatterNdNonAliasingAdd": _POLICY,
    "SparseSegmentMean": _SPARSE,
    "SparseSegmentMeanWithNumSegments": _SPARSE,
    "SparseSegmentSqrtN": _SPARSE,
    "SparseSegmentSqrtNWithNumSegments": _SPARSE,
    "SparseSegmentSum": _SPARSE,
    "SparseSegmentSumWithNumSegments": _SPARSE,
    "TPUReplicateMetadata": {"use_shardy_partitioner": "2.20"},
    "TensorListGetItem": {"Tshape": "2.21"},
    "TensorListSetItem": {"resize_if_index_out_of_bounds": "2.13"},
    "TensorScatterAdd": _POLICY,
    "TensorScatterMax": _POLICY,
    "TensorScatterMin": _POLICY,
    "TensorScatterSub": _POLICY,
    "TensorScatterUpdate": _POLICY,
    "TopKV2": {"Tk": "2.13", "index_type": "2.13"},
}


def attributes(graph: Any) -> dict[str, list[str]]:
    """Returns {op: those of its ATTRIBUTES that occur in a GraphDef}."""
    used_by_op: dict[str, set[str]] = {}
    functions = (function.node_def for function in graph.library.function)
    for nodes in (graph.node, *functions):
        for node in nodes:
            used = ATTRIBUTES.get(node.op, {}).keys() & set(node.attr)
            if used:
                used_by_op.setdefault(node.op, set()).update(used)
    return {op: sorted(names) for op, names in sorted(used_by_op.items())}


def minor(version: str) -> tuple[int, int]:
    """Parses the major and minor number of a version; raises ValueError."""
    match = re.match(r"(\d{1,4})\.(\d{1,4})(?!\d)", version, re.ASCII)
    if not match:
        raise ValueError(
            f"expected a version such as 2.20.0, found {version!r:.60}"
        )
    return int(match[1]), int(match[2])


def is_version(version: str) -> bool:
    try:
        return bool(minor(version))
    except ValueError:
        return False


def require_server(version: str) -> str:
    """Returns the key of SERVERS for a version.

    Raises InputError if the version is unknown.
    """
    try:
        key = "{}.{}".format(*minor(version))
    except ValueError as error:
        raise errors.InputError(f"`server`: {error}.") from None
    if key not in SERVERS:
        raise errors.InputError(
            f"server={version}: expected a version of TF Serving from "
            f"{min(SERVERS, key=minor)} to {NEWEST}. For a newer one, find out "
            "by loading the model."
        )
    return key


def problems(manifest: Mapping[str, Any], server: str) -> list[str]:
    """Returns the reasons why a server cannot serve a model; [] if it can.

    server: a minor version. A manifest without "attributes", from an older
    export, is assumed to use all attributes of the TensorFlow that wrote it.
    """
    server_version = minor(server)
    exported_with = minor(manifest["versions"]["tensorflow"])
    used = manifest.get("attributes")
    messages = []
    for op in sorted({*manifest["ops"], *manifest["text_ops"]}):
        if op in TEXT_OPS:
            continue
        if op in OPS:
            if server_version < minor(OPS[op]):
                messages.append(f"{op} was added in TensorFlow {OPS[op]}")
        elif not hasattr(tf.raw_ops, op):
            messages.append(
                f"{op} is in no known version of TensorFlow or TensorFlow Text"
            )
        for name, since in ATTRIBUTES.get(op, {}).items():
            is_used = used is None or name in used.get(op, ())
            if is_used and server_version < minor(since) <= exported_with:
                messages.append(
                    f"the attribute {name} of {op} was added in TensorFlow "
                    f"{since} and would be ignored"
                )
    return messages


def servers(manifest: Mapping[str, Any]) -> list[str]:
    """Returns the known minor versions that can serve a model."""
    return [server for server in SERVERS if not problems(manifest, server)]


def format_servers(manifest: Mapping[str, Any]) -> str:
    """Formats the versions of `servers`."""
    return ", ".join(servers(manifest)) or "no known version can serve it"


def remark(server: str) -> str:
    """Returns a remark on the TensorFlow Text in a server."""
    text = SERVERS[server]
    if minor(text) < minor(GUARDED_TEXT):
        return (
            f"its TensorFlow Text, {text}, lacks the guard against endless "
            f"loops of the tokenizer that was added in {GUARDED_TEXT}: prefer "
            f"{NEWEST}"
        )
    return f"its TensorFlow Text is {text}"
