"""Embedding with negatives: the loss, which texts are drawn, the metrics."""

import os

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras import model as model_lib
from bert_keras.tasks import base, embedding
from bert_keras.training import finetune
from tests import tiny

PAIRS = [
    ("a good film", "the actor is not old"),
    ("dull", "a very bad plot"),
    ("the story", "a very bad plot"),  # the second text of the row before
    ("a good film", "new"),  # the first text of the first row
    ("很好", "电影"),
    ("old", "a dull story"),
]
COMPARED = "compared"
SAME = [(1, 2), (0, 3)]  # rows with an equal text


def task(negatives=2, **settings):
    return embedding.Embedding(
        seq_length=16, negatives=negatives, pair=True, **settings
    )


def batch(task, step=0, weights=None):
    """A batch as a run has it: of records, randomized."""
    texts, pairs = zip(*PAIRS, strict=True)
    raw = {"text": tf.constant(texts), "text_pair": tf.constant(pairs)}
    features = task.preprocess(raw, tiny.tokenizer())
    targets = task.make_targets(raw, features, tiny.tokenizer())
    if weights is not None:
        targets["search"] = targets["search"][0], tf.constant(weights)
    seeds = tf.stack([tf.fill([6], 3), tf.range(6) + 100 * step], axis=1)
    features, targets = task.randomize(features, targets, seeds)
    return task.add_derived_features(features), targets


class SearchTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        keras.utils.set_random_seed(1)
        cls.model = model_lib.BertModel(
            tiny.bert(num_layers=1, initializer_range=0.5), task()
        )

    @parameterized.parameters((1, 0.05), (2, 1.0), (99, 0.2))
    def test_the_loss_is_a_softmax_over_the_own_text_and_the_drawn_ones(
        self, negatives, temperature
    ):
        chosen = task(negatives, temperature=temperature)
        weights = np.array([1.0, 0.5, 2.0, 1.0, 1.0, 0.0], np.float32)
        features, targets = batch(chosen, weights=weights)
        outputs = self.model(features, targets, training=False)
        one, two = (
            outputs[name].numpy().astype(float)
            for name in ("embedding", "embedding_pair")
        )
        compared = features[COMPARED].numpy() > 0
        total = 0.0
        for row in range(6):
            candidates = [row, *np.flatnonzero(compared[row])]
            scores = np.exp(two[candidates] @ one[row] / temperature)
            total -= np.log(scores[0] / scores.sum()) * weights[row]
        loss = chosen.loss(outputs, features, targets)
        self.assertEqual(set(loss), {"search"})
        np.testing.assert_allclose(loss["search"], total, rtol=1e-4)

    def test_only_texts_that_are_not_right_are_drawn(self):
        weights = np.array([1, 1, 1, 1, 1, 0], np.float32)
        allowed = ~np.eye(6, dtype=bool)
        allowed[:, 5] = False  # a padding row
        for one, two in SAME:
            allowed[one, two] = allowed[two, one] = False
        every, _ = batch(task(99), weights=weights)
        np.testing.assert_array_equal(every[COMPARED], allowed)
        seen = np.zeros((6, 6), bool)
        for step in range(30):
            drawn = batch(task(2), step, weights)[0][COMPARED].numpy() > 0
            np.testing.assert_array_equal(drawn.sum(1), 2)
            seen |= drawn
        np.testing.assert_array_equal(seen, allowed)

    def test_a_draw_is_of_the_seeds_of_its_row(self):
        one, same, other = (
            batch(task(), step)[0][COMPARED].numpy() for step in (0, 0, 1)
        )
        np.testing.assert_array_equal(one, same)
        self.assertFalse((one == other).all())

    def test_texts_that_are_not_drawn_have_no_gradient(self):
        chosen = task(1)
        features, targets = batch(chosen)
        first, second = tf.random.stateless_normal((2, 6, 16), [1, 2])
        with tf.GradientTape() as tape:
            tape.watch(second)
            outputs = {"embedding": first, "embedding_pair": second}
            only_one = {"search": (targets["search"][0], tf.one_hot(0, 6))}
            loss = chosen.loss(outputs, features, only_one)["search"]
        gradient = tape.gradient(loss, second).numpy()
        read = features[COMPARED][0].numpy() > 0
        read[0] = True  # its own
        self.assertEqual(read.sum(), 2)
        np.testing.assert_array_equal(np.abs(gradient).sum(1) > 0, read)

    def test_metrics_are_of_a_search_among_all_second_texts(self):
        rows = [{"text": a, "text_pair": b} for a, b in PAIRS]
        units = np.eye(16)
        which = {pair: units[n] for n, (_, pair) in enumerate(PAIRS)}
        answers = [
            {"embedding": which[b] * 3, "embedding_pair": which[b]}
            for _, b in PAIRS
        ]
        metrics = task().metrics(answers, rows)
        self.assertEqual(metrics, {"mrr": 1.0, "accuracy_at_1": 1.0})
        # The first text is nearest to that of the last row, then to the
        # other of its own texts, which counts for neither.
        answers[0]["embedding"] = (
            3 * which[PAIRS[5][1]] + 2 * which["new"] + which[PAIRS[0][1]]
        )
        metrics = task().metrics(answers, rows)
        self.assertAlmostEqual(metrics["mrr"], 5.5 / 6)
        self.assertAlmostEqual(metrics["accuracy_at_1"], 5 / 6)
        self.assertEqual(set(task().metric_names), set(metrics))

    def test_pairs_have_no_label_or_the_same(self):
        rows = [{"text": a, "text_pair": b} for a, b in PAIRS]
        unlabelled = embedding.Embedding(negatives=2)
        for extra in ({}, {"label": "3"}):
            adapted = unlabelled.adapt([row | extra for row in rows], None)
            self.assertTrue(adapted.pair)
            self.assertEqual(base.from_dict(adapted.to_dict()), adapted)
        for label in ("2", "0"):
            with self.assertRaisesRegex(
                errors.InputError, f"row 1: .* found {label}; remove"
            ):
                unlabelled.adapt(
                    [rows[0] | {"label": "3"}, rows[1] | {"label": label}],
                    None,
                )
        self.assertEqual(unlabelled.make_example(rows[0], None), rows[0])
        with self.assertRaisesRegex(ValueError, "expected no label"):
            unlabelled.make_example(rows[0], 3)

    def test_a_temperature_without_negatives_is_refused(self):
        with self.assertRaisesRegex(errors.InputError, "no effect without"):
            embedding.Embedding(temperature=0.1)

    def test_rows_without_another_to_compare_with_are_refused(self):
        unlabelled = embedding.Embedding(negatives=2)
        row, same = ({"text": "a", "text_pair": each} for each in "bc")
        for rows in ([row], [row, same, row]):
            with self.assertRaisesRegex(
                errors.InputError, "differ in text, found 'a' in all"
            ):
                unlabelled.adapt(rows, None)
        unlabelled.adapt([row, same, {"text": "d", "text_pair": "b"}], None)


class RunTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        self.train = os.path.join(self.folder, "train.tsv")
        with open(self.train, "w", encoding="utf-8") as file:
            file.write("text\ttext_pair\n")
            file.writelines(f"{a}\t{b}\n" for a, b in PAIRS)

    def run_with(self, **settings):
        values = {
            "train": self.train,
            "dev": self.train,
            "model": "tiny",
            "vocab_size": 60,
            "task": "embedding",
            "negatives": 3,
            "seq_length": 16,
            "output": os.path.join(self.folder, "run"),
            "batch_size": 4,
        }
        return finetune.finetune(**(values | settings))

    def test_a_divided_batch_is_refused(self):
        with self.assertRaisesRegex(
            errors.InputError, "one replica and one micro-batch"
        ):
            self.run_with(gradient_accumulation_steps=2)
        self.assertFalse(os.path.exists(os.path.join(self.folder, "run")))

    def test_a_batch_of_one_row_is_refused(self):
        with self.assertRaisesRegex(
            errors.InputError, "batch_size=1: expected 2 or more"
        ):
            self.run_with(batch_size=1)

    def test_pairs_without_labels_are_learned(self):
        model = self.run_with(epochs=10, learning_rate=3e-3)
        metrics = model.evaluate(self.train)
        self.assertGreater(metrics["mrr"], 0.8)


if __name__ == "__main__":
    absltest.main()
