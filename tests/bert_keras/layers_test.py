"""Parts of the encoder: what differs in training, and published formulas."""

import collections
import random

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from tensorflow.python.eager import context as tf_context

from bert_keras import layers
from bert_keras.networks import bert as bert_lib
from tests import tiny


def hidden(seed=0):
    return tf.random.stateless_normal((4, 12, 16), (seed, 1))


def block(layer, **options):
    mask = layers.attention_mask(tiny.inputs()["padding_mask"])
    return layer(hidden(), mask, **options)


class TrainingTest(parameterized.TestCase):
    @parameterized.product(
        activation=("gelu", "gelu_tanh", "relu", "swiglu"),
        norm_first=(False, True),
    )
    def test_without_dropout_it_is_that_of_inference(
        self, activation, norm_first
    ):
        network = bert_lib.BertEncoder(
            tiny.bert(
                dropout=0.0,
                attention_dropout=0.0,
                activation=activation,
                norm_first=norm_first,
            )
        )
        for variable in network.trainable_variables:
            variable.assign(
                np.random.default_rng(1).normal(0, 0.3, variable.shape)
            )
        inputs = tiny.inputs()
        values = [
            network(**inputs, training=training) for training in (False, True)
        ]
        for one, two in zip(
            *(value["hidden"] for value in values), strict=True
        ):
            np.testing.assert_allclose(one, two, atol=1e-5)
        np.testing.assert_allclose(*(v["pooled"] for v in values), atol=1e-5)

    def test_swiglu_is_the_published_formula(self):
        layer = layers.FeedForward(tiny.bert(activation="swiglu"))
        layer.build()
        random = np.random.default_rng(0)
        for variable in layer.weights:
            variable.assign(random.normal(0, 0.3, variable.shape))
        x = random.normal(size=(5, 16))
        kernel, bias = (
            np.float64(each.numpy())
            for each in (layer.inner.kernel, layer.inner.bias)
        )
        gate, value = np.split(x @ kernel + bias, 2, axis=1)
        inner = gate / (1 + np.exp(-gate)) * value  # Shazeer 2020, equation 5
        expected = inner @ np.float64(layer.outer.kernel.numpy())
        np.testing.assert_allclose(
            layer(tf.constant(x, tf.float32)),
            expected + layer.outer.bias.numpy(),
            atol=1e-5,
        )
        self.assertEqual(layer.inner.kernel.shape, (16, 64))

    @parameterized.parameters(False, True)
    def test_without_residual_a_sublayer_replaces_its_input(self, norm_first):
        config = tiny.bert(residual=False, norm_first=norm_first)
        layer = layers.Block(config)
        layer.build()
        for variable in layer.weights:
            if len(variable.shape) > 1:
                variable.assign(
                    tf.random.stateless_normal(variable.shape, (1, 2))
                )
        x = hidden()
        mask = layers.attention_mask(tiny.inputs()["padding_mask"])
        norms = layer.attention_norm, layer.feed_forward_norm
        first, second = norms if norm_first else (tf.identity, tf.identity)
        third, fourth = (tf.identity, tf.identity) if norm_first else norms
        y = third(layer.attention(first(x), mask))
        y = fourth(layer.feed_forward(second(y)))
        np.testing.assert_allclose(
            layer(x, mask), tf.reshape(y, x.shape), atol=1e-4
        )

    def test_embeddings_drop_their_share(self):
        inputs = tiny.inputs()
        layer = layers.Embeddings(tiny.bert(dropout=0.5))
        layer.build()
        ids = inputs["token_ids"], inputs["segment_ids"]
        self.assertGreater(np.mean(layer(*ids, training=True) == 0), 0.4)
        self.assertLess(np.mean(layer(*ids, training=False) == 0), 0.01)

    def test_attention_drops_what_is_seen_at_its_own_rate(self):
        for rate in (0.0, 0.5):
            layer = layers.SelfAttention(
                tiny.bert(dropout=0.9, attention_dropout=rate)
            )
            layer.build()
            one, two = (block(layer, training=True) for _ in range(2))
            self.assertEqual(np.allclose(one, two), rate == 0)

    def test_a_block_drops_at_both_sums(self):
        # LayerNorm comes first, so that a sum with nothing left is its input.
        layer = layers.Block(tiny.bert(dropout=0.9, norm_first=True))
        layer.build()
        for name in ("attention/out", "feed_forward/outer"):
            for variable in layer.weights:
                on = "norm" in variable.path or name in variable.path
                if "seed" not in variable.path:
                    variable.assign(tf.ones(variable.shape) * float(on))
            changed = np.abs(block(layer, training=True) - hidden()) > 1e-6
            self.assertBetween(changed.mean(), 0.05, 0.15, name)
            still = np.abs(block(layer, training=False) - hidden()) > 1e-6
            self.assertEqual(still.mean(), 1)


