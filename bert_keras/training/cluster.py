"""Coordination between the workers of a multi-host run.

With the strategy multi_worker_mirrored every machine runs the same program:
all read the same files and compute the same steps, but only the chief writes.
"""

import contextlib
import dataclasses
import functools
import os
import signal
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from bert_keras import console, errors
from bert_keras.training import cluster_hosts


def in_cluster() -> int:
    """Returns the number of workers that the environment names, or 0.

    InputError as `cluster_hosts.read`.
    """
    hosts = cluster_hosts.read()
    return hosts.count if hosts else 0


def make_strategy() -> tf.distribute.Strategy:
    """Makes a MultiWorkerMirroredStrategy over the workers here."""
    hosts = cluster_hosts.read()
    if hosts is None:
        raise errors.InputError(
            "strategy=multi_worker_mirrored: expected the environment "
            f"variable {cluster_hosts.TF_CONFIG} with something like "
            f"{cluster_hosts.EXAMPLE}, several tasks of srun, or "
            f"{cluster_hosts.HOSTS}; none is set."
        )
    if hosts.source != cluster_hosts.TF_CONFIG:
        job, index = hosts.task
        console.say(
            f"{hosts.source}: worker {index} of {hosts.count}, at "
            f"{hosts.jobs[job][index]}"
        )
        # What TensorFlow and `Workers` read.
        os.environ[cluster_hosts.TF_CONFIG] = hosts.tf_config()
    return tf.distribute.MultiWorkerMirroredStrategy()


@dataclasses.dataclass(frozen=True)
class Workers:
    """The worker processes of a run; with one worker, no call blocks."""

    strategy: tf.distribute.Strategy

    @property
    def count(self) -> int:
        several = isinstance(
            self.strategy, tf.distribute.MultiWorkerMirroredStrategy
        )
        return max(1, in_cluster()) if several else 1

    @property
    def index(self) -> int:
        """This worker's index; 0 is the chief, or worker 0 without a chief."""
        if self.count == 1:
            return 0
        resolver = self.strategy.cluster_resolver
        chiefs = len(resolver.cluster_spec().as_dict().get("chief", ()))
        is_chief = resolver.task_type == "chief"
        return resolver.task_id + (0 if is_chief else chiefs)

    @property
    def is_chief(self) -> bool:
        return self.index == 0

    def barrier(self) -> None:
        """Blocks until all workers have reached this point."""
        self.all_gather(0.0)

    def all_gather(self, value: float) -> list[float]:
        """Returns all workers' values, in order; exact for integers < 2^53."""
        if self.count == 1:
            return [value]
        own = [0.0] * self.count
        own[self.index] = value
        return self._sum(own)

    def require_same(self, what: str, value: Any, output: str) -> None:
        """Raises InputError if the workers have different values."""
        same = zlib.crc32(str(value).encode())
        if len(set(self.all_gather(same))) > 1:
            raise errors.InputError(
                f"the workers do not have the same {what}. Start all with "
                f"the same command, and let output={output} be a folder that "
                "all of them see."
            )

    def broadcast_from_chief(self, value: float) -> float:
        """Returns the chief's value on every worker."""
        return self.all_gather(value)[0]

    def _sum(self, values: Sequence[float]) -> list[float]:
        return self._total(tf.constant(values, tf.float64)).numpy().tolist()

    @functools.cached_property
    def _total(self):
        """A tf.function that sums a vector over the workers."""
        local = self.strategy.num_replicas_in_sync // self.count

        def replica(values):
            context = tf.distribute.get_replica_context()
            # Count each worker once.
            counts = context.replica_id_in_sync_group % local == 0
            values = tf.where(counts, values, tf.zeros_like(values))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

        @tf.function(autograph=False)
        def total(values):
            result = self.strategy.run(replica, args=(values,))
            return self.strategy.experimental_local_results(result)[0]

        return total


@contextlib.contextmanager
def translate_collective_errors() -> Iterator[None]:
    """Raises InputError in place of TensorFlow's error if a worker is lost."""
    try:
        yield
    except tf.errors.OpError as error:
        # Unavailable, aborted or cancelled, depending on how it was lost.
        if "Collective ops is aborted" not in error.message:
            raise
        raise errors.InputError(
            "another worker has stopped; see its last line. Start all workers "
            "again with the same command; they continue from the last "
            "checkpoint."
        ) from None


class PreemptionNotice:
    """Handles SIGTERM, which announces preemption: the run saves and exits.

    The signal may reach only one worker, yet all must save the same step.
    Therefore each worker adds a flag to its batch, the train step sums the
    flags in its all-reduce, and every worker reads the sum from the metrics.
    It reads the previous step's metrics: reading this step's would block and
    leave the device idle. The run therefore saves one step after the signal.

    >>> with PreemptionNotice() as notice:
    ...     for batch in batches:
    ...         metrics = train_step(batch | {"stop_requested": notice.flag()})
    ...         if notice.is_due(metrics):
    ...             save()
    """

    def __init__(self):
        self._signals = 0
        self._stop_requested: tf.Tensor | None = None  # of the previous step

    def __enter__(self) -> "PreemptionNotice":
        # Python allows signal handlers only in the main thread.
        self._in_main = threading.current_thread() is threading.main_thread()
        if self._in_main:
            self._before = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        if self._in_main:
            signal.signal(signal.SIGTERM, self._before)

    def _on_signal(self, *_: object) -> None:
        self._signals += 1
        if self._signals == 1:
            console.say("asked to stop: saving after the next step")

    def flag(self) -> tf.Tensor:
        """Returns () float32: 1 if this process has received the signal."""
        return tf.constant(float(self._signals > 0))

    def is_due(self, metrics: Mapping[str, tf.Tensor]) -> bool:
        """Returns whether any worker's flag was set in the previous step."""
        before, self._stop_requested = (
            self._stop_requested,
            metrics["stop_requested"],
        )
        return before is not None and float(before) > 0
