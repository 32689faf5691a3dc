"""What BERT does to a text before it looks wordpieces up, inside the graph.

The rules are those of Google's tokenization.py: control characters are
dropped, and for an uncased vocabulary capitals are lowered and accents dropped.
tensorflow_text's own normaliser is not used: it folds compatibility forms (`，`
to `,`), which Google's does not. All is done by a few passes over the bytes.
Nothing is split into code points; only offsets cost a decoding.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
import tensorflow_text as tf_text

MAX_WORD_LENGTH = 200  # characters; longer words are [UNK], as in Google's code

# Classes of characters, written for RE2.
# Google drops these. Surrogates are listed because RE2 takes them for UTF-8.
_DROPPED = r"\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F\p{Cf}\x{D800}-\x{DFFF}\x{FFFD}"
_ASCII_PUNCTUATION = r"!-/:-@\[-`{-~"
CHINESE = (
    r"\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}"
    r"\x{2A700}-\x{2CEAF}\x{2F800}-\x{2FA1F}"
)

_CLEAN = f"[^{_DROPPED}]*"
# Blocks with combining marks, letters among them where these are written with
# spaces: `\p{M}` makes the automaton too large, and lacks Unicode 16.
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
# May hold a word that is too long: only the frequent word ends are named, the
# more the slower, and `without_long_words` looks closer at what this finds.
_LONG_RUN = f"[^ {_ASCII_PUNCTUATION}{CHINESE}]{{{MAX_WORD_LENGTH + 1}}}"
_WORD_END = f"([{_ASCII_PUNCTUATION}{CHINESE}\\p{{P}}])"
_LONG_WORD = f"[^\\s\\p{{Z}}]{{{MAX_WORD_LENGTH + 1},}}"
MAX_BYTES = 4 * MAX_WORD_LENGTH  # of UTF-8
_UNKNOWN_WORD = "x" * (MAX_BYTES + 1)  # the op gives [UNK], whatever it knows
_UNKNOWN_PART = (
    "x" * 5
)  # for each character of a long word: more than MAX_BYTES


def normalize(text: tf.Tensor, *, lowercase: bool) -> tf.Tensor:
    """Cleans text (B,) as Google does, up to where it is split into words."""
    text = without_controls(text)
    return _without_accents(text) if lowercase else text


def _without_accents(text):
    """Folds case and drops the accents of clean text (B,)."""
    text = tf.strings.lower(text, "utf-8")
    run = tf.strings.regex_full_match(text, f"(?s).*{_MARK_RUN}.*")
    rows = tf.where(run)
    sorted_ = _without_mark_runs(tf.gather_nd(text, rows))
    text = tf_text.normalize_utf8(tf.where(run, "", text), "NFD")
    text = tf.strings.regex_replace(text, r"\p{Mn}+", "")
    return tf.tensor_scatter_nd_update(text, rows, sorted_)


def _without_mark_runs(text):
    """Decomposes text (R,) as NFD does and drops its accents, in n log n.

    NFD orders the marks behind a letter by their combining class. ICU inserts
    them one by one: half a minute for 160 KB. Here the few marks that are no
    accents (of Indic scripts, of music) are sorted. Classes are not listed:
    ICU itself tells, for two marks, which one comes first.
    """
    points = _decomposed(tf.strings.unicode_decode(text, "UTF-8"))
    distinct, index = tf.unique(points.values)
    accent = tf.strings.regex_full_match(_characters(distinct), r"\p{Mn}")
    # Nothing moves past a character of class 0; the others are 1 to 240.
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
    """Ragged code points (R, None), each in place of its decomposition."""
    distinct, index = tf.unique(points.values)
    forms = tf.strings.unicode_decode(
        tf_text.normalize_utf8(_characters(distinct), "NFD"), "UTF-8"
    )
    return points.with_values(tf.gather(forms, index)).merge_dims(1, 2)


def _characters(points):
    return tf.strings.unicode_encode(points[:, tf.newaxis], "UTF-8")


def _swapped(first, second):
    """Whether NFD puts code point `second` (N,) before `first` (N,)."""
    both = tf.strings.unicode_encode(tf.stack([first, second], 1), "UTF-8")
    return tf_text.normalize_utf8(both, "NFD") != both


def without_controls(text: tf.Tensor) -> tf.Tensor:
    # Nearly no text holds anything to drop; looking is cheaper than copying.
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
    """Puts an unknown word for every word of more than MAX_WORD_LENGTH."""
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
    """Which code point each byte of the clean texts came from.

    All flat, over the code points of all texts: sums (N,) of the bytes they
    became; follow (N,): the next code point that is not an accent of this one;
    splits (B + 1,): where the texts begin and end.
    """

    sums: tf.Tensor
    follow: tf.Tensor
    splits: tf.Tensor

    def first(self, row: tf.Tensor, byte: tf.Tensor) -> tf.Tensor:
        """Offsets in texts `row` (P,) of the code points at `byte` (P,)."""
        return self._point(row, byte) - tf.gather(self.splits, row)

    def end(self, row: tf.Tensor, byte: tf.Tensor) -> tf.Tensor:
        """The places behind those whose bytes end at `byte` (P,)."""
        point = self._point(row, byte - 1)
        stop = tf.gather(self.splits, row + 1)
        follow = tf.minimum(tf.gather(self.follow, point), stop)
        return follow - tf.gather(self.splits, row)

    def _point(self, row, byte):
        before = tf.gather(tf.pad(self.sums, [[1, 0]]), self.splits)
        byte = tf.gather(before, row) + tf.cast(byte, tf.int32)
        return tf.searchsorted(self.sums, byte, side="right")


def with_source(
    text: tf.Tensor, *, lowercase: bool
) -> tuple[tf.Tensor, Source]:
    """What the op reads for each text (B,), and where it came from.

    Lower-casing and NFD of a whole text give as many bytes as of its code
    points one by one: a final sigma is as long as another, and a reordering of
    accents moves nothing out of the group that is dropped. There are few
    different code points, so each is normalised once.
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

    long = _may_hold_long_word(clean)
    rows = tf.where(long)
    changed, char_sizes = _spread_long_words(tf.gather_nd(clean, rows))
    long_points = tf.where(tf.gather(long, points.value_rowids()))
    chars = tf.gather_nd(
        tf.gather(tf.strings.length(forms, "UTF8_CHAR"), index), long_points
    )
    ends = tf.cumsum(chars)
    sums = tf.pad(tf.cumsum(char_sizes), [[1, 0]])
    sizes = tf.tensor_scatter_nd_update(
        sizes,
        long_points,
        tf.gather(sums, ends) - tf.gather(sums, ends - chars),
    )

    base = tf.logical_not(tf.gather(dropped_accent, index))
    count = tf.size(index)
    bases = tf.cast(tf.where(base)[:, 0], tf.int32)
    follow = tf.gather(
        tf.concat([bases, [count]], 0), tf.cumsum(tf.cast(base, tf.int32))
    )
    return (
        tf.tensor_scatter_nd_update(clean, rows, changed),
        Source(tf.cumsum(sizes), follow, tf.cast(points.row_splits, tf.int32)),
    )


def _spread_long_words(text):
    """`without_long_words` for texts (R,) that keeps track.

    -> the texts (R,), and the bytes (C,) that each of their characters became.
    """
    chars = tf.strings.unicode_split(text, "UTF-8")
    flat = chars.values
    end = tf.strings.regex_full_match(flat, _WORD_END)
    inside = tf.logical_not(
        tf.logical_or(end, tf.strings.regex_full_match(flat, r"[\s\p{Z}]"))
    )
    # Words are numbered by how many characters between words came before, and
    # no word goes on in the next text.
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
    """Changes the texts for which the condition holds, and only those."""
    rows = tf.where(condition)
    return tf.tensor_scatter_nd_update(
        text, rows, change(tf.gather_nd(text, rows))
    )
