"""Reads the model files of SentencePiece, which are protocol buffers.

What is needed of sentencepiece_model.proto is read here, because two packages
that generate code for it cannot be imported together.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bert_keras import errors

UNIGRAM, BPE = 1, 2  # TrainerSpec.ModelType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

# Fields of ModelProto, of its pieces, and of TrainerSpec.
_PIECES, _TRAINER = 1, 2
_TEXT, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _WHITESPACE_AS_SUFFIX = 3, 24

# A message that is repeated at the end is merged into the first one: this makes
# TrainerSpec.model_type CHAR, so that each character is a piece.
_CHARACTERS = bytes([_TRAINER << 3 | 2, 2, _MODEL_TYPE << 3, 4])

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Piece(NamedTuple):
    text: str
    score: float
    type: int  # NORMAL, ...


class Model(NamedTuple):
    """The pieces, by id, and the type of a model, UNIGRAM, BPE or another."""

    pieces: tuple[Piece, ...]
    type: int


def parse(data: bytes) -> Model:
    """Raises InputError if `data` is no model that can be used."""
    pieces, model_type = [], UNIGRAM
    try:
        for number, value, _ in _fields(data):
            if number == _PIECES:
                pieces.append(_piece(value))
            elif number == _TRAINER:
                spec = {n: v for n, v, _ in _fields(value)}
                model_type = spec.get(_MODEL_TYPE, model_type)
                if spec.get(_WHITESPACE_AS_SUFFIX):
                    raise errors.InputError(
                        "Expected pieces that begin with a blank; those of "
                        "this model end with it (treat_whitespace_as_suffix)."
                    )
    except (IndexError, struct.error, TypeError, UnicodeDecodeError):
        pieces = []
    if not any(piece.type == UNKNOWN for piece in pieces):
        raise errors.InputError(
            "Expected a model of SentencePiece, such as spiece.model, with a "
            "piece for unknown characters; found none in the file."
        )
    return Model(tuple(pieces), model_type)


def of_characters(data: bytes) -> bytes:
    """Returns the model with the same normalisation that splits characters."""
    return data + _CHARACTERS


def with_scores(data: bytes, score: Callable[[Piece], float]) -> bytes:
    """Returns the model with other scores of its pieces."""
    parts = []
    for number, value, raw in _fields(data):
        if number == _PIECES:
            piece = _piece(value)
            changed = score(piece)
            if changed != piece.score:
                # The last value of a field counts.
                value += bytes([_SCORE << 3 | _FIXED32])
                value += struct.pack("<f", changed)
                raw = bytes([_PIECES << 3 | _BYTES]) + _varint(len(value))
                raw += value
        parts.append(raw)
    return b"".join(parts)


def _piece(data: bytes) -> Piece:
    values = {number: value for number, value, _ in _fields(data)}
    score = values.get(_SCORE, bytes(4))
    return Piece(
        values.get(_TEXT, b"").decode(),
        struct.unpack("<f", score)[0],
        values.get(_TYPE, NORMAL),
    )


def _fields(data: bytes) -> Iterator[tuple[int, Any, bytes]]:
    """Yields (field number, value, encoded field) of a message."""
    start = 0
    while start < len(data):
        tag, at = _read_varint(data, start)
        kind = tag & 7
        value: Any
        if kind == _VARINT:
            value, end = _read_varint(data, at)
        else:
            size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
            if kind == _BYTES:
                size, at = _read_varint(data, at)
            if size is None or at + size > len(data):
                raise IndexError(f"no field at byte {start}")
            end = at + size
            value = data[at:end]
        yield tag >> 3, value, data[start:end]
        start = end


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns the number at a byte, and the index of the byte after it."""
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return value | data[at] << shift, at + 1


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
