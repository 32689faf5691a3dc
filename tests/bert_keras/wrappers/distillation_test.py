"""Distillation: the losses against NumPy in float64, and whole runs."""

import dataclasses
import json
import os
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import checkpoint, errors
from bert_keras import model as model_lib
from bert_keras import predictor as predictor_lib
from bert_keras.networks import bert
from bert_keras.tasks import (
    causal_lm,
    classification,
    masked_lm,
    question_answering,
    replaced_tokens,
)
from bert_keras.training import teachers
from bert_keras.wrappers import distillation, early_exit, mix, noise
from tests import sharp, tiny
from tests.trainers import mains

LABELS = ("bad", "good")

_WORDS = "good bad fine dull old new".split()
_QUESTIONS = [
    {
        "context": f"the {word} film was {other} . the story was {word}",
        "qas": [
            {
                "id": f"{word} {other}",
                "question": "is the film old ?",
                "answers": [{"text": word, "answer_start": 4}],
            }
        ],
    }
    for word in _WORDS
    for other in _WORDS[:2]
]
# Files to train tasks on, and the ends of their names.
TRAINING = {
    "classification": (
        "text\tlabel\n"
        + "".join(
            f"{'the ' * (n % 5)}{word} film\t{('bad', 'so so', '好')[n % 3]}\n"
            for n, word in enumerate(_WORDS * 2)
        ),
        ".tsv",
    ),
    "tagging": (
        "".join(
            f"the O\n{word} B-FILM\nfilm I-FILM\nis O\n很 B-人\n\n"
            for word in _WORDS
        ),
        ".conll",
    ),
    "question_answering": (
        json.dumps({"data": [{"title": "", "paragraphs": _QUESTIONS}]}),
        ".json",
    ),
}


def softmax(x):
    x = x - x.max(-1, keepdims=True)
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def teacher_of(task, seed=1, **changes):
    model = model_lib.BertModel(
        bert.BertEncoder(tiny.bert(num_layers=4, **changes)), task
    )
    sharp.spread(model, seed)
    return predictor_lib.Predictor(model, tiny.tokenizer())


def student_of(task, *teachers, **changes):
    """The model of a wrapper that is bound to predictors."""
    waiting = list(teachers)
    task = task.bind(lambda path: waiting.pop(0))
    return model_lib.BertModel(
        bert.BertEncoder(tiny.bert(dropout=0.0, **changes)), task
    )


def outputs_of(model, rows=4):
    """Training outputs, features and targets."""
    features = tiny.inputs(rows=rows)
    labels = tf.constant(np.arange(rows) % 2, tf.int32)
    targets = {"label": (labels, tf.constant([1.0, 0.5, 2.0, 0.0][:rows]))}
    features, targets = model.task.randomize(features, targets, None)
    outputs = model(features, targets=targets, training=True)
    return outputs, features, targets


def wrapped(**settings):
    settings = {"teacher": "teacher"} | settings
    return distillation.Distillation(
        classification.Classification(labels=LABELS), **settings
    )


