"""Cuts a corpus into chunks: what one process works on at a time.

A chunk lists where its documents stand, and becomes one shard of records per
pass. It is known from the files alone, so chunks are worked on in any order,
by any number of processes, and come out the same.
"""

import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bert_keras.data import corpus
from bert_keras.data import held_out as held_out_lib

# Random sentences are drawn within a chunk, and a chunk is held in memory.
BYTES = 4_000_000


class Chunk(NamedTuple):
    """Documents of the training or the held-out part, `number` from 0."""

    split: str  # train or dev
    number: int
    documents: list[corpus.Document]


class Seen:
    """Which digests have passed, in bounded memory.

    Up to `size` digests none is forgotten. Past that the older half of what
    is held goes at once: the last `size` / 2 are always remembered, a
    repetition after more documents may pass. What is said to be seen was seen
    (but for equal digests of other texts, 1 in 10^5 for 16 million documents).
    2^24 digests take 256 MB.
    """

    def __init__(self, size: int = 1 << 24):
        self.most = -(-size // 2)
        self.newer, self.older = _Table(self.most), _Table(self.most)

    def add(self, digest: int) -> bool:
        """Notes a digest; whether it is new."""
        if digest in self.newer or digest in self.older:
            return False
        if self.newer.count == self.most:
            self.newer, self.older = _Table(self.most), self.newer
        self.newer.add(digest)
        return True


class _Table:
    """A set of digests: open addressing, half full at most.

    Digests are random already, so their low bits say where one is looked for;
    the next free entry takes it. A Python set takes 4 times the memory.
    """

    def __init__(self, most: int):
        self.count = 0
        self.entries = array.array("Q", bytes(8 * min(1 << 10, _size(most))))

    def __contains__(self, digest: int) -> bool:
        return self.entries[self._index(digest or 1)] != 0

    def add(self, digest: int) -> None:
        """Puts in a digest that is not there yet."""
        digest = digest or 1  # 0 is a free entry
        self.entries[self._index(digest)] = digest
        self.count += 1
        if self.count * 2 > len(self.entries):
            self._double()

    def _index(self, digest: int) -> int:
        """Where the digest is, or where it would be put."""
        entries, last = self.entries, len(self.entries) - 1
        index = digest & last
        while entries[index] and entries[index] != digest:
            index = (index + 1) & last
        return index

    def _double(self) -> None:
        before = self.entries
        self.entries = array.array("Q", bytes(16 * len(before)))
        for digest in before:
            if digest:
                self.entries[self._index(digest)] = digest


def _size(most: int) -> int:
    """The power of two of which `most` entries are half or less."""
    return 1 << (2 * most - 1).bit_length()


class Partition:
    """The chunks of a corpus, and what was counted on the way."""

    def __init__(
        self,
        documents: Iterable[corpus.Document],
        *,
        held_out: float,
        deduplicate: bool = True,
        chunk_bytes: int = BYTES,
    ):
        self._scanned = documents
        self.held_out = held_out
        self._seen_digests = Seen() if deduplicate else None
        self.chunk_bytes = chunk_bytes
        self.documents = self.repeated = self.bytes = 0

    def __iter__(self) -> Iterator[Chunk]:
        """Every 1/held_out-th document is held out, where that gives two.

        A chunk has two documents at least, where there are two: one alone
        has no random next sentence.
        """
        builders = {
            split: _ChunkBuilder(self.chunk_bytes) for split in ("train", "dev")
        }
        for document in self._scanned:
            if self._seen_digests and not self._seen_digests.add(
                document.digest
            ):
                self.repeated += 1
                continue
            is_dev = held_out_lib.is_held_out(self.documents, self.held_out)
            self.documents += 1
            self.bytes += document.stop - document.start
            split = "dev" if is_dev else "train"
            if chunk := builders[split].add(document):
                yield builders[split].named(split, chunk)
        train, dev = builders["train"].rest(), builders["dev"].rest()
        if (
            not builders["dev"].num_chunks
            and len(dev) == 1
            and len(dev[0]) == 1
        ):
            train[-1:] = [(train[-1] if train else []) + dev.pop()]
        for split, rest in (("dev", dev), ("train", train)):
            for chunk in rest:
                yield builders[split].named(split, chunk)


class _ChunkBuilder:
    """Brings documents together up to `chunk_bytes`, two at least.

    A chunk is given out when the next one is full, so that a last document
    that is left alone can join the chunk before it.
    """

    def __init__(self, chunk_bytes: int):
        self.chunk_bytes = chunk_bytes
        self.ready: list[corpus.Document] = []
        self.current: list[corpus.Document] = []
        self.size = self.num_chunks = 0

    def add(self, document: corpus.Document) -> list[corpus.Document]:
        """A chunk that is complete now, or nothing."""
        self.current.append(document)
        self.size += document.stop - document.start
        if self.size < self.chunk_bytes or len(self.current) < 2:
            return []
        chunk, self.ready = self.ready, self.current
        self.current, self.size = [], 0
        return chunk

    def rest(self) -> list[list[corpus.Document]]:
        """What is left at the end."""
        if len(self.current) == 1 and self.ready:
            return [self.ready + self.current]
        return [chunk for chunk in (self.ready, self.current) if chunk]

    def named(self, split: str, chunk: list[corpus.Document]) -> Chunk:
        self.num_chunks += 1
        return Chunk(split, self.num_chunks - 1, chunk)
