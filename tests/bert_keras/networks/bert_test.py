import itertools
import os
import tempfile

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors
from bert_keras import model as model_lib
from bert_keras.formats import keras_hub
from bert_keras.networks import bert as bert_lib
from tests import tiny

# Published counts, pooler included (KerasHub's presets; Turc et al. 2019 for
# mini, whose 11.2 M they give rounded).
PARAMETERS = {
    "tiny": 4_385_920,
    "mini": 11_170_560,
    "small": 28_763_648,
    "medium": 41_373_184,
    "base": 109_482_240,
    "large": 335_141_888,
}


def gpt(weights, token_ids):
    """GPT's decoder for one text (S,) -> (S, H), with heads of width 8."""
    weights = {name: np.float64(value) for name, value in weights.items()}

    def dense(x, name):
        return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        return x * weights[f"{name}/gamma"] + weights[f"{name}/beta"]

    length = len(token_ids)
    x = weights["embeddings/token"][token_ids]
    x = x + weights["embeddings/position"][:length]
    for block in ("block_0", "block_1"):
        heads = []
        for head in range(2):
            query, key, value = (
                part[:, 8 * head : 8 * head + 8]
                for part in np.split(dense(x, f"{block}/attention/qkv"), 3, -1)
            )
            scores = np.exp(query @ key.T / np.sqrt(8)) * np.tri(length)
            heads.append(scores / scores.sum(-1, keepdims=True) @ value)
        attended = dense(np.concatenate(heads, -1), f"{block}/attention/out")
        x = norm(x + attended, f"{block}/attention_norm")
        inner = dense(x, f"{block}/feed_forward/inner")
        cubic = np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)
        inner = inner * (1 + np.tanh(cubic)) / 2
        outer = dense(inner, f"{block}/feed_forward/outer")
        x = norm(x + outer, f"{block}/feed_forward_norm")
    return x


def encode(network, inputs, **options):
    return network(**inputs, **options)


class ConfigTest(parameterized.TestCase):
    @parameterized.parameters(*PARAMETERS)
    def test_published_sizes_have_their_parameters(self, name):
        bert = bert_lib.named(name)
        hidden_size, inner = bert.hidden_size, bert.intermediate_size
        layer = (
            4 * hidden_size**2
            + 2 * hidden_size * inner
            + 9 * hidden_size
            + inner
        )
        rows = bert.vocab_size + 512 + 2
        pooler = hidden_size**2 + hidden_size
        count = (
            rows * hidden_size
            + 2 * hidden_size
            + bert.num_layers * layer
            + pooler
        )
        self.assertEqual(count, PARAMETERS[name])
        if name in ("tiny", "mini"):
            self.assertEqual(
                bert_lib.BertEncoder(bert).count_params(), PARAMETERS[name]
            )

    @parameterized.parameters(("albert_base", 768), ("albert_mini", 256))
    def test_an_albert_has_the_parameters_of_one_layer(self, name, hidden):
        """12 million in Lan et al. 2020, table 1, for the base model."""
        config = bert_lib.named(name, vocab_size=30000)
        layer = 12 * hidden**2 + 13 * hidden
        embeddings = (30000 + 512 + 2 + 2) * 128 + 129 * hidden
        pooler = hidden**2 + hidden
        count = bert_lib.BertEncoder(config).count_params()
        self.assertEqual(count, embeddings + layer + pooler)
        if name == "albert_base":
            self.assertEqual(round(count / 1e6), 12)

    def test_json_form_is_the_same_config(self):
        bert = tiny.bert(num_hidden_groups=1, causal=True)
        self.assertEqual(bert_lib.BertConfig.from_dict(bert.to_dict()), bert)

    @parameterized.parameters(
        ({"num_heads": 3}, "multiple of num_heads"),
        ({"activation": "swish"}, "activation must be one of"),
        ({"num_hidden_groups": 9}, "must be in 1..2"),
        ({"layer_norm_epsilon": 0.0}, "layer_norm_epsilon"),
        ({"initializer_range": -0.1}, "initializer_range"),
    )
    def test_impossible_values_are_named(self, changes, message):
        with self.assertRaisesRegex(ValueError, message):
            tiny.bert(**changes)

    @parameterized.parameters(
        {"num_task_types": -1},
        {"num_task_types": 2, "task_type": 2},
        {"num_task_types": 2, "task_type": -1},
        {"task_type": 1},
    )
    def test_a_task_type_is_one_of_those_of_the_table(self, **fields):
        with self.assertRaisesRegex(
            ValueError, "num_task_types is .*task_type"
        ):
            tiny.bert(**fields)

    def test_files_have_only_the_later_fields_that_are_used(self):
        later = {
            "embedding_sum": False,
            "shared_query_key": True,
            "num_hidden_groups": 1,
            "shared_sublayers": "attention",
            "num_task_types": 3,
            "task_type": 2,
        }
        self.assertEqual(
            tiny.bert().to_dict().keys() & later.keys(), {"num_hidden_groups"}
        )
        bert = tiny.bert(**later)
        self.assertEqual(bert.to_dict() | later, bert.to_dict())
        self.assertEqual(bert_lib.BertConfig.from_dict(bert.to_dict()), bert)

    def test_weights_may_start_at_0(self):
        self.assertEqual(tiny.bert(initializer_range=0.0).initializer_range, 0)

    def test_unknown_and_missing_fields_are_named(self):
        with self.assertRaisesRegex(ValueError, "heads.*missing.*hidden_size"):
            bert_lib.BertConfig.from_dict({"vocab_size": 5, "heads": 2})


