"""Every task in bert_keras/tasks, by the same questions."""

import dataclasses
import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors, predictor
from bert_keras import model as model_lib
from bert_keras.data import labelled_files
from bert_keras.networks import bert
from bert_keras.tasks import base
from tests import tiny

# What each task learns and answers in these tests: rows with its columns.
ROWS = {
    "causal_lm": [
        {"text": "the film is very"},
        {"text": "很 好 电影 ! a dull old story"},
        {"text": ""},
    ],
    "classification": [
        {"text": "a good film", "text_pair": "很 好", "label": "good"},
        {"text": "a very bad old plot .", "text_pair": "坏", "label": "bad"},
        {"text": "", "text_pair": "dull", "label": "bad"},
    ],
    "denoising": [
        {"text": "the film is very good"},
        {"text": "很 好 电影 ! a dull old story"},
        {"text": ""},
    ],
    "embedding": [
        {"text": "a good film", "text_pair": "很 好", "label": "5"},
        {"text": "a bad old plot .", "text_pair": "dull", "label": "0.5"},
        {"text": "", "text_pair": "old", "label": "1"},
    ],
    "extractive_summary": [
        {
            "text": "a good film . The plot is old ! 很 好 。 bad story",
            "summary": '["the plot is old", "an old plot"]',
            "labels": "",
        },
        # Given sentences, of which the last does not fit.
        {
            "text": "a film\x1ethe actor is dull\x1e\x1egood\x1eold\x1eit\x1e"
            "is\x1ea\x1every fine story\x1enew\x1e",
            "summary": '["old"]',
            "labels": "1 0 0 0 1 0 0 0 0 0",
        },
        {"text": "", "summary": '["a"]', "labels": ""},
    ],
    "intent_slots": [
        {
            "text": "the actor is dull",
            "words": "0-3 4-9 10-12 13-17",
            "tags": "O B-PER I-PER O",
            "label": "ask",
        },
        {
            "text": "很好电影 old",
            "words": "0-1 1-2 2-4 5-8",
            "tags": "O B-PER B-FILM I-FILM",
            "label": "tell",
        },
        {"text": "", "words": "", "tags": "", "label": "ask"},
    ],
    "masked_lm": [
        {"text": "the film is [MASK] ."},
        {"text": "[MASK] 电 [MASK] !"},
        {"text": ""},
    ],
    "matching": [
        {"text": "the film", "text_pair": "is good", "label": "1"},
        {"text": "a bad plot", "text_pair": "电影 很 好", "label": "0"},
        {"text": "", "text_pair": "not very old .", "label": "1"},
    ],
    "multiple_choice": [
        {
            "context": "the film is a good story .",
            "question": "was it",
            **{"choice_a": "good", "choice_b": "bad", "choice_c": "dull"},
            "label": "0",
        },
        {
            "context": "a very bad old plot . " * 8,
            "question": "",
            **{"choice_a": "很 好", "choice_b": "old", "choice_c": ""},
            "label": "1",
        },
        {
            "context": "",
            "question": "film ?",
            **{"choice_a": "a", "choice_b": "the", "choice_c": "an actor"},
            "label": "2",
        },
    ],
    "replaced_tokens": [
        {"text": "the film is very good ."},
        {"text": "很 好 电影 !"},
        {"text": ""},
    ],
    "token_order": [
        {"text": "the film is very good ."},
        {"text": "很 好 电影 !"},
        {"text": ""},
    ],
    "question_answering": [
        {
            "question": "is the film good ?",
            "context": "a fine film .",
            "answers": '["fine film"]',
            "answer": "fine film",
            "answer_start": "2",
            "is_impossible": "false",
        },
        # Two windows and more, the answer in the last.
        {
            "question": "好 ?",
            "context": "the plot is old . " * 8 + "电影 很 好",
            "answers": '["很 好"]',
            "answer": "很 好",
            "answer_start": "147",
            "is_impossible": "false",
        },
        {
            "question": "",
            "context": "",
            "answers": "[]",
            "answer": "",
            "answer_start": "-1",
            "is_impossible": "true",
        },
    ],
    "sequence_to_sequence": [
        {"text": "the film is good", "target": "电影 很 好"},
        {"text": "a very bad old plot . " * 8, "target": "bad"},
        {"text": "", "target": "dull " * 80},
    ],
    "tagging": [
        {
            "text": "the actor is dull",
            "words": "0-3 4-9 10-12 13-17",
            "tags": "O B-PER I-PER O",
        },
        {
            "text": "很好电影 old",
            "words": "0-1 1-2 2-4 5-8",
            "tags": "O B-PER B-FILM I-FILM",
        },
        {"text": "", "words": "", "tags": ""},
    ],
}


