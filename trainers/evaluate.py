"""Evaluates a checkpoint on labelled examples or on pretraining records.

python -m trainers.evaluate --checkpoint=runs/sst2 --data=dev.tsv
python -m trainers.evaluate --checkpoint=runs/base --data=records/dev
"""

from bert_keras.training import evaluate
from trainers import flags


def main() -> None:
    evaluate.run(flags.read(evaluate.EvaluateSettings))


if __name__ == "__main__":
    flags.run(main, lambda: flags.define(evaluate.EvaluateSettings))
