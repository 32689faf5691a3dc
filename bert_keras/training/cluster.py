"""Coordination between the workers of a multi-host run.

With the strategy multi_worker_mirrored every machine runs the same program.
All read the same files and compute the same steps; the chief alone writes.
"""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from bert_keras import errors

EXAMPLE = (
    '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


def in_cluster() -> int:
    """Workers that TF_CONFIG names; 0 where it is not set.

    Raises InputError when it does not say who is who.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return 0
    try:
        values = json.loads(text)
        jobs = {
            job: hosts
            for job, hosts in values["cluster"].items()
            if job in ("chief", "worker")
        }
        task = values["task"]
        jobs[task["type"]][task["index"]]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise errors.InputError(
            f"TF_CONFIG: expected JSON like {EXAMPLE}, with this machine as "
            f"the task; found {text}."
        ) from None
    return sum(map(len, jobs.values()))


def make_strategy() -> tf.distribute.Strategy:
    """A MultiWorkerMirroredStrategy over the workers of TF_CONFIG."""
    count = in_cluster()
    if not count:
        raise errors.InputError(
            "strategy=multi_worker_mirrored: expected the environment "
            f"variable TF_CONFIG with something like {EXAMPLE}; it is not set."
        )
    return tf.distribute.MultiWorkerMirroredStrategy()


@dataclasses.dataclass(frozen=True)
class Workers:
    """The processes of a run; a single process never waits."""

    strategy: tf.distribute.Strategy

    @property
    def count(self) -> int:
        several = isinstance(
            self.strategy, tf.distribute.MultiWorkerMirroredStrategy
        )
        return max(1, in_cluster()) if several else 1

    @property
    def index(self) -> int:
        """0 for the chief, which is the first worker where none is named so."""
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
        """Each worker's value, in order; exact for integers below 2^53."""
        if self.count == 1:
            return [value]
        own = [0.0] * self.count
        own[self.index] = value
        return self._sum(own)

    def require_same(self, what: str, value: Any, output: str) -> None:
        """Raises InputError where the workers have different values."""
        same = zlib.crc32(str(value).encode())
        if len(set(self.all_gather(same))) > 1:
            raise errors.InputError(
                f"the workers do not have the same {what}. Start all with "
                f"the same command, and let output={output} be a folder that "
                "all of them see."
            )

    def broadcast_from_chief(self, value: float) -> float:
        """The chief's value, on every worker."""
        return self.all_gather(value)[0]

    def _sum(self, values: Sequence[float]) -> list[float]:
        return self._total(tf.constant(values, tf.float64)).numpy().tolist()

    @functools.cached_property
    def _total(self):
        """The sum of a vector over the workers; traced once."""
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
    """Raises InputError when another worker disappears during a step."""
    try:
        yield
    except tf.errors.OpError as error:
        # Unavailable, aborted or cancelled, depending on how it disappeared.
        if "Collective ops is aborted" not in error.message:
            raise
        raise errors.InputError(
            "another worker has stopped; see its last line. Start all workers "
            "again with the same command; they continue from the last "
            "checkpoint."
        ) from None


class PreemptionNotice:
    """SIGTERM: the machine is about to be taken away, so save and leave.

    The signal may reach one worker only, yet all must save the same step. So
    each worker adds a flag to its batch, the train step sums the flags in the
    all-reduce that it makes anyway, and every worker finds the sum in the
    metrics. These are read one step late: the metrics of the step before are
    on the host by now, while waiting for those of this step would leave the
    device without work. The run therefore saves one step after the signal.

    >>> with PreemptionNotice() as notice:
    ...     for batch in batches:
    ...         metrics = train_step(batch | {"stop_requested": notice.flag()})
    ...         if notice.is_due(metrics):
    ...             save()
    """

    def __init__(self):
        self._signals = 0
        self._stop_requested: tf.Tensor | None = None  # of the step before

    def __enter__(self) -> "PreemptionNotice":
        # Python handles signals in its main thread alone.
        self._in_main = threading.current_thread() is threading.main_thread()
        if self._in_main:
            self._before = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        if self._in_main:
            signal.signal(signal.SIGTERM, self._before)

    def _on_signal(self, *_: object) -> None:
        self._signals += 1

    def flag(self) -> tf.Tensor:
        """() float32, 1 if this process has received the signal."""
        return tf.constant(float(self._signals > 0))

    def is_due(self, metrics: Mapping[str, tf.Tensor]) -> bool:
        """Whether a worker's flag was set in the step before this one."""
        before, self._stop_requested = (
            self._stop_requested,
            metrics["stop_requested"],
        )
        return before is not None and float(before) > 0
