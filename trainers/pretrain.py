"""Pretrains a BERT on prepared records: masked LM and the sentence objective.

  python -m trainers.prepare --input=corpus.txt --vocab_size=8000 --output=rec
  python -m trainers.pretrain --records=rec --output=runs/base --model=base \\
      --steps=100000 --batch_size=256 --learning_rate=1e-4

The run folder holds checkpoints, log.jsonl and TensorBoard files; the same
command goes on where the run stopped. Masks are drawn anew in every epoch.
"""

import dataclasses

import tensorflow as tf

from bert_keras import model as model_lib
from bert_keras import options
from bert_keras.data import batches as batches_lib
from bert_keras.networks import bert as bert_lib
from bert_keras.tasks import masked_lm
from bert_keras.training import (
    cluster,
    devices,
    input_pipeline,
    run_folder,
    scoring,
)
from bert_keras.training import settings as settings_lib
from bert_keras.training import step as step_lib
from bert_keras.training import trainer as trainer_lib
from trainers import flags


@dataclasses.dataclass(frozen=True)
class Settings(settings_lib.TrainSettings):
    records: str = options.option(
        "", "Folder that trainers.prepare made.", reads=True
    )
    model: str = options.option(
        "base",
        f"One of {', '.join(bert_lib.SIZES)}, or a JSON file with the "
        "fields "
        "of BertConfig.",
        reads=True,
    )
    init: str = options.option(
        "", "A checkpoint of any format that training starts from.", reads=True
    )
    steps: int = options.option(100_000, "Updates.", least=1)
    batch_size: int = options.option(
        256,
        "Rows per update, over all replicas and accumulation steps.",
        least=1,
    )
    learning_rate: float = options.option(1e-4, "Its highest value.", least=0.0)
    warmup: float = options.option(
        0.01,
        "Steps in which the learning rate rises to --learning_rate; below 1: "
        "a share of all steps. After it the rate falls linearly to 0.",
        least=0.0,
    )
    evaluate_every: int = options.option(
        5000, "Steps between evaluations on the held-out records.", least=0
    )
    evaluate_batches: int = options.option(
        100, "Batches of held-out records that an evaluation reads.", least=1
    )


def pretrain(settings: Settings, task: masked_lm.MaskedLM) -> dict[str, float]:
    """Trains to `steps`; returns the last evaluation's scores."""
    options.check(settings, task)
    options.require("records", settings.records)
    options.require("output", settings.output)
    run_folder.refuse_inputs_inside(
        settings.output, records=settings.records, init=settings.init
    )
    strategy = devices.start(settings)
    with run_folder.one_writer(settings, strategy):
        return _pretrain(settings, task, strategy)


def _pretrain(
    settings: Settings,
    asked: masked_lm.MaskedLM,
    strategy: tf.distribute.Strategy,
) -> dict[str, float]:
    train, dev = input_pipeline.open_records(settings.records)
    tokenizer = input_pipeline.tokenizer_of(train)
    task = dataclasses.replace(
        asked,
        seq_length=train.manifest["seq_length"],
        objective=train.manifest["objective"],
    ).adapt([], tokenizer)
    with strategy.scope():
        model, parts = _model(settings, task, tokenizer)
    identity = run_folder.Identity(
        "pretrain",
        (settings, asked),
        {
            "network": model.encoder.config.to_dict(),
            "tokenizer": tokenizer.fingerprint,
            "records": train.fingerprint,
            "dev records": dev.fingerprint if dev else "",
            "init": run_folder.of_start(model, parts) if settings.init else "",
        },
    )
    run_folder.claim(settings, identity, cluster.Workers(strategy))
    trainer = trainer_lib.Trainer(
        settings, strategy, model, tokenizer, settings.steps
    )
    lengths = input_pipeline.buckets(settings, task.seq_length)

    def batches(records, shuffle, **span):
        plan = batches_lib.Plan(
            records.lengths,
            settings.batch_size,
            seed=settings.seed,
            shuffle=shuffle,
            buckets=lengths,
        )
        return input_pipeline.batches(strategy, task, records, plan, **span)

    evaluate_step = step_lib.make_evaluate_step(
        model, task, strategy=strategy, xla=settings.xla
    )

    def evaluate():
        count = -(-len(dev) // settings.batch_size)
        stop = min(count, settings.evaluate_batches)
        dev_batches = batches(dev, False, stop_step=stop)
        return scoring.average(evaluate_step, dev_batches), {}

    trainer.train(
        batches(
            train,
            True,
            start_step=trainer.state.step,
            stop_step=settings.steps,
        ),
        evaluate=None if dev is None else evaluate,
        evaluate_every=settings.evaluate_every,
    )
    trainer.report(
        {"next": f"python -m trainers.finetune --init={settings.output} ..."}
    )
    return trainer.state.metrics


def _model(settings, task, tokenizer):
    """The model, and which parts of its head it starts from."""
    if settings.init:
        found = input_pipeline.read_init(settings, settings.init)
        input_pipeline.same_vocabulary(found, tokenizer, settings.records)
        input_pipeline.fits(task, found.config)
        return found.model(task), found.parts(task)
    bert = bert_lib.parse(settings.model, vocab_size=tokenizer.vocab_size)
    input_pipeline.fits(task, bert)
    return model_lib.BertModel(bert_lib.BertEncoder(bert), task), set()


def main() -> None:
    pretrain(flags.read(Settings), flags.read(masked_lm.MaskedLM))


def define_flags() -> None:
    flags.define(Settings)
    # The records say how long their rows are.
    flags.define(masked_lm.MaskedLM, without=("seq_length",))


if __name__ == "__main__":
    flags.run(main, define_flags)
