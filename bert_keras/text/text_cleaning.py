"""Text normalisation of BERT, before wordpieces are looked up, in the graph.

The rules are those of Google's tokenization.py: control characters are dropped,
and for an uncased vocabulary text is lower-cased and accents are dropped.
tensorflow_text's normaliser is not used: it folds compatibility forms (`，` to
`,`), which Google's does not. For speed, everything is a few passes over the
bytes; texts are decoded to code points only for offsets.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
import tensorflow_text as tf_text

MAX_WORD_LENGTH = 200  # characters; a longer word is [UNK], as in Google's code

# Character classes for RE2.
# The characters that Google's code drops. Surrogates are among them because RE2
# accepts them as UTF-8.
_DROPPED = r"\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F\p{Cf}\x{D800}-\x{DFFF}\x{FFFD}"
ASCII_PUNCTUATION = r"!-/:-@\[-`{-~"
CHINESE = (
    r"\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}"
    r"\x{2A700}-\x{2CEAF}\x{2F800}-\x{2FA1F}"
)

_CLEAN = f"[^{_DROPPED}]*"
# Blocks with combining marks, and their letters in scripts that use spaces.
# `\p{M}` instead would make the automaton too large, and lacks Unicode 16.
_MARKS = (
    r"\x{0300}-\x{036F}\x{0483}-\x{0487}\x{0591}-\x{05C7}\x{0610}-\x{061A}"
    r"\x{064B}-\x{065F}\x{0670}\x{06D6}-\x{06ED}\x{0711}-\x{0DFF}"
    r"\x{0E38}-\x{0E3A}\x{0E48}-\x{0E4B}\x{0EB8}-\x{0EBA}\x{0EC8}-\x{0ECB}"
    r"\x{0F18}-\x{0F39}\x{0F71}-\x{0FC6}\x{1037}-\x{103A}\x{108D}"
    r"\x{135D}-\x{135F}\x{1714}-\x{1734}\x{17D2}-\x{17DD}\x{18A9}-\x{1DFF}"
    r"\x{20D0}-\x{20FF}\x{2CEF}-\x{2CF1}\x{2D7F}\x{2DE0}-\x{2DFF}"
    r"\x{302A}-\x{302F}\x{3099}\x{309A}\x{A66F}-\x{A6F1}\x{A806}-\x{ABFF}"
    r"\x{FB1E}\x{FE20}-\x{FE2F}\x{101FD}-\x{1037A}\x{10A0D}-\x{11FFF}"
    r"\x{16100}-\x{16FFF}\x{1BC9E}\x{1D165}-\x{1D244}\x{1E000}-\x{1E94A}"
)
_MARK_RUN = f"[{_MARKS}]{{32}}"
# Matches texts that may have a word that is too long. It lists only frequent
# word boundaries, as each makes it slower; `without_long_words` then checks the
# matching texts exactly.
_LONG_RUN = f"[^ {ASCII_PUNCTUATION}{CHINESE}]{{{MAX_WORD_LENGTH + 1}}}"
PUNCTUATION = rf"{ASCII_PUNCTUATION}\p{{P}}"
_WORD_END = f"([{PUNCTUATION}{CHINESE}])"
_LONG_WORD = f"[^\\s\\p{{Z}}]{{{MAX_WORD_LENGTH + 1},}}"
MAX_BYTES = 4 * MAX_WORD_LENGTH  # of UTF-8
_UNKNOWN_WORD = "x" * (MAX_BYTES + 1)  # [UNK] with any vocabulary
_UNKNOWN_PART = (
    "x" * 5
)  # replaces a character of a long word; in all more than MAX_BYTES


def normalize(text: tf.Tensor, *, lowercase: bool) -> tf.Tensor:
    """Normalises text (B,) as Google's code does before it splits words."""
    text = without_controls(text)
    return _without_accents(text) if lowercase else text


def _without_accents(text):
    """Lower-cases text (B,) and drops its accents."""
    text = tf.strings.lower(text, "utf-8")
    run = tf.strings.regex_full_match(text, f"(?s).*{_MARK_RUN}.*")
    rows = tf.where(run)
    sorted_ = _without_mark_runs(tf.gather_nd(text, rows))
    text = tf_text.normalize_utf8(tf.where(run, "", text), "NFD")
    text = tf.strings.regex_replace(text, r"\p{Mn}+", "")
    return tf.tensor_scatter_nd_update(text, rows, sorted_)


