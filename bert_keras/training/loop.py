"""The loop around a step: batches in, actions between."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

from bert_keras.training import step as step_lib


def evaluate(
    evaluate_step, batches: Iterable[step_lib.Batch]
) -> dict[str, float]:
    """Means over all batches: sums and weights travel, means come last."""
    totals: dict[str, Any] = {}
    for batch in batches:
        for name, pair in evaluate_step(batch).items():
            totals[name] = totals.get(name, 0.0) + pair.numpy()
    return {
        name: float(total / weight) if weight else 0.0
        for name, (total, weight) in totals.items()
    }


@dataclasses.dataclass(frozen=True)
class every:  # noqa: N801 (reads as a phrase: every(100, save))
    """An action at steps count, 2 count, ... and after the last step.

    Steps are counted from 1; count 0 means after the last step only. An
    action that returns True ends the run.
    """

    count: int
    action: Callable[[int, step_lib.Metrics], bool | None]


def train(
    train_step: Callable[[step_lib.Batch], step_lib.Metrics],
    batches: Iterable[step_lib.Batch],
    *,
    start: int,
    stop: int,
    actions: Sequence[every] = (),
) -> int:
    """Runs steps start..stop - 1; returns the number of steps done.

    After each, the actions that are due see the number of steps done and the
    metrics, which stay on the device until an action reads them.
    """
    done = start
    for done, batch in zip(range(start + 1, stop + 1), batches, strict=False):
        metrics = train_step(batch)
        ends = [
            each.action(done, metrics)
            for each in actions
            if done == stop or (each.count and done % each.count == 0)
        ]
        if any(ends):
            break
    return done


def distribute(
    strategy: tf.distribute.Strategy,
    make_stream: Callable[..., tf.data.Dataset],
) -> Iterable[step_lib.Batch]:
    """Batches of a stream, each replica getting its own part of each step.

    make_stream(parts=, own=) makes the stream of some parts of every batch:
    a worker reads those of its own replicas.
    """
    parts = strategy.num_replicas_in_sync
    if parts == 1:
        yield from make_stream(parts=1, own=range(1)).prefetch(2)
        return
    own: list[int] = []
    per_replica = strategy.experimental_distribute_values_from_function
    per_replica(lambda context: own.append(context.replica_id_in_sync_group))
    own_parts = range(own[0], own[-1] + 1)
    stream = iter(
        make_stream(parts=parts, own=own_parts).prefetch(2 * len(own))
    )
    # Not a distributed dataset: over several workers that asks all of them,
    # at each step, whether they have data; by the plan they all have.
    for first in stream:
        local = [first, *itertools.islice(stream, len(own) - 1)]
        yield per_replica(
            lambda context, local=local: local[
                context.replica_id_in_sync_group - own[0]
            ]
        )
