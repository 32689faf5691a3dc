"""Fine-tunes a checkpoint, or trains a new network, on labelled examples."""

import collections
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from bert_keras import (
    checkpoint,
    commands,
    console,
    errors,
    evaluation,
    labelled_examples,
    loading,
    options,
    predictor,
    registry,
)
from bert_keras import model as model_lib
from bert_keras.data import records as records_lib
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers
from bert_keras.training import (
    cluster,
    devices,
    input_pipeline,
    labelled_records,
    new_heads,
    new_network,
    run_card,
    run_folder,
    run_tokenizer,
    teachers,
)
from bert_keras.training import settings as settings_lib
from bert_keras.training import trainer as trainer_lib
from bert_keras.types import StrPath

Metrics = dict[str, float | None]


def finetune(
    init: StrPath | None = None,
    train: StrPath = "",
    dev: StrPath | None = None,
    *,
    task: str | base.Task,
    output: StrPath,
    **settings: Any,
) -> predictor.Predictor:
    """Fine-tunes a checkpoint; returns a Predictor of the run's best one.

    With `model` in place of `init` it trains a new network.

    >>> model = bert_keras.finetune(
    ...     "runs/base", "train.tsv", "dev.tsv",
    ...     task="classification", output="runs/mine", epochs=1)
    runs/mine
    ...
    >>> model.predict(["a fine film"])
    [{'label': '...tive', 'score': ..., 'truncated': False}]
    >>> model = bert_keras.finetune(
    ...     train="train.tsv", model="tiny",
    ...     task="classification", output="runs/new", epochs=1)
    runs/new
    ...

    Args:
      init: the checkpoint to start from: a run, or a folder of another format.
      train, dev: labelled files to train on, which is required, and to evaluate
        on.
      task: a Task, or the name of one.
      output: the folder of the run. The same call again resumes the run, or
        returns at once if it is complete; other settings are an error.
      settings: the fields of FinetuneSettings, and those of the task if `task`
        is a name; `columns` may also be a dict, {"text": "review"}.
    """
    paths = {"init": init or "", "train": train, "dev": dev or ""}
    run_settings, task = settings_lib.from_keywords(
        settings_lib.FinetuneSettings,
        task,
        paths | {"output": output} | settings,
    )
    run(run_settings, task)
    return predictor.load(run_settings.output)


def run(settings: settings_lib.FinetuneSettings, task: base.Task) -> Metrics:
    """Trains for `epochs`; returns the metrics of the last evaluation."""
    settings_lib.check(settings, task)
    registry.import_modules(settings.modules)
    new_network.check(settings)
    is_pretrained = bool(settings.init) and not settings.from_scratch
    new_heads.check(task, is_pretrained=is_pretrained)
    options.require("train", settings.train)
    options.require("output", settings.output)
    if settings.dev and settings.dev_fraction:
        console.say(
            f"`dev` is given: dev_fraction={settings.dev_fraction} is ignored"
        )
    run_folder.refuse_inputs_inside(
        settings.output,
        init=settings.init,
        train=settings.train,
        dev=settings.dev,
        vocab=settings.vocab,
    )
    with (
        devices.configured(settings) as strategy,
        run_folder.one_writer(settings, strategy),
    ):
        devices.require_complete_batches(settings, task, strategy)
        return _run(settings, task, strategy)


