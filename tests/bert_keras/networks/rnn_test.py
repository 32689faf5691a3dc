"""Recurrent networks: what each state depends on, in every way to run them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, kv_cache, layers, named_networks
from bert_keras.networks import base, bert, rnn
from tests import recurrent_reference, tiny

NETWORKS = {
    "lstm": {"bidirectional": False},
    "bilstm": {},
    "gru": {"cell": "gru", "bidirectional": False},
    "bigru": {"cell": "gru"},
}
LENGTH = 12


def encoder(name="bilstm", seed=1, **changes):
    keras.utils.set_random_seed(seed)
    built = tiny.rnn(**(NETWORKS[name] | changes)).build_encoder()
    for variable in built.trainable_variables:  # biases that are not 0
        variable.assign(variable + keras.random.normal(variable.shape) * 0.4)
    return built


def inputs(**options):
    values = tiny.inputs(**({"length": LENGTH} | options))
    return {name: values[name] for name in tiny.rnn().inputs}


def hidden(built, **features):
    return [x.numpy() for x in built(**features)["hidden"]]


class RnnTest(parameterized.TestCase):
    @parameterized.parameters(*NETWORKS)
    def test_is_a_stack_of_keras_layers(self, name):
        built = encoder(name)
        features = inputs()
        mask = features["padding_mask"]
        real = tf.cast(mask, tf.float32)[..., tf.newaxis]
        x = tf.gather(built.embeddings.table, features["token_ids"]) * real
        expected = [x]
        for layer in built.rnn_layers:
            outputs = []
            for direction, ours in enumerate(layer.directions):
                theirs = recurrent_reference.in_keras(
                    ours, 16, go_backwards=direction == 1
                )
                output, *_ = theirs(x, mask=mask > 0)
                if direction:  # in the order in which it read
                    output = output[:, ::-1]
                outputs.append(output * real)
            x = tf.concat(outputs, axis=-1)
            expected.append(x)
        actual = hidden(built, **features)
        for one, other in zip(actual, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-6)
        self.assertGreater(np.abs(actual[-1]).max(), 0.3)

    @parameterized.parameters(*NETWORKS)
    def test_padding_changes_nothing(self, name):
        built = encoder(name)
        features = inputs()
        narrow = built(**features)
        ids = tf.where(features["padding_mask"] > 0, features["token_ids"], 7)
        wide = built(
            token_ids=tf.pad(ids, [[0, 0], [0, 5]], constant_values=9),
            padding_mask=tf.pad(features["padding_mask"], [[0, 0], [0, 5]]),
        )
        real = features["padding_mask"].numpy() > 0
        for one, other in zip(narrow["hidden"], wide["hidden"], strict=True):
            np.testing.assert_allclose(one, other[:, :LENGTH], atol=1e-6)
            np.testing.assert_array_equal(other[:, LENGTH:], 0)
            np.testing.assert_array_equal(one.numpy()[~real], 0)
        np.testing.assert_allclose(narrow["pooled"], wide["pooled"], atol=1e-6)

    @parameterized.parameters(*NETWORKS)
    def test_a_row_does_not_depend_on_its_batch(self, name):
        built = encoder(name)
        features = inputs()
        together = hidden(built, **features)
        for row in range(4):
            alone = hidden(
                built, **{k: x[row : row + 1] for k, x in features.items()}
            )
            for one, other in zip(alone, together, strict=True):
                np.testing.assert_allclose(one[0], other[row], atol=1e-6)

    @parameterized.parameters(*NETWORKS)
    def test_an_empty_row_is_zeros(self, name):
        features = {k: tf.zeros_like(x[:2]) for k, x in inputs().items()}
        outputs = encoder(name)(**features)
        for x in (*outputs["hidden"], outputs["pooled"]):
            np.testing.assert_array_equal(x, 0)

    @parameterized.parameters(*NETWORKS)
    def test_an_empty_batch(self, name):
        features = {k: x[:0] for k, x in inputs().items()}
        self.assertEqual(encoder(name)(**features)["pooled"].shape, (0, 16))

    @parameterized.product(
        name=tuple(NETWORKS),
        mask=([1] * 5 + [2] * 4 + [0] * 3, [1] + [2] * 6 + [3] * 5),
    )
    def test_packed_texts_do_not_influence_each_other(self, name, mask):
        built = encoder(name)
        ids = inputs()["token_ids"][:1]
        packed = hidden(built, token_ids=ids, padding_mask=np.array([mask]))
        for number in set(mask) - {0}:
            (where,) = np.nonzero(np.array(mask) == number)
            text = slice(where[0], where[-1] + 1)
            alone = hidden(
                built,
                token_ids=ids[:, text],
                padding_mask=np.ones((1, len(where)), np.int32),
            )
            for one, other in zip(alone, packed, strict=True):
                np.testing.assert_allclose(one, other[:, text], atol=1e-6)

    @parameterized.parameters(*NETWORKS)
    def test_what_a_token_changes(self, name):
        """The embedding itself; the states after it; in layer 2 all states."""
        built = encoder(name)
        ids = inputs()["token_ids"][:1].numpy()
        mask = np.ones((1, LENGTH), np.int32)
        before = hidden(built, token_ids=ids, padding_mask=mask)
        ids[0, 5] = 5 if ids[0, 5] != 5 else 6
        after = hidden(built, token_ids=ids, padding_mask=mask)
        units = built.config.units
        changed = [
            np.abs(one - other)[0].reshape(LENGTH, -1, units).max(-1) > 1e-7
            for one, other in zip(before, after, strict=True)
        ]
        at = np.arange(LENGTH)
        for each in changed[0].T:
            np.testing.assert_array_equal(each, at == 5)
        if built.config.causal:
            for layer in changed[1:]:
                np.testing.assert_array_equal(layer[:, 0], at >= 5)
        else:
            np.testing.assert_array_equal(changed[1].T, [at >= 5, at <= 5])
            self.assertTrue(changed[2].all())

    @parameterized.parameters(*NETWORKS)
    def test_the_pooled_states_have_read_the_row(self, name):
        built = encoder(name)
        features = inputs()
        outputs = built(**features)
        units = built.config.units
        for row, length in enumerate(features["padding_mask"].numpy().sum(1)):
            states = outputs["hidden"][-1].numpy()[row]
            expected = [states[length - 1, :units], states[0, units:]]
            np.testing.assert_array_equal(
                outputs["pooled"][row], np.concatenate(expected)
            )

    @parameterized.product(name=tuple(NETWORKS), xla=(True, False))
    @pytest.mark.slow_after(3)
    def test_graphs_of_any_length_give_the_same(self, name, xla):
        built, features = encoder(name), inputs()
        expected = built(**features)
        specs = {
            k: tf.TensorSpec(x.shape if xla else (None, None), tf.int32)
            for k, x in features.items()
        }
        graph = tf.function(
            lambda **values: built(**values), jit_compile=xla
        ).get_concrete_function(**specs)
        for one, other in zip(
            tf.nest.flatten(graph(**features)),
            tf.nest.flatten(expected),
            strict=True,
        ):
            np.testing.assert_allclose(one, other, atol=1e-5)

    @parameterized.parameters(*NETWORKS)
    def test_each_variable_has_a_gradient(self, name):
        built = encoder(name)
        with tf.GradientTape() as tape:
            outputs = built(**inputs(), training=True)
            loss = tf.reduce_sum(outputs["hidden"][-1] ** 2)
        for variable, gradient in zip(
            built.trainable_variables,
            tape.gradient(loss, [v.value for v in built.trainable_variables]),
            strict=True,
        ):
            gradient = tf.convert_to_tensor(gradient)
            self.assertGreater(np.abs(gradient).max(), 1e-4, variable.path)

    def test_dropout_is_of_each_layers_input_in_training_only(self):
        built = encoder(dropout=0.5)
        features = inputs(length=100)
        plain = hidden(built, **features)
        one, two = (built(**features, training=True)["hidden"] for _ in "ab")
        np.testing.assert_array_equal(one[0], plain[0])
        self.assertGreater(np.abs(one[1] - two[1]).max(), 1e-2)
        # The last output is not dropped: its head does that.
        real = features["padding_mask"].numpy() > 0
        self.assertLess(np.mean(one[-1].numpy()[real] == 0), 0.01)

    def test_dropout_is_between_layers_too(self):
        built = encoder(dropout=0.5)
        features = inputs(length=100)
        layer, seen = built.rnn_layers[1], []
        call = layer.call

        def spy(x, *args, **options):
            seen.append(x)
            return call(x, *args, **options)

        layer.call = spy
        built(**features, training=True)
        real = features["padding_mask"].numpy() > 0
        self.assertBetween(np.mean(seen[0].numpy()[real] == 0), 0.45, 0.55)

    @parameterized.product(
        name=("bilstm", "gru"),
        policy=("mixed_bfloat16", "bfloat16", "mixed_float16"),
    )
    def test_computes_in_16_bits(self, name, policy):
        wide = encoder(name)
        with layers.global_policy(policy):
            narrow = encoder(name)
        for variable, other in zip(
            narrow.variables, wide.variables, strict=True
        ):
            variable.assign(tf.cast(other, variable.dtype))
        self.assertEqual(narrow.embeddings.table.dtype, "float32")
        for training in (False, True):
            narrow.dropout.rate = 0.0
            outputs = narrow(**inputs(), training=training)
            for x in (*outputs["hidden"], outputs["pooled"]):
                self.assertEqual(x.dtype, policy.removeprefix("mixed_"))
            np.testing.assert_allclose(
                tf.cast(outputs["hidden"][-1], "float32"),
                wide(**inputs())["hidden"][-1],
                atol=0.05,
            )

    def test_float64_is_refused(self):
        with (
            layers.global_policy("float64"),
            self.assertRaisesRegex(errors.InputError, "policy is float64"),
        ):
            tiny.rnn().build_encoder()


class LanguageModelTest(parameterized.TestCase):
    @parameterized.parameters("lstm", "gru")
    def test_steps_give_the_states_of_the_complete_text(self, name):
        built = encoder(name)
        lengths, new = (1, 5, 3, 9), 4
        random = np.random.default_rng(0)
        complete = tf.constant(random.integers(5, 30, (4, 13)), tf.int32)
        want = hidden(
            built, token_ids=complete, padding_mask=tf.ones_like(complete)
        )[-1]
        mask = tf.sequence_mask(lengths, 9, dtype=tf.int32)
        ids, state = kv_cache.read_prompts(
            built,
            token_ids=tf.where(mask > 0, complete[:, :9], 7),
            padding_mask=mask,
            max_new_tokens=new,
        )
        rows = np.arange(4)
        for number in range(new):
            position = np.array(lengths) - 1 + number
            np.testing.assert_array_equal(ids, complete.numpy()[rows, position])
            states, state = kv_cache.step(built, ids, state)
            np.testing.assert_allclose(
                states[:, 0], want[rows, position], atol=1e-6
            )
            ids = tf.gather(complete, position + 1, batch_dims=1)


class ConfigTest(parameterized.TestCase):
    def test_its_fields_and_what_follows_from_them(self):
        one, two = (tiny.rnn(bidirectional=b) for b in (False, True))
        self.assertEqual((one.units, two.units), (16, 8))
        self.assertEqual((one.causal, two.causal), (True, False))
        self.assertEqual(one.embedding_width, 16)
        self.assertIsNone(one.max_length)
        self.assertEqual(
            dict(two.inputs), {"token_ids": (), "padding_mask": ()}
        )
        self.assertEqual(
            two.describe(), "2 bidirectional LSTM layers x 16, vocabulary 36"
        )
        self.assertEqual(
            tiny.rnn(bidirectional=False, cell="gru").describe(),
            "2 GRU layers x 16, vocabulary 36",
        )

    def test_depths(self):
        config = tiny.rnn()
        depths = {
            path.split("/")[0]: config.layer_index(f"encoder/{path}")
            for path in checkpoint.weights(config.build_encoder())
        }
        self.assertEqual(depths, {"embeddings": 0, "layer_0": 1, "layer_1": 2})
        self.assertEqual(config.layer_index("head/label/score/kernel"), 3)
        self.assertEqual(config.layer_index("head/layer_0/kernel"), 3)

    def test_paths_of_the_weights(self):
        shapes = {
            path: tuple(variable.shape)
            for path, variable in checkpoint.weights(
                tiny.rnn(num_layers=1, cell="gru").build_encoder()
            ).items()
        }
        expected = {"embeddings/token": (36, 16)}
        for direction in ("forward", "backward"):
            expected |= {
                f"layer_0/{direction}/kernel": (16, 24),
                f"layer_0/{direction}/recurrent_kernel": (8, 24),
                f"layer_0/{direction}/bias": (24,),
                f"layer_0/{direction}/recurrent_bias": (8,),
            }
        self.assertEqual(shapes, expected)

    def test_the_token_table_is_that_of_the_embeddings(self):
        built = encoder()
        np.testing.assert_array_equal(built.token_table, built.embeddings.table)

    def test_its_config_is_saved(self):
        config = tiny.rnn(cell="gru", dropout=0.25)
        self.assertEqual(base.from_dict(config.to_dict()), config)
        built = config.build_encoder()
        built.embeddings.trainable = False
        again = rnn.RnnEncoder.from_config(built.get_config())
        self.assertEqual(again.config, config)
        self.assertFalse(again.embeddings.trainable)
        self.assertTrue(again.rnn_layers[0].trainable)

    @parameterized.parameters(
        ({"hidden_size": 15}, "15, which two directions share; expected an"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"num_layers": 10**6}, "at most 1,000"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"initializer_range": -1.0}, "initializer_range -1.0"),
        ({"layer_norm_epsilon": 0.0}, "layer_norm_epsilon is 0.0"),
        ({"cell": "rnn"}, "one of lstm, gru; got 'rnn'"),
    )
    def test_impossible_shapes_are_refused(self, changes, message):
        with self.assertRaisesRegex(errors.InputError, message):
            tiny.rnn(**changes)
        tiny.rnn(hidden_size=15, bidirectional=False)

    @parameterized.parameters(*NETWORKS)
    def test_saved_shapes_are_compared(self, name):
        config = tiny.rnn(**NETWORKS[name])
        shapes = {
            path: tuple(variable.shape)
            for path, variable in checkpoint.weights(
                config.build_encoder()
            ).items()
        }
        config.check_shapes(shapes)
        for changes in (
            {"num_layers": 3},
            {"num_layers": 1},
            {"hidden_size": 1 << 20},
            {"vocab_size": 1 << 20},
            {"cell": "gru" if config.cell == "lstm" else "lstm"},
            {"bidirectional": not config.bidirectional},
        ):
            other = tiny.rnn(**(NETWORKS[name] | changes))
            with self.assertRaisesRegex(errors.InputError, "does not fit"):
                other.check_shapes(shapes)

    @parameterized.parameters(*rnn.SIZES)
    def test_sizes_have_names(self, name):
        config = named_networks.parse(name, vocab_size=7)
        width, layers_ = config.hidden_size, config.num_layers
        self.assertEqual((layers_, config.vocab_size), (2, 7))
        self.assertEqual(width, 512 if "small" in name else 256)
        self.assertEqual(config.bidirectional, name.startswith("bi"))
        self.assertEqual(config.cell, "gru" if "gru" in name else "lstm")
        gates = 3 if "gru" in name else 4
        units = width // len(config.directions)
        parameters = gates * units * (width + units + 1)
        parameters += units * ("gru" in name)
        self.assertEqual(
            config.build_encoder().count_params(),
            7 * width + layers_ * len(config.directions) * parameters,
        )
        self.assertEqual(named_networks.parse(name).vocab_size, 30522)


class TransformerTest(absltest.TestCase):
    """The encoder of Vaswani et al. 2017, a value of BertConfig."""

    def test_base_has_the_papers_shape(self):
        config = named_networks.parse("transformer_base", vocab_size=11)
        self.assertEqual(
            (
                config.num_layers,
                config.hidden_size,
                config.num_heads,
                config.intermediate_size,
            ),
            (6, 512, 8, 2048),
        )
        # Table 3, section 3 and 5.4.
        self.assertEqual(config.activation, "relu")
        self.assertEqual((config.dropout, config.attention_dropout), (0.1, 0.0))
        self.assertIsNone(config.max_length)
        self.assertFalse(config.causal or config.norm_first or config.pooler)
        self.assertAlmostEqual(config.initializer_range, 512**-0.5)
        self.assertEqual(set(config.inputs), {"token_ids", "padding_mask"})

    def test_its_embeddings_are_the_sum_of_two(self):
        config = named_networks.parse("transformer_mini", vocab_size=50)
        self.assertEqual((config.num_layers, config.hidden_size), (4, 256))
        built = config.build_encoder()
        features = inputs()
        expected = tf.gather(built.token_table, features["token_ids"])
        expected += layers.sinusoids(np.arange(float(LENGTH)), 256)
        expected += built.embeddings.segment_table[0]
        np.testing.assert_allclose(
            built(**features)["hidden"][0], expected, atol=1e-6
        )

    def test_the_names_are_those_of_bert(self):
        self.assertContainsSubset(bert.TRANSFORMER_SIZES, named_networks.NAMES)


if __name__ == "__main__":
    absltest.main()
