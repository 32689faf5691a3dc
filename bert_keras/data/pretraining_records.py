"""Builds shards of pretraining records from a chunk of a corpus.

Apart from the files it writes, `write_shards` is a pure function of the chunk
and the settings: worker processes and Beam workers call it in the same way, and
a second call reuses the files of the first.
"""

import dataclasses
import hashlib
import json
import os
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bert_keras import files
from bert_keras.data import (
    corpus,
    corpus_chunks,
    google_tfrecords,
    joined_rows,
    packing,
    records,
    sentence_pairs,
    token_table,
    unpaired_rows,
    word_boundaries,
)
from bert_keras.sentence_objectives import base as objectives
from bert_keras.tokenizers import base as tokenizers

NUM_EXAMPLES = 3  # rows of a split's first shard to show in the report
# Tokenizing a complete chunk in one call takes 100 MB more memory and is not
# faster. Tokenizing each distinct word only once is not faster either:
# deduplicating words takes as long as tokenizing them.
SENTENCES_PER_CALL = 4000

NO_FRAME = tokenizers.Frame((), (), ())


@dataclasses.dataclass(frozen=True)
class ShardSettings:
    """The settings of a chunk's records, and the folder to write them to."""

    folder: str  # shards are written to its subfolders train and dev
    tokenizer: tokenizers.Tokenizer
    seq_length: int
    objective: str  # the name of a sentence objective, which is imported
    packing: str = "segments"  # segments, documents, full or sentences
    text_field: str = "text"  # of JSON lines and of Parquet
    passes: int = 1
    seed: int = 1
    # Google's TFRecords store fixed masks, so they need these; None writes
    # native records.
    masks: "MaskSettings | None" = None
    # What of words and phrases is stored; None: nothing.
    boundaries: word_boundaries.Settings | None = None


@dataclasses.dataclass(frozen=True)
class MaskSettings:
    """The masks of a row in Google's format: their share and their maximum."""

    masked_lm_prob: float = 0.15
    max_predictions_per_seq: int = 20


def write_shards(
    chunk: corpus_chunks.Chunk, settings: ShardSettings
) -> dict[str, Any]:
    """Writes one shard per pass, unless they exist already.

    Returns {"fingerprint": the fingerprint of the chunk and the settings,
    "shards": manifest entries, "report": counts, which `add_reports` sums over
    chunks}.
    """
    folder = os.path.join(settings.folder, chunk.split)
    chunk_path = _chunk_path(folder, chunk.number)
    fingerprint = _fingerprint(chunk, settings)
    if result := _earlier_result(folder, chunk_path, fingerprint):
        return result
    documents = encode(chunk, settings)
    report = _report(documents, settings)
    shards = []
    passes = sample_records(documents, settings, chunk.split, chunk.number)
    for index, rows in enumerate(passes, chunk.number * settings.passes):
        if not len(rows.lengths):
            continue
        _count_rows(report, rows, settings, with_examples=index == 0)
        shards.append(_write(folder, index, rows, settings))
    result = {"fingerprint": fingerprint, "shards": shards, "report": report}
    files.write_text(chunk_path, json.dumps(result))
    return result


def _write(
    folder: str, index: int, rows: records.Columns, settings: ShardSettings
) -> dict[str, Any]:
    path = os.path.join(folder, records.shard_name(index))
    if not settings.masks:
        return records.write_shard(path, rows)
    return google_tfrecords.write(
        path.replace(".safetensors", ".tfrecord"),
        rows,
        seq_length=settings.seq_length,
        max_predictions=settings.masks.max_predictions_per_seq,
        share=settings.masks.masked_lm_prob,
        seed=settings.seed,
        number=index,
        tokenizer=settings.tokenizer,
    )


