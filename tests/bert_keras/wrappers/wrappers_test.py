"""Wrappers change how a task learns, and nothing of what it is."""

import copy
import dataclasses
import json
import pickle
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, formats, predictor
from bert_keras import model as model_lib
from bert_keras.tasks import base as tasks
from bert_keras.tasks import (
    classification,
    embedding,
    masked_lm,
    question_answering,
    tagging,
)
from bert_keras.wrappers import base, label_smoothing, r_drop
from tests import tiny
from tests.examples import length_too

LABELS = ("bad", "fine", "good")
TASK = classification.Classification(labels=LABELS, seq_length=16)
TAGGING = tagging.Tagging(types=("X", "Y"), seq_length=16)
SmoothedTask, RDrop = label_smoothing.LabelSmoothing, r_drop.RDrop


def batch(seed=0, rows=6, classes=3, shape=()):
    """Logits, integer labels and weights of a batch, as float64."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, *shape, classes)) * 3
    labels = random.integers(classes, size=(rows, *shape))
    weights = random.uniform(size=(rows, *shape))
    return logits, labels, weights


def tensors(logits, labels, weights):
    return (
        tf.constant(logits, tf.float32),
        tf.constant(labels, tf.int32),
        tf.constant(weights, tf.float32),
    )


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


class LabelSmoothingTest(parameterized.TestCase):
    @parameterized.parameters(0.0, 0.1, 0.6)
    def test_the_loss_is_keras_cross_entropy_with_smoothed_labels(self, e):
        for task, term, shape, classes in (
            (TASK, "label", (), 3),
            (TAGGING, "tag", (7,), 5),
        ):
            logits, labels, weights = batch(classes=classes, shape=shape)
            expected = keras.losses.categorical_crossentropy(
                np.eye(classes)[labels],
                logits,
                from_logits=True,
                label_smoothing=e,
            )
            logits, labels, weights = tensors(logits, labels, weights)
            losses = SmoothedTask(task, epsilon=e).loss(
                {term: logits}, {}, {term: (labels, weights)}
            )
            self.assertEqual(set(losses), {term})
            np.testing.assert_allclose(
                losses[term],
                np.sum(expected * weights.numpy()),
                rtol=1e-5,
            )


class OrderTest(absltest.TestCase):
    """An order of wrappers in which one would do nothing, or else, is told."""

    def test_what_runs_the_network_itself_is_inside(self):
        with self.assertRaisesRegex(
            errors.InputError, "r_drop in it would do nothing; .*r_drop,tests"
        ):
            length_too.LengthToo(RDrop(TASK))
        RDrop(length_too.LengthToo(TASK))

    def test_two_passes_have_no_smoothed_labels_outside(self):
        with self.assertRaisesRegex(errors.InputError, "Name r_drop first"):
            SmoothedTask(RDrop(TASK))
        RDrop(SmoothedTask(TASK))

    def test_targets_of_a_wrapper_are_not_the_tasks(self):
        for task in (
            masked_lm.MaskedLM().adapt([], tiny.tokenizer()),
            question_answering.QuestionAnswering(),
        ):
            model = model_lib.BertModel(tiny.bert().build_encoder(), task)
            features = tiny.inputs() | {"positions": tf.zeros((4, 2), tf.int32)}
            outputs = model(features)
            targets = {}
            for term in outputs:
                shape = (4, 2) if term == "masked_lm" else (4,)
                targets[term] = tf.zeros(shape, tf.int32), tf.ones(shape)
            more = targets | {"length": (tf.zeros(4, tf.int32), tf.ones(4))}
            for function in (task.loss, task.metric_sums):
                self.assertEqual(
                    set(function(outputs, features, more)),
                    set(function(outputs, features, targets)),
                )


class RDropTest(parameterized.TestCase):
    def test_the_divergence_is_the_mean_of_both_directions(self):
        first, second = batch(1)[0], batch(2)[0]
        p, q = np.exp(log_softmax(first)), np.exp(log_softmax(second))
        expected = (
            np.sum(p * np.log(p / q), -1) + np.sum(q * np.log(q / p), -1)
        ) / 2
        np.testing.assert_allclose(
            r_drop.symmetric_divergence(first, second), expected, rtol=1e-9
        )

    def test_the_loss_is_half_of_the_papers_equation(self):
        logits, labels, weights = batch(1)
        other = batch(2)[0]
        own = np.arange(len(labels)), labels
        nll = -(log_softmax(logits)[own] + log_softmax(other)[own])
        divergence = r_drop.symmetric_divergence(logits, other).numpy()
        expected = np.sum((nll + 0.7 * divergence) / 2 * weights)
        logits, labels, weights = tensors(logits, labels, weights)
        outputs = {
            "label": logits,
            "r_drop/label": tf.constant(other, tf.float32),
        }
        (actual,) = (
            RDrop(TASK, alpha=0.7)
            .loss(outputs, {}, {"label": (labels, weights)})
            .values()
        )
        np.testing.assert_allclose(actual, expected, rtol=1e-5)

    def forward(self, *, training, targets=True, **config):
        task = RDrop(TASK)
        model = model_lib.BertModel(tiny.bert(**config).build_encoder(), task)
        labels = {"label": (tf.zeros(4, tf.int32), tf.ones(4))}
        features = tiny.inputs()
        outputs = model(
            features, targets=labels if targets else None, training=training
        )
        return outputs, task.loss(outputs, features, labels)["label"]

    def test_two_passes_have_different_dropout(self):
        outputs, _ = self.forward(training=True, dropout=0.5)
        self.assertEqual(set(outputs), {"label", "r_drop/label"})
        difference = outputs["label"] - outputs["r_drop/label"]
        self.assertGreater(np.abs(difference).max(), 1e-4)

    def test_without_dropout_the_loss_is_the_tasks(self):
        plain = {"dropout": 0.0, "attention_dropout": 0.0}
        keras.utils.set_random_seed(1)
        outputs, actual = self.forward(training=True, **plain)
        keras.utils.set_random_seed(1)
        _, expected = self.forward(training=False, **plain)
        self.assertIn("r_drop/label", outputs)
        np.testing.assert_allclose(actual, expected, rtol=1e-6)

    @parameterized.parameters((False, True), (True, False), (False, False))
    def test_there_is_one_pass_where_nothing_is_learned(
        self, training, targets
    ):
        outputs, _ = self.forward(training=training, targets=targets)
        self.assertEqual(set(outputs), {"label"})


class WrapperTest(parameterized.TestCase):
    def test_every_member_but_those_of_learning_is_the_inner_tasks(self):
        wrapped = RDrop(SmoothedTask(TASK))
        for name in vars(tasks.Task):
            member = getattr(type(TASK), name)
            if name.startswith("_") or callable(member):
                continue
            own = ("name", "seq_length", "softmax_terms", "reads_targets")
            if name not in own:
                self.assertEqual(getattr(wrapped, name), getattr(TASK, name))
        self.assertEqual(wrapped.seq_length, TASK.seq_length)
        self.assertEqual((wrapped.reads_targets, TASK.reads_targets), (1, 0))
        self.assertEqual(wrapped.calibrated({}).to_dict(), wrapped.to_dict())

    def test_what_data_tells_reaches_the_inner_task(self):
        rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
        task = RDrop(SmoothedTask(classification.Classification()))
        adapted = task.adapt(rows, None)
        self.assertIsInstance(adapted, RDrop)
        self.assertIsInstance(adapted.task, SmoothedTask)
        self.assertEqual(adapted.task.task.labels, ("x", "y"))
        self.assertEqual(adapted.class_names, ("x", "y"))

    def test_settings_go_to_whom_they_belong(self):
        task = RDrop(SmoothedTask(TASK)).with_settings(
            alpha=3.0, epsilon=0.2, seq_length=9
        )
        self.assertEqual((task.alpha, task.task.epsilon), (3.0, 0.2))
        self.assertEqual((task.seq_length, task.task.task.seq_length), (9, 9))

    def test_a_folder_holds_one_inside_the_other(self):
        task = RDrop(SmoothedTask(TASK, epsilon=0.3), alpha=2.0)
        values = json.loads(json.dumps(task.to_dict()))
        self.assertEqual(values["wrapper"], "r_drop")
        self.assertEqual(values["task"]["wrapper"], "label_smoothing")
        self.assertEqual(values["task"]["task"]["name"], "classification")
        self.assertEqual(tasks.from_dict(values), task)

    @parameterized.parameters(
        ({"task": None}, "expected a task"),
        ({"task": [1]}, "expected a task"),
        ({"task": {"wrapper": "label_smoothing"}}, "expected a task"),
        ({"seq_length": 3}, "seq_length"),
        ({"wrapper": "os.path"}, "defines 0 wrappers"),
        ({"alpha": "1"}, "alpha"),
        ({"alpha": -1.0}, "alpha"),
        ({"beta": 1}, "beta"),
    )
    def test_what_does_not_fit_is_refused(self, change, message):
        with self.assertRaisesRegex(errors.InputError, message):
            tasks.from_dict(RDrop(TASK).to_dict() | change)

    @parameterized.parameters(
        embedding.Embedding(),
        classification.Classification(problem_type="multi_label"),
        classification.Classification(problem_type="regression"),
    )
    def test_a_task_without_classes_is_refused(self, task):
        for wrapper in (RDrop, SmoothedTask):
            with self.assertRaisesRegex(errors.InputError, "softmax"):
                wrapper(task)

    def test_nesting_without_end_is_refused(self):
        values = TASK.to_dict()
        for _ in range(2000):
            values = {"wrapper": "r_drop", "alpha": 1.0, "task": values}
        with self.assertRaisesRegex(errors.InputError, "at most 20"):
            tasks.from_dict(values)

    def test_what_a_task_becomes_stays_in_the_wrapper(self):
        task = question_answering.QuestionAnswering(unanswerable=True)
        wrapped = base.Wrapper(task).calibrated({"best_f1_threshold": 2.5})
        self.assertIsInstance(wrapped, base.Wrapper)
        self.assertEqual(wrapped.task.no_answer_threshold, 2.5)
        self.assertIs(RDrop(SmoothedTask(TASK)).unwrapped, TASK)

    def test_the_same_wrapper_twice_is_refused(self):
        with self.assertRaisesRegex(errors.InputError, "more than once"):
            SmoothedTask(SmoothedTask(TASK))

    def test_what_only_the_inner_task_has_is_found(self):
        wrapped = copy.deepcopy(RDrop(SmoothedTask(TASK)))
        self.assertEqual(
            (wrapped.labels, wrapped.problem_type), (LABELS, "single_label")
        )
        self.assertFalse(hasattr(wrapped, "nothing"))
        self.assertEqual(pickle.loads(pickle.dumps(wrapped)), wrapped)

    def test_a_phone_asks_the_inner_task(self):
        self.assertEqual(RDrop(TASK).for_device(), TASK)

        @dataclasses.dataclass(frozen=True)
        class Kept(base.Wrapper):
            leaves_no_trace = False

        kept = Kept(RDrop(TASK))
        self.assertEqual(kept.for_device(), Kept(TASK))
        self.assertEqual(kept.for_serving(), Kept(TASK))

    def test_what_json_cannot_hold_is_refused_when_it_is_saved(self):
        with self.assertRaisesRegex(errors.InputError, "saved as JSON"):
            RDrop(TASK, alpha=complex(1)).to_dict()

    def test_a_wrapper_needs_a_task(self):
        with self.assertRaisesRegex(errors.InputError, "expected a task"):
            RDrop()

    def test_what_is_saved_and_served_is_the_inner_task(self):
        folder = self.create_tempdir().full_path
        task = RDrop(SmoothedTask(TASK))
        model = model_lib.BertModel(tiny.bert().build_encoder(), task)
        checkpoint.save(folder, model, tiny.tokenizer(), step=1)
        loaded = predictor.load(folder)
        self.assertEqual(loaded.task, TASK)
        self.assertEqual(
            loaded.predict(["a good film"]),
            predictor.Predictor(model, tiny.tokenizer()).predict(
                ["a good film"]
            ),
        )
        saved = formats.read(folder)
        self.assertEqual(saved.task, TASK)
        self.assertEqual(tasks.from_dict(saved.metadata["trained_as"]), task)

    def test_a_keras_file_keeps_the_wrapper(self):
        path = self.create_tempdir().create_file("model.keras").full_path
        task = RDrop(TASK, alpha=0.5)
        model_lib.BertModel(tiny.bert().build_encoder(), task).save(path)
        self.assertEqual(keras.models.load_model(path).task, task)
        # A process that has imported no wrapper knows those of the package.
        script = (
            "import keras, bert_keras; bert_keras.BertModel;"
            f"print(type(keras.models.load_model({path!r}).task).__name__)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True
        )
        self.assertEqual(done.stdout, "RDrop\n", done.stderr)

    def test_names_are_read_from_the_outermost(self):
        classes = base.parse("r_drop, label_smoothing")
        self.assertEqual(classes, [RDrop, SmoothedTask])
        values = {"r_drop_alpha": 4.0, "label_smoothing_epsilon": 0.2}
        self.assertEqual(
            base.wrap(TASK, classes, values),
            RDrop(SmoothedTask(TASK, epsilon=0.2), alpha=4.0),
        )
        self.assertEqual(base.parse(""), [])
        with self.assertRaisesRegex(errors.InputError, "more than once"):
            base.parse("r_drop,r_drop")
        with self.assertRaisesRegex(errors.InputError, "label_smoothing"):
            base.parse("dropout")

    def test_fields_are_the_wrappers_own(self):
        names = [field.name for field in dataclasses.fields(RDrop)]
        self.assertEqual(names, ["seq_length", "task", "alpha"])
        self.assertEqual(RDrop(TASK).settings(), {"alpha": 1.0})


if __name__ == "__main__":
    absltest.main()
