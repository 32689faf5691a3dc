"""Vectors of words that do not depend on their context.

They are read from a file of GloVe or word2vec, learned by word2vec, or those of
a checkpoint's table of token embeddings.
"""

import codecs
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tensorflow as tf

from bert_keras import errors
from bert_keras.tokenizers import base as tokenizers

_MAX_WORD_BYTES = 10_000  # of a binary file; a longer one is another format


class StaticVectors(NamedTuple):
    """A vector for each word: words, and values (words, width) float32."""

    words: tuple[str, ...]
    values: np.ndarray

    def select(self, words: Iterable[str]) -> "StaticVectors":
        """Returns the vectors of those of `words` that have one, in order."""
        index = {word: row for row, word in enumerate(self.words)}
        found = tuple(word for word in words if word in index)
        rows = np.array([index[word] for word in found], np.int64)
        return StaticVectors(found, self.values[rows])


def read(path: str, words: Collection[str] | None = None) -> StaticVectors:
    """Reads a file of word vectors; of some words only, if `words` is given.

    A text file has a word and its numbers on each line, with spaces between, as
    GloVe writes it; before them may be a line with the number of words and the
    width, as word2vec writes it. A binary file of word2vec has that line, then
    each word, a space, and its float32 numbers, little-endian. Nothing in the
    file is run, as a pickle would be.

    Raises InputError with the line or the word's number for other contents, and
    for a word that occurs twice.

    >>> with open("vectors.txt", "w") as file:
    ...     _ = file.write("film 0.5 1\\nplot 0.25 -1\\n")
    >>> static_vectors.read("vectors.txt").values
    array([[ 0.5 ,  1.  ],
           [ 0.25, -1.  ]], dtype=float32)
    """
    with open(path, "rb") as file:
        begin = len(codecs.BOM_UTF8) * (file.read(3) == codecs.BOM_UTF8)
        file.seek(begin)
        first = file.readline(_MAX_WORD_BYTES * 10)
        header = _header(first)
        if header is None:
            file.seek(begin)
            rows = _text_rows(file, path, first_line=1, width=None)
            return _collect(rows, path, words)
        count, width = header
        start = file.tell()
        is_text = _is_text(file.readline(), width)
        file.seek(start)
        rows = (
            _text_rows(file, path, first_line=2, width=width)
            if is_text
            else _binary_rows(file, path, count, width)
        )
        return _collect(rows, path, words, expected=count)


def _header(line: bytes) -> tuple[int, int] | None:
    """Returns the number of words and the width, or None for another line."""
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        return None
    return int(parts[0]), int(parts[1])


def _is_text(line: bytes, width: int) -> bool:
    numbers = line.split()[-width:]
    try:
        return len(numbers) == width and bool([float(n) for n in numbers])
    except ValueError:
        return False


class _Row(NamedTuple):
    where: str  # for messages
    word: bytes
    numbers: Sequence[bytes] | bytes  # as text, or as float32


def _text_rows(
    file: BinaryIO, path: str, *, first_line: int, width: int | None
) -> Iterator[_Row]:
    for number, line in enumerate(file, first_line):
        where = f"{path}, line {number}"
        parts = line.rstrip(b"\r\n ").split(b" ")
        width = width or len(parts) - 1
        # A word may have spaces: the numbers are the last ones.
        if not width or len(parts) <= width:
            raise errors.InputError(
                f"{where}: expected a word and {width or 'its'} numbers with "
                f"spaces between, found {len(parts)} parts."
            )
        yield _Row(where, b" ".join(parts[:-width]), parts[-width:])


def _binary_rows(
    file: BinaryIO, path: str, count: int, width: int
) -> Iterator[_Row]:
    for number in range(1, count + 1):
        where = f"{path}, word {number} of {count:,}"
        word = b""
        while (byte := file.read(1)) != b" ":
            word += byte
            if not byte or len(word) > _MAX_WORD_BYTES:
                raise errors.InputError(
                    f"{where}: expected a word, a space and {width} float32 "
                    "numbers, found the end of the file, or no space; copy the "
                    "file again, or write it as text."
                )
        numbers = file.read(4 * width)
        if len(numbers) < 4 * width:
            raise errors.InputError(
                f"{where}: expected {4 * width} bytes of numbers, found "
                f"{len(numbers)}: the file is truncated; copy it again."
            )
        yield _Row(where, word.lstrip(b"\n"), numbers)
    if file.read().strip(b"\n"):
        raise errors.InputError(
            f"{path}: expected {count:,} words, as its first line says, found "
            "more bytes after them; correct the first line."
        )


