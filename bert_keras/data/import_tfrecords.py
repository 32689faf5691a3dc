"""Imports Google's TFRecord files as records that keep the files' masks."""

import itertools
import os
from collections.abc import Sequence
from typing import Any

from bert_keras.data import google_tfrecords
from bert_keras.data import held_out as held_out_lib
from bert_keras.data import records as records_lib
from bert_keras.tokenizers import base as tokenizers

ROWS_PER_SHARD = 100_000


def import_google_tfrecords(
    paths: Sequence[str],
    tokenizer: tokenizers.Tokenizer,
    *,
    output: str,
    objective: str,
    held_out: float,
    **metadata: Any,
) -> tuple[int, int]:
    """Writes `output`/train and `output`/dev.

    objective: nsp, sop or none; the files do not contain it.
    held_out: fraction of the rows to write to dev.
    metadata: further fields of the manifests.

    Returns (number of rows, length of the longest row).
    """
    shards: dict[str, list[Any]] = {"train": [], "dev": []}
    records = google_tfrecords.read(paths, vocab_size=tokenizer.vocab_size)
    longest = total = 0
    while block := list(itertools.islice(records, ROWS_PER_SHARD)):
        records_by_split: dict[str, list[Any]] = {"train": [], "dev": []}
        for number, record in enumerate(block, total):
            if objective == "none":
                for array in ("labels", "weights"):
                    del record[f"targets/next_sentence/{array}"]
            is_dev = held_out_lib.is_held_out(number, held_out)
            records_by_split["dev" if is_dev else "train"].append(record)
            longest = max(longest, len(record["inputs/token_ids"]))
        total += len(block)
        for split, split_records in records_by_split.items():
            if split_records:
                name = records_lib.shard_name(len(shards[split]))
                path = os.path.join(output, split, name)
                columns = records_lib.columns_of(
                    split_records, per_token=records_lib.PER_TOKEN
                )
                shards[split].append(records_lib.write_shard(path, columns))
    # Training records last: their manifest marks the import as complete.
    for split in ("dev", "train"):
        if shards[split]:
            folder = os.path.join(output, split)
            tokenizer.save(folder)
            records_lib.write_manifest(
                folder,
                shards[split],
                seq_length=longest,
                objective=objective,
                **records_lib.tokenizer_metadata(tokenizer),
                **metadata,
            )
    return total, longest
