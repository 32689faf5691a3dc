"""Maps a function over items, in worker processes or in a Beam pipeline."""

import collections
import concurrent.futures
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf

from bert_keras import errors


def in_order(
    function: Callable[[Any], Any], items: Iterable[Any], processes: int
) -> Iterator[Any]:
    """Yields function(item) for every item, in order, from `processes` workers.

    Reads items lazily, so a long stream is never in memory.
    """
    if processes <= 1:
        yield from map(function, items)
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        processes,
        # spawn, because TensorFlow does not support fork.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(os.getpid(),),
    )
    with pool:
        running: collections.deque[concurrent.futures.Future[Any]] = (
            collections.deque()
        )
        try:
            for item in items:
                running.append(pool.submit(function, item))
                if len(running) > 2 * processes:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except concurrent.futures.process.BrokenProcessPool:
            raise errors.InputError(
                "a worker process was killed, probably out of memory. Run "
                "the same command again, with fewer `workers`.",
                argument="workers",
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(parent: int) -> None:
    # One thread per process: the parallelism is across processes.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Exits this process after its parent ends, even if that was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def in_pipeline(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    runner: str,
    options: str,
) -> None:
    """Calls function(item) for every item on the workers of a Beam runner.

    Args:
      options: the runner's own options, as on a command line.
    """
    try:
        import apache_beam as beam
        from apache_beam.options import pipeline_options
    except ImportError:
        raise errors.InputError(
            f"runner={runner} needs Apache Beam: pip install "
            "'bert-keras[beam]', or pip install apache-beam.",
            argument="runner",
        ) from None
    chosen = pipeline_options.PipelineOptions(
        [f"--runner={runner}", *options.split()]
    )
    with beam.Pipeline(options=chosen) as pipeline:
        (
            pipeline
            | beam.Create(list(items))
            # Items are large: reshuffle, so that idle workers pick them up.
            | beam.Reshuffle()
            | beam.Map(function)
        )