class LossesTest(parameterized.TestCase):
    def test_answers_at_a_temperature(self):
        teacher = teacher_of(classification.Classification(labels=LABELS))
        model = student_of(
            wrapped(temperature=3.0, soft=0.7, hard=0.3), teacher
        )
        outputs, features, targets = outputs_of(model)
        losses = model.task.loss(outputs, features, targets)
        gold = softmax(
            np.float64(teacher.model(features, training=False)["label"]) / 3
        )
        own = np.float64(outputs["label"]) / 3
        log_own = np.log(softmax(own))
        weights = targets["label"][1].numpy()
        divergence = (gold * (np.log(gold) - log_own)).sum(-1)
        np.testing.assert_allclose(
            losses["soft_label"], (divergence * weights).sum(), rtol=1e-4
        )
        self.assertEqual(
            model.task.loss_weights, {"label": 0.3, "soft_label": 0.7 * 9}
        )

    def test_several_teachers_are_averaged(self):
        several = [
            teacher_of(classification.Classification(labels=LABELS), seed)
            for seed in (1, 2)
        ]
        model = student_of(wrapped(teacher="a,b"), *several)
        outputs, features, _ = outputs_of(model)
        each = [
            softmax(np.float64(t.model(features, training=False)["label"]) / 2)
            for t in several
        ]
        np.testing.assert_allclose(
            outputs["soft_label"], np.mean(each, axis=0), rtol=1e-4
        )

    def test_states_of_mapped_layers(self):
        settings = {"soft": 0.0, "hidden": 1.0, "attention": 1.0}
        teacher = teacher_of(
            classification.Classification(labels=LABELS), hidden_size=32
        )
        model = student_of(wrapped(**settings, layers="1,3"), teacher)
        outputs, features, _ = outputs_of(model)
        encoders = model.encoder, teacher.model.encoder
        own, other = (
            each(
                **{n: features[n] for n in each.config.inputs}, attentions=True
            )
            for each in encoders
        )
        mask = features["padding_mask"].numpy() > 0
        w = {v.path: v.numpy() for v in model.head.distillation.weights}
        of_embeddings, of_layers = w.values()
        expected = np.zeros(len(mask))
        for layer, (mine, its) in enumerate(((0, 0), (1, 1), (2, 3))):
            kernel = of_layers if layer else of_embeddings
            difference = own["hidden"][mine] @ kernel - other["hidden"][its]
            expected += ((np.square(difference).mean(-1)) * mask).sum(1) / 3
        np.testing.assert_allclose(outputs["hidden"], expected, rtol=1e-4)
        expected = np.zeros(len(mask))
        for mine, its in ((0, 0), (1, 2)):
            pair = own["attentions"][mine], other["attentions"][its]
            for row, real in enumerate(mask):
                one, two = (
                    np.log(np.float64(p)[row][:, real][:, :, real])
                    for p in pair
                )
                one -= one.mean(-1, keepdims=True)
                two -= two.mean(-1, keepdims=True)
                expected[row] += np.square(one - two).mean((0, 2)).sum() / 2
        np.testing.assert_allclose(outputs["attention"], expected, rtol=1e-3)

    def test_scores_are_compared_up_to_what_a_softmax_does_not_see(self):
        scores = random(1, 2, 3, 5)
        other = random(1, 2, 3, 5, seed=1)
        mask = np.array([[[1.0, 1, 1, 1, 0]]], np.float32)

        def distribution(x):
            x = np.where(mask[:, np.newaxis] > 0, x, -1e9)
            return tf.constant(softmax(x), tf.float32)

        found = distillation.score_difference(
            distribution(scores), distribution(other), tf.constant(mask > 0)
        )
        centred = [
            x[..., :4] - x[..., :4].mean(-1, keepdims=True)
            for x in (scores, other)
        ]
        expected = np.square(centred[0] - centred[1]).mean(-1).mean(1)
        np.testing.assert_allclose(found, expected, rtol=1e-4)

    def test_packed_texts_have_the_attention_that_each_has_alone(self):
        task = masked_lm.MaskedLM(objective="none").adapt([], tiny.tokenizer())
        task = distillation.Distillation(
            task, teacher="t", soft=0.0, attention=1.0
        )
        model = student_of(task, teacher_of(task.task))
        alone = tiny.inputs(rows=2, length=6)

        def loss(features):
            seeds = tf.zeros((len(features["token_ids"]), 2), tf.int32)
            _, targets = model.task.randomize(features, {}, seeds)
            positions = tf.constant([[0]] * len(seeds))
            features = features | {"positions": positions}
            outputs = model(features, targets=targets, training=True)
            return tf.reduce_sum(outputs["attention"])

        packed = {
            name: tf.reshape(values, (1, -1)) for name, values in alone.items()
        }
        packed["padding_mask"] *= tf.repeat([[1, 2]], 6, axis=1)
        packed["position_ids"] = tf.constant([[*range(6), *range(6)]])
        np.testing.assert_allclose(loss(packed), loss(alone), rtol=1e-4)

    def test_causal_attention_is_compared_with_earlier_tokens(self):
        task = causal_lm.CausalLM(seq_length=12).adapt([], tiny.tokenizer())
        task = distillation.Distillation(
            task, teacher="t", soft=0.0, attention=1.0
        )
        model = student_of(
            task, teacher_of(task.task, causal=True), causal=True
        )
        features = tiny.inputs(rows=1, length=5)
        features, targets = model.task.randomize(
            features, {}, tf.zeros((1, 2), tf.int32)
        )
        found = model(features, targets=targets, training=True)["attention"]
        own, other = (
            each(
                **{n: features[n] for n in each.config.inputs}, attentions=True
            )["attentions"]
            for each in (model.encoder, model.task.teachers[0].encoder)
        )
        expected = 0.0
        for mine, its in ((0, 1), (1, 3)):
            for query in range(5):
                one, two = (
                    np.log(np.float64(p)[0, :, query, : query + 1])
                    for p in (own[mine], other[its])
                )
                one -= one.mean(-1, keepdims=True)
                two -= two.mean(-1, keepdims=True)
                expected += np.square(one - two).mean() / 2
        np.testing.assert_allclose(found, [expected], rtol=1e-3)

    def test_the_angle_of_the_last_states(self):
        teacher = teacher_of(classification.Classification(labels=LABELS))
        model = student_of(wrapped(soft=0.0, cosine=1.0), teacher)
        outputs, features, targets = outputs_of(model)
        own, other = (
            np.float64(
                each(**{n: features[n] for n in each.config.inputs})["hidden"][
                    -1
                ]
            )
            for each in (model.encoder, teacher.model.encoder)
        )
        norms = np.linalg.norm(own, axis=-1) * np.linalg.norm(other, axis=-1)
        angle = 1 - (own * other).sum(-1) / norms
        mask = features["padding_mask"].numpy()
        np.testing.assert_allclose(
            outputs["cosine"], (angle * mask).sum(1), rtol=1e-4
        )
        np.testing.assert_array_equal(targets["cosine"][1], mask.sum(1))

    @parameterized.parameters(
        ("", 2, 6, (3, 6)),
        ("", 3, 6, (2, 4, 6)),
        ("", 4, 6, (2, 3, 4, 6)),
        ("1,6", 2, 6, (1, 6)),
    )
    def test_layers_are_matched(self, layers, own, teachers, expected):
        self.assertEqual(
            distillation.layer_map(layers, own, teachers), expected
        )

    def test_only_the_student_learns_and_is_saved(self):
        teacher = teacher_of(
            classification.Classification(labels=LABELS), hidden_size=32
        )
        model = student_of(wrapped(hidden=1.0, attention=1.0), teacher)
        outputs, features, targets = outputs_of(model)
        with tf.GradientTape() as tape:
            outputs = model(features, targets=targets, training=True)
            losses = model.task.loss(outputs, features, targets)
            loss = tf.add_n(list(losses.values()))
        own = {id(variable) for variable in model.variables}
        for variable in teacher.model.variables:
            self.assertNotIn(id(variable), own)
        gradients = tape.gradient(
            loss, [v.value for v in model.trainable_variables]
        )
        self.assertNotIn(None, gradients)
        served = model.task.for_serving()
        self.assertIs(type(served), classification.Classification)
        self.assertNotIn("teachers", model.task.to_dict())

    def test_a_teacher_of_another_task_shows_its_states(self):
        task = masked_lm.MaskedLM(objective="none").adapt([], tiny.tokenizer())
        model = student_of(wrapped(soft=0.0, hidden=1.0), teacher_of(task))
        outputs, features, targets = outputs_of(model)
        self.assertEqual(set(outputs), {"label", "hidden"})

    def test_a_teachers_own_wrapper_answers(self):
        task = classification.Classification(labels=LABELS)
        teacher = teacher_of(mix.Mix(task))
        teacher.model.head.mix.layer_bias.assign([9.0, 0, 0, 0, 0])
        model = student_of(wrapped(), teacher)
        outputs, features, _ = outputs_of(model)
        expected = teacher.model(features, training=False)["label"]
        np.testing.assert_allclose(
            outputs["soft_label"], softmax(np.float64(expected) / 2), rtol=1e-4
        )

    def test_what_the_teacher_does_not_answer_counts_hard_times(self):
        task = masked_lm.MaskedLM(
            objective="none", span_boundary=True, detect_masked=True
        ).adapt([], tiny.tokenizer())
        teacher = teacher_of(task.for_serving())
        model = student_of(
            distillation.Distillation(task, teacher="t", hard=0.5), teacher
        )
        features, targets = model.task.randomize(
            tiny.inputs(), {}, tf.zeros((4, 2), tf.int32)
        )
        outputs = model(features, targets=targets, training=True)
        weights = model.task.loss_weights
        own = task.loss(outputs, features, targets)
        losses = model.task.loss(outputs, features, targets)
        self.assertEqual(set(losses), {*own, "soft_masked_lm"})
        for term, loss in own.items():
            np.testing.assert_allclose(
                losses[term] * weights.get(term, 1.0), loss * 0.5, rtol=1e-6
            )

    def test_prediction_asks_no_teacher(self):
        teacher = teacher_of(classification.Classification(labels=LABELS))
        model = student_of(wrapped(cosine=1.0), teacher)
        features = tiny.inputs()
        self.assertEqual(set(model(features, training=False)), {"label"})
        _, features, targets = outputs_of(model)
        evaluated = model(features, targets=targets, training=False)
        self.assertEqual(set(evaluated), {"label"})


