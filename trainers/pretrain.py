"""Pretrains a network on prepared records: BERT, GPT, ELMo or an LSTM.

  bert-keras pretrain --records=rec --output=runs/base --model=base \\
      --steps=100000 --batch_size=256 --learning_rate=1e-4

The records are made from text:

  bert-keras prepare --input=corpus.txt --vocab_size=8000 --output=rec

With --objective=masked_lm each epoch draws new masks, and the sentence
objective is that of the records: next sentence, sentence order, or none.
replaced_tokens and token_order read the same records without pairs;
causal_lm learns from records of `prepare --packing=full`, bidirectional_lm from
those of --tokenizer=characters --packing=sentences. The run folder contains
checkpoints, log.jsonl and TensorBoard files; running the same command again
resumes a stopped run.
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
