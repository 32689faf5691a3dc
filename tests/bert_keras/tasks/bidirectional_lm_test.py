"""The bidirectional language model: labels, losses, samples, answers."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors, predictor
from bert_keras import model as model_lib
from bert_keras.tasks import base, bidirectional_lm
from tests import tiny

TEXTS = ["the film is good .", "a dull plot", ""]


def task(**fields):
    fields = {"seq_length": 16} | fields
    return bidirectional_lm.BidirectionalLM(**fields).adapt(
        [], tiny.characters()
    )


def model_of(task, **changes):
    keras.utils.set_random_seed(1)
    built = model_lib.BertModel(tiny.elmo(**changes).build_encoder(), task)
    for variable in built.head.weights:
        if not variable.path.endswith("seed_generator_state"):
            variable.assign(keras.random.normal(variable.shape))
    return built


def batch(task, texts=TEXTS, seed=0):
    """Features and targets of texts, as a batch of a run."""
    tokenizer = tiny.characters()
    raw = {"text": tf.constant(texts)}
    features = task.preprocess(raw, tokenizer)
    targets = task.make_targets(raw, features, tokenizer)
    features = {name: features[name] for name in ("characters", "padding_mask")}
    seeds = tf.constant([[seed, row] for row in range(len(texts))])
    return task.randomize(features, targets, seeds)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


class BidirectionalLMTest(parameterized.TestCase):
    def test_labels_are_the_words_beside(self):
        _, targets = batch(task())
        words = tiny.characters().vocabulary
        for term, expected in (
            ("forward", "the film is good . </S>"),
            ("backward", "<S> the film is good ."),
        ):
            labels, weights = targets[term]
            row = [
                words[label]
                for label, weight in zip(labels[0], weights[0], strict=True)
                if weight
            ]
            self.assertEqual(row, expected.split())
            np.testing.assert_array_equal(tf.reduce_sum(weights, 1), [6, 4, 1])

    def test_packed_texts_are_no_neighbours(self):
        ids = tf.constant([[1, 2, 3, 4, 0]])
        mask = tf.constant([[1, 1, 2, 2, 0]])
        targets = bidirectional_lm.neighbours(ids, mask)
        np.testing.assert_array_equal(targets["forward"][1], [[1, 0, 1, 0, 0]])
        np.testing.assert_array_equal(targets["backward"][1], [[0, 1, 0, 1, 0]])
        np.testing.assert_array_equal(targets["backward"][0], [[0, 1, 2, 3, 4]])

    def test_the_loss_is_the_cross_entropy(self):
        chosen = task()
        model = model_of(chosen, dropout=0.0)
        features, targets = batch(chosen)
        losses = chosen.loss(
            model(features, targets, training=True), features, targets
        )
        hidden = model.encoder(**features)["hidden"][-1].numpy()
        table = model.head.word.table.numpy().astype(float)
        bias = model.head.word.bias.numpy()
        for term, states in zip(
            ("forward", "backward"), np.split(hidden, 2, axis=-1), strict=True
        ):
            labels, weights = (x.numpy() for x in targets[term])
            scores = log_softmax(states @ table.T + bias)
            picked = np.take_along_axis(scores, labels[..., None], -1)[..., 0]
            np.testing.assert_allclose(
                losses[term], -(picked * weights).sum(), rtol=1e-5
            )

    def test_the_sampled_loss_is_tensorflows(self):
        chosen = task(num_sampled=5)
        model = model_of(chosen, dropout=0.0)
        features, targets = batch(chosen)
        # Distinct ones: TensorFlow removes the label from a sample once.
        random = np.random.default_rng(0)
        features["sampled"] = tf.constant(
            [random.permutation(20)[:5] for _ in TEXTS], tf.int32
        )
        outputs = model(features, targets, training=True)
        self.assertEqual(set(outputs), {"forward/sampled", "backward/sampled"})
        losses = chosen.loss(outputs, features, targets)
        hidden = model.encoder(
            characters=features["characters"],
            padding_mask=features["padding_mask"],
        )["hidden"][-1]
        word, size = model.head.word, chosen.vocab_size
        for term, states in zip(
            ("forward", "backward"), tf.split(hidden, 2, axis=-1), strict=True
        ):
            labels, weights = targets[term]
            total = 0.0
            for row, samples in enumerate(features["sampled"]):
                chance = np.log1p(1 / (samples.numpy() + 1)) / np.log(size + 1)
                row_losses = tf.nn.sampled_softmax_loss(
                    word.table,
                    word.bias,
                    labels[row][:, tf.newaxis],
                    states[row],
                    num_sampled=5,
                    num_classes=size,
                    sampled_values=(
                        tf.cast(samples, tf.int64),
                        # The label is there for certain.
                        tf.ones((labels.shape[1], 1)),
                        tf.constant(5 * chance, tf.float32),
                    ),
                )
                total += tf.reduce_sum(row_losses * weights[row])
            np.testing.assert_allclose(losses[term], total, rtol=1e-5)

    def test_evaluation_is_exact(self):
        exact, sampled = task(), task(num_sampled=5)
        features, targets = batch(sampled)
        one, other = (
            each.loss(
                model_of(each)(features, targets, training=False),
                features,
                targets,
            )
            for each in (exact, sampled)
        )
        for term in one:
            np.testing.assert_array_equal(one[term], other[term])

    def test_gradients_of_samples_are_the_exact_ones_on_average(self):
        """Jean et al. 2015, section 3.1: importance sampling."""
        exact = task()
        model = model_of(exact, dropout=0.0)
        features, targets = batch(exact)

        def gradient(chosen, features):
            model.task = chosen
            table = model.head.word.table.value
            with tf.GradientTape() as tape:
                outputs = model(features, targets, training=True)
                loss = chosen.loss(outputs, features, targets)["forward"]
            return tf.convert_to_tensor(tape.gradient(loss, table)).numpy()

        expected = gradient(exact, features)
        sampled = task(num_sampled=20_000)
        mean = np.mean(
            [gradient(sampled, batch(sampled, seed=s)[0]) for s in range(3)],
            axis=0,
        )
        error = np.linalg.norm(mean - expected) / np.linalg.norm(expected)
        self.assertLess(error, 0.03)

    def test_samples_are_log_uniform(self):
        uniform = tf.constant(np.linspace(0, 1, 100_000, endpoint=False))
        ids = bidirectional_lm.log_uniform(tf.cast(uniform, tf.float32), 50)
        counts = np.bincount(ids.numpy(), minlength=50) / 100_000
        chance = bidirectional_lm.log_uniform_probability(tf.range(50), 50)
        np.testing.assert_allclose(tf.reduce_sum(chance), 1.0, rtol=1e-5)
        np.testing.assert_allclose(counts, chance, atol=2e-4)
        highest = bidirectional_lm.log_uniform(tf.constant([1 - 2**-24]), 50)
        self.assertEqual(highest.numpy(), [49])

    def test_a_row_samples_by_its_seed(self):
        sampled = task(num_sampled=9)
        one = batch(sampled)[0]["sampled"].numpy()
        np.testing.assert_array_equal(one, batch(sampled)[0]["sampled"])
        self.assertFalse((one[0] == one[1]).all())
        other = batch(sampled, seed=1)[0]["sampled"].numpy()
        self.assertFalse((one == other).all())

    def test_perplexity_is_of_both_directions(self):
        metrics = task().summarize({"loss/forward": 1.0, "loss/backward": 2.0})
        self.assertEqual(metrics["loss/both"], 1.5)
        self.assertAlmostEqual(metrics["perplexity"], np.exp(1.5))
        self.assertContainsSubset(task().metric_names, metrics)

    def test_answers_are_what_each_side_expects(self):
        chosen = task()
        model = model_of(chosen)
        for variable in model.encoder.trainable_variables:
            variable.assign(variable * 5.0)  # positions whose answers differ
        tokenizer = tiny.characters()
        first, _, empty = predictor.Predictor(model, tokenizer).predict(TEXTS)
        self.assertEqual(first["word"], TEXTS[0].split())
        self.assertEqual(empty["word"], [])
        features, _ = batch(chosen, TEXTS[:1])
        outputs = model(features, training=False)
        for name, term, shift in (
            ("left", "forward", 0),
            ("right", "backward", 2),
        ):
            scores = tf.nn.softmax(outputs[term][0, shift : shift + 5]).numpy()
            words = [tokenizer.vocabulary[i] for i in scores.argmax(-1)]
            self.assertEqual(first[f"from_{name}"], words)
            self.assertGreater(len(set(words)), 1)
            np.testing.assert_allclose(
                first[f"{name}_score"], scores.max(-1), rtol=1e-5
            )

    def test_nothing_is_decoded_at_padding(self):
        # A served model does not compute what is padding in all rows.
        chosen = task()
        features, _ = batch(chosen, TEXTS)
        mask = features["padding_mask"].numpy() > 0
        self.assertFalse(mask.all())
        outputs = model_of(chosen)(features, training=False)
        for values in chosen.decode(outputs, features).values():
            self.assertFalse(values.numpy()[~mask].any())
            self.assertTrue(values.numpy()[mask].any())

    def test_a_network_that_sees_the_word_is_refused(self):
        with self.assertRaisesRegex(errors.InputError, "directions are apart"):
            model_lib.BertModel(tiny.bert().build_encoder(), task())

    def test_rows_of_pairs_are_refused(self):
        with self.assertRaisesRegex(errors.InputError, "packing`=sentences"):
            task().for_records({"objective": "nsp", "seq_length": 8})
        self.assertEqual(
            task().for_records({"objective": "none", "seq_length": 8}),
            task(seq_length=8),
        )

    def test_is_found_and_saved(self):
        chosen = task(num_sampled=3)
        self.assertEqual(base.from_dict(chosen.to_dict()), chosen)
        self.assertEqual(chosen.softmax_terms, ())
        self.assertEqual(task().softmax_terms, ("forward", "backward"))


if __name__ == "__main__":
    absltest.main()
