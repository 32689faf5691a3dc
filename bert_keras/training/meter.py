"""Measures the throughput of a run between two log lines."""

import contextlib
import time
from collections.abc import Iterable, Iterator

from bert_keras.training import step as step_lib

# Timing fields of the log; all other fields are deterministic.
TIMES = ("rows_per_second", "tokens_per_second", "waiting_for_data")


class Meter:
    """Counts rows, tokens and seconds since the last call of `rates`.

    Reading metrics blocks on the device, so the metrics of each step are kept
    as tensors until `unread` is called.
    """

    def __init__(self, batch_size: int, step: int):
        self.batch_size = batch_size
        self.step = step  # at the last call of `rates`
        self.start = self.since = time.monotonic()
        self.tokens = self.waited = 0.0
        self._metrics: list[tuple[int, step_lib.Metrics]] = []

    def timed(
        self, batches: Iterable[step_lib.Batch]
    ) -> Iterator[step_lib.Batch]:
        """Yields the batches and measures the time spent waiting for them."""
        batches = iter(batches)
        while True:
            start = time.monotonic()
            batch = next(batches, None)
            self.waited += time.monotonic() - start
            if batch is None:
                return
            yield batch

    def add(self, step: int, metrics: step_lib.Metrics) -> None:
        # Keep two metrics only: there may be hundreds of unread steps.
        metrics = {name: metrics[name] for name in ("tokens", "skipped")}
        self._metrics.append((step, metrics))

    def unread(self) -> Iterator[tuple[int, bool]]:
        """Yields (step, whether its update was skipped) of the unread steps."""
        metrics, self._metrics = self._metrics, []
        for step, each in metrics:
            self.tokens += float(each["tokens"])
            yield step, bool(each["skipped"])

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time spent in the `with` block from the rates."""
        start = time.monotonic()
        yield
        self.since += time.monotonic() - start

    def rates(self, step: int) -> dict[str, float]:
        """Returns TIMES, averaged from the last call to the end of `step`."""
        now = time.monotonic()
        rows = self.batch_size * (step - self.step)
        amounts = rows, self.tokens, self.waited
        rates = [amount / (now - self.since) for amount in amounts]
        self.since, self.step, self.tokens, self.waited = now, step, 0.0, 0.0
        return dict(zip(TIMES, rates, strict=True))

    @property
    def seconds(self) -> float:
        """Seconds since the start, including pauses."""
        return time.monotonic() - self.start