class ClassesTest(absltest.TestCase):
    def bound(self, labels, **settings):
        teacher = teacher_of(
            classification.Classification(labels=("bad", "good", "old"))
        )
        task = distillation.Distillation(
            classification.Classification(labels=labels, **settings),
            teacher="teacher",
        )
        return task.bind(lambda path: teacher).labels

    def test_the_teachers_are_known_that_no_row_has(self):
        self.assertEqual(self.bound(("good",)), ("bad", "good", "old"))
        self.assertEqual(self.bound(("old", "bad")), ("bad", "good", "old"))

    def test_others_are_refused(self):
        with self.assertRaisesRegex(errors.InputError, "the same answers"):
            self.bound(("bad", "new"))
        with self.assertRaisesRegex(errors.InputError, "the same answers"):
            self.bound(("bad", "good"), weights=(1.0, 2.0))


class TogetherTest(absltest.TestCase):
    def test_rows_that_change_have_no_stored_answers(self):
        task = classification.Classification(labels=LABELS)
        for outer, inner in (
            (distillation.Distillation, noise.Noise),
            (noise.Noise, distillation.Distillation),
        ):
            settings = {
                noise.Noise: {"delete": 0.1},
                distillation.Distillation: {"teacher": "t", "store": True},
            }
            with self.assertRaisesRegex(errors.InputError, "stored answers"):
                outer(inner(task, **settings[inner]), **settings[outer])

    def test_a_teacher_of_pairs_does_not_teach_texts(self):
        teacher = teacher_of(
            classification.Classification(labels=LABELS, pair=True)
        )
        with self.assertRaisesRegex(errors.InputError, "text_pair"):
            wrapped().bind(lambda path: teacher)

    def test_a_teacher_may_have_early_exits(self):
        task = classification.Classification(labels=LABELS)
        teacher = teacher_of(early_exit.EarlyExit(task))
        wrapped().bind(lambda path: teacher)

    def test_a_teacher_may_pool_in_another_way(self):
        teacher = teacher_of(
            classification.Classification(labels=LABELS, pooling="mean")
        )
        wrapped().bind(lambda path: teacher)


