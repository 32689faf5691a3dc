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
        groups = [dict(example).pop("group") for example in examples]
        self.assertEqual(groups, [example["text"] for example in examples])
        examples = [
            {k: v for k, v in example.items() if k != "group"}
            for example in examples
        ]
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

    @parameterized.parameters(
        ("1", 0, "the label 0, or"), ("0", 0, "0 alone"), ("0", 2, "0 alone")
    )
    def test_rows_of_one_side_are_refused(self, label, negatives, text):
        task = matching.Matching(negatives=negatives)
        with self.assertRaisesRegex(errors.InputError, text):
            labelled_examples.read(task, PAIRS, [label] * 6)

    def test_pairs_without_another_second_text_are_refused(self):
        same = [pair | {"text_pair": "x"} for pair in PAIRS]
        with self.assertRaisesRegex(errors.InputError, "negatives=1"):
            labelled_examples.read(matching.Matching(), same)

    def test_the_file_without_both_sides_is_named(self):
        train, dev = self.write(PAIRS), self.write(PAIRS[:1], "dev.jsonl")
        with self.assertRaisesRegex(errors.InputError, f"{dev}: expected"):
            bert_keras.finetune(
                self.start(),
                train,
                dev,
                task="matching",
                seq_length=16,
                output=os.path.join(self.create_tempdir().full_path, "run"),
            )

    def test_a_label_that_only_later_rows_have_is_refused(self):
        rows = [PAIRS[0], PAIRS[1], PAIRS[2] | {"label": 0}]
        with self.assertRaisesRegex(
            errors.InputError, "line 3: expected no label, .*found 'label'"
        ):
            labelled_examples.read(matching.Matching(), self.write(rows))

    def test_numbers_of_a_data_frame_are_labels(self):
        task = matching.Matching(negatives=0)
        examples = labelled_examples.read(
            task, PAIRS[:3], np.array([1.0, 0.0, 1.0])
        )
        labels = [example["label"] for example in examples]
        self.assertEqual(labels, ["1", "0", "1"])

    def test_an_evaluation_has_its_own_number_of_negatives(self):
        folder = self.create_tempdir().full_path
        sharp.make("matching").save(folder)
        data = self.write(PAIRS)
        path = os.path.join(self.create_tempdir().full_path, "answers.jsonl")
        for number, count in ((None, 12), (4, 30)):
            bert_keras.evaluate(
                folder,
                data,
                **{"output": path}
                | ({} if number is None else {"negatives": number}),
            )
            with open(path, encoding="utf-8") as file:
                self.assertLen(file.readlines(), count)
        labelled = self.write(
            [row | {"label": n % 2} for n, row in enumerate(PAIRS)]
        )
        bert_keras.evaluate(folder, labelled, output=path, negatives=0)
        with open(path, encoding="utf-8") as file:
            self.assertLen(file.readlines(), 6)
        classifier = self.create_tempdir().full_path
        sharp.make("pair").save(classifier)
        with self.assertRaisesRegex(errors.InputError, "no effect on an"):
            bert_keras.evaluate(classifier, labelled, negatives=1)

    @parameterized.parameters(1, 3)
    def test_both_halves_count_alike(self, number):
        task = matching.Matching(negatives=number)
        rows = list(task.expand(PAIRS))
        task = task.adapt(rows, tiny.tokenizer())
        raw = {"label": tf.constant([row["label"] for row in rows])}
        self.assertAlmostEqual(task.share, 1 / (1 + number))
        # Without `adapt`, or with rows that have no negatives yet, too.
        again = matching.Matching(negatives=number)
        for each in (again, again.adapt(PAIRS, tiny.tokenizer())):
            self.assertEqual(
                each.make_targets(raw, {}, None)["match"][1].numpy().tolist(),
                task.make_targets(raw, {}, None)["match"][1].numpy().tolist(),
            )
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
            self.assertTrue(np.isnan(metrics["mrr"]))  # no text has two rows

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
            epochs=200,
            batch_size=18,
            learning_rate=5e-3,
            pooling="mean",
            seq_length=16,
            report_to="",
        )
        stored = records.Records(os.path.join(output, "records"))
        self.assertLen(stored, 18)
        model = bert_keras.load(output)
        self.assertAlmostEqual(model.task.share, 1 / 3)
        metrics = model.evaluate(train)
        self.assertGreater(metrics["balanced_accuracy"], 0.8)
        self.assertGreater(metrics["mrr"], 0.85)

    def test_all_rows_of_a_text_are_in_one_split(self):
        rows = [
            {"text": f"q{number % 50}", "text_pair": f"a{number}"}
            for number in range(200)
        ]
        settings = settings_lib.FinetuneSettings(
            train=self.write(rows), dev_fraction=0.2, output="unused"
        )
        task = matching.Matching(negatives=1)
        matches = {(row["text"], row["text_pair"]) for row in rows}
        for select in (
            labelled_records.training_examples,
            labelled_records.dev_examples,
        ):
            examples = select(
                settings, task, task.read_examples(settings.train)
            )
            for row in examples:
                is_match = (row["text"], row["text_pair"]) in matches
                self.assertEqual(row["label"], str(int(is_match)))

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
            self.assertEqual(
                sum(example["label"] == "1" for example in examples), count
            )
            texts.append({example["text_pair"] for example in examples})
        self.assertLen(texts[0] | texts[1], 40)
        self.assertEmpty(texts[0] & texts[1])


if __name__ == "__main__":
    absltest.main()