# Tasks that a BERT cannot learn; tests of their own ask the same questions.
OF_ELMO = ("bidirectional_lm",)
# They have no training: their own tests ask pretrained checkpoints.
ASKED = ("next_sentence", "token_scores")
QUICK = ("classification", "question_answering", "tagging")
NAMES = [
    *QUICK,
    *sorted(set(base.names()).difference(QUICK, OF_ELMO, ASKED)),
]


def tasks(**fields):
    for name in NAMES:
        task_class = base.find(name)
        more = {}
        if name == "sequence_to_sequence":
            more["max_target_length"] = 16
        yield task_class(seq_length=32, **more, **fields).adapt(
            ROWS[name], tiny.tokenizer()
        )


def make(name):
    (task,) = (task for task in tasks() if task.name == name)
    model = model_lib.BertModel(
        bert.BertEncoder(tiny.bert_for(task.name)), task
    )
    return predictor.Predictor(model, tiny.tokenizer())


# What does not train it may share it.
made = functools.cache(make)


def predictors():
    return map(made, NAMES)


def labelled(task, rows):
    """One batch as training sees it, with masks drawn where a task draws."""
    raw = {name: tf.constant([row[name] for row in rows]) for name in rows[0]}
    inputs = task.preprocess(raw, tiny.tokenizer())
    size = len(inputs["token_ids"])
    if task.name != "masked_lm":
        targets = task.make_targets(raw, inputs, tiny.tokenizer())
    else:
        targets = {"next_sentence": (tf.zeros(size, tf.int32), tf.ones(size))}
    inputs = {name: inputs[name] for name in tiny.bert().inputs}
    seeds = tf.stack([tf.zeros(size, tf.int32), tf.range(size)], axis=1)
    inputs, targets = task.randomize(inputs, targets, seeds)
    return task.add_derived_features(inputs), targets


# What generates has tests of its own of a row alone and in a batch.
ANSWERS = [n for n in NAMES if n not in ("causal_lm", "sequence_to_sequence")]


