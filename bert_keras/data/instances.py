"""Turns a chunk of a corpus into shards of pretraining rows.

`make` is a pure function of the chunk and the recipe, apart from the files it
writes: processes of one machine and the workers of a Beam pipeline call it
alike, and a second call finds what the first has made.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bert_keras import files
from bert_keras.data import (
    chunks,
    corpus,
    google_examples,
    packing,
    records,
    sentence_pairs,
)
from bert_keras.data import tokenizer as tokenizer_lib

EXAMPLES = 3  # rows that are shown to people
SENTENCES_PER_CALL = (
    1000  # all of a chunk at once take 100 MB more, no less time
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that the rows of a chunk depend on beside its text."""

    folder: str  # shards go to its train and dev
    vocabulary: str  # a vocab.txt
    lowercase: bool
    seq_length: int
    objective: str  # nsp, sop or none
    passes: int = 1
    seed: int = 1
    # Of Google's files, whose masks are drawn here; None: of records.
    masks: "Masks | None" = None

    @property
    def tokenizer(self) -> tokenizer_lib.Tokenizer:
        return _tokenizer(self.vocabulary, self.lowercase)


@dataclasses.dataclass(frozen=True)
class Masks:
    share: float = 0.15
    max_predictions: int = 20


@functools.cache
def _tokenizer(path: str, lowercase: bool) -> tokenizer_lib.Tokenizer:
    return tokenizer_lib.Tokenizer.from_file(path, lowercase=lowercase)


def make(chunk: chunks.Chunk, recipe: Recipe) -> dict[str, Any]:
    """Writes one shard per pass, unless they are there.

    Returns {"shards": manifest entries, "report": counts that can be added
    up, see `add_reports`}.
    """
    folder = os.path.join(recipe.folder, chunk.split)
    note = os.path.join(folder, f"chunk-{chunk.number:05d}.json")
    fingerprint = _fingerprint(chunk, recipe)
    made = _made(folder, note)
    if made and made["fingerprint"] == fingerprint:
        return made
    documents = list(encode(chunk, recipe.tokenizer))
    report = _report(documents, recipe)
    shards = []
    for number in range(recipe.passes):
        place = chunk.number * recipe.passes + number
        rows = draw(documents, recipe, chunk.split, place)
        if not rows:
            continue
        _count_rows(report, rows, recipe, shown=place == 0)
        shards.append(_write(folder, place, rows, recipe))
    made = {"fingerprint": fingerprint, "shards": shards, "report": report}
    files.write_text(note, json.dumps(made))
    return made


def _write(folder, place: int, rows, recipe: Recipe) -> dict[str, Any]:
    path = os.path.join(folder, records.shard_name(place))
    if not recipe.masks:
        return records.write_shard(path, rows, per_token=records.PER_TOKEN)
    return google_examples.write(
        path.replace(".safetensors", ".tfrecord"),
        rows,
        seq_length=recipe.seq_length,
        max_predictions=recipe.masks.max_predictions,
        share=recipe.masks.share,
        seed=recipe.seed,
        number=place,
        tokenizer=recipe.tokenizer,
    )


def forget(folder: str) -> None:
    """Removes the notes that `make` leaves for a second call."""
    for path in tf.io.gfile.glob(os.path.join(folder, "chunk-*.json")):
        tf.io.gfile.remove(path)


def encode(
    chunk: chunks.Chunk, tokenizer: tokenizer_lib.Tokenizer
) -> Iterator[list[np.ndarray]]:
    """Ids of every sentence, document by document."""
    documents = list(corpus.read(chunk.documents))
    sentences = _ids([s for d in documents for s in d], tokenizer)
    for document in documents:
        found = list(itertools.islice(sentences, len(document)))
        # A sentence may have no token: control characters only.
        if found := [ids for ids in found if len(ids)]:
            yield found


