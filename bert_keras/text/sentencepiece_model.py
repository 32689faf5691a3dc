"""Reads the model files of SentencePiece, which are protocol buffers.

What is needed of sentencepiece_model.proto is read here, because two packages
that generate code for it cannot be imported together.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from bert_keras import errors

UNIGRAM, BPE = 1, 2  # TrainerSpec.ModelType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

# Fields of ModelProto, of its pieces, of TrainerSpec and of NormalizerSpec.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _WHITESPACE_AS_SUFFIX = 3, 24
_PATHS = (1, 2)
# add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces: true if absent
_TABLE, _NORMALIZER_FLAGS = 2, (3, 4, 5)

# A message that is repeated at the end is merged into the first one: this makes
# TrainerSpec.model_type CHAR, so that each character is a piece.
_CHARACTERS = bytes([_TRAINER << 3 | 2, 2, _MODEL_TYPE << 3, 4])

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Piece(NamedTuple):
    text: str
    score: float
    type: int  # NORMAL, ...


class Model(NamedTuple):
    """The pieces, by id, and the type of a model, UNIGRAM, BPE or another.

    is_common: its normalisation is like the default, nmt_nfkc: a table of
    characters, one blank between words and one before the first.
    """

    pieces: tuple[Piece, ...]
    type: int
    is_common: bool


def parse(data: bytes) -> Model:
    """Raises InputError if `data` is no model that can be used."""
    pieces, model_type, is_common = [], UNIGRAM, False
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
            elif number == _NORMALIZER:
                spec = {n: v for n, v, _ in _fields(value)}
                flags = [spec.get(n, 1) for n in _NORMALIZER_FLAGS]
                is_common = bool(spec.get(_TABLE)) and all(flags)
    except (
        AttributeError,
        IndexError,
        struct.error,
        TypeError,
        UnicodeDecodeError,
    ):
        pieces = []
    if not any(piece.type == UNKNOWN for piece in pieces):
        raise errors.InputError(
            "Expected a model of SentencePiece, such as spiece.model, with a "
            "piece for unknown characters; found none in the file."
        )
    return Model(tuple(pieces), model_type, is_common)


def check(data: bytes) -> None:
    """Raises InputError if SentencePiece's own library cannot read `data`.

    tensorflow_text's ops trust the tables of a file: on damaged ones they
    read memory that is not theirs, and the process may die.
    """
    import sentencepiece

    try:
        sentencepiece.SentencePieceProcessor(model_proto=data)
    except RuntimeError as error:
        raise errors.InputError(
            "Expected a model of SentencePiece; its library cannot read this "
            f"one ({' '.join(str(error).split())}). Copy the file again."
        ) from None


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
                raw = _message(_PIECES, value + struct.pack("<f", changed))
        parts.append(raw)
    return b"".join(parts)


def without_paths(data: bytes) -> bytes:
    """Returns the model without the names of the files it was learned from."""
    parts = []
    for number, value, raw in _fields(data):
        if number == _TRAINER:
            kept = [r for n, _, r in _fields(value) if n not in _PATHS]
            raw = _message(_TRAINER, b"".join(kept))
        parts.append(raw)
    return b"".join(parts)


def with_unused(data: bytes, texts: Iterable[str]) -> bytes:
    """Returns the model with further pieces that no text is split into.

    They are control pieces: the ops do not support the type UNUSED.
    """
    return data + b"".join(
        _message(
            _PIECES,
            _message(_TEXT, text.encode()) + bytes([_TYPE << 3, CONTROL]),
        )
        for text in texts
    )


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


def _message(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | _BYTES]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
