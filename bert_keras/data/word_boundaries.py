"""Where words, phrases and entities begin: facts that records store.

Masked LM hides them completely or not at all. The fact of a token is a number
of 6 bits: for the levels 1 (words), 2 (phrases) and 3 (entities) whether a unit
begins at the token, and whether a part of its unit is cut off the row.
"""

import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import tensorflow as tf

from bert_keras import errors
from bert_keras.data import hiding, packing, text_lines
from bert_keras.tokenizers import base as tokenizers

FEATURE = "unit_starts"
UNITS = "units"  # a manifest's field: the names of the stored levels
NUM_LEVELS = max(hiding.LEVELS.values())
_WHOLE = sum(1 << 2 * level for level in range(NUM_LEVELS))
_FLAGS = {
    "words": "`word_boundaries`",
    "phrases": "`phrases`",
    "entities": "`entities`",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the words of a text are found.

    words: tokenizer = at white space, and each Chinese character is a word;
      jieba = Chinese words by jieba's dictionary.
    phrases, entities: their texts; a word that is in none is a unit of its own.
    """

    words: str = "tokenizer"
    phrases: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()

    @property
    def units(self) -> list[str]:
        """The names of the stored levels."""
        names = ["words"]
        names += ["phrases"] * bool(self.phrases)
        names += ["entities"] * bool(self.entities)
        return names


def how_to_store(units: Collection[str]) -> str:
    """Returns the settings of `prepare` that store units."""
    return " and ".join(_FLAGS[unit] for unit in sorted(units))


def read_lexicon(path: str) -> tuple[str, ...]:
    """Reads a file with a phrase in each line; empty ones are left out."""
    entries = []
    for number, line in enumerate(text_lines.read(path), 1):
        try:
            entries.append(text_lines.decode(line).strip())
        except ValueError as problem:
            raise errors.InputError(
                f"{path}, line {number}: {problem}. "
                f"{text_lines.how_to_convert(path)}"
            ) from None
    phrases = tuple(dict.fromkeys(filter(None, entries)))
    if not phrases:
        raise errors.InputError(
            f"{path}: expected a phrase a line, found none."
        )
    return phrases


def unknown(
    phrases: Sequence[str], tokenizer: tokenizers.Tokenizer
) -> list[str]:
    """Returns the phrases that are never found, as they have unknown tokens."""
    rows = tokenizer(tf.constant(list(phrases), tf.string)).to_list()
    return [
        phrase
        for phrase, row in zip(phrases, rows, strict=True)
        if not row or tokenizer.unk_id in row
    ]


class Finder:
    """Finds the units of tokenized sentences."""

    def __init__(self, settings: Settings, tokenizer: tokenizers.Tokenizer):
        self._tokenizer = tokenizer
        self._words = settings.words
        self._lexicons = [
            _Lexicon(phrases, tokenizer) if phrases else None
            for phrases in (settings.phrases, settings.entities)
        ]

    def starts(
        self, sentences: Sequence[str], ids: tf.RaggedTensor
    ) -> np.ndarray:
        """Returns whether a unit begins at each token, as bits of a number.

        ids: those of the sentences -> (tokens,) uint8, where bit 2 (level - 1)
        is that of a level.
        """
        spaced = self._tokenizer.word_starts(ids).values.numpy() > 0
        words = spaced
        if self._words == "jieba":
            # Of other languages it may separate the letters of a word.
            words = spaced & _at_jieba_words(sentences, self._tokenizer)
        facts = words.astype(np.uint8)
        ends = ids.row_splits.numpy()[1:]
        for level, lexicon in enumerate(self._lexicons, 1):
            starts = words
            if lexicon is not None:
                starts = words.copy()
                for begin, end in lexicon.find(
                    ids.values.numpy(), ends, spaced
                ):
                    starts[begin], starts[begin + 1 : end] = True, False
                    # What follows is no part of a word that began before.
                    starts[end : end + 1] = True
            facts |= starts.astype(np.uint8) << 2 * level
        return facts


def pack(
    facts: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    frame: tokenizers.Frame,
) -> np.ndarray:
    """Packs facts like `packing.pack_spans`, and marks units that are cut.

    facts (tokens,) uint8 of `Finder.starts`; the tokens of the frame are units.
    """
    source = np.arange(len(facts))
    no_token = tokenizers.Frame(
        (-1,) * len(frame.start),
        (-1,) * len(frame.between),
        (-1,) * len(frame.end),
    )
    _, source, _ = packing.pack_spans(source, first, second, no_token)
    is_text = source >= 0
    source = source[is_text]
    spans = np.stack([first, second], axis=1).reshape(-1, 2)
    sizes = spans[:, 1] - spans[:, 0]
    begins, ends = (np.repeat(spans[:, side], sizes) for side in (0, 1))
    packed = facts[source]
    for level in range(NUM_LEVELS):
        starts = np.flatnonzero(facts >> 2 * level & 1)
        # Of the unit of each token: where it begins, and where the next does.
        index = np.searchsorted(starts, source, side="right")
        limits = np.concatenate([[-1], starts, [len(facts)]])
        cut = (limits[index] < begins) | (limits[index + 1] > ends)
        packed |= cut.astype(np.uint8) << 2 * level + 1
    result = np.full(len(is_text), _WHOLE, np.uint8)
    result[is_text] = packed
    return result


class _Lexicon:
    """Finds phrases in token ids: from left to right, the longest first."""

    def __init__(self, phrases: Sequence[str], tokenizer: tokenizers.Tokenizer):
        rows = tokenizer(tf.constant(list(phrases))).to_list()
        unknown = tokenizer.unk_id
        self._phrases = {
            tuple(row) for row in rows if row and unknown not in row
        }
        self._lengths: dict[int, list[int]] = {}
        for phrase in self._phrases:
            self._lengths.setdefault(phrase[0], []).append(len(phrase))
        for first, lengths in self._lengths.items():
            self._lengths[first] = sorted({*lengths}, reverse=True)

    def find(
        self, ids: np.ndarray, sentence_ends: np.ndarray, starts: np.ndarray
    ) -> Iterator[tuple[int, int]]:
        """Yields (begin, end) of phrases of complete words in a sentence.

        starts (tokens,): whether a word begins at the token.
        """
        firsts = np.array(list(self._lengths), ids.dtype)
        begins = np.flatnonzero(starts & np.isin(ids, firsts))
        limits = sentence_ends[
            np.searchsorted(sentence_ends, begins, side="right")
        ]
        stop = 0
        for begin, limit in zip(begins.tolist(), limits.tolist(), strict=True):
            if begin < stop:
                continue
            for length in self._lengths[int(ids[begin])]:
                end = begin + length
                if end > limit or (end < limit and not starts[end]):
                    continue
                if tuple(ids[begin:end].tolist()) in self._phrases:
                    yield begin, end
                    stop = end
                    break


def _at_jieba_words(
    sentences: Sequence[str], tokenizer: tokenizers.Tokenizer
) -> np.ndarray:
    """Returns whether each token is the first one of a word of jieba's."""
    cut = _jieba()
    _, starts, _ = tokenizer.with_offsets(tf.constant(list(sentences)))
    result = []
    for sentence, offsets in zip(sentences, starts.to_list(), strict=True):
        begins = np.cumsum([0, *map(len, cut(sentence))])
        word = np.searchsorted(begins, offsets, side="right")
        result.append(np.diff(word, prepend=0) > 0)
    return np.concatenate([np.zeros(0, bool), *result])


@functools.cache
def _jieba() -> Callable[[str], list[str]]:
    """Returns jieba's segmenter, made in this process of its dictionary."""
    try:
        import jieba
    except ImportError:
        raise errors.InputError(
            "word_boundaries=jieba needs the package jieba; install it with "
            "pip install 'bert-keras[jieba]'.",
            argument="word_boundaries",
        ) from None
    segmenter = jieba.Tokenizer()
    # Its own cache would be a file that all users of the machine share.
    segmenter.tmp_dir = tempfile.mkdtemp()
    try:
        segmenter.initialize()
    finally:
        shutil.rmtree(segmenter.tmp_dir)
    return segmenter.lcut
