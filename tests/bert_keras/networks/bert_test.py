import itertools
import os
import tempfile

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

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


def encode(network, inputs, **options):
    return network(**inputs, **options)


class ConfigTest(parameterized.TestCase):
    @parameterized.parameters(*PARAMETERS)
    def test_published_sizes_have_their_parameters(self, name):
        bert = bert_lib.named(name)
        hidden, inner = bert.hidden_size, bert.intermediate_size
        layer = 4 * hidden**2 + 2 * hidden * inner + 9 * hidden + inner
        rows = bert.vocab_size + 512 + 2
        pooler = hidden**2 + hidden
        count = rows * hidden + 2 * hidden + bert.num_layers * layer + pooler
        self.assertEqual(count, PARAMETERS[name])
        if name in ("tiny", "mini"):
            self.assertEqual(
                bert_lib.BertEncoder(bert).count_params(), PARAMETERS[name]
            )

    def test_json_form_is_the_same_config(self):
        bert = tiny.bert(num_hidden_groups=1, causal=True)
        self.assertEqual(bert_lib.BertConfig.from_dict(bert.to_dict()), bert)

    @parameterized.parameters(
        ({"num_heads": 3}, "multiple of num_heads"),
        ({"activation": "swish"}, "activation must be one of"),
        ({"num_hidden_groups": 9}, "must lie in 1..2"),
    )
    def test_impossible_values_are_named(self, changes, message):
        with self.assertRaisesRegex(ValueError, message):
            tiny.bert(**changes)

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
        places = tf.constant([[*range(5), *range(7)]])
        together = encode(network, packed, position_ids=places)["hidden"][-1]
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

        ours = bert_lib.BertEncoder(tiny.bert(activation="gelu_tanh"))
        random = np.random.default_rng(1)
        for variable in ours.trainable_variables:
            variable.assign(random.normal(0, 0.3, variable.shape))
        with tempfile.TemporaryDirectory() as folder:
            keras_hub.write(
                folder, model_lib.BertModel(ours, None), tiny.tokenizer()
            )
            theirs = keras_nlp.models.BertBackbone.from_preset(folder)
        inputs = tiny.inputs()
        expected = theirs(inputs)
        encoded = encode(ours, inputs)
        real = inputs["padding_mask"].numpy() > 0
        np.testing.assert_allclose(
            encoded["hidden"][-1].numpy()[real],
            expected["sequence_output"].numpy()[real],
            atol=1e-5,
        )
        np.testing.assert_allclose(
            encoded["pooled"], expected["pooled_output"], atol=1e-5
        )

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
