"""Attention with any score: each formula, and what a weight depends on."""

import warnings

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import attention_scores, checkpoint, errors
from tests import tiny

BATCH, TARGET, SOURCE, WIDTH = 3, 4, 6, 5
# The width of the queries, if they are not those of the states; A.
OTHER, HIDDEN = 7, 8


def attention(score, *, query_width=None):
    """Returns an Attention with large weights, so that scores differ."""
    layer = attention_scores.Attention(
        tiny.bert(),
        score=score,
        query_width=query_width or WIDTH,
        state_width=WIDTH,
        attention_width=HIDDEN,
        name="attention",
    )
    layer.build()
    random = np.random.default_rng(0)
    for variable in layer.weights:
        variable.assign(random.normal(size=variable.shape))
    return layer


def inputs(query_width=WIDTH):
    """Random queries and states; row r has r trailing padding positions."""
    random = np.random.default_rng(1)
    query = random.normal(size=(BATCH, TARGET, query_width))
    states = random.normal(size=(BATCH, SOURCE, WIDTH))
    mask = np.arange(SOURCE) < SOURCE - np.arange(BATCH)[:, None]
    return (
        tf.constant(query, tf.float32),
        tf.constant(states, tf.float32),
        tf.constant(mask, tf.int32),
    )


def published_scores(score, weights, query, states):
    """The score of each query and state, one by one, in float64."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    formulas = {
        "dot": lambda q, h: q @ h,
        "scaled_dot": lambda q, h: q @ h / np.sqrt(len(h)),
        "general": lambda q, h: q @ (w["score/kernel"].T @ h),
        "additive": lambda q, h: (
            w["score/vector"]
            @ np.tanh(
                w["score/query_kernel"].T @ q + w["score/state_kernel"].T @ h
            )
        ),
        "concat": lambda q, h: (
            w["score/vector"]
            @ np.tanh(w["score/kernel"].T @ np.concatenate([q, h]))
        ),
    }
    return np.array(
        [
            [[formulas[score](q, h) for h in row] for q in queries]
            for queries, row in zip(query, states, strict=True)
        ]
    )


def each_score(*, unequal_widths=True):
    """Parameters: a score's name and the width of the queries."""
    for score in attention_scores.SCORES:
        yield score, WIDTH
        if unequal_widths and not score.endswith("dot"):
            yield score, OTHER


