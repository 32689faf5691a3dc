"""The training loop that pretraining and fine-tuning share."""

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import (
    checkpoint,
    console,
    errors,
    model_card,
    optimizers,
    placement,
)
from bert_keras import model as model_lib
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers
from bert_keras.training import (
    cluster,
    devices,
    elastic,
    metric_writer,
    pipeline,
    plots,
    profiler,
    run_card,
    run_folder,
)
from bert_keras.training import meter as meter_lib
from bert_keras.training import settings as settings_lib
from bert_keras.training import state as state_lib
from bert_keras.training import step as step_lib

# The exit code of a run that was asked to stop: EX_TEMPFAIL of sysexits.h.
STOPPED = 75

# {metric: value}, {name of a table: table}
Evaluation = tuple[Mapping[str, float], Mapping[str, base.Table]]


class Trainer:
    """Trains a model: resumes, logs, evaluates and saves checkpoints.

    The constructor restores model, optimizer and loss scale from the run's last
    checkpoint. Before, build the model under the strategy's scope, validate
    settings and files, and call run_folder.claim.

    card: makes the model cards of the checkpoints; None: without what only
      the caller knows of the run.
    """

    def __init__(
        self,
        settings: settings_lib.TrainSettings,
        strategy: tf.distribute.Strategy,
        model: model_lib.BertModel,
        tokenizer: tokenizers.Tokenizer,
        total_steps: int,
        card: run_card.RunCard | None = None,
    ):
        self.settings = settings
        self.card = card or run_card.RunCard(settings)
        self._evaluated_step: int | None = None
        self.workers = cluster.Workers(strategy)
        self.best_metric = _best_metric(settings, model.task)
        self.model = model
        self.tokenizer = tokenizer
        self.total_steps = total_steps
        self.seconds = 0.0
        freeze(model, settings.freeze)
        with strategy.scope():
            self.optimizer = make_optimizer(
                model.trainable_variables,
                settings,
                total_steps,
                devices=placement.of_variables(
                    model.encoder, model.trainable_variables
                ),
            )
            self.loss_scale = make_loss_scale(settings)
        self.state = self._restore()
        # Workers that resume from different steps would deadlock.
        self.workers.require_same(
            "last checkpoint", self.state.step, settings.output
        )
        self.writer = self._make_writer()
        self.train_step = step_lib.make_train_step(
            model,
            model.task,
            self.optimizer,
            strategy=strategy,
            seed=settings.seed,
            gradient_accumulation_steps=devices.micro_batches(
                settings, strategy.num_replicas_in_sync
            ),
            clip_norm=settings.clip_norm,
            loss_scale=self.loss_scale,
            xla=settings.xla,
            make=self._step_class(),
        )

    def _step_class(self) -> Callable[..., step_lib.TrainStep]:
        settings = self.settings
        if settings.elastic_shards:
            return elastic.ElasticStep
        stages = devices.stages_of(settings, self.model.encoder.config)
        if stages is None:
            return step_lib.TrainStep
        return functools.partial(
            pipeline.PipelinedStep,
            stages=stages,
            schedule=settings.pipeline_schedule,
        )

    def _make_writer(
        self,
    ) -> metric_writer.MetricWriter | metric_writer.NoMetricWriter:
        settings = self.settings
        if not self.workers.is_chief:
            return metric_writer.NoMetricWriter()
        identity = run_folder.Identity("", (settings, self.model.task), {})
        return metric_writer.MetricWriter(
            settings.output,
            start=self.state.step,
            report_to=metric_writer.parse(settings.report_to),
            settings=identity.values(),
        )

    def train(
        self,
        batches: step_lib.Batches,
        *,
        evaluate: Callable[[], Evaluation] | None = None,
        evaluate_every: int = 0,
    ) -> None:
        """Runs the remaining steps, with one batch per step.

        evaluate() returns metrics and tables; only the chief's are used. It is
        called every `evaluate_every` steps and after the last one.

        Raises InputError after `max_skipped` steps in a row without a finite
        gradient, and SystemExit after saving on a preemption notice.
        """
        settings, state, total = self.settings, self.state, self.total_steps
        # Early stopping may have ended the run already.
        is_over = state.step >= total or self.is_out_of_patience
        to_do = () if is_over else batches
        if not is_over:
            self.train_step.trace(
                batches.element_spec | {"stop_requested": tf.TensorSpec([])}
            )
        meter = meter_lib.Meter(settings.batch_size, state.step)
        steps = range(state.step + 1, total + 1)
        progress = console.Progress("training", total=total, start=state.step)
        with (
            self._closing_writer(),
            progress,
            cluster.translate_collective_errors(),
            cluster.PreemptionNotice() as notice,
            self._profiled_step() as train_step,
        ):
            for step, batch in zip(steps, meter.timed(to_do), strict=False):
                metrics = train_step(batch | {"stop_requested": notice.flag()})
                meter.add(step, metrics)
                state.step, is_last = step, step == total
                if is_last or _is_due(step, settings.log_every):
                    self._log(step, metrics, meter)
                    progress.update(step, self._progress_text(metrics))
                if evaluate and (is_last or _is_due(step, evaluate_every)):
                    with self._paused(meter):
                        self._log_evaluation(step, *evaluate())
                ends = is_last or self.is_out_of_patience
                preempted = notice.is_due(metrics) and not is_last
                is_best = step == state.best_step
                due = _is_due(step, settings.save_every)
                if due or is_best or ends or preempted:
                    with self._paused(meter):
                        self._save(step)
                if preempted:
                    self._exit(step)
                if ends:
                    break
        self.seconds = meter.seconds

    @property
    def is_out_of_patience(self) -> bool:
        """Whether early stopping ends the run."""
        patience = self.settings.early_stopping
        waited = self.state.evaluations_without_improvement
        return bool(patience) and waited >= patience

    def _restore(self) -> state_lib.TrainerState:
        """Loads the last complete checkpoint, skipping damaged ones."""
        steps = checkpoint.steps(self.settings.output)
        for step in reversed(steps):
            folder = checkpoint.step_folder(self.settings.output, step)
            try:
                state = self._load(folder, step)
            except errors.InputError as error:
                if step == steps[0]:
                    raise
                console.say(f"{error} Trying the checkpoint before it.")
            else:
                console.say(
                    f"resuming from step {step:,} in {self.settings.output}"
                )
                return state
        return state_lib.TrainerState()

    def _load(self, folder: str, step: int) -> state_lib.TrainerState:
        saved = checkpoint.read(folder)
        if saved.tokenizer().fingerprint != self.tokenizer.fingerprint:
            raise errors.InputError(
                f"{folder} has a different vocabulary from this run."
            )
        saved.load_run(self.model, self.optimizer.state())
        try:
            state = state_lib.TrainerState.from_dict(step, saved.metadata)
        except errors.InputError as error:
            raise errors.InputError(
                f"{folder} is not a checkpoint of a run: {error}"
            ) from None
        self.loss_scale.scale.assign(state.loss_scale)
        self.loss_scale.good_steps.assign(state.good_steps)
        if state.best_step is not None and self.workers.is_chief:
            # The run may have been killed between saving and marking.
            checkpoint.mark(self.settings.output, "best", state.best_step)
        return state

    def _profiled_step(self) -> profiler.Profiler:
        on = self.settings.profile and self.workers.is_chief
        return profiler.Profiler(self.train_step, self.settings.output, on=on)

    @contextlib.contextmanager
    def _closing_writer(self) -> Iterator[None]:
        """Closes the log after the `with` block, as unfinished if it raises."""
        finished = False
        try:
            yield
            finished = True
        finally:
            self.writer.close(finished=finished)

    @contextlib.contextmanager
    def _paused(self, meter: meter_lib.Meter) -> Iterator[None]:
        """Excludes the time spent in the `with` block from the throughput.

        Counts skipped steps first, which may raise InputError.
        """
        self._count_steps(meter)
        with meter.paused():
            yield

    def _count_steps(self, meter: meter_lib.Meter) -> None:
        """Counts skipped steps since the last call; blocks on the device.

        Raises InputError if too many in a row were skipped.
        """
        limit = min(self.settings.max_skipped, self.total_steps)
        for step, skipped in meter.unread():
            self.state.count_step(skipped=skipped)
            in_a_row = self.state.skipped_in_a_row
            if in_a_row < limit:
                continue
            steps = checkpoint.steps(self.settings.output)
            init = "the same `init`"
            if steps:
                folder = checkpoint.step_folder(self.settings.output, steps[-1])
                init = f"init={folder}"
            raise errors.InputError(
                f"no gradient was finite in the {in_a_row} steps up to "
                f"{step}. Lower `learning_rate`, or continue in another "
                f"`output` with {init}.",
                argument="learning_rate",
            )

    def _log(
        self, step: int, metrics: step_lib.Metrics, meter: meter_lib.Meter
    ) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        del values["tokens"], values["stop_requested"]
        self._count_steps(meter)
        values |= {"skipped": self.state.skipped}
        self.writer.write(step, values | meter.rates(step))

    def _progress_text(self, metrics: step_lib.Metrics) -> str:
        """Returns the text beside the progress bar."""
        text = f"loss {float(metrics['loss']):.3f}"
        if self.state.skipped:
            text += f"  {self.state.skipped:,} skipped"
        return text

    def _log_evaluation(
        self,
        step: int,
        metrics: Mapping[str, float],
        tables: Mapping[str, base.Table],
    ) -> None:
        """Logs an evaluation and compares it with the best one."""
        value = self.workers.broadcast_from_chief(
            metrics.get(self.best_metric, 0.0)
        )
        self._evaluated_step = step
        if metrics:
            self.state.set_metrics(metrics)
            self.writer.write(
                step, {f"dev/{name}": v for name, v in metrics.items()}
            )
            text = "  ".join(f"{name} {v:.4f}" for name, v in metrics.items())
            console.say(f"step {step:,}: {text}")
        for name in tables.keys() & plots.OF_TABLES.keys():
            png = plots.OF_TABLES[name](tables[name])
            self.writer.picture(step, f"dev/{name}", png)
        if not math.isfinite(value):
            console.say(
                f"step {step:,}: {self.best_metric} is {value}, so not the best"
            )
        lower_is_better = self.best_metric.startswith("loss/")
        self.state.compare(step, value, lower=lower_is_better)
        if self.is_out_of_patience:
            best = "was never a number"
            if self.state.best_step is not None:
                best = f"was best at step {self.state.best_step:,}"
            console.say(f"stopping early: {self.best_metric} {best}")

    def _save(self, step: int) -> None:
        if not self.workers.is_chief:
            return
        run, state = self.settings.output, self.state
        if not all(
            np.isfinite(variable.numpy()).all()
            for variable in self.model.trainable_variables
        ):
            console.say(
                f"step {step:,}: the weights contain NaN or infinity; use an "
                "earlier checkpoint and a lower `learning_rate`"
            )
        state.loss_scale = float(self.loss_scale.scale.numpy())
        state.good_steps = int(self.loss_scale.good_steps.numpy())
        try:
            checkpoint.save(
                run,
                self.model,
                self.tokenizer,
                step=step,
                task=self._task_to_save(),
                optimizer=self.optimizer.state(),
                trainer_state=state.to_dict(),
                card=self._card(step),
            )
            if state.best_step is not None:
                checkpoint.mark(run, "best", state.best_step)
        except OSError as error:
            raise errors.InputError(
                f"step {step:,} could not be saved in {run} ({error}). The "
                "checkpoints before it are complete: free some space and run "
                "the same command again."
            ) from None
        checkpoint.prune(
            run, self.settings.max_checkpoints_to_keep, self.tokenizer
        )

    def _card(self, step: int) -> model_card.Card:
        """Returns the model card of the checkpoint of this step."""
        is_evaluated = step == self._evaluated_step
        return self.card.at_step(
            step,
            total_steps=self.total_steps,
            model=self.model,
            tokenizer=self.tokenizer,
            task=self._task_to_save(),
            metrics=self.state.finite_metrics() if is_evaluated else {},
        )

    def _task_to_save(self) -> base.Task:
        """Returns the task with thresholds chosen from the last evaluation.

        model.task stays uncalibrated, so that a resumed run evaluates in the
        same way as an uninterrupted one.
        """
        task, metrics = self.model.task, self.state.finite_metrics()
        return task.calibrated(metrics) if metrics else task

    def _exit(self, step: int) -> None:
        """Exits the process after a preemption notice; `step` is saved.

        With a code of its own: the run is not complete, and a scheduler starts
        it again.
        """
        console.say(
            f"asked to stop: saved step {step:,}; run the same command again "
            "to continue"
        )
        self.workers.barrier()
        raise SystemExit(STOPPED)

    def report(self, extra: Mapping[str, Any]) -> None:
        """Prints the summary once every worker is done."""
        self.workers.barrier()
        if not self.workers.is_chief:
            return
        best = checkpoint.read(self.settings.output)
        # XLA needs one graph per padded length.
        graphs = self.train_step.num_graphs
        console.table(
            self.settings.output,
            {
                "network": best.config.describe(),
                "parameters": self.model.count_params(),
                "steps": self.state.step,
                "skipped steps": self.state.skipped,
                "traced train steps": graphs,
                "time": f"{self.seconds:.0f} s since this start",
                "checkpoint": f"{best.folder} ({console.size_of(best.folder)})",
                "model card": self._card_text(),
                **{
                    f"dev {name}": value
                    for name, value in best.metadata["scores"].items()
                },
                **extra,
            },
        )

    def _card_text(self) -> str:
        path = os.path.join(self.settings.output, model_card.FILE)
        edited = model_card.is_edited(path)
        return f"{path}{', edited, so kept as it is' * edited}"


