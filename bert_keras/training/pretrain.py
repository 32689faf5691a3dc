"""Pretrains a network on prepared records."""

import dataclasses
import functools
import os
from typing import Any

import tensorflow as tf

from bert_keras import (
    checkpoint,
    commands,
    errors,
    loading,
    named_networks,
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
    new_heads,
    run_card,
    run_folder,
    scoring,
    teachers,
)
from bert_keras.training import settings as settings_lib
from bert_keras.training import step as step_lib
from bert_keras.training import trainer as trainer_lib
from bert_keras.types import StrPath

Metrics = dict[str, float | None]

# Options of the task that a user cannot set: the records' manifest contains
# them.
FIELDS_FROM_RECORDS = ("seq_length",)


def pretrain(
    records: StrPath, *, output: StrPath, **settings: Any
) -> predictor.Predictor:
    """Pretrains on records and returns the best checkpoint of the run.

    >>> model = bert_keras.pretrain(
    ...     "records", output="runs/mine", model="tiny", steps=1, batch_size=4)
    runs/mine
    ...
    >>> model.predict(["a [MASK] film"])
    [{'token': ['...'...], 'score': [...], 'truncated': False}]

    Args:
      records: a folder written by `bert_keras.prepare`.
      output: the folder of the run. The same call again resumes the run, or
        returns at once if it is complete; other settings raise
        InputError.
      settings: the fields of PretrainSettings and of the task that
        `objective` names.
    """
    parsed, task = settings_lib.from_keywords(
        settings_lib.PretrainSettings,
        settings.get("objective", settings_lib.PretrainSettings.objective),
        {"records": records, "output": output} | settings,
        without=FIELDS_FROM_RECORDS,
    )
    run(parsed, task)
    return predictor.load(parsed.output)


def run(settings: settings_lib.PretrainSettings, task: base.Task) -> Metrics:
    """Trains to `steps`; returns the metrics of the last evaluation."""
    settings_lib.check(settings, task)
    if settings.objective != task.unwrapped.name:
        raise errors.InputError(
            f"objective={settings.objective}, but the task is "
            f"{task.unwrapped.name}.",
            argument="objective",
        )
    registry.import_modules(settings.modules)
    options.require("records", settings.records)
    options.require("output", settings.output)
    run_folder.refuse_inputs_inside(
        settings.output, records=settings.records, init=settings.init
    )
    settings = _with_former_warmup(settings)
    with (
        devices.configured(settings) as strategy,
        run_folder.one_writer(settings, strategy),
    ):
        devices.require_complete_batches(settings, task, strategy)
        return _run(settings, task, strategy)


def _with_former_warmup(
    settings: settings_lib.PretrainSettings,
) -> settings_lib.PretrainSettings:
    """Returns the settings with the default warm-up that the run began with."""
    if settings.warmup_ratio is not None:
        return settings
    stored = run_folder.stored_settings(settings.output, settings)
    former = settings_lib.FORMER_WARMUP
    if stored.get("warmup_ratio") in (former, str(former)):
        return dataclasses.replace(settings, warmup_ratio=former)
    return settings


