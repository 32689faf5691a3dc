"""Tries the candidates of the ladder and recommends one of them.

output/
  settings.json, flags.txt   what the folder belongs to
  checkpoints/               those that the candidates are made from
  layers-3/                  a candidate: its artifact and result.json,
                             which is written last
  results.jsonl              a line for each candidate
  compression.png            the metric over milliseconds and megabytes
"""

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Iterator, Sequence

import tensorflow as tf

from bert_keras import (
    console,
    errors,
    evaluation,
    files,
    labelled_examples,
    locks,
    options,
    predictor,
    registry,
    verification,
)
from bert_keras.compression import artifacts, checkpoints, ladder
from bert_keras.compression import results as results_lib
from bert_keras.data import labelled_files
from bert_keras.tasks import base, classification
from bert_keras.training import plots, run_folder
from bert_keras.training import settings as settings_lib

RESULTS, PICTURE, CHECKPOINTS = (
    "results.jsonl",
    "compression.png",
    "checkpoints",
)

# These end a candidate, and not the others.
FAILURES = (
    errors.InputError,
    verification.ExportError,
    tf.errors.OpError,
    ValueError,  # shapes that do not fit
)


@dataclasses.dataclass(frozen=True)
class CompressSettings:
    """Settings of a compression."""

    checkpoint: str = options.option("", options.CHECKPOINT, reads=True)
    modules: str = options.option("", options.MODULES, identity=False)
    train: str = options.option(
        "", "Labelled rows that students learn from.", reads=True
    )
    dev: str = options.option(
        "", "Labelled rows that every artifact answers.", reads=True
    )
    columns: str = options.option(
        "",
        "Columns of the files, as text=NAME,text_pair=NAME,label=NAME; empty: "
        "those of the checkpoint's training file.",
    )
    output: str = options.option(
        "",
        "Folder of the results, on a local disk. Run again with the same "
        "folder, it continues where it stopped.",
        identity=False,
    )
    target: str = options.option(
        "",
        "What to reach: 5x = five times as fast as the checkpoint's "
        "SavedModel, 5MB or 2ms. Of the candidates that do the one with the "
        "best metric is recommended. It can be changed later.",
        identity=False,
    )
    candidates: str = options.option(
        "",
        "Names of the candidates to try, with commas between, beside the "
        "original; empty: all. It can be changed later.",
        identity=False,
    )
    seq_length: int = options.option(
        0,
        "Tokens of a row of a TFLite file, to which each text is padded or "
        "truncated; 0: that of the checkpoint.",
        minimum=0,
        maximum=base.MAX_TOKENS,
    )
    threads: int = options.option(
        1,
        "Processors, and threads of a TFLite file, that an artifact is "
        "measured on.",
        minimum=1,
        maximum=1024,
    )
    epochs: int = options.option(3, "Passes over the training rows.", minimum=1)
    batch_size: int = options.option(
        32, "Rows per update of a training.", minimum=1
    )
    learning_rate: float = options.option(
        5e-5, "Peak learning rate.", minimum=0.0
    )
    seed: int = options.option(
        1,
        "Seed of shuffling, dropout and initialisation.",
        minimum=0,
        maximum=options.MAX_SEED,
    )


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found.

    results: of all candidates, the original first. choice: the recommended
    one. metric: the name of the metric that candidates are compared by.
    """

    results: Sequence[results_lib.Result]
    choice: results_lib.Choice
    target: results_lib.Target
    metric: str

    def speed_up(self, result: results_lib.Result) -> float:
        """Returns how many times as fast as the original a candidate is."""
        return self.results[0].milliseconds / result.milliseconds


def compress(settings: CompressSettings) -> Report:
    """Tries the candidates; the same call again continues a stopped one.

    Candidates that are complete are not repeated. One that fails has an error
    in its result, and is tried again by the next call.

    Raises InputError for invalid settings, for a model of another task than
    classification with one label, and if `output` belongs to another
    compression; and what the original raises, if its own SavedModel fails.
    """
    options.check(settings)
    for name in ("checkpoint", "train", "dev", "output", "target"):
        options.require(name, getattr(settings, name))
    target = results_lib.parse_target(settings.target)
    if files.local_path(settings.output) is None:
        raise errors.InputError(
            f"output={settings.output}: expected a folder on a local disk, as "
            "the artifacts are measured there.",
            argument="output",
        )
    run_folder.refuse_inputs_inside(
        settings.output,
        checkpoint=settings.checkpoint,
        train=settings.train,
        dev=settings.dev,
    )
    registry.import_modules(settings.modules)
    with locks.hold(settings.output), _without_warnings():
        return _compress(settings, target)


def _compress(settings: CompressSettings, target: results_lib.Target) -> Report:
    original = predictor.load(settings.checkpoint)
    _check_task(original.task)
    config = original.model.encoder.config
    longest = config.max_length
    if longest is not None and settings.seq_length > longest:
        raise errors.InputError(
            f"seq_length={settings.seq_length}: the network has {longest} "
            "positions; expected at most as many.",
            argument="seq_length",
        )
    every = ladder.ladder(config.num_layers)
    candidates = ladder.chosen(every, settings.candidates)
    task, rows = _read(settings, original)
    _claim(settings, original, every)
    made = checkpoints.Checkpoints(
        folder=os.path.join(settings.output, CHECKPOINTS),
        path=settings.checkpoint,
        original=original,
        task=task,
        train=rows.train,
        training=_training(settings),
    )
    results = [_try(settings, each, made, rows) for each in candidates]
    report = Report(
        results,
        results_lib.recommend(target, results),
        target,
        original.task.metric_names[0],
    )
    _write(settings.output, report)
    return report


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Hides TensorFlow's warnings on graphs that are traced again.

    Each training and each export has graphs of its own.
    """
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_task(task: base.Task) -> None:
    """Raises InputError for a task whose answers are not one label a text."""
    if (
        isinstance(task, classification.Classification)
        and task.problem_type == "single_label"
    ):
        return
    found = task.name
    if isinstance(task, classification.Classification):
        found += f" with problem_type={task.problem_type}"
    raise errors.InputError(
        "expected a model of classification with one label for each text, "
        f"found one of {found}; make it smaller by hand, by distillation, "
        "another vocabulary or another precision of an export.",
        argument="checkpoint",
    )


