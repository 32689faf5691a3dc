"""Extractive summaries: which states are scored, learned and chosen."""

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import errors, evaluation, predictor
from bert_keras import model as model_lib
from bert_keras.networks import bert
from bert_keras.tasks import extractive_summary
from bert_keras.tokenizers import wordpiece
from tests import sharp, tiny

SENTENCES = ["a good film .", "The plot is old !", "very dull", "很 好 。"]
TEXT = "a good film . The plot is old ! Very dull. 很 好 。"
TASK = extractive_summary.ExtractiveSummary(
    seq_length=40, max_sentences=8, num_sentences=2
).adapt([], tiny.tokenizer())
LAST = extractive_summary.ExtractiveSummary(
    seq_length=40, max_sentences=8, num_sentences=2, pooling="last"
).adapt([], tiny.tokenizer())
CLS, SEP = 2, 3


@functools.cache
def make(task=TASK, **network):
    keras.utils.set_random_seed(1)
    model = model_lib.BertModel(bert.BertEncoder(tiny.bert(**network)), task)
    sharp.spread(model, 1)
    return predictor.Predictor(model, tiny.tokenizer())


def targets_of(task, examples):
    raw = {
        name: tf.constant([e[name] for e in examples]) for name in examples[0]
    }
    features = task.preprocess({"text": raw["text"]}, tiny.tokenizer())
    targets = task.make_targets(raw, features, tiny.tokenizer())
    return task.add_derived_features(features), targets


class ScoresTest(parameterized.TestCase):
    @parameterized.named_parameters(
        ("bert", TASK, {}),
        ("last", LAST, {}),
        ("one_segment", TASK, {"num_segments": 1}),
        ("gpt", LAST, {"causal": True, "num_segments": 1, "pooler": False}),
        ("albert", TASK, {"num_hidden_groups": 1, "embedding_size": 8}),
    )
    def test_a_score_is_the_sigmoid_of_the_sentences_own_token(
        self, task, network
    ):
        model = make(task, **network)
        (answer,) = model.predict([{"text": SENTENCES}])
        rows, segments = [], []
        for number, sentence in enumerate(SENTENCES):
            (ids,) = tiny.tokenizer()([sentence]).to_list()
            rows += [CLS, *ids, SEP]
            segments += (len(ids) + 2) * [number % 2]
        token = CLS if task.pooling == "first" else SEP
        inputs = {
            "token_ids": [rows],
            "segment_ids": [segments],
            "padding_mask": [len(rows) * [1]],
        }
        encoder = model.model.encoder
        hidden = encoder(
            **{n: tf.constant(inputs[n]) for n in encoder.config.inputs}
        )["hidden"][-1]
        score = model.model.head.by_name()["sentence"].score
        kernel, bias = score.kernel.numpy(), score.bias.numpy()
        states = hidden.numpy()[0][np.array(rows) == token]
        expected = 1 / (1 + np.exp(-(states @ kernel + bias)[:, 0]))
        np.testing.assert_allclose(answer["scores"], expected, atol=1e-5)
        self.assertGreater(np.ptp(expected), 0.01)

    def test_a_text_and_the_list_of_its_sentences_answer_alike(self):
        model = make()
        sentences = [
            "a good film .",
            "The plot is old !",
            "Very dull.",
            "很 好 。",
        ]
        answers = model.predict(
            [TEXT, {"text": sentences}, {"sentences": sentences}]
        )
        scores = [answer.pop("scores") for answer in answers]
        for other in (1, 2):
            self.assertEqual(answers[0], answers[other])
            np.testing.assert_allclose(scores[0], scores[other], atol=1e-5)

    def test_the_network_reads_the_sentences_positions_only(self):
        features = TASK.add_derived_features(tiny.inputs())
        self.assertEqual(TASK.positions_read(features).shape, (4, 8))
        short = TASK.add_derived_features(tiny.inputs(length=8))
        self.assertIsNone(TASK.positions_read(short))

    def test_causal_networks_need_the_last_token(self):
        with self.assertRaisesRegex(errors.InputError, "use pooling=last"):
            make(TASK, causal=True)

    @pytest.mark.slow
    def test_elmo_scores_the_end_or_begin_of_a_sentence(self):
        answers = []
        for pooling in ("first", "last"):
            task = TASK.with_settings(pooling=pooling)
            task = task.adapt([], tiny.characters())
            self.assertEqual(
                (len(task.token), task.feature), (50, "characters")
            )
            model = model_lib.BertModel(tiny.elmo().build_encoder(), task)
            sharp.spread(model, 1)
            model = predictor.Predictor(model, tiny.characters())
            answers += model.predict([{"text": SENTENCES}])
        self.assertLen(answers[0]["scores"], 4)
        self.assertNotAlmostEqual(
            answers[0]["scores"][1], answers[1]["scores"][1], places=3
        )

    def test_the_tokenizer_is_adapted(self):
        task = extractive_summary.ExtractiveSummary()
        with self.assertRaisesRegex(errors.InputError, "call its `adapt`"):
            task.add_derived_features(tiny.inputs())
        tokenizer = wordpiece.Tokenizer(tiny.VOCABULARY, lowercase=True)
        tokenizer.frame = tokenizer.frame._replace(start=())
        with self.assertRaisesRegex(errors.InputError, "lacks them"):
            task.adapt([], tokenizer)


