"""Keras' own loop computes what our trainer computes, for every task."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import errors, optimizers
from bert_keras.data import batches as batches_lib
from bert_keras.training import devices
from bert_keras.training import step as step_lib
from bert_keras.wrappers import label_smoothing, r_drop
from tests import tiny
from tests.bert_keras.tasks import second_text

tasks = bert_keras.tasks

TEXTS = ["a good film", "bad", "the story was very dull .", "not bad !", "old"]
CONTEXT = "the plot is old and the film is good ."

# Made when they are needed: (task, texts, labels).
CASES = {
    "single_label": lambda: (
        tasks.Classification(labels=("bad", "good")),
        TEXTS,
        ["good", "bad", "bad", "good", "bad"],
    ),
    "class_weights": lambda: (
        tasks.Classification(labels=("1", "2"), weights=(0.5, 3.0)),
        TEXTS,
        np.array([2, 1, 1, 2, 1]),
    ),
    "multi_label": lambda: (
        tasks.Classification(
            problem_type="multi_label", labels=("bad", "good", "old")
        ),
        TEXTS,
        [["good"], "bad,old", [], ("bad", "good"), ["old"]],
    ),
    "regression": lambda: (
        tasks.Classification(problem_type="regression"),
        TEXTS,
        tf.constant([0.5, -1.0, 2.0, 0.25, 0.0]),
    ),
    "pairs": lambda: (
        tasks.Classification(labels=("no", "yes"), pair=True),
        [(text, TEXTS[0]) for text in TEXTS],
        ["yes", "no", "no", "yes", "no"],
    ),
    "embedding": lambda: (
        tasks.Embedding(pair=True, highest=5.0),
        [(text, TEXTS[0]) for text in TEXTS],
        [5, 0, 1.5, 2, 0],
    ),
    "tagging": lambda: (
        tasks.Tagging(types=("PER",)),
        ["Ada was not bad", "电影", "the old actor"],
        ["B-PER O O O", ["B-PER", "I-PER"], ["O", "O", "B-PER"]],
    ),
    "intent_slots": lambda: (
        tasks.IntentSlots(types=("PER",), intents=("ask", "tell")),
        ["is Ada good", "old film"],
        [("ask", "O B-PER O"), ("tell", ["O", "O"])],
    ),
    "question_answering": lambda: (
        tasks.QuestionAnswering(),
        [("film ?", CONTEXT), {"question": "plot ?", "context": CONTEXT}],
        [
            {"text": ["good"], "answer_start": [32]},
            [{"text": "old", "answer_start": 12}],
        ],
    ),
    "causal_lm": lambda: (
        tasks.CausalLM().adapt([], tiny.tokenizer()),
        TEXTS,
        None,
    ),
    "second_text": lambda: (
        second_text.SecondText(),
        [(text, TEXTS[number - 2]) for number, text in enumerate(TEXTS)],
        None,
    ),
    "masked_lm": lambda: (
        tasks.MaskedLM(objective="none").adapt([], tiny.tokenizer()),
        TEXTS,
        None,
    ),
    "label_smoothing": lambda: (
        label_smoothing.LabelSmoothing(CASES["single_label"]()[0]),
        *CASES["single_label"]()[1:],
    ),
}  # fmt: skip


def model(task, **changes):
    keras.utils.set_random_seed(1)
    config = tiny.bert_for(
        task.name, dropout=0.0, attention_dropout=0.0, **changes
    )
    return bert_keras.BertModel(config, task)


def dataset(case, **options):
    task, texts, labels = CASES[case]()
    return task, bert_keras.to_dataset(
        texts, labels, task, tiny.tokenizer(), **options
    )


def weights(network):
    return {v.path: v.numpy() for v in network.trainable_variables}


class LossTest(parameterized.TestCase):
    @parameterized.parameters(*CASES)
    @pytest.mark.slow_after(3)
    def test_one_step_has_the_gradients_of_our_trainer(self, case):
        task, data = dataset(case, shuffle=False)
        (batch,) = data
        features, labels, sample_weights = batch
        ours, theirs = model(task), model(task)
        optimizer = optimizers.Optimizer(
            ours.trainable_variables,
            rule=optimizers.Sgd(),
            schedule=optimizers.Schedule(1.0, 0, 1),
            weight_decay=0.0,
        )
        step = step_lib.make_train_step(
            ours,
            task,
            optimizer,
            strategy=devices.make_strategy("one_device"),
            seed=1,
            clip_norm=0.0,
        )
        metrics = step(
            {
                "inputs": features,
                "targets": {
                    k: (v, sample_weights[k]) for k, v in labels.items()
                },
                "step": tf.constant(0, tf.int64),
            }
        )
        self.assertGreater(metrics["gradient_norm"], 1e-3)
        before = weights(theirs)
        theirs.compile(optimizer=keras.optimizers.SGD(1.0))
        history = theirs.fit(data, verbose=0).history
        self.assertAlmostEqual(history["loss"][0], float(metrics["loss"]), 5)
        changed = 0
        for path, value in weights(ours).items():
            np.testing.assert_allclose(
                weights(theirs)[path], value, atol=1e-6, err_msg=path
            )
            changed += not np.array_equal(value, before[path])
        self.assertGreater(changed, 10)

    def test_evaluate_is_the_loss_and_predict_the_outputs(self):
        task, data = dataset("class_weights", shuffle=False)
        ((features, labels, sample_weights),) = data
        network = model(task)
        network.compile(weighted_metrics=["accuracy"])
        values = network.evaluate(data, verbose=0, return_dict=True)
        logits = network.predict(data, verbose=0)["label"]
        np.testing.assert_allclose(
            logits, network(features)["label"], atol=1e-6
        )
        probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        gold = labels["label"].numpy()
        losses = -np.log(probability[np.arange(5), gold])
        weight = np.array([3.0, 0.5, 0.5, 3.0, 0.5])
        right = (logits.argmax(1) == gold) * weight
        self.assertAlmostEqual(
            values["loss"], (losses * weight).sum() / weight.sum(), places=5
        )
        self.assertAlmostEqual(
            values["accuracy"], right.sum() / weight.sum(), places=5
        )

    def test_a_loss_of_compile_replaces_the_tasks(self):
        task, data = dataset("single_label", shuffle=False)
        network = model(task)
        network.compile(loss={"label": lambda y, logits: 0 * logits[:, 0] + 7})
        self.assertAlmostEqual(network.evaluate(data, verbose=0), 7.0, 5)

    def test_replicas_average_their_means(self):
        task, texts, labels = CASES["single_label"]()
        data = bert_keras.to_dataset(
            texts[:4], labels[:4], task, tiny.tokenizer(), shuffle=False
        )
        results = []
        for name in ("one_device", "mirrored"):
            with devices.make_strategy(name).scope():
                network = model(task)
                network.compile(optimizer=keras.optimizers.SGD(1.0))
            history = network.fit(data, verbose=0).history
            results.append((history["loss"][0], weights(network)))
        (loss, one), (mirrored_loss, two) = results
        self.assertAlmostEqual(loss, mirrored_loss, places=5)
        for path, value in one.items():
            np.testing.assert_allclose(two[path], value, atol=1e-6)

    def test_a_task_that_reads_targets_is_refused(self):
        task = r_drop.RDrop(CASES["single_label"]()[0])
        self.assertTrue(task.reads_targets)
        outer = label_smoothing.LabelSmoothing(CASES["single_label"]()[0])
        self.assertFalse(outer.reads_targets)
        self.assertTrue(r_drop.RDrop(outer).reads_targets)
        data = bert_keras.to_dataset(
            TEXTS[:2], ["good", "bad"], task, tiny.tokenizer()
        )
        network = model(task)
        network.compile(optimizer="sgd")
        with self.assertRaisesRegex(errors.InputError, "bert_keras.finetune"):
            network.fit(data, verbose=0)

    def test_batches_of_another_form_are_refused(self):
        network = model(CASES["single_label"]()[0])
        network.compile(optimizer="sgd")
        data = tf.data.Dataset.from_tensors((tiny.inputs(2), tf.zeros([2])))
        with self.assertRaisesRegex(errors.InputError, "to_dataset"):
            network.fit(data, verbose=0)

    @pytest.mark.slow
    def test_it_learns(self):
        task, data = dataset("single_label", batch_size=2)
        network = model(task)
        network.compile(
            optimizer=keras.optimizers.AdamW(5e-3),
            weighted_metrics=["accuracy"],
        )
        network.fit(data, epochs=20, verbose=0)
        predictor = bert_keras.Predictor(network, tiny.tokenizer())
        _, texts, labels = CASES["single_label"]()
        self.assertEqual(predictor.evaluate(texts, labels)["accuracy"], 1.0)


class DatasetTest(parameterized.TestCase):
    def rows(self, data):
        return [
            tuple(row[row > 0])
            for features, _, _ in data
            for row in features["token_ids"].numpy()
        ]

    def test_every_pass_has_every_row_once_in_a_new_order(self):
        _, data = dataset("single_label", batch_size=2)
        self.assertLen(data, 3)
        first, second = self.rows(data), self.rows(data)
        self.assertLen(first, 5)
        self.assertCountEqual(first, second)
        self.assertNotEqual(first, second)
        _, again = dataset("single_label", batch_size=2)
        self.assertEqual(self.rows(again), first)
        _, other = dataset("single_label", batch_size=2, seed=2)
        self.assertNotEqual(self.rows(other), first)

    def test_without_shuffle_the_order_is_that_of_the_texts(self):
        _, data = dataset("single_label", batch_size=2, shuffle=False)
        ids = tiny.tokenizer()(tf.constant(TEXTS)).to_list()
        for _ in range(2):
            self.assertEqual([list(row[1:-1]) for row in self.rows(data)], ids)

    def test_masks_are_drawn_anew_in_every_pass(self):
        _, data = dataset("masked_lm")
        self.assertNotEqual(self.rows(data), self.rows(data))
        _, data = dataset("masked_lm", shuffle=False)
        self.assertEqual(self.rows(data), self.rows(data))

    def test_the_first_passes_are_the_epochs_of_our_trainer(self):
        _, data = dataset("single_label", batch_size=2)
        _, plain = dataset("single_label", batch_size=5, shuffle=False)
        rows = self.rows(plain)
        lengths = np.array([len(row) for row in rows], np.int32)
        sampler = batches_lib.BatchSampler(
            lengths, 2, seed=1, buckets=batches_lib.buckets(128)
        )
        for epoch in range(2):
            order = [
                rows[row]
                for step in range(3)
                for row in sampler.rows(3 * epoch + step)
                if row >= 0
            ]
            self.assertEqual(self.rows(data), order)

    @parameterized.parameters(
        (dict(texts=["a"], labels=["good", "bad"]), "2 labels and 1 texts"),
        (dict(texts=["a"], labels=[None]), "example 0: expected a label"),
        (dict(texts=["a"], labels=None), "example 0: expected a label"),
        (dict(texts=["a", 3], labels=["bad", "bad"]), "example 1: .*found 3"),
        (dict(texts=["a"], labels="bad"), "a list with a label for each"),
        (dict(texts="x.tsv", labels=["bad"]), "leave the labels out"),
        (dict(texts=[], labels=[]), "found none"),
        (dict(texts=["a"], labels=["ugly"]), "'ugly' does not occur"),
        (dict(texts=["a"], labels=["bad"], task="x"), "expected an object"),
        (dict(texts=["a"], labels=["bad"], batch_size=0), "from 1, found 0"),
        (dict(texts=["a"], labels=["bad"], seed=-1), "seed: .*, found -1"),
        (dict(texts=["a"], labels=["bad"], seed=1.5), "seed: .*, found 1.5"),
        (dict(texts=["a"], labels=["bad"], seed="1"), "seed: .*, found '1'"),
        (dict(texts=["a"], labels=["bad"], seed=True), "seed: .*, found True"),
    )  # fmt: skip
    def test_what_is_wrong_is_named(self, arguments, message):
        task = tasks.Classification(labels=("bad", "good"))
        arguments = {"task": task, "tokenizer": tiny.tokenizer()} | arguments
        with self.assertRaisesRegex(errors.InputError, message):
            bert_keras.to_dataset(**arguments)

    @parameterized.parameters(
        ("tagging", "a film", "O", "2 words .*5 characters.* 1 tags"),
        ("tagging", "a film", ["O", 3], "such as O or B-PER, found 3"),
        ("tagging", "a film", 3, "expected tags, found 3"),
        ("intent_slots", "a film", "ask", "a pair of an intent and tags"),
        ("regression", "a", "x", "a finite number"),
        ("multi_label", "a", [1], "a list of strings"),
        ("embedding", ("a", "b"), "x", "a finite number"),
        ("masked_lm", "a", "x", "expected no label"),
        ("question_answering", ("a", "b"), [{"text": "c", "answer_start": 0}],
         "occurs in the context"),
        ("question_answering", ("a", "b"), {"text": "c"}, "with lists `text`"),
        ("question_answering", ("a", "b"), [{"text": "b"}], "answer_start"),
    )  # fmt: skip
    def test_a_label_of_another_form_is_refused(self, case, text, label, what):
        task = CASES[case]()[0]
        with self.assertRaisesRegex(errors.InputError, what):
            bert_keras.to_dataset([text], [label], task, tiny.tokenizer())

    def test_a_question_may_have_no_answer(self):
        task = tasks.QuestionAnswering(unanswerable=True)
        for label in (None, [], {"text": [], "answer_start": []}):
            ((_, labels, sample_weights),) = bert_keras.to_dataset(
                [("film ?", CONTEXT)], [label], task, tiny.tokenizer()
            )
            self.assertEqual(int(labels["start"][0]), 0)
            self.assertEqual(float(sample_weights["start"][0]), 1.0)

    def test_pairs_of_sentences_are_not_texts_alone(self):
        task = tasks.MaskedLM().adapt([], tiny.tokenizer())
        with self.assertRaisesRegex(errors.InputError, "objective="):
            bert_keras.to_dataset(TEXTS, None, task, tiny.tokenizer())

    def test_a_file_is_read_as_by_fine_tuning(self):
        path = self.create_tempfile(
            "rows.tsv", "text\tlabel\na good film\tgood\nbad\tbad\n"
        ).full_path
        task = tasks.Classification(labels=("bad", "good"))
        arguments = (task, tiny.tokenizer())
        ((one, label, _),) = bert_keras.to_dataset(path, None, *arguments)
        ((two, same, _),) = bert_keras.to_dataset(
            ["a good film", "bad"], ["good", "bad"], *arguments
        )
        np.testing.assert_array_equal(one["token_ids"], two["token_ids"])
        np.testing.assert_array_equal(label["label"], same["label"])


if __name__ == "__main__":
    absltest.main()
