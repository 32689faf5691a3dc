"""Objectives beside masked LM: what is asked about hidden tokens."""

import dataclasses
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors, heads, mask_generator, predictor
from bert_keras import model as model_lib
from bert_keras.data import masking
from bert_keras.networks import bert
from bert_keras.tasks import masked_lm, replaced_tokens, token_order
from bert_keras.wrappers import mix
from tests import tiny

LENGTH = 24
MASK = tiny.VOCABULARY.index("[MASK]")


def rows(count=200):
    """Random words, of which row r has r % 6 less; [CLS] and [SEP] around."""
    random = np.random.default_rng(0)
    ids = random.integers(5, len(tiny.VOCABULARY), (count, LENGTH))
    length = LENGTH - np.arange(count)[:, np.newaxis] % 6
    place = np.arange(LENGTH)
    ids = np.where(place < length, ids, 0)
    ids = np.where(place == length - 1, 3, ids)
    ids[:, 0] = 2
    return {
        "token_ids": tf.constant(ids, tf.int32),
        "segment_ids": tf.zeros_like(ids, tf.int32),
        "padding_mask": tf.constant(place < length, tf.int32),
    }


def rows_without_frame(count=200):
    """Full rows, without special tokens, as those of `packing=full`."""
    ids = np.random.default_rng(0).integers(
        5, len(tiny.VOCABULARY), (count, LENGTH - 2)
    )
    ids = tf.constant(ids, tf.int32)
    return {
        "token_ids": ids,
        "segment_ids": tf.zeros_like(ids),
        "padding_mask": tf.ones_like(ids),
    }


def seeds(count=200, step=0):
    return tf.stack([tf.range(count), tf.fill([count], step)], axis=1)


def adapted(task):
    return task.adapt([], tiny.tokenizer())


def model_of(task, **changes):
    return model_lib.BertModel(
        bert.BertEncoder(tiny.bert(dropout=0.0, **changes)), task
    )


class ReplacedTokensTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.task = adapted(replaced_tokens.ReplacedTokens(seq_length=LENGTH))
        self.features, self.targets = self.task.randomize(rows(), {}, seeds())

    def test_all_chosen_tokens_are_masks_for_the_generator(self):
        labels, weights = self.targets["generator"]
        read = tf.gather(
            self.features["token_ids"], self.features["positions"], batch_dims=1
        )
        chosen = weights.numpy() > 0
        self.assertTrue((read.numpy()[chosen] == MASK).all())
        original = tf.gather(
            rows()["token_ids"], self.features["positions"], batch_dims=1
        )
        np.testing.assert_array_equal(labels, original)

    @parameterized.parameters(True, False)
    def test_the_encoder_reads_what_the_generator_draws(self, has_frame):
        original = rows() if has_frame else rows_without_frame()
        self.features, self.targets = self.task.randomize(original, {}, seeds())
        original = original["token_ids"].numpy()
        model = model_of(self.task)
        read = []
        encode = model.encoder.call

        def recording(**inputs):
            read.append(inputs["token_ids"].numpy())
            return encode(**inputs)

        model.encoder.call = recording
        outputs = model(self.features, targets=self.targets)
        (ids,) = read
        np.testing.assert_array_equal(
            ids != original, outputs["is_replaced"].numpy() > 0
        )
        # Only chosen tokens change, and here most do.
        _, weights = self.targets["generator"]
        count = (ids != original).sum()
        self.assertLessEqual(count, weights.numpy().sum())
        self.assertGreater(count, 0.9 * weights.numpy().sum())

    def test_the_losses_are_those_of_the_paper(self):
        model = model_of(self.task)
        outputs = model(self.features, targets=self.targets)
        losses = self.task.loss(outputs, self.features, self.targets)
        labels, weights = (x.numpy() for x in self.targets["generator"])
        logits = outputs["generator"].numpy().astype("float64")
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        picked = np.take_along_axis(logits, labels[..., np.newaxis], -1)
        expected = -(picked[..., 0] * weights).sum()
        np.testing.assert_allclose(losses["generator"], expected, rtol=1e-5)
        score = 1 / (1 + np.exp(-outputs["replaced"].numpy().astype("float64")))
        gold = outputs["is_replaced"].numpy()
        terms = gold * np.log(score) + (1 - gold) * np.log(1 - score)
        expected = -(terms * self.features["padding_mask"].numpy()).sum()
        np.testing.assert_allclose(losses["replaced"], expected, rtol=1e-5)
        self.assertEqual(self.task.loss_weights, {"replaced": 50.0})

    def test_no_gradient_passes_through_the_draws(self):
        model = model_of(self.task)
        with tf.GradientTape() as tape:
            outputs = model(self.features, targets=self.targets)
            losses = self.task.loss(outputs, self.features, self.targets)
        generator = model.head.generator.trainable_variables
        values = [variable.value for variable in generator]
        self.assertEqual(
            tape.gradient(losses["replaced"], values), [None] * len(values)
        )

    def test_each_loss_reaches_its_weights_and_the_shared_table(self):
        model = model_of(self.task, norm_first=True)
        with tf.GradientTape(persistent=True) as tape:
            outputs = model(self.features, targets=self.targets)
            losses = self.task.loss(outputs, self.features, self.targets)
        table = model.encoder.embeddings.token_table.value
        for term, layer in (
            ("generator", model.head.generator),
            ("replaced", model.head.replaced),
        ):
            values = [v.value for v in layer.trainable_variables]
            for gradient in tape.gradient(losses[term], [table, *values]):
                self.assertIsNotNone(gradient)

    def test_the_generator_is_narrow(self):
        config = tiny.bert(hidden_size=64, num_heads=8, intermediate_size=100)
        narrow = mask_generator.narrow(config, 0.25)
        self.assertEqual(
            (narrow.num_heads, narrow.hidden_size, narrow.intermediate_size),
            (2, 16, 25),
        )
        self.assertEqual(narrow.embedding_width, 64)
        self.assertEqual(mask_generator.narrow(config, 0.01).num_heads, 1)

    def test_packed_texts_are_filled_as_each_is_alone(self):
        model = model_of(self.task)
        alone = tiny.inputs(rows=2, length=6)
        place = tf.constant([[2], [3]])
        labels = tf.gather(alone["token_ids"], place, batch_dims=1)

        def outputs(features, places, **more):
            shape = tf.shape(places)
            draws = tf.reshape([1 << 23, 1 << 20], shape)
            targets = {
                "generator": (tf.reshape(labels, shape), tf.ones(shape)),
            }
            features = {
                **features,
                **more,
                "positions": places,
                "generator_draws": draws,
            }
            found = model(features, targets=targets)
            return [tf.reshape(found[name], (2, -1)) for name in sorted(found)]

        packed = {
            name: tf.reshape(values, (1, -1)) for name, values in alone.items()
        }
        packed["padding_mask"] *= tf.repeat([[1, 2]], 6, axis=1)
        position_ids = tf.constant([[*range(6), *range(6)]])
        real = alone["padding_mask"].numpy() > 0
        for one, two in zip(
            outputs(alone, place),
            outputs(packed, tf.constant([[2, 9]]), position_ids=position_ids),
            strict=True,
        ):
            one, two = one.numpy(), two.numpy()
            if one.shape == real.shape:
                one, two = one[real], two[real]
            np.testing.assert_allclose(one, two, atol=1e-5)
        served = self.task.with_settings(packed=True).for_serving()
        self.assertFalse(served.packed)

    def test_generators_of_other_networks_are_refused(self):
        with self.assertRaisesRegex(errors.InputError, "causal=true"):
            self.task.build_heads(tiny.bert(causal=True))
        with self.assertRaisesRegex(errors.InputError, "found rnn"):
            self.task.build_heads(tiny.rnn())

    def test_draws_follow_the_distribution(self):
        logits = tf.constant(np.log([[[0.5, 0.25, 0.125, 0.125]]]), tf.float32)
        uniform = tf.constant([[0.0, 0.49, 0.51, 0.74, 0.76, 0.9, 0.99999994]])
        logits = tf.tile(logits, [1, 7, 1])
        np.testing.assert_array_equal(
            mask_generator.sample(logits, uniform), [[0, 0, 1, 1, 2, 3, 3]]
        )

    def test_a_mix_of_layers_is_read(self):
        model = model_of(mix.Mix(self.task))
        outputs = model(self.features, targets=self.targets)
        plain = model_of(self.task)
        self.assertEqual(
            set(outputs), set(plain(self.features, targets=self.targets))
        )

    def test_pairs_and_masked_records_are_refused(self):
        manifest = {"seq_length": 8, "objective": "sop"}
        with self.assertRaisesRegex(errors.InputError, "sentence_objective"):
            self.task.for_records(manifest)
        manifest = {"seq_length": 8, "objective": "none", "format": "google"}
        with self.assertRaisesRegex(errors.InputError, "masks already"):
            self.task.for_records(manifest)

    def test_the_metrics_are_of_the_replaced_tokens(self):
        model = model_of(self.task)
        outputs = dict(model(self.features, targets=self.targets))
        gold = outputs["is_replaced"].numpy()
        said = gold.copy()
        said[:, 3] = 1 - said[:, 3]
        outputs["replaced"] = tf.constant(said * 4 - 2)
        sums = self.task.metric_sums(outputs, self.features, self.targets)
        means = {k: float(s / w) for k, (s, w) in sums.items()}
        is_token = self.features["padding_mask"].numpy() > 0
        both = (said * gold)[is_token].sum()
        precision = both / said[is_token].sum()
        recall = both / gold[is_token].sum()
        self.assertAlmostEqual(means["replaced_precision"], precision, places=5)
        self.assertAlmostEqual(means["replaced_recall"], recall, places=5)
        self.assertAlmostEqual(
            means["replaced_accuracy"],
            (said == gold)[is_token].mean(),
            places=5,
        )
        f1 = 2 * precision * recall / (precision + recall)
        self.assertAlmostEqual(
            self.task.summarize(means)["replaced_f1"], f1, places=5
        )

    def test_an_answer_is_of_the_tokens_without_special_ones(self):
        asked = predictor.Predictor(model_of(self.task), tiny.tokenizer())
        one, two = asked.predict(["the film is good", ""])
        self.assertEqual(one["token"], ["the", "film", "is", "good"])
        self.assertLen(one["replaced"], 4)
        self.assertEqual(two["token"], [])
        ids = [[2, *tiny.tokenizer()(["the film is good"]).to_list()[0], 3]]
        row = {
            "token_ids": tf.constant(ids),
            "segment_ids": tf.zeros((1, 6), tf.int32),
            "padding_mask": tf.ones((1, 6), tf.int32),
        }
        logits = np.float64(asked.model(row, training=False)["replaced"])
        np.testing.assert_allclose(
            one["replaced"], 1 / (1 + np.exp(-logits[0, 1:-1])), atol=1e-5
        )

    def test_draws_are_from_0_to_1(self):
        drawn = []

        def sample(logits, uniform):
            drawn.append(uniform.numpy())
            return tf.zeros_like(uniform, tf.int32)

        with mock.patch.object(mask_generator, "sample", sample):
            model_of(self.task)(self.features, targets=self.targets)
        self.assertAlmostEqual(drawn[0].mean(), 0.5, delta=0.03)
        self.assertBetween(drawn[0].max(), 0.98, 1 - 1e-9)


class TokenOrderTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.task = adapted(token_order.TokenOrder(seq_length=LENGTH))
        self.features, self.targets = self.task.randomize(rows(), {}, seeds())

    @parameterized.parameters(True, False)
    def test_tokens_change_places_and_labels_lead_back(self, has_frame):
        read = rows() if has_frame else rows_without_frame()
        self.features, self.targets = self.task.randomize(read, {}, seeds())
        before = read["token_ids"].numpy()
        after = self.features["token_ids"].numpy()
        labels, weights = (x.numpy() for x in self.targets["token_order"])
        positions = self.features["positions"].numpy()
        moved = 0
        for row in range(len(before)):
            self.assertEqual(sorted(before[row]), sorted(after[row]))
            chosen = weights[row] > 0
            places, now_at = positions[row][chosen], labels[row][chosen]
            self.assertEqual(sorted(places), sorted(now_at))
            np.testing.assert_array_equal(
                after[row][now_at], before[row][places]
            )
            others = np.setdiff1d(np.arange(len(before[row])), places)
            np.testing.assert_array_equal(
                before[row][others], after[row][others]
            )
            moved += (places != now_at).sum()
        # Of k tokens in a random order one stays on average.
        expected = (weights.sum(1) - 1).sum()
        self.assertBetween(moved, 0.8 * expected, 1.2 * expected)

    def test_other_steps_shuffle_in_another_way(self):
        again, _ = self.task.randomize(rows(), {}, seeds())
        np.testing.assert_array_equal(
            again["token_ids"], self.features["token_ids"]
        )
        other, _ = self.task.randomize(rows(), {}, seeds(step=1))
        self.assertGreater(
            np.mean(other["token_ids"] != self.features["token_ids"]), 0.05
        )

    def test_padding_is_never_selected(self):
        model = model_of(self.task)
        outputs = model(self.features, targets=self.targets)["token_order"]
        scores = tf.nn.softmax(outputs).numpy()
        padding = self.features["padding_mask"].numpy() == 0
        self.assertEqual(scores.transpose(0, 2, 1)[padding].max(), 0)

    def test_the_loss_and_the_metrics_are_of_the_chosen_tokens(self):
        labels, weights = (x.numpy() for x in self.targets["token_order"])
        self.assertEqual(weights.min(), 0)
        random = np.random.default_rng(0)
        logits = random.normal(size=(*labels.shape, LENGTH))
        outputs = {"token_order": tf.constant(logits, tf.float32)}
        losses = self.task.loss(outputs, self.features, self.targets)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        picked = np.take_along_axis(logits, labels[..., np.newaxis], -1)
        np.testing.assert_allclose(
            losses["token_order"], -(picked[..., 0] * weights).sum(), rtol=1e-4
        )
        sums = self.task.metric_sums(outputs, self.features, self.targets)
        for name, answers in (
            ("token_order_accuracy", logits.argmax(-1)),
            ("unmoved", self.features["positions"].numpy()),
        ):
            right = ((answers == labels) * weights).sum()
            self.assertEqual(
                [float(x) for x in sums[name]], [right, weights.sum()]
            )

    def test_the_head_compares_places_by_dot_products(self):
        model = model_of(self.task)
        outputs = model(self.features, targets=self.targets)["token_order"]
        inputs = {k: self.features[k] for k in model.encoder.config.inputs}
        hidden = model.encoder(**inputs)["hidden"][-1].numpy()
        head = model.head.token_order
        kernel, bias = (w.numpy() for w in head.transform.weights)
        places = self.features["positions"].numpy()
        x = np.take_along_axis(hidden, places[..., np.newaxis], 1)
        x = tf.nn.gelu(x @ kernel + bias).numpy()
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(
            x.var(-1, keepdims=True) + 1e-12
        )
        expected = x @ hidden.transpose(0, 2, 1) / np.sqrt(hidden.shape[-1])
        real = self.features["padding_mask"].numpy()[:, np.newaxis] > 0
        difference = np.where(real, outputs - expected, 0)
        self.assertLess(np.abs(difference).max(), 1e-4)

    def test_answers_are_the_tokens_of_each_place(self):
        model = model_of(self.task)

        class Reverses(token_order.TokenOrder):
            def decode(self, outputs, features):
                count = tf.reduce_sum(features["padding_mask"], 1)[:, None]
                place = tf.range(tf.shape(features["padding_mask"])[1])
                return {
                    "place": tf.maximum(count - 1 - place, 0),
                    "score": tf.ones(tf.shape(features["padding_mask"])),
                }

        model.task = Reverses(
            **{
                field.name: getattr(self.task, field.name)
                for field in dataclasses.fields(self.task)
            }
        )
        asked = predictor.Predictor(model, tiny.tokenizer())
        (answer, empty) = asked.predict(["the film is good", ""])
        self.assertEqual(answer["token"], ["good", "is", "film", "the"])
        self.assertEqual(answer["place"], [3, 2, 1, 0])
        self.assertEqual(empty["place"], [])


