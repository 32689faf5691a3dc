"""Evaluates a checkpoint on labelled examples or on pretraining records.

  bert-keras evaluate --checkpoint=runs/sst2 --data=dev.tsv
  bert-keras evaluate --checkpoint=runs/base --data=records/dev

Labelled examples are a file as for fine-tuning; pretraining records are the
folder `dev` of prepared records. The flags with which `predict` changes the
answers, such as --num_beams and --pooling, change what is evaluated.
"""

from bert_keras.training import evaluate
from trainers import flags


def main() -> None:
    given = {
        name: value
        for name, value in flags.read_answer_settings().items()
        if name != "seed"  # evaluate has one of its own
    }
    evaluate.run(flags.read(evaluate.EvaluateSettings), given)


def define_flags() -> None:
    flags.define(evaluate.EvaluateSettings)
    flags.define_answer_settings(without=("seed",))


def run() -> None:
    flags.run(main, define_flags)


if __name__ == "__main__":
    run()