def remove_results(folder: str, count: int) -> None:
    """Removes the files chunk-NNNNN.json of the chunks 0..count-1.

    `write_shards` then builds their shards again. Other files of the folder are
    not touched.
    """
    for number in range(count):
        path = _chunk_path(folder, number)
        if tf.io.gfile.exists(path):
            tf.io.gfile.remove(path)


def _chunk_path(folder: str, number: int) -> str:
    return os.path.join(folder, f"chunk-{number:05d}.json")


def encode(
    chunk: corpus_chunks.Chunk, settings: ShardSettings
) -> sentence_pairs.TokenizedDocuments:
    """Reads and tokenizes the documents of a chunk."""
    documents = list(
        corpus.read(chunk.documents, text_field=settings.text_field)
    )
    finder = None
    if settings.boundaries:
        finder = word_boundaries.Finder(settings.boundaries, settings.tokenizer)
    token_ids, lengths, table, starts = _tokenize(
        [s for d in documents for s in d], settings.tokenizer, finder
    )
    ends = np.cumsum(lengths)
    counts = np.array([len(document) for document in documents], np.int64)
    document_ends = np.append(0, ends)[np.cumsum(counts)]
    # Drop sentences and documents without tokens (control characters only).
    return sentence_pairs.TokenizedDocuments(
        token_ids,
        ends[lengths > 0],
        document_ends[np.diff(document_ends, prepend=0) > 0],
        table,
        starts,
    )