def _without_mark_runs(text):
    """Decomposes text (R,) by NFD and drops its accents, in O(n log n).

    NFD sorts the marks after a letter by their combining class. ICU does so by
    insertion, which takes half a minute for 160 KB of marks. Here accents are
    dropped first, and the few other marks (of Indic scripts, of music) are
    sorted. Instead of a table of combining classes, ICU's own result for each
    pair of marks decides their order.
    """
    points = _decomposed(tf.strings.unicode_decode(text, "UTF-8"))
    distinct, index = tf.unique(points.values)
    accent = tf.strings.regex_full_match(_characters(distinct), r"\p{Mn}")
    # A mark is a code point that NFD swaps with one of the lowest (1) or of the
    # highest (240) combining class; one of class 0 is never swapped.
    lowest, highest = (
        tf.fill(tf.shape(distinct), ord(c)) for c in "\u0334\u0345"
    )
    mark = tf.logical_or(
        _swapped(distinct, lowest), _swapped(highest, distinct)
    )
    sorted_ = tf.where(tf.logical_and(mark, tf.logical_not(accent)))
    marks = tf.gather_nd(distinct, sorted_)
    count = tf.size(marks)
    lower = tf.reshape(
        _swapped(tf.repeat(marks, count), tf.tile(marks, [count])),
        [count, count],
    )
    rank = 1 + tf.reduce_sum(tf.cast(lower, tf.int64), axis=1)
    rank = tf.scatter_nd(sorted_, rank, tf.shape(distinct, tf.int64))

    starter = tf.gather(tf.cast(tf.logical_not(mark), tf.int64), index)
    group = tf.cumsum(starter) + points.value_rowids()
    key = group * tf.cast(count + 1, tf.int64) + tf.gather(rank, index)
    kept = tf.logical_not(tf.gather(accent, index))
    points = tf.ragged.boolean_mask(points, points.with_values(kept))
    order = tf.argsort(tf.boolean_mask(key, kept), stable=True)
    return tf.strings.unicode_encode(
        points.with_values(tf.gather(points.values, order)), "UTF-8"
    )


def _decomposed(points):
    """Replaces each of the ragged code points (R, None) by its NFD form."""
    distinct, index = tf.unique(points.values)
    forms = tf.strings.unicode_decode(
        tf_text.normalize_utf8(_characters(distinct), "NFD"), "UTF-8"
    )
    return points.with_values(tf.gather(forms, index)).merge_dims(1, 2)


def _characters(points):
    return tf.strings.unicode_encode(points[:, tf.newaxis], "UTF-8")


def _swapped(first, second):
    """Returns whether NFD swaps the code points of each pair.

    first, second (R,) int32 -> (R,) bool.
    """
    both = tf.strings.unicode_encode(tf.stack([first, second], 1), "UTF-8")
    return tf_text.normalize_utf8(both, "NFD") != both


def without_controls(text: tf.Tensor) -> tf.Tensor:
    # Few texts have anything to drop: searching is faster than copying.
    return _where(
        tf.logical_not(tf.strings.regex_full_match(text, _CLEAN)),
        lambda dirty: tf.strings.regex_replace(
            tf.strings.unicode_transcode(
                dirty, "UTF-8", "UTF-8", errors="ignore"
            ),
            f"[{_DROPPED}]+",
            "",
        ),
        text,
    )


def _may_hold_long_word(text):
    return tf.strings.regex_full_match(text, f"(?s).*{_LONG_RUN}.*")


def without_long_words(text: tf.Tensor) -> tf.Tensor:
    """Replaces words longer than MAX_WORD_LENGTH by an unknown word."""
    return _where(
        _may_hold_long_word(text),
        lambda long: tf.strings.regex_replace(
            tf.strings.regex_replace(long, _WORD_END, r" \1 "),
            _LONG_WORD,
            _UNKNOWN_WORD,
        ),
        text,
    )


class Source(NamedTuple):
    """Maps bytes of normalised texts to code points of the original texts.

    All tensors are flat, over the code points of all texts:
    sums: running total of the bytes that each code point became;
    follow: index of the next code point that is not a dropped accent;
    splits (B + 1,): where each text begins and ends.

    The texts "é!", whose é is an e and a combining accent, and "a" become "e!"
    and "a":

        code point    e  accent  !  |  a
        index         0     1    2  |  3
        sums          1     1    2  |  3
        follow        2     2    3  |  4
        splits        0             3     4

    The token "e", bytes 0 to 1 of text 0, came from code points 0 to 2 of that
    text, "!" from 2 to 3, and "a" from 0 to 1 of text 1.
    """

    sums: tf.Tensor
    follow: tf.Tensor
    splits: tf.Tensor

    def first(self, row: tf.Tensor, byte: tf.Tensor) -> tf.Tensor:
        """Returns the offset in text `row` of the code point at `byte`.

        row, byte, result: one value per token. For "!" above: 0, 1 -> 2.
        """
        return self._point(row, byte) - tf.gather(self.splits, row)

    def end(self, row: tf.Tensor, byte: tf.Tensor) -> tf.Tensor:
        """Returns the offset after the code point whose bytes end at `byte`.

        Dropped accents after it are included. For "e" above: 0, 1 -> 2.
        """
        point = self._point(row, byte - 1)
        stop = tf.gather(self.splits, row + 1)
        follow = tf.minimum(tf.gather(self.follow, point), stop)
        return follow - tf.gather(self.splits, row)

    def _point(self, row, byte):
        before = tf.gather(tf.pad(self.sums, [[1, 0]]), self.splits)
        byte = tf.gather(before, row) + tf.cast(byte, tf.int32)
        return tf.searchsorted(self.sums, byte, side="right")