def _fused_ops(function):
    """How many ops of which `fused_ops` TensorFlow makes of a function."""
    names = "token_ids", "segment_ids", "padding_mask"
    graph = tf.function(function).get_concrete_function(
        **{name: tf.TensorSpec((None, None), tf.int32, name) for name in names}
    )
    context = tf_context.context()
    context.enable_run_metadata()
    try:
        graph(**tiny.inputs())  # the first call: later ones note nothing
        (graphs,) = context.export_run_metadata().function_graphs
    finally:
        context.disable_run_metadata()
    return collections.Counter(
        tuple(name.decode() for name in node.attr["fused_ops"].list.s)
        for node in graphs.post_optimization_graph.node
        if node.attr["fused_ops"].list.s
    )


class TaskTypeTest(parameterized.TestCase):
    @parameterized.parameters(0, 2)
    def test_its_row_is_added_to_all_positions(self, task_type):
        config = tiny.bert(num_task_types=3, task_type=task_type)
        layer, without = (
            layers.Embeddings(config),
            layers.Embeddings(tiny.bert()),
        )
        layer.build()
        without.build()
        without.token_table.assign(layer.token_table)
        without.segment_table.assign(layer.segment_table)
        rows = layer.task_type_table.numpy()
        without.position_table.assign(layer.position_table + rows[task_type])
        ids = tiny.inputs()["token_ids"], tiny.inputs()["segment_ids"]
        np.testing.assert_allclose(layer(*ids), without(*ids), atol=1e-5)
        self.assertEqual(layer.task_type_table.path, f"{layer.name}/task_type")
        self.assertEqual(layer.count_params() - without.count_params(), 3 * 16)


def concatenating(config, parts):
    """Embeddings with a projection of blocks of the identity."""
    layer = layers.Embeddings(config)
    layer.build()
    identities = [np.eye(config.embedding_width, config.hidden_size)] * parts
    layer.combine.kernel.assign(np.concatenate(identities))
    return layer


