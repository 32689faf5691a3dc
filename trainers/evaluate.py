"""Evaluates a checkpoint on labelled examples or on pretraining records.

  bert-keras evaluate --checkpoint=runs/sst2 --data=dev.tsv
  bert-keras evaluate --checkpoint=runs/base --data=records/dev

Labelled examples are a file as for fine-tuning; pretraining records are the
folder `dev` of prepared records.
"""

from bert_keras.training import evaluate
from trainers import flags


def main() -> None:
    evaluate.run(flags.read(evaluate.EvaluateSettings))


def run() -> None:
    flags.run(main, lambda: flags.define(evaluate.EvaluateSettings))


if __name__ == "__main__":
    run()
