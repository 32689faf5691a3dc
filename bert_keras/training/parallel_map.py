"""Maps a function over items: here, in processes, or in a Beam pipeline."""

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
    """function(item) of every item, in order, over so many `processes`.

    Items are taken as they are needed, so a long list is never in memory.
    """
    if processes <= 1:
        yield from map(function, items)
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        processes,
        # TensorFlow does not survive a fork.
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
    # One thread each: the processes are the parallelism.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this process soon after its parent, which may have been killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def in_pipeline(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    runner: str,
    options: str,
) -> None:
    """The same on the workers of an Apache Beam runner; returns nothing.

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
