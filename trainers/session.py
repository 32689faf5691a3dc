"""A run from its first or its last step to its end: what trainers share."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from bert_keras import checkpoint, config, errors
from bert_keras import model as model_lib
from bert_keras.data import records as records_lib
from bert_keras.data import stream as stream_lib
from bert_keras.data import tokenizer as tokenizer_lib
from bert_keras.tasks import base
from trainers import loop, report, runtime


class Session:
    """Model, optimizer and loss scale, restored to the last checkpoint.

    `step` is the number of steps done. The model was built under the
    strategy's scope; all that can be wrong with flags and files was checked,
    for this opens the run folder.
    """

    def __init__(
        self,
        settings: runtime.TrainSettings,
        strategy: tf.distribute.Strategy,
        model: model_lib.BertModel,
        tokenizer: tokenizer_lib.Tokenizer,
        total_steps: int,
    ):
        self.settings = settings
        runtime.open_run(settings.output, begun=begun(settings.output))
        self.model = model
        self.tokenizer = tokenizer
        self.total_steps = total_steps
        self.scores: dict[str, float] = {}
        self.best: float | None = None
        self.best_step: int | None = None
        self.saved = -1
        with strategy.scope():
            self.optimizer = runtime.make_optimizer(
                model.trainable_variables, settings, total_steps
            )
            scaled = settings.precision == "mixed_float16"
            self.loss_scale = (
                loop.LossScale() if scaled else loop.no_loss_scale()
            )
        self.step = self._restore()
        self.journal = report.Journal(settings.output, start=self.step)
        self.train_step = loop.make_train_step(
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
        saved.load_encoder(self.model.encoder)
        saved.load_head(self.model.head)
        saved.load_optimizer(self.optimizer)
        self.loss_scale.scale.assign(saved.facts["loss_scale"])
        self.loss_scale.finite_steps.assign(saved.facts["finite_steps"])
        self.scores = saved.facts["scores"]
        self.best, self.best_step = saved.facts["best"]
        if self.best_step is not None:
            # A kill may have come between the save and this.
            checkpoint.mark(self.settings.output, "best", self.best_step)

    def train(
        self, batches: Iterable[loop.Batch], *, evaluate: loop.every
    ) -> None:
        """The rest of the run: progress, log, evaluation, checkpoints.

        Raises InputError when no gradient was finite between two log lines.
        """
        settings, began = self.settings, time.monotonic()
        progress = report.Progress(
            "training", total=self.total_steps, start=self.step
        )
        since: list[loop.Metrics] = []  # the steps since the last log line
        last = began

        def keep(step, metrics):
            since.append(
                {name: metrics[name] for name in ("tokens", "skipped")}
            )

        def log(step, metrics):
            nonlocal last
            values = {name: float(value) for name, value in metrics.items()}
            now = time.monotonic()
            tokens = sum(float(each["tokens"]) for each in since)
            skipped = sum(int(each["skipped"]) for each in since)
            del values["tokens"]
            values["skipped"] = skipped
            values["tokens_per_second"] = tokens / (now - last)
            self.journal.write(step, values)
            if skipped == len(since) and values["loss_scale"] <= 1:
                raise errors.InputError(
                    f"no gradient was finite in the {skipped} steps up to "
                    f"{step}. Lower --learning_rate, or go on in another "
                    f"--output with --init={self._last_good()}."
                )
            since.clear()
            last = now

        def show(step, metrics):
            progress.update(step, f"loss {float(metrics['loss']):.3f}")

        def save(step, metrics):
            self.save(step)

        def stop(step, metrics):
            if asked and step < self.total_steps:
                self.save(step)
                say(
                    f"asked to stop: saved step {step:,}; run the same command "
                    "again to go on"
                )
                raise SystemExit(0)

        def outside(action):
            """Not counted as time of training."""

            def run(step, metrics):
                nonlocal last
                start = time.monotonic()
                action(step, metrics)
                last += time.monotonic() - start

            return run

        with progress, _asked_to_stop() as asked:
            loop.train(
                self.train_step,
                batches,
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
        self.step = self.total_steps
        self.seconds = time.monotonic() - began

    def _last_good(self) -> str:
        steps = checkpoint.steps(self.settings.output)
        if not steps:
            return "what this run began with"
        return checkpoint.step_folder(self.settings.output, steps[-1])

    def evaluated(
        self, step: int, scores: Mapping[str, float], *, best: str
    ) -> None:
        """Notes scores; a new best one by the metric `best` is saved."""
        self.scores = dict(scores)
        self.journal.write(
            step, {f"dev/{name}": value for name, value in scores.items()}
        )
        text = "  ".join(f"{name} {v:.4f}" for name, v in scores.items())
        say(f"step {step:,}: {text}")
        if self.best is None or scores[best] > self.best:
            self.best, self.best_step = scores[best], step
            self.save(step)

    def save(self, step: int) -> None:
        if step == self.saved:
            return  # as the best one, a moment ago
        self.saved = step
        run = self.settings.output
        checkpoint.save(
            run,
            self.model,
            self.tokenizer,
            step=step,
            optimizer=self.optimizer,
            facts={
                "loss_scale": float(self.loss_scale.scale.numpy()),
                "finite_steps": int(self.loss_scale.finite_steps.numpy()),
                "scores": self.scores,
                "best": (self.best, self.best_step),
            },
        )
        if self.best_step is not None:
            checkpoint.mark(run, "best", self.best_step)
        checkpoint.keep(run, self.settings.keep)

    def close(self, facts: Mapping[str, Any]) -> None:
        """The closing table."""
        shown = checkpoint.read(self.settings.output)  # the best one
        report.table(
            self.settings.output,
            {
                "network": describe(shown.config),
                "parameters": self.model.count_params(),
                "steps": self.total_steps,
                "time": f"{self.seconds:.0f} s for the steps of this start",
                "checkpoint": f"{shown.folder} "
                f"({report.folder_size(shown.folder)})",
                **{
                    f"dev {name}": value
                    for name, value in shown.facts["scores"].items()
                },
                **facts,
            },
        )


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """A list that holds something once SIGTERM came: a preemption's notice."""
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def begun(run: str) -> bool:
    """Whether a run has a checkpoint to go on from."""
    return bool(checkpoint.steps(run))


