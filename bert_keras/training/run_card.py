"""The model cards of a run's checkpoints: how each was made, and its metrics.

A resumed run writes the same cards as one that never stopped, except for the
training time.
"""

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from bert_keras import checkpoint, commands, markdown, model_card
from bert_keras import model as model_lib
from bert_keras.formats import weight_mapping
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers
from bert_keras.training import metric_writer, run_folder
from bert_keras.training import settings as settings_lib


@dataclasses.dataclass(frozen=True)
class RunCard:
    """The part of a run's cards that is known before the first step.

    `at_step` completes it.

    data: the data set that metrics are measured on. inputs: rows, tokens and
      the like, by their names. limits: further items of the section of limits.
    """

    settings: settings_lib.TrainSettings
    command: str = ""
    hardware: str = ""
    data: str = ""
    inputs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    limits: Sequence[str] = ()
    base_model: str = ""
    language: Any = None  # of `init`'s card

    def at_step(
        self,
        step: int,
        *,
        total_steps: int,
        model: model_lib.BertModel,
        tokenizer: tokenizers.Tokenizer,
        task: base.Task,
        metrics: Mapping[str, float],
    ) -> model_card.Card:
        """Returns the card of a step.

        task: what the checkpoint saves. metrics: measured at this very step;
        empty if there were none.
        """
        name = os.path.basename(os.path.abspath(self.settings.output))
        served = task.for_serving()
        card = model_card.describe(model, tokenizer, name=name, task=served)
        card = dataclasses.replace(card, head=self._head(card.head))
        if metrics:
            dataset = self.settings.card_dataset
            where = f" on {markdown.code(self.data)}" if dataset else ""
            card = model_card.with_results(
                card,
                metrics,
                task=served,
                data=dataset or self.data,
                remark=f"Measured at step {step:,}{where}.",
            )
        else:
            text = f"Step {step:,} was not evaluated."
            card = card.with_section(model_card.RESULTS, text)
        card = card.with_section(
            model_card.ORIGIN, self._origin(step, total_steps)
        )
        limits = card.sections[model_card.LIMITS].split("\n")
        limits += [
            f"- {limit}"
            for limit in (
                *self.limits,
                "It was measured on nothing but what this card names, and not "
                "tested for bias.",
            )
        ]
        return card.with_section(model_card.LIMITS, "\n".join(limits))

    def _head(self, described: Mapping[str, Any]) -> dict[str, Any]:
        settings = self.settings
        head = {
            "language": _listed(settings.card_language) or self.language,
            "license": settings.card_license,
            **described,
            "base_model": self.base_model,
            "datasets": [settings.card_dataset] * bool(settings.card_dataset),
        }
        return {name: value for name, value in head.items() if value}

    def _origin(self, step: int, total_steps: int) -> str:
        seconds = training_seconds(
            self.settings.output, self.settings.batch_size, step
        )
        rows = {
            **self.inputs,
            "steps": f"{step:,} of {total_steps:,}, of "
            f"{self.settings.batch_size:,} rows each",
            "hardware": self.hardware,
            "time": f"{_duration(seconds)} of training, without evaluations "
            "and saving"
            if seconds  # of logged steps
            else "",
            "versions": _versions(),
        }
        items = [
            f"{markdown.escaped(name)}: {markdown.escaped(_shown(value))}"
            for name, value in rows.items()
            if value not in ("", 0, None)
        ]
        return (
            f"{markdown.code_block(self.command)}\n\nSettings that affect "
            "the result and are not named had their defaults, or were read "
            f"from the inputs.\n\n{markdown.bullets(items)}"
        )


def from_run(
    settings: settings_lib.TrainSettings,
    identity: run_folder.Identity,
    *,
    init: checkpoint.Checkpoint | None = None,
    **fields: Any,
) -> RunCard:
    """Makes the RunCard of a run.

    init: the checkpoint whose weights it starts from. fields: those of RunCard.
    """
    # A published model's language says nothing of the texts of this run.
    is_own = not isinstance(init, weight_mapping.ExternalCheckpoint)
    if init is not None and is_own and (card := init.card()):
        fields["language"] = card.head.get("language")
    return RunCard(
        settings,
        command=markdown.command(identity.command, identity.changed()),
        base_model=checkpoint.hub_name(init.folder) if init is not None else "",
        **fields,
    )


def training_seconds(run: str, batch_size: int, step: int) -> float:
    """Returns the time of the steps up to `step`, from the speeds in the log.

    So it includes the time before the run was stopped and resumed.
    """
    seconds, before = 0.0, 0
    for line in metric_writer.read(run):
        speed = line.get("rows_per_second")
        if speed and before < line["step"] <= step:
            seconds += batch_size * (line["step"] - before) / speed
            before = line["step"]
    return seconds


def _listed(text: str) -> str | list[str]:
    """Returns "de" for "de", and a list for "de,en"."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return names[0] if len(names) == 1 else names


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = {"h": hours, "min": minutes, "s": seconds}
    shown = [f"{value} {unit}" for unit, value in parts.items() if value]
    return " ".join(shown[:2]) or "less than 1 s"


def _versions() -> str:
    versions = {
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
        commands.NAME: commands.version(),
    }
    return ", ".join(f"{name} {number}" for name, number in versions.items())