class AnswersTest(parameterized.TestCase):
    def test_the_best_sentences_in_the_order_of_the_text(self):
        for count in (2, 9):
            task = TASK.with_settings(num_sentences=count)
            (answer,) = make(task).predict([{"text": SENTENCES}])
            best = np.argsort(answer["scores"])[::-1][:count]
            self.assertEqual(answer["sentences"], sorted(best.tolist()))
            self.assertEqual(
                answer["text"],
                "\n".join(SENTENCES[i] for i in answer["sentences"]),
            )
            self.assertEqual(
                (answer["unread"], answer["truncated"]), (0, False)
            )

    def test_a_sentence_that_repeats_a_better_one_is_left_out(self):
        text = ["the plot is old", "the plot is old !", "a good film"]
        (both,) = make().predict([{"text": text}])
        task = TASK.with_settings(no_repeat_ngram_size=3)
        (answer,) = make(task).predict([{"text": text}])
        self.assertEqual(both["scores"], answer["scores"])
        better = int(np.argmax(both["scores"][:2]))
        self.assertEqual(answer["sentences"], [better, 2])

    def test_sentences_that_do_not_fit_are_counted(self):
        long = ["a film"] * 7 + ["very " * 30, "old", "new"]
        # 7 sentences of 4 tokens leave 12 of 40 for the next one.
        (answer,) = make().predict([{"text": long}])
        self.assertEqual((answer["unread"], answer["truncated"]), (2, True))
        self.assertLen(answer["scores"], 8)
        # max_sentences, though there is room.
        (answer,) = make().predict([{"text": ["a"] * 10}])
        self.assertEqual((answer["unread"], answer["truncated"]), (2, True))
        # A sentence that is truncated is read.
        (answer,) = make().predict([{"text": ["very " * 50]}])
        self.assertEqual((answer["unread"], answer["truncated"]), (0, True))
        self.assertEqual(answer["sentences"], [0])

    @parameterized.parameters(
        ("", []), (" \n ", []), ({"text": []}, []), ({"text": ["", ""]}, [0, 0])
    )
    def test_a_text_without_words_has_no_summary(self, text, scores):
        (answer,) = make().predict([text])
        self.assertEqual(
            answer,
            {
                "text": "",
                "sentences": [],
                "scores": scores,
                "unread": 0,
                "truncated": False,
            },
        )

    def test_empty_sentences_keep_their_index_and_are_not_chosen(self):
        task = TASK.with_settings(num_sentences=8)
        (answer,) = make(task).predict([{"text": ["", "a film", " ", "old"]}])
        self.assertEqual(answer["sentences"], [1, 3])
        self.assertEqual(answer["text"], "a film\nold")
        self.assertEqual([bool(s) for s in answer["scores"]], [0, 1, 0, 1])

    def test_invalid_texts_are_refused(self):
        for text, message in (
            (
                {"text": 3},
                "example 0: column 'text': expected a text or a list",
            ),
            ({"body": "a"}, "example 0: expected `text`"),
            ({"text": ["a", None]}, "sentence 1: expected text, found nothing"),
        ):
            with self.assertRaisesRegex(errors.InputError, message):
                make().predict([text])


