"""Reads raw text files as documents, each a list of sentences.

`scan` finds the byte offsets of each document and `read` reads it from there,
so any process on any machine can read any part. Only one document is in memory.
The layout of a text file is inferred from its first `_HEAD_LINES` lines:

- *wrapped*: lines are hard-wrapped, mostly in mid-sentence (Project
  Gutenberg). They are joined up to a blank line; one blank line ends a
  paragraph, two end a document.
- *paragraphs*: at least a third of the characters are in lines of several
  sentences. Lines are split into sentences; a blank line ends a document.
- *sentences*: anything else. A line is a sentence; a blank line ends a
  document.

Documents longer than `MAX_DOCUMENT_LENGTH` are split at the end of a paragraph,
so a book without a blank line becomes several documents.
"""

import codecs
import contextlib
import gzip
import hashlib
import itertools
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeGuard

import tensorflow as tf
import zstandard

from bert_keras import errors
from bert_keras import files as files_lib
from bert_keras.data import json_lines, parquet, sentence_splitter

MAX_DOCUMENT_LENGTH = 100_000  # characters; some 20,000 English tokens

_HEAD_LINES = 1000  # lines from which the layout of a file is inferred
_READ_BYTES = 1 << 20  # bytes read at a time
_COMPRESSED = (".gz", ".zst")
_TABLES = (".csv", ".tsv")


class Document(NamedTuple):
    """A document's location: bytes start to stop of the decompressed file."""

    path: str
    layout: str  # wrapped, paragraphs, sentences, json or parquet
    line: int  # number of the first line, or of the row, from 1
    start: int  # in Parquet, of rows
    stop: int
    digest: int  # 64-bit hash of its text
    size: int  # bytes of its text in UTF-8, the same in every format


class Position:
    """The number of bytes read so far, as stored on disk (compressed)."""

    bytes = 0


def files(patterns: Sequence[str]) -> list[str]:
    """Expands files, folders and globs to files, each once, in this order.

    Folders are walked recursively, in sorted order; files and folders in them
    whose names start with "." or "_" (`.git`, `.DS_Store`, `_SUCCESS`,
    `_temporary`) are skipped. Symbolic links to folders are followed, except to
    a folder that contains the link. A file with several paths is listed under
    the first one.
    """
    by_real_path: dict[str, str] = {}
    for pattern in patterns or [""]:
        if pattern and tf.io.gfile.isdir(pattern):
            matches = _walk(pattern)
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
        for match in matches:
            by_real_path.setdefault(_real_path(match), match)
    return list(by_real_path.values())


def _walk(folder: str) -> Iterator[str]:
    """Yields the files below a folder, following links but not in cycles.

    Skips hidden files and files in hidden folders.
    """
    local_folder = files_lib.local_path(folder)
    if local_folder is None:  # A remote file system, which has no links.
        for parent, _, names in tf.io.gfile.walk(folder):
            folders_below = parent[len(folder) :].split("/")
            if not any(map(_is_hidden, folders_below)):
                yield from (
                    tf.io.gfile.join(parent, name)
                    for name in names
                    if not _is_hidden(name)
                )
        return
    walked: set[str] = set()
    for parent, folders, names in os.walk(
        local_folder, followlinks=True, onerror=_raise_input_error
    ):
        real = os.path.realpath(parent)
        if real in walked:
            folders.clear()
            continue
        walked.add(real)
        yield from (
            os.path.join(parent, name) for name in names if not _is_hidden(name)
        )
        paths = {
            name: os.path.join(parent, name)
            for name in folders
            if not _is_hidden(name)
        }
        # Links last, so that a file is listed under its real path if possible.
        folders[:] = sorted(
            (name for name in paths if not _contains(paths[name], parent)),
            key=lambda name: (os.path.islink(paths[name]), name),
        )


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _raise_input_error(error: OSError) -> None:
    raise errors.InputError(
        f"{error.filename} cannot be read: {error.strerror}."
    ) from error


