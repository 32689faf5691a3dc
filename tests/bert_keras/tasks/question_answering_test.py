import dataclasses
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import model as model_lib
from bert_keras import predictor
from bert_keras.data import squad
from bert_keras.networks import bert as bert_lib
from bert_keras.tasks import question_answering
from bert_keras.tokenizers import wordpiece
from tests import tiny

TASK = question_answering.QuestionAnswering(seq_length=32, n_best=4)


def row(question, context, answer=None):
    start = -1 if answer is None else context.index(answer)
    return {
        "id": question,
        "question": question,
        "context": context,
        "answers": json.dumps([] if answer is None else [answer]),
        "answer": answer or "",
        "answer_start": str(start),
        "is_impossible": json.dumps(answer is None),
    }


def raw(rows):
    return {name: tf.constant([r[name] for r in rows]) for name in rows[0]}


def certain(inputs, targets):
    """The outputs of a model that knows the answers."""
    length = inputs["token_ids"].shape[1]
    return {
        term: 20 * tf.one_hot(labels, length)
        for term, (labels, _) in targets.items()
    }


def answers(task, rows, tokenizer):
    """What `predict` gives when the model knows the answers."""
    texts = raw(rows)
    inputs = task.preprocess(texts, tokenizer)
    targets = task.make_targets(texts, inputs, tokenizer)
    decoded = task.decode(certain(inputs, targets), inputs)
    return task.postprocess(decoded, inputs, texts, tokenizer)


def model(task=TASK, seed=1, **sizes):
    keras.utils.set_random_seed(seed)
    bert = model_lib.BertModel(bert_lib.BertEncoder(tiny.bert(**sizes)), task)
    return predictor.Predictor(bert, tiny.tokenizer())