def _run(
    settings: settings_lib.FinetuneSettings,
    requested_task: base.Task,
    strategy: tf.distribute.Strategy,
) -> Metrics:
    start = init = source = None
    if settings.init:
        start = input_pipeline.read_init(settings, settings.init)
        init = loading.with_frame(start, requested_task)
        predictor.say_new_tokens(init)
        source = init.tokenizer()
    origin = run_tokenizer.origin(settings, requested_task, source)
    tokenizer = run_tokenizer.read(settings, requested_task, source, origin)
    config = init.config if init else new_network.config(settings, tokenizer)
    task = _adapted(settings, requested_task, config, tokenizer)
    task, bound = teachers.bind(task, tokenizer, strategy)
    dev = _dev_examples(settings, task)
    dev_counts = _encode_dev(settings, task, tokenizer, dev)
    with devices.placed(settings, config, strategy):
        model = _model(settings, task, config, init)
    workers = cluster.Workers(strategy)
    identity = _identity(
        settings, requested_task, init, model, tokenizer, bound
    )
    run_folder.claim(settings, identity, workers)
    if workers.is_chief:
        labelled_records.write(settings, task, tokenizer, origin=origin)
    workers.barrier()
    records = records_lib.Records(os.path.join(settings.output, "records"))
    truncated = _truncated(task, records.manifest, dev_counts)
    if truncated:
        console.say(f"truncated: {truncated}")
    counts = {
        "training rows": len(records),
        "malformed rows skipped": records.manifest["skipped"],
        "dev rows": len(dev),
        **new_network.describe(settings, tokenizer),
    }
    card = run_card.from_run(
        settings,
        identity,
        init=None if settings.from_scratch else start,
        hardware=devices.describe(strategy),
        data=_data(settings),
        inputs=counts | input_pipeline.token_counts(records),
        limits=[f"Truncated: {truncated}."] if truncated else [],
    )
    trainer = _train(settings, strategy, model, tokenizer, records, dev, card)
    baseline = evaluation.baseline(task, dev) if dev else {}
    trainer.report(
        {
            **{f"dev {name}": value for name, value in baseline.items()},
            **counts,
            **({"rows truncated": truncated} if truncated else {}),
            "next": f"{commands.command_line('predict')} "
            f"--checkpoint={settings.output}",
        }
    )
    return trainer.state.metrics


def _model(
    settings: settings_lib.FinetuneSettings,
    task: base.Task,
    config: networks.NetworkConfig,
    init: checkpoint.Checkpoint | None,
) -> model_lib.BertModel:
    if init is None or settings.from_scratch:
        return model_lib.BertModel(config.build_encoder(), task)
    model = loading.load_model(init, task)
    new_heads.initialize(model, init)
    return model