def _contains(folder: str, path: str) -> bool:
    """Returns whether `path` is in `folder` or equal to it, resolving links."""
    real = os.path.realpath(folder)
    return os.path.commonpath([real, os.path.realpath(path)]) == real


def _real_path(path: str) -> str:
    local_path = files_lib.local_path(path)
    return path if local_path is None else os.path.realpath(local_path)


def documents(
    paths: Iterable[str],
    *,
    text_field: str = "text",
    position: Position | None = None,
) -> Iterator[list[str]]:
    """Yields the sentences of every document of all files, in order."""
    scanned = scan(paths, text_field=text_field, position=position)
    yield from read(scanned, text_field=text_field)


def scan(
    paths: Iterable[str],
    *,
    text_field: str = "text",
    position: Position | None = None,
) -> Iterator[Document]:
    """Yields the locations of the documents of all files, in order.

    `.jsonl`, `.ndjson` and `.json` files have one JSON object per line, whose
    `text_field` is a document: a string, or a list of strings, its sentences.
    So has each row of a `.parquet` file. Other files are plain text. All but
    Parquet may be compressed (`.gz`, `.zst`). Raises InputError for a table
    (`.csv`, `.tsv`), for a malformed line, and if there is no document at all.
    """
    path, is_empty = "no file", True
    for path in paths:
        if _uncompressed_name(path).endswith(_TABLES) and any(
            map(bytes.strip, lines(path))
        ):
            raise errors.InputError(
                f"{path}: expected text or JSON lines, found a table, whose "
                "quotes and labels would be text. Write its texts as .txt, or "
                "its rows as .jsonl and name their field in `text_field`."
            )
        if is_json(path):
            scanned = _scan_json(path, text_field, position)
        elif path.lower().endswith(parquet.SUFFIX):
            scanned = _scan_parquet(path, text_field, position)
        else:
            scanned = _scan_text(path, position)
        for document in scanned:
            is_empty = False
            yield document
    if is_empty:
        raise errors.InputError(
            f"expected text, found none; {path} and all before it are empty."
        )


def read(
    documents: Iterable[Document], *, text_field: str = "text"
) -> Iterator[list[str]]:
    """Yields the sentences of documents from `scan`; a long one in parts.

    Documents of one file should be in order: compressed files can only be read
    from their beginning.
    """
    for path, group in itertools.groupby(
        documents, lambda document: document.path
    ):
        if path.lower().endswith(parquet.SUFFIX):
            indices = (document.start for document in group)
            for field in parquet.values(path, text_field, indices):
                yield from _join(_paragraphs_of_field(field))
            continue
        with _decompressed(path) as stream:
            for document in group:
                stream.seek(document.start)
                text = stream.read(document.stop - document.start).decode()
                yield from _join(_paragraphs(document, text, text_field))


def texts(path: str) -> Iterator[tuple[int, str]]:
    """Yields (number from 1, text) of the lines of a file.

    Raises InputError if a line is not UTF-8.
    """
    for number, line in enumerate(lines(path), 1):
        yield number, _decode(line, path, number)


def lines(path: str, *, any_line_end: bool = False) -> Iterator[bytes]:
    """Yields the decompressed lines of a file, without newline and BOM.

    Raises InputError for UTF-16 and UTF-32, and for a file whose lines end in
    CR alone, unless `any_line_end`.
    """
    for _, line in _lines(path, any_line_end=any_line_end):
        yield line


def is_json(path: str) -> bool:
    """Returns whether a file of this name contains JSON lines."""
    return _uncompressed_name(path).endswith((".jsonl", ".ndjson", ".json"))


def _lines(
    path: str,
    position: Position | None = None,
    *,
    any_line_end: bool = False,
) -> Iterator[tuple[int, bytes]]:
    """Yields (offset in the decompressed file, line); errors as in `lines`."""
    lines_read = _split(path, position)
    head = list(itertools.islice(lines_read, 2))
    if head:
        first = head[0][1]
        if encoding := _encoding(first):
            raise errors.InputError(
                f"{path}: expected UTF-8, found {encoding}. Convert the file, "
                f"for example with iconv -f {encoding} -t UTF-8."
            )
        if not any_line_end and len(head) == 1 and b"\r" in first.rstrip(b"\r"):
            raise errors.InputError(
                f"{path}: expected lines that end in LF or CR LF, found CR "
                "alone, as on old Macs. Convert the file, for example with "
                "tr '\\r' '\\n'."
            )
    yield from itertools.chain(head, lines_read)


