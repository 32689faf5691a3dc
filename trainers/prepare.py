"""Turns raw text into records for pretraining; learns a vocabulary if asked.

  python -m trainers.prepare --input=corpus.txt --vocab_size=8000 --output=rec
  python -m trainers.prepare --input='wiki/*.jsonl.gz,books' --output=rec \\
      --vocab=vocab.txt --seq_length=512 --objective=sop

Input is text, gzipped text, or JSON lines with a field `text`: files, folders
or globs, with commas between. Plain text has one sentence per line and a blank
line between documents, or paragraphs, which are split into sentences here.
"""

import dataclasses
import itertools
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from bert_keras import checkpoint, errors
from bert_keras.data import corpus, packing, sentence_pairs, vocabulary
from bert_keras.data import records as records_lib
from bert_keras.data import tokenizer as tokenizer_lib
from trainers import flags, report, runtime

# Documents are worked on, and random sentences drawn, within pieces of this
# many characters: memory stays flat, and a piece is one shard.
CHUNK_CHARACTERS = 16_000_000

Document = list[str]


@dataclasses.dataclass(frozen=True)
class Settings:
    input: str = flags.knob("", "Files, folders or globs, with commas between.")
    output: str = flags.knob("", "Folder of the records.")
    vocab: str = flags.knob("", "A vocab.txt; empty: learn one.")
    vocab_size: int = flags.knob(
        0,
        "Entries to learn from the input, where --vocab is not given.",
        least=0,
    )
    lowercase: bool | None = flags.knob(
        None,
        "Fold case and drop accents. Not said: what --vocab tells by its "
        "entries; for a learned vocabulary, yes.",
        kind=bool,
    )
    seq_length: int = flags.knob(128, "Tokens in a row, at most.", least=8)
    objective: str = flags.knob(
        "nsp",
        "Pairs: nsp = next sentence or a random one, sop = in order or "
        "swapped, none = whole rows of one document.",
        ("nsp", "sop", "none"),
    )
    held_out: float = flags.knob(
        0.01,
        "Share of the documents that is kept for evaluation.",
        least=0.0,
        most=0.5,
    )
    seed: int = flags.knob(1, "Pairs and random sentences.", least=0)


def prepare(settings: Settings) -> None:
    """Writes OUTPUT/train and OUTPUT/dev."""
    flags.require("input", settings.input)
    flags.require("output", settings.output)
    if bool(settings.vocab) == bool(settings.vocab_size):
        raise errors.InputError("give one of --vocab and --vocab_size.")
    if "://" in settings.output:
        raise errors.InputError(
            f"--output={settings.output}: records are mapped into memory, so "
            "they need a local folder. Copy them where they are needed."
        )
    paths = corpus.files(settings.input.split(","))
    train = os.path.join(settings.output, "train")
    runtime.open_run(settings.output, begun=records_lib.is_complete(train))
    if records_lib.is_complete(train):
        report.table(settings.output, {"already there": train})
        return
    began = time.monotonic()
    tokenizer = _tokenizer(settings, paths)
    for split in ("train", "dev"):  # what a kill may have left
        shutil.rmtree(os.path.join(settings.output, split), ignore_errors=True)

    size = sum(os.path.getsize(path) for path in paths)
    with report.Progress("preparing", total=size / 1e6, unit="MB") as progress:
        counted = Counted(corpus.documents(paths), progress)
        made = {"train": [], "dev": []}
        for number, (split, documents) in enumerate(
            pieces(counted, settings.held_out)
        ):
            rows = instances(documents, tokenizer, settings, number)
            if rows:
                folder = os.path.join(settings.output, split)
                name = len(made[split])
                made[split].append(_shard(folder, name, rows))
    if not made["train"]:
        raise errors.InputError(
            f"{settings.input} gives no training row; is it empty?"
        )
    # Training records last: they say that all is done.
    for split in ("dev", "train"):
        if made[split]:
            _finish(settings, split, made[split], tokenizer)
    _close(settings, counted, tokenizer, time.monotonic() - began)


def _tokenizer(settings: Settings, paths: Sequence[str]):
    if settings.vocab:
        tokenizer = tokenizer_lib.Tokenizer.from_file(
            settings.vocab, lowercase=settings.lowercase
        )
    else:
        lowercase = settings.lowercase is not False
        texts = itertools.chain.from_iterable(corpus.documents(paths))
        learned = vocabulary.learn(
            texts, settings.vocab_size, lowercase=lowercase
        )
        tokenizer = tokenizer_lib.Tokenizer(learned, lowercase=lowercase)
    if tokenizer.mask_id is None:
        raise errors.InputError(
            f"{settings.vocab} has no entry [MASK]; masked LM needs one."
        )
    return tokenizer


class Counted:
    """Documents as they pass, counted for progress and report."""

    def __init__(self, documents: Iterable[Document], progress):
        self.documents, self.progress = documents, progress
        self.count = self.sentences = self.bytes = 0

    def __iter__(self) -> Iterator[Document]:
        for document in self.documents:
            self.count += 1
            self.sentences += len(document)
            self.bytes += sum(len(text.encode()) + 1 for text in document)
            self.progress.update(self.bytes / 1e6)
            yield document


