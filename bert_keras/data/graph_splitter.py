"""Splits texts into sentences in a TensorFlow graph, as a served model does.

It has the rules and lists of `sentence_splitter` as RE2 patterns, which have
no lookahead: a sequence of replacements sets and removes control characters,
which text does not have, where sentences end and where they do not.
"""

import tensorflow as tf

from bert_keras.data import labels
from bert_keras.data import sentence_splitter as splitter

# Sentences that the caller has split: each ends with this character, ASCII's
# record separator.
SEPARATOR = "\x1e"

# Texts lose these characters first.
_CLOSED = "\x1b"  # after a straight quote that closes
_DOUBTED = "\x1c"  # after a full stop that may be an abbreviation's
_BLOCKED = "\x1d"  # after a full stop that ends no sentence
_END = "\x1f"  # between two sentences
_CONTROLS = f"{_CLOSED}{_DOUBTED}{_BLOCKED}{_END}"

_SPACE = r"\s\pZ"
_CLOSING = f"[{splitter.CLOSING}{_CLOSED}]*"
_WIDE_CLOSING = f'(?:[」』”’）】》〉]|"{_CLOSED})*'
_BEFORE_WORD = rf"(^|[{_SPACE}—{_END}])([\"'“‘(\[\-]*)"
_NUMERAL = r"(?:\p{Nd}{1,8}|[IVXLC]{2,8}|[VXLC])"
_BEFORE_SENTENCE = f"[{splitter.OPENING}{_SPACE}]*"


def _any(words: frozenset[str]) -> str:
    return "|".join(sorted(words)).replace(".", r"\.")


def _spaced(lower_case: str) -> str:
    """Returns the pattern of an end before white space: (mark)(next)."""
    return (
        rf"([{splitter.MARKS}]+{_CLOSING}"
        rf"(?:[{_SPACE}](?:[”’»)\]}}]|\"{_CLOSED})+)*)"
        rf"([{_SPACE}]{_BEFORE_SENTENCE}[^{lower_case}{_SPACE}"
        rf"{splitter.OPENING}{splitter.CLOSING}{splitter.MARKS}{_CONTROLS},;:])"
    )


# Rules are (pattern, replacement), in their order.
_QUOTES = ((f'("[^"{_END}]*")', rf"\1{_CLOSED}"),)
_ABBREVIATIONS = (
    (
        rf"{_BEFORE_WORD}({_any(splitter.TITLES)})\.",
        rf"\1\2\3.{_BLOCKED}",
    ),
    (
        rf"{_BEFORE_WORD}({_any(splitter.BEFORE_NUMBERS)})\."
        rf"([{_SPACE}]+(?:\p{{Nd}}|(?:[IVXLC]{{2,}}|[VXLC])\b))",
        rf"\1\2\3.{_BLOCKED}\4",
    ),
    (
        rf"{_BEFORE_WORD}((?:\pL{{1,2}}\.-?)+\pL{{1,2}}|"
        rf"[\p{{Lu}}\p{{Lt}}\p{{Lo}}]|{_any(splitter.MAY_END)})\.",
        rf"\1\2\3.{_DOUBTED}",
    ),
    (
        rf"{_DOUBTED}({_CLOSING}[{_SPACE}]{_BEFORE_SENTENCE}"
        rf"(?:{splitter.STARTERS.replace(' ', '|')})[{_SPACE},’'])",
        r"\1",
    ),
)
_CASED = ((_spaced(splitter.LOWER_CASE), rf"\1{_END}\2"),)
_UNCASED = ((_spaced(""), rf"\1{_END}\2"),)
_HAN = f"[{splitter.HAN}]"
_MORE = f"[。！？；…．!?]*{_WIDE_CLOSING}"
_WIDE = (
    (f"((?:[。！？；｡]|……){_MORE})", rf"\1{_END}"),
    (f"([^0-9０-９{_END}]．{_MORE})", rf"\1{_END}"),
    # ASCII marks in Chinese; after a digit they are list numbers.
    (
        rf"([^{_SPACE}\p{{Nd}}.,:;!?][.!?;]{_MORE})({_HAN})",
        rf"\1{_END}\2",
    ),
    (f"({_HAN}[.!?;]{_MORE})([A-Z])", rf"\1{_END}\2"),
    (f"{_END}([{''.join(sorted(splitter.CONTINUES))}])", r"\1"),
)
# `1. List` is one sentence.
_LIST_NUMBERS = (
    (
        rf"((?:^|{_END})[{_SPACE}]*[\"'“‘(\[\-]*{_NUMERAL}\.){_END}",
        r"\1",
    ),
)


def split(text: tf.Tensor) -> tf.RaggedTensor:
    r"""Splits texts (T,) into sentences, ragged (T, None) strings.

    The sentences of a text with SEPARATOR are those that end with it; they may
    be empty. Those of other texts end as in `sentence_splitter`, in English,
    Chinese and both mixed, and at a blank line, and are not empty. White space
    around sentences is dropped. Invalid UTF-8 is replaced by U+FFFD.

      ["It is. He is.", "好。走。"]  [["It is.", "He is."], ["好。", "走。"]]
      ["It is. He is.\x1e\x1eNo\x1e"]  [["It is. He is.", "", "No"]]
    """
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8")
    text = tf.strings.regex_replace(text, f"[{_CONTROLS}]", " ")
    is_split = tf.strings.regex_full_match(text, f"(?s).*{SEPARATOR}.*")
    given = tf.strings.regex_replace(text, rf"{SEPARATOR}[{_SPACE}]*$", "")
    given = tf.strings.regex_replace(given, SEPARATOR, _END)
    text = tf.where(is_split, given, _marked(text))
    sentences = tf.strings.split(text, _END)
    flat = tf.strings.regex_replace(
        sentences.flat_values,
        f"[{_CONTROLS}]|^{labels.BLANK}|{labels.BLANK}$",
        "",
    )
    is_kept = (flat != "") | tf.gather(is_split, sentences.value_rowids())
    return tf.ragged.boolean_mask(
        sentences.with_flat_values(flat), sentences.with_flat_values(is_kept)
    )


def _marked(text: tf.Tensor) -> tf.Tensor:
    """Sets _END between the sentences of texts (T,)."""
    text = tf.strings.regex_replace(
        text, rf"(?:\r?\n|\x{{2029}})[{_SPACE}]*(?:\n|\x{{2029}})", _END
    )
    text = _replaced(text, _QUOTES + _ABBREVIATIONS)
    is_wide = tf.strings.regex_full_match(
        text, f"(?s).*{splitter.WIDE.pattern}.*"
    )
    is_cased = tf.strings.regex_full_match(text, r"(?s).*[\p{Lu}\p{Lt}].*")
    cased = _replaced(text, _CASED)
    wide = _replaced(cased, _WIDE)
    text = tf.where(is_cased, cased, _replaced(text, _UNCASED))
    return _replaced(tf.where(is_wide, wide, text), _LIST_NUMBERS)


def _replaced(text: tf.Tensor, rules: tuple[tuple[str, str], ...]) -> tf.Tensor:
    for pattern, replacement in rules:
        text = tf.strings.regex_replace(text, pattern, replacement)
    return text