def _collect(
    rows: Iterable[_Row],
    path: str,
    words: Collection[str] | None,
    expected: int | None = None,
) -> StaticVectors:
    vectors: dict[str, np.ndarray] = {}
    seen: set[bytes] = set()
    for row in rows:
        if row.word in seen:
            raise errors.InputError(
                f"{row.where}: expected each word once, found "
                f"{row.word.decode(errors='replace')!r} again; remove one."
            )
        seen.add(row.word)
        try:
            word = row.word.decode()
        except UnicodeDecodeError:
            raise errors.InputError(
                f"{row.where}: expected a word in UTF-8, found {row.word!r}."
            ) from None
        if words is None or word in words:
            vectors[word] = _numbers(row)
    if expected is not None and len(seen) != expected:
        raise errors.InputError(
            f"{path}: expected {expected:,} words, as its first line says, "
            f"found {len(seen):,}; copy the file again, or correct that line."
        )
    if not seen:
        raise errors.InputError(f"{path}: expected word vectors, found none.")
    values = list(vectors.values())
    return StaticVectors(
        tuple(vectors), np.stack(values) if values else np.zeros((0, 0))
    )


def _numbers(row: _Row) -> np.ndarray:
    if isinstance(row.numbers, bytes):
        values = np.frombuffer(row.numbers, "<f4").astype(np.float32)
    else:
        try:
            values = np.array([float(each) for each in row.numbers], np.float32)
        except ValueError as problem:
            raise errors.InputError(f"{row.where}: {problem}.") from None
    if not np.isfinite(values).all():
        raise errors.InputError(
            f"{row.where}: expected finite numbers, found NaN or infinity."
        )
    return values


def of_table(
    table: Any, tokenizer: tokenizers.Tokenizer, words: Sequence[str]
) -> StaticVectors:
    """Returns the mean of each word's rows of a table of token embeddings.

    table: (V, E). Words with an unknown token, which all unknown words share,
    and words without a token are left out.
    """
    ids = tokenizer(tf.constant(list(words), tf.string)).to_list()
    known = {
        word: each
        for word, each in zip(words, ids, strict=True)
        if each and tokenizer.unk_id not in each
    }
    table = np.asarray(table, np.float32)
    means = [table[each].mean(axis=0) for each in known.values()]
    return StaticVectors(
        tuple(known),
        np.reshape(np.array(means, np.float32), (-1, table.shape[1])),
    )


def learn(texts: Iterable[Sequence[str]], *, width: int = 100) -> StaticVectors:
    """Learns vectors by word2vec: skip-grams (Mikolov et al. 2013).

    texts: the words of each text. Words with fewer than 5 occurrences have no
    vector. It runs on one thread, so that the same texts give the same vectors.

    Raises InputError if gensim is not installed, or no word is frequent enough.
    """
    try:
        from gensim.models import word2vec
    except ImportError:
        raise errors.InputError(
            "word2vec=true needs the package gensim: "
            "pip install 'bert_keras[words]'.",
            argument="word2vec",
        ) from None
    texts = list(texts)
    model = word2vec.Word2Vec(
        vector_size=width,
        window=5,
        min_count=_MIN_COUNT,
        sg=1,
        negative=5,
        epochs=_EPOCHS,
        workers=1,
        seed=1,
    )
    model.build_vocab(texts)
    if not len(model.wv):
        raise errors.InputError(
            f"word2vec=true: expected words with {_MIN_COUNT} occurrences in "
            "`text`, found none; give more text.",
            argument="word2vec",
        )
    model.train(texts, total_examples=len(texts), epochs=_EPOCHS)
    return StaticVectors(
        tuple(model.wv.index_to_key), np.asarray(model.wv.vectors, np.float32)
    )


_MIN_COUNT = 5
_EPOCHS = 10
