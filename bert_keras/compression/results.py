"""What was measured of each candidate, and which of them is recommended."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from bert_keras import console, errors, files

FILE = "result.json"  # in the candidate's folder; written last


@dataclasses.dataclass(frozen=True)
class Result:
    """The measurements of a candidate, or why there are none.

    artifact: the SavedModel's version or the .tflite file, as a path in the
    output folder.
    metrics: those of the artifact's answers on the dev rows, the first one
    which candidates are compared by. milliseconds: the median time of a
    text. megabytes: the size of the artifact, in 10^6 bytes. error: "" if the
    candidate was measured.
    """

    name: str
    artifact: str = ""
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    milliseconds: float = 0.0
    megabytes: float = 0.0
    parameters: int = 0
    error: str = ""

    @property
    def score(self) -> float:
        return next(iter(self.metrics.values()))

    def row(self) -> dict[str, Any]:
        """Returns the line of results.jsonl."""
        if self.error:
            return {"name": self.name, "error": self.error}
        values = dataclasses.asdict(self)
        del values["error"], values["metrics"]
        return {"name": values.pop("name"), **self.metrics, **values}


def read(folder: str) -> Result | None:
    """Returns the result of a candidate's folder; None if it is incomplete."""
    path = os.path.join(folder, FILE)
    if not tf.io.gfile.exists(path):
        return None
    try:
        return Result(**files.read_json(path))
    except (errors.InputError, TypeError) as error:
        console.say(f"{path} is made again: {console.one_line(error)}")
        return None


@dataclasses.dataclass(frozen=True)
class Target:
    """What is to be reached: `amount` times as fast, MB or ms.

    unit: "x", "MB" or "ms".
    """

    amount: float
    unit: str

    def __str__(self) -> str:
        return f"{self.amount:g}{self.unit}"

    def cost(self, result: Result) -> float:
        """Returns what the target limits: megabytes or milliseconds."""
        if self.unit == "MB":
            return result.megabytes
        return result.milliseconds

    def limit(self, original: Result) -> float:
        """Returns the largest cost that reaches the target."""
        if self.unit == "x":
            return original.milliseconds / self.amount
        return self.amount


def parse_target(text: str) -> Target:
    """Parses "5x", "5MB" or "2ms"; raises InputError for anything else."""
    units = {"x": "x", "mb": "MB", "ms": "ms"}
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *(x|mb|ms)", text.strip().lower())
    if not match or not float(match[1]):
        raise errors.InputError(
            f"target={text}: expected a positive number and x, MB or ms, such "
            "as 5x (times as fast), 5MB or 2ms.",
            argument="target",
        )
    return Target(float(match[1]), units[match[2]])


@dataclasses.dataclass(frozen=True)
class Choice:
    """The recommended candidate, or the nearest one if none is good enough."""

    result: Result
    is_reached: bool


def recommend(target: Target, results: Sequence[Result]) -> Choice:
    """Chooses among the candidates without an error; the first is the original.

    Of those that reach the target the one with the best metric, and of equal
    ones the fastest. If there is none, the one with the lowest cost.
    """
    limit = target.limit(results[0])
    measured = [each for each in results if not each.error]
    enough = [each for each in measured if target.cost(each) <= limit]
    if enough:
        best = min(enough, key=lambda each: (-each.score, each.milliseconds))
        return Choice(best, is_reached=True)
    nearest = min(measured, key=lambda each: (target.cost(each), -each.score))
    return Choice(nearest, is_reached=False)