class Chunks:
    """Brings documents together up to CHUNK_CHARACTERS, two at least.

    A chunk is given out when the next one is full, so that a last document
    that is left alone can join the chunk before it.
    """

    def __init__(self):
        self.ready: list[Document] = []
        self.open: list[Document] = []
        self.size = 0

    def add(self, document: Document) -> list[Document]:
        """A chunk that is complete now, or nothing."""
        self.open.append(document)
        self.size += sum(map(len, document))
        if self.size < CHUNK_CHARACTERS or len(self.open) < 2:
            return []
        chunk, self.ready = self.ready, self.open
        self.open, self.size = [], 0
        return chunk

    def rest(self) -> list[list[Document]]:
        """What is left at the end."""
        if len(self.open) == 1 and self.ready:
            return [self.ready + self.open]
        return [chunk for chunk in (self.ready, self.open) if chunk]


def pieces(
    documents: Iterable[Document], held_out: float
) -> Iterator[tuple[str, list[Document]]]:
    """Chunks of the training documents and of those held out.

    Every 1/held_out-th document of the corpus is held out, if that gives two
    at least; one alone has no random next sentence.
    """
    open_chunks = {"train": Chunks(), "dev": Chunks()}
    for number, document in enumerate(documents):
        before, after = number * held_out, (number + 1) * held_out
        split = "dev" if int(after) > int(before) else "train"
        if chunk := open_chunks[split].add(document):
            yield split, chunk
    train, dev = (chunks.rest() for chunks in open_chunks.values())
    if len(dev) == 1 and len(dev[0]) == 1:
        train[-1:] = [(train[-1] if train else []) + dev.pop()]
    for split, rest in (("dev", dev), ("train", train)):
        for chunk in rest:
            yield split, chunk


def instances(
    documents: Sequence[Document],
    tokenizer: tokenizer_lib.Tokenizer,
    settings: Settings,
    number: int,
) -> list[records_lib.Row]:
    """The rows of a chunk, a function of the documents, seed and number."""
    pairs = settings.objective != "none"
    random = np.random.Generator(np.random.Philox(key=[settings.seed, number]))
    drawn = sentence_pairs.draw(
        encode(documents, tokenizer),
        max_tokens=settings.seq_length - (3 if pairs else 2),
        objective=settings.objective,
        generator=random,
    )
    rows = []
    for first, second, label in drawn:
        packed = packing.pack_arrays(
            first,
            second,
            cls_id=tokenizer.cls_id,
            sep_id=tokenizer.sep_id,
        )
        row = {f"inputs/{name}": value for name, value in packed.items()}
        if pairs:
            row["targets/next_sentence/labels"] = np.int32(label)
            row["targets/next_sentence/weights"] = np.float32(1)
        rows.append(row)
    return rows


def encode(
    documents: Sequence[Document], tokenizer: tokenizer_lib.Tokenizer
) -> list[list[np.ndarray]]:
    """Ids of every sentence; all sentences go through the op at once."""
    ids = tokenizer(tf.constant([s for d in documents for s in d]))
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
    flat = ids.flat_values.numpy().astype(dtype)
    splits = ids.row_splits.numpy()
    place, encoded = 0, []
    for document in documents:
        sentences = [
            flat[splits[i] : splits[i + 1]]
            for i in range(place, place + len(document))
        ]
        place += len(document)
        encoded.append([ids for ids in sentences if len(ids)])
    return [document for document in encoded if document]


def _shard(folder: str, number: int, rows: list[records_lib.Row]):
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, records_lib.shard_name(number))
    return records_lib.write_shard(
        path, rows, per_token=("inputs/token_ids", "inputs/segment_ids")
    )


def _finish(settings, split, shards, tokenizer) -> None:
    folder = os.path.join(settings.output, split)
    tokenizer.save(os.path.join(folder, checkpoint.VOCABULARY))
    records_lib.write_manifest(
        folder,
        shards,
        seq_length=settings.seq_length,
        objective=settings.objective,
        lowercase=tokenizer.lowercase,
        tokenizer=tokenizer.fingerprint,
        seed=settings.seed,
        input=settings.input,
    )


def _close(settings, counted, tokenizer, seconds) -> None:
    train = records_lib.Records(os.path.join(settings.output, "train"))
    longest = train.manifest["longest"]
    dev = os.path.join(settings.output, "dev")
    held_out = "none: too few documents, see --held_out"
    if records_lib.is_complete(dev):
        held_out = f"{len(records_lib.Records(dev)):,}"
    report.table(
        settings.output,
        {
            "documents": counted.count,
            "sentences": counted.sentences,
            "vocabulary": f"{tokenizer.vocab_size:,} entries, "
            + ("lower case" if tokenizer.lowercase else "cased"),
            "training rows": len(train),
            "held-out rows": held_out,
            "tokens": train.manifest["tokens"],
            "tokens in a row": f"{train.lengths.mean():.1f} on average, "
            f"{longest} at most",
            "size": report.folder_size(settings.output),
            "time": f"{seconds:.1f} s, "
            f"{counted.bytes / 1e6 / seconds:.1f} MB/s of text",
            "next": f"python -m trainers.pretrain --records={settings.output} "
            "--output=runs/base",
        },
    )


def main() -> None:
    prepare(flags.read(Settings))


if __name__ == "__main__":
    flags.run(main, lambda: flags.define(Settings))
