"""A run from its first or its last step to its end: what trainers share."""

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from bert_keras import checkpoint, console, errors, optimizers
from bert_keras import model as model_lib
from bert_keras.tasks import base
from bert_keras.tokenizers import wordpiece
from bert_keras.training import cluster, loop, metric_writer, plots, profiler
from bert_keras.training import settings as settings_lib
from bert_keras.training import step as step_lib

say = console.say

# What a log says of time: other numbers are the same in every run.
TIMES = ("rows_per_second", "tokens_per_second", "waiting_for_data")


class Session:
    """Model, optimizer and loss scale, restored to the last checkpoint.

    `step` is the number of steps done. The model was built under the
    strategy's scope, and the run folder is this run's (runtime.claim).
    """

    def __init__(
        self,
        settings: settings_lib.TrainSettings,
        strategy: tf.distribute.Strategy,
        model: model_lib.BertModel,
        tokenizer: wordpiece.Tokenizer,
        total_steps: int,
    ):
        self.settings = settings
        self.workers = cluster.Workers(strategy)
        self.best_metric = _best_metric(settings, model.task)
        self.model = model
        self.task = model.task
        self.tokenizer = tokenizer
        self.total_steps = total_steps
        self.scores: dict[str, float | None] = {}
        self.best: float | None = None
        self.best_step: int | None = None
        self.not_better = 0  # evaluations since the best one
        self.skipped = 0  # steps without a finite gradient
        self.skipped_in_a_row = 0
        self.saved = -1
        with strategy.scope():
            self.optimizer = make_optimizer(
                model.trainable_variables, settings, total_steps
            )
            self.loss_scale = make_loss_scale(settings)
        self.step = self._restore()
        # Workers that start at different places would wait for ever.
        self.workers.require_same("last checkpoint", self.step, settings.output)
        self.writer = (
            metric_writer.MetricWriter(settings.output, start=self.step)
            if self.workers.writes
            else metric_writer.NoMetricWriter()
        )
        self.train_step = step_lib.make_train_step(
            model,
            model.task,
            self.optimizer,
            strategy=strategy,
            seed=settings.seed,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            clip_norm=settings.clip_norm,
            loss_scale=self.loss_scale,
            xla=settings.xla,
        )

    def _restore(self) -> int:
        """The last checkpoint that is whole; the ones after it are passed."""
        steps = checkpoint.steps(self.settings.output)
        for step in reversed(steps):
            try:
                self._load(checkpoint.step_folder(self.settings.output, step))
            except errors.InputError as error:
                if step == steps[0]:
                    raise
                say(f"{error} Trying the checkpoint before it.")
            else:
                say(f"going on from step {step:,} in {self.settings.output}")
                return step
        return 0

    def _load(self, folder: str) -> None:
        saved = checkpoint.read(folder)
        if saved.tokenizer().fingerprint != self.tokenizer.fingerprint:
            raise errors.InputError(
                f"{folder} has another vocabulary than this run."
            )
        saved.load_encoder(self.model.encoder)
        saved.load_head(self.model.head)
        saved.load_optimizer(self.optimizer)
        facts = saved.facts
        try:
            self.loss_scale.scale.assign(facts["loss_scale"])
            self.loss_scale.finite_steps.assign(facts["finite_steps"])
            self._note(facts["scores"])
            self.best, self.best_step = facts["best"]
            self.not_better = facts["not_better"]
            self.skipped, self.skipped_in_a_row = facts["skipped"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise errors.InputError(
                f"{folder} is no checkpoint of a run: its config.json has no "
                f"state of the trainer that can be read ({error!r})."
            ) from None
        if self.best_step is not None and self.workers.writes:
            # A kill may have come between the save and this.
            checkpoint.mark(self.settings.output, "best", self.best_step)

    def train(
        self, batches: Iterable[step_lib.Batch], *, evaluate: loop.every
    ) -> None:
        """The rest of the run: progress, log, evaluation, checkpoints.

        Raises InputError after `max_skipped` steps in a row without a finite
        gradient.
        """
        settings, began = self.settings, time.monotonic()
        progress = console.Progress(
            "training", total=self.total_steps, start=self.step
        )
        # The steps that are not counted yet: reading waits for the device.
        since: list[step_lib.Metrics] = []
        last, logged, tokens, notice = began, self.step, 0.0, None

        def keep(step, metrics):
            since.append(
                {name: metrics[name] for name in ("tokens", "skipped")}
            )

        def count():
            nonlocal tokens
            for each in since:
                tokens += float(each["tokens"])
                skipped = int(each["skipped"])
                self.skipped += skipped
                self.skipped_in_a_row = skipped * (self.skipped_in_a_row + 1)
                self.step += 1
                self._check_skipped()
            since.clear()

        def log(step, metrics):
            nonlocal last, logged, tokens
            values = {name: float(value) for name, value in metrics.items()}
            del values["tokens"], values["asked"]
            count()
            now = time.monotonic()
            rows = settings.batch_size * (step - logged)
            figures = rows, tokens, watched.waited
            times = [figure / (now - last) for figure in figures]
            self.writer.write(
                step,
                values
                | {"skipped": self.skipped}
                | dict(zip(TIMES, times, strict=True)),
            )
            last, logged, tokens, watched.waited = now, step, 0.0, 0.0

        def show(step, metrics):
            facts = f"loss {float(metrics['loss']):.3f}"
            if self.skipped:
                facts += f"  {self.skipped:,} skipped"
            progress.update(step, facts)

        def save(step, metrics):
            count()
            self.save(step)

        def stop(step, metrics):
            # That of the step before, which the device has done by now.
            nonlocal notice
            asked_before, notice = notice, metrics["asked"]
            if step == self.total_steps or not asked_before:
                return
            if float(asked_before):
                save(step, metrics)
                say(
                    f"asked to stop: saved step {step:,}; run the same command "
                    "again to go on"
                )
                self.workers.wait()
                raise SystemExit(0)

        def outside(action):
            """Not counted as time of training."""

            def run(step, metrics):
                nonlocal last
                count()
                start = time.monotonic()
                ends = action(step, metrics)
                last += time.monotonic() - start
                return ends

            return run

        if self._is_at_its_end():
            batches = ()
        asking = cluster.asked_to_stop()
        profiled = settings.profile and self.workers.writes
        trace = profiler.Profiler(self.train_step, settings.output, on=profiled)
        with progress, cluster.together(), asking as asked, trace as step:
            watched = _Watched(batches, asked)
            loop.train(
                step,
                watched,
                start=self.step,
                stop=self.total_steps,
                actions=[
                    loop.every(1, keep),
                    loop.every(settings.log_every, log),
                    loop.every(settings.log_every, show),
                    loop.every(evaluate.count, outside(evaluate.action)),
                    loop.every(settings.save_every, outside(save)),
                    loop.every(1, stop),
                ],
            )
        self.seconds = time.monotonic() - began
        # With --xla one for each length that came.
        self.graphs = self.train_step.experimental_get_tracing_count()

    def _check_skipped(self) -> None:
        row = self.skipped_in_a_row
        if row < min(self.settings.max_skipped, self.total_steps):
            return
        steps = checkpoint.steps(self.settings.output)
        good = "what this run began with"
        if steps:
            good = checkpoint.step_folder(self.settings.output, steps[-1])
        raise errors.InputError(
            f"no gradient was finite in the {row} steps up to {self.step}. "
            f"Lower --learning_rate, or go on in another --output with "
            f"--init={good}."
        )

    def evaluated(
        self,
        step: int,
        scores: Mapping[str, float],
        tables: Mapping[str, base.Table] | None = None,
    ) -> bool:
        """Notes scores, saves the best; True: none was better for too long.

        Only worker 0 need have made the scores.
        """
        value = self.workers.of_writer(scores.get(self.best_metric, 0.0))
        if scores:
            # JSON has no NaN and no infinity.
            self._note(
                {
                    name: float(v) if math.isfinite(v) else None
                    for name, v in scores.items()
                }
            )
            self.writer.write(
                step, {f"dev/{name}": v for name, v in scores.items()}
            )
            text = "  ".join(f"{name} {v:.4f}" for name, v in scores.items())
            say(f"step {step:,}: {text}")
        if "confusion" in (tables or {}):
            png = plots.confusion(tables["confusion"])
            self.writer.picture(step, "dev/confusion", png)
        sign = -1 if self.best_metric.startswith("loss/") else 1
        if not math.isfinite(value):
            say(
                f"step {step:,}: {self.best_metric} is {value}, so not the best"
            )
            self.not_better += 1
        elif self.best is None or sign * value > sign * self.best:
            self.best, self.best_step, self.not_better = value, step, 0
            self.save(step)
        else:
            self.not_better += 1
        if self._is_at_its_end():
            best = "was never a number"
            if self.best_step is not None:
                best = f"was best at step {self.best_step:,}"
            say(f"stopping early: {self.best_metric} {best}")
            self.save(step)
            return True
        return False

    def _note(self, scores: Mapping[str, float | None]) -> None:
        """Scores of an evaluation; None where one is not a number."""
        self.scores = dict(scores)
        # What is saved from here on.
        self.model.task = self.task.calibrated(
            {name: v for name, v in scores.items() if v is not None}
        )

    def _is_at_its_end(self) -> bool:
        """Whether early stopping has come."""
        patience = self.settings.early_stopping
        return bool(patience) and self.not_better >= patience

    def save(self, step: int) -> None:
        if step == self.saved:
            return  # as the best one, a moment ago
        self.saved = step
        if not self.workers.writes:
            return
        run = self.settings.output
        if not all(
            np.isfinite(variable.numpy()).all()
            for variable in self.model.trainable_variables
        ):
            say(
                f"step {step:,}: the weights hold NaN or infinity; take an "
                "earlier checkpoint and a lower --learning_rate"
            )
        try:
            checkpoint.save(
                run,
                self.model,
                self.tokenizer,
                step=step,
                optimizer=self.optimizer,
                facts={
                    "loss_scale": float(self.loss_scale.scale.numpy()),
                    "finite_steps": int(self.loss_scale.finite_steps.numpy()),
                    "skipped": (self.skipped, self.skipped_in_a_row),
                    "scores": self.scores,
                    "best": (self.best, self.best_step),
                    "not_better": self.not_better,
                },
            )
        except OSError as error:
            raise errors.InputError(
                f"step {step:,} could not be saved in {run} ({error}). The "
                "checkpoints before it are whole: make room and run the same "
                "command again."
            ) from None
        if self.best_step is not None:
            checkpoint.mark(run, "best", self.best_step)
        checkpoint.keep(run, self.settings.keep)

    def close(self, facts: Mapping[str, Any]) -> None:
        """The closing table, once every worker is done."""
        self.workers.wait()
        if not self.workers.writes:
            return
        shown = checkpoint.read(self.settings.output)  # the best one
        console.table(
            self.settings.output,
            {
                "network": shown.config.describe(),
                "parameters": self.model.count_params(),
                "steps": self.step,
                "skipped steps": self.skipped,
                "graphs of the step": self.graphs,
                "time": f"{self.seconds:.0f} s for the steps of this start",
                "checkpoint": f"{shown.folder} "
                f"({console.folder_size(shown.folder)})",
                **{
                    f"dev {name}": value
                    for name, value in shown.facts["scores"].items()
                },
                **facts,
            },
        )


def _best_metric(settings: settings_lib.TrainSettings, task: base.Task) -> str:
    name = settings.best_metric or task.metric_names[0]
    if name not in task.metric_names:
        raise errors.InputError(
            f"--best_metric={name}: expected one of "
            f"{', '.join(task.metric_names)}."
        )
    return name


class _Watched:
    """Batches with the notice to stop put in; counts seconds of waiting."""

    def __init__(self, batches: Iterable[step_lib.Batch], asked: list[int]):
        self.batches, self.asked = iter(batches), asked
        self.waited = 0.0

    def __iter__(self) -> Iterator[step_lib.Batch]:
        return self

    def __next__(self) -> step_lib.Batch:
        start = time.monotonic()
        batch = next(self.batches)
        self.waited += time.monotonic() - start
        return batch | {"asked": tf.constant(float(bool(self.asked)))}


def begun(run: str) -> bool:
    """Whether a run has a checkpoint to go on from."""
    return bool(checkpoint.steps(run))


def make_optimizer(
    variables, settings: settings_lib.TrainSettings, total_steps: int
) -> optimizers.Optimizer:
    warmup = settings.warmup
    rule = optimizers.RULES[settings.optimizer]()
    if hasattr(rule, "bias_correction"):
        rule = dataclasses.replace(
            rule, bias_correction=settings.bias_correction
        )
    return optimizers.Optimizer(
        variables,
        rule=rule,
        schedule=optimizers.Schedule(
            peak=settings.learning_rate,
            warmup_steps=int(warmup * total_steps if warmup < 1 else warmup),
            total_steps=total_steps,
        ),
        weight_decay=0.0
        if settings.optimizer == "adam"
        else settings.weight_decay,
    )


def make_loss_scale(settings: settings_lib.TrainSettings) -> step_lib.LossScale:
    if settings.loss_scale:
        return step_lib.fixed_loss_scale(settings.loss_scale)
    if settings.precision == "mixed_float16":
        return step_lib.LossScale()
    return step_lib.fixed_loss_scale()
