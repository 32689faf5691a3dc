"""Adds TFLite metadata, which MediaPipe and TFLite Support need, to a file.

MediaPipe's TextClassifier and TextEmbedder can run a BERT, tokenizer included,
without custom code if the file describes its inputs and contains vocabulary and
labels. The description is a second flatbuffer (metadata_schema.fbs of TFLite
Support, identifier M001) in one of the model's buffers; vocabulary and labels
are in a zip archive appended to the model.
"""

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

NAME, IDENTIFIER = "TFLITE_METADATA", b"M001"
# The first metadata parser that supports BERT's tokenizer.
MIN_PARSER_VERSION = "1.1.0"

# Native input names -> MediaPipe's.
INPUTS = {
    "token_ids": "ids",
    "padding_mask": "mask",
    "segment_ids": "segment_ids",
}
# The name of a classifier's output: MediaPipe accepts any name, but TFLite
# Support's BertNLClassifier crashes without an output of this name.
CLASSIFIER_OUTPUT = "probability"

# A flatbuffer table as {slot: value}. Integer values are enums and union types,
# of one byte. A slot is a field's index in metadata_schema.fbs, where a union
# takes two: its type and its value.
Table = dict[int, Any]
TENSOR_AXIS_LABELS, VOCABULARY = 2, 5  # AssociatedFileType
FEATURE_PROPERTIES = 1  # type in the union ContentProperties
BERT_TOKENIZER = 4  # type in the union ProcessUnitOptions


def add(
    content: bytes,
    *,
    name: str,
    files: Mapping[str, bytes],
    vocabulary: str | None,
    labels: str | None,
) -> bytes:
    """Returns a TFLite file with metadata on its first graph.

    name: the model's name.
    files: {name: contents} of the archive.
    vocabulary: the name of WordPiece's file; None: runtimes lack the tokenizer.
    labels: the name of the file with the labels that every output scores; None:
      no labels.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    graph = model.subgraphs[0]
    (signature,) = (s for s in model.signatureDefs if s.subgraphIndex == 0)
    inputs, outputs = (
        _names_in_order(tensors, tensor_maps)
        for tensors, tensor_maps in (
            (graph.inputs, signature.inputs),
            (graph.outputs, signature.outputs),
        )
    )
    packed = _pack_metadata(name, inputs, outputs, vocabulary, labels)
    buffer = schema.BufferT(np.frombuffer(packed, np.uint8))
    model.metadata = [
        *(model.metadata or []),
        schema.MetadataT(NAME, len(model.buffers)),
    ]
    model.buffers = [_AlignedBuffer(each) for each in (*model.buffers, buffer)]
    builder = flatbuffers.Builder(len(content) + len(packed) + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    with io.BytesIO() as file:
        file.write(builder.Output())
        # Append the archive to the model, uncompressed as readers require.
        with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
            for file_name, data in files.items():
                # ZipInfo has a fixed date, so that equal models give equal
                # files.
                archive.writestr(zipfile.ZipInfo(file_name), data)
        return file.getvalue()


def _names_in_order(
    tensors: Sequence[int], tensor_maps: Sequence[Any]
) -> list[str]:
    """Returns the names of a signature in the order of the graph's tensors."""
    names = {each.tensorIndex: each.name.decode() for each in tensor_maps}
    return [names[tensor] for tensor in tensors]


def _pack_metadata(
    name: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    vocabulary: str | None,
    labels: str | None,
) -> bytes:
    """Returns the flatbuffer of the metadata; arguments as in `add`."""

    def file_table(name: str, file_type: int) -> Table:
        return {0: name, 2: file_type}

    def tensor_table(name: str, files: Sequence[Table] = ()) -> Table:
        content = {0: FEATURE_PROPERTIES, 1: {}}
        return {0: name, 3: content} | ({6: list(files)} if files else {})

    label_files = [file_table(labels, TENSOR_AXIS_LABELS)] if labels else []
    if labels and len(outputs) == 1:
        outputs = [CLASSIFIER_OUTPUT]
    graph: Table = {
        2: [tensor_table(INPUTS.get(each, each)) for each in inputs],
        3: [tensor_table(each, label_files) for each in outputs],
    }
    if vocabulary:
        tokenizer = {0: [file_table(vocabulary, VOCABULARY)]}
        graph[5] = [{0: BERT_TOKENIZER, 1: tokenizer}]
    builder = flatbuffers.Builder(4096)
    root = _write(builder, {0: name, 3: [graph], 7: MIN_PARSER_VERSION})
    builder.Finish(root, IDENTIFIER)
    return bytes(builder.Output())


def _write(builder: flatbuffers.Builder, value: Any) -> int:
    """Writes a string, a vector of tables, or a table; returns its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, list):
        offsets = [_write(builder, each) for each in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    slots = {
        slot: (each if isinstance(each, int) else _write(builder, each))
        for slot, each in value.items()
    }
    builder.StartObject(1 + max(slots, default=-1))
    for slot, each in slots.items():
        if isinstance(value[slot], int):
            builder.PrependInt8Slot(slot, each, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, each, 0)
    return builder.EndObject()


class _AlignedBuffer:
    """A buffer aligned to 16 bytes, as TFLite's schema requires."""

    def __init__(self, buffer: schema.BufferT):
        self.data = buffer.data

    def Pack(self, builder: flatbuffers.Builder) -> int:
        data = None
        if self.data is not None:
            content = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(content), 16)
            head = builder.Head() - len(content)
            builder.head = head
            builder.Bytes[head : head + len(content)] = content
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def read(path: str) -> dict[str, bytes]:
    """Reads the archive appended to a model: {name: contents}."""
    with zipfile.ZipFile(os.fspath(path)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