class SpansTest(parameterized.TestCase):
    def test_the_rows_of_the_docstring(self):
        task = TASK.with_settings(seq_length=8, doc_stride=2)
        texts = raw([row("film ?", "plot is old .", "old")])
        features = task.preprocess(texts, tiny.tokenizer())
        np.testing.assert_array_equal(
            features["starts"],
            [[0, 0, 0, 0, 0, 5, 8, 0], [0, 0, 0, 0, 8, 12, 0, 0]],
        )
        np.testing.assert_array_equal(
            features["ends"],
            [[0, 0, 0, 0, 4, 7, 11, 0], [0, 0, 0, 0, 11, 13, 0, 0]],
        )
        targets = task.make_targets(texts, features, tiny.tokenizer())
        for labels, weights in targets.values():
            np.testing.assert_array_equal(labels, [6, 4])
            np.testing.assert_array_equal(weights, [1, 1])
        batch = answers(
            task, [row("film ?", "plot is old .", "old")], tiny.tokenizer()
        )
        self.assertEqual(batch["answer"].numpy().tolist(), [b"old"])
        spans = list(
            zip(
                batch["starts"][0].numpy(),
                batch["ends"][0].numpy(),
                strict=True,
            )
        )
        self.assertEqual(spans.count((8, 11)), 1)

    # The last number counts answers that begin or end inside a piece, as
    # `four` does in `fourth`: the whole piece comes back. In squad_v1.1 some
    # of them are first occurrences, where the file does not know the place.
    @parameterized.parameters(
        ("xquad_zh/train.json", "bert_chinese", 911, 0),
    )
    def test_targets_give_the_gold_answers_of_real_rows(self, *data):
        self.check_gold_answers(*data)

    @parameterized.parameters(
        ("squad_v1.1/train.json", "bert_uncased_en", 8038, 38),
        ("cmrc2018/dev.json", "bert_chinese", 3216, 1),
        ("drcd/dev.json", "bert_chinese", 3524, 2),
    )
    @pytest.mark.slow
    def test_targets_give_the_gold_answers_of_large_files(self, *data):
        self.check_gold_answers(*data)

    def check_gold_answers(self, name, vocabulary, count, inside):
        path = os.path.join(tiny.SHARED_DATA, name)
        vocabulary = os.path.join(
            tiny.SHARED_DATA, "vocab", f"{vocabulary}_vocab.txt"
        )
        if not (os.path.exists(path) and os.path.exists(vocabulary)):
            self.skipTest(f"needs shared/data/{name} and its vocabulary")
        tokenizer = wordpiece.Tokenizer.from_file(vocabulary)
        task = dataclasses.replace(
            TASK, seq_length=384, n_best=1, max_answer_length=160
        )
        rows = [
            r
            for r in squad.read(path)
            if r["answer_start"] != squad.NO_ANSWER_START
        ]
        self.assertLen(rows, count)
        longer = []
        for start in range(0, len(rows), 200):
            block = rows[start : start + 200]
            texts = answers(task, block, tokenizer)["answer"].numpy()
            for r, answer in zip(block, texts, strict=True):
                if answer.decode() != r["answer"]:
                    longer.append((r["answer"], answer.decode()))
                    self.assertIn(*longer[-1])
        self.assertLen(longer, inside, longer)

    def test_answers_stand_in_the_context_at_their_offsets(self):
        context = "𝄞 É good FILM . 电影很好 👍"
        for answer in ("𝄞", "É", "FILM", "电影很好", "好 👍"):
            batch = answers(TASK, [row("?", context, answer)], tiny.tokenizer())
            start, end = (int(batch[name][0]) for name in ("start", "end"))
            self.assertEqual(batch["answer"].numpy()[0].decode(), answer)
            self.assertEqual(context[start:end], answer)

    def test_a_long_context_has_windows_that_share_tokens(self):
        task = dataclasses.replace(TASK, seq_length=16, doc_stride=4)
        words = [w for w in tiny.WORDS if w.isascii() and w.isalpha()]
        context = " ".join(words * 4)
        one, two = row("the film", context), row("a", "good")
        inputs = task.preprocess(raw([one, two]), tiny.tokenizer())
        # 16 - [CLS] - 2 - 2 [SEP] = 11 tokens of context in a window.
        count = 1 + -(-(len(words) * 4 - 11) // 4)
        self.assertEqual(
            inputs["example_index"].numpy().tolist(), [0] * count + [1]
        )
        ids = tiny.tokenizer()([context])[0].numpy().tolist()
        for number, tokens in enumerate(inputs["token_ids"].numpy()[:count]):
            part = ids[4 * number : 4 * number + 11]
            self.assertEqual(tokens[4 : 4 + len(part)].tolist(), part)
        for number, starts in enumerate(inputs["starts"].numpy()[:count]):
            ends = inputs["ends"].numpy()[number]
            for position in np.flatnonzero(ends):
                token = inputs["token_ids"].numpy()[number, position]
                self.assertEqual(
                    context[starts[position] : ends[position]],
                    tiny.VOCABULARY[token],
                )

    def test_only_windows_that_hold_the_whole_answer_know_it(self):
        task = dataclasses.replace(TASK, seq_length=16, doc_stride=4)
        words = [w for w in tiny.WORDS if w.isascii() and w.isalpha()]
        context = " ".join(words)  # [0, 11), [4, 15), [8, 16)
        answer = " ".join(words[9:12])
        texts = raw([row("the film", context, answer)])
        inputs = task.preprocess(texts, tiny.tokenizer())
        targets = task.make_targets(texts, inputs, tiny.tokenizer())
        for term, labels in (("start", [0, 9, 5]), ("end", [0, 11, 7])):
            positions, weights = targets[term]
            self.assertEqual(positions.numpy().tolist(), labels)
            self.assertEqual(weights.numpy().tolist(), [1.0] * 3)

    def test_an_answer_longer_than_a_window_is_in_none(self):
        task = dataclasses.replace(TASK, seq_length=16, doc_stride=4)
        context = " ".join(["good"] * 30)
        texts = raw([row("the film", context, context)])
        targets = task.make_targets(
            texts, task.preprocess(texts, tiny.tokenizer()), tiny.tokenizer()
        )
        self.assertEqual(targets["start"][0].numpy().sum(), 0)

    def test_an_answer_that_nobody_can_place_is_not_learnt(self):
        lost = row("?", "good") | {"is_impossible": "false"}
        texts = raw([row("?", "good"), lost])
        targets = TASK.make_targets(
            texts, TASK.preprocess(texts, tiny.tokenizer()), tiny.tokenizer()
        )
        for labels, weights in targets.values():
            self.assertEqual(labels.numpy().tolist(), [0, 0])
            self.assertEqual(weights.numpy().tolist(), [1.0, 0.0])

    @parameterized.parameters(False, True)
    def test_no_context_has_no_answer(self, unanswerable):
        task = dataclasses.replace(TASK, unanswerable=unanswerable)
        empty = tf.constant(["", "   ", "\u200b\u0301", "\n\t"])
        batch = model(task).serve_text(
            question=tf.fill(empty.shape, "is it good ?"), context=empty
        )
        batch = {name: value.numpy() for name, value in batch.items()}
        for name in ("answer", "answers"):
            self.assertEqual(set(batch[name].flat), {b""})
        for name in ("start", "end", "starts", "ends", "scores"):
            np.testing.assert_array_equal(batch[name], 0)
        np.testing.assert_allclose(batch["score"], 1.0, rtol=1e-5)
        self.assertTrue(np.isfinite(batch["no_answer_score"]).all())

    def test_bytes_that_are_no_utf8_are_one_replaced_character(self):
        question = tf.constant([b"\xff\xfe", b"", b"good\xe5\xbd"])
        context = tf.constant([b"\xff good \xc3", b"\xe7\x94\xb5", b"\xed\xa0"])
        batch = model().serve_text(question=question, context=context)
        for name in ("answer", "answers"):
            for answer in batch[name].numpy().flat:
                answer.decode()

    def test_a_question_leaves_room_for_the_context(self):
        task = dataclasses.replace(TASK, seq_length=8)
        inputs = task.preprocess(
            raw([row("the film is good " * 9, "fine old plot")]),
            tiny.tokenizer(),
        )
        self.assertEqual(inputs["token_ids"].shape, (1, 8))
        self.assertEqual(inputs["ends"].numpy().max(), 13)


class AnswersTest(parameterized.TestCase):
    def test_decode_lists_the_best_spans(self):
        rows = [row("a", "the film is good"), row("a", "fine")]
        inputs = TASK.preprocess(raw(rows), tiny.tokenizer())
        random = np.random.default_rng(0)
        outputs = {
            name: tf.constant(
                random.normal(size=inputs["token_ids"].shape), tf.float32
            )
            for name in ("start", "end")
        }
        task = dataclasses.replace(TASK, max_answer_length=2)
        decoded = {
            k: v.numpy() for k, v in task.decode(outputs, inputs).items()
        }
        start, end = (outputs[name].numpy()[0] for name in ("start", "end"))
        spans = [(s, e) for s in range(3, 7) for e in (s, s + 1) if e < 7]
        spans.sort(key=lambda span: start[span[0]] + end[span[1]])
        self.assertEqual(
            list(zip(decoded["start"][0], decoded["end"][0], strict=True)),
            spans[:-5:-1],
        )
        self.assertEqual(decoded["start"][1].tolist(), [3, 0, 0, 0])
        np.testing.assert_array_equal(
            decoded["score"][1, 1:], question_answering.MASKED_LOGIT
        )
        np.testing.assert_allclose(
            decoded["null"],
            outputs["start"].numpy()[:, 0] + outputs["end"].numpy()[:, 0],
        )

    def answer(self, task=TASK, null=(0.0, 0.0)):
        """Two windows that share a span, each with one of its own."""
        inputs = {
            "example_index": tf.constant([0, 0]),
            "starts": tf.constant([[0, 0, 4], [0, 4, 9]]),
            "ends": tf.constant([[0, 3, 8], [0, 8, 11]]),
        }
        decoded = {
            "start": tf.constant([[2, 1], [1, 2]]),
            "end": tf.constant([[2, 1], [1, 2]]),
            "score": tf.constant([[4.0, 1.0], [5.0, 2.0]]),
            "null": tf.constant(null),
        }
        texts = {"context": tf.constant(["the film is"])}
        task = dataclasses.replace(task, n_best=2)
        batch = task.postprocess(decoded, inputs, texts, None)
        return {name: value.numpy()[0] for name, value in batch.items()}

    def test_windows_are_merged_and_each_span_stands_once(self):
        answer = self.answer()
        self.assertEqual(answer["answers"].tolist(), [b"film", b"is"])
        self.assertEqual(answer["starts"].tolist(), [4, 9])
        self.assertEqual(answer["ends"].tolist(), [8, 11])
        best = 1 / (1 + np.exp(2.0 - 5.0))
        np.testing.assert_allclose(
            answer["scores"], [best, 1 - best], rtol=1e-5
        )
        np.testing.assert_allclose(answer["score"], best, rtol=1e-5)
        self.assertEqual(answer["answer"], b"film")

    def test_python_sees_no_padding(self):
        nothing = {"answers": [""], "starts": [0], "ends": [0], "scores": [0]}
        answer = {k: np.array(v).tolist() for k, v in self.answer().items()}
        filled = answer | {k: answer[k] + v for k, v in nothing.items()}
        self.assertEqual(TASK.to_python(filled), answer)
        self.assertEqual(TASK.to_python(nothing)["answers"], [])

    @parameterized.parameters(
        (0.0, b""), (0.9, b""), (1.1, b"film"), (-9.0, b"")
    )
    def test_no_answer_wins_by_more_than_the_threshold(self, threshold, answer):
        task = dataclasses.replace(
            TASK, unanswerable=True, no_answer_threshold=threshold
        )
        # The lowest [CLS] score of the windows counts.
        actual = self.answer(task, null=(6.0, 9.0))
        self.assertEqual(actual["answer"], answer)
        self.assertAlmostEqual(actual["no_answer_score"], 1.0)
        odds = np.exp([6.0, 5.0, 2.0])
        self.assertAlmostEqual(
            actual["score"],
            odds[0 if not answer else 1] / odds.sum(),
            places=5,
        )

    def test_a_task_without_unanswerable_rows_always_answers(self):
        self.assertEqual(self.answer(null=(9.0, 9.0))["answer"], b"film")

    @pytest.mark.slow
    def test_learns_a_tiny_set_by_heart(self):
        rows = [
            row("the film ?", "a film is good , a plot is bad .", "good"),
            row("the plot ?", "a film is good , a plot is bad .", "bad"),
            row("the film ?", "new story . " * 8 + "the film is dull", "dull"),
            row("电影 ?", "一 电影 很好 !", "很好"),
            row("the actor ?", "a film is good .", None),
        ]
        task = TASK.adapt(rows, tiny.tokenizer())
        task = dataclasses.replace(task, doc_stride=8)
        self.assertTrue(task.unanswerable)
        self.assertFalse(task.chinese)
        net = model(task, hidden_size=32, intermediate_size=64)
        texts = raw(rows)
        inputs = task.preprocess(texts, tiny.tokenizer())
        targets = task.make_targets(texts, inputs, tiny.tokenizer())
        values = [v.value for v in net.model.trainable_variables]
        optimizer = keras.optimizers.Adam(3e-3)
        optimizer.build(net.model.trainable_variables)

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                losses = task.loss(net.model(inputs), inputs, targets)
                loss = tf.add_n(list(losses.values()))
            optimizer.apply(
                tape.gradient(loss, values, unconnected_gradients="zero")
            )

        for _ in range(150):
            step()
        metrics = task.metrics(net.predict(rows), rows)
        for name in task.metric_names:
            self.assertEqual(metrics[name], 1.0, name)


class MetricsTest(absltest.TestCase):
    def test_a_threshold_is_saved_only_where_it_is_read(self):
        metrics = {"best_f1_threshold": 2.5}
        self.assertEqual(TASK.calibrated(metrics), TASK)
        task = dataclasses.replace(TASK, unanswerable=True)
        self.assertEqual(task.calibrated(metrics).no_answer_threshold, 2.5)
        task = dataclasses.replace(task, no_answer_threshold=1e-9)
        self.assertEqual(task.calibrated(metrics), task)

    def test_the_best_threshold_is_found(self):
        task = dataclasses.replace(TASK, unanswerable=True)
        rows = [row("a", "the film", "film"), row("b", "the film")]
        predictions = [
            {"answer": "", "answers": ["film"], "no_answer_score": 1.0},
            {"answer": "", "answers": ["film"], "no_answer_score": 3.0},
        ]
        self.assertEqual(
            task.metrics(predictions, rows),
            {
                "f1": 0.5,
                "exact_match": 0.5,
                "best_f1": 1.0,
                "best_f1_threshold": 2.0,
                "best_exact_match": 1.0,
                "best_exact_match_threshold": 2.0,
            },
        )

    def test_chinese_rows_are_scored_by_characters(self):
        rows = [row("电影好不好", "电影很好", "电影很好")]
        predictions = [{"answer": "电影"}]
        metrics = []
        for task in (TASK, TASK.adapt(rows, None)):
            metrics.append(task.metrics(predictions, rows)["f1"])
        self.assertEqual(metrics[0], 0.0)
        self.assertAlmostEqual(metrics[1], 2 / 3)


if __name__ == "__main__":
    absltest.main()
