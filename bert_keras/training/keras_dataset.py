"""Datasets of labelled texts for Keras' own `fit` and `evaluate`."""

import collections
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bert_keras import console, errors, labelled_examples, options
from bert_keras.data import batches as batches_lib
from bert_keras.data import records as records_lib
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers
from bert_keras.training import input_pipeline, labelled_records
from bert_keras.types import StrPath


def to_dataset(
    texts: StrPath | Iterable[Any],
    labels: Iterable[Any] | None,
    task: base.Task,
    tokenizer: tokenizers.Tokenizer,
    *,
    batch_size: int = 32,
    shuffle: bool = True,
    seed: int = 1,
) -> tf.data.Dataset:
    """Returns a dataset for Keras' `fit` and `evaluate` of a BertModel.

    >>> start = bert_keras.load("runs/base", task=bert_keras.tasks.
    ...     Classification(labels=("negative", "positive")))
    >>> data = bert_keras.to_dataset(
    ...     ["a fine film", "a dull one"], ["positive", "negative"],
    ...     start.task, start.tokenizer, batch_size=2)
    >>> start.model.compile(optimizer="adamw", weighted_metrics=["accuracy"])
    >>> history = start.model.fit(data, epochs=3, verbose=0)
    >>> start.predict("a fine film")[0]["label"]
    '...tive'

    Its batches are (features, labels by loss term, weights by loss term). Texts
    of similar length share a batch, which is padded to one of a few lengths.
    Each iteration of the dataset has a new order and, for a masked language
    model, new masks. `fit` needs no `shuffle`; Keras warns that it ignores that
    argument for a tf.data.Dataset. The texts are tokenized once, here, and stay
    in memory.

    Args:
      texts: as in `Predictor.predict`, or the path of a labelled file.
      labels: the label of each text, as in `Task.make_example`; None for a
        file, and for a masked language model.
      task: a task with its labels, as its `adapt` sets them.
      tokenizer: the tokenizer of the model, as in `load(...).tokenizer`.
      batch_size: number of rows in a batch; one batch may have fewer.
      shuffle: False for validation data: the same order and masks each time.
      seed: number from which the orders and the masks are drawn.
    """
    _check(task, batch_size, seed)
    examples = labelled_examples.read(task, texts, labels)
    if not examples:
        raise errors.InputError("expected texts to learn from, found none.")
    rows = _rows(task, tokenizer, examples)
    sampler = input_pipeline.sampler(
        task,
        rows,
        row_length=task.max_row_length,
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
    )
    batches = batches_lib.epochs(rows, sampler)
    batches = input_pipeline.completed(task, batches)
    return batches.map(_for_keras).prefetch(2)


def _check(task: base.Task, batch_size: int, seed: int) -> None:
    options.require_whole(batch_size=batch_size)
    is_whole = isinstance(seed, (int, np.integer)) and not isinstance(
        seed, bool
    )
    if not is_whole or not 0 <= seed <= options.MAX_SEED:
        raise errors.InputError(
            f"seed: expected a whole number from 0 to {options.MAX_SEED}, "
            f"found {seed!r}.",
            argument="seed",
        )
    base.require_task(task)


def _rows(
    task: base.Task,
    tokenizer: tokenizers.Tokenizer,
    examples: Sequence[base.Example],
) -> records_lib.Rows:
    """Tokenizes the examples and prints how many were truncated."""
    counts: collections.Counter[str] = collections.Counter()
    records = list(labelled_records.encode(task, tokenizer, examples, counts))
    if counts["truncated"]:
        console.say(
            f"truncated: {counts['truncated']:,} of {len(examples):,} texts, "
            f"at {task.seq_length} tokens"
        )
    return records_lib.Rows.of_columns(
        labelled_records.to_columns(task, tokenizer, records)
    )


def _for_keras(batch: dict[str, Any]) -> tuple[Any, Any, Any]:
    labels, weights = (
        {term: pair[index] for term, pair in batch["targets"].items()}
        for index in (0, 1)
    )
    return batch["inputs"], labels, weights