class EncoderTest(parameterized.TestCase):
    def test_shapes(self):
        encoded = encode(
            bert_lib.BertEncoder(tiny.bert()), tiny.inputs(), attentions=True
        )
        self.assertLen(encoded["hidden"], 3)
        self.assertEqual(encoded["hidden"][-1].shape, (4, 12, 16))
        self.assertEqual(encoded["pooled"].shape, (4, 16))
        self.assertLen(encoded["attentions"], 2)
        self.assertEqual(encoded["attentions"][0].shape, (4, 2, 12, 12))

    def test_a_network_with_norms_first_normalizes_its_last_layer_alone(self):
        encoder = bert_lib.BertEncoder(tiny.bert(norm_first=True))
        inputs = tiny.inputs()
        hidden = encoder(**inputs)["hidden"]
        x, mask = encoder.start(**inputs)
        for block, expected in zip(encoder.blocks, hidden[:-1], strict=True):
            np.testing.assert_allclose(x, expected, atol=1e-6)
            x = block(x, mask)
        np.testing.assert_allclose(encoder.final_norm(x), hidden[-1], atol=1e-6)

    @parameterized.parameters(
        *itertools.product((False, True), ("learned", "sinusoidal"), (None, 8))
    )
    def test_more_padding_changes_nothing(self, norm_first, position, width):
        network = bert_lib.BertEncoder(
            tiny.bert(
                norm_first=norm_first, position=position, embedding_size=width
            )
        )
        inputs = tiny.inputs()
        longer = {k: tf.pad(v, [[0, 0], [0, 9]]) for k, v in inputs.items()}
        one, two = encode(network, inputs), encode(network, longer)
        np.testing.assert_allclose(one["pooled"], two["pooled"], atol=1e-5)
        real = inputs["padding_mask"].numpy() > 0
        np.testing.assert_allclose(
            one["hidden"][-1].numpy()[real],
            two["hidden"][-1].numpy()[:, :12][real],
            atol=1e-5,
        )

    def test_a_row_of_padding_is_finite(self):
        inputs = {k: tf.zeros_like(v) for k, v in tiny.inputs().items()}
        encoded = encode(bert_lib.BertEncoder(tiny.bert()), inputs)
        self.assertTrue(np.isfinite(encoded["pooled"]).all())

    @parameterized.parameters(False, True)
    def test_a_later_token_changes_earlier_ones_unless_causal(self, causal):
        network = bert_lib.BertEncoder(tiny.bert(causal=causal))
        inputs = tiny.inputs(rows=1)
        other = inputs | {
            "token_ids": tf.concat([inputs["token_ids"][:, :-1], [[7]]], axis=1)
        }
        inputs["token_ids"] = tf.concat(
            [inputs["token_ids"][:, :-1], [[9]]], axis=1
        )
        one = encode(network, inputs)["hidden"][-1][:, :-1]
        two = encode(network, other)["hidden"][-1][:, :-1]
        self.assertEqual(np.allclose(one, two, atol=1e-6), causal)

    def test_packed_texts_do_not_see_each_other(self):
        network = bert_lib.BertEncoder(tiny.bert())
        alone = tiny.inputs(rows=1, length=5)
        beside = tiny.inputs(rows=1, length=7, seed=3)
        packed = {
            name: tf.concat([alone[name], beside[name]], axis=1)
            for name in alone
        }
        packed["padding_mask"] = tf.constant([[1] * 5 + [2] * 7])
        position_ids = tf.constant([[*range(5), *range(7)]])
        together = encode(network, packed, position_ids=position_ids)["hidden"][
            -1
        ]
        np.testing.assert_allclose(
            together[:, :5], encode(network, alone)["hidden"][-1], atol=1e-5
        )
        np.testing.assert_allclose(
            together[:, 5:], encode(network, beside)["hidden"][-1], atol=1e-5
        )

    def test_a_shared_block_has_one_block_of_parameters(self):
        one = bert_lib.BertEncoder(tiny.bert(num_layers=1))
        shared = bert_lib.BertEncoder(
            tiny.bert(num_layers=6, num_hidden_groups=1)
        )
        self.assertEqual(one.count_params(), shared.count_params())
        self.assertLen(encode(shared, tiny.inputs())["hidden"], 7)

    def test_groups_stand_for_neighbouring_layers(self):
        bert = tiny.bert(num_layers=6, num_hidden_groups=3)
        self.assertEqual([bert.group(i) for i in range(6)], [0, 0, 1, 1, 2, 2])

    def test_dropout_acts_in_training_only(self):
        network = bert_lib.BertEncoder(tiny.bert(dropout=0.5))
        inputs = tiny.inputs()
        quiet = [encode(network, inputs)["pooled"] for _ in range(2)]
        np.testing.assert_array_equal(*quiet)
        loud = [
            encode(network, inputs, training=True)["pooled"] for _ in range(2)
        ]
        self.assertFalse(np.allclose(*loud))

    def test_bfloat16_agrees_loosely_and_keeps_float32_weights(self):
        network = bert_lib.BertEncoder(tiny.bert())
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            half = bert_lib.BertEncoder(tiny.bert())
        finally:
            keras.config.set_dtype_policy("float32")
        half.set_weights(network.get_weights())
        self.assertEqual({w.dtype for w in half.weights[:20]}, {"float32"})
        np.testing.assert_allclose(
            encode(network, tiny.inputs())["pooled"],
            tf.cast(encode(half, tiny.inputs())["pooled"], tf.float32),
            atol=0.03,
        )

    def test_equals_keras_hub_with_the_same_weights(self):
        import keras_nlp

        network = bert_lib.BertEncoder(tiny.bert(activation="gelu_tanh"))
        random = np.random.default_rng(1)
        for variable in network.trainable_variables:
            variable.assign(random.normal(0, 0.3, variable.shape))
        with tempfile.TemporaryDirectory() as folder:
            keras_hub.write(
                folder, model_lib.BertModel(network, None), tiny.tokenizer()
            )
            reference = keras_nlp.models.BertBackbone.from_preset(folder)
        inputs = tiny.inputs()
        expected = reference(inputs)
        encoded = encode(network, inputs)
        real = inputs["padding_mask"].numpy() > 0
        np.testing.assert_allclose(
            encoded["hidden"][-1].numpy()[real],
            expected["sequence_output"].numpy()[real],
            atol=1e-5,
        )
        np.testing.assert_allclose(
            encoded["pooled"], expected["pooled_output"], atol=1e-5
        )

    def test_call_is_start_blocks_finish(self):
        network = bert_lib.BertEncoder(tiny.bert(norm_first=True))
        inputs = tiny.inputs()
        x, mask = network.start(**inputs)
        hidden = [x]
        for block in network.blocks:
            x = block(x, mask)
            hidden.append(x)
        walked = network.finish(hidden, inputs["padding_mask"])
        called = encode(network, inputs)
        for one, two in zip(walked["hidden"], called["hidden"], strict=True):
            np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(walked["pooled"], called["pooled"])

    def test_every_weight_has_a_depth(self):
        """0: embeddings, 1 to L: blocks, L + 1: what follows, and heads."""
        config = tiny.bert(
            num_layers=6, num_hidden_groups=3, embedding_size=8, norm_first=True
        )
        task = tiny.classifier().task
        model = model_lib.BertModel(config.build_encoder(), task)
        depths = {}
        for variable in model.trainable_variables:
            part = "/".join(variable.path.split("/")[:2])
            depths.setdefault(part, config.layer_index(variable.path))
        self.assertEqual(
            depths,
            {
                "encoder/embeddings": 0,
                "encoder/block_0": 1,
                "encoder/block_1": 3,
                "encoder/block_2": 5,
                "encoder/final_norm": 7,
                "encoder/pooler": 7,
                "head/label": 7,
            },
        )

    def test_scaled_positions_are_smaller_by_the_root_of_their_number(self):
        for length in (12, 100):
            ids = tf.ones((1, length), tf.int32)
            positions = []
            for position in ("sinusoidal", "sinusoidal_scaled"):
                config = tiny.bert(
                    position=position, embedding_norm=False, num_segments=1
                )
                self.assertIsNone(config.max_length)
                embeddings = bert_lib.BertEncoder(config).embeddings
                embeddings.token_table.assign(
                    tf.zeros_like(embeddings.token_table)
                )
                embeddings.segment_table.assign(
                    tf.zeros_like(embeddings.segment_table)
                )
                positions.append(embeddings(ids).numpy())
            np.testing.assert_allclose(
                positions[1], positions[0] / 8, atol=1e-6
            )  # 64 positions
            self.assertAlmostEqual(np.abs(positions[0]).max(), 1, places=2)

    def test_sinusoidal_positions_have_any_length(self):
        network = bert_lib.BertEncoder(
            tiny.bert(position="sinusoidal", causal=True)
        )
        inputs = tiny.inputs(rows=2, length=100)
        short = {name: value[:, :64] for name, value in inputs.items()}
        long = encode(network, inputs)["hidden"][-1]
        np.testing.assert_allclose(
            long[:, :64], encode(network, short)["hidden"][-1], atol=1e-6
        )
        self.assertGreater(np.abs(long[:, 64:] - long[:, :36]).max(), 0.01)

    def test_sinusoidal_positions_are_the_same_in_a_graph_of_any_length(self):
        network = bert_lib.BertEncoder(tiny.bert(position="sinusoidal"))
        any_length = tf.TensorSpec((None, None), tf.int32)
        inputs = tiny.inputs(rows=2, length=100)
        graph = tf.function(network.start).get_concrete_function(
            **dict.fromkeys(inputs, any_length)
        )
        np.testing.assert_array_equal(
            graph(**inputs)[0], network.start(**inputs)[0]
        )

    def test_one_segment_is_the_first_of_two(self):
        two = bert_lib.BertEncoder(tiny.bert())
        one = bert_lib.BertEncoder(tiny.bert(num_segments=1))
        for target, source in zip(one.weights, two.weights, strict=True):
            target.assign(source[: target.shape[0]])
        inputs = tiny.inputs()
        inputs["segment_ids"] *= 0
        expected = encode(two, inputs)["pooled"]
        with self.assertRaisesRegex(errors.InputError, "has 1 segments"):
            encode(one, inputs)
        del inputs["segment_ids"]
        self.assertEqual(set(one.config.inputs), set(inputs))
        np.testing.assert_array_equal(encode(one, inputs)["pooled"], expected)
        with self.assertRaisesRegex(errors.InputError, "were not given"):
            encode(two, inputs)

    def test_gpt_is_a_value_of_the_fields(self):
        """Radford et al. 2018, section 3.1, in float64."""
        network = bert_lib.BertEncoder(
            tiny.bert(
                num_segments=1,
                causal=True,
                embedding_norm=False,
                activation="gelu_tanh",
                layer_norm_epsilon=1e-5,
            )
        )
        random = np.random.default_rng(0)
        for variable in network.weights:
            variable.assign(random.normal(0, 0.3, variable.shape))
        network.embeddings.segment_table.assign(np.zeros((1, 16)))
        inputs = tiny.inputs(rows=1)
        del inputs["segment_ids"]
        actual = encode(network, inputs)["hidden"][-1][0]
        weights = checkpoint.weight_values(network)
        expected = gpt(weights, inputs["token_ids"].numpy()[0])
        np.testing.assert_allclose(actual, expected, atol=2e-6)

    def test_saves_as_keras_file(self):
        network = bert_lib.BertEncoder(tiny.bert(num_hidden_groups=1))
        expected = encode(network, tiny.inputs())["pooled"]
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "encoder.keras")
            network.save(path)
            again = keras.saving.load_model(path)
        np.testing.assert_array_equal(
            expected, encode(again, tiny.inputs())["pooled"]
        )


if __name__ == "__main__":
    absltest.main()