class RefusedTest(parameterized.TestCase):
    @parameterized.parameters(
        ({"soft": 0.0}, "expected a weight above 0"),
        ({"layers": "1,2"}, "has no effect"),
    )
    def test_settings_without_sense(self, settings, text):
        with self.assertRaisesRegex(errors.InputError, text):
            wrapped(**settings)

    def test_other_answers(self):
        other = classification.Classification(labels=("good", "new"))
        with self.assertRaisesRegex(errors.InputError, "same answers"):
            student_of(wrapped(), teacher_of(other))

    def test_other_shapes(self):
        teacher = teacher_of(
            classification.Classification(labels=LABELS), hidden_size=32
        )
        with self.assertRaisesRegex(errors.InputError, "of equal width"):
            student_of(wrapped(cosine=1.0), teacher)
        teacher = teacher_of(
            classification.Classification(labels=LABELS), num_heads=4
        )
        with self.assertRaisesRegex(errors.InputError, "as many heads"):
            student_of(wrapped(attention=1.0), teacher)
        teacher = teacher_of(classification.Classification(labels=LABELS))
        with self.assertRaisesRegex(errors.InputError, "each of the network"):
            student_of(wrapped(hidden=1.0, layers="5,6"), teacher)

    def test_attention_of_other_networks(self):
        task = classification.Classification(labels=LABELS)
        with self.assertRaisesRegex(errors.InputError, "is causal"):
            student_of(wrapped(attention=1.0), teacher_of(task, causal=True))
        recurrent = predictor_lib.Predictor(
            model_lib.BertModel(tiny.rnn(), task), tiny.tokenizer()
        )
        bound = wrapped(attention=1.0).bind(lambda path: recurrent)
        with self.assertRaisesRegex(errors.InputError, "as many heads"):
            model_lib.BertModel(tiny.rnn(), bound)

    def test_a_network_that_reads_what_it_predicts(self):
        for settings in ({}, {"soft": 0.0, "cosine": 1.0}):
            with self.assertRaisesRegex(errors.InputError, "leave the wrapper"):
                distillation.Distillation(
                    replaced_tokens.ReplacedTokens(), teacher="t", **settings
                )

    def test_a_teacher_with_fewer_positions(self):
        folder = self.create_tempdir().full_path
        task = classification.Classification(labels=LABELS, seq_length=8)
        short = teacher_of(task, max_position_embeddings=8)
        checkpoint.save(folder, short.model, short.tokenizer, step=0)
        task = wrapped(teacher=folder).with_settings(seq_length=12)
        strategy = tf.distribute.get_strategy()
        with self.assertRaisesRegex(errors.InputError, "8 positions"):
            teachers.bind(task, tiny.tokenizer(), strategy)

    def test_states_of_several(self):
        teacher = teacher_of(classification.Classification(labels=LABELS))
        with self.assertRaisesRegex(errors.InputError, "states of one"):
            student_of(wrapped(teacher="a,b", cosine=1.0), teacher, teacher)