class SeedsTest(parameterized.TestCase):
    @parameterized.parameters(
        replaced_tokens.ReplacedTokens, token_order.TokenOrder
    )
    def test_what_is_chosen_and_what_becomes_of_it_are_independent(self, cls):
        used = []

        def uniform(seeds, count):
            used.append(tuple(seeds.numpy()[0]))
            return uniform_of(seeds, count)

        uniform_of = masking.uniform
        with mock.patch.object(masking, "uniform", uniform):
            adapted(cls(seq_length=LENGTH)).randomize(rows(), {}, seeds())
        self.assertLen({*used}, 2)


class MoreTermsTest(absltest.TestCase):
    def test_boundaries_are_outside_of_the_run(self):
        positions = tf.constant([[2, 3, 6], [1, 2, 3], [4, 0, 0]])
        before, after = heads.span_boundaries(positions, 8)
        np.testing.assert_array_equal(before[0], [1, 1, 5])
        np.testing.assert_array_equal(after[0], [4, 4, 7])
        np.testing.assert_array_equal(before[1], [0, 0, 0])
        np.testing.assert_array_equal(after[1], [4, 4, 4])
        self.assertEqual((int(before[2, 0]), int(after[2, 0])), (3, 5))

    def test_a_span_is_read_from_its_boundaries_alone(self):
        config = tiny.bert()
        head = heads.SpanBoundaryHead(config)
        head.build()
        random = np.random.default_rng(0)
        hidden = random.normal(size=(1, 10, 16)).astype("float32")
        table = random.normal(size=(config.vocab_size, 16)).astype("float32")
        positions = tf.constant([[3, 4, 5, 0]])
        first = head(hidden, positions, table).numpy()
        changed = hidden.copy()
        changed[:, [1, 3, 4, 5, 7]] += 1
        second = head(changed, positions, table).numpy()
        np.testing.assert_array_equal(first[:, :3], second[:, :3])
        for place in (2, 6):
            changed = hidden.copy()
            changed[:, place] += 1
            other = head(changed, positions, table).numpy()
            self.assertGreater(
                np.abs(first - other)[:, :3].min(axis=-1).max(), 0
            )
        # The place in the span counts.
        self.assertGreater(np.abs(first[0, 0] - first[0, 1]).max(), 1e-4)

    def test_the_boundary_head_is_the_papers_equation(self):
        config = tiny.bert()
        head = heads.SpanBoundaryHead(config)
        head.build()
        random = np.random.default_rng(1)
        for variable in head.trainable_variables:
            variable.assign(random.normal(size=variable.shape) * 0.5)
        hidden = random.normal(size=(1, 10, 16)).astype("float32")
        table = random.normal(size=(config.vocab_size, 16)).astype("float32")
        logits = head(hidden, tf.constant([[3, 4, 5]]), table).numpy()
        w = {v.path.split("/", 1)[1]: v.numpy() for v in head.weights}

        def layer(x, dense, norm):
            x = x @ w[f"{dense}/kernel"] + w[f"{dense}/bias"]
            x = tf.nn.gelu(x).numpy()
            x = (x - x.mean()) / np.sqrt(x.var() + 1e-12)
            return x * w[f"{norm}/gamma"] + w[f"{norm}/beta"]

        for number, place in enumerate((0, 1, 2)):
            x = np.concatenate([hidden[0, 2], hidden[0, 6], w["place"][place]])
            x = layer(x, "inner", "inner_norm")
            x = layer(x, "transform", "norm")
            np.testing.assert_allclose(
                logits[0, number], table @ x + w["bias"], rtol=1e-3, atol=1e-3
            )

    def test_detection_asks_every_token_of_the_text(self):
        task = adapted(masked_lm.MaskedLM(objective="none", detect_masked=True))
        features, targets = task.randomize(rows(), {}, seeds())
        labels, weights = (x.numpy() for x in targets["is_chosen"])
        original = rows()["token_ids"].numpy()
        np.testing.assert_array_equal(weights > 0, original > 4)
        _, masks = targets["masked_lm"]
        self.assertEqual(labels.sum(), masks.numpy().sum())
        changed = features["token_ids"].numpy() != original
        self.assertTrue((labels[changed] == 1).all())
        # A tenth of the chosen tokens stay, and have to be told, too.
        stays = (labels == 1) & ~changed
        self.assertBetween(stays.sum() / labels.sum(), 0.07, 0.15)

    def test_auxiliary_heads_are_not_served(self):
        task = adapted(
            masked_lm.MaskedLM(
                objective="none", span_boundary=True, detect_masked=True
            )
        )
        self.assertEqual(
            set(task.head_signatures),
            {"masked_lm", "span_boundary", "is_chosen"},
        )
        self.assertEqual(set(task.for_serving().head_signatures), {"masked_lm"})
        self.assertEqual(
            task.metric_names, ("masked_lm_accuracy", "loss/masked_lm")
        )
        self.assertNotIn("span_boundary", masked_lm.MaskedLM().to_dict())


if __name__ == "__main__":
    absltest.main()
