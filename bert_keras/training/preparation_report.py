"""Summary of prepared records: counts, lengths and example rows."""

import os
from typing import Any

import tensorflow as tf

from bert_keras import files
from bert_keras.data import corpus_chunks
from bert_keras.data import records as records_lib
from bert_keras.sentence_objectives import base as objectives
from bert_keras.tokenizers import base as tokenizers
from bert_keras.tokenizers import wordpiece
from bert_keras.training import plots


def make(
    output: str,
    partition: corpus_chunks.Partition,
    tokenizer: tokenizers.Tokenizer,
    seconds: float,
) -> dict[str, Any]:
    """Returns counts and some rows; also writes `output`/lengths.png."""
    manifest = files.read_json(
        os.path.join(output, "train", records_lib.MANIFEST)
    )
    report = manifest["report"]
    dev = os.path.join(output, "dev", records_lib.MANIFEST)
    held_out = "none: too few documents, see `dev_fraction`"
    if tf.io.gfile.exists(dev):
        held_out = f"{files.read_json(dev)['rows']:,}"
    picture = os.path.join(output, "lengths.png")
    histogram = plots.histogram(
        report["lengths"], title="Training rows by number of tokens"
    )
    files.write(picture, histogram)
    tokens = report["tokens"]
    is_wordpiece = isinstance(tokenizer, wordpiece.Tokenizer)
    unit = "wordpieces" if is_wordpiece else "tokens"
    summary = {
        "documents": partition.num_documents,
        "duplicate documents left out": partition.num_duplicates,
        "sentences": report["sentences"],
        "vocabulary": f"{tokenizer.vocab_size:,} entries" + _casing(tokenizer),
        "tokens in the text": tokens,
        tokenizer.vocabulary[
            tokenizer.unk_id
        ]: f"{report['unknown'] / tokens:.4%} of the tokens",
        f"{unit} per word": tokens / max(1, report["words"]),
        "training rows": manifest["rows"],
        "held-out rows": held_out,
        "tokens per row": f"{manifest['tokens'] / manifest['rows']:.1f} on "
        f"average, {manifest['longest']} at most; see {picture}",
        "time": f"{seconds:.1f} s, "
        f"{partition.num_bytes / 1e6 / seconds:.1f} MB/s",
    }
    names = objectives.class_names(manifest)
    if counts := report.get("labels"):
        summary["pairs"] = ", ".join(
            f"{count / sum(counts):.1%} {name}"
            for name, count in zip(names, counts, strict=True)
        )
    for number, example in enumerate(report["examples"], 1):
        label = example["label"]
        prefix = "" if label is None else f"{names[label]}: "
        summary[f"row {number}"] = prefix + example["text"]
    return summary


def _casing(tokenizer: tokenizers.Tokenizer) -> str:
    lowercase = tokenizer.to_dict().get("lowercase")
    if lowercase is None:
        return ""
    return ", lower case" if lowercase else ", cased"