class RunsTest(parameterized.TestCase):
    def test_a_student_learns_what_labels_do_not_say(self):
        folder = self.create_tempdir().full_path
        path = os.path.join(folder, "train.tsv")
        words = "good bad fine dull old new".split()
        rows = [f"the {a} film is {b}" for a in words for b in words] * 4
        with open(path, "w", encoding="utf-8") as file:
            # Labels that say nothing.
            lines = [f"{row}\t{LABELS[n % 2]}\n" for n, row in enumerate(rows)]
            file.writelines(["text\tlabel\n", *lines])
        teacher = os.path.join(folder, "teacher")
        found = teacher_of(
            classification.Classification(labels=LABELS, seq_length=12)
        )
        checkpoint.save(teacher, found.model, found.tokenizer, step=0)
        start = os.path.join(folder, "start")
        keras.utils.set_random_seed(1)
        model = model_lib.BertModel(bert.BertEncoder(tiny.bert()), None)
        checkpoint.save(start, model, tiny.tokenizer(), step=0)
        agreement = {}
        for hard, soft in ((0.0, 1.0), (1.0, 0.0)):
            output = os.path.join(folder, f"student{hard}")
            student = bert_keras.finetune(
                start,
                path,
                task="classification",
                output=output,
                seq_length=12,
                epochs=6,
                batch_size=16,
                learning_rate=5e-3,
                report_to="",
                wrappers="distillation" if soft else "",
                **(
                    {
                        "distillation_teacher": teacher,
                        "distillation_hard": hard,
                        "distillation_attention": 0.1,
                    }
                    if soft
                    else {}
                ),
            )
            answers = [
                [each["label"] for each in model.predict(rows)]
                for model in (student, found)
            ]
            agreement[soft] = np.mean(np.array(answers[0]) == answers[1])
            with open(
                os.path.join(output, "settings.json"), encoding="utf-8"
            ) as file:
                stored = json.load(file)
            self.assertEqual("teacher 1" in str(stored), bool(soft))
        self.assertGreater(agreement[1.0], 0.85, agreement)
        self.assertLess(agreement[0.0], 0.7, agreement)

    def test_spans_are_distilled_in_the_context_alone(self):
        task = question_answering.QuestionAnswering(seq_length=12)
        teacher = teacher_of(task)
        model = student_of(
            distillation.Distillation(task, teacher="t"), teacher
        )
        raw = {
            "question": tf.constant(["is it old ?"]),
            "context": tf.constant(["the film is old"]),
            "answer": tf.constant(["old"]),
            "answer_start": tf.constant(["12"]),
            "is_impossible": tf.constant(["false"]),
        }
        features = model.task.preprocess(raw, tiny.tokenizer())
        targets = model.task.make_targets(raw, features, tiny.tokenizer())
        features, targets = model.task.randomize(features, targets, None)
        outputs = model(features, targets=targets, training=True)
        losses = model.task.loss(outputs, features, targets)
        self.assertEqual(
            set(losses), {"start", "end", "soft_start", "soft_end"}
        )
        # [CLS] is that no answer is there; [SEP] and the question are none.
        is_class = np.zeros(12, bool)
        is_class[[0, 6, 7, 8, 9]] = True
        for term in ("start", "end"):
            shares = outputs[f"soft_{term}"].numpy()[0]
            np.testing.assert_array_equal(shares[~is_class[: len(shares)]], 0)
            own = outputs[term].numpy()[0][is_class[: len(shares)]] / 2
            gold = shares[is_class[: len(shares)]]
            expected = (gold * (np.log(gold) - np.log(softmax(own)))).sum()
            np.testing.assert_allclose(
                losses[f"soft_{term}"], expected, rtol=1e-3, atol=1e-6
            )

    @mock.patch.object(distillation, "_ROWS", 5)
    def test_stored_answers_train_as_computed_ones(self):
        folder = self.create_tempdir().full_path
        for name, (text, ending) in TRAINING.items():
            teacher = os.path.join(folder, name)
            found = sharp.make(name)
            checkpoint.save(teacher, found.model, found.tokenizer, step=0)
            start = os.path.join(folder, f"{name}_start")
            network = bert.BertEncoder(
                tiny.bert_for(name, dropout=0.0, attention_dropout=0.0)
            )
            checkpoint.save(
                start,
                model_lib.BertModel(network, None),
                tiny.tokenizer(),
                step=0,
            )
            path = mains.write(os.path.join(folder, name + ending), text)
            losses = []
            for store in (False, True):
                output = os.path.join(folder, f"{name}{store}")
                bert_keras.finetune(
                    start,
                    path,
                    task=name,
                    output=output,
                    seq_length=found.task.seq_length,
                    epochs=2,
                    batch_size=4,
                    learning_rate=1e-3,
                    report_to="",
                    log_every=1,
                    wrappers="distillation",
                    distillation_teacher=teacher,
                    distillation_hard=0.0,
                    distillation_store=store,
                )
                with open(
                    os.path.join(output, "log.jsonl"), encoding="utf-8"
                ) as file:
                    log = [json.loads(line) for line in file]
                losses.append([row["loss"] for row in log if "loss" in row])
            self.assertGreater(len(losses[0]), 3)
            np.testing.assert_allclose(*losses, rtol=1e-3, err_msg=name)

    def test_no_answers_are_stored_for_dev_rows(self):
        folder = self.create_tempdir().full_path
        teacher = os.path.join(folder, "teacher")
        found = sharp.make("classification")
        checkpoint.save(teacher, found.model, found.tokenizer, step=0)
        text, _ = TRAINING["classification"]
        path = mains.write(os.path.join(folder, "train.tsv"), text)
        lines = text.splitlines(keepends=True)
        dev = mains.write(os.path.join(folder, "dev.tsv"), "".join(lines[:4]))
        with mock.patch.object(
            distillation.Distillation,
            "_shares_of_rows",
            autospec=True,
            side_effect=distillation.Distillation._shares_of_rows,
        ) as asked:
            bert_keras.finetune(
                teacher,
                path,
                task="classification",
                dev=dev,
                output=os.path.join(folder, "run"),
                seq_length=found.task.seq_length,
                epochs=1,
                report_to="",
                wrappers="distillation",
                distillation_teacher=teacher,
                distillation_store=True,
            )
        rows = [len(call.args[1]["padding_mask"]) for call in asked.mock_calls]
        self.assertEqual(rows, [len(lines) - 1])

    @parameterized.parameters("none", "nsp")  # DistilBERT's student has none
    def test_masked_lm_distills_too(self, objective):
        task = masked_lm.MaskedLM(objective="none").adapt([], tiny.tokenizer())
        teacher = teacher_of(dataclasses.replace(task, objective=objective))
        model = student_of(
            distillation.Distillation(task, teacher="t", cosine=1.0), teacher
        )
        features = tiny.inputs()
        seeds = tf.zeros((4, 2), tf.int32)
        features, targets = model.task.randomize(features, {}, seeds)
        outputs = model(features, targets=targets, training=True)
        losses = model.task.loss(outputs, features, targets)
        self.assertEqual(set(losses), {"masked_lm", "soft_masked_lm", "cosine"})
        self.assertEqual(set(losses), set(targets))


if __name__ == "__main__":
    absltest.main()
