"""Input of a training run: its initial checkpoint, records and batches."""

import itertools
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bert_keras import checkpoint, console, errors, formats
from bert_keras.data import batches as batches_lib
from bert_keras.data import records as records_lib
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers
from bert_keras.training import settings as settings_lib
from bert_keras.training import step as step_lib


def batches(
    strategy: tf.distribute.Strategy,
    task: base.Task,
    records: records_lib.Records,
    sampler: batches_lib.BatchSampler,
    *,
    steps: int = 0,
    **span: int,
) -> step_lib.Batches:
    """Returns the sampler's batches, randomized by the task, per replica.

    steps: those of the training, for tasks that read its progress; 0: all are
      done, as in an evaluation.
    """

    def make_stream(**shards):
        batches = batches_lib.stream(records, sampler, **(span | shards))
        return completed(task, batches, steps)

    return _distribute(strategy, make_stream)


def completed(
    task: base.Task, batches: tf.data.Dataset, steps: int = 0
) -> tf.data.Dataset:
    """Returns the batches randomized by the task, with derived features."""

    def complete(batch):
        batch = dict(batch)
        features = dict(batch["inputs"])
        if steps and task.reads_progress:
            step = tf.cast(batch["step"], tf.float32)
            features[base.PROGRESS] = step / steps
        features, targets = task.randomize(
            features, batch["targets"], batch.pop("seeds")
        )
        features = task.add_derived_features(features)
        return batch | {"inputs": features, "targets": targets}

    return batches.map(complete, num_parallel_calls=2, deterministic=True)


def _distribute(
    strategy: tf.distribute.Strategy,
    make_stream: Callable[..., tf.data.Dataset],
) -> step_lib.Batches:
    """Makes batches in which each replica has its own shard.

    make_stream(num_shards=, own_shards=) returns a dataset of the given shards
    of every batch: a worker reads only those of its own replicas.
    """
    num_shards = strategy.num_replicas_in_sync
    if num_shards == 1:
        stream = make_stream(num_shards=1, own_shards=range(1)).prefetch(2)
        return step_lib.Batches(stream.__iter__, stream.element_spec)
    per_replica = strategy.experimental_distribute_values_from_function
    ids = per_replica(lambda context: context.replica_id_in_sync_group)
    own = [int(i) for i in strategy.experimental_local_results(ids)]
    stream = make_stream(
        num_shards=num_shards, own_shards=range(own[0], own[-1] + 1)
    ).prefetch(2 * len(own))

    def make():
        # Not a distributed dataset: that synchronizes all workers at each step
        # to check that they have data, which the sampler guarantees.
        shards = iter(stream)
        for first in shards:
            local = [first, *itertools.islice(shards, len(own) - 1)]
            yield per_replica(
                lambda context, local=local: local[
                    context.replica_id_in_sync_group - own[0]
                ]
            )

    distributed = type(tf.type_spec_from_value(ids))
    return step_lib.Batches(
        make,
        tf.nest.map_structure(
            lambda spec: distributed(*[spec] * len(own)), stream.element_spec
        ),
    )


def sampler(
    task: base.Task,
    records: records_lib.Rows,
    *,
    row_length: int,
    batch_size: int,
    seed: int,
    shuffle: bool = True,
    bucket_lengths: bool = True,
) -> batches_lib.BatchSampler:
    """Returns a sampler of the records' batches for a task.

    Args:
      row_length: the maximum number of tokens in a row.
      bucket_lengths: False: all batches have the maximum lengths.

    Raises InputError if the records have targets and the task has none, or
    shorter ones.
    """

    def buckets(longest):
        return batches_lib.buckets(longest) if bucket_lengths else (longest,)

    lengths = records.target_lengths
    return batches_lib.BatchSampler(
        records.lengths,
        batch_size,
        seed=seed,
        shuffle=shuffle,
        buckets=buckets(row_length),
        target_lengths=lengths,
        target_buckets=()
        if lengths is None
        else buckets(_max_target_length(task, lengths)),
    )


def _max_target_length(task: base.Task, lengths: np.ndarray) -> int:
    """Returns the task's max_target_length; InputError if it is too small."""
    longest, maximum = int(lengths.max()), task.max_target_length
    if maximum is None or longest > maximum:
        raise errors.InputError(
            f"{task.name}: expected records with targets of at most "
            f"{maximum or 0} tokens (max_target_length), found one of "
            f"{longest}. Make the records again, for this task."
        )
    return maximum


def token_counts(records: records_lib.Rows) -> dict[str, int]:
    """Returns the numbers of tokens in the training rows, for a run's card."""
    counts = {"tokens in the training rows": int(records.lengths.sum())}
    if records.target_lengths is not None:
        counts["tokens in their targets"] = int(records.target_lengths.sum())
    return counts


def with_records(task: base.Task, records: records_lib.Records) -> base.Task:
    """Returns a task with what the records tell it, see Task.read_records."""

    def count_tokens() -> np.ndarray:
        size = records.tokenizer().vocab_size
        counts = np.zeros(size, np.int64)
        for values in records.token_values("inputs/token_ids"):
            counts += np.bincount(values, minlength=size)
        return counts

    return task.read_records(count_tokens)


def open_records(
    folder: str,
) -> tuple[records_lib.Records, records_lib.Records | None]:
    """Opens the training records and the dev records (None if missing)."""
    dev = os.path.join(folder, "dev")
    train = records_lib.Records(os.path.join(folder, "train"))
    if not records_lib.is_complete(dev):
        console.say(f"{folder} holds no dev records: nothing will be evaluated")
        return train, None
    held_out = records_lib.Records(dev)
    if held_out.manifest["tokenizer"] != train.manifest["tokenizer"]:
        raise errors.InputError(
            f"{folder}/train and {folder}/dev have different vocabularies; "
            "prepare them again."
        )
    return train, held_out


def same_vocabulary(
    source: checkpoint.Checkpoint,
    tokenizer: tokenizers.Tokenizer,
    records: str,
) -> None:
    source_tokenizer = source.tokenizer()
    if source_tokenizer.fingerprint != tokenizer.fingerprint:
        raise errors.InputError(
            f"{records} was written with another vocabulary "
            f"({tokenizer.vocab_size:,} entries, {tokenizer.fingerprint}) than "
            f"{source.folder} ({source_tokenizer.vocab_size:,}, "
            f"{source_tokenizer.fingerprint}). Prepare the records with the "
            "checkpoint's vocab.txt."
        )


def read_init(
    settings: settings_lib.TrainSettings, init: str
) -> checkpoint.Checkpoint:
    """Opens the checkpoint that a run starts from, in any format."""
    folder = formats.locate(init)
    if folder != init:
        console.say(f"{init} is read from {folder}")
    is_external = formats.find(folder) is not None
    source = formats.read(
        folder,
        lowercase=settings.lowercase if is_external else None,
        allow_missing=settings.allow_missing if is_external else "",
    )
    if not is_external:
        # Do not refuse them: a run that was started with them must resume.
        _report_unused(settings, init)
    if source.unknown_task_reason:
        console.say(
            f"{init}: its head is left out: {source.unknown_task_reason}"
        )
    return source


def _report_unused(settings: settings_lib.TrainSettings, init: str) -> None:
    """Reports settings for external formats, which a native `init` ignores."""
    names = ["`lowercase`"] if settings.lowercase is not None else []
    if settings.allow_missing:
        names.append("`allow_missing`")
    if names:
        console.say(
            f"{init} is a native checkpoint: {' and '.join(names)} has no "
            "effect"
        )