class ConcatenationTest(parameterized.TestCase):
    @parameterized.product(
        position=("learned", "sinusoidal"), embedding_norm=(False, True)
    )
    def test_with_blocks_of_the_identity_it_is_the_sum(self, **fields):
        inputs = tiny.inputs()
        ids = inputs["token_ids"], inputs["segment_ids"]
        total = layers.Embeddings(tiny.bert(**fields))
        total.build()
        layer = concatenating(tiny.bert(embedding_sum=False, **fields), 3)
        for name in ("token_table", "segment_table", "position_table", "norm"):
            source, target = getattr(total, name), getattr(layer, name)
            if isinstance(source, layers.LayerNorm):
                source, target = source.gamma, target.gamma
            if source is not None:
                value = tf.random.stateless_normal(source.shape, (1, 2))
                source.assign(value)
                target.assign(value)
        position_ids = tf.constant([[*range(6)] * 2] * 4)
        for positions in (None, position_ids):
            np.testing.assert_allclose(
                layer(*ids, positions), total(*ids, positions), atol=1e-5
            )

    @parameterized.parameters(False, True)
    def test_it_is_the_projection_of_each(self, one_segment):
        config = tiny.bert(
            embedding_sum=False,
            embedding_size=8,
            embedding_norm=False,
            num_segments=1 if one_segment else 2,
        )
        layer = layers.Embeddings(config)
        layer.build()
        random = np.random.default_rng(0)
        values = {}
        for variable in layer.trainable_variables:
            value = random.normal(0, 0.5, variable.shape)
            variable.assign(value)
            values[variable.path.split("/", 1)[1]] = value
        inputs = tiny.inputs()
        segment_ids = None if one_segment else inputs["segment_ids"]
        kernels = np.split(values["combine/kernel"], 3)
        expected = (
            values["token"][inputs["token_ids"]] @ kernels[0]
            + values["segment"][0 if one_segment else segment_ids] @ kernels[1]
            + values["position"][:12] @ kernels[2]
            + values["combine/bias"]
        )
        actual = layer(inputs["token_ids"], segment_ids)
        np.testing.assert_allclose(actual, expected, atol=1e-5)

    def test_it_has_the_task_type_last(self):
        config = tiny.bert(embedding_sum=False, num_task_types=3, task_type=1)
        layer = concatenating(config, 4)
        layer.combine.kernel[:48].assign(tf.zeros((48, 16)))
        ids = tiny.inputs()["token_ids"], tiny.inputs()["segment_ids"]
        row = layer.task_type_table.numpy()[1]
        expected = (row - row.mean()) / row.std()
        np.testing.assert_allclose(
            layer(*ids), np.broadcast_to(expected, (4, 12, 16)), atol=1e-5
        )

    def test_it_has_the_dtype_of_the_policy(self):
        layer = layers.Embeddings(
            tiny.bert(embedding_sum=False), dtype="mixed_bfloat16"
        )
        layer.build()
        inputs = tiny.inputs()
        x = layer(inputs["token_ids"], inputs["segment_ids"])
        self.assertEqual(x.dtype, tf.bfloat16)

    def test_parameters(self):
        """Three tables (R, E), the kernel (3 E, H), its bias and LayerNorm."""
        for width in (8, 16):
            config = tiny.bert(embedding_sum=False, embedding_size=width)
            layer = layers.Embeddings(config)
            layer.build()
            rows = config.vocab_size + 2 + 64
            self.assertEqual(
                layer.count_params(), rows * width + 3 * width * 16 + 3 * 16
            )