def _split(path: str, position: Position | None) -> Iterator[tuple[int, bytes]]:
    """Yields (offset, line) without checking the file's encoding."""
    with _decompressed(path, position) as stream:
        first_bytes = stream.read(_READ_BYTES)
        has_mark = first_bytes.startswith(codecs.BOM_UTF8)
        begin = len(codecs.BOM_UTF8) if has_mark else 0
        # Join the parts of a line that is longer than one read once, at its
        # end: appending read by read would copy it in quadratic time.
        parts = [first_bytes[begin:]]
        while data := stream.read(_READ_BYTES):
            complete_lines, newline, tail = data.rpartition(b"\n")
            if not newline:
                parts.append(tail)
                continue
            parts.append(complete_lines)
            for line in b"".join(parts).split(b"\n"):
                yield begin, line
                begin += len(line) + 1
            parts = [tail]
        rest = b"".join(parts)
        for line in rest.removesuffix(b"\n").split(b"\n") if rest else ():
            yield begin, line
            begin += len(line) + 1


class _decompressed:  # noqa: N801 (used as: with _decompressed(path))
    """A decompressed file; errors become InputErrors that name the file."""

    def __init__(self, path: str, position: Position | None = None):
        self.path, self.position = path, position

    def __enter__(self) -> "_decompressed":
        self.raw = tf.io.gfile.GFile(self.path, "rb")
        self.stream = self.raw
        if self.path.lower().endswith(".gz"):
            self.stream = gzip.GzipFile(fileobj=self.raw)
        elif self.path.lower().endswith(".zst"):
            self.stream = zstandard.ZstdDecompressor().stream_reader(
                self.raw, read_across_frames=True
            )
        self.bytes_before = self.position.bytes if self.position else 0
        return self

    def __exit__(self, *error: object) -> None:
        self.raw.close()

    def read(self, count: int) -> bytes:
        with self._errors_with_path():
            data = self.stream.read(count)
            if self.position:
                self.position.bytes = self.bytes_before + self.raw.tell()
            return data

    def seek(self, offset: int) -> None:
        with self._errors_with_path():
            self.stream.seek(offset)

    @contextlib.contextmanager
    def _errors_with_path(self) -> Iterator[None]:
        try:
            yield
        except (
            tf.errors.OpError,
            EOFError,
            OSError,
            zlib.error,
            zstandard.ZstdError,
        ) as error:
            reason = getattr(error, "message", None) or error
            raise errors.InputError(
                f"{self.path} cannot be read: {reason}"
            ) from error


def _uncompressed_name(path: str) -> str:
    """Returns the path in lower case, without the suffix of compression."""
    path = path.lower()
    for suffix in _COMPRESSED:
        path = path.removesuffix(suffix)
    return path


# From lines to documents, and from documents to sentences.


def _scan_text(path: str, position: Position | None) -> Iterator[Document]:
    rows = (
        (number, begin, line, _decode(line, path, number).strip())
        for number, (begin, line) in enumerate(_lines(path, position), 1)
    )
    head = list(itertools.islice(rows, _HEAD_LINES))
    texts = [row[3] for row in head]
    layout = "sentences"
    if _is_wrapped(texts):
        layout = "wrapped"
    elif _has_paragraphs(texts):
        layout = "paragraphs"
    document_lines: list[str] = []  # the lines of the document so far
    first_line, start, stop, length, num_blank = 0, 0, 0, 0, 0
    for number, begin, line, text in itertools.chain(head, rows):
        num_blank = 0 if text else num_blank + 1
        # A paragraph ends at any line; in wrapped text at a blank line or after
        # _HEAD_LINES lines, so that memory stays bounded without blank lines.
        paragraph_ends = (
            layout != "wrapped"
            or not text
            or not len(document_lines) % _HEAD_LINES
        )
        if document_lines and (
            num_blank > (layout == "wrapped")
            or (paragraph_ends and length > MAX_DOCUMENT_LENGTH)
        ):
            yield _document(
                path, layout, first_line, start, stop, document_lines
            )
            document_lines, length = [], 0
        if text:
            if not document_lines:
                first_line, start = number, begin
            stop = begin + len(line)
            length += len(text)
        if document_lines or text:
            document_lines.append(text)
    if document_lines:
        yield _document(path, layout, first_line, start, stop, document_lines)


