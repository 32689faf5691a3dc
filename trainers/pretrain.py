"""Pretrains BERT on prepared records with masked LM and a sentence objective.

  bert-keras pretrain --records=rec --output=runs/base --model=base \\
      --steps=100000 --batch_size=256 --learning_rate=1e-4

The records are made from text:

  bert-keras prepare --input=corpus.txt --vocab_size=8000 --output=rec

The sentence objective is that of the records: next sentence prediction,
sentence order prediction, or none. The run folder contains checkpoints,
log.jsonl and TensorBoard files; running the same command again resumes a
stopped run. Each epoch draws new masks.
"""

from bert_keras.tasks import base
from bert_keras.training import pretrain, settings
from trainers import flags


def main() -> None:
    chosen = flags.read(settings.PretrainSettings)
    task = flags.wrap_task(flags.read(base.find(chosen.objective)))
    pretrain.run(chosen, task)


def define_flags() -> None:
    recipe = flags.define_recipe(with_task=False)
    flags.define(settings.PretrainSettings)
    objective = flags.early(
        "objective",
        recipe.get("objective", settings.PretrainSettings.objective),
    )
    flags.define(base.find(objective), without=pretrain.FIELDS_FROM_RECORDS)
    flags.define_wrappers(recipe.get("wrappers", ""))
    flags.use_recipe(recipe)


def run() -> None:
    flags.run(main, define_flags)


if __name__ == "__main__":
    run()
