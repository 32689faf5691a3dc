"""Raw text in, documents out: each document a list of sentences.

What is held is one line and one document. The shape of a text file is told
from its first lines (`_HEAD`):

- *wrapped*: lines break where the next word has no room, mostly in
  mid-sentence (Project Gutenberg). They are joined up to a blank line; one
  blank line ends a paragraph, two end a document.
- *paragraphs*: a third of the characters or more stand in lines of several
  sentences. Lines are split; a blank one ends a document.
- *sentences*: anything else. Lines stay whole; a blank one ends a document.

Documents beyond `LONGEST` are cut at the end of a paragraph, so a book
without a blank line becomes several documents.
"""

import codecs
import gzip
import itertools
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence

import tensorflow as tf

from bert_keras import errors

LONGEST = 100_000  # characters; some 20,000 English tokens

_HEAD = 1000  # lines looked at to tell the shape of a file
_CHUNK = 1 << 20  # bytes read at a time


def files(patterns: Sequence[str]) -> list[str]:
    """Files, folders and globs -> the files, each once, in the order given.

    Folders are walked to the bottom, in sorted order; names that begin with
    "." or "_" (`.DS_Store`, `_SUCCESS`) are passed over there.
    """
    found: dict[str, None] = {}
    for pattern in patterns or [""]:
        if pattern and tf.io.gfile.isdir(pattern):
            matches = (
                tf.io.gfile.join(folder, name)
                for folder, _, names in tf.io.gfile.walk(pattern)
                for name in names
                if not name.startswith((".", "_"))
            )
        elif pattern and tf.io.gfile.exists(pattern):
            matches = [pattern]
        else:
            matches = tf.io.gfile.glob(pattern) if pattern else []
            matches = (m for m in matches if not tf.io.gfile.isdir(m))
        matches = sorted(matches)
        if not matches:
            raise errors.InputError(
                "Expected files, a folder with files or a glob; there are "
                f"none at {pattern!r}."
            )
        found.update(dict.fromkeys(matches))
    return list(found)


def documents(
    paths: Iterable[str], *, text_field: str = "text"
) -> Iterator[list[str]]:
    """Documents of all files, in order; told apart by name.

    `.jsonl` and `.json` hold one JSON object a line whose `text_field` is a
    document: a string, or a list of strings, its sentences. Anything else is
    text. Both may be gzipped (`.gz`).
    """
    path, empty = "no file", True
    for path in paths:
        if path.removesuffix(".gz").endswith((".jsonl", ".json")):
            paragraphs = _json_paragraphs(path, text_field)
        else:
            paragraphs = _text_paragraphs(path)
        for document in _join(paragraphs):
            empty = False
            yield document
    if empty:
        raise errors.InputError(
            f"expected text, found none; {path} and all before it are empty."
        )


