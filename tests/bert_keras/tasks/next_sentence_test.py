"""A pretrained checkpoint is asked whether a text follows another."""

import os

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import checkpoint, errors
from bert_keras import model as model_lib
from bert_keras.data import packing
from bert_keras.formats import google, hugging_face
from bert_keras.serving import saved_model
from bert_keras.tasks import classification, masked_lm, next_sentence
from bert_keras.training import evaluate
from tests import sharp, tiny

TOKENIZER = tiny.tokenizer()
CLASSES = ("next", "previous", "random")
PAIRS = [
    ("the film", "is good"),
    ("a bad plot", "not very old ."),
    ("电影", "很好"),
    ("the film", ""),
    ("not " * 20, "the actor " * 20),
]


class NextSentenceTest(parameterized.TestCase):
    def save(self, task, **sizes):
        folder = self.create_tempdir().full_path
        model = model_lib.BertModel(tiny.bert(**sizes).build_encoder(), task)
        sharp.spread(model, 1)
        checkpoint.save(folder, model, TOKENIZER, step=1)
        return folder, model

    def pretrained(self, objective="nsp"):
        task = masked_lm.MaskedLM(objective=objective, seq_length=24)
        return self.save(task.adapt([], TOKENIZER))

    @parameterized.parameters("nsp", "sop")
    def test_the_score_is_that_of_the_pretrained_head(self, objective):
        folder, model = self.pretrained(objective)
        asked = bert_keras.load(folder, task="next_sentence")
        self.assertEqual(asked.task.objective, objective)
        self.assertEqual(asked.task.seq_length, 24)
        segments = [
            TOKENIZER(tf.constant(texts)) for texts in zip(*PAIRS, strict=True)
        ]
        rows = packing.pack(segments, TOKENIZER.frame, seq_length=24)
        features = model.task.add_derived_features(
            {name: rows[name] for name in model.encoder.config.inputs}
        )
        logits = model(features)["next_sentence"].numpy().astype(np.float64)
        # Class 0 follows, as in Google's checkpoints.
        expected = 1 / (1 + np.exp(logits[:, 1] - logits[:, 0]))
        answers = asked.predict(PAIRS)
        scores = [answer["score"] for answer in answers]
        np.testing.assert_allclose(scores, expected, atol=1e-5)
        self.assertGreater(np.ptp(scores), 0.1)
        self.assertEqual(
            [answer["follows"] for answer in answers],
            (expected > 0.5).tolist(),
        )
        self.assertEqual(
            [answer["truncated"] for answer in answers], [False] * 4 + [True]
        )

    def three_classes(self, **sizes):
        task = masked_lm.MaskedLM(
            objective="nsp_sop", sentence_classes=CLASSES, seq_length=24
        )
        return self.save(task.adapt([], TOKENIZER), **sizes)

    def test_of_three_classes_the_answer_is_one(self):
        folder, model = self.three_classes()
        self.assertEqual(model.head.by_name()["next_sentence"].score.units, 3)
        asked = bert_keras.load(folder, task="next_sentence")
        self.assertEqual(asked.task.objective, "nsp_sop")
        answers = asked.predict(PAIRS)
        scores = np.array([answer["scores"] for answer in answers])
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
        self.assertGreater(np.ptp(scores[:, 0]), 0.05)
        self.assertEqual(
            [answer["label"] for answer in answers],
            [CLASSES[index] for index in scores.argmax(axis=1)],
        )
        np.testing.assert_allclose(
            [answer["score"] for answer in answers], scores.max(axis=1)
        )
        again = bert_keras.load(
            self.save_again(asked),
            task=next_sentence.NextSentence(seq_length=24),
        )
        self.assertEqual(again.predict(PAIRS), answers)

    def save_again(self, asked):
        """Saves the question itself as a checkpoint."""
        folder = self.create_tempdir().full_path
        checkpoint.save(folder, asked.model, asked.tokenizer, step=1)
        return folder

    def test_heads_of_other_objectives_are_not_reused(self):
        folder, _ = self.three_classes()
        saved = checkpoint.read(folder)
        for changes, kept in (
            ({}, None),
            ({"objective": "my.other"}, {"masked_lm"}),
            ({"sentence_classes": CLASSES[:2]}, {"masked_lm"}),
            ({"objective": "nsp", "sentence_classes": ()}, {"masked_lm"}),
        ):
            task = saved.task.with_settings(**changes)
            self.assertEqual(saved.matching_heads(task), kept)

    @parameterized.parameters("nsp", "sop", "none")
    def test_published_objectives_are_saved_as_before(self, objective):
        task = masked_lm.MaskedLM(objective=objective)
        self.assertNotIn("sentence_classes", task.to_dict())
        task = next_sentence.NextSentence(objective=objective)
        self.assertNotIn("sentence_classes", task.to_dict())
        self.assertEqual(task.head_signatures, {"next_sentence": objective})

    @parameterized.parameters(google, hugging_face)
    def test_foreign_formats_have_two_classes(self, form):
        _, model = self.three_classes(activation="gelu_tanh")
        with self.assertRaisesRegex(
            errors.InputError, "masked_lm with a sentence objective of 3"
        ):
            form.write(self.create_tempdir().full_path, model, TOKENIZER)

    def test_evaluation_of_three_classes(self):
        folder, _ = self.three_classes()
        asked = bert_keras.load(folder, task="next_sentence")
        labels = [answer["label"] for answer in asked.predict(PAIRS[:3])]
        labels[1] = next(name for name in CLASSES if name != labels[1])
        path = os.path.join(self.create_tempdir().full_path, "pairs.tsv")
        with open(path, "w", encoding="utf-8") as file:
            file.write("text\ttext_pair\tlabel\n")
            for pair, label in zip(PAIRS, labels, strict=False):
                file.write("\t".join((*pair, label)) + "\n")
        metrics = asked.evaluate(path)
        self.assertAlmostEqual(metrics["accuracy"], 2 / 3)
        shares = asked.task.baselines([{"label": each} for each in labels])
        most = max(map(labels.count, labels)) / 3
        self.assertAlmostEqual(*shares.values(), most)
        with self.assertRaisesRegex(ValueError, "one of next, .*, found 1"):
            asked.task._parse("1")

    def test_an_object_is_adapted_like_a_name(self):
        folder, _ = self.pretrained("sop")
        asked = bert_keras.load(
            folder, task=next_sentence.NextSentence(seq_length=24)
        )
        self.assertEqual(asked.task.objective, "sop")

    def test_a_checkpoint_without_the_head_is_refused(self):
        task = masked_lm.MaskedLM(objective="none").adapt([], TOKENIZER)
        classifier = classification.Classification(labels=("a", "b"))
        for trained in (task, classifier, None):
            folder, _ = self.save(trained, max_position_embeddings=128)
            for asked in ("next_sentence", next_sentence.NextSentence()):
                with self.assertRaisesRegex(
                    errors.InputError,
                    "pairs of sentences .*, found one of "
                    f"{trained.name if trained else 'no task'}",
                ):
                    bert_keras.load(folder, task=asked)

    def test_the_name_of_a_task_that_is_to_be_trained_is_refused(self):
        folder, _ = self.pretrained()
        with self.assertRaisesRegex(
            errors.InputError, "the head span for task=question_answering"
        ):
            bert_keras.load(folder, task="question_answering")

    def test_the_name_of_its_own_task_changes_nothing(self):
        classifier = classification.Classification(
            labels=("a", "b"), seq_length=16
        )
        folder, _ = self.save(classifier)
        asked = bert_keras.load(folder, task="classification")
        self.assertEqual(asked.task, classifier)

    def test_evaluation_of_labelled_pairs(self):
        folder, _ = self.pretrained()
        asked = bert_keras.load(folder, task="next_sentence")
        follows = [answer["follows"] for answer in asked.predict(PAIRS[:3])]
        words = {True: ("1", "TRUE", "true"), False: ("0", "false", "False")}
        path = os.path.join(self.create_tempdir().full_path, "pairs.tsv")
        with open(path, "w", encoding="utf-8") as file:
            file.write("text\ttext_pair\tlabel\n")
            for number, pair in enumerate(PAIRS[:3]):
                label = words[follows[number] != (number == 0)][number]
                file.write("\t".join((*pair, label)) + "\n")
        settings = evaluate.EvaluateSettings(
            checkpoint=folder, data=path, task="next_sentence"
        )
        metrics = evaluate.run(settings)
        self.assertAlmostEqual(metrics["accuracy"], 2 / 3)

    def test_other_labels_are_refused(self):
        path = os.path.join(self.create_tempdir().full_path, "pairs.tsv")
        with open(path, "w", encoding="utf-8") as file:
            file.write("text\ttext_pair\tlabel\na\tb\tnext\n")
        with self.assertRaisesRegex(
            errors.InputError, "expected 1 or true .*, found 'next'"
        ):
            list(next_sentence.NextSentence().read_examples(path))

    @pytest.mark.slow
    def test_a_saved_model_answers_alike(self):
        folder, _ = self.pretrained()
        asked = bert_keras.load(folder, task="next_sentence")
        path = saved_model.export(asked, self.create_tempdir().full_path)
        served = tf.saved_model.load(path).signatures["serving_default"]
        first, second = (tf.constant(x) for x in zip(*PAIRS, strict=True))
        got = served(text=first, text_pair=second)
        want = asked.serve_text(text=first, text_pair=second)
        np.testing.assert_allclose(got["score"], want["score"], atol=1e-6)
        np.testing.assert_array_equal(got["follows"], want["follows"])

    def test_it_cannot_be_trained(self):
        with self.assertRaisesRegex(errors.InputError, "is not trained"):
            next_sentence.NextSentence().make_targets({}, {}, TOKENIZER)


if __name__ == "__main__":
    absltest.main()
