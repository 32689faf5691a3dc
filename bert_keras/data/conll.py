"""Files of tagged words, one word a line, as rows.

A line holds a word, possibly more columns, and its tag in the last one, with
TABs between or else blanks. A blank line ends a sentence, and so does a line
that begins with -DOCSTART-. All may be gzipped (`.gz`).
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bert_keras import errors
from bert_keras.data import corpus, entities

_HEAD = 1000  # sentences looked at to tell whether words are characters
_CHARACTERS = 0.9  # share of words of one character from which they are


class Sentence(NamedTuple):
    words: Sequence[str]
    tags: Sequence[str]


def read(path: str) -> Iterator[Sentence]:
    """The sentences of a file; a malformed line is an InputError."""
    words, tags = [], []
    for number, line in enumerate(corpus.lines(path), 1):
        try:
            text = line.decode().removesuffix("\r")
        except UnicodeDecodeError as error:
            problem = f"expected UTF-8 (byte at column {error.start + 1})"
            raise _malformed(path, number, problem) from None
        if not text.strip(" \t") or text.startswith("-DOCSTART-"):
            if words:
                yield Sentence(words, tags)
            words, tags = [], []
            continue
        fields = text.split("\t") if "\t" in text else text.split(" ")
        word, tag = fields[0], fields[-1].strip()
        if len(fields) < 2 or not word:
            problem = f"expected a word and a tag, found {text!r}"
            raise _malformed(path, number, problem)
        if not entities.is_tag(tag):
            problem = f"expected a tag such as O or B-PER, found {tag!r}"
            raise _malformed(path, number, problem)
        words.append(word)
        tags.append(tag)
    if words:
        yield Sentence(words, tags)


def rows(path: str) -> Iterator[dict[str, str]]:
    """{"text", "words", "tags"}: "EU acts", "0-2 3-7", "B-ORG O".

    `words` are places in the text, in code points. Words stand with a blank
    between them, or with none in a file whose words are characters (Chinese).
    """
    sentences = read(path)
    head = list(itertools.islice(sentences, _HEAD))
    if not head:
        raise errors.InputError(f"{path}: expected tagged words, found none.")
    sizes = [len(word) for sentence in head for word in sentence.words]
    blank = "" if sizes.count(1) > _CHARACTERS * len(sizes) else " "
    for words, tags in itertools.chain(head, sentences):
        yield row(words, tags, blank)


def row(
    words: Sequence[str], tags: Sequence[str], blank: str
) -> dict[str, str]:
    """Words and their tags, with `blank` between the words, as a row."""
    places, start = [], 0
    for word in words:
        places.append(f"{start}-{start + len(word)}")
        start += len(word) + len(blank)
    return {
        "text": blank.join(words),
        "words": " ".join(places),
        "tags": " ".join(tags),
    }


def places(words: str) -> list[tuple[int, int]]:
    """The `words` of a row, read: "0-2 3-7" -> [(0, 2), (3, 7)]."""
    pairs = (place.split("-") for place in words.split())
    return [(int(start), int(end)) for start, end in pairs]


def _malformed(path: str, line: int, problem: str) -> errors.InputError:
    return errors.InputError(f"{path}, line {line}: {problem}. Mend the line.")