class AttentionTest(parameterized.TestCase):
    @parameterized.parameters(*each_score())
    def test_is_its_formula(self, score, query_width):
        layer = attention(score, query_width=query_width)
        query, states, mask = inputs(query_width)
        context, weights = layer(query, states, mask)
        states = states.numpy().astype(np.float64)
        scores = published_scores(
            score,
            checkpoint.weight_values(layer),
            query.numpy().astype(np.float64),
            states,
        )
        expected = np.exp(scores) * mask.numpy()[:, np.newaxis]
        expected /= expected.sum(-1, keepdims=True)
        self.assertEqual(weights.dtype, tf.float32)
        np.testing.assert_allclose(weights, expected, atol=1e-6)
        np.testing.assert_allclose(context, expected @ states, atol=1e-6)
        self.assertGreater(np.ptp(expected[0]), 0.2)  # no uniform weights

    @parameterized.parameters(*each_score())
    def test_keys_can_be_computed_before(self, score, query_width):
        layer = attention(score, query_width=query_width)
        query, states, mask = inputs(query_width)
        keys = layer.project(states)
        for value, expected in zip(
            layer(query, states, mask, keys=keys),
            layer(query, states, mask),
            strict=True,
        ):
            np.testing.assert_array_equal(value, expected)
        # A decoder's steps: one query at a time.
        for step in range(TARGET):
            one = layer(query[:, step : step + 1], states, mask, keys=keys)
            for value, expected in zip(
                one, layer(query, states, mask), strict=True
            ):
                np.testing.assert_allclose(
                    value[:, 0], expected[:, step], atol=1e-6
                )
        # They are what is read.
        _, weights = layer(query, states, mask, keys=tf.zeros_like(keys))
        self.assertGreater(
            np.abs(weights - layer(query, states, mask)[1]).max(), 1e-3
        )

    @parameterized.parameters(*attention_scores.SCORES)
    def test_permuted_states_have_permuted_weights(self, score):
        layer = attention(score)
        query, states, mask = inputs()
        order = np.random.default_rng(2).permutation(SOURCE)
        context, weights = layer(query, states, mask)
        other_context, other = layer(
            query, tf.gather(states, order, axis=1), mask.numpy()[:, order]
        )
        np.testing.assert_allclose(
            other, weights.numpy()[..., order], atol=1e-6
        )
        np.testing.assert_allclose(other_context, context, atol=2e-6)

    @parameterized.parameters(*attention_scores.SCORES)
    def test_padding_changes_nothing(self, score):
        layer = attention(score)
        query, states, mask = inputs()
        real = mask.numpy()[..., np.newaxis] > 0
        context, weights = layer(query, states, mask)
        np.testing.assert_array_equal(
            weights.numpy()[
                ~np.broadcast_to(real[:, None, :, 0], weights.shape)
            ],
            0,
        )
        for padding in (100.0, -100.0):
            changed = layer(query, tf.where(real, states, padding), mask)
            np.testing.assert_array_equal(changed[0], context)
            np.testing.assert_array_equal(changed[1], weights)
        wider = layer(
            query,
            tf.pad(states, [[0, 0], [0, 3], [0, 0]]),
            tf.pad(mask, [[0, 0], [0, 3]]),
        )
        np.testing.assert_allclose(wider[0], context, atol=1e-6)

    @parameterized.parameters(*attention_scores.SCORES)
    def test_what_attends_to_nothing_is_uniform(self, score):
        layer = attention(score)
        query, states, mask = inputs()
        context, weights = layer(100 * query, states, tf.zeros_like(mask))
        np.testing.assert_allclose(weights, 1 / SOURCE, atol=1e-7)
        self.assertTrue(np.isfinite(context).all())

    @parameterized.parameters(tf.bool, tf.int32, tf.float32)
    def test_masks_of_any_dtype(self, dtype):
        layer = attention("dot")
        query, states, mask = inputs()
        np.testing.assert_array_equal(
            layer(query, states, tf.cast(mask, dtype))[1],
            layer(query, states, mask)[1],
        )

    def test_masks_are_passed_without_a_warning(self):
        query, states, mask = inputs()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            context, _ = attention("dot")(query, states, mask=mask)
        self.assertFalse(hasattr(context, "_keras_mask"))

    def test_packed_texts_are_all_attended_to(self):
        layer = attention("dot")
        query, states, mask = inputs()
        np.testing.assert_array_equal(
            layer(query, states, 2 * mask)[1], layer(query, states, mask)[1]
        )

    @parameterized.parameters(*attention_scores.SCORES)
    def test_gradients_are_finite(self, score):
        layer = attention(score)
        query, states, mask = inputs()
        mask = mask * [[1], [1], [0]]  # the last row attends to nothing
        with tf.GradientTape() as tape:
            tape.watch([query, states])
            context, weights = layer(query, states, mask)
            total = tf.reduce_sum(context**2) + tf.reduce_sum(weights**2)
        for gradient in tape.gradient(
            total, [query, states, *layer.trainable_variables]
        ):
            self.assertTrue(np.isfinite(gradient).all())
            self.assertGreater(np.abs(gradient).max(), 1e-3)

    @parameterized.parameters(*attention_scores.SCORES)
    def test_graphs_of_any_length_and_xla_give_the_same(self, score):
        layer = attention(score)
        values = inputs()
        expected = layer(*values)
        any_length = tf.function(
            lambda *values: layer(*values),
            input_signature=[
                tf.TensorSpec((None, None, *x.shape[2:]), x.dtype)
                for x in values
            ],
        )
        xla = tf.function(lambda *values: layer(*values), jit_compile=True)
        for graph in (any_length, xla):
            for value, other in zip(graph(*values), expected, strict=True):
                np.testing.assert_allclose(value, other, atol=2e-6)

    @parameterized.product(
        score=attention_scores.SCORES,
        policy=("mixed_bfloat16", "bfloat16", "mixed_float16"),
    )
    def test_computes_in_16_bits(self, score, policy):
        expected = attention(score)(*inputs())
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        self.addCleanup(keras.config.set_dtype_policy, before)
        narrow = attention(score)
        query, states, mask = inputs()
        for keys in (None, narrow.project(states)):
            context, weights = narrow(query, states, mask, keys=keys)
            self.assertEqual(context.dtype, policy.removeprefix("mixed_"))
            self.assertEqual(weights.dtype, tf.float32)
            np.testing.assert_allclose(tf.reduce_sum(weights, -1), 1, atol=1e-6)
            np.testing.assert_allclose(
                tf.cast(context, "float32"), expected[0], atol=0.1
            )

    @parameterized.parameters(
        ("dot", {}),
        ("scaled_dot", {}),
        ("general", {"score/kernel": (WIDTH, OTHER)}),
        (
            "additive",
            {
                "score/query_kernel": (OTHER, HIDDEN),
                "score/state_kernel": (WIDTH, HIDDEN),
                "score/vector": (HIDDEN,),
            },
        ),
        (
            "concat",
            {
                "score/kernel": (OTHER + WIDTH, HIDDEN),
                "score/vector": (HIDDEN,),
            },
        ),
    )
    def test_paths_and_shapes_of_the_weights(self, score, expected):
        layer = attention(score, query_width=OTHER if expected else None)
        shapes = {
            path: tuple(variable.shape)
            for path, variable in checkpoint.weights(layer).items()
        }
        self.assertEqual(shapes, expected)

    def test_widths_are_hidden_size(self):
        layer = attention_scores.Attention(tiny.bert(), score="additive")
        layer.build()
        self.assertEqual(
            [tuple(weight.shape) for weight in layer.weights],
            [(16, 16), (16, 16), (16,)],
        )

    def test_weights_start_small(self):
        keras.utils.set_random_seed(1)
        config = tiny.bert(hidden_size=64, initializer_range=0.05)
        layer = attention_scores.Attention(config, score="additive")
        layer.build()
        for weight in layer.weights:
            self.assertBetween(np.std(weight), 0.03, 0.06)

    def test_perceptron_is_additive(self):
        layer = attention("perceptron")
        self.assertEqual(layer.score_name, "additive")
        np.testing.assert_array_equal(
            layer(*inputs())[1], attention("additive")(*inputs())[1]
        )

    def test_unknown_scores_are_refused(self):
        for name in ("cosine", "Dot", ""):
            with self.assertRaisesRegex(
                errors.InputError,
                "one of dot, scaled_dot, general, additive, concat, "
                f"perceptron; got '{name}'",
            ):
                attention(name)

    @parameterized.parameters("dot", "scaled_dot")
    def test_dot_products_need_equal_widths(self, score):
        with self.assertRaisesRegex(
            errors.InputError,
            "the width 7 and the states 5.*choose score=general, additive or",
        ):
            attention(score, query_width=OTHER)


if __name__ == "__main__":
    absltest.main()
