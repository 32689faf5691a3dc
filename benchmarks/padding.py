"""Measures the fraction of padding in batches, with and without length buckets.

python -m benchmarks.padding --records=rec/train,runs/sst2/records
"""

from collections.abc import Iterator

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


def sampler(
    folder: records.Records, grouped: bool, buckets: bool
) -> batches.BatchSampler:
    """Returns a sampler of rows of similar length (grouped), or of any."""

    def lengths(longest):
        return batches.buckets(longest) if buckets else (longest,)

    targets = {}
    if folder.target_lengths is not None:
        targets = {
            "target_lengths": folder.target_lengths,
            "target_buckets": lengths(folder.manifest["longest_target"]),
        }
    longest = folder.manifest.get("seq_length", folder.manifest["longest"])
    return batches.BatchSampler(
        folder.lengths,
        BATCH_SIZE.value,
        seed=1,
        shuffle=grouped,
        buckets=lengths(longest),
        **targets,
    )


def steps(
    folder: records.Records, sampler: batches.BatchSampler
) -> Iterator[np.ndarray]:
    """Yields the rows of each batch of an epoch, without empty ones."""
    order = np.random.default_rng(1).permutation(len(folder))
    for step in range(sampler.steps_per_epoch):
        rows = sampler.rows(step)
        rows = rows[rows >= 0]
        yield rows if sampler.shuffle else order[rows]


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
    for path in RECORDS.value:
        folder = records.Records(path)
        samplers = [
            sampler(folder, grouped, buckets)
            for grouped, buckets in (
                (False, False),
                (False, True),
                (True, True),
            )
        ]
        axes = [(path, folder.lengths, [each.length for each in samplers])]
        if folder.target_lengths is not None:
            padded_lengths = [each.target_length for each in samplers]
            axes.append(("its targets", folder.target_lengths, padded_lengths))
        for name, lengths, padded_lengths in axes:
            fractions = []
            for each, padded_length in zip(
                samplers, padded_lengths, strict=True
            ):
                batch_lengths = [
                    (padded_length(rows), len(rows))
                    for rows in steps(folder, each)
                ]
                positions = sum(length * rows for length, rows in batch_lengths)
                fractions.append(f"{1 - lengths.sum() / positions:.1%}")
            table.add_row(
                name,
                f"{len(lengths):,}",
                f"{lengths.mean():.1f}",
                *fractions,
                str(len({length for length, _ in batch_lengths})),
            )
    rich.console.Console(width=120).print(table)


if __name__ == "__main__":
    benchmarks.run(main)
