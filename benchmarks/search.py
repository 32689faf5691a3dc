"""Finds the paragraph of a question, after training with k negatives.

python -m benchmarks.search --init=CHECKPOINT --squad=train.json

One question of each paragraph of SQuAD. The last articles are held out; the
candidates are all of their paragraphs. Beside it TF-IDF and no training.
"""

import collections
import json
import math
import os
import re
import tempfile

import numpy as np
import rich.table
from absl import flags

import benchmarks
import bert_keras
from bert_keras import checkpoint
from bert_keras.metrics import ranking

_INIT = flags.DEFINE_string("init", None, "Checkpoint.", required=True)
_SQUAD = flags.DEFINE_string("squad", None, "SQuAD's JSON.", required=True)
_TRAIN = flags.DEFINE_integer("train_rows", 1500, "Training questions.", 1)
_TEST = flags.DEFINE_integer("test_rows", 300, "Held-out questions, about.", 1)
_NEGATIVES = flags.DEFINE_list("negatives", "1,4,16,31", "Values of k.")
_SEEDS = flags.DEFINE_list("seeds", "1", "Seeds.")
_LENGTH = flags.DEFINE_integer("seq_length", 192, "Tokens of both texts.", 8)
_RATE = flags.DEFINE_float("learning_rate", 5e-5, "Peak learning rate.")
_PRECISION = flags.DEFINE_string("precision", "float32", "Dtype policy.")


def read_pairs() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Returns training and held-out pairs, of different articles."""
    with open(_SQUAD.value, encoding="utf-8") as file:
        articles = json.load(file)["data"]
    articles = [
        [
            {"text": p["qas"][0]["question"], "text_pair": p["context"]}
            for p in article["paragraphs"]
        ]
        for article in articles
    ]
    test: list[dict[str, str]] = []
    while len(test) < _TEST.value:
        test += articles.pop()
    train = [pair for article in articles for pair in article]
    return train[: _TRAIN.value], test


def tf_idf(pairs: list[dict[str, str]]) -> dict[str, float]:
    """Returns the metrics of cosines of TF-IDF vectors."""
    texts = [
        [re.findall(r"\w+", pair[name].lower()) for pair in pairs]
        for name in ("text", "text_pair")
    ]
    frequency = collections.Counter(w for words in texts[1] for w in {*words})
    index = {word: number for number, word in enumerate(frequency)}
    vectors = np.zeros((2, len(pairs), len(index)))
    for which, rows in enumerate(texts):
        for row, words in enumerate(rows):
            for word in filter(index.get, words):
                idf = math.log(len(pairs) / frequency[word])
                vectors[which, row, index[word]] += idf
    own = range(len(pairs))
    right = [{number} for number in own]
    ranks = ranking.ranks(vectors[0], vectors[1], own, right)
    return ranking.retrieval(ranks)


def main(_: list[str]) -> None:
    train, test = read_pairs()
    table = rich.table.Table(
        "", "accuracy@1", "MRR", title=f"{len(train)} and {len(test)} questions"
    )

    def add(name, metrics):
        values = (f"{metrics[m]:.3f}" for m in ("accuracy_at_1", "mrr"))
        table.add_row(name, *values)
        print(name, metrics, flush=True)

    add("TF-IDF", tf_idf(test))
    task = bert_keras.tasks.Embedding(
        seq_length=_LENGTH.value, negatives=1, pair=True
    )
    start = bert_keras.load(_INIT.value, task=task)
    add("without training", start.evaluate(test))
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, pairs in (("train", train), ("test", test)):
            paths.append(os.path.join(folder, f"{name}.jsonl"))
            with open(paths[-1], "w", encoding="utf-8") as file:
                file.writelines(json.dumps(pair) + "\n" for pair in pairs)
        for negatives in map(int, _NEGATIVES.value):
            for seed in map(int, _SEEDS.value):
                output = os.path.join(folder, f"{negatives}-{seed}")
                bert_keras.finetune(
                    _INIT.value,
                    *paths,
                    task="embedding",
                    negatives=negatives,
                    seq_length=_LENGTH.value,
                    output=output,
                    epochs=1,
                    learning_rate=_RATE.value,
                    precision=_PRECISION.value,
                    seed=seed,
                    report_to="",
                )
                scores = checkpoint.read(output).metadata["scores"]
                add(f"k = {negatives}, seed {seed}", scores)
    rich.print(table)


if __name__ == "__main__":
    benchmarks.run(main)
