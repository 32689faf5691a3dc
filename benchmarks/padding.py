"""Measures the fraction of padding in batches, with and without length buckets.

python -m benchmarks.padding --records=rec/train,runs/sst2/records
"""

import numpy as np
import rich.console
import rich.table
from absl import flags

import benchmarks
from bert_keras.data import batches, records

RECORDS = flags.DEFINE_list(
    "records", None, "Folders of records.", required=True
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Rows per batch.", 1)


def padding_fraction(
    lengths: np.ndarray, longest: int, grouped: bool, buckets: tuple[int, ...]
) -> float:
    """Returns the fraction of padding among the positions of one epoch.

    longest: length of every batch if there are no `buckets`.
    grouped: batches have rows of similar length.
    """
    sampler = batches.BatchSampler(
        lengths, BATCH_SIZE.value, seed=1, shuffle=grouped, buckets=buckets
    )
    positions = 0
    random = np.random.default_rng(1)
    order = random.permutation(len(lengths))
    for step in range(sampler.steps_per_epoch):
        rows = sampler.rows(step)
        rows = rows if grouped else np.where(rows < 0, -1, order[rows])
        length = sampler.length(rows) if buckets else longest
        positions += length * (rows >= 0).sum()
    return 1 - lengths.sum() / positions


def main(_):
    table = rich.table.Table(title=f"Padding, batches of {BATCH_SIZE.value}")
    for column in (
        "records",
        "rows",
        "tokens per row",
        "one length",
        "buckets, any order",
        "buckets, by length",
        "batch lengths",
    ):
        table.add_column(column)
    for folder in RECORDS.value:
        folder_records = records.Records(folder)
        lengths = folder_records.lengths
        longest = folder_records.manifest.get("seq_length", int(lengths.max()))
        buckets = batches.buckets(longest)
        sampler = batches.BatchSampler(
            lengths, BATCH_SIZE.value, seed=1, buckets=buckets
        )
        batch_lengths = {
            sampler.length(sampler.rows(step))
            for step in range(sampler.steps_per_epoch)
        }
        table.add_row(
            folder,
            f"{len(lengths):,}",
            f"{lengths.mean():.1f}",
            f"{padding_fraction(lengths, longest, False, ()):.1%}",
            f"{padding_fraction(lengths, longest, False, buckets):.1%}",
            f"{padding_fraction(lengths, longest, True, buckets):.1%}",
            str(len(batch_lengths)),
        )
    rich.console.Console(width=120).print(table)


if __name__ == "__main__":
    benchmarks.run(main)
