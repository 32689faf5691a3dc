"""Writes a run's metrics to `log.jsonl` and reports them to trackers.

The log is always written. TensorBoard and MLflow are trackers: they get the
same metrics, and when a run resumes, the log's lines again.
"""

import importlib.util
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from bert_keras import console, errors, files

LOG = "log.jsonl"
SUFFIX = ".bert_keras"  # Ends the names of the event files written here.

Line = Mapping[str, Any]  # of the log: {"step": 20, "loss": 8.12, ...}


class Tracker(Protocol):
    """What shows a run while it trains and afterwards."""

    def write(self, line: Line) -> None:
        """Shows the metrics of a line.

        A value of None was NaN or infinite: skip it.
        """

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Shows an image; it is lost if the run resumes from before `step`."""

    def close(self, *, finished: bool) -> None:
        """Ends the report. finished: the run will not be resumed."""


class MetricWriter:
    """Writes `log.jsonl`, and the same values to the trackers.

    When a run resumes, the trackers show the lines that the log keeps, so that
    no step is missing or repeated. Invalid lines are moved to
    `log.jsonl.unread`.

    start: the step that the run resumes from; lines of later steps are removed.
    report_to: names of trackers. settings: the settings that they show.
    """

    def __init__(
        self,
        run: str,
        *,
        start: int,
        report_to: Sequence[str] = ("tensorboard",),
        settings: Mapping[str, Any] | None = None,
    ):
        self.path = os.path.join(run, LOG)
        lines, invalid = _lines(self.path)
        if invalid:
            aside = f"{self.path}.unread"
            with tf.io.gfile.GFile(aside, "ab") as file:
                file.write(b"".join(line + b"\n" for line in invalid))
            console.say(
                f"{self.path}: moved {len(invalid):,} invalid lines to {aside}"
            )
        kept = [line for line in lines if line["step"] <= start]
        files.write_text(
            self.path, "".join(json.dumps(line) + "\n" for line in kept)
        )
        self.trackers = [
            _TRACKERS[name](run, kept, settings or {}) for name in report_to
        ]

    def write(self, step: int, values: Mapping[str, float]) -> None:
        # JSON has no NaN.
        line: dict[str, float | None] = {"step": step} | {
            name: float(value) if math.isfinite(value) else None
            for name, value in values.items()
        }
        with tf.io.gfile.GFile(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")
        for tracker in self.trackers:
            tracker.write(line)

    def picture(self, step: int, name: str, png: bytes) -> None:
        for tracker in self.trackers:
            tracker.picture(step, name, png)

    def close(self, *, finished: bool) -> None:
        """Ends the report. finished: the run will not be resumed."""
        for tracker in self.trackers:
            tracker.close(finished=finished)


class NoMetricWriter:
    """Writes nothing; used on all workers except the chief."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        del step, values

    def picture(self, step: int, name: str, png: bytes) -> None:
        del step, name, png

    def close(self, *, finished: bool) -> None:
        del finished


class TensorBoard:
    """Writes a run's scalars and images to its folder `tensorboard`.

    Its files are rewritten from the log's lines when a run resumes.
    """

    def __init__(
        self, run: str, lines: Sequence[Line], settings: Mapping[str, Any]
    ):
        del settings
        folder = os.path.join(run, "tensorboard")
        # Leave other programs' files in the folder alone.
        for path in tf.io.gfile.glob(os.path.join(folder, f"*{SUFFIX}")):
            tf.io.gfile.remove(path)
        self.board = tf.summary.create_file_writer(
            folder, filename_suffix=SUFFIX
        )
        for line in lines:
            self._write_scalars(line)
        self.board.flush()

    def write(self, line: Line) -> None:
        self._write_scalars(line)
        self.board.flush()

    def picture(self, step: int, name: str, png: bytes) -> None:
        with self.board.as_default():
            image = tf.image.decode_png(png, channels=3)[tf.newaxis]
            tf.summary.image(name, image, step=step)

    def close(self, *, finished: bool) -> None:
        del finished
        self.board.flush()

    def _write_scalars(self, line: Line) -> None:
        with self.board.as_default():
            for name, value in line.items():
                if name != "step" and value is not None:
                    tf.summary.scalar(name, value, step=int(line["step"]))


def _mlflow(
    run: str, lines: Sequence[Line], settings: Mapping[str, Any]
) -> Tracker:
    # MLflow sends usage statistics to its developers by default.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    from bert_keras.training import mlflow_tracker  # needs the package

    return mlflow_tracker.MlflowTracker(run, lines, settings)


_TRACKERS: dict[str, Any] = {"tensorboard": TensorBoard, "mlflow": _mlflow}
# Tracker -> the packages that it needs and this project does not.
_PACKAGES = {"mlflow": ("mlflow", "sqlalchemy", "alembic")}


def parse(report_to: str) -> tuple[str, ...]:
    """Parses names of trackers with commas between, each of them once.

    Raises InputError for an unknown name, or if a tracker's package is missing.
    """
    names = dict.fromkeys(filter(None, map(str.strip, report_to.split(","))))
    for name in names:
        if name not in _TRACKERS:
            raise errors.InputError(
                f"report_to={report_to}: expected {' or '.join(_TRACKERS)}, "
                f"with commas between, or nothing; found {name!r}.",
                argument="report_to",
            )
        missing = [
            package
            for package in _PACKAGES.get(name, ())
            if importlib.util.find_spec(package) is None
        ]
        if missing:
            raise errors.InputError(
                f"report_to={report_to}: {name} needs packages that are not "
                f"installed ({', '.join(missing)}); pip install "
                f"'bert-keras[{name}]'.",
                argument="report_to",
            )
    return tuple(names)


def read(run: str) -> list[dict[str, Any]]:
    """Returns the valid lines of a run's log."""
    return _lines(os.path.join(run, LOG))[0]


def _lines(path: str) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Returns the parsed lines of a log, and the invalid lines as bytes.

    Drops an incomplete last line, which a killed run may leave.
    """
    lines: list[dict[str, Any]] = []
    invalid: list[bytes] = []
    if not tf.io.gfile.exists(path):
        return lines, invalid
    with tf.io.gfile.GFile(path, "rb") as file:
        *complete, _ = file.read().split(b"\n")
    for line in complete:
        try:
            values = json.loads(line)
            is_log = isinstance(values.get("step"), int) and all(
                value is None
                or (isinstance(value, (int, float)) and math.isfinite(value))
                for value in values.values()
            )
        # OverflowError: integers too large for a float.
        except (ValueError, AttributeError, OverflowError, RecursionError):
            is_log = False
        if is_log:
            lines.append(values)
        else:
            invalid.append(line)
    return lines, invalid