def _scan_json(
    path: str, text_field: str, position: Position | None
) -> Iterator[Document]:
    for number, (begin, line) in enumerate(_lines(path, position), 1):
        if line.strip():
            text = _decode(line, path, number)
            field = _field(text, text_field, path, number)
            rows = [field] if isinstance(field, str) else field
            stop = begin + len(line)
            if any(map(str.strip, rows)):
                yield _document(path, "json", number, begin, stop, rows)


def _scan_parquet(
    path: str, text_field: str, position: Position | None
) -> Iterator[Document]:
    before = position.bytes if position else 0
    size, count = tf.io.gfile.stat(path).length, parquet.count(path)
    for index, field in enumerate(parquet.values(path, text_field)):
        if not _is_text(field):
            raise errors.InputError(
                f"{path}, row {index + 1}: expected a string or a list of "
                f"strings as {text_field!r}, found {json_lines.name_of(field)}."
            )
        if position:
            position.bytes = before + size * (index + 1) // count
        rows = [field] if isinstance(field, str) else field
        if any(map(str.strip, rows)):
            yield _document(path, "parquet", index + 1, index, index + 1, rows)


def _document(
    path: str,
    layout: str,
    line: int,
    start: int,
    stop: int,
    rows: Sequence[str],
) -> Document:
    text = "\n".join(rows).strip().encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return Document(
        path,
        layout,
        line,
        start,
        stop,
        int.from_bytes(digest, "little"),
        len(text),
    )


def _paragraphs(
    document: Document, text: str, text_field: str
) -> Iterator[list[str]]:
    """Yields the sentences of each paragraph of a document.

    A document may be split between the yielded lists if it is too long.
    """
    if document.layout == "json":
        field = _field(text, text_field, document.path, document.line)
        yield from _paragraphs_of_field(field)
        return
    rows = text.split("\n")
    if document.layout == "sentences":
        yield [row for row in map(str.strip, rows) if row]
        return
    if document.layout == "wrapped":
        rows = _unwrap(rows)
    # One paragraph: `scan` has already split documents that are too long.
    yield [
        sentence for row in rows for sentence in sentence_splitter.split(row)
    ]


def _paragraphs_of_field(field: str | list[str]) -> Iterator[list[str]]:
    """Yields the sentences of a text, or of a list of sentences."""
    if isinstance(field, list):
        yield from ([s] for s in (" ".join(s.split()) for s in field) if s)
        return
    rows = field.splitlines()
    rows = _unwrap(rows) if _is_wrapped(rows[:_HEAD_LINES]) else rows
    yield from filter(None, map(sentence_splitter.split, rows))


def _join(paragraphs: Iterable[list[str]]) -> Iterator[list[str]]:
    document: list[str] = []
    length = 0
    for paragraph in paragraphs:
        document += paragraph
        length += sum(map(len, paragraph))
        if document and length > MAX_DOCUMENT_LENGTH:
            yield document
            document, length = [], 0
    if document:
        yield document


def _field(text: str, name: str, path: str, number: int) -> str | list[str]:
    description = "none"
    try:
        row = json_lines.loads(text)
    except json_lines.JsonError as error:
        row, description = None, f"none: {error}"
    field = row.get(name) if isinstance(row, dict) else None
    if _is_text(field):
        return field
    advice = ""
    if isinstance(row, dict):
        description = f"fields {list(row)}"
        advice = " Name the field that holds the text in `text_field`."
    raise errors.InputError(
        f"{path}, line {number}: expected one JSON object a line whose "
        f"{name!r} is a string or a list of strings, found {description}."
        f"{advice}"
    )