def lines(path: str) -> Iterator[bytes]:
    """Lines of a file, without newline, byte-order mark or gzip."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            stream = file
            if path.endswith(".gz"):
                stream = gzip.GzipFile(fileobj=file)
            rest = stream.read(_CHUNK).removeprefix(codecs.BOM_UTF8)
            while chunk := stream.read(_CHUNK):
                whole, newline, tail = chunk.rpartition(b"\n")
                if newline:
                    yield from (rest + whole).split(b"\n")
                    rest = tail
                else:
                    rest += tail
            if rest:
                yield from rest.removesuffix(b"\n").split(b"\n")
    except (tf.errors.OpError, EOFError, OSError, zlib.error) as error:
        reason = getattr(error, "message", None) or error
        raise errors.InputError(f"{path} cannot be read: {reason}") from error


def split_sentences(text: str) -> list[str]:
    """One paragraph, English, Chinese or mixed -> its sentences.

    Nothing but white space at the cuts is lost. A mark ends a sentence
    together with the quotes and brackets that close behind it. Before a small
    letter there is no cut (`"Why?" he said`), unless all letters are small.
    """
    ends = _UNCASED_END if text.islower() else _END
    if _WIDE.search(text):
        ends = _MIXED_END
    sentences = []
    start = 0
    for match in ends.finditer(text):
        end = match.end()
        if end == len(text):
            break
        begin, mark = match.start(), match[1]
        if mark is None and text[end] in _GOES_ON:
            continue
        if mark == "." and _abbreviates(text, start, begin, end):
            continue
        # An open straight quote closes here: `好．"他`, `. " He` (tokens).
        if text[end] == '"' and text.count('"', start, end) % 2:
            end += mark is None or text[end + 1 : end + 2].isspace()
        if sentence := text[start:end].strip():
            sentences.append(sentence)
        start = end
    if sentence := text[start:].strip():
        sentences.append(sentence)
    return sentences


# Sentence ends. Patterns only propose; `_abbreviates` has the last word.

_OPENING = r"\"'“‘«‹(\[{¿¡「『（【《〈—–\-"
_CLOSING = r"\"'”’»›)\]}"
_MARKS = ".!?…‽؟۔।॥"
_HAN = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_GOES_ON = frozenset("，、：；。！？,:;—～~的")  # 《走吧！》的, “好！”，

_WIDE = re.compile(f"[{_HAN}\u3000-\u303f\uff00-\uffef]")


def _spaced_end(small: str) -> str:
    """Mark, closing quotes, spaces, and then something that may begin."""
    return (
        # Only the first of several marks begins a match, and one space ends
        # it: otherwise long runs of dots or spaces take quadratic time.
        rf"([{_MARKS}](?<![{_MARKS}]{{2}})[{_MARKS}]*)"
        rf"[{_CLOSING}]*(?:\s[”’»)\]}}]+(?=\s))*\s"
        rf"(?=[{_OPENING}\s]*[^{small}\s{_OPENING}{_CLOSING}{_MARKS},;:])"
    )


_UNCASED_END = re.compile(_spaced_end(""))
_END = re.compile(_spaced_end("a-zß-öø-ÿа-яα-ω"))
_MIXED_END = re.compile(
    # The first alternative has no group: its mark is None.
    r"(?:[。！？；｡]|……|(?<![0-9０-９])．"
    # ASCII marks in Chinese; after a digit they are list numbers.
    rf"|(?<![\s\d.,;:!?])[.!?;](?=[{_HAN}])|(?<=[{_HAN}])[.!?;](?=[A-Z]))"
    rf"[。！？；…．!?]*[」』”’）】》〉]*|{_END.pattern}"
)

_TITLES = frozenset(
    "Mr Mrs Ms Dr Prof Rev Hon Gen Maj Capt Lt Lieut Sgt Cpl Pvt Adm Cmdr Gov "
    "Sen Rep Pres Supt Messrs Mme Mmes Mlle MM mr mrs ms dr prof messrs mme "
    "e.g i.e E.g I.e eg ie cf Cf viz vs approx ca incl".split()
)
_BEFORE_NUMBERS = frozenset(
    "No Nos Fig Figs Eq Eqs Sec Vol Vols Ch Chap Art p pp no nos fig figs eq "
    "sec vol vols ch chap art Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov "
    "Dec".split()
)
_MAY_END = frozenset(
    "St Ste Mt Ft Col Sr Jr Esq Inc Ltd Co Corp Bros etc al Ave Blvd Rd Univ "
    "Dept Assn Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec".split()
)
_INITIALS = re.compile(r"[^\W\d_a-z]|(?:[^\W\d_]{1,2}\.-?)+[^\W\d_]{1,2}")
_NUMBER = re.compile(r"\s*(?:\d+|(?!I\b)[IVXLC]+\b)")  # "No. I do not."
_STARTERS = (
    "The A An In On At It He She We They You I This That These Those There "
    "Then When While If But And Or So As For From By To Of With After Before "
    "However Although Though His Her Its My Our Their Your What Who Why How "
    "Where Which One Some Many Most All No Not Now Such Here Since Because "
    "During Both Each Once Yes"
)
_BEGINS = re.compile(
    rf"[{_OPENING}\s]*(?:{_STARTERS.replace(' ', '|')})(?=[\s,’'])"
)
_BEFORE_WORD = "\"'“‘([-"


def _abbreviates(text: str, start: int, dot: int, end: int) -> bool:
    """Whether the full stop at `dot` belongs to its word, not the sentence."""
    begin = max(start, text.rfind(" ", start, dot) + 1)
    word = text[begin:dot].rpartition("—")[2].lstrip(_BEFORE_WORD)
    if len(word) > 8:
        return False
    if word in _TITLES:
        return True
    if word in _BEFORE_NUMBERS and _NUMBER.match(text, end):
        return True
    if word in _MAY_END or _INITIALS.fullmatch(word):
        return not _BEGINS.match(text, end)
    return begin == start and _NUMBER.fullmatch(word) is not None  # 1. List


# From lines to documents. A paragraph is its sentences; an empty one stands
# for the end of a document.


def _join(paragraphs: Iterable[list[str]]) -> Iterator[list[str]]:
    document: list[str] = []
    length = 0
    for sentences in paragraphs:
        document += sentences
        length += sum(map(len, sentences))
        if document and (not sentences or length > LONGEST):
            yield document
            document, length = [], 0
    if document:
        yield document


def _text_paragraphs(path: str) -> Iterator[list[str]]:
    rows = (_decode(line, path, i) for i, line in enumerate(lines(path), 1))
    head = list(itertools.islice(rows, _HEAD))
    rows = itertools.chain(head, rows)
    if _wrapped(head):
        before = ""
        for paragraph in _unwrap(rows):
            if paragraph or not before:
                yield split_sentences(paragraph)
            before = paragraph
    elif _holds_paragraphs(head):
        yield from map(split_sentences, rows)
    else:
        yield from ([row] if row else [] for row in map(str.strip, rows))


def _json_paragraphs(path: str, text_field: str) -> Iterator[list[str]]:
    for number, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(_decode(line, path, number))
        except json.JSONDecodeError:
            row = None
        text = row.get(text_field) if isinstance(row, dict) else None
        if isinstance(text, str):
            rows = text.splitlines()
            paragraphs = _unwrap(rows) if _wrapped(rows[:_HEAD]) else rows
            yield from filter(None, map(split_sentences, paragraphs))
        elif isinstance(text, list) and all(isinstance(s, str) for s in text):
            yield from ([s] for s in (" ".join(s.split()) for s in text) if s)
        else:
            found = f"fields {list(row)}" if isinstance(row, dict) else "none"
            raise errors.InputError(
                f"{path}, line {number}: expected one JSON object a line whose "
                f"{text_field!r} is a string or a list of strings, found "
                f"{found}. Name the field that holds the text."
            )
        yield []


def _wrapped(rows: Sequence[str]) -> bool:
    """Whether lines break for want of room."""
    rows = [row.strip() for row in rows]
    pairs = [(a, b) for a, b in itertools.pairwise(rows) if a and b]
    widths = sorted(len(a) for a, _ in pairs)
    if not widths:
        return False
    width = widths[len(widths) * 9 // 10]  # not the longest: links stick out
    full = sum(len(a) + len(_FIRST_WORD.match(b)[0]) >= width for a, b in pairs)
    open_ended = sum(a[-1] not in _ENDING for a, _ in pairs)
    # Narrower columns are verse. Two thirds leaves room for headings.
    return 30 <= width <= 200 and min(full, open_ended) * 3 > len(pairs) * 2


_FIRST_WORD = re.compile(rf"{_WIDE.pattern}{{1,2}}|\S+")
_ENDING = frozenset(_MARKS + "。！？；｡．" + "\"'”’»)」』）")


def _unwrap(rows: Iterable[str]) -> Iterator[str]:
    """Joins lines up to a blank one; blank ones come out as they are."""
    for filled, group in itertools.groupby(map(str.strip, rows), bool):
        # A thousand lines at a time, or a file without a blank line is held.
        while part := list(itertools.islice(group, _HEAD if filled else 1)):
            yield _TIGHT.sub("", "\n".join(part)).replace("\n", " ")


# Line breaks that stand for no space: in Chinese, after a hyphen or a dash.
_TIGHT = re.compile(
    rf"(?<={_WIDE.pattern})\n|\n(?={_WIDE.pattern})|(?<=\w[-—])\n"
)


def _holds_paragraphs(rows: Sequence[str]) -> bool:
    several = sum(len(row) for row in rows if len(split_sentences(row)) > 1)
    return several * 3 >= sum(map(len, rows)) > 0


def _decode(line: bytes, path: str, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise errors.InputError(
            f"{path}, line {number}: expected UTF-8, found byte "
            f"0x{line[error.start]:02x} at column {error.start + 1}. Convert "
            "the file, for example with iconv -t UTF-8."
        ) from error
