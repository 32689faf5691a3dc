"""Measures the share of padding in batches, with and without length buckets.

python -m benchmarks.padding --records=rec/train,runs/sst2/records
"""

import numpy as np
import rich.console
import rich.table
from absl import flags

import benchmarks
from bert_keras.data import batches, records

RECORDS = flags.DEFINE_list("records", None, "Record folders.", required=True)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Rows.", 1)


def padding(
    lengths: np.ndarray, longest: int, grouped: bool, buckets: tuple[int, ...]
) -> float:
    """Returns the share of padding among the positions of one epoch."""
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
        "tokens in a row",
        "all to the longest",
        "any order, bucketed",
        "by length, bucketed",
        "lengths that occur",
    ):
        table.add_column(column)
    for folder in RECORDS.value:
        records_read = records.Records(folder)
        lengths = records_read.lengths
        longest = records_read.manifest.get("seq_length", int(lengths.max()))
        buckets = batches.buckets(longest)
        sampler = batches.BatchSampler(
            lengths, BATCH_SIZE.value, seed=1, buckets=buckets
        )
        shapes = {
            sampler.length(sampler.rows(step))
            for step in range(sampler.steps_per_epoch)
        }
        table.add_row(
            folder,
            f"{len(lengths):,}",
            f"{lengths.mean():.1f}",
            f"{padding(lengths, longest, False, ()):.1%}",
            f"{padding(lengths, longest, False, buckets):.1%}",
            f"{padding(lengths, longest, True, buckets):.1%}",
            str(len(shapes)),
        )
    rich.console.Console(width=120).print(table)


if __name__ == "__main__":
    benchmarks.run(main)
