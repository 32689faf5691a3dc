"""Files of tagged words, one word a line, as rows.

A line holds a word, possibly more columns, and its tag in the last one, with
TABs between or else blanks; white space at its end is no column. Another
column of tags can be named. A first column that numbers the words (GermEval)
is skipped, and so are comments, lines that begin with "# " before a
sentence. A blank line ends a sentence, and so does a line that begins with
-DOCSTART-. All may be gzipped (`.gz`).
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bert_keras import errors
from bert_keras.data import entities, text_lines

LAST = -1  # the column of tags that is read where none is named
_HEAD = 1000  # sentences looked at to tell whether words are characters
_CHARACTERS = 0.9  # share of words of one character from which they are
_COMMENTS = ("# ", "#\t")


class Sentence(NamedTuple):
    words: Sequence[str]
    tags: Sequence[str]


class _Line(NamedTuple):
    number: int
    text: str
    columns: Sequence[str]


class Rows(Iterator[dict[str, str]]):
    """Rows of one file: {"text", "words", "tags"}, as `row` makes them.

    Words stand with a blank between them, or with none in a file whose words
    are characters (Chinese).
    """

    def __init__(self, path: str, tag_column: int = LAST):
        self.path, self.note = path, ""
        self._rows = self._read(path, tag_column)

    def __next__(self) -> dict[str, str]:
        return next(self._rows)

    def _read(self, path, tag_column):
        blocks, head = _blocks(path, tag_column)
        numbered = _are_numbered(head)
        self.note = _note(path, head, numbered, tag_column)
        sentences = (
            _sentence(path, block, numbered, tag_column)
            for block in itertools.chain(head, blocks)
        )
        head = list(itertools.islice(sentences, _HEAD))
        if not head:
            raise errors.InputError(
                f"{path}: expected tagged words, found none."
            )
        sizes = [len(word) for sentence in head for word in sentence.words]
        blank = "" if sizes.count(1) > _CHARACTERS * len(sizes) else " "
        for words, tags in itertools.chain(head, sentences):
            yield row(words, tags, blank)


def read(path: str, tag_column: int = LAST) -> Iterator[Sentence]:
    """The sentences of a file; a malformed line is an InputError.

    tag_column counts all columns of the file, from 0.
    """
    blocks, head = _blocks(path, tag_column)
    numbered = _are_numbered(head)
    for block in itertools.chain(head, blocks):
        yield _sentence(path, block, numbered, tag_column)


def rows(path: str, tag_column: int = LAST) -> Rows:
    """{"text", "words", "tags"}: "EU acts", "0-2 3-7", "B-ORG O".

    `words` are places in the text, in code points.
    """
    return Rows(path, tag_column)


def _blocks(path: str, tag_column: int):
    """The lines of each sentence, and the first ones beforehand."""
    blocks = _lines(path, tag_column)
    return blocks, list(itertools.islice(blocks, _HEAD))


def _lines(path: str, tag_column: int) -> Iterator[list[_Line]]:
    block: list[_Line] = []
    width = None
    for number, line in enumerate(text_lines.read(path), 1):
        try:
            text = text_lines.decode(line)
        except ValueError as problem:
            raise _malformed(path, number, str(problem)) from None
        if not text.strip(" \t") or text.startswith("-DOCSTART-"):
            if block:
                yield block
            block = []
            continue
        columns = _columns(text)
        place = tag_column if tag_column >= 0 else len(columns) - 1
        tagged = place < len(columns) and entities.is_tag(columns[place])
        if not (block or tagged) and text.startswith(_COMMENTS):
            continue
        if len(columns) < 2 or not columns[0] or place >= len(columns):
            problem = f"expected a word and a tag, found {text!r}"
            if tag_column >= 0 and len(columns) > 1:
                problem = (
                    f"expected a tag in column {tag_column}, counted from 0, "
                    f"found {len(columns)} columns"
                )
            raise _malformed(path, number, problem)
        width = width or len(columns)
        if len(columns) != width:
            problem = (
                f"expected {width} columns as in the lines before, found "
                f"{len(columns)} in {text!r}"
            )
            raise _malformed(path, number, problem)
        if not tagged:
            problem = (
                "expected a tag such as O or B-PER, whose type has no white "
                f"space, found {columns[place]!r}"
            )
            raise _malformed(path, number, problem)
        block.append(_Line(number, text, columns))
    if block:
        yield block


def _columns(text: str) -> list[str]:
    text = text.rstrip()
    if "\t" in text:
        first, *others = text.split("\t")
        return [first, *map(str.strip, others)]
    return list(filter(None, text.split(" ")))


def _are_numbered(head: Sequence[Sequence[_Line]]) -> bool:
    """Whether the first of three columns and more numbers the words."""
    return sum(map(len, head)) > 1 and all(
        len(line.columns) > 2 and line.columns[0] == str(number)
        for block in head
        for number, line in enumerate(block, 1)
    )


def _sentence(path, block, numbered, tag_column) -> Sentence:
    words, tags = [], []
    for place, line in enumerate(block, 1):
        if numbered and line.columns[0] != str(place):
            problem = (
                f"expected {place}, the number of the word, found "
                f"{line.columns[0]!r}"
            )
            raise _malformed(path, line.number, problem)
        if tag_column >= 0 and tag_column <= numbered:
            problem = f"column {tag_column} holds words; name one of tags"
            raise _malformed(path, line.number, problem)
        if not line.columns[numbered]:
            problem = f"expected a word and a tag, found {line.text!r}"
            raise _malformed(path, line.number, problem)
        words.append(line.columns[numbered])
        tags.append(entities.normal(line.columns[tag_column]))
    return Sentence(words, tags)


def _note(path, head, numbered, tag_column) -> str:
    """Which of several columns is read, where a person might want another."""
    if not head or tag_column >= 0:
        return ""
    width = len(head[0][0].columns)
    tagged = [
        column
        for column in range(1 + numbered, width)
        if all(
            entities.is_tag(line.columns[column])
            for block in head
            for line in block
        )
    ]
    if len(tagged) < 2:
        return ""
    others = ", ".join(map(str, tagged[:-1]))
    return (
        f"{path}: tags are read from the last column, {tagged[-1]} counted "
        f"from 0; column {others} holds tags as well and can be named by "
        "tag_column."
    )


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


def tags(tags: str) -> list[str]:
    """The `tags` of a row, read: "B-ORG O" -> ["B-ORG", "O"]."""
    return [entities.normal(tag) for tag in tags.split()]


def _malformed(path: str, line: int, problem: str) -> errors.InputError:
    return errors.InputError(f"{path}, line {line}: {problem}. Mend the line.")
