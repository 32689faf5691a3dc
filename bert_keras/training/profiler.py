"""Writes a profile of a few training steps for TensorBoard."""

import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from bert_keras import console

TRACED = range(11, 16)  # steps since the start of a run


class Profiler:
    """Wraps a train step and profiles the calls in TRACED.

    The first calls trace graphs and are not profiled. The trace includes
    whatever the run does between the profiled steps, such as an evaluation.

    >>> with Profiler(train_step, run) as train_step:
    ...     metrics = train_step(batch)
    """

    def __init__(
        self,
        step: Callable[..., dict[str, tf.Tensor]],
        run: str,
        *,
        on: bool = True,
    ):
        self.step = step
        self.folder = os.path.join(run, "profile")
        self.calls, self.on, self.tracing = 0, on, False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def __call__(self, batch: Any) -> dict[str, tf.Tensor]:
        if not self.on:
            return self.step(batch)
        self.calls += 1
        if self.calls == TRACED.start:
            tf.profiler.experimental.start(self.folder)
            self.tracing = True
        metrics = self.step(batch)
        # Read the loss, to wait until the device has finished the step.
        if self.calls in (TRACED.start - 1, TRACED[-1]):
            float(metrics["loss"])
        if self.calls == TRACED[-1]:
            self._stop()
        return metrics

    def _stop(self) -> None:
        if self.tracing:
            tf.profiler.experimental.stop()
            self.tracing = False
            console.say(
                f"traced some steps: tensorboard --logdir={self.folder}"
            )
