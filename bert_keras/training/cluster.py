"""What the processes of one run tell each other, and which one writes.

With `--strategy=multi_worker_mirrored` every machine runs the same program.
All read the same files and compute the same steps; worker 0 alone writes.
"""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import zlib
from collections.abc import Iterator, Sequence
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
            "--strategy=multi_worker_mirrored: expected the environment "
            f"variable TF_CONFIG with something like {EXAMPLE}; it is not set."
        )
    return tf.distribute.MultiWorkerMirroredStrategy()


@dataclasses.dataclass(frozen=True)
class Workers:
    """The processes of a run; one process waits for nobody."""

    strategy: tf.distribute.Strategy

    @property
    def count(self) -> int:
        several = isinstance(
            self.strategy, tf.distribute.MultiWorkerMirroredStrategy
        )
        return max(1, in_cluster()) if several else 1

    @property
    def index(self) -> int:
        """0 for the one that writes: the chief, or the first worker."""
        if self.count == 1:
            return 0
        resolver = self.strategy.cluster_resolver
        chiefs = len(resolver.cluster_spec().as_dict().get("chief", ()))
        is_chief = resolver.task_type == "chief"
        return resolver.task_id + (0 if is_chief else chiefs)

    @property
    def writes(self) -> bool:
        return self.index == 0

    def wait(self) -> None:
        """Returns once every worker has come here."""
        self.gather(0.0)

    def gather(self, value: float) -> list[float]:
        """Each worker's value, in order; exact for integers below 2^53."""
        if self.count == 1:
            return [value]
        own = [0.0] * self.count
        own[self.index] = value
        return self._sum(own)

    def require_same(self, what: str, value: Any, output: str) -> None:
        """Raises InputError where not all workers have one value."""
        same = zlib.crc32(str(value).encode())
        if len(set(self.gather(same))) > 1:
            raise errors.InputError(
                f"the workers do not have the same {what}. Start all with "
                f"the same command, and let --output={output} be a folder that "
                "all of them see."
            )

    def of_writer(self, value: float) -> float:
        """The value that worker 0 has."""
        return self.gather(value)[0]

    def _sum(self, values: Sequence[float]) -> list[float]:
        return self._total(tf.constant(values, tf.float64)).numpy().tolist()

    @functools.cached_property
    def _total(self):
        """The sum of a vector over the workers; traced once."""
        local = self.strategy.num_replicas_in_sync // self.count

        def replica(values):
            context = tf.distribute.get_replica_context()
            # One replica of each worker speaks for it.
            speaks = context.replica_id_in_sync_group % local == 0
            values = tf.where(speaks, values, tf.zeros_like(values))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

        @tf.function(autograph=False)
        def total(values):
            result = self.strategy.run(replica, args=(values,))
            return self.strategy.experimental_local_results(result)[0]

        return total


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Raises InputError when a worker went away in the middle of a step."""
    try:
        yield
    except tf.errors.OpError as error:
        # Unavailable, aborted or cancelled, by how it went.
        if "Collective ops is aborted" not in error.message:
            raise
        raise errors.InputError(
            "another worker is gone, see its own last line. Start all workers "
            "again with the same command; they go on from the last checkpoint."
        ) from None


@contextlib.contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """A list that holds something once SIGTERM came: a preemption's notice."""
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