def _read(
    settings: CompressSettings, original: predictor.Predictor
) -> tuple[base.Task, artifacts.Rows]:
    """Returns the task that reads the files, and their examples.

    Raises InputError if the training file has other labels than the model, or
    pairs of texts where the model reads single ones.
    """
    task = original.task
    if settings.columns:
        task = task.with_settings(
            columns=labelled_files.format_columns(settings.columns)
        )
    train, dev = (
        labelled_examples.from_file(task, path)[0]
        for path in (settings.train, settings.dev)
    )
    for name, examples in (("train", train), ("dev", dev)):
        if not examples:
            raise errors.InputError(
                f"{name}={getattr(settings, name)}: expected labelled rows, "
                "found none.",
                argument=name,
            )
    adapted = task.adapt(train, original.tokenizer)
    for what, expected, found in (
        ("the labels", task.class_names, adapted.class_names),
        ("the columns", task.text_columns, adapted.text_columns),
    ):
        if expected != found:
            raise errors.InputError(
                f"train={settings.train}: expected {what} of the checkpoint, "
                f"{errors.listed(expected)}, found {errors.listed(found)}.",
                argument="train",
            )
    evaluation.unseen_labels(task, dev, settings.dev)
    return task, artifacts.Rows(train, dev)


def _claim(
    settings: CompressSettings,
    original: predictor.Predictor,
    candidates: Sequence[ladder.Candidate],
) -> None:
    """Makes the folder that of these settings; InputError if it is another's.

    Another target and other candidates are no other settings.
    """
    identity = run_folder.Identity(
        "compress",
        (settings,),
        {
            "checkpoint": run_folder.weights_fingerprint(original.model, None),
            "tokenizer": original.tokenizer.fingerprint,
            **{
                name: run_folder.contents_fingerprint(
                    *original.task.data_files(getattr(settings, name))
                )
                for name in ("train", "dev")
            },
        },
    )
    names = [each.name for each in candidates]
    parts = [os.path.join(name, results_lib.FILE) for name in names]
    run_folder.check(
        settings.output,
        identity,
        names=(RESULTS, PICTURE, CHECKPOINTS, *names),
        has_results=any(
            tf.io.gfile.exists(os.path.join(settings.output, part))
            for part in (CHECKPOINTS, *parts)
        ),
    )
    run_folder.write_identity(settings.output, identity)


def _training(settings: CompressSettings) -> settings_lib.FinetuneSettings:
    """Returns the settings that all trainings share."""
    return settings_lib.FinetuneSettings(
        train=settings.train,
        dev=settings.dev,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        max_checkpoints_to_keep=1,
        report_to="",
    )


def _try(
    settings: CompressSettings,
    candidate: ladder.Candidate,
    made: checkpoints.Checkpoints,
    rows: artifacts.Rows,
) -> results_lib.Result:
    """Returns the stored result of a candidate, or makes and measures it."""
    folder = os.path.join(settings.output, candidate.name)
    if result := results_lib.read(folder):
        return result
    console.say(f"candidate {candidate.name}")
    if tf.io.gfile.exists(folder):  # of a call that was stopped
        tf.io.gfile.rmtree(folder)
    try:
        result = _measured(settings, candidate, made, rows)
    except FAILURES as error:
        if candidate == ladder.ORIGINAL:
            raise
        reason = console.one_line(error).removeprefix("error: ")
        console.say(f"{candidate.name} failed: {reason}")
        return results_lib.Result(candidate.name, error=reason)
    files.write_text(
        os.path.join(folder, results_lib.FILE),
        json.dumps(dataclasses.asdict(result), indent=1),
    )
    return result


def _measured(
    settings: CompressSettings,
    candidate: ladder.Candidate,
    made: checkpoints.Checkpoints,
    rows: artifacts.Rows,
) -> results_lib.Result:
    path = made.get(candidate.recipe)
    model = artifacts.load(path, candidate)
    artifact = artifacts.write(
        candidate,
        path,
        model,
        os.path.join(settings.output, candidate.name),
        rows=rows,
        seq_length=settings.seq_length or model.task.seq_length,
    )
    measured = artifacts.measure(
        candidate, artifact, model, rows.dev, threads=settings.threads
    )
    return results_lib.Result(
        name=candidate.name,
        artifact=os.path.relpath(artifact, settings.output),
        metrics=measured.metrics,
        milliseconds=measured.milliseconds,
        megabytes=console.num_bytes(artifact) / 1e6,
        parameters=model.model.count_params(),
    )


def _write(folder: str, report: Report) -> None:
    """Writes results.jsonl and compression.png."""
    chosen = report.choice.result.name
    lines = [
        json.dumps({**each.row(), "recommended": each.name == chosen}) + "\n"
        for each in report.results
    ]
    files.write_text(os.path.join(folder, RESULTS), "".join(lines))
    measured = [each for each in report.results if not each.error]
    picture = plots.compression(
        [each.name for each in measured],
        [each.score for each in measured],
        {
            "milliseconds a text": [each.milliseconds for each in measured],
            "megabytes": [each.megabytes for each in measured],
        },
        metric=report.metric,
        chosen=chosen,
    )
    files.write(os.path.join(folder, PICTURE), picture)
