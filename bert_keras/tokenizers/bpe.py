"""Byte-pair encoding, the tokenizer of GPT, inside the graph.

The ids are those of Radford et al. 2018 (GPT) as Hugging Face reads them
without spaCy and ftfy: text is cleaned and split into words as for BERT's
WordPiece, and each word into the byte pairs of the vocabulary, of which the
last ends with `</w>`.
"""

import functools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from bert_keras import errors, files
from bert_keras.text import byte_pair_learner, byte_pairs, text_cleaning
from bert_keras.text import special_tokens as special_tokens_lib
from bert_keras.text.byte_pairs import END_OF_WORD
from bert_keras.tokenizers import base
from bert_keras.types import StrPath

PAD, UNK, END = "<pad>", "<unk>", "<end>"
# What a fine-tuned GPT has around and between its texts (section 3.3).
FRAME = ("<start>", "<delimiter>", "<extract>")
SPECIAL_TOKENS = (PAD, UNK, END, *FRAME)

VOCABULARY, MERGES = "vocab.json", "merges.txt"
# The names of both files: Hugging Face's, and those of the published GPT.
NAMES = ((VOCABULARY, MERGES), ("encoder_bpe_40000.json", "vocab_40000.bpe"))

Merges = tuple[tuple[str, str], ...]

# A punctuation mark or a Chinese character is a word of its own.
_ALONE = f"[{text_cleaning.ASCII_PUNCTUATION}{text_cleaning.CHINESE}\\p{{P}}]"
_SPLIT = f"[\\s\\p{{Z}}]+|{_ALONE}"
# Without the white space of ASCII, at which tf.strings.split splits by itself.
_WIDE_SPACE = (
    r"[\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]"
)
_BESIDE_CHINESE = f" ?([{text_cleaning.CHINESE}]) ?"
_VERSION = "#version: 0.2"  # the first line of a file of merges