def _is_due(step: int, interval: int) -> bool:
    return bool(interval) and step % interval == 0


def _best_metric(settings: settings_lib.TrainSettings, task: base.Task) -> str:
    name = settings.best_metric or task.metric_names[0]
    if name not in task.metric_names:
        raise errors.InputError(
            f"best_metric={name}: expected one of "
            f"{', '.join(task.metric_names)}.",
            argument="best_metric",
        )
    return name


def freeze(model: model_lib.BertModel, part: str) -> None:
    """Makes a part's variables untrainable: "encoder", "embeddings" or "".

    They have no slots and no weight decay, and stay bit-equal. Raises
    InputError if nothing is left to train.
    """
    if not part:
        return
    config = model.encoder.config
    for variable in model.encoder.trainable_variables:
        if part == "encoder" or config.layer_index(variable.path) == 0:
            variable.trainable = False
    if not model.trainable_variables:
        raise errors.InputError(
            f"freeze={part} leaves nothing to train: the task "
            f"{model.task.name} has no weights of its own.",
            argument="freeze",
        )


def _default_warmup(total_steps: int) -> float:
    """Returns the share of the steps of a pretraining that are its warm-up.

    1 % is that of Devlin et al. 2019, A.2, of a million steps. Of a few hundred
    it is a few: tiny networks then gave all tokens the same vector at 1e-3, and
    did not recover.
    """
    return min(max(1000 / total_steps, 0.01), 0.1)