def _tokenize(
    sentences: Sequence[str],
    tokenizer: tokenizers.Tokenizer,
    finder: word_boundaries.Finder | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Tokenizes sentences.

    Returns concatenated ids, sentence lengths and the table of
    TokenizedDocuments, which starts with the frame's tokens, and the finder's
    facts.
    """
    table = None
    if token_table.has_several_ids(tokenizer):
        table = token_table.TokenTable(tokenizer.special_ids)
    is_small = table is None and tokenizer.vocab_size <= 1 << 16
    dtype = np.uint16 if is_small else np.int32
    flat, lengths = [np.zeros(0, dtype)], [np.zeros(0, np.int64)]
    facts = [np.zeros(0, np.uint8)]
    for start in range(0, len(sentences), SENTENCES_PER_CALL):
        texts = sentences[start : start + SENTENCES_PER_CALL]
        ids = tokenizer(tf.constant(texts, tf.string))
        values = ids.values.numpy()
        values = table.numbers(values) if table else values
        flat.append(values.astype(dtype))
        lengths.append(ids.row_lengths().numpy())
        if finder:
            facts.append(finder.starts(texts, ids))
    return (
        np.concatenate(flat),
        np.concatenate(lengths),
        table.rows() if table else None,
        np.concatenate(facts) if finder else None,
    )


def sample_records(
    documents: sentence_pairs.TokenizedDocuments,
    settings: ShardSettings,
    split: str,
    number: int,
) -> Iterator[records.Columns]:
    """Yields the rows of each pass.

    The rows depend on the arguments only: the generator's key is made of the
    seed, the chunk's number and the split.
    """
    key = [settings.seed, 2 * number + (split == "dev")]
    generator = np.random.Generator(np.random.Philox(key=key))
    if settings.packing == "full":
        yield from _full_rows(documents, settings, generator)
        return
    if settings.packing == "sentences":
        yield from _sentence_rows(documents, settings)
        return
    pairs = settings.objective != "none"
    frame = _frame(settings.tokenizer, documents)
    passes = sentence_pairs.sample_pairs(
        documents,
        max_tokens=frame.capacity(
            settings.seq_length, segments=2 if pairs else 1
        ),
        objective=settings.objective,
        passes=settings.passes,
        generator=generator,
    )
    for sample in passes:
        per_row = {}
        if pairs:
            per_row = {
                "targets/next_sentence/labels": sample.labels,
                "targets/next_sentence/weights": np.ones(
                    len(sample.labels), np.float32
                ),
            }
        columns = _columns(
            documents,
            documents.token_ids,
            (sample.first, sample.second),
            frame,
            settings.tokenizer,
            per_row,
        )
        if settings.packing == "documents":
            columns = joined_rows.join(columns, settings.seq_length)
        yield columns


def _full_rows(
    documents: sentence_pairs.TokenizedDocuments,
    settings: ShardSettings,
    generator: np.random.Generator,
) -> Iterator[records.Columns]:
    """Yields full rows; passes after the first begin at a random offset."""
    end_id = settings.tokenizer.end_id
    if documents.table is not None:
        *_, end_id = _frame(settings.tokenizer, documents).end
    ids = unpaired_rows.end_documents(documents, end_id)
    for number in range(settings.passes):
        offset = int(generator.integers(settings.seq_length)) if number else 0
        spans = unpaired_rows.full_rows(len(ids), settings.seq_length, offset)
        yield _columns(
            documents,
            ids,
            (spans, _empty_like(spans)),
            NO_FRAME,
            settings.tokenizer,
        )


def _sentence_rows(
    documents: sentence_pairs.TokenizedDocuments, settings: ShardSettings
) -> Iterator[records.Columns]:
    """Yields the rows of each pass, which are equal."""
    frame = _frame(settings.tokenizer, documents)
    spans = unpaired_rows.sentence_rows(
        documents.sentence_ends, frame.capacity(settings.seq_length)
    )
    for _ in range(settings.passes):
        yield _columns(
            documents,
            documents.token_ids,
            (spans, _empty_like(spans)),
            frame,
            settings.tokenizer,
        )


def _empty_like(spans: np.ndarray) -> np.ndarray:
    """Returns empty second segments for rows of one segment."""
    return np.repeat(spans[:, 1:], 2, axis=1)


def _frame(
    tokenizer: tokenizers.Tokenizer,
    documents: sentence_pairs.TokenizedDocuments,
) -> tokenizers.Frame:
    """Returns the frame as token_ids of the documents."""
    if documents.table is None:
        return tokenizer.frame
    return token_table.numbered_frame(tokenizer.frame)


def _columns(
    documents: sentence_pairs.TokenizedDocuments,
    ids: np.ndarray,
    spans: tuple[np.ndarray, np.ndarray],
    frame: tokenizers.Frame,
    tokenizer: tokenizers.Tokenizer,
    per_row: Mapping[str, np.ndarray] = types.MappingProxyType({}),
) -> records.Columns:
    row_splits, token_ids, segment_ids = packing.pack_spans(ids, *spans, frame)
    name = f"inputs/{tokenizer.feature}"
    per_token = {name: token_ids, "inputs/segment_ids": segment_ids}
    if documents.unit_starts is not None:
        per_token[f"inputs/{word_boundaries.FEATURE}"] = word_boundaries.pack(
            documents.unit_starts, *spans, frame
        )
    if documents.table is None:
        return records.Columns(row_splits, per_token, per_row)
    word_ids = token_table.word_ids(tokenizer, documents.table)
    per_token["inputs/word_ids"] = word_ids[token_ids]
    tables = {name: token_table.compact(documents.table)}
    return records.Columns(row_splits, per_token, per_row, tables)


def add_reports(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Combines the chunks' reports: sums counts, concatenates examples."""
    if not reports:
        return {}
    return {
        name: np.sum([report[name] for report in reports], axis=0).tolist()
        if name != "examples"
        else sum((report[name] for report in reports), [])
        for name in reports[0]
        # Version 0.1 did not count labels, and its chunks are not rebuilt.
        if all(name in report for report in reports)
    }


def _report(
    documents: sentence_pairs.TokenizedDocuments, settings: ShardSettings
) -> dict[str, Any]:
    tokenizer = settings.tokenizer
    classes = objectives.find(settings.objective).class_names
    return {
        "documents": len(documents.document_ends),
        "sentences": len(documents.sentence_ends),
        "tokens": len(documents.token_ids),
        "unknown": int(
            (_word_ids(documents, tokenizer) == tokenizer.unk_id).sum()
        ),
        "words": _count_words(documents, tokenizer),
        "lengths": [0] * (settings.seq_length + 1),  # rows of each length
        "examples": [],
        **({"labels": [0] * len(classes)} if classes else {}),
    }


def _word_ids(
    documents: sentence_pairs.TokenizedDocuments,
    tokenizer: tokenizers.Tokenizer,
) -> np.ndarray:
    if documents.table is None:
        return documents.token_ids
    return token_table.word_ids(tokenizer, documents.table)[documents.token_ids]


def _count_words(
    documents: sentence_pairs.TokenizedDocuments,
    tokenizer: tokenizers.Tokenizer,
) -> int:
    if documents.table is not None:
        rows = tf.RaggedTensor.from_row_lengths(
            documents.table, [len(documents.table)]
        )
        starts = tokenizer.word_starts(rows).values.numpy()
        return int(starts[documents.token_ids].sum())
    ids = tf.RaggedTensor.from_row_splits(
        tf.constant(documents.token_ids, tf.int32),
        np.append(0, documents.sentence_ends),
        validate=False,
    )
    return int(tf.math.count_nonzero(tokenizer.word_starts(ids).values))


def _count_rows(
    report: dict[str, Any],
    rows: records.Columns,
    settings: ShardSettings,
    *,
    with_examples: bool,
) -> None:
    counts = np.bincount(rows.lengths, minlength=settings.seq_length + 1)
    report["lengths"] = (np.array(report["lengths"]) + counts).tolist()
    labels = rows.per_row.get("targets/next_sentence/labels")
    if labels is not None:
        counts = np.bincount(labels, minlength=len(report["labels"]))
        report["labels"] = (np.array(report["labels"]) + counts).tolist()
    for row in range(
        min(NUM_EXAMPLES, len(rows.lengths)) if with_examples else 0
    ):
        start, stop = rows.row_splits[row : row + 2]
        name = f"inputs/{settings.tokenizer.feature}"
        ids = rows.per_token[name][start:stop]
        if name in rows.tables:
            ids = rows.tables[name][ids]
        report["examples"].append(
            {
                "text": " ".join(settings.tokenizer.tokens(ids)),
                "label": None if labels is None else int(labels[row]),
            }
        )


def _fingerprint(chunk: corpus_chunks.Chunk, settings: ShardSettings) -> str:
    # Contents, not paths: the same text and vocabulary give the same rows. Do
    # not rename or reorder the fields: that changes the fingerprints, and
    # existing shards would be rebuilt.
    masks = settings.masks and {
        "share": settings.masks.masked_lm_prob,
        "max_predictions": settings.masks.max_predictions_per_seq,
    }
    values = {
        "vocabulary": settings.tokenizer.fingerprint,
        **settings.tokenizer.settings,
        "seq_length": settings.seq_length,
        "objective": settings.objective,
        "passes": settings.passes,
        "seed": settings.seed,
        "masks": masks,
    }
    if settings.packing != "segments":
        values["packing"] = settings.packing
    if settings.boundaries:
        values["boundaries"] = dataclasses.asdict(settings.boundaries)
    digests = [document.digest for document in chunk.documents]
    text = json.dumps([values, chunk.split, chunk.number, digests])
    return hashlib.sha256(text.encode()).hexdigest()


def _earlier_result(
    folder: str, chunk_path: str, fingerprint: str
) -> dict[str, Any] | None:
    """Returns the result of an earlier, equal call if its shards are intact."""
    if not tf.io.gfile.exists(chunk_path):
        return None
    result = files.read_json(chunk_path)
    if result.get("fingerprint") != fingerprint:
        return None
    for entry in result["shards"]:
        if (
            files.checksum(os.path.join(folder, entry["name"]))
            != entry["sha256"]
        ):
            return None
    return result