class LearningTest(parameterized.TestCase):
    def test_labels_are_the_oracles_at_the_scored_tokens(self):
        examples = [
            TASK.make_example(TASK.text_row({"text": SENTENCES}), "old plot"),
            TASK.make_example(
                {"text": "很 好 。 A film . Bad"}, ["x", "bad film"]
            ),
        ]
        for task in (TASK, LAST):
            features, targets = targets_of(task, examples)
            labels, weights = (x.numpy() for x in targets["sentence"])
            ids = features["token_ids"].numpy()
            token = CLS if task is TASK else SEP
            np.testing.assert_array_equal(weights, ids == token)
            self.assertEqual(labels[0][ids[0] == token].tolist(), [0, 1, 0, 0])
            self.assertEqual(labels[1][ids[1] == token].tolist(), [0, 1, 1])
            self.assertEqual(labels.sum(), 3)

    def test_labels_of_the_file_are_learned(self):
        raw = TASK.text_row({"text": SENTENCES})
        example = TASK.make_example(raw, [1, 0, 0, 1])
        self.assertEqual(
            json.loads(example["summary"]), ["a good film .\n很 好 。"]
        )
        features, targets = targets_of(TASK, [example])
        at_tokens = features["token_ids"].numpy() == CLS
        labels = targets["sentence"][0].numpy()[at_tokens]
        self.assertEqual(labels.tolist(), [1, 0, 0, 1])

    def test_only_sentences_in_the_row_have_labels(self):
        text = TASK.text_row({"text": ["a"] * 7 + ["old"] + ["plot"]})
        for label in ("old plot", [0, 0, 0, 0, 0, 0, 0, 1, 1]):
            example = TASK.make_example(text, label)
            features, targets = targets_of(TASK, [example])
            labels, weights = targets["sentence"]
            self.assertEqual(tf.reduce_sum(weights), 8)
            positions = features["sentence_positions"].numpy()[0]
            self.assertEqual(
                labels.numpy()[0, positions].tolist(), [0] * 7 + [1]
            )

    def test_the_oracle_chooses_as_many_as_the_summary_has(self):
        raw = TASK.text_row({"text": ["a b", "c d", "e f"]})
        example = TASK.make_example(raw, "a b c d e f")
        for count in (1, 2, 3):
            task = TASK.with_settings(num_sentences=count)
            _, targets = targets_of(task, [example])
            self.assertEqual(tf.reduce_sum(targets["sentence"][0]), count)

    def test_a_text_without_sentences_has_no_weight(self):
        examples = [{"text": "", "summary": '["a"]', "labels": ""}]
        _, targets = targets_of(TASK, examples)
        self.assertEqual(tf.reduce_sum(targets["sentence"][1]), 0)

    def test_the_loss_is_the_cross_entropy_of_the_scores(self):
        model = make()
        texts = [{"text": SENTENCES}, {"text": ["a film", "bad plot"]}]
        labels = [[0, 1, 1, 0], [1, 0]]
        examples = [
            TASK.make_example(TASK.text_row(text), each)
            for text, each in zip(texts, labels, strict=True)
        ]
        features, targets = targets_of(TASK, examples)
        inputs = {n: features[n] for n in model.model.encoder.config.inputs}
        features = TASK.add_derived_features(inputs)
        loss = TASK.loss(model.model(features), features, targets)["sentence"]
        expected = -sum(
            np.log(score if label else 1 - score)
            for answer, each in zip(model.predict(texts), labels, strict=True)
            for score, label in zip(answer["scores"], each, strict=True)
        )
        np.testing.assert_allclose(loss, expected, rtol=1e-5)

    def test_labels_from_python(self):
        raw = TASK.text_row({"text": SENTENCES})
        self.assertEqual(
            TASK.make_example(raw, ("a", "b"))["summary"], '["a", "b"]'
        )
        for label, message in (
            (None, "expected a summary"),
            ([], "a 0 or 1"),
            ([0, 1], "as many sentences as labels, 2, found 4"),
            (3, "expected a summary"),
        ):
            with self.assertRaisesRegex(ValueError, message):
                TASK.make_example(raw, label)

    @pytest.mark.slow
    def test_keras_fit_trains_it(self):
        model = make.__wrapped__(dropout=0.0, attention_dropout=0.0)
        data = bert_keras.to_dataset(
            [{"text": SENTENCES}, TEXT],
            ["the plot is old", "very dull"],
            TASK,
            model.tokenizer,
            batch_size=2,
        )
        model.model.compile(optimizer=keras.optimizers.Adam(1e-2))
        losses = model.model.fit(data, epochs=30, verbose=0).history["loss"]
        self.assertLess(losses[-1], 0.5 * losses[0])


class MetricsTest(absltest.TestCase):
    examples = [
        TASK.make_example(
            TASK.text_row({"text": ["a b", "c d", "e f", "g h"]}),
            ["g h", "c d"],
        ),
        TASK.make_example(
            {"text": "One is. Two is. Three is."}, "three is one"
        ),
    ]

    def test_rouge_of_the_summaries(self):
        metrics = TASK.metrics(
            [{"text": "c d"}, {"text": "One is."}], self.examples
        )
        self.assertEqual(list(metrics), list(TASK.metric_names))
        # Of the second, 2 and 3 words share 2; "one is" is no bigram there.
        self.assertAlmostEqual(metrics["rouge_1"], (100 + 80) / 2)
        self.assertAlmostEqual(metrics["rouge_2"], (100 + 0) / 2)
        self.assertAlmostEqual(metrics["rouge_l"], (100 + 40) / 2)

    def test_trivial_summaries_and_the_oracles_are_measured(self):
        task = TASK.with_settings(num_sentences=2)
        baselines = evaluation.baseline(task, self.examples)
        texts = {
            "lead-1": ["a b", "One is."],
            "lead-2": ["a b c d", "One is. Two is."],
            "lead-3": ["a b c d e f", "One is. Two is. Three is."],
            # Chosen greedily: "One is." has no bigram of "three is one".
            "the oracle": ["c d", "Three is."],
        }
        for name, summaries in texts.items():
            metrics = task.metrics(
                [{"text": text} for text in summaries], self.examples
            )
            for metric, value in metrics.items():
                self.assertAlmostEqual(
                    baselines.pop(f"{metric} of {name}"), value, msg=name
                )
        self.assertEqual(baselines, {})


if __name__ == "__main__":
    absltest.main()
