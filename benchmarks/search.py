"""Finds the paragraph of a question, after training with k negatives.

python -m benchmarks.search --init=CHECKPOINT --squad=train.json

One question of each paragraph of SQuAD. The last articles are held out; the
candidates are all of their paragraphs. `embedding` compares vectors, `matching`
reads both texts; as it is slow for many, all have the rank among 32 paragraphs,
too. Beside them TF-IDF and no training.
"""

import collections
import json
import math
import os
import re
import tempfile
from collections.abc import Mapping

import numpy as np
import rich.table
from absl import flags

import benchmarks
import bert_keras
from bert_keras.metrics import ranking

_INIT = flags.DEFINE_string("init", None, "Checkpoint.", required=True)
_SQUAD = flags.DEFINE_string("squad", None, "SQuAD's JSON.", required=True)
_TRAIN = flags.DEFINE_integer("train_rows", 1500, "Training questions.", 1)
_TEST = flags.DEFINE_integer("test_rows", 300, "Held-out questions, about.", 1)
_NEGATIVES = flags.DEFINE_list("negatives", "1,4,16,31", "Values of k.")
_READ = flags.DEFINE_list("matching", "1", "Values of k of matching.")
_CANDIDATES = flags.DEFINE_integer("candidates", 32, "Paragraphs.", 2)
_SEEDS = flags.DEFINE_list("seeds", "1", "Seeds.")
_LENGTH = flags.DEFINE_integer("seq_length", 192, "Tokens of both texts.", 8)
_RATE = flags.DEFINE_float("learning_rate", 5e-5, "Peak learning rate.")
_EPOCHS = flags.DEFINE_integer("epochs", 1, "Epochs.", 1)
_PRECISION = flags.DEFINE_string("precision", "float32", "Dtype policy.")

Pairs = list[Mapping[str, str]]
_METRICS = ("accuracy_at_1", "mrr")


def read_pairs() -> tuple[Pairs, Pairs]:
    """Returns training and held-out pairs, of different articles."""
    with open(_SQUAD.value, encoding="utf-8") as file:
        data = json.load(file)["data"]
    articles: list[Pairs] = [
        [
            {"text": p["qas"][0]["question"], "text_pair": p["context"]}
            for p in article["paragraphs"]
        ]
        for article in data
    ]
    test: Pairs = []
    while len(test) < _TEST.value:
        test += articles.pop()
    train = [pair for article in articles for pair in article]
    return train[: _TRAIN.value], test


def tf_idf(pairs: Pairs) -> np.ndarray:
    """Returns the vectors of TF-IDF, of the questions and the paragraphs."""
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
    return vectors


def among_all(vectors: np.ndarray) -> dict[str, float]:
    """Returns the metrics of a search among all paragraphs."""
    own = range(vectors.shape[1])
    right = [{number} for number in own]
    return ranking.retrieval(ranking.ranks(vectors[0], vectors[1], own, right))


def cosines(
    vectors: np.ndarray,
    pairs: Pairs,
    rows: Pairs,
) -> list[float]:
    """Returns the cosine of each row's texts, which are those of pairs."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    first, second = vectors / np.maximum(norms, 1e-12)
    index = [
        {pair[name]: number for number, pair in enumerate(pairs)}
        for name in ("text", "text_pair")
    ]
    return [
        float(first[index[0][row["text"]]] @ second[index[1][row["text_pair"]]])
        for row in rows
    ]


def among_few(rows: Pairs, scores: list[float]) -> dict[str, float]:
    """Returns the metrics of the ranks among a question's own rows."""
    groups = [row["text"] for row in rows]
    is_right = [row["label"] == "1" for row in rows]
    return ranking.retrieval(ranking.grouped_ranks(groups, scores, is_right))


class Experiment:
    """The data as files, and a table of the metrics of models."""

    def __init__(self, folder: str):
        self.train, self.test = read_pairs()
        self.folder = folder
        count = _CANDIDATES.value
        few = bert_keras.tasks.Matching(negatives=count - 1)
        self.few = list(few.expand(self.test))
        self.table = rich.table.Table(
            *("", "accuracy@1", "MRR", f"accuracy@1 of {count}", "MRR"),
            title=f"{len(self.train)} and {len(self.test)} questions",
        )
        self.paths = []
        for name, pairs in (("train", self.train), ("test", self.test)):
            self.paths.append(os.path.join(folder, f"{name}.jsonl"))
            with open(self.paths[-1], "w", encoding="utf-8") as file:
                file.writelines(json.dumps(pair) + "\n" for pair in pairs)

    def add(self, name: str, *metrics: dict[str, float]) -> None:
        values = [f"{each[m]:.3f}" for each in metrics for m in _METRICS]
        self.table.add_row(name, *["-"] * (4 - len(values)), *values)
        print(name, *values, flush=True)

    def add_vectors(self, name: str, model: bert_keras.Predictor) -> None:
        answers = model.predict(self.test)
        vectors = np.array(
            [
                [answer[key] for answer in answers]
                for key in ("embedding", "embedding_pair")
            ]
        )
        few = among_few(self.few, cosines(vectors, self.test, self.few))
        self.add(name, among_all(vectors), few)

    def finetuned(
        self, *, task: str, negatives: int, seed: int
    ) -> bert_keras.Predictor:
        return bert_keras.finetune(
            _INIT.value,
            self.paths[0],
            task=task,
            negatives=negatives,
            seed=seed,
            seq_length=_LENGTH.value,
            output=os.path.join(self.folder, f"{task}-{negatives}-{seed}"),
            epochs=_EPOCHS.value,
            learning_rate=_RATE.value,
            precision=_PRECISION.value,
            report_to="",
        )


def main(_: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Experiment(folder)
        words = tf_idf(run.test)
        few = among_few(run.few, cosines(words, run.test, run.few))
        run.add("TF-IDF", among_all(words), few)
        task = bert_keras.tasks.Embedding(
            seq_length=_LENGTH.value, negatives=1, pair=True
        )
        start = bert_keras.load(_INIT.value, task=task)
        run.add_vectors("without training", start)
        for negatives in map(int, _NEGATIVES.value):
            for seed in map(int, _SEEDS.value):
                model = run.finetuned(
                    task="embedding", negatives=negatives, seed=seed
                )
                run.add_vectors(f"k = {negatives}, seed {seed}", model)
        for negatives in map(int, _READ.value):
            for seed in map(int, _SEEDS.value):
                model = run.finetuned(
                    task="matching", negatives=negatives, seed=seed
                )
                scores = [row["score"] for row in model.predict(run.few)]
                name = f"matching, k = {negatives}, seed {seed}"
                run.add(name, among_few(run.few, scores))
        rich.print(run.table)


if __name__ == "__main__":
    benchmarks.run(main)
