"""Files of tagged words, one word a line, as rows.

A line holds a word, possibly more columns, and its tag in the last one, with
TABs between or else blanks; white space at its end is no column. Another
column of tags can be named. A first column that numbers the words from 1
(GermEval) or from 0 is skipped, and so are comments, lines that begin with "# "
before a sentence. A line of white space alone ends a sentence, and so does one
that begins with -DOCSTART-. All may be gzipped (`.gz`).
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bert_keras import errors
from bert_keras.data import tag_schemes, text_lines

LAST = -1  # the column of tags that is read where none is named
_HEAD = 1000  # sentences looked at to tell whether words are characters
_CHARACTERS = 0.9  # share of words of one character from which they are
_COMMENTS = ("# ", "#\t")
_KEY = re.compile(r"# *\w+ *= ")  # of a comment, as CoNLL-U writes it
# What CoNLL-U puts before a word: its number, a range, an empty node's number.
_NUMBER = re.compile(r"\d+([-.]\d+)?", re.ASCII)
_NUMBERED = 0.9  # share of lines that begin with one from which all have to


class Sentence(NamedTuple):
    words: Sequence[str]
    tags: Sequence[str]


class _Line(NamedTuple):
    number: int
    text: str
    columns: Sequence[str]


class Examples(Iterator[dict[str, str]]):
    """Examples of one file: {"text", "words", "tags"}, see `example`.

    Words stand with a blank between them, or with none in a file whose words
    are characters (Chinese).
    """

    def __init__(self, path: str, tag_column: int = LAST):
        self.path = path
        self._columns_note = ""
        self._hashes = 0  # words `#` that may have been meant as comments
        self._examples = self._read(path, tag_column)

    def __next__(self) -> dict[str, str]:
        return next(self._examples)

    @property
    def note(self) -> str:
        """What a person should know of the rows read so far, or ""."""
        notes = [self._columns_note] * bool(self._columns_note)
        if self._hashes:
            notes.append(
                f'{self.path}: {self._hashes:,} lines that begin with "# " '
                "end in a tag and have as many columns as other words; they "
                "are read as words, not as comments."
            )
        return " ".join(notes)

    def _read(self, path, tag_column):
        blocks, head = _blocks(path, tag_column)
        first = _first_number(head)
        self._columns_note = _note(path, head, first is not None, tag_column)

        def read_sentences():
            for block in itertools.chain(head, blocks):
                text = block[0].text
                self._hashes += len(block[0].columns) > 2 and text.startswith(
                    _COMMENTS
                )
                yield _sentence(path, block, first, tag_column)

        sentences = read_sentences()
        sample = list(itertools.islice(sentences, _HEAD))
        if not sample:
            raise errors.InputError(
                f"{path}: expected tagged words, found none."
            )
        sizes = [len(word) for sentence in sample for word in sentence.words]
        blank = "" if sizes.count(1) > _CHARACTERS * len(sizes) else " "
        for words, tags in itertools.chain(sample, sentences):
            yield example(words, tags, blank)


def read(path: str, tag_column: int = LAST) -> Iterator[Sentence]:
    """The sentences of a file; a malformed line is an InputError.

    tag_column counts all columns of the file, from 0.
    """
    blocks, head = _blocks(path, tag_column)
    first = _first_number(head)
    for block in itertools.chain(head, blocks):
        yield _sentence(path, block, first, tag_column)


def examples(path: str, tag_column: int = LAST) -> Examples:
    """{"text", "words", "tags"}: "EU acts", "0-2 3-7", "B-ORG O".

    `words` are offsets in the text, in code points.
    """
    return Examples(path, tag_column)


def _blocks(
    path: str, tag_column: int
) -> tuple[Iterator[list[_Line]], list[list[_Line]]]:
    """The lines of each sentence, and the first ones beforehand."""
    blocks = _lines(path, tag_column)
    return blocks, list(itertools.islice(blocks, _HEAD))


def _lines(path: str, tag_column: int) -> Iterator[list[_Line]]:
    block: list[_Line] = []
    lines = text_lines.read(path)
    begin, width, has_tabs = _shape(lines)
    for number, line in enumerate(itertools.chain(begin, lines), 1):
        try:
            text = text_lines.decode(line)
        except ValueError as error:
            raise _malformed(path, number, str(error)) from None
        if not text.strip() or text.startswith("-DOCSTART-"):
            if block:
                yield block
            block = []
            continue
        columns = _columns(text)
        tag_index = tag_column if tag_column >= 0 else len(columns) - 1
        tagged = tag_index < len(columns) and tag_schemes.is_tag(
            columns[tag_index]
        )
        if not block and text.startswith(_COMMENTS):
            like_others = (len(columns), "\t" in text) == (width, has_tabs)
            if not tagged or not like_others or _KEY.match(text):
                continue
        if len(columns) < 2 or not columns[0] or tag_index >= len(columns):
            problem = f"expected a word and a tag, found {text!r}"
            if tag_column >= 0 and len(columns) > 1:
                problem = (
                    f"expected a tag in column {tag_column}, counted from 0, "
                    f"found {len(columns)} columns"
                )
            raise _malformed(path, number, problem)
        if len(columns) != width:
            problem = (
                f"expected {width} columns as in the lines before, found "
                f"{len(columns)} in {text!r}"
            )
            raise _malformed(path, number, problem)
        if not tagged:
            problem = (
                "expected a tag such as O or B-PER, whose type has no white "
                f"space, found {columns[tag_index]!r}"
            )
            raise _malformed(path, number, problem)
        block.append(_Line(number, text, columns))
    if block:
        yield block


def _shape(lines: Iterator[bytes]) -> tuple[list[bytes], int, bool]:
    """The lines up to the first of a word, its columns, whether it has TABs.

    In a file of comments alone these are the first comment's.
    """
    begin, shape = [], None
    for line in lines:
        begin.append(line)
        text = line.decode(errors="replace").removesuffix("\r")
        if not text.strip() or text.startswith("-DOCSTART-"):
            continue
        if shape is None or not text.startswith(_COMMENTS):
            shape = len(_columns(text)), "\t" in text
        if not text.startswith(_COMMENTS):
            break
    return begin, *(shape or (0, False))


def _columns(text: str) -> list[str]:
    text = text.rstrip()
    if "\t" in text:
        first, *others = text.split("\t")
        return [first, *map(str.strip, others)]
    return list(filter(None, text.split(" ")))


def _first_number(head: Sequence[Sequence[_Line]]) -> int | None:
    """The number of the first word of a sentence, or None without numbers.

    Words are numbered where there are three columns and more and in most
    sentences the first counts them, or where nearly all lines begin with what
    could be a number; `_sentence` refuses the lines that do not fit.
    """
    if not head or len(head[0][0].columns) < 3:
        return None
    columns = [[line.columns[0] for line in block] for block in head]
    total = sum(map(len, columns))
    begins = [column[0] for column in columns]
    first = 0 if begins.count("0") > begins.count("1") else 1
    counted = sum(
        len(column)
        for column in columns
        if column == [str(first + index) for index in range(len(column))]
    )
    alike = sum(bool(_NUMBER.fullmatch(n)) for each in columns for n in each)
    if total > 1 and (2 * counted > total or alike > _NUMBERED * total):
        return first
    return None


def _sentence(
    path: str, block: Sequence[_Line], first: int | None, tag_column: int
) -> Sentence:
    words, tags = [], []
    numbered = first is not None
    for index, line in enumerate(block):
        if first is not None and line.columns[0] != str(first + index):
            problem = (
                f"expected {first + index}, the number of the word, found "
                f"{line.columns[0]!r}, as most lines of the file begin with "
                f"numbers from {first} (a file whose words are numbers needs "
                "two columns)"
            )
            if re.search("[-.]", line.columns[0]):
                problem += "; of a range (1-2), keep either it or its words"
            raise _malformed(path, line.number, problem)
        if tag_column >= 0 and tag_column <= numbered:
            problem = f"column {tag_column} holds words; name one of tags"
            raise _malformed(path, line.number, problem)
        if not line.columns[numbered]:
            problem = f"expected a word and a tag, found {line.text!r}"
            raise _malformed(path, line.number, problem)
        words.append(line.columns[numbered])
        tags.append(tag_schemes.normal(line.columns[tag_column]))
    return Sentence(words, tags)


def _note(
    path: str, head: Sequence[Sequence[_Line]], numbered: bool, tag_column: int
) -> str:
    """Which of several columns is read, where a person might want another."""
    if not head or tag_column >= 0:
        return ""
    width = len(head[0][0].columns)
    tagged = [
        column
        for column in range(1 + numbered, width)
        if all(
            tag_schemes.is_tag(line.columns[column])
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


def example(
    words: Sequence[str], tags: Sequence[str], blank: str
) -> dict[str, str]:
    """Words and their tags, with `blank` between the words, as a row."""
    offsets, start = [], 0
    for word in words:
        offsets.append(f"{start}-{start + len(word)}")
        start += len(word) + len(blank)
    return {
        "text": blank.join(words),
        "words": " ".join(offsets),
        "tags": " ".join(tags),
    }


def word_offsets(words: str) -> list[tuple[int, int]]:
    """The `words` of an example, read: "0-2 3-7" -> [(0, 2), (3, 7)]."""
    pairs = (span.split("-") for span in words.split())
    return [(int(start), int(end)) for start, end in pairs]


def tags(tags: str) -> list[str]:
    """The `tags` of an example, read: "B-ORG O" -> ["B-ORG", "O"]."""
    return [tag_schemes.normal(tag) for tag in tags.split()]


def _malformed(path: str, line: int, problem: str) -> errors.InputError:
    return errors.InputError(f"{path}, line {line}: {problem}. Fix the line.")