def make_optimizer(
    variables: Sequence[keras.Variable],
    settings: settings_lib.TrainSettings,
    total_steps: int,
    *,
    devices: Sequence[str] = (),
) -> optimizers.Optimizer:
    """Makes the optimizer of a run; devices: see `optimizers.Optimizer`."""
    warmup_steps = settings.warmup_steps
    if not warmup_steps:
        ratio = settings.warmup_ratio
        if ratio is None:
            ratio = _default_warmup(total_steps)
        warmup_steps = int(ratio * total_steps)
    rule = optimizers.RULES[settings.optimizer]()
    if hasattr(rule, "bias_correction"):
        rule = dataclasses.replace(
            rule, bias_correction=settings.bias_correction
        )
    schedule = optimizers.Schedule(
        peak=settings.learning_rate,
        warmup_steps=warmup_steps,
        total_steps=total_steps,
    )
    return optimizers.Optimizer(
        variables,
        rule=rule,
        schedule=schedule,
        head_schedule=_head_schedule(variables, settings, schedule),
        weight_decay=0.0
        if settings.optimizer == "adam"
        else settings.weight_decay,
        devices=devices,
    )


def _head_schedule(
    variables: Sequence[keras.Variable],
    settings: settings_lib.TrainSettings,
    schedule: optimizers.Schedule,
) -> optimizers.Schedule:
    """Returns the schedule of the heads; `schedule` is the network's.

    Raises InputError if it is another one and there are no heads.
    """
    peak = settings.head_learning_rate or schedule.peak
    warmup_steps = schedule.warmup_steps
    if settings.head_warmup_ratio is not None:
        warmup_steps = int(settings.head_warmup_ratio * schedule.total_steps)
    head = dataclasses.replace(schedule, peak=peak, warmup_steps=warmup_steps)
    if head != schedule and not any(
        variable.path.startswith(optimizers.HEADS) for variable in variables
    ):
        raise errors.InputError(
            "`head_learning_rate` and `head_warmup_ratio` are for the heads, "
            "and this task has no weights of its own; leave them out.",
            argument="head_learning_rate",
        )
    return head


def make_loss_scale(settings: settings_lib.TrainSettings) -> step_lib.LossScale:
    if settings.loss_scale:
        return step_lib.fixed_loss_scale(settings.loss_scale)
    if settings.precision == "mixed_float16":
        return step_lib.LossScale()
    return step_lib.fixed_loss_scale()
