"""Fine-tunes a checkpoint, or trains a new network, on labelled examples.

  bert-keras finetune --task=classification --init=runs/base \\
      --train=train.tsv --dev=dev.tsv --output=runs/sst2 \\
      --epochs=3 --batch_size=32 --learning_rate=5e-5

The same with the flags of a recipe, of which flags on the command line override
any:

  bert-keras finetune --recipe=sst2 --init=runs/base \\
      --train=train.tsv --dev=dev.tsv --output=runs/sst2

Without a checkpoint it trains a new network, whose vocabulary is learned from
the training rows:

  bert-keras finetune --task=classification --model=mini \\
      --train=train.tsv --dev=dev.tsv --output=runs/new --learning_rate=1e-3

Files are .tsv, .csv or .jsonl, optionally compressed (.gz), or .parquet;
--columns names their columns. For --task=tagging they have CoNLL's format: one
word and its tag per line, a blank line between sentences.
The task is evaluated on --dev after every epoch and the best epoch is kept.
Running the same command again resumes a stopped run.
"""

from bert_keras.tasks import base
from bert_keras.training import finetune, settings
from trainers import flags


def define_flags() -> None:
    recipe = flags.define_recipe(with_task=True)
    flags.define_task(recipe.get("task", "classification"))
    flags.define_wrappers(recipe.get("wrappers", ""))
    flags.define(settings.FinetuneSettings)
    flags.use_recipe(recipe)


def read_flags() -> tuple[settings.FinetuneSettings, base.Task]:
    task = flags.wrap_task(flags.read_task())
    return flags.read(settings.FinetuneSettings), task


def main() -> None:
    finetune.run(*read_flags())


def run() -> None:
    flags.run(main, define_flags)


if __name__ == "__main__":
    run()
