"""SentencePiece, the tokenizer of ALBERT, inside the graph.

Models of type unigram (Kudo 2018) and BPE are run by tensorflow_text. The ids
of a unigram model need no resource: the model is a constant of the graph. Its
offsets, and a BPE model, need an op that holds the model as a resource.
"""

import functools
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from bert_keras import errors, files
from bert_keras.text import albert_text, sentencepiece_learner, text_cleaning
from bert_keras.text import sentencepiece_model as models
from bert_keras.text import special_tokens as special_tokens_lib
from bert_keras.tokenizers import base
from bert_keras.types import StrPath

MODEL = "spiece.model"
SPACE = "\u2581"  # begins the pieces that begin a word

UNUSED = "[unused"  # begins pieces that no text is split into

PADS = ("<pad>", "[PAD]")
MASKS = ("[MASK]", "<mask>")
# (start, end) of the frame: ALBERT's, and SentencePiece's own.
FRAMES = (("[CLS]", "[SEP]"), ("<s>", "</s>"))

# ALBERT splits a comma from a number. As in Hugging Face's tokenizer, pieces
# such as "▁1," get a score with which they are never the best; scores are
# logarithms of probabilities, far above it.
_NUMBER_COMMA = re.compile(r".*\d,", re.DOTALL)
_NUMBER_COMMA_PENALTY = 100

_BLANK = r"[\s\p{Z}\p{Cc}\p{Cf}]"
_ALONE = f"[{text_cleaning.ASCII_PUNCTUATION}{text_cleaning.CHINESE}\\p{{P}}]"