def _train(
    settings: settings_lib.FinetuneSettings,
    strategy: tf.distribute.Strategy,
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
    records: records_lib.Records,
    dev: Sequence[base.Example],
    card: run_card.RunCard,
) -> trainer_lib.Trainer:
    """Trains on the records and evaluates on `dev` after every epoch."""
    task = model.task
    sampler = input_pipeline.sampler(
        task,
        records,
        row_length=task.max_row_length,
        bucket_lengths=settings.bucket_lengths,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    total = sampler.steps_per_epoch * settings.epochs
    trainer = trainer_lib.Trainer(
        settings, strategy, model, tokenizer, total, card
    )
    dev_predictor = predictor.Predictor(model, tokenizer)

    def evaluate():
        if not trainer.workers.is_chief:
            return {}, {}
        answers = dev_predictor.predict(dev, progress=False)
        return evaluation.score(task, answers, dev)

    trainer.train(
        input_pipeline.batches(
            strategy,
            task,
            records,
            sampler,
            start_step=trainer.state.step,
            stop_step=total,
        ),
        evaluate=evaluate if dev else None,
        evaluate_every=sampler.steps_per_epoch,
    )
    return trainer


def _adapted(
    settings: settings_lib.FinetuneSettings,
    requested_task: base.Task,
    config: networks.NetworkConfig,
    tokenizer: tokenizers.Tokenizer,
) -> base.Task:
    """Sets the task's fields that depend on the training data, e.g. labels."""
    examples = requested_task.read_examples(settings.train)
    training = labelled_records.training_examples(
        settings, requested_task, examples
    )
    first = next(training)  # raises if there is none; `adapt` may read none
    task = requested_task.adapt(itertools.chain([first], training), tokenizer)
    loading.check_length(task, config)
    labelled_examples.print_warning(examples)
    return task


def _dev_examples(
    settings: settings_lib.FinetuneSettings, task: base.Task
) -> list[base.Example]:
    """Returns the evaluation examples; [] without `dev` and `dev_fraction`."""
    if not (settings.dev or settings.dev_fraction):
        if task.needs_dev_rows:
            raise errors.InputError(
                f"{task.needs_dev_rows} needs dev rows: give a file with "
                "`dev`, or `dev_fraction`.",
                argument=task.needs_dev_rows,
            )
        return []
    examples = task.read_examples(settings.dev or settings.train)
    dev = list(labelled_records.dev_examples(settings, task, examples))
    if settings.dev:
        labelled_examples.print_warning(examples)
    if settings.dev and not dev:
        raise errors.InputError(
            f"{settings.dev}: expected rows to score on, found none. The "
            "file has no rows."
        )
    if not dev:
        raise errors.InputError(
            f"dev_fraction={settings.dev_fraction}: expected rows to "
            f"score on, found none in {settings.train}: it has too few "
            "groups, or rows per label. Give a larger fraction, or "
            "a file with `dev`.",
            argument="dev_fraction",
        )
    return dev


def _encode_dev(
    settings: settings_lib.FinetuneSettings,
    task: base.Task,
    tokenizer: tokenizers.Tokenizer,
    dev: Sequence[base.Example],
) -> Mapping[str, int]:
    """Encodes the dev examples; InputError for a label not seen in training.

    Called before training, so that it does not fail after the first epoch.
    What wrappers add to rows to learn from, such as a teacher's answers, is
    left out. Returns the counts {"examples": ..., "truncated": ...,
    "truncated_targets": ...}.
    """
    counts: collections.Counter[str] = collections.Counter()
    plain = task.unwrapped
    try:
        for _ in labelled_records.encode(plain, tokenizer, dev, counts):
            pass
    except errors.InputError as error:
        where = settings.dev or (
            f"{settings.train}, of which `dev_fraction` holds a part out (each "
            "label must be in both parts; or give a file with `dev`)"
        )
        raise errors.InputError(f"{where}: {error}") from None
    return counts


def _identity(
    settings: settings_lib.FinetuneSettings,
    requested_task: base.Task,
    init: checkpoint.Checkpoint | None,
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
    bound: Mapping[str, str],
) -> run_folder.Identity:
    paths = {
        name: requested_task.data_files(path) if path else []
        for name, path in (("train", settings.train), ("dev", settings.dev))
    }
    if settings.vocab:
        paths["vocab"] = [settings.vocab]
    reads: dict[str, Any] = {
        "network": model.encoder.config.to_dict(),
        "tokenizer": (init.tokenizer() if init else tokenizer).fingerprint,
        **{
            name: run_folder.contents_fingerprint(*each) if each else ""
            for name, each in paths.items()
        },
        **run_folder.options_fingerprints(requested_task),
        **bound,
        "init": "",
    }
    if tokenizer.target is not tokenizer:
        reads["target tokenizer"] = tokenizer.target.fingerprint
    if init and not settings.from_scratch:
        head_names = init.matching_heads(model.task)
        reads["init"] = run_folder.weights_fingerprint(model, head_names)
    return run_folder.Identity("finetune", (settings, requested_task), reads)


def _data(settings: settings_lib.FinetuneSettings) -> str:
    """Names the data that metrics are measured on."""
    if settings.dev:
        return os.path.basename(os.path.abspath(settings.dev))
    name = os.path.basename(os.path.abspath(settings.train))
    return f"{name} (held out: {settings.dev_fraction:g} of its rows)"


def _truncated(
    task: base.Task, manifest: Mapping[str, Any], dev: Mapping[str, int]
) -> str:
    """Describes how many training and dev examples are truncated, or ""."""
    messages = []
    for counts, what in ((manifest, "training rows"), (dev, "dev rows")):
        if counts.get("truncated"):
            messages.append(
                f"{counts['truncated']:,} of {counts['examples']:,} {what}"
            )
    parts = []
    if messages:
        parts.append(f"{', '.join(messages)}, at {task.seq_length} tokens")
    targets = [
        f"{counts['truncated_targets']:,} targets of {what}"
        for counts, what in ((manifest, "training rows"), (dev, "dev rows"))
        if counts.get("truncated_targets")
    ]
    if targets:
        parts.append(
            f"{', '.join(targets)}, at {task.max_target_length} tokens"
        )
    return "; ".join(parts)
