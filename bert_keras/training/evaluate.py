"""Evaluates a checkpoint on labelled examples or on pretraining records."""

import dataclasses
import os
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from bert_keras import (
    answer_settings,
    commands,
    console,
    errors,
    evaluation,
    files,
    labelled_examples,
    loading,
    options,
    predictor,
    registry,
)
from bert_keras.data import labelled_files
from bert_keras.data import records as records_lib
from bert_keras.tasks import base
from bert_keras.training import input_pipeline, plots, scoring
from bert_keras.training import step as step_lib
from bert_keras.types import StrPath
from bert_keras.wrappers import base as wrappers


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """Settings of an evaluation."""

    checkpoint: str = options.option("", options.CHECKPOINT)
    task: str = options.option(
        "",
        "Answer as another task that the checkpoint has the heads of, such as "
        "next_sentence; empty: its own.",
    )
    modules: str = options.option("", options.MODULES, identity=False)
    data: str = options.option("", "A labelled file, or a folder of records.")
    output: str = options.option(
        "", "File for the answers, one JSON object per row; empty: none."
    )
    columns: str = options.option(
        "", "Columns of the file, if they differ from the training file's."
    )
    target_suffix: str = options.option(
        "",
        "Suffix of the file of targets, for sequence to sequence, if it "
        "differs from the training files'.",
    )
    batch_size: int = options.option(
        32,
        "Rows per batch; on a labelled file, up to twice as many if texts are "
        "short.",
        minimum=1,
    )
    negatives: int | None = options.option(
        None,
        "Of matching: the negatives that are added to each pair, 0 for the "
        "labels of the file; of embedding: from 1 on, the metrics of a search. "
        "Default: as in training.",
        value_type=int,
        minimum=0,
        maximum=1000,
    )
    seed: int = options.option(
        1,
        "Seed of the masks drawn on records.",
        minimum=0,
        maximum=options.MAX_SEED,
    )

    def __post_init__(self) -> None:
        columns = labelled_files.format_columns(self.columns)
        object.__setattr__(self, "columns", columns)


def evaluate(
    checkpoint: StrPath, data: StrPath, **settings: Any
) -> dict[str, float]:
    """Evaluates a checkpoint on labelled examples or records; returns metrics.

    >>> metrics = bert_keras.evaluate("runs/sst2", "dev.tsv")
    classes
    ...
    >>> metrics["accuracy"]
    1.0

    Args:
      checkpoint: a run, or one of its step folders.
      data: a labelled file; for a pretrained checkpoint, a folder of records.
      settings: the fields of EvaluateSettings; `columns` may also be a dict,
        {"text": "review", "label": "stars"}. And how the task answers, as
        `bert_keras.load(settings=...)` takes it, but for its `seed`: for
        example `num_beams`.
    """
    values = {"checkpoint": checkpoint, "data": data} | settings
    chosen, *given = options.divide(
        values, EvaluateSettings, *answer_settings.KINDS
    )
    answers = {
        name: value
        for kind in given
        for name, value in kind.items()
        if name not in chosen
    }
    return run(EvaluateSettings(**chosen), answers)


