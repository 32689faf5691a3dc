"""Reads CoNLL files of tagged words, one word per line, as examples.

A line has a word, possibly more columns, and a tag in the column `tag_column`,
by default the last one. Columns are separated by TABs, or by spaces if the line
has no TAB; trailing white space is ignored. A first column that numbers the
words from 1 (GermEval) or from 0 is skipped, and so are comments: lines before
a sentence that start with "# ". A blank line ends a sentence, and so does a
line that starts with -DOCSTART-. Files may be compressed (`.gz`).
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bert_keras import errors
from bert_keras.data import tag_schemes, text_lines

LAST = -1  # the default `tag_column`
_SAMPLE_SIZE = 1000  # sentences from which a file's format is inferred
# Words are characters if more than this fraction of them has one character.
_MIN_CHARACTER_FRACTION = 0.9
_COMMENTS = ("# ", "#\t")  # how a comment starts
_KEY = re.compile(r"# *\w+ *= ")  # a CoNLL-U comment such as "# sent_id = 1"
# CoNLL-U's word ids: a number, a range (1-2), or an empty node (1.1).
_NUMBER = re.compile(r"\d+([-.]\d+)?", re.ASCII)
# If more than this fraction of lines starts with a word id, all must.
_MIN_NUMBERED_FRACTION = 0.9


class Sentence(NamedTuple):
    words: Sequence[str]
    tags: Sequence[str]


class _Line(NamedTuple):
    number: int
    text: str
    columns: Sequence[str]


class Examples(Iterator[dict[str, str]]):
    """Yields the examples of a file: {"text", "words", "tags"}, see `example`.

    In the text, words are separated by a blank, or by nothing if the words of
    the file are characters (Chinese).
    """

    def __init__(self, path: str, tag_column: int = LAST):
        self.path = path
        self._column_warning = ""
        self._num_hash_words = 0  # words "#" that may be meant as comments
        self._examples = self._read(path, tag_column)

    def __next__(self) -> dict[str, str]:
        return next(self._examples)

    @property
    def warning(self) -> str:
        """A message for the user on the rows read so far, or ""."""
        messages = [self._column_warning] if self._column_warning else []
        if self._num_hash_words:
            messages.append(
                f'{self.path}: {self._num_hash_words:,} lines begin with "# " '
                "but end in a tag and have as many columns as the others; they "
                "are read as words, not as comments."
            )
        return " ".join(messages)

    def _read(self, path, tag_column):
        blocks, head = _blocks(path, tag_column)
        first = _first_number(head)
        self._column_warning = _column_warning(
            path, head, first is not None, tag_column
        )

        def read_sentences():
            for block in itertools.chain(head, blocks):
                text = block[0].text
                if len(block[0].columns) > 2 and text.startswith(_COMMENTS):
                    self._num_hash_words += 1
                yield _sentence(path, block, first, tag_column)

        sentences = read_sentences()
        sample = list(itertools.islice(sentences, _SAMPLE_SIZE))
        if not sample:
            raise errors.InputError(
                f"{path}: expected tagged words, found none."
            )
        sizes = [len(word) for sentence in sample for word in sentence.words]
        blank = (
            "" if sizes.count(1) > _MIN_CHARACTER_FRACTION * len(sizes) else " "
        )
        for words, tags in itertools.chain(sample, sentences):
            yield example(words, tags, blank)


def read(path: str, tag_column: int = LAST) -> Iterator[Sentence]:
    """Yields the sentences of a file; InputError for a malformed line.

    tag_column: index from 0 among all columns of the file.
    """
    blocks, head = _blocks(path, tag_column)
    first = _first_number(head)
    for block in itertools.chain(head, blocks):
        yield _sentence(path, block, first, tag_column)


def examples(path: str, tag_column: int = LAST) -> Examples:
    """Returns the examples of a file as dicts of strings.

    {"text": "EU acts", "words": "0-2 3-7", "tags": "B-ORG O"}: `words` are
    offsets in the text, in code points.
    """
    return Examples(path, tag_column)


def _blocks(
    path: str, tag_column: int
) -> tuple[Iterator[list[_Line]], list[list[_Line]]]:
    """Returns an iterator of the sentences after the sample, and the sample."""
    blocks = _lines(path, tag_column)
    return blocks, list(itertools.islice(blocks, _SAMPLE_SIZE))


def _lines(path: str, tag_column: int) -> Iterator[list[_Line]]:
    block: list[_Line] = []
    lines = text_lines.read(path)
    peeked, width, has_tabs = _format(lines)
    for number, line in enumerate(itertools.chain(peeked, lines), 1):
        try:
            text = text_lines.decode(line)
        except ValueError as error:
            raise errors.InputError(
                f"{path}, line {number}: {error}. "
                f"{text_lines.how_to_convert(path)}"
            ) from None
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


def _format(lines: Iterator[bytes]) -> tuple[list[bytes], int, bool]:
    """Infers the file's format from its first line with a word.

    Returns (the lines up to it, its number of columns, whether it has TABs). If
    the file has comments only, the first comment counts as that line.
    """
    peeked, columns_and_tabs = [], None
    for line in lines:
        peeked.append(line)
        text = line.decode(errors="replace").removesuffix("\r")
        if not text.strip() or text.startswith("-DOCSTART-"):
            continue
        if columns_and_tabs is None or not text.startswith(_COMMENTS):
            columns_and_tabs = len(_columns(text)), "\t" in text
        if not text.startswith(_COMMENTS):
            break
    return peeked, *(columns_and_tabs or (0, False))


def _columns(text: str) -> list[str]:
    text = text.rstrip()
    if "\t" in text:
        word, *more = text.split("\t")
        return [word, *map(str.strip, more)]
    return list(filter(None, text.split(" ")))


def _first_number(head: Sequence[Sequence[_Line]]) -> int | None:
    """Returns the first word's number (0 or 1); None if words have no numbers.

    Words are numbered if there are at least three columns and the first one
    counts the words of most sentences, or holds a possible word number in
    nearly all lines; `_sentence` refuses the lines that do not fit.
    """
    if not head or len(head[0][0].columns) < 3:
        return None
    columns = [[line.columns[0] for line in block] for block in head]
    total = sum(map(len, columns))
    first_ids = [column[0] for column in columns]
    first = 0 if first_ids.count("0") > first_ids.count("1") else 1
    counted = sum(
        len(column)
        for column in columns
        if column == [str(first + index) for index in range(len(column))]
    )
    numeric = sum(bool(_NUMBER.fullmatch(n)) for each in columns for n in each)
    if total > 1 and (
        2 * counted > total or numeric > _MIN_NUMBERED_FRACTION * total
    ):
        return first
    return None


def _sentence(
    path: str, block: Sequence[_Line], first: int | None, tag_column: int
) -> Sentence:
    words, tags = [], []
    word_column = int(first is not None)
    for index, line in enumerate(block):
        if first is not None and line.columns[0] != str(first + index):
            problem = (
                f"expected {first + index}, the number of the word, found "
                f"{line.columns[0]!r}, as most lines of the file begin with "
                f"numbers from {first} (a file whose words are numbers needs "
                "two columns)"
            )
            if re.search("[-.]", line.columns[0]):
                problem += (
                    "; delete either the line of a range (1-2) or the lines of "
                    "its words"
                )
            raise _malformed(path, line.number, problem)
        if tag_column >= 0 and tag_column <= word_column:
            problem = f"column {tag_column} holds words; name a tag column"
            raise _malformed(path, line.number, problem)
        if not line.columns[word_column]:
            problem = f"expected a word and a tag, found {line.text!r}"
            raise _malformed(path, line.number, problem)
        words.append(line.columns[word_column])
        tags.append(tag_schemes.normal(line.columns[tag_column]))
    return Sentence(words, tags)


def _column_warning(
    path: str, head: Sequence[Sequence[_Line]], numbered: bool, tag_column: int
) -> str:
    """Returns a message if several columns have tags and none was chosen."""
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
    *other_columns, last_column = tagged
    return (
        f"{path}: tags are read from the last column, {last_column} counted "
        f"from 0; column {', '.join(map(str, other_columns))} also holds tags; "
        "select it with tag_column."
    )


def example(
    words: Sequence[str], tags: Sequence[str], blank: str
) -> dict[str, str]:
    """Returns the example of a sentence, with `blank` between its words."""
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
    """Parses the `words` of an example: "0-2 3-7" -> [(0, 2), (3, 7)]."""
    pairs = (span.split("-") for span in words.split())
    return [(int(start), int(end)) for start, end in pairs]


def tags(tags: str) -> list[str]:
    """Parses the `tags` of an example: "B-ORG O" -> ["B-ORG", "O"]."""
    return [tag_schemes.normal(tag) for tag in tags.split()]


def _malformed(path: str, line: int, problem: str) -> errors.InputError:
    return errors.InputError(f"{path}, line {line}: {problem}. Fix the line.")
