"""The tokenizer of ELMo: words, each as 50 ids of characters, in the graph.

A word's ids are those of bilm-tf: the bytes of its UTF-8 between the ids of a
word's begin and end, then padding. 1 is added to all of them, so that 0 is a
position without a word. Of a longer word the first 48 bytes are read.

There is a vocabulary of words, too: what a language model predicts.
"""

import collections
import functools
import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_text as tf_text

from bert_keras import errors, files
from bert_keras.text import text_cleaning
from bert_keras.tokenizers import base

# The words of bilm-tf's vocabularies that are not text, in its order.
END, START, UNKNOWN = SPECIAL_WORDS = ("</S>", "<S>", "<UNK>")
VOCABULARY = "vocab.txt"  # one word per line, by id

MAX_CHARACTERS = 50  # per word, with its begin and end
# bilm-tf's ids of what is no byte, plus 1; a byte's is its value plus 1.
_START, _END, _WORD_START, _WORD_END, _PADDING = range(257, 262)
NUM_CHARACTERS = 262

_TEXTS_PER_CALL = 4000  # as in data.pretraining_records


class Characters(base.Tokenizer):
    """Splits text into words and each word into ids of its characters.

    Words end at white space; punctuation marks and Chinese characters are words
    of their own. The frame is <S> before and </S> after each text.

    vocabulary: the words, by id, among them </S>, <S> and <UNK>. A text's
      characters do not depend on it.
    lowercase: whether text is lower-cased and its accents are dropped.
    """

    files = (VOCABULARY,)
    pad_id = 0
    mask_id = None

    def __init__(self, vocabulary: Sequence[str], *, lowercase: bool = False):
        self.vocabulary = tuple(vocabulary)
        self.lowercase = bool(lowercase)
        _check(self.vocabulary)
        self.unk_id = self.vocabulary.index(UNKNOWN)
        self.end_id = self.vocabulary.index(END)
        start, end = map(_special, (_START, _END))
        self.frame = base.Frame(
            (start,), (end, start), (end,), feature="characters"
        )

    @classmethod
    def from_vocab(
        cls, path: str, *, lowercase: bool | None = None
    ) -> "Characters":
        """Reads a file with one word per line.

        lowercase: None: true if the vocabulary has no upper-case letters.
        """
        vocabulary = read_words(path)
        if lowercase is None:
            words = set(vocabulary).difference(SPECIAL_WORDS)
            lowercase = bool(words) and all(w == w.lower() for w in words)
        try:
            return cls(vocabulary, lowercase=lowercase)
        except errors.InputError as error:
            raise errors.InputError(f"{path}: {error}") from None

    @classmethod
    def learn(
        cls, texts: Iterable[str], vocab_size: int, *, lowercase: bool
    ) -> "Characters":
        """Returns a tokenizer with the most frequent words of the texts.

        Words are sorted by descending frequency, as log-uniform sampling
        expects it; equally frequent ones by their bytes.
        """
        splitter = cls(SPECIAL_WORDS, lowercase=lowercase)
        counts: collections.Counter[bytes] = collections.Counter()
        texts = iter(texts)
        while block := list(itertools.islice(texts, _TEXTS_PER_CALL)):
            words, _, count = tf.unique_with_counts(
                splitter.words(block).values
            )
            counts.update(
                dict(zip(words.numpy(), count.numpy().tolist(), strict=True))
            )
        learned = sorted(
            (word for word in counts if len(word) <= MAX_CHARACTERS - 2),
            key=lambda word: (-counts[word], word),
        )
        room = vocab_size - len(SPECIAL_WORDS)
        if room < 1 or len(learned) < room:
            most = len(SPECIAL_WORDS) + len(learned)
            message = (
                f"Expected a vocabulary of {len(SPECIAL_WORDS) + 1} to "
                f"{most:,} words, the number of "
                "distinct ones in this text and the special ones; got "
                f"vocab_size {vocab_size:,}."
            )
            if learned and room >= 1:
                raise errors.TooLittleTextError(message, most=most)
            raise errors.InputError(message)
        words = [word.decode() for word in learned[:room]]
        return cls((*SPECIAL_WORDS, *words), lowercase=lowercase)

    @classmethod
    def read_files(  # type: ignore[override]  # its own settings
        cls, folder: str, *, lowercase: bool
    ) -> "Characters":
        path = os.path.join(folder, VOCABULARY)
        return cls.from_vocab(path, lowercase=lowercase)

    def save(self, folder: str) -> tuple[str, ...]:
        text = "".join(f"{word}\n" for word in self.vocabulary)
        files.write_text(os.path.join(folder, VOCABULARY), text)
        return self.files

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"lowercase": self.lowercase}

    def __call__(
        self, text: tf.Tensor, *, special_tokens: bool = False
    ) -> tf.RaggedTensor:
        """Returns the characters of the words: ragged (B, None, 50) int32.

        A literal <S> is text, also with special_tokens: no task has a token
        that a text could contain.
        """
        del special_tokens
        words = self.words(text)
        return words.with_values(encode(words.values))

    def with_offsets(
        self, text: tf.Tensor
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        text = tf.ensure_shape(tf.convert_to_tensor(text, tf.string), (None,))
        clean, source = text_cleaning.with_source(
            text, lowercase=self.lowercase, limit_words=False
        )
        words, starts, ends = _split(clean)
        row = words.value_rowids()
        return (
            words.with_values(encode(words.values)),
            words.with_values(source.first(row, starts.values)),
            words.with_values(source.end(row, ends.values)),
        )

    def words(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Splits text (B,) string into words, ragged (B, None) string."""
        text = tf.ensure_shape(tf.convert_to_tensor(text, tf.string), (None,))
        text = text_cleaning.normalize(text, lowercase=self.lowercase)
        return _split(text)[0]

    def word_starts(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        """Returns True for each token: it is a word."""
        return ids.with_values(tf.ones(tf.shape(ids.values)[:1], tf.bool))

    def word_ids(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        """Looks up words, ragged (B, None, 50) -> (B, None) int32.

        A word that is not in the vocabulary is <UNK>.
        """
        words = decode(ids.values)
        start, end = (
            tf.reduce_all(ids.values == _special(special), axis=1)
            for special in (_START, _END)
        )
        found = self._table.lookup(words)
        found = tf.where(start, self.vocabulary.index(START), found)
        return ids.with_values(tf.where(end, self.end_id, found))

    @functools.cached_property
    def _table(self) -> tf.lookup.StaticHashTable:
        """The vocabulary by word; no served graph has it."""
        with tf.init_scope(), tf.device("CPU"):
            return tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(
                    list(self.vocabulary), tf.range(self.vocab_size)
                ),
                self.unk_id,
            )

    def detokenize(self, ids: tf.RaggedTensor | tf.Tensor) -> tf.Tensor:
        """Joins words by spaces, with none next to a Chinese character.

        ids: characters (B, S, 50), or ids of words (B, S), whose <S> and </S>
          are left out. Characters 0 are padding.
        """
        ragged = isinstance(ids, tf.RaggedTensor)
        ids = ids if ragged else tf.RaggedTensor.from_tensor(ids)
        if ids.shape.rank == 2:
            special = [self.vocabulary.index(word) for word in (START, END)]
            words = tf.gather(tf.constant(self.vocabulary), ids.values)
            kept = tf.reduce_all(
                ids.values[:, tf.newaxis] != tf.constant(special), axis=1
            )
            words = tf.where(kept, words, "")
        else:
            words = _complete(decode(ids.values))
        text = tf.strings.join([words, " "])
        chinese = f"[{text_cleaning.CHINESE}]"
        text = tf.where(words == "", "", text)
        text = tf.strings.reduce_join(ids.with_values(text), axis=-1)
        text = tf.strings.regex_replace(text, f" ?({chinese}) ?", r"\1")
        return tf.strings.strip(text)

    def token_texts(self, ids: tf.Tensor) -> tf.Tensor:
        words = _complete(decode(tf.reshape(ids, (-1, MAX_CHARACTERS))))
        return tf.reshape(words, tf.shape(ids)[:2])

    def tokens(self, ids: Iterable[Any]) -> list[str]:
        """Returns words in Python, of their characters or of their ids."""
        return [
            self.vocabulary[each] if isinstance(each, int) else _word(each)
            for each in (
                [*row] if hasattr(row, "__len__") else int(row) for row in ids
            )
        ]


def encode(words: tf.Tensor) -> tf.Tensor:
    """Converts words (n,) string to their characters (n, 50) int32."""
    room = MAX_CHARACTERS - 2
    values = tf.io.decode_raw(words, tf.uint8, fixed_length=room)
    values = tf.pad(tf.cast(values, tf.int32) + 1, [[0, 0], [1, 1]])
    length = tf.minimum(tf.strings.length(words), room)[:, tf.newaxis]
    position = tf.range(MAX_CHARACTERS)
    ids = tf.where(position <= length, values, _PADDING)
    ids = tf.where(position == length + 1, _WORD_END, ids)
    return tf.where(position == 0, _WORD_START, ids)


def decode(characters: tf.Tensor) -> tf.Tensor:
    """Converts characters (n, 50) int32 to words (n,) string.

    The result for <S>, </S> and padding is "".
    """
    letters = tf.constant([bytes([value]) for value in range(256)])
    is_byte = (characters >= 1) & (characters <= 256)
    letters = tf.gather(letters, tf.where(is_byte, characters - 1, 0))
    return tf.strings.reduce_join(tf.where(is_byte, letters, ""), axis=-1)


def _complete(words: tf.Tensor) -> tf.Tensor:
    """Drops the bytes of a character that is only in part in a word's 48."""
    return tf.strings.unicode_transcode(
        words, "UTF-8", "UTF-8", errors="ignore"
    )


def _word(characters: Sequence[int]) -> str:
    """Returns a word, or <S> or </S>, of its characters, in Python."""
    row = tuple(int(each) for each in characters)
    for special, name in ((_START, START), (_END, END)):
        if row == _special(special):
            return name
    values = bytes(each - 1 for each in row if 1 <= each <= 256)
    return values.decode("utf-8", "ignore")


def _special(character: int) -> tuple[int, ...]:
    """Returns the characters of <S> or </S>."""
    ids = (_WORD_START, character, _WORD_END)
    return ids + (_PADDING,) * (MAX_CHARACTERS - len(ids))


_ALONE = f"[{text_cleaning.PUNCTUATION}{text_cleaning.CHINESE}]"


def _split(
    text: tf.Tensor,
) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
    """Splits normalised text (B,) into words, with their offsets in bytes."""
    return tf_text.regex_split_with_offsets(
        text, rf"[\s\p{{Z}}]+|{_ALONE}", _ALONE
    )


def read_words(path: str) -> list[str]:
    """Returns the lines of a vocabulary; InputError if it is not UTF-8."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            content = file.read().decode("utf-8-sig")
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        raise errors.InputError(
            f"{path}: expected a vocabulary in UTF-8, one word per line, but "
            f"it cannot be read ({getattr(error, 'message', error)})."
        ) from None
    words = [line.strip(" \t\r") for line in content.split("\n")]
    while words and not words[-1]:
        words.pop()
    return words


def _check(vocabulary: tuple[str, ...]) -> None:
    missing = [word for word in SPECIAL_WORDS if word not in vocabulary]
    if missing:
        raise errors.InputError(
            f"Expected {', '.join(SPECIAL_WORDS)} in the vocabulary; its "
            f"{len(vocabulary)} words lack {', '.join(missing)}. Is it the "
            "vocabulary of an ELMo? Put them in its first lines."
        )
    counts = collections.Counter(vocabulary)
    word, count = counts.most_common(1)[0]
    if count > 1:
        raise errors.InputError(
            f"Expected every word once; the vocabulary has {word!r} {count} "
            "times. Ids are line numbers, so remove the others."
        )
    if "" in counts:
        raise errors.InputError(
            f"Expected a word per line; line {vocabulary.index('') + 1} of the "
            "vocabulary is empty."
        )