class EveryTaskTest(parameterized.TestCase):
    def test_every_file_has_rows_here(self):
        names = {*ROWS, *OF_ELMO, *ASKED}
        self.assertEqual(names, set(base.names()))

    def test_each_is_registered_with_keras(self):
        for name in base.names():
            task = base.find(name)
            self.assertEqual(
                keras.saving.get_registered_name(task),
                f"bert_keras>{task.__name__}",
            )

    def test_saved_form_is_the_same_task(self):
        for task in tasks():
            again = base.from_dict(json.loads(json.dumps(task.to_dict())))
            self.assertEqual(again, task)

    def test_inputs_have_the_contracts_names_and_shapes(self):
        for model in predictors():
            rows = ROWS[model.task.name]
            raw = {
                name: tf.constant([row[name] for row in rows])
                for name in model.task.text_columns
            }
            inputs = model.task.preprocess(raw, model.tokenizer)
            shape = inputs["token_ids"].shape
            for name in ("token_ids", "segment_ids", "padding_mask"):
                self.assertEqual(inputs[name].shape, shape)
                self.assertEqual(inputs[name].dtype, tf.int32)
            self.assertEqual(
                inputs["example_index"].numpy().max(), len(rows) - 1
            )

    def test_more_padding_changes_no_loss(self):
        for model in predictors():
            inputs, targets = labelled(model.task, ROWS[model.task.name])
            longer = {
                name: value
                if name
                in (
                    "positions",
                    "text_index",
                    "sentence_positions",
                    "generator_draws",
                )
                else tf.pad(value, [[0, 0], [0, 7]])
                for name, value in inputs.items()
            }
            padded = {
                term: [tf.pad(value, [[0, 0], [0, 7]]) for value in pair]
                if term in model.task.target_axes
                else pair
                for term, pair in targets.items()
            }
            one, two = (
                model.task.loss(model.model(x, targets=y), x, y)
                for x, y in ((inputs, targets), (longer, padded))
            )
            self.assertEqual(set(one), set(targets))
            for term, value in one.items():
                np.testing.assert_allclose(value, two[term], rtol=1e-5)

    def test_rows_of_weight_0_change_no_loss(self):
        for model in predictors():
            inputs, targets = labelled(model.task, ROWS[model.task.name])
            more = {
                name: tf.pad(x, [[0, 2]] + [[0, 0]] * (x.shape.rank - 1))
                for name, x in inputs.items()
            }
            padded = {
                term: tuple(
                    tf.pad(x, [[0, 2]] + [[0, 0]] * (x.shape.rank - 1))
                    for x in pair
                )
                for term, pair in targets.items()
            }
            one, two = (
                model.task.loss(model.model(x, targets=y), x, y)
                for x, y in ((inputs, targets), (more, padded))
            )
            for term, value in one.items():
                np.testing.assert_allclose(value, two[term], rtol=1e-5)

    @pytest.mark.slow
    def test_learns_its_rows_by_heart(self):
        for model in map(make, NAMES):
            inputs, targets = labelled(model.task, ROWS[model.task.name])
            optimizer = keras.optimizers.Adam(5e-3)

            @tf.function
            def step(
                model=model, inputs=inputs, targets=targets, rule=optimizer
            ):
                with tf.GradientTape() as tape:
                    outputs = model.model(inputs, targets=targets)
                    losses = model.task.loss(outputs, inputs, targets)
                    loss = tf.add_n(list(losses.values()))
                variables = model.model.trainable_variables
                rule.apply_gradients(
                    zip(
                        tape.gradient(
                            loss,
                            [variable.value for variable in variables],
                            # The pooler, where no head reads it.
                            unconnected_gradients="zero",
                        ),
                        variables,
                        strict=True,
                    )
                )
                return loss

            optimizer.build(model.model.trainable_variables)
            losses = [float(step()) for _ in range(80)]
            self.assertLess(losses[-1], 0.1 * losses[0], model.task.name)

    @pytest.mark.slow
    def test_each_works_with_a_recurrent_network(self):
        for task in tasks():
            if task.name == "replaced_tokens":
                continue  # its generator has layers of a Transformer
            config = tiny.rnn(bidirectional=task.name != "causal_lm")
            if task.name == "question_answering":  # reads two segments
                with self.assertRaisesRegex(errors.InputError, "segment_ids"):
                    task.build_heads(config)
                continue
            model = predictor.Predictor(
                model_lib.BertModel(config.build_encoder(), task),
                tiny.tokenizer(),
            )
            rows = ROWS[task.name]
            inputs, targets = labelled(task, rows)
            with tf.GradientTape() as tape:
                outputs = model.model(inputs, targets=targets, training=True)
                losses = task.loss(outputs, inputs, targets)
                loss = tf.add_n(list(losses.values()))
            table = model.model.encoder.embeddings.table.value
            gradient = tf.convert_to_tensor(tape.gradient(loss, table))
            self.assertGreater(np.abs(gradient).max(), 0, task.name)
            self.assertTrue(np.isfinite(gradient).all(), task.name)
            answers = model.predict(rows)
            self.assertEqual(set(answers[0]), set(model.predict(rows[:1])[0]))

    @parameterized.parameters(*ANSWERS)
    @pytest.mark.slow_after(3)
    def test_answers_do_not_depend_on_the_batch(self, name):
        model, rows = made(name), ROWS[name]
        together = model.predict(rows * 3, batch_size=2)
        each = [model.predict([row])[0] for row in rows]
        for alone, answer in zip(each * 3, together, strict=True):
            self.assertEqual(set(answer), set(alone))
            for key, value in answer.items():
                if isinstance(value, str):
                    self.assertEqual(value, alone[key])
                elif key == "score":
                    np.testing.assert_allclose(
                        np.sum(value), np.sum(alone[key]), atol=1e-5
                    )

    @parameterized.parameters(*NAMES)
    @pytest.mark.slow_after(3)
    def test_no_text_gives_no_answer(self, name):
        model = made(name)
        self.assertEqual(model.predict([]), [])
        empty = {
            column: tf.zeros([0], tf.string)
            for column in model.task.text_columns
        }
        for value in model.serve_text(**empty).values():
            self.assertEqual(value.shape[0], 0)

    @pytest.mark.slow
    def test_decode_compiles_under_xla(self):
        for model in predictors():
            inputs, _ = labelled(model.task, ROWS[model.task.name])
            ids = {name: inputs[name] for name in tiny.bert().inputs}
            plain = model.tokens(**ids)
            compiled = tf.function(model.tokens, jit_compile=True)(**ids)
            for name, value in plain.items():
                np.testing.assert_allclose(compiled[name], value, atol=1e-5)

    @parameterized.parameters(*NAMES)
    @pytest.mark.slow_after(3)
    def test_is_an_ordinary_keras_model(self, name):
        model = made(name)
        inputs, _ = labelled(model.task, ROWS[name])
        path = self.create_tempdir().full_path + "/model.keras"
        model.model.save(path)
        again = keras.saving.load_model(path)
        for key, value in model.model(inputs).items():
            np.testing.assert_array_equal(value, again(inputs)[key])


class ClassificationTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.task = base.find("classification")(labels=("no", "yes"))

    def test_keras_fit_trains_it(self):
        model = model_lib.BertModel(bert.BertEncoder(tiny.bert()), self.task)
        model.compile(
            "adam",
            loss={
                "label": keras.losses.SparseCategoricalCrossentropy(
                    from_logits=True
                )
            },
        )
        history = model.fit(
            tiny.inputs(), {"label": tf.constant([0, 1, 1, 0])}, verbose=0
        )
        self.assertTrue(np.isfinite(history.history["loss"]).all())

    def test_learns_labels_and_pairs_from_the_rows(self):
        rows = [{"text": "a", "label": "b"}, {"text": "c", "label": "a"}]
        self.assertEqual(self.task.adapt(rows, None).labels, ("a", "b"))
        self.assertEqual(self.task.adapt(rows, None).text_columns, ("text",))
        pairs = [row | {"text_pair": "x"} for row in rows]
        self.assertEqual(
            self.task.adapt(pairs, None).text_columns, ("text", "text_pair")
        )

    def test_one_label_is_not_enough(self):
        with self.assertRaisesRegex(errors.InputError, "at least two labels"):
            self.task.adapt([{"text": "a", "label": "b"}], None)

    def test_an_unknown_label_is_named(self):
        raw = {"label": tf.constant(["yes", "perhaps"])}
        with self.assertRaisesRegex(errors.InputError, "'perhaps'"):
            self.task.make_targets(raw, {}, tiny.tokenizer())

    def test_accuracy(self):
        rows = [{"label": label} for label in ("no", "yes", "yes", "no")]
        answers = [{"label": label} for label in ("no", "yes", "no", "no")]
        self.assertEqual(self.task.metrics(answers, rows)["accuracy"], 0.75)


class MaskedLMTest(absltest.TestCase):
    def test_fills_each_mask_and_no_other_place(self):
        model = made("masked_lm")
        answers = model.predict(["the [MASK] is [MASK] .", "a film"])
        for name in ("token", "score"):  # without the padding of a batch
            self.assertEqual([len(answer[name]) for answer in answers], [2, 0])
        self.assertGreater(answers[0]["score"][1], 0)

    def test_accuracy_is_the_share_of_right_tokens(self):
        model = made("masked_lm")
        inputs, targets = labelled(model.task, ROWS["masked_lm"])
        outputs = model.model(inputs)
        labels, weights = targets["masked_lm"]
        predicted = np.argmax(outputs["masked_lm"], axis=-1)
        right = np.sum((predicted == labels.numpy()) * weights.numpy())
        sums = model.task.metric_sums(outputs, inputs, targets)
        np.testing.assert_allclose(
            sums["masked_lm_accuracy"], [right, np.sum(weights)]
        )
        perfect = tf.one_hot(labels, outputs["masked_lm"].shape[-1])
        sums = model.task.metric_sums(
            outputs | {"masked_lm": perfect}, inputs, targets
        )
        np.testing.assert_allclose(
            sums["masked_lm_accuracy"], [np.sum(weights)] * 2
        )

    def test_two_means_are_added(self):
        model = made("masked_lm")
        inputs, targets = labelled(model.task, ROWS["masked_lm"])
        outputs = model.model(inputs)
        losses = model.task.loss(outputs, inputs, targets)
        labels, weights = targets["masked_lm"]
        rows = keras.losses.sparse_categorical_crossentropy(
            labels, outputs["masked_lm"], from_logits=True
        )
        expected = tf.reduce_sum(rows * weights)
        np.testing.assert_allclose(losses["masked_lm"], expected, rtol=1e-5)

    def test_without_sentences_there_is_no_sentence_head(self):
        (task,) = (t for t in tasks() if t.name == "masked_lm")
        task = dataclasses.replace(task, objective="none")
        model = model_lib.BertModel(bert.BertEncoder(tiny.bert()), task)
        outputs = model(task.add_derived_features(tiny.inputs()))
        self.assertEqual(set(outputs), {"masked_lm"})


class FindTest(absltest.TestCase):
    def test_an_unknown_task_is_named_with_those_there_are(self):
        with self.assertRaisesRegex(
            errors.InputError, "classification, denoising"
        ):
            base.find("classify")

    def test_a_module_of_the_users_is_found(self):
        self.assertEqual(
            base.find("bert_keras.tasks.classification"),
            base.find("classification"),
        )

    def test_columns_name_the_texts(self):
        self.assertEqual(
            labelled_files.parse_columns("text=sentence,label=gold"),
            {"text": "sentence", "label": "gold"},
        )


if __name__ == "__main__":
    absltest.main()
