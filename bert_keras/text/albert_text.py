"""Text normalisation of ALBERT, before SentencePiece, in the graph.

Quotation marks of two characters become one; for an uncased vocabulary text is
decomposed by NFKD, marks are dropped, and it is lower-cased (Lan et al. 2020,
as in Google's code). SentencePiece's model then does its own normalisation.
"""

import tensorflow as tf
import tensorflow_text as tf_text

from bert_keras.text import byte_pairs, text_cleaning

_QUOTES = "``|''"
_MARKS = r"\p{M}+"
_NUL = r"\x00+"  # ends the text for SentencePiece's op


def normalize(
    text: tf.Tensor, *, lowercase: bool, join_quotes: bool
) -> tf.Tensor:
    """Normalises text (B,); drops invalid UTF-8 and NUL."""
    text = tf.strings.unicode_transcode(
        text,
        "UTF-8",
        "UTF-8",
        errors="ignore",
        replace_control_characters=False,
    )
    text = tf.strings.regex_replace(text, _NUL, "")
    if join_quotes:
        text = tf.strings.regex_replace(text, _QUOTES, '"')
    return _without_accents(text) if lowercase else text


def _without_accents(text):
    # Marks are dropped before as well: NFKD sorts runs of them, which takes
    # the square of their number.
    text = tf.strings.regex_replace(text, _MARKS, "")
    text = tf_text.normalize_utf8(text, "NFKD")
    text = tf.strings.regex_replace(text, _MARKS, "")
    return tf.strings.lower(text, "utf-8")


def with_source(
    text: tf.Tensor, *, lowercase: bool, join_quotes: bool
) -> tuple[tf.Tensor, text_cleaning.Source, tf.RaggedTensor]:
    """Normalises text (B,); returns it, its Source and its code points."""
    clean = normalize(text, lowercase=lowercase, join_quotes=join_quotes)
    points = tf.strings.unicode_decode(text, "UTF-8", errors="ignore")
    distinct, index = tf.unique(points.values)
    characters = tf.strings.unicode_encode(distinct[:, tf.newaxis], "UTF-8")
    forms = tf.strings.regex_replace(characters, _NUL, "")
    forms = _without_accents(forms) if lowercase else forms
    sizes = tf.gather(tf.strings.length(forms), index)  # in bytes
    dropped = tf.gather(
        tf.logical_and(
            forms == "", tf.strings.regex_full_match(characters, _MARKS)
        ),
        index,
    )
    if join_quotes:
        second = tf.concat([[False], _quotes(points)[:-1]], 0)
        second = second[: tf.size(sizes)]
        sizes = tf.where(second, 0, sizes)
        dropped = tf.logical_or(dropped, second)
    return clean, text_cleaning.make_source(points, sizes, dropped), points


def _quotes(points: tf.RaggedTensor) -> tf.Tensor:
    """Returns where a quotation mark of two characters begins, (N,) bool."""
    flat, row = points.values, points.value_rowids()
    quote = tf.logical_or(flat == ord("`"), flat == ord("'"))
    pair = tf.logical_and(flat[:-1] == flat[1:], row[:-1] == row[1:])
    pair = tf.concat([pair, [False]], 0)[: tf.size(flat)]
    return byte_pairs.alternate(tf.logical_and(quote, pair))
