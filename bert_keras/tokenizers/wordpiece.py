"""WordPiece, the tokenizer of BERT, inside the graph.

The ids are those of Google's tokenization.py. text_cleaning normalises the
text. Then one tensorflow_text op splits it at white space, punctuation and
Chinese characters and looks up the longest wordpieces. A SavedModel needs no
assets: the vocabulary is a constant of the graph.
"""

import functools
import hashlib
import itertools
import os
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from bert_keras import errors, files
from bert_keras.text import special_tokens as special_tokens_lib
from bert_keras.text import text_cleaning, wordpiece_learner
from bert_keras.tokenizers import base
from bert_keras.types import StrPath

SPECIAL_TOKENS = wordpiece_learner.SPECIAL_TOKENS
MAX_WORD_LENGTH = text_cleaning.MAX_WORD_LENGTH
VOCABULARY = "vocab.txt"  # one wordpiece per line, by id


class Tokenizer(base.Tokenizer):
    """Normalises text and splits it into the longest matching wordpieces.

    >>> tokenizer = bert_keras.Tokenizer.from_file("vocab.txt")
    >>> ids = tokenizer(["A fine film!"])
    >>> [tokenizer.vocabulary[id] for id in ids[0]]
    ['a', 'fine', 'film', '!']
    >>> tokenizer.detokenize(ids).numpy()
    array([b'a fine film !'], dtype=object)

    vocabulary: the wordpieces, by id.
    lowercase: whether text is lower-cased and its accents are dropped.
    fingerprint: a hash of the vocabulary and the casing.
    """

    files = (VOCABULARY,)

    def __init__(self, vocabulary: Sequence[str], *, lowercase: bool):
        self.vocabulary = tuple(vocabulary)
        self.lowercase = bool(lowercase)
        _check(self.vocabulary)
        specials = {
            piece: self.vocabulary.index(piece)
            for piece in SPECIAL_TOKENS
            if piece in self.vocabulary
        }
        self.pad_id = specials["[PAD]"]
        self.unk_id = specials["[UNK]"]
        self.cls_id = specials["[CLS]"]
        self.sep_id = specials["[SEP]"]
        self.mask_id = specials.get("[MASK]")
        self.end_id = self.sep_id
        self.frame = base.Frame((self.cls_id,), (self.sep_id,), (self.sep_id,))
        self.fingerprint = _fingerprint(self.vocabulary, self.lowercase)
        self._specials = specials
        self._continues = np.array(
            [len(p) > 2 and p.startswith("##") for p in self.vocabulary]
        )
        # The op keeps its model in a tensor. Create it outside of any graph, so
        # that each graph has one constant of it, however often it is called.
        with tf.init_scope():
            self._pieces = _op(self.vocabulary)

    @classmethod
    def from_file(
        cls, path: StrPath, *, lowercase: bool | None = None
    ) -> "Tokenizer":
        """Reads a vocab.txt.

        lowercase: None: inferred from the vocabulary.
        """
        vocabulary = _read(str(path))
        if lowercase is None:
            lowercase = not _looks_cased(vocabulary)
        try:
            return cls(vocabulary, lowercase=lowercase)
        except errors.InputError as error:
            raise errors.InputError(f"{path}: {error}") from None

    @classmethod
    def from_vocab(
        cls, path: str, *, lowercase: bool | None = None
    ) -> "Tokenizer":
        return cls.from_file(path, lowercase=lowercase)

    @classmethod
    def learn(
        cls, texts: Iterable[str], vocab_size: int, *, lowercase: bool
    ) -> "Tokenizer":
        learned = wordpiece_learner.learn(
            texts, vocab_size, lowercase=lowercase
        )
        return cls(learned, lowercase=lowercase)

    @classmethod
    def read_files(  # type: ignore[override]  # its own settings
        cls, folder: str, *, lowercase: bool
    ) -> "Tokenizer":
        path = os.path.join(folder, VOCABULARY)
        return cls.from_file(path, lowercase=lowercase)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.folder is not None:
            return super().__reduce__()
        return _unpickle, (self.vocabulary, self.lowercase)

    def save(self, folder: str) -> tuple[str, ...]:
        if str(folder).endswith(".txt"):
            raise errors.InputError(
                f"folder={folder}: expected a folder; a file is written by "
                "`save_vocabulary`."
            )
        self.save_vocabulary(os.path.join(folder, VOCABULARY))
        return self.files

    def save_vocabulary(self, path: str) -> None:
        """Writes a vocab.txt: one wordpiece per line, without the casing."""
        files.write_text(
            str(path), "".join(f"{piece}\n" for piece in self.vocabulary)
        )

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"lowercase": self.lowercase}

    def __call__(
        self, text: tf.Tensor, *, special_tokens: bool = False
    ) -> tf.RaggedTensor:
        text = tf.ensure_shape(tf.convert_to_tensor(text, tf.string), (None,))
        if special_tokens:
            return special_tokens_lib.tokenize(text, self._specials, self)
        text = text_cleaning.normalize(text, lowercase=self.lowercase)
        return self._pieces.tokenize(text_cleaning.without_long_words(text))

    def with_offsets(
        self, text: tf.Tensor
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """Tokenizes text with offsets; see base.Tokenizer.

        Dropped accents and variation selectors belong to the character before
        them. If a character became several wordpieces, as 한 does, each of them
        has the offsets of the complete character.
        """
        text = tf.ensure_shape(tf.convert_to_tensor(text, tf.string), (None,))
        clean, source = text_cleaning.with_source(
            text, lowercase=self.lowercase
        )
        ids, starts, ends = self._pieces.tokenize_with_offsets(clean)
        row = ids.value_rowids()
        return (
            ids,
            ids.with_values(source.first(row, starts.values)),
            ids.with_values(source.end(row, ends.values)),
        )

    def word_starts(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        continues = tf.gather(self._continues, ids.values)
        return ids.with_values(tf.logical_not(continues))

    def detokenize(self, ids: tf.RaggedTensor | tf.Tensor) -> tf.Tensor:
        """Joins words by spaces, with none next to a Chinese character.

        [CLS], [SEP] and [PAD] are left out.
        """
        if not isinstance(ids, tf.RaggedTensor):
            ids = tf.RaggedTensor.from_tensor(ids)
        outside = tf.constant([self.pad_id, self.cls_id, self.sep_id])
        kept = tf.reduce_all(ids.values[:, tf.newaxis] != outside, axis=1)
        ids = tf.ragged.boolean_mask(ids, ids.with_values(kept))
        text = tf.gather(tf.constant(self.vocabulary), ids.values)
        continues = tf.gather(self._continues, ids.values)
        chinese = tf.strings.regex_full_match(
            text, f"[{text_cleaning.CHINESE}]"
        )
        # The space before a row's first word is stripped below.
        after_chinese = tf.concat([[False], chinese], 0)[:-1]
        spaced = tf.logical_not(continues | chinese | after_chinese)
        text = tf.strings.regex_replace(text, "^##(.)", r"\1")
        text = tf.where(spaced, tf.strings.join([" ", text]), text)
        text = tf.strings.reduce_join(ids.with_values(text), axis=-1)
        return tf.strings.strip(text)


@functools.cache  # build it once per process, however often it is unpickled
def _unpickle(vocabulary: tuple[str, ...], lowercase: bool) -> Tokenizer:
    return Tokenizer(vocabulary, lowercase=lowercase)


def require(tokenizer: base.Tokenizer, where: str) -> Tokenizer:
    """Returns the tokenizer, or raises InputError if it is not WordPiece.

    where: what needs it, for the message.
    """
    if not isinstance(tokenizer, Tokenizer):
        raise errors.InputError(
            f"{where} takes WordPiece vocabularies only, and the tokenizer of "
            f"this model is {type(tokenizer).__name__}."
        )
    return tokenizer


def _op(vocabulary: Sequence[str]) -> tf_text.FastWordpieceTokenizer:
    """Builds the op that splits normalised text into wordpieces."""
    try:
        return tf_text.FastWordpieceTokenizer(
            [
                # The op would match a wordpiece with white space across two
                # words. Replace it by one that can never match, because the
                # op splits after "!".
                f"!{index}" if re.search(r"[\s\0]", piece) else piece
                for index, piece in enumerate(vocabulary)
            ],
            max_bytes_per_word=text_cleaning.MAX_BYTES,
            token_out_type=tf.int32,
            unknown_token="[UNK]",
        )
    except RuntimeError as error:
        raise errors.InputError(
            "Expected a WordPiece vocabulary; tensorflow_text cannot use this "
            f"one: {error}"
        ) from None


def _read(path: str) -> list[str]:
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            content = file.read()
    except tf.errors.OpError as error:
        raise errors.InputError(
            f"{path}: expected a vocabulary, one wordpiece per line, but the "
            "file "
            f"cannot be read ({error.message})."
        ) from None
    try:
        content = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise errors.InputError(
            f"{path}: expected a vocabulary in UTF-8, but line {line} is not. "
            "Is it the right file? If so, convert it."
        ) from None
    # Not splitlines and strip: some vocabularies contain U+2028 or U+3000.
    pieces = [line.strip(" \t\r") for line in content.split("\n")]
    while pieces and not pieces[-1]:
        pieces.pop()
    return pieces


def _check(vocabulary: tuple[str, ...]) -> None:
    if not vocabulary:
        raise errors.InputError(
            "Expected a vocabulary, one wordpiece per line; it is empty."
        )
    missing = [p for p in SPECIAL_TOKENS[:4] if p not in vocabulary]
    if missing:
        raise errors.InputError(
            f"Expected {', '.join(SPECIAL_TOKENS[:4])} in the vocabulary; its "
            f"{len(vocabulary)} entries lack {', '.join(missing)}. Is it the "
            "vocab.txt of a BERT?"
        )
    indices: dict[str, list[int]] = {}
    for index, piece in enumerate(vocabulary):
        if not piece or "\n" in piece or piece != piece.strip(" \t\r"):
            raise errors.InputError(
                f"Expected one wordpiece per line; entry {index} of the "
                "vocabulary "
                f"is {piece!r}. Ids are line numbers, so put an unused "
                "wordpiece such as [unused1] there."
            )
        indices.setdefault(piece, []).append(index)
    for piece, same in indices.items():
        if len(same) > 1:
            *others, last = same
            raise errors.InputError(
                f"Expected every wordpiece once; the vocabulary has {piece!r} "
                f"as entries {', '.join(map(str, others))} and {last}, from 0. "
                "Ids are line numbers, and Google's code and Hugging Face's "
                f"give such a wordpiece the last one: rename entry "
                f"{', '.join(map(str, others))} to an unused wordpiece such as "
                f"{_unused(indices)} and ids stay as they are there."
            )


def _unused(pieces: Collection[str]) -> str:
    """Returns an unused token's name that is not in the vocabulary."""
    return next(
        name
        for name in map("[unused{}]".format, itertools.count(1))
        if name not in pieces
    )


def _looks_cased(vocabulary: Sequence[str]) -> bool:
    """Returns whether lower-casing would make many wordpieces unreachable.

    Many is more than 1 %, special tokens aside. As lower-casing drops accents
    too, a Korean or Hindi vocabulary is cased although it has no capitals. In
    Google's uncased English vocabulary there are none, in the Chinese one 2 of
    21,128, and in the cased English one 30 %.
    """
    pieces = [
        piece
        for piece in vocabulary
        if not (piece.startswith("[") and piece.endswith("]"))
    ]
    text = tf.constant(pieces, tf.string)
    changed = tf.math.count_nonzero(
        text_cleaning.normalize(text, lowercase=True)
        != text_cleaning.normalize(text, lowercase=False)
    )
    return int(changed) > 0.01 * len(vocabulary)


def _fingerprint(vocabulary: Sequence[str], lowercase: bool) -> str:
    content = "\n".join([*vocabulary, f"lowercase={lowercase}"])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