def _is_text(field: Any) -> TypeGuard[str | list[str]]:
    return isinstance(field, str) or (
        isinstance(field, list) and all(isinstance(s, str) for s in field)
    )


def _is_wrapped(rows: Sequence[str]) -> bool:
    """Returns whether lines are hard-wrapped at some width."""
    rows = [row.strip() for row in rows]
    pairs = [(a, b) for a, b in itertools.pairwise(rows) if a and b]
    widths = sorted(len(a) for a, _ in pairs)
    if not widths:
        return False
    width = widths[len(widths) * 9 // 10]  # not the maximum: URLs are longer
    num_full = sum(
        len(a) + len(_FIRST_WORD.match(b)[0]) >= width  # type: ignore[index]
        for a, b in pairs  # `b` has a word
    )
    num_open_ended = sum(a[-1] not in _ENDING for a, _ in pairs)
    # Below 30 characters it is verse. Two thirds of the lines, not all, because
    # of headings.
    return (
        30 <= width <= 200
        and min(num_full, num_open_ended) * 3 > len(pairs) * 2
    )


_FIRST_WORD = re.compile(rf"{sentence_splitter.WIDE.pattern}{{1,2}}|\S+")
_ENDING = frozenset(sentence_splitter.MARKS + "。！？；｡．" + "\"'”’»)」』）")


def _unwrap(rows: Iterable[str]) -> Iterator[str]:
    """Joins the lines of each paragraph; yields blank lines unchanged."""
    for is_text, group in itertools.groupby(map(str.strip, rows), bool):
        # _HEAD_LINES at a time, so that memory stays bounded without blank
        # lines.
        count = _HEAD_LINES if is_text else 1
        while part := list(itertools.islice(group, count)):
            yield _SPACELESS_BREAK.sub("", "\n".join(part)).replace("\n", " ")


# Line breaks to remove without a space: in Chinese, after a hyphen or a dash.
_SPACELESS_BREAK = re.compile(
    rf"(?<={sentence_splitter.WIDE.pattern})\n|\n(?={sentence_splitter.WIDE.pattern})|(?<=\w[-—])\n"
)


def _has_paragraphs(rows: Sequence[str]) -> bool:
    """Returns whether a third of the characters are in multi-sentence rows."""
    in_paragraphs = sum(
        len(row) for row in rows if len(sentence_splitter.split(row)) > 1
    )
    return in_paragraphs * 3 >= sum(map(len, rows)) > 0


# Byte-order marks; UTF-32 first, because its mark starts with UTF-16's.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

_ENCODING_BYTES = 200  # bytes from which UTF-16 without a mark is detected


def _encoding(line: bytes) -> str:
    """Detects UTF-16 or UTF-32 by its mark or by zero bytes; otherwise ""."""
    for mark, name in _BYTE_ORDER_MARKS.items():
        if line.startswith(mark):
            return name
    head = line[:_ENCODING_BYTES]
    for every_other in (head[0::2], head[1::2]):
        if len(every_other) > 1 and every_other.count(0) > 0.7 * len(
            every_other
        ):
            return "UTF-16"
    return ""


def _likely_encoding(line: bytes) -> str:
    """Returns the encoding to suggest for a line that is not UTF-8.

    GB18030, in which Chinese text is common, or Windows' for Latin letters:
    its bytes above 0x7F rarely come in pairs.
    """
    try:
        line.decode("gb18030")
    except UnicodeDecodeError:
        return "CP1252"
    high = sum(byte > 0x7F for byte in line)
    return "GB18030" if high > 0.3 * len(line) else "CP1252"


def _decode(line: bytes, path: str, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise errors.InputError(
            f"{path}, line {number}: expected UTF-8, found byte "
            f"0x{line[error.start]:02x} at column {error.start + 1}. If "
            "the file is in another encoding, convert it, for example with "
            f"iconv -f {_likely_encoding(line)} -t UTF-8."
        ) from error