class SentencePieceTokenizer(base.Tokenizer, tf.Module):
    """Splits text into the pieces of a SentencePiece model.

    model: the content of a model file. With [CLS] and [SEP] among its pieces,
      text is normalised as ALBERT does, and these two are the frame; otherwise
      the frame is <s> and </s>, as far as the model has them.
    lowercase: whether text is lower-cased and its accents are dropped, before
      the normalisation that the model itself contains.
    vocabulary: the pieces, by id.
    end_id: the id of [SEP] or </s>, or None.

    Adjacent unknown characters become one <unk>.
    """

    files = (MODEL,)

    def __init__(self, model: bytes, *, lowercase: bool):
        super().__init__()
        self.lowercase = bool(lowercase)
        parsed = models.parse(model)
        models.check(model)
        pieces = parsed.pieces
        self.vocabulary = tuple(piece.text for piece in pieces)
        ids = {piece.text: index for index, piece in enumerate(pieces)}
        self.unk_id = next(
            i for i, piece in enumerate(pieces) if piece.type == models.UNKNOWN
        )
        # Without a piece for padding, any will do: it is masked.
        self.pad_id = next((ids[p] for p in PADS if p in ids), self.unk_id)
        self.mask_id = next((ids[p] for p in MASKS if p in ids), None)
        self.is_albert = all(piece in ids for piece in FRAMES[0])
        start, end = (
            (ids[piece],) if piece in ids else ()
            for piece in FRAMES[not self.is_albert]
        )
        self.frame = base.Frame(start, end, end)
        self.end_id = end[0] if end else None
        self._specials = {
            piece.text: index
            for index, piece in enumerate(pieces)
            if index in (self.pad_id, self.mask_id)
            or piece.type in (models.CONTROL, models.UNKNOWN)
            and not piece.text.startswith(UNUSED)
        }
        self._pieces = _PieceTable(pieces, self._specials)
        # Changed in the file as well, for other programs that read it.
        self.model = model = bytes(
            models.with_scores(model, _score) if self.is_albert else model
        )
        # Either the first two, or the last one, for models that the first does
        # not support.
        self._fast: Any = None
        self._characters: Any = None
        self._plain: Any = None
        with tf.init_scope(), tf.device("CPU"):
            if (
                parsed.type == models.UNIGRAM
                and parsed.is_common
                and self._pieces.complete
            ):
                self._fast = tf_text.FastSentencepieceTokenizer(model)
                self._characters = tf_text.SentencepieceTokenizer(
                    models.of_characters(model)
                )
            else:
                self._plain = tf_text.SentencepieceTokenizer(model)

    @classmethod
    def from_vocab(
        cls, path: StrPath, *, lowercase: bool | None = None
    ) -> "SentencePieceTokenizer":
        """Reads a model file, or the spiece.model of a folder.

        lowercase: None: inferred from the model: ALBERT's is uncased if it has
          no capitals, others are cased.
        """
        path = str(path)
        if tf.io.gfile.isdir(path):
            path = os.path.join(path, MODEL)
        try:
            with tf.io.gfile.GFile(path, "rb") as file:
                model = file.read()
        except tf.errors.OpError as error:
            raise errors.InputError(
                f"{path}: expected a model of SentencePiece, but the file "
                f"cannot be read ({error.message})."
            ) from None
        try:
            if lowercase is None:
                lowercase = _looks_uncased(models.parse(model))
            return cls(model, lowercase=lowercase)
        except errors.InputError as error:
            raise errors.InputError(f"{path}: {error}") from None

    @classmethod
    def learn(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        *,
        lowercase: bool,
        model_type: str = "unigram",
    ) -> "SentencePieceTokenizer":
        """Learns a model; see base.Tokenizer. model_type: unigram or bpe."""
        model = sentencepiece_learner.learn(
            texts,
            vocab_size,
            normalize=functools.partial(
                albert_text.normalize, lowercase=lowercase, join_quotes=True
            ),
            model_type=model_type,
        )
        return cls(model, lowercase=lowercase)

    @classmethod
    def read_files(  # type: ignore[override]  # its own settings
        cls, folder: str, *, lowercase: bool
    ) -> "SentencePieceTokenizer":
        return cls.from_vocab(folder, lowercase=lowercase)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.folder is not None:
            return super().__reduce__()
        return _unpickle, (self.model, self.lowercase)

    def save(self, folder: str) -> tuple[str, ...]:
        files.write(os.path.join(folder, MODEL), self.model)
        return self.files

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"lowercase": self.lowercase}

    def with_unused(self, pieces: Iterable[str]) -> "SentencePieceTokenizer":
        """Returns the tokenizer with further pieces, begun by `[unused`.

        No text is split into them.
        """
        return SentencePieceTokenizer(
            models.with_unused(self.model, pieces), lowercase=self.lowercase
        )

    @property
    def _normalization(self) -> dict[str, bool]:
        return {"lowercase": self.lowercase, "join_quotes": self.is_albert}

    def __call__(
        self, text: tf.Tensor, *, special_tokens: bool = False
    ) -> tf.RaggedTensor:
        text = tf.ensure_shape(tf.convert_to_tensor(text, tf.string), (None,))
        if special_tokens:
            return special_tokens_lib.tokenize(text, self._specials, self)
        text = albert_text.normalize(text, **self._normalization)
        ids = (self._fast or self._plain).tokenize(text)
        return ids.with_row_splits_dtype(tf.int64)

    def with_offsets(
        self, text: tf.Tensor
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """Tokenizes text with offsets; see base.Tokenizer.

        The blank before a word is not part of its first token. Dropped accents
        belong to the character before them. If a character became several
        tokens, as ½ does, each of them has the offsets of the complete
        character, and so has a token that is the beginning of a word alone.
        """
        text = tf.ensure_shape(tf.convert_to_tensor(text, tf.string), (None,))
        clean, source, points = albert_text.with_source(
            text, **self._normalization
        )
        if self._fast is None:
            ids, starts, ends = self._plain.tokenize_with_offsets(clean)
        else:
            ids, starts, ends = self._offsets(clean)
        ids, starts, ends = (
            values.with_row_splits_dtype(tf.int64)
            for values in (ids, starts, ends)
        )
        row = ids.value_rowids()
        first = source.first(row, starts.values)
        last = tf.where(
            ends.values > starts.values, source.end(row, ends.values), first
        )
        first, last = _trim(
            first,
            last,
            row,
            points,
            source,
            begins_word=tf.gather(self._pieces.begins, ids.values),
        )
        return ids, ids.with_values(first), ids.with_values(last)

    def _offsets(self, clean):
        """Returns ids and offsets, in bytes of the normalised text (B,).

        Where two segmentations have the same score, as 8 88 and 88 8, the two
        ops differ. So the ids are those of one op, and the other one only finds
        the characters.
        """
        ids = self._fast.tokenize(clean)
        _, starts, ends = self._characters.tokenize_with_offsets(clean)
        count = ids.with_values(tf.gather(self._pieces.num_units, ids.values))
        stop = tf.cumsum(count.values)
        # `stop` counts within all rows; so do the characters, whose number is
        # the same in each row.
        begin = stop - count.values
        return (
            ids,
            ids.with_values(tf.gather(starts.values, begin)),
            ids.with_values(tf.gather(ends.values, stop - 1)),
        )

    def word_starts(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        """Returns whether each token starts a word; see base.Tokenizer.

        A piece of several Chinese characters is one word. A token after <unk>
        starts a word, although an unknown character may be inside of one.
        """
        values, table = ids.values, self._pieces

        def of_previous(flags):
            previous = tf.gather(flags, values)
            return tf.concat([[True], previous], 0)[: tf.size(values)]

        starts = tf.gather(table.starts, values) | of_previous(table.stops)
        # The word began with the blank before, which is a token.
        starts &= ~of_previous(table.blank)
        is_first = tf.ragged.range(ids.row_lengths()).values == 0
        return ids.with_values(starts | is_first)

    def detokenize(self, ids: tf.RaggedTensor | tf.Tensor) -> tf.Tensor:
        """Joins the pieces; the frame and other control pieces are left out."""
        if not isinstance(ids, tf.RaggedTensor):
            ids = tf.RaggedTensor.from_tensor(ids, padding=self.pad_id)
        text = tf.gather(tf.constant(self._pieces.text), ids.values)
        text = tf.strings.reduce_join(ids.with_values(text), axis=-1)
        return tf.strings.strip(tf.strings.regex_replace(text, SPACE, " "))


class _PieceTable:
    """What is known of each piece, by id, as NumPy arrays.

    complete: whether each character of the pieces is a piece, too, and none is
      a byte or unused.
    num_units: how many pieces a model of single characters splits it into.
    begins: it begins with the blank before a word; blank: it is this blank.
    starts, stops: the piece, or the one after it, always starts a word.
    text: the bytes that it stands for.
    """

    def __init__(self, pieces: Sequence[models.Piece], specials: Any):
        texts = [piece.text for piece in pieces]
        single = {text for text in texts if len(text) == 1}
        self.complete = not any(
            piece.type in (models.BYTE, models.UNUSED)
            or piece.type == models.NORMAL
            and not single.issuperset(piece.text)
            for piece in pieces
        )
        self.num_units = np.array(
            [
                len(piece.text) if piece.type == models.NORMAL else 1
                for piece in pieces
            ],
            np.int32,
        )
        self.begins = np.array([text.startswith(SPACE) for text in texts])
        self.blank = np.array([text == SPACE for text in texts])
        characters = sorted({c for text in texts for c in text})
        alone = set(
            np.array(characters)[
                tf.strings.regex_full_match(characters, _ALONE).numpy()
            ].tolist()
        )
        special = np.array([text in specials for text in texts])
        bare = [text.removeprefix(SPACE) for text in texts]
        self.starts = self.begins | np.array(
            [text[:1] in alone for text in bare]
        )
        self.starts |= special
        self.starts[[p.type == models.UNKNOWN for p in pieces]] = False
        self.stops = special | np.array([text[-1:] in alone for text in bare])
        self.text = [_bytes_of(piece, specials) for piece in pieces]


def _bytes_of(piece: models.Piece, specials: Any) -> bytes:
    if piece.type == models.BYTE:  # <0xE4>
        return bytes([int(piece.text[1:-1], 16)])
    if piece.text in MASKS:
        return f"{SPACE}{piece.text}".encode()
    if piece.text in specials and piece.type != models.UNKNOWN:
        return b""
    return piece.text.encode()


def _trim(first, last, row, points, source, *, begins_word):
    """Excludes the blanks before words from offsets (N,) in code points.

    A token without any other character gets the character after it.
    """
    flat = points.values
    distinct, index = tf.unique(flat)
    blank = tf.strings.regex_full_match(
        tf.strings.unicode_encode(distinct[:, tf.newaxis], "UTF-8"), _BLANK
    )
    shown = ~tf.gather(blank, index)
    size = tf.size(flat)
    next_shown = tf.gather(
        tf.concat([tf.cast(tf.where(shown)[:, 0], tf.int32), [size]], 0),
        tf.cumsum(tf.cast(shown, tf.int32), exclusive=True),
    )
    next_shown = tf.concat([next_shown, [size]], 0)
    follow = tf.concat([source.follow, [size]], 0)
    begin, stop = (tf.gather(source.splits, row + i) for i in (0, 1))
    trimmed = tf.where(
        begins_word,
        tf.minimum(tf.gather(next_shown, first + begin) - begin, last),
        first,
    )
    empty = trimmed >= last
    after = tf.minimum(tf.gather(follow, trimmed + begin), stop) - begin
    has_next = empty & (trimmed + begin < stop)
    return (
        tf.where(empty & ~has_next, first, trimmed),
        tf.where(has_next, after, last),
    )


@functools.cache  # build it once per process, however often it is unpickled
def _unpickle(model: bytes, lowercase: bool) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(model, lowercase=lowercase)


def _score(piece: models.Piece) -> float:
    """Returns a piece's score, changed only once if done again."""
    is_changed = piece.score <= -_NUMBER_COMMA_PENALTY
    if is_changed or not _NUMBER_COMMA.fullmatch(piece.text):
        return piece.score
    return piece.score - _NUMBER_COMMA_PENALTY


def _looks_uncased(model: models.Model) -> bool:
    texts = [p.text for p in model.pieces if p.type == models.NORMAL]
    is_albert = {*FRAMES[0]} <= {piece.text for piece in model.pieces}
    return is_albert and all(text == text.lower() for text in texts)
