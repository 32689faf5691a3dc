"""Meter: the speed of a run between two lines of its log."""

import contextlib
import time
from collections.abc import Iterable, Iterator

from bert_keras.training import step as step_lib

# What a log says of time: other numbers are the same in every run.
TIMES = ("rows_per_second", "tokens_per_second", "waiting_for_data")


class Meter:
    """Counts rows, tokens and seconds since the last `rates`.

    Reading a step's metrics waits for the device, so those of the steps since
    the last reading are kept until somebody calls `unread`.
    """

    def __init__(self, batch_size: int, step: int):
        self.batch_size = batch_size
        self.step = step  # of the last `rates`
        self.start = self.since = time.monotonic()
        self.tokens = self.waited = 0.0
        self._metrics: list[tuple[int, step_lib.Metrics]] = []

    def timed(
        self, batches: Iterable[step_lib.Batch]
    ) -> Iterator[step_lib.Batch]:
        """The batches; measures how long the run waits for them."""
        batches = iter(batches)
        while True:
            start = time.monotonic()
            batch = next(batches, None)
            self.waited += time.monotonic() - start
            if batch is None:
                return
            yield batch

    def add(self, step: int, metrics: step_lib.Metrics) -> None:
        # Not all of them: some hundreds of steps may wait here.
        metrics = {name: metrics[name] for name in ("tokens", "skipped")}
        self._metrics.append((step, metrics))

    def unread(self) -> Iterator[tuple[int, bool]]:
        """(step, whether its update was skipped) of the steps not read yet."""
        metrics, self._metrics = self._metrics, []
        for step, each in metrics:
            self.tokens += float(each["tokens"])
            yield step, bool(each["skipped"])

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time within from the rates."""
        start = time.monotonic()
        yield
        self.since += time.monotonic() - start

    def rates(self, step: int) -> dict[str, float]:
        """TIMES since the last call, when `step` steps are done."""
        now = time.monotonic()
        rows = self.batch_size * (step - self.step)
        amounts = rows, self.tokens, self.waited
        rates = [amount / (now - self.since) for amount in amounts]
        self.since, self.step, self.tokens, self.waited = now, step, 0.0, 0.0
        return dict(zip(TIMES, rates, strict=True))

    @property
    def seconds(self) -> float:
        """Since the start, pauses included."""
        return time.monotonic() - self.start