def _ids(
    sentences: Sequence[str], tokenizer: tokenizer_lib.Tokenizer
) -> Iterator[np.ndarray]:
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
    for start in range(0, len(sentences), SENTENCES_PER_CALL):
        texts = sentences[start : start + SENTENCES_PER_CALL]
        ids = tokenizer(tf.constant(texts, tf.string))
        flat = ids.flat_values.numpy().astype(dtype)
        yield from np.split(flat, ids.row_splits.numpy()[1:-1])


def draw(
    documents: Sequence[list[np.ndarray]],
    recipe: Recipe,
    split: str,
    place: int,
) -> list[records.Row]:
    """The rows of one pass: a function of documents, seed, split and place."""
    tokenizer, pairs = recipe.tokenizer, recipe.objective != "none"
    key = [recipe.seed, 2 * place + (split == "dev")]
    drawn = sentence_pairs.draw(
        documents,
        max_tokens=recipe.seq_length - (3 if pairs else 2),
        objective=recipe.objective,
        generator=np.random.Generator(np.random.Philox(key=key)),
    )
    rows = []
    for first, second, label in drawn:
        packed = packing.pack_arrays(
            first, second, cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id
        )
        row = {f"inputs/{name}": value for name, value in packed.items()}
        if pairs:
            row["targets/next_sentence/labels"] = np.int32(label)
            row["targets/next_sentence/weights"] = np.float32(1)
        rows.append(row)
    return rows


def add_reports(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The report of all chunks: counts are added, examples follow."""
    if not reports:
        return {}
    return {
        name: np.sum([report[name] for report in reports], axis=0).tolist()
        if name != "examples"
        else sum((report[name] for report in reports), [])
        for name in reports[0]
    }


def _report(documents, recipe: Recipe) -> dict[str, Any]:
    tokenizer = recipe.tokenizer
    starts = _starts_word(tokenizer)
    ids = [np.concatenate(document) for document in documents]
    return {
        "documents": len(documents),
        "sentences": sum(map(len, documents)),
        "tokens": sum(map(len, ids)),
        "unknown": sum(int((i == tokenizer.unk_id).sum()) for i in ids),
        "words": sum(int(starts[i].sum()) for i in ids),
        "lengths": [0] * (recipe.seq_length + 1),  # rows of each length
        "examples": [],
    }


@functools.cache
def _starts_word(tokenizer: tokenizer_lib.Tokenizer) -> np.ndarray:
    return np.array([not p.startswith("##") for p in tokenizer.vocabulary])


def _count_rows(report, rows, recipe: Recipe, *, shown: bool) -> None:
    lengths = [len(row["inputs/token_ids"]) for row in rows]
    counts = np.bincount(lengths, minlength=recipe.seq_length + 1)
    report["lengths"] = (np.array(report["lengths"]) + counts).tolist()
    if shown:
        for row in rows[:EXAMPLES]:
            pieces = recipe.tokenizer.tokens(row["inputs/token_ids"])
            label = row.get("targets/next_sentence/labels")
            report["examples"].append(
                {
                    "text": " ".join(pieces),
                    "label": None if label is None else int(label),
                }
            )


def _fingerprint(chunk: chunks.Chunk, recipe: Recipe) -> str:
    facts = dataclasses.asdict(recipe)
    # Wherever they lie, the same text and vocabulary make the same rows.
    facts["vocabulary"] = recipe.tokenizer.fingerprint
    del facts["folder"]
    digests = [document.digest for document in chunk.documents]
    text = json.dumps([facts, chunk.split, chunk.number, digests])
    return hashlib.sha256(text.encode()).hexdigest()


def _made(folder: str, note: str) -> dict[str, Any] | None:
    """What an earlier call noted, if its shards are still whole."""
    if not tf.io.gfile.exists(note):
        return None
    with tf.io.gfile.GFile(note) as file:
        made = json.loads(file.read())
    for entry in made["shards"]:
        if (
            files.checksum(os.path.join(folder, entry["name"]))
            != (entry["sha256"])
        ):
            return None
    return made