class FormulasTest(parameterized.TestCase):
    def test_sinusoids(self):
        """Vaswani et al. 2017, 3.5: PE(p, 2i) = sin(p / 10000^(2i/d)).

        PE(p, 2i + 1) is the cosine of the same.
        """
        actual = layers.sinusoids(np.arange(50.0), 8)
        for position in (0, 1, 7, 49):
            for i in range(4):
                angle = position / 10000 ** (2 * i / 8)
                np.testing.assert_allclose(
                    actual[position, 2 * i : 2 * i + 2],
                    [np.sin(angle), np.cos(angle)],
                    atol=1e-6,
                )

    def test_attention_masks(self):
        padding_mask = tf.constant([[1, 1, 2, 2, 0], [1, 0, 0, 0, 0]])
        mask = layers.attention_mask(padding_mask).numpy()
        expected = np.zeros((2, 5, 5), bool)
        expected[0, :2, :2] = expected[0, 2:4, 2:4] = True
        expected[1, 0, 0] = True
        np.testing.assert_array_equal(mask, expected)
        causal = layers.attention_mask(padding_mask, causal=True).numpy()
        np.testing.assert_array_equal(causal, np.tril(expected))

    @parameterized.parameters(False, True)
    def test_attention_is_softmax_of_the_scaled_scores_that_are_seen(
        self, shared
    ):
        """softmax(Q K^T / sqrt(D)) V (Vaswani et al. 2017, equation 1)."""
        bert = tiny.bert(attention_dropout=0.0, shared_query_key=shared)
        layer = layers.SelfAttention(bert)
        layer.build()
        random = np.random.default_rng(0)
        values = {}
        for variable in layer.weights:
            if "seed" not in variable.path:
                value = random.normal(0, 0.5, variable.shape)
                variable.assign(value)
                values[variable.path.split("/", 1)[1]] = value
        padding_mask = tiny.inputs()["padding_mask"]
        visible = layers.attention_mask(padding_mask).numpy()[:, np.newaxis]
        x = hidden().numpy().astype(np.float64)
        qkv = x @ values["qkv/kernel"] + values["qkv/bias"]
        *query, key, value = (
            part.reshape(4, 12, 2, 8).transpose(0, 2, 1, 3)
            for part in np.split(qkv, 2 if shared else 3, axis=-1)
        )
        query = key if shared else query[0]
        scores = np.exp(query @ key.swapaxes(2, 3) / np.sqrt(8)) * visible
        real = padding_mask.numpy() > 0
        sums = scores.sum(axis=-1, keepdims=True)
        expected = scores / np.where(sums > 0, sums, 1)
        context = (expected @ value).transpose(0, 2, 1, 3).reshape(4, 12, 16)
        context = context @ values["out/kernel"] + values["out/bias"]
        for training in (False, True):
            output, attention = layer(
                hidden(), visible[:, 0], training=training, attentions=True
            )
            np.testing.assert_allclose(
                output.numpy().reshape(4, 12, 16)[real],
                context[real],
                atol=1e-4,
            )
            for head in range(2):
                np.testing.assert_allclose(
                    attention[:, head].numpy()[real],
                    expected[:, head][real],
                    atol=1e-5,
                )
            self.assertTrue(np.isfinite(attention).all())

    def test_every_sum_is_fused_into_the_matmul_before_it(self):
        """Where TensorFlow has oneDNN: a block is as many passes fewer."""

        network = bert_lib.BertEncoder(tiny.bert(num_layers=2))
        fused = _fused_ops(lambda **inputs: network(**inputs)["hidden"][-1])
        if ("BiasAdd", "GeluExact") not in fused:
            self.skipTest("this TensorFlow does not fuse on this processor")
        self.assertEqual(fused["BiasAdd", "Add"], 2 * 2)
        self.assertEqual(fused["BiasAdd", "GeluExact"], 2)
        self.assertEqual(fused["Mul", "Add"], 2)  # scores, scaled and masked
        self.assertEqual(fused["BiasAdd",], 2)  # queries, keys and values

    def test_a_causal_network_pools_its_last_token(self):
        network = bert_lib.BertEncoder(tiny.bert(causal=True))
        mask = tf.constant([[1] * 12, [1] * 5 + [0] * 7, [1] + [0] * 11])
        states = hidden()[:3]
        np.testing.assert_allclose(
            network.pool(states, mask),
            network.pooler(tf.gather(states, [11, 4, 0], batch_dims=1)),
            atol=1e-6,
        )

    def test_norm_first_ends_in_a_norm(self):
        network = bert_lib.BertEncoder(tiny.bert(norm_first=True))
        inputs = tiny.inputs()
        last = network(**inputs)["hidden"][-1].numpy()
        np.testing.assert_allclose(last.mean(axis=-1), 0, atol=1e-5)
        np.testing.assert_allclose(last.std(axis=-1), 1, atol=1e-3)


class SkipInitTest(absltest.TestCase):
    def test_what_is_loaded_draws_no_seed(self):
        """Otherwise new heads would start as others do with the same seed."""
        before = random.getstate()  # Keras draws initializers' seeds from it
        with layers.skip_init():
            value = layers.initializer(tiny.bert())((2, 3))
        self.assertEqual(random.getstate(), before)
        np.testing.assert_array_equal(value, np.zeros((2, 3)))
        layers.initializer(tiny.bert())
        self.assertNotEqual(random.getstate(), before)

    def test_scores_of_a_shared_query_and_key_are_symmetric(self):
        """log p(j | i) is the score of i and j, less a constant of i.

        So the differences of both directions add up to 0 around a triangle.
        """
        for shared in (False, True):
            layer = layers.SelfAttention(tiny.bert(shared_query_key=shared))
            layer.build()
            random = np.random.default_rng(0)
            for variable in layer.trainable_variables:
                variable.assign(random.normal(0, 0.3, variable.shape))
            mask = tf.ones((4, 12, 12), tf.bool)
            _, attention = layer(hidden(), mask, attentions=True)
            logs = np.log(attention)
            both = logs - logs.swapaxes(2, 3)
            i, j, k = 1, 5, 9
            around = both[..., i, j] + both[..., j, k] + both[..., k, i]
            self.assertEqual(np.abs(around).max() < 1e-4, shared)
            self.assertEqual(layer.qkv.kernel.shape, (16, 48 - 16 * shared))


if __name__ == "__main__":
    absltest.main()
