"""The trainer's state that a checkpoint stores besides the weights."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from bert_keras import errors


@dataclasses.dataclass
class TrainerState:
    """Progress and metrics of a run.

    step: completed steps. skipped: steps without a finite gradient;
    skipped_in_a_row: those since the last finite one. metrics: of the last
    evaluation, None if not finite. best, best_step: best value so far of the
    metric that selects the best checkpoint, and its step. loss_scale,
    good_steps: the variables of step.LossScale.
    """

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    metrics: dict[str, float | None] = dataclasses.field(default_factory=dict)
    best: float | None = None
    best_step: int | None = None
    evaluations_without_improvement: int = 0
    loss_scale: float = 1.0
    good_steps: int = 0

    def count_step(self, *, skipped: bool) -> None:
        self.skipped += skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0

    def set_metrics(self, metrics: Mapping[str, float]) -> None:
        # JSON has no NaN and no infinity.
        self.metrics = {
            name: float(value) if math.isfinite(value) else None
            for name, value in metrics.items()
        }

    def finite_metrics(self) -> dict[str, float]:
        return {k: v for k, v in self.metrics.items() if v is not None}

    def compare(self, step: int, value: float, *, lower: bool) -> None:
        """Updates the best value with that of an evaluation at `step`.

        lower: whether lower values are better. A value that is not finite is
        never the best.
        """
        sign = -1 if lower else 1
        if math.isfinite(value) and (
            self.best is None or sign * value > sign * self.best
        ):
            self.best, self.best_step = value, step
            self.evaluations_without_improvement = 0
        else:
            self.evaluations_without_improvement += 1

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields for a checkpoint's config.json, without `step`."""
        return {
            "loss_scale": self.loss_scale,
            "finite_steps": self.good_steps,
            "skipped": (self.skipped, self.skipped_in_a_row),
            "scores": self.metrics,
            "best": (self.best, self.best_step),
            "not_better": self.evaluations_without_improvement,
        }

    @classmethod
    def from_dict(cls, step: int, values: Mapping[str, Any]) -> "TrainerState":
        """Restores the state of the checkpoint of `step` from `to_dict`'s dict.

        Raises InputError if fields are missing or invalid.
        """
        try:
            skipped, skipped_in_a_row = map(int, values["skipped"])
            best, best_step = values["best"]
            return cls(
                step=step,
                skipped=skipped,
                skipped_in_a_row=skipped_in_a_row,
                metrics=dict(values["scores"].items()),
                best=best,
                best_step=best_step,
                evaluations_without_improvement=int(values["not_better"]),
                loss_scale=float(values["loss_scale"]),
                good_steps=int(values["finite_steps"]),
            )
        except (
            ArithmeticError,  # an infinite count
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:
            raise errors.InputError(
                "the trainer's state in its config.json cannot be read "
                f"({error!r})."
            ) from None
