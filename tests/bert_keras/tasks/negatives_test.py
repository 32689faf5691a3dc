"""Classification with drawn labels: the loss, its gradient, what is served."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors, evaluation
from bert_keras import model as model_lib
from bert_keras.data import negatives
from bert_keras.networks import bert
from bert_keras.tasks import base, classification
from bert_keras.wrappers import label_smoothing
from tests import sharp, tiny

LABELS = tuple(f"label {number:02}" for number in range(12))
COUNTS = (5, 1, 20, 3, 3, 1, 60, 2, 2, 9, 7, 1)
CANDIDATES, SAMPLED = "candidates", "label/sampled"


def task(negatives=0, **settings):
    if settings.get("negatives_distribution") == "frequency":
        settings = {"counts": COUNTS} | settings
    return classification.Classification(
        seq_length=16, labels=LABELS, negatives=negatives, **settings
    )


def model_of(task):
    keras.utils.set_random_seed(1)
    config = tiny.bert(dropout=0.0, attention_dropout=0.0, num_layers=1)
    model = model_lib.BertModel(bert.BertEncoder(config), task)
    sharp.spread(model, 1)
    return model


def batch(task, rows=4, step=0):
    """A batch of random tokens and labels, as a run has it."""
    own = tf.constant([0, 6, 6, 11][:rows])
    weights = tf.constant([1.0, 0.5, 2.0, 0.0][:rows])
    seeds = tf.stack([tf.fill([rows], 3), tf.range(rows) + 100 * step], axis=1)
    targets = {"label": (own, weights)}
    return task.randomize(tiny.inputs(rows, length=9), targets, seeds)


def gradients(model, features, targets):
    """Returns the loss and its gradients by path; zeros if there are none."""
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        outputs = model(features, targets, training=True)
        loss = model.task.loss(outputs, features, targets)["label"]
    values = tape.gradient(loss, [v.value for v in variables])
    return loss.numpy(), {
        v.path: np.zeros(v.shape) if g is None else tf.convert_to_tensor(g)
        for v, g in zip(variables, values, strict=True)
    }


class NegativesTest(parameterized.TestCase):
    @parameterized.parameters("uniform", "frequency")
    def test_the_loss_is_its_formula(self, distribution):
        """Bengio & Senecal 2008: each exponential by its expected count."""
        chosen = task(4, negatives_distribution=distribution)
        model = model_of(chosen)
        features, targets = batch(chosen)
        outputs = model(features, targets, training=True)
        self.assertEqual(set(outputs), {SAMPLED})
        pooled = (
            model.encoder(**tiny.inputs(4, length=9))["pooled"]
            .numpy()
            .astype(float)
        )
        score = model.head.label.score
        kernel, bias = (x.numpy().astype(float) for x in score.weights)
        logits = pooled @ kernel + bias
        sizes = np.array(COUNTS if distribution == "frequency" else [1] * 12)
        total = 0.0
        for row, (own, *drawn) in enumerate(features[CANDIDATES].numpy()):
            self.assertEqual(own, targets["label"][0][row])
            self.assertNotIn(own, drawn)
            self.assertLen(drawn, 4)
            np.testing.assert_allclose(
                outputs[SAMPLED][row], logits[row, [own, *drawn]], atol=1e-5
            )
            chance = sizes[drawn] / (sizes.sum() - sizes[own])
            others = np.exp(logits[row, drawn]) / (4 * chance)
            right = np.exp(logits[row, own])
            loss = -np.log(right / (right + others.sum()))
            total += loss * targets["label"][1][row].numpy()
        loss = chosen.loss(outputs, features, targets)["label"]
        np.testing.assert_allclose(loss, total, rtol=1e-5)

    @parameterized.parameters(11, 50)
    def test_all_other_labels_are_the_full_softmax(self, negatives):
        exact = model_of(task())
        loss, expected = gradients(exact, *batch(task()))
        chosen = task(negatives, negatives_distribution="frequency")
        features, targets = batch(chosen)
        self.assertNotIn(CANDIDATES, features)
        actual_loss, actual = gradients(model_of(chosen), features, targets)
        self.assertAlmostEqual(loss, actual_loss, places=6)
        for path, gradient in expected.items():
            np.testing.assert_allclose(actual[path], gradient, atol=1e-6)

    def test_each_other_label_once_is_the_full_softmax(self):
        # Drawn as often as expected, the sampled sum is the exact one.
        expected_loss, expected = gradients(model_of(task()), *batch(task()))
        chosen = task(10)
        features, targets = batch(chosen)
        features[CANDIDATES] = tf.constant(
            [[own, *set(range(12)) - {own}] for own in (0, 6, 6, 11)]
        )
        loss, actual = gradients(model_of(chosen), features, targets)
        self.assertAlmostEqual(loss, expected_loss, places=5)
        for path, gradient in expected.items():
            np.testing.assert_allclose(actual[path], gradient, atol=2e-6)

    @parameterized.parameters("uniform", "frequency")
    def test_gradients_are_the_exact_ones_on_average(self, distribution):
        """Jean et al. 2015, section 3.1."""
        _, exact = gradients(model_of(task()), *batch(task()))
        chosen = task(10, negatives_distribution=distribution)
        features, targets = batch(chosen)
        sizes = COUNTS if distribution == "frequency" else (1,) * 12
        own, seeds = features[CANDIDATES][:, :1], tf.constant([[1, 2]] * 4)
        drawn = negatives.other_classes(own[:, 0], seeds, 20_000, sizes)
        features[CANDIDATES] = tf.concat([own, drawn], axis=1)
        model = model_of(chosen)
        path = model.head.label.score.kernel.path
        mean = gradients(model, features, targets)[1][path]
        error = np.linalg.norm(mean - exact[path])
        self.assertLess(error / np.linalg.norm(exact[path]), 0.03)

    def test_labels_that_are_not_drawn_have_no_gradient(self):
        chosen = task(2)
        model = model_of(chosen)
        features, targets = batch(chosen)
        _, values = gradients(model, features, targets)
        kernel, bias = (values[v.path] for v in model.head.label.score.weights)
        used = np.unique(features[CANDIDATES][:3])  # the last row has weight 0
        unused = np.setdiff1d(np.arange(12), used)
        self.assertNotEmpty(unused)
        np.testing.assert_array_equal(np.array(kernel)[:, unused], 0)
        np.testing.assert_array_equal(np.array(bias)[unused], 0)
        self.assertTrue((np.abs(np.array(kernel)[:, used]).sum(0) > 0).all())

    def test_logits_of_other_labels_are_not_computed(self):
        chosen = task(3)
        model = model_of(chosen)
        features, targets = batch(chosen)
        graph = tf.function(
            lambda features: model(features, targets, training=True)
        ).get_concrete_function(features)
        shapes = [
            output.shape
            for operation in graph.graph.get_operations()
            for output in operation.outputs
        ]
        self.assertIn((4, 4), [tuple(s) for s in shapes if s.rank == 2])
        self.assertNotIn((4, 12), [tuple(s) for s in shapes if s.rank == 2])

    def test_bfloat16_gathers_from_float32(self):
        chosen = task(3)
        keras.utils.set_random_seed(1)
        config = tiny.bert(dropout=0.0, attention_dropout=0.0, num_layers=1)
        model = model_lib.BertModel(config, chosen, dtype="mixed_bfloat16")
        features, targets = batch(chosen)
        sampled = model(features, targets, training=True)[SAMPLED]
        exact = model(tiny.inputs(4, length=9), training=False)["label"]
        self.assertEqual(sampled.dtype, "float32")
        np.testing.assert_allclose(
            sampled,
            tf.gather(exact, features[CANDIDATES], batch_dims=1),
            atol=1e-6,
        )

    def test_evaluations_and_answers_are_of_all_labels(self):
        features, targets = batch(task(3))
        self.assertIn(CANDIDATES, features)
        exact, chosen = (
            model_of(each)(features, targets, training=False)["label"]
            for each in (task(), task(3))
        )
        np.testing.assert_array_equal(exact, chosen)
        self.assertEqual(chosen.shape, (4, 12))

    def test_adapt_counts_the_rows_of_a_label(self):
        rows = [{"text": "", "label": label} for label in "cabbcb"]
        for distribution, counts in (("uniform", ()), ("frequency", (1, 3, 2))):
            chosen = classification.Classification(
                negatives=1, negatives_distribution=distribution
            ).adapt(rows, None)
            self.assertEqual(chosen.counts, counts)
            self.assertEqual(base.from_dict(chosen.to_dict()), chosen)
            served = chosen.for_serving()
            self.assertEqual((served.negatives, served.counts), (0, ()))
            self.assertEqual(served.labels, ("a", "b", "c"))

    def test_a_task_without_negatives_is_saved_as_before_there_were_some(self):
        saved = classification.Classification(labels=("a", "b")).to_dict()
        for name in ("negatives", "negatives_distribution", "counts"):
            self.assertNotIn(name, saved)

    def test_other_problem_types_and_missing_counts_are_refused(self):
        for problem_type in ("multi_label", "regression"):
            with self.assertRaisesRegex(
                errors.InputError, "problem_type=single_label"
            ):
                classification.Classification(
                    negatives=3, problem_type=problem_type
                )
        with self.assertRaisesRegex(errors.InputError, "call the task's `ada"):
            task(3, negatives_distribution="frequency", counts=(1, 2))
        with self.assertRaisesRegex(errors.InputError, "no effect without"):
            task(0, negatives_distribution="frequency")
        with self.assertRaisesRegex(errors.InputError, "none with these set"):
            label_smoothing.LabelSmoothing(task(3))

    def test_the_baseline_is_that_of_all_labels(self):
        rows = [{"label": label} for label in ("a", "b", "a")]
        one, other = (evaluation.baseline(task(k), rows) for k in (0, 3))
        self.assertEqual(one, other)
        self.assertNotEmpty(one)


class ManyLabelsTest(absltest.TestCase):
    LABELS = tuple(f"{number:05}" for number in range(30_000))

    def test_metrics_need_no_matrix_of_all_labels(self):
        chosen = classification.Classification(labels=self.LABELS)
        rows = [{"label": self.LABELS[i]} for i in (0, 7, 7, 29_999)]
        answers = [{"label": self.LABELS[i]} for i in (0, 7, 8, 0)]
        few = classification.Classification(labels=self.LABELS[:9])
        expected = few.metrics(answers, rows)
        self.assertEqual(chosen.metrics(answers, rows), expected)
        self.assertEqual(expected["accuracy"], 0.5)
        tables = chosen.tables(answers, rows)
        self.assertEqual(set(tables), {"classes"})
        self.assertEqual(
            tables["classes"].rows, ["00000", "00007", "00008", "29999"]
        )
        self.assertEqual(
            set(few.tables(answers, rows)), {"classes", "confusion"}
        )

    def test_an_unknown_label_is_not_followed_by_all_the_others(self):
        chosen = classification.Classification(labels=self.LABELS)
        with self.assertRaisesRegex(errors.InputError, "and 29,980 more") as e:
            chosen.make_targets({"label": tf.constant(["no"])}, {}, None)
        self.assertLess(len(str(e.exception)), 1200)


if __name__ == "__main__":
    absltest.main()
