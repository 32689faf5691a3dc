"""Partitions a corpus into chunks, each of which one process handles at a time.

A chunk lists the locations of its documents and becomes one shard of records
per pass. Chunks depend on the files only, so any number of processes can work
on them in any order with the same result.
"""

import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bert_keras.data import corpus
from bert_keras.data import held_out as held_out_lib

# Text of a chunk. A chunk must fit in memory: random next sentences are sampled
# from its documents.
CHUNK_BYTES = 4_000_000


class Chunk(NamedTuple):
    """Documents of one split; `number` counts the split's chunks from 0."""

    split: str  # train or dev
    number: int
    documents: list[corpus.Document]


class SeenDigests:
    """A set of digests in bounded memory, for deduplication.

    The first `size` digests are all remembered. Beyond that, the older half is
    dropped at once: the last `size` / 2 are always remembered, but a duplicate
    after more documents may be missed. There are no false positives, except for
    hash collisions (1 in 10^5 for 16 million documents). 2^24 digests take 256
    MB.
    """

    def __init__(self, size: int = 1 << 24):
        self.capacity = -(-size // 2)
        self.newer, self.older = _Table(self.capacity), _Table(self.capacity)

    def add(self, digest: int) -> bool:
        """Adds a digest; returns whether it is new."""
        if digest in self.newer or digest in self.older:
            return False
        if self.newer.count == self.capacity:
            self.newer, self.older = _Table(self.capacity), self.newer
        self.newer.add(digest)
        return True


class _Table:
    """A hash set of digests: open addressing, linear probing, load <= 1/2.

    Digests are hashes already, so their low bits are the index to probe first.
    A Python set takes 4 times the memory.
    """

    def __init__(self, capacity: int):
        self.count = 0
        num_entries = min(1 << 10, _num_entries(capacity))
        self.entries = array.array("Q", bytes(8 * num_entries))

    def __contains__(self, digest: int) -> bool:
        return self.entries[self._index(digest or 1)] != 0

    def add(self, digest: int) -> None:
        """Adds a digest that is not in the set yet."""
        digest = digest or 1  # 0 marks a free entry
        self.entries[self._index(digest)] = digest
        self.count += 1
        if self.count * 2 > len(self.entries):
            self._double()

    def _index(self, digest: int) -> int:
        """Returns the index of the digest, or of the free entry for it."""
        entries, last = self.entries, len(self.entries) - 1
        index = digest & last
        while entries[index] and entries[index] != digest:
            index = (index + 1) & last
        return index

    def _double(self) -> None:
        old_entries = self.entries
        self.entries = array.array("Q", bytes(16 * len(old_entries)))
        for digest in old_entries:
            if digest:
                self.entries[self._index(digest)] = digest


def _num_entries(capacity: int) -> int:
    """Returns the smallest power of two that is at least 2 * `capacity`."""
    return 1 << (2 * capacity - 1).bit_length()


class Partition:
    """Yields the chunks of a corpus, once, and counts documents and bytes."""

    def __init__(
        self,
        documents: Iterable[corpus.Document],
        *,
        held_out: float,
        deduplicate: bool = True,
        chunk_bytes: int = CHUNK_BYTES,
    ):
        # A second iteration yields nothing, instead of counting twice.
        self._documents = iter(documents)
        self.held_out = held_out
        self._seen_digests = SeenDigests() if deduplicate else None
        self.chunk_bytes = chunk_bytes
        self.num_documents = self.num_duplicates = self.num_bytes = 0

    def __iter__(self) -> Iterator[Chunk]:
        """Yields chunks; holds out every (1 / held_out)-th document.

        A chunk has at least two documents if the split has two: a single one
        has no random next sentence. A single held-out document is moved to the
        training documents.
        """
        builders = {
            split: _ChunkBuilder(self.chunk_bytes) for split in ("train", "dev")
        }
        for document in self._documents:
            if self._seen_digests and not self._seen_digests.add(
                document.digest
            ):
                self.num_duplicates += 1
                continue
            is_dev = held_out_lib.is_held_out(self.num_documents, self.held_out)
            self.num_documents += 1
            self.num_bytes += document.size
            split = "dev" if is_dev else "train"
            if chunk := builders[split].add(document):
                yield builders[split].numbered(split, chunk)
        train, dev = builders["train"].rest(), builders["dev"].rest()
        if (
            not builders["dev"].num_chunks
            and len(dev) == 1
            and len(dev[0]) == 1
        ):
            train[-1:] = [(train[-1] if train else []) + dev.pop()]
        for split, rest in (("dev", dev), ("train", train)):
            for chunk in rest:
                yield builders[split].numbered(split, chunk)


class _ChunkBuilder:
    """Groups documents into chunks of `chunk_bytes`, at least two per chunk.

    A chunk is returned once the next one is full, so that a single last
    document can be added to the chunk before it.
    """

    def __init__(self, chunk_bytes: int):
        self.chunk_bytes = chunk_bytes
        self.previous: list[corpus.Document] = []  # a full chunk
        self.current: list[corpus.Document] = []
        self.size = self.num_chunks = 0

    def add(self, document: corpus.Document) -> list[corpus.Document]:
        """Adds a document; returns the previous chunk if this one is now full.

        Otherwise, and for the first chunk, returns [].
        """
        self.current.append(document)
        self.size += document.size
        if self.size < self.chunk_bytes or len(self.current) < 2:
            return []
        chunk, self.previous = self.previous, self.current
        self.current, self.size = [], 0
        return chunk

    def rest(self) -> list[list[corpus.Document]]:
        """Returns the remaining chunks, at the end of the corpus."""
        if len(self.current) == 1 and self.previous:
            return [self.previous + self.current]
        return [chunk for chunk in (self.previous, self.current) if chunk]

    def numbered(self, split: str, documents: list[corpus.Document]) -> Chunk:
        """Returns the documents as the chunk with the next number."""
        self.num_chunks += 1
        return Chunk(split, self.num_chunks - 1, documents)
