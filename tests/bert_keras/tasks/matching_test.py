"""Matching learns from pairs alone, and is the same model everywhere."""

import json
import os

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import checkpoint, errors, labelled_examples
from bert_keras import model as model_lib
from bert_keras.data import records
from bert_keras.tasks import matching
from bert_keras.training import labelled_records
from bert_keras.training import settings as settings_lib
from tests import sharp, tiny

PAIRS = [
    {"text": text, "text_pair": other}
    for text, other in (
        *[("the film", "film"), ("the plot", "plot"), ("the actor", "actor")],
        *[("an old story", "story"), ("电影 很", "电影"), ("好 !", "好")],
    )
]


class MatchingTest(parameterized.TestCase):
    def write(self, rows, name="pairs.jsonl"):
        path = os.path.join(self.create_tempdir().full_path, name)
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        return path

    def start(self):
        folder = self.create_tempdir().full_path
        encoder = tiny.bert().build_encoder()
        checkpoint.save(
            folder, model_lib.BertModel(encoder, None), tiny.tokenizer(), step=0
        )
        return folder

    def test_a_file_without_labels_has_matches(self):
        task = matching.Matching(negatives=2)
        examples = labelled_examples.read(task, self.write(PAIRS))
        labels = [example["label"] for example in examples]
        self.assertEqual(labels, ["1", "0", "0"] * 6)
        matches = examples[::3]
        self.assertEqual(matches, [pair | {"label": "1"} for pair in PAIRS])
        # Rows from Python have the same negatives.
        again = labelled_examples.read(task, PAIRS)
        self.assertEqual(again, examples)
        labelled = labelled_examples.read(task, PAIRS, [1, "true", True] * 2)
        self.assertEqual(labelled, examples)

    def test_labels_of_a_file_are_kept(self):
        rows = [
            pair | {"label": label}
            for pair, label in zip(
                PAIRS, ("1", "0", "true", "FALSE", 1, False), strict=True
            )
        ]
        path = self.write(rows)
        alone = labelled_examples.read(matching.Matching(negatives=0), path)
        labels = [example["label"] for example in alone]
        self.assertEqual(labels, ["1", "0", "1", "0", "1", "0"])
        more = labelled_examples.read(matching.Matching(negatives=1), path)
        self.assertEqual(
            [example["label"] for example in more], list("100100100")
        )

    def test_other_labels_are_refused(self):
        path = self.write([PAIRS[0] | {"label": "yes"}])
        with self.assertRaisesRegex(
            errors.InputError, r"1 or true \(the texts .*found 'yes'"
        ):
            labelled_examples.read(matching.Matching(), path)
        with self.assertRaisesRegex(errors.InputError, "example 0.*found 2"):
            labelled_examples.read(matching.Matching(), PAIRS[:1], [2])

    @parameterized.parameters(("0", "train", 0), ("1", "negatives", 0))
    def test_a_run_needs_both(self, label, argument, negatives):
        rows = [pair | {"label": label} for pair in PAIRS]
        task = matching.Matching(negatives=negatives)
        with self.assertRaisesRegex(
            errors.InputError, "found no row"
        ) as raised:
            task.adapt(rows, tiny.tokenizer())
        self.assertEqual(raised.exception.argument, argument)

    @parameterized.parameters(1, 3)
    def test_both_halves_count_alike(self, number):
        task = matching.Matching(negatives=number)
        rows = list(task.expand(PAIRS))
        task = task.adapt(rows, tiny.tokenizer())
        raw = {"label": tf.constant([row["label"] for row in rows])}
        targets = task.make_targets(raw, {}, tiny.tokenizer())
        labels, weights = (x.numpy() for x in targets["match"])
        self.assertEqual(labels.tolist(), [1, *[0] * number] * 6)
        np.testing.assert_allclose(weights[labels == 1].sum(), len(rows) / 2)
        np.testing.assert_allclose(weights[labels == 0].sum(), len(rows) / 2)

    def test_answers_and_metrics(self):
        model = sharp.make("matching")
        pairs = [(pair["text"], pair["text_pair"]) for pair in PAIRS]
        rows = model.task.preprocess(
            {
                name: tf.constant([pair[name] for pair in PAIRS])
                for name in ("text", "text_pair")
            },
            tiny.tokenizer(),
        )
        inputs = {name: rows[name] for name in tiny.bert().inputs}
        logits = model.model(inputs)["match"].numpy().astype(np.float64)
        expected = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
        answers = model.predict(pairs)
        scores = [answer["score"] for answer in answers]
        np.testing.assert_allclose(scores, expected, atol=1e-5)
        self.assertGreater(np.ptp(scores), 0.1)
        matches = [answer["matches"] for answer in answers]
        self.assertEqual(matches, (expected > 0.5).tolist())
        for match in (True, False):
            labels = [int(same == match) for same in matches]
            task = model.task.with_settings(negatives=0)
            examples = labelled_examples.read(task, PAIRS, labels)
            metrics = task.metrics(answers, examples)
            self.assertEqual(metrics["balanced_accuracy"], float(match))
            self.assertEqual(metrics["mrr"], 1.0)  # no text has two rows

    def test_matches_and_others_count_alike_in_the_accuracy(self):
        task = matching.Matching()
        examples = [{"text": "a", "label": label} for label in "1000"]
        for right, expected in ((range(4), 1), ([0], 0.5), ([1], 1 / 6)):
            answers = [
                {"matches": (index in right) == (index == 0), "score": 0.0}
                for index in range(4)
            ]
            metrics = task.metrics(answers, examples)
            self.assertAlmostEqual(metrics["balanced_accuracy"], expected)
        (value,) = task.baselines(examples).values()
        self.assertEqual(value, 0.5)

    def test_a_run_learns_from_pairs_and_their_negatives(self):
        train = self.write(PAIRS)
        output = os.path.join(self.create_tempdir().full_path, "run")
        bert_keras.finetune(
            self.start(),
            train,
            task="matching",
            negatives=2,
            output=output,
            epochs=80,
            batch_size=18,
            learning_rate=2e-2,
            pooling="mean",
            seq_length=16,
            report_to="",
        )
        stored = records.Records(os.path.join(output, "records"))
        self.assertLen(stored, 18)
        model = bert_keras.load(output)
        self.assertAlmostEqual(model.task.share, 1 / 3)
        metrics = model.evaluate(train)
        self.assertEqual(metrics, {"balanced_accuracy": 1.0, "mrr": 1.0})
        right, wrong = model.predict([("the film", "film"), ("the film", "好")])
        self.assertTrue(right["matches"])
        self.assertFalse(wrong["matches"])

    def test_training_and_dev_rows_have_negatives_of_their_own(self):
        rows = [
            {"text": f"q{number}", "text_pair": f"a{number}"}
            for number in range(40)
        ]
        settings = settings_lib.FinetuneSettings(
            train=self.write(rows), dev_fraction=0.25, output="unused"
        )
        task = matching.Matching(negatives=50)
        texts = []
        for select in (
            labelled_records.training_examples,
            labelled_records.dev_examples,
        ):
            examples = list(
                select(settings, task, task.read_examples(settings.train))
            )
            count = len({example["text"] for example in examples})
            self.assertLen(examples, count * count)
            texts.append({example["text_pair"] for example in examples})
        self.assertLen(texts[0] | texts[1], 40)
        self.assertEmpty(texts[0] & texts[1])


if __name__ == "__main__":
    absltest.main()