def batches(
    strategy: tf.distribute.Strategy,
    task: base.Task,
    records: records_lib.Records,
    plan: stream_lib.Plan,
    **span: int,
) -> Iterable[loop.Batch]:
    """The stream of a plan with the task's draws made, for each replica."""

    def draw(batch):
        batch = dict(batch)
        inputs, targets = task.draw(
            batch["inputs"], batch["targets"], batch.pop("seeds")
        )
        return batch | {"inputs": inputs, "targets": targets}

    def make_stream(**parts):
        batches = stream_lib.stream(records, plan, **span, **parts)
        return batches.map(draw, num_parallel_calls=2, deterministic=True)

    return loop.distribute(strategy, make_stream)


def open_records(folder: str):
    """The training records and the held-out ones, or None."""
    dev = os.path.join(folder, "dev")
    train = records_lib.Records(os.path.join(folder, "train"))
    if not records_lib.is_complete(dev):
        say(f"{folder} holds no dev records: nothing will be evaluated")
        return train, None
    held_out = records_lib.Records(dev)
    if held_out.manifest["tokenizer"] != train.manifest["tokenizer"]:
        raise errors.InputError(
            f"{folder}/train and {folder}/dev have different vocabularies; "
            "prepare them again."
        )
    return train, held_out


def tokenizer_of(records: records_lib.Records) -> tokenizer_lib.Tokenizer:
    return tokenizer_lib.Tokenizer.from_file(
        os.path.join(records.folder, checkpoint.VOCABULARY),
        lowercase=records.manifest["lowercase"],
    )


def describe(bert: config.BertConfig) -> str:
    return (
        f"{bert.num_layers} layers x {bert.hidden_size}, "
        f"{bert.num_heads} heads, vocabulary {bert.vocab_size:,}"
    )


def fits(task: base.Task, bert: config.BertConfig) -> None:
    """Raises InputError when rows can be longer than the positions."""
    if task.seq_length > bert.max_position_embeddings:
        raise errors.InputError(
            f"--seq_length={task.seq_length} is longer than the "
            f"{bert.max_position_embeddings} positions of the network."
        )


def same_vocabulary(
    found: checkpoint.Checkpoint,
    tokenizer: tokenizer_lib.Tokenizer,
    records: str,
) -> None:
    theirs = found.tokenizer()
    if theirs.fingerprint != tokenizer.fingerprint:
        raise errors.InputError(
            f"{records} was written with another vocabulary "
            f"({tokenizer.vocab_size:,} entries, {tokenizer.fingerprint}) than "
            f"{found.folder} ({theirs.vocab_size:,}, {theirs.fingerprint}). "
            "Prepare the records with the checkpoint's vocab.txt."
        )


def say(text: str) -> None:
    report.console.print(text, highlight=False)
