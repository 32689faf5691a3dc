"""Writes a run's metrics to `log.jsonl` and to TensorBoard."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from bert_keras import console, files

SUFFIX = ".bert_keras"  # of the names of this writer's TensorBoard files


class MetricWriter:
    """Writes `log.jsonl`, and the same values as TensorBoard scalars.

    When a run resumes, log lines of later steps are removed and TensorBoard's
    files are rewritten from the remaining lines, so that no step is missing or
    repeated. Invalid lines are moved to `log.jsonl.unread`.
    """

    def __init__(self, run: str, *, start: int):
        self.path = os.path.join(run, "log.jsonl")
        folder = os.path.join(run, "tensorboard")
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
        # Leave other programs' files in the folder alone.
        for path in tf.io.gfile.glob(os.path.join(folder, f"*{SUFFIX}")):
            tf.io.gfile.remove(path)
        self.board = tf.summary.create_file_writer(
            folder, filename_suffix=SUFFIX
        )
        for line in kept:
            self._write_scalars(line)
        self.board.flush()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        # JSON has no NaN.
        line: dict[str, float | None] = {"step": step} | {
            name: float(value) if math.isfinite(value) else None
            for name, value in values.items()
        }
        with tf.io.gfile.GFile(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")
        self._write_scalars(line)
        self.board.flush()

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Writes an image to TensorBoard; it is lost if the run resumes."""
        with self.board.as_default():
            image = tf.image.decode_png(png, channels=3)[tf.newaxis]
            tf.summary.image(name, image, step=step)

    def _write_scalars(self, line: Mapping[str, Any]) -> None:
        with self.board.as_default():
            for name, value in line.items():
                if name != "step" and value is not None:
                    tf.summary.scalar(name, value, step=int(line["step"]))


class NoMetricWriter:
    """Writes nothing; used on all workers except the chief."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        del step, values

    def picture(self, step: int, name: str, png: bytes) -> None:
        del step, name, png


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
                # The comparison is false for NaN.
                value is None
                or (isinstance(value, (int, float)) and float(value) == value)
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