class BytePairTokenizer(base.Tokenizer):
    """Normalises text and splits its words into byte pairs.

    >>> from bert_keras.tokenizers.bpe import BytePairTokenizer
    >>> words = "f i l m</w> fi lm</w> a</w> <unk>".split()
    >>> tokenizer = BytePairTokenizer(
    ...     words, [("f", "i"), ("l", "m</w>")], lowercase=True)
    >>> tokenizer.tokens(tokenizer(["A film"])[0].numpy())
    ['a</w>', 'fi', 'lm</w>']

    vocabulary: the byte pairs, by id, with <unk> among them; <pad> and <end> if
      it was learned here, and the three of FRAME for fine-tuning.
    merges: pairs of symbols, in the order in which they were learned.
    lowercase: whether text is lower-cased and its accents are dropped.
    end_id: the id of the token that ends a text, or None.

    A character that is not in the vocabulary becomes <unk>. Of a word of more
    than 100 characters, each 100 are split by themselves.
    """

    files = (VOCABULARY, MERGES)
    mask_id = None

    def __init__(
        self,
        vocabulary: Sequence[str],
        merges: Sequence[tuple[str, str]],
        *,
        lowercase: bool,
    ):
        self.vocabulary = tuple(vocabulary)
        self.merges: Merges = tuple((first, second) for first, second in merges)
        self.lowercase = bool(lowercase)
        ids = _check(self.vocabulary, self.merges)
        self.unk_id = ids[UNK]
        # Without an entry for padding, any will do: it is masked.
        self.pad_id = ids.get(PAD, self.unk_id)
        self.end_id = ids.get(END)
        start, between, end = ((ids[t],) if t in ids else () for t in FRAME)
        self.frame = base.Frame(start, between, end)
        self._specials = {t: ids[t] for t in SPECIAL_TOKENS if t in ids}
        self._ends_word = np.array(
            [
                token.endswith(END_OF_WORD) or token in self._specials
                for token in self.vocabulary
            ]
        )
        self._pairs = byte_pairs.BytePairs(ids, self.merges, unk_id=self.unk_id)

    @classmethod
    def from_vocab(
        cls, path: StrPath, *, lowercase: bool | None = None
    ) -> "BytePairTokenizer":
        """Reads a vocabulary, in JSON, and the merges beside it.

        path: one of the two files, or their folder; NAMES has their names.
        lowercase: None: inferred from the vocabulary, as the published one has
          no capitals.
        """
        vocabulary_path, merges_path = _find(str(path))
        vocabulary = _read_vocabulary(vocabulary_path)
        if lowercase is None:
            lowercase = not any(token != token.lower() for token in vocabulary)
        try:
            return cls(
                vocabulary, _read_merges(merges_path), lowercase=lowercase
            )
        except errors.InputError as error:
            raise errors.InputError(f"{path}: {error}") from None

    @classmethod
    def learn(
        cls, texts: Iterable[str], vocab_size: int, *, lowercase: bool
    ) -> "BytePairTokenizer":
        learned = byte_pair_learner.learn(
            texts, vocab_size, specials=(PAD, UNK, END), lowercase=lowercase
        )
        return cls(*learned, lowercase=lowercase)

    @classmethod
    def read_files(  # type: ignore[override]  # its own settings
        cls, folder: str, *, lowercase: bool
    ) -> "BytePairTokenizer":
        return cls.from_vocab(folder, lowercase=lowercase)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.folder is not None:
            return super().__reduce__()
        return _unpickle, (self.vocabulary, self.merges, self.lowercase)

    def save(self, folder: str) -> tuple[str, ...]:
        self.save_vocabulary(os.path.join(folder, VOCABULARY))
        self.save_merges(os.path.join(folder, MERGES))
        return self.files

    def save_vocabulary(self, path: str) -> None:
        """Writes a vocab.json: {token: id}."""
        ids = {token: index for index, token in enumerate(self.vocabulary)}
        files.write_text(str(path), f"{json.dumps(ids, ensure_ascii=False)}\n")

    def save_merges(self, path: str) -> None:
        """Writes a merges.txt: a pair in each line."""
        lines = [f"{first} {second}" for first, second in self.merges]
        files.write_text(
            str(path), "".join(f"{line}\n" for line in (_VERSION, *lines))
        )

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"lowercase": self.lowercase}

    def with_frame(self) -> "BytePairTokenizer":
        """Returns the tokenizer with the tokens of FRAME, if it lacks them.

        They are the last of its vocabulary; all other ids stay as they are.
        """
        new = [token for token in FRAME if token not in self.vocabulary]
        if not new:
            return self
        return BytePairTokenizer(
            (*self.vocabulary, *new), self.merges, lowercase=self.lowercase
        )

    def __call__(
        self, text: tf.Tensor, *, special_tokens: bool = False
    ) -> tf.RaggedTensor:
        text = tf.ensure_shape(tf.convert_to_tensor(text, tf.string), (None,))
        if special_tokens:
            return special_tokens_lib.tokenize(text, self._specials, self)
        text = text_cleaning.normalize(text, lowercase=self.lowercase)
        # Three times as fast as the regex_split that `with_offsets` needs.
        words = tf.strings.split(
            tf.strings.regex_replace(text, f"({_ALONE})|{_WIDE_SPACE}", r" \1 ")
        )
        tokens, index = self._tokens(words)
        return words.with_values(tf.gather(tokens.ids, index)).merge_dims(1, 2)

    def with_offsets(
        self, text: tf.Tensor
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """Tokenizes text with offsets; see base.Tokenizer.

        Dropped accents and variation selectors belong to the character before
        them. If a character became several tokens, as 한 does, each of them has
        the offsets of the complete character.
        """
        text = tf.ensure_shape(tf.convert_to_tensor(text, tf.string), (None,))
        clean, source = text_cleaning.with_source(
            text, lowercase=self.lowercase, limit_words=False
        )
        words, word_starts, _ = tf_text.regex_split_with_offsets(
            clean, _SPLIT, _ALONE
        )
        tokens, index = self._tokens(words)
        ids, starts, ends = (tf.gather(values, index) for values in tokens)
        first = tf.gather(
            tf.cast(word_starts.values, tf.int32), ids.value_rowids()
        )
        row = tf.gather(words.value_rowids(), ids.value_rowids())

        def of_rows(values):
            return words.with_values(ids.with_values(values)).merge_dims(1, 2)

        return (
            of_rows(ids.values),
            of_rows(source.first(row, first + starts.values)),
            of_rows(source.end(row, first + ends.values)),
        )

    def _tokens(self, words):
        """Splits each distinct word once, and returns the index of each."""
        distinct, index = tf.unique(words.values)
        return self._pairs.split(distinct), index

    def word_starts(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        """Returns whether each token starts a word; see base.Tokenizer.

        A token after <unk> does, although an unknown character may be inside a
        word.
        """
        ends_word = tf.gather(self._ends_word, ids.values)
        after_end = tf.concat([[True], ends_word], 0)[:-1]
        is_first = tf.ragged.range(ids.row_lengths()).values == 0
        return ids.with_values(after_end | is_first)

    def detokenize(self, ids: tf.RaggedTensor | tf.Tensor) -> tf.Tensor:
        """Joins words by spaces, with none next to a Chinese character.

        The frame, <end> and <pad> are left out.
        """
        if not isinstance(ids, tf.RaggedTensor):
            ids = tf.RaggedTensor.from_tensor(ids, padding=self.pad_id)
        outside = [i for t, i in self._specials.items() if t != UNK]
        kept = tf.reduce_all(
            ids.values[:, tf.newaxis] != tf.constant(outside, tf.int32), axis=1
        )
        ids = tf.ragged.boolean_mask(ids, ids.with_values(kept))
        text = tf.gather(tf.constant(self.vocabulary), ids.values)
        text = tf.strings.regex_replace(text, f"{END_OF_WORD}$", " ")
        text = tf.where(ids.values == self.unk_id, f"{UNK} ", text)
        text = tf.strings.reduce_join(ids.with_values(text), axis=-1)
        text = tf.strings.regex_replace(text, _BESIDE_CHINESE, r"\1")
        return tf.strings.strip(text)


@functools.cache  # build it once per process, however often it is unpickled
def _unpickle(
    vocabulary: tuple[str, ...], merges: Merges, lowercase: bool
) -> BytePairTokenizer:
    return BytePairTokenizer(vocabulary, merges, lowercase=lowercase)


def _check(vocabulary: tuple[str, ...], merges: Merges) -> dict[str, int]:
    """Returns {token: id}; raises InputError if they do not fit together."""
    ids = {token: index for index, token in enumerate(vocabulary)}
    if UNK not in ids or "" in ids or len(ids) != len(vocabulary):
        raise errors.InputError(
            f"Expected a vocabulary with {UNK}, and every token once; its "
            f"{len(vocabulary)} entries have {vocabulary.count(UNK)} {UNK}, "
            f"{vocabulary.count('')} empty tokens and "
            f"{len(vocabulary) - len(ids)} repeated ones."
        )
    seen = set()
    for number, pair in enumerate(merges, 1):
        unknown = [t for t in (*pair, "".join(pair)) if t not in ids]
        if unknown or pair in seen or any(t in SPECIAL_TOKENS for t in pair):
            raise errors.InputError(
                f"Expected every merge once, of tokens of the vocabulary to "
                f"another one; merge {number} is {' '.join(pair)!r:.80}, "
                + (
                    f"and the vocabulary lacks {unknown[0]!r:.80}. Are the "
                    "vocabulary and the merges from the same model?"
                    if unknown
                    else "which is repeated or has a special token."
                )
            )
        seen.add(pair)
    if not any(token.endswith(END_OF_WORD) for token in vocabulary):
        raise errors.InputError(
            f"Expected tokens that end a word with {END_OF_WORD}, as GPT's do; "
            f"the vocabulary's {len(vocabulary)} entries have none. Byte pairs "
            "of bytes, as those of GPT-2 and RoBERTa, are not read."
        )
    return ids


def _find(path: str) -> tuple[str, str]:
    """Returns the paths of the vocabulary and of its merges."""
    is_folder = tf.io.gfile.isdir(path)
    folder = path if is_folder else os.path.dirname(path)
    for names in NAMES:
        if not is_folder and os.path.basename(path) not in names:
            continue
        found = [os.path.join(folder, name) for name in names]
        if all(map(tf.io.gfile.exists, found)):
            return found[0], found[1]
    raise errors.InputError(
        f"{path}: expected a folder with "
        f"{' or with '.join(' and '.join(names) for names in NAMES)}, or one "
        "of these files beside the other."
    )


def _read_vocabulary(path: str) -> list[str]:
    values: Mapping[str, Any] = files.read_json(path)
    by_id = {
        index: token for token, index in values.items() if type(index) is int
    }
    if sorted(by_id) != list(range(len(values))):
        raise errors.InputError(
            f"{path}: expected an object with the id of each token, from 0 to "
            f"{len(values) - 1}, each once."
        )
    return [by_id[index] for index in range(len(by_id))]


def _read_merges(path: str) -> list[tuple[str, str]]:
    merges = []
    for number, line in enumerate(_read_lines(path), 1):
        line = line.rstrip("\r")
        if not line or number == 1 and line.startswith("#version"):
            continue
        pair = line.split(" ")
        if len(pair) != 2 or not all(pair):
            raise errors.InputError(
                f"{path}: expected two symbols with a space between in each "
                f"line; line {number} is {line[:80]!r}."
            )
        merges.append((pair[0], pair[1]))
    return merges


def _read_lines(path: str) -> list[str]:
    with tf.io.gfile.GFile(path, "rb") as file:
        content = file.read()
    try:
        return content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise errors.InputError(
            f"{path}: expected merges in UTF-8, but line {line} is not."
        ) from None
