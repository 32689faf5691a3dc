"""Cuts a corpus into chunks: what one process works on at a time.

A chunk lists where its documents stand, and becomes one shard of records per
pass. It is known from the files alone, so chunks are worked on in any order,
by any number of processes, and come out the same.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from bert_keras.data import corpus

# Random sentences are drawn within a chunk, and a chunk is held in memory.
BYTES = 4_000_000


class Chunk(NamedTuple):
    """Documents of the training or the held-out part, `number` from 0."""

    split: str  # train or dev
    number: int
    documents: list[corpus.Document]


class Seen:
    """Which digests have passed, in bounded memory.

    A table in buckets of 8 that doubles while it fills, up to `size` digests;
    from there on the newest push out the oldest: what is said to be seen was
    seen (but for equal digests of other texts, 1 in 10^5 for 16 million
    documents), while a repetition after more documents than the table holds
    may pass. 2^24 take 128 MB.
    """

    def __init__(self, size: int = 1 << 24):
        self.size = size
        self.table = np.zeros((min(size, 1 << 10) // 8, 8), np.uint64)
        self.next = np.zeros(len(self.table), np.uint8)
        self.count = 0

    def add(self, digest: int) -> bool:
        """Notes a digest; whether it is new."""
        digest = digest or 1  # 0 is an empty place
        row = digest % len(self.table)
        bucket = self.table[row].tolist()
        if digest in bucket:
            return False
        place = bucket.index(0) if 0 in bucket else int(self.next[row])
        self.table[row, place] = digest
        self.next[row] = (place + 1) % 8
        self.count += 1
        if self.count * 4 > self.table.size and self.table.size < self.size:
            self._double()
        return True

    def _double(self) -> None:
        """A row becomes two; the next bit of a digest tells which."""
        upper = self.table // np.uint64(len(self.table)) % np.uint64(2) > 0
        self.table = np.concatenate(
            [np.where(upper, 0, self.table), np.where(upper, self.table, 0)]
        )
        self.next = np.tile(self.next, 2)


class Plan:
    """The chunks of a corpus, and what was counted on the way."""

    def __init__(
        self,
        documents: Iterable[corpus.Document],
        *,
        held_out: float,
        deduplicate: bool = True,
        chunk_bytes: int = BYTES,
    ):
        self.found = documents
        self.held_out = held_out
        self.seen = Seen() if deduplicate else None
        self.chunk_bytes = chunk_bytes
        self.documents = self.repeated = self.bytes = 0

    def __iter__(self) -> Iterator[Chunk]:
        """Every 1/held_out-th document is held out, where that gives two.

        A chunk has two documents at least, where there are two: one alone
        has no random next sentence.
        """
        open_ = {split: _Open(self.chunk_bytes) for split in ("train", "dev")}
        for found in self.found:
            if self.seen and not self.seen.add(found.digest):
                self.repeated += 1
                continue
            before = self.documents * self.held_out
            self.documents += 1
            self.bytes += found.stop - found.start
            is_dev = int(before + self.held_out) > int(before)
            split = "dev" if is_dev else "train"
            if chunk := open_[split].add(found):
                yield open_[split].named(split, chunk)
        train, dev = open_["train"].rest(), open_["dev"].rest()
        if not open_["dev"].given and len(dev) == 1 and len(dev[0]) == 1:
            train[-1:] = [(train[-1] if train else []) + dev.pop()]
        for split, rest in (("dev", dev), ("train", train)):
            for chunk in rest:
                yield open_[split].named(split, chunk)


class _Open:
    """Brings documents together up to `chunk_bytes`, two at least.

    A chunk is given out when the next one is full, so that a last document
    that is left alone can join the chunk before it.
    """

    def __init__(self, chunk_bytes: int):
        self.chunk_bytes = chunk_bytes
        self.ready: list[corpus.Document] = []
        self.open: list[corpus.Document] = []
        self.size = self.given = 0

    def add(self, found: corpus.Document) -> list[corpus.Document]:
        """A chunk that is complete now, or nothing."""
        self.open.append(found)
        self.size += found.stop - found.start
        if self.size < self.chunk_bytes or len(self.open) < 2:
            return []
        chunk, self.ready = self.ready, self.open
        self.open, self.size = [], 0
        return chunk

    def rest(self) -> list[list[corpus.Document]]:
        """What is left at the end."""
        if len(self.open) == 1 and self.ready:
            return [self.ready + self.open]
        return [chunk for chunk in (self.ready, self.open) if chunk]

    def named(self, split: str, chunk: list[corpus.Document]) -> Chunk:
        self.given += 1
        return Chunk(split, self.given - 1, chunk)