def run(
    settings: EvaluateSettings, answers: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """Evaluates; answers: fields of the task that change how it answers."""
    options.check(settings)
    options.require("checkpoint", settings.checkpoint)
    options.require("data", settings.data)
    files.check_output(
        settings.output, data=settings.data, checkpoint=settings.checkpoint
    )
    if settings.output:
        for name in plots.OF_TABLES:
            plots.check_picture(plots.path_of(name, settings.output))
    registry.import_modules(settings.modules)
    given = dict(answers or {})
    if settings.negatives is not None:
        given["negatives"] = settings.negatives
    model = predictor.load(
        settings.checkpoint, task=settings.task or None, settings=given
    )
    if settings.negatives is not None and not model.task.scores_negatives:
        raise errors.InputError(
            f"negatives={settings.negatives} has no effect on an evaluation of "
            f"{model.task.name}; leave it out.",
            argument="negatives",
        )
    began = time.monotonic()
    details: dict[str, str] = {}
    baseline: dict[str, float] = {}
    if records_lib.is_complete(settings.data):
        metrics, count = _on_records(model, settings)
    else:
        metrics, count, details, baseline = _on_examples(model, settings)
    seconds = time.monotonic() - began
    console.table(
        f"{settings.checkpoint} on {settings.data}",
        {
            "rows": count,
            **details,
            **metrics,
            **baseline,
            "time": f"{seconds:.1f} s, {count / seconds:.0f} rows/s",
        },
    )
    return metrics


def _on_examples(
    model: predictor.Predictor, settings: EvaluateSettings
) -> tuple[dict[str, float], int, dict[str, str], dict[str, float]]:
    """Returns metrics, the number of rows, details and a baseline's metrics."""
    task = model.task
    if records_lib.is_complete(os.path.join(settings.data, "train")):
        raise errors.InputError(
            f"data={settings.data} is a folder of "
            f"{commands.command_line('prepare')}; "
            "evaluate a pretrained checkpoint on its folder `dev`, and any "
            "other on a labelled file."
        )
    examples, skipped = labelled_examples.from_file(
        task,
        settings.data,
        columns=settings.columns,
        target_suffix=settings.target_suffix,
    )
    if settings.task:
        model = predictor.adapted(model, examples)
        task = model.task
    unseen = evaluation.unseen_labels(task, examples, settings.data)
    answers = model.predict(examples, batch_size=settings.batch_size)
    truncated = sum(answer["truncated"] for answer in answers)
    details = {
        "rows truncated": f"{truncated:,} of {len(examples):,}, at "
        f"{task.seq_length} tokens"
    }
    if skipped:
        details["malformed rows left out"] = f"{skipped:,}"
    if unseen:
        details["labels never seen in training"] = unseen
    if settings.output:
        with tf.io.gfile.GFile(settings.output, "w") as file:
            for example, answer in zip(examples, answers, strict=True):
                line = {"row": dict(example), "answer": answer}
                file.write(predictor.as_json(line) + "\n")
    metrics, tables = evaluation.score(task, answers, examples)
    for name, table in tables.items():
        console.numbers(name, **table._asdict())
        if settings.output and name in plots.OF_TABLES:
            path = plots.path_of(name, settings.output)
            files.write(path, plots.OF_TABLES[name](table))
    return metrics, len(examples), details, evaluation.baseline(task, examples)


def _on_records(
    model: predictor.Predictor, settings: EvaluateSettings
) -> tuple[dict[str, float], int]:
    # Whether neither the task nor a wrapper overrides metric_sums.
    defaults = base.Task.metric_sums, wrappers.Wrapper.metric_sums
    if all(
        type(each).metric_sums in defaults
        for each in wrappers.all_of(model.task)
    ):
        raise errors.InputError(
            f"data={settings.data} is a folder of records, and "
            f"{model.task.name} is scored on a labelled file; name that file."
        )
    records = records_lib.Records(settings.data)
    if "seq_length" not in records.manifest:
        raise errors.InputError(
            f"{settings.data} are the rows of a fine-tuning run; score on a "
            "labelled file."
        )
    tokenizer = records.tokenizer()
    if tokenizer.fingerprint != model.tokenizer.fingerprint:
        raise errors.InputError(
            f"{settings.data} was written with another vocabulary than "
            f"{settings.checkpoint}'s; prepare the records with the "
            "checkpoint's vocab.txt."
        )
    length = records.manifest["seq_length"]
    task = model.task.for_records(records.manifest)
    task = input_pipeline.with_records(task, records)
    loading.check_length(task, model.model.encoder.config)
    sampler = input_pipeline.sampler(
        task,
        records,
        row_length=length,
        batch_size=settings.batch_size,
        seed=settings.seed,
        shuffle=False,
    )
    strategy = tf.distribute.get_strategy()
    evaluate_step = step_lib.make_evaluate_step(
        model.model, model.task, strategy=strategy
    )
    batches = input_pipeline.batches(
        strategy,
        task,
        records,
        sampler,
        stop_step=sampler.steps_per_epoch,
    )
    evaluate_step.trace(batches.element_spec)
    return scoring.score(task, evaluate_step, batches), len(records)