def with_source(
    text: tf.Tensor, *, lowercase: bool, limit_words: bool = True
) -> tuple[tf.Tensor, Source]:
    """Normalises text (B,) and returns it with its Source.

    limit_words: replace words longer than MAX_WORD_LENGTH by an unknown word.

    The number of bytes of a code point is that of its own normal form: in
    context, a final sigma has as many bytes as another one, and NFD reorders
    accents only among those that are dropped. Texts have few distinct code
    points, so each of these is normalised once.
    """
    clean = normalize(text, lowercase=lowercase)
    points = tf.strings.unicode_decode(text, "UTF-8", errors="ignore")
    distinct, index = tf.unique(points.values)
    characters = tf.strings.unicode_encode(distinct[:, tf.newaxis], "UTF-8")
    forms = normalize(characters, lowercase=lowercase)
    sizes = tf.gather(tf.strings.length(forms), index)  # in bytes
    dropped_accent = tf.logical_and(
        forms == "", tf.strings.regex_full_match(characters, r"\p{Mn}")
    )

    if limit_words:
        chars = tf.gather(tf.strings.length(forms, "UTF8_CHAR"), index)
        clean, sizes = _without_long_words(
            clean, sizes, chars, points.value_rowids()
        )

    dropped = tf.gather(dropped_accent, index)
    return clean, make_source(points, sizes, dropped)


def make_source(
    points: tf.RaggedTensor, sizes: tf.Tensor, dropped: tf.Tensor
) -> Source:
    """Returns the Source of texts with the code points, ragged (B, None).

    sizes, dropped: of each code point of all texts, the bytes that it became,
    and whether it belongs to the one before it.
    """
    base = tf.logical_not(dropped)
    bases = tf.cast(tf.where(base)[:, 0], tf.int32)
    follow = tf.gather(
        tf.concat([bases, [tf.size(sizes)]], 0),
        tf.cumsum(tf.cast(base, tf.int32)),
    )
    return Source(
        tf.cumsum(sizes), follow, tf.cast(points.row_splits, tf.int32)
    )


def _without_long_words(clean, sizes, chars, row):
    """Does `without_long_words` for texts (B,), with the sizes of their source.

    sizes, chars, row: of each code point of all original texts, the bytes and
    the characters that it became, and its text. Returns the new texts, and the
    bytes that each code point became there.
    """
    long = _may_hold_long_word(clean)
    rows = tf.where(long)
    changed, char_sizes = _spread_long_words(tf.gather_nd(clean, rows))
    long_points = tf.where(tf.gather(long, row))
    chars = tf.gather_nd(chars, long_points)
    ends = tf.cumsum(chars)
    sums = tf.pad(tf.cumsum(char_sizes), [[1, 0]])
    sizes = tf.tensor_scatter_nd_update(
        sizes,
        long_points,
        tf.gather(sums, ends) - tf.gather(sums, ends - chars),
    )
    return tf.tensor_scatter_nd_update(clean, rows, changed), sizes


def _spread_long_words(text):
    """Does `without_long_words` for texts (R,) and returns the new lengths.

    Returns the new texts (R,), and for each character of the old ones the
    number of bytes that it became, flat over all texts.
    """
    chars = tf.strings.unicode_split(text, "UTF-8")
    flat = chars.values
    end = tf.strings.regex_full_match(flat, _WORD_END)
    inside = tf.logical_not(
        tf.logical_or(end, tf.strings.regex_full_match(flat, r"[\s\p{Z}]"))
    )
    # Number words by the boundaries before them, plus the text's index, so that
    # no word continues in the next text: the characters of "ab,c" and "d" are
    # numbered 0 0 1 1 and 2.
    between = tf.cast(tf.logical_not(inside), tf.int64)
    word = tf.cumsum(between) + chars.value_rowids()
    length = tf.math.unsorted_segment_sum(
        tf.cast(inside, tf.int32), word, tf.size(flat) + tf.size(text)
    )
    long = tf.gather(length, word) > MAX_WORD_LENGTH
    flat = tf.where(end, tf.strings.join([" ", flat, " "]), flat)
    flat = tf.where(tf.logical_and(long, inside), _UNKNOWN_PART, flat)
    joined = tf.strings.reduce_join(chars.with_values(flat), axis=-1)
    return joined, tf.strings.length(flat)


def _where(
    condition: tf.Tensor,
    change: Callable[[tf.Tensor], tf.Tensor],
    text: tf.Tensor,
) -> tf.Tensor:
    """Applies `change` to the texts for which the condition holds."""
    rows = tf.where(condition)
    return tf.tensor_scatter_nd_update(
        text, rows, change(tf.gather_nd(text, rows))
    )