def _run(
    settings: settings_lib.PretrainSettings,
    requested_task: base.Task,
    strategy: tf.distribute.Strategy,
) -> Metrics:
    train, dev = input_pipeline.open_records(settings.records)
    tokenizer = train.tokenizer()
    task = adapted(requested_task, train, tokenizer)
    task, bound = teachers.bind(task, tokenizer, strategy)
    init = None
    if settings.init:
        init = input_pipeline.read_init(settings, settings.init)
    new_heads.check(task, is_pretrained=init is not None)
    config = _config(settings, task, tokenizer, init)
    with devices.placed(settings, config, strategy):
        model, head_names = _model(config, task, init)
        if init is not None:
            new_heads.initialize(model, init)
    identity = run_folder.Identity(
        "pretrain",
        (settings, requested_task),
        {
            "network": model.encoder.config.to_dict(),
            "tokenizer": tokenizer.fingerprint,
            "records": train.fingerprint,
            "dev records": dev.fingerprint if dev else "",
            **run_folder.options_fingerprints(requested_task),
            **bound,
            "init": run_folder.weights_fingerprint(model, head_names)
            if settings.init
            else "",
        },
        without_flags=("task", *FIELDS_FROM_RECORDS),
    )
    run_folder.claim(settings, identity, cluster.Workers(strategy))
    card = run_card.from_run(
        settings,
        identity,
        init=init,
        hardware=devices.describe(strategy),
        data=f"{os.path.basename(os.path.abspath(settings.records))}/dev",
        inputs={
            "training rows": len(train),
            **input_pipeline.token_counts(train),
            "dev rows": len(dev) if dev else 0,
        },
    )
    trainer = _train(settings, strategy, model, tokenizer, train, dev, card)
    trainer.report(
        {
            "next": f"{commands.command_line('finetune')} "
            f"--init={settings.output} ..."
        }
    )
    return trainer.state.metrics


def adapted(
    task: base.Task,
    records: records_lib.Records,
    tokenizer: tokenizers.Tokenizer,
) -> base.Task:
    """Returns a task with the fields that the training records determine.

    Raises InputError for settings that have no effect on them.
    """
    task = task.for_records(records.manifest).adapt([], tokenizer)
    task.check_features(records.features)
    return input_pipeline.with_records(task, records)


def _train(
    settings: settings_lib.PretrainSettings,
    strategy: tf.distribute.Strategy,
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
    train: records_lib.Records,
    dev: records_lib.Records | None,
    card: run_card.RunCard,
) -> trainer_lib.Trainer:
    """Trains on the records and evaluates on the dev records."""
    task = model.task

    def batches(records, shuffle, **steps):
        sampler = input_pipeline.sampler(
            task,
            records,
            row_length=task.seq_length,
            bucket_lengths=settings.bucket_lengths,
            batch_size=settings.batch_size,
            seed=settings.seed,
            shuffle=shuffle,
        )
        return input_pipeline.batches(strategy, task, records, sampler, **steps)

    evaluate_step = step_lib.make_evaluate_step(
        model, task.for_serving(), strategy=strategy, xla=settings.xla
    )

    def evaluate(records: records_lib.Records) -> trainer_lib.Evaluation:
        count = -(-len(records) // settings.batch_size)
        stop = min(count, settings.evaluate_batches)
        dev_batches = batches(records, False, stop_step=stop)
        evaluate_step.trace(dev_batches.element_spec)
        return scoring.score(task, evaluate_step, dev_batches), {}  # no tables

    trainer = trainer_lib.Trainer(
        settings, strategy, model, tokenizer, settings.steps, card
    )
    trainer.train(
        batches(
            train,
            True,
            start_step=trainer.state.step,
            stop_step=settings.steps,
            steps=settings.steps,
        ),
        evaluate=None if dev is None else functools.partial(evaluate, dev),
        evaluate_every=settings.evaluate_every,
    )
    return trainer


def _config(
    settings: settings_lib.PretrainSettings,
    task: base.Task,
    tokenizer: tokenizers.Tokenizer,
    init: checkpoint.Checkpoint | None,
) -> networks.NetworkConfig:
    """Returns the network that learns; InputError if it cannot."""
    if init is not None:
        input_pipeline.same_vocabulary(init, tokenizer, settings.records)
        loading.check_length(task, init.config)
        return init.config
    config = named_networks.parse(
        settings.model, vocab_size=tokenizer.vocab_size
    )
    loading.check_inputs(tokenizer, config)
    loading.check_length(task, config)
    return config


def _model(
    config: networks.NetworkConfig,
    task: base.Task,
    init: checkpoint.Checkpoint | None,
) -> tuple[model_lib.BertModel, set[str] | None]:
    """Returns the model, and the names of the heads that `init` has.

    None instead of names: all heads. The set is empty without `init`.
    """
    if init is not None:
        return loading.load_model(init, task), init.matching_heads(task)
    return model_lib.BertModel(config.build_encoder(), task), set()
