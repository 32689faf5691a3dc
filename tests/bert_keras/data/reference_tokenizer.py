"""BERT's tokenization by its rules, one character at a time: slow and plain.

What the rules of Google's tokenization.py say, written down anew to compare
with. It uses Python's Unicode tables, which are of another version than those
of the TensorFlow ops; characters younger than either may differ.
"""

import unicodedata
from collections.abc import Sequence

_CHINESE_BLOCKS = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


class ReferenceTokenizer:
    """Text to ids and to words, for one vocabulary and casing."""

    def __init__(self, vocabulary: Sequence[str], *, lowercase: bool):
        self._ids = {piece: i for i, piece in enumerate(vocabulary)}
        self._lowercase = lowercase
        self._known_words = {}

    def __call__(self, text: str | bytes) -> list[int]:
        ids = []
        for word in self.words(text):
            if word not in self._known_words:
                self._known_words[word] = self._pieces(word)
            ids.extend(self._known_words[word])
        return ids

    def words(self, text: str | bytes) -> list[str]:
        if isinstance(text, bytes):
            text = text.decode("utf-8", "ignore")
        words = []
        for word in "".join(map(_clean, text)).split():
            if self._lowercase:
                word = _without_accents(word.lower())
            words += "".join(
                f" {c} " if is_punctuation(c) else c for c in word
            ).split()
        return words

    def _pieces(self, word: str) -> list[int]:
        """Always the longest piece that fits; one that fails fails the word."""
        unknown = [self._ids["[UNK]"]]
        if len(word) > 200:
            return unknown
        ids = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                index = self._ids.get(prefix + word[start:end])
                if index is not None:
                    break
            else:
                return unknown
            ids.append(index)
            start = end
        return ids


def is_punctuation(char: str) -> bool:
    """Unicode punctuation, and all of ASCII that is no letter, digit, space."""
    if char.isascii():
        return char.isprintable() and not char.isalnum() and char != " "
    return unicodedata.category(char).startswith("P")


def is_chinese(char: str) -> bool:
    """An ideograph in the blocks known when BERT was written."""
    return any(first <= ord(char) <= last for first, last in _CHINESE_BLOCKS)


def _clean(char: str) -> str:
    category = unicodedata.category(char)
    if char in "\t\n\r" or category == "Zs":
        return " "
    if char in "\0\ufffd" or category in ("Cc", "Cf"):
        return ""
    return f" {char} " if is_chinese(char) else char


def _without_accents(word: str) -> str:
    return "".join(
        c
        for c in unicodedata.normalize("NFD", word)
        if unicodedata.category(c) != "Mn"
    )
