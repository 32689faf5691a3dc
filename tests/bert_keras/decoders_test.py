import os

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import (
    decoders,
    encoder_decoder,
    errors,
    transformer_decoder,
)
from tests import tiny

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

TARGETS, LENGTH = 20, 6  # target vocabulary, maximum number of target tokens

# name: fields of decoders.config_for.
DECODERS = {
    "transformer": {"kind": "transformer"},
    "one_layer": {"kind": "transformer", "num_layers": 1},
    "lstm": {"kind": "lstm"},
    "gru": {"kind": "gru", "num_layers": 2, "attention": "general"},
    "dot": {"kind": "gru", "attention": "dot", "first_state": "zeros"},
    "fixed_context": {"kind": "lstm", "attention": "none"},
    "random_state": {"kind": "gru", "first_state": "random"},
}
NAMED = [(name, name) for name in DECODERS]


def decoder(name="transformer", network=None, **changes):
    """Returns a decoder with weights that are large enough to differ."""
    keras.utils.set_random_seed(3)
    network = network or tiny.bert(norm_first=name == "one_layer")
    fields = {"vocab_size": TARGETS} | DECODERS[name]
    config = decoders.config_for(network, **(fields | changes))
    layer = encoder_decoder.build_decoder(config)
    layer.build()
    random = np.random.default_rng(0)
    for variable in layer.trainable_variables:
        if variable.path.endswith(("kernel", "token", "position", "vector")):
            variable.assign(random.normal(size=variable.shape, scale=0.4))
    return layer


def source(rows=3, length=7, width=16, seed=1):
    """Random states; row r has r trailing padding positions."""
    random = np.random.default_rng(seed)
    return decoders.Source(
        tf.constant(random.normal(size=(rows, length, width)), tf.float32),
        tf.constant(np.arange(length) < length - np.arange(rows)[:, None]),
        tf.constant(random.normal(size=(rows, width)), tf.float32),
    )


def ids(rows=3, seed=2):
    random = np.random.default_rng(seed)
    return tf.constant(random.integers(0, TARGETS, (rows, LENGTH)), tf.int32)


def stepwise(layer, targets, read, table=None):
    """Returns the logits of `step` for each target position, and weights."""
    memory = layer.read_source(read)
    state = layer.first_state(read, LENGTH)
    logits, attention = [], []
    for position in range(LENGTH):
        each, state = layer.step(targets[:, position], state, memory, table)
        logits.append(each)
        attention.append(state["attention"])
    return np.stack(logits, axis=1), np.stack(attention, axis=1)


class DecoderTest(parameterized.TestCase):
    @parameterized.named_parameters(*NAMED)
    def test_steps_compute_what_all_positions_at_once_do(self, name):
        layer = decoder(name)
        expected = layer(ids(), source())
        logits, _ = stepwise(layer, ids(), source())
        self.assertEqual(expected.shape, (3, LENGTH, TARGETS))
        self.assertGreater(np.std(expected), 0.1)
        np.testing.assert_allclose(logits, expected, atol=2e-5)

    @parameterized.product(
        name=tuple(DECODERS), policy=("mixed_bfloat16", "bfloat16")
    )
    def test_a_step_keeps_the_dtypes_of_the_state(self, name, policy):
        before = keras.config.dtype_policy()
        try:
            keras.config.set_dtype_policy(policy)
            layer = decoder(name)
        finally:
            keras.config.set_dtype_policy(before)
        state = layer.first_state(source(), LENGTH)
        memory = layer.read_source(source())
        logits, after = layer.step(ids()[:, 0], state, memory)
        self.assertEqual(logits.dtype, tf.float32)
        for one, two in zip(
            tf.nest.flatten(state), tf.nest.flatten(after), strict=True
        ):
            self.assertEqual(one.dtype, two.dtype)

    @parameterized.named_parameters(*NAMED)
    def test_later_tokens_do_not_change_earlier_logits(self, name):
        layer, targets = decoder(name), ids().numpy()
        before = layer(tf.constant(targets), source())
        targets[:, 3:] = (targets[:, 3:] + 7) % TARGETS
        after = layer(tf.constant(targets), source())
        np.testing.assert_allclose(after[:, :3], before[:, :3], atol=1e-6)
        self.assertGreater(np.abs(after[:, 3:] - before[:, 3:]).min(), 0)

    @parameterized.named_parameters(*NAMED)
    def test_padding_of_the_source_is_not_read(self, name):
        layer, read = decoder(name), source()
        noise = tf.where(read.mask[..., None], read.states, 9.0)
        np.testing.assert_array_equal(
            layer(ids(), read), layer(ids(), read._replace(states=noise))
        )
        _, weights = stepwise(layer, ids(), read)
        self.assertEqual(weights[2, :, -2:].max(), 0)

    @parameterized.named_parameters(*NAMED)
    def test_all_that_is_trained_gets_a_gradient(self, name):
        layer = decoder(name)
        with tf.GradientTape() as tape:
            logits = layer(ids(), source(), training=True)
            loss = tf.reduce_sum(tf.nn.log_softmax(logits)[..., 0])
        variables = layer.trainable_variables
        gradients = tape.gradient(loss, [v.value for v in variables])
        for variable, gradient in zip(variables, gradients, strict=True):
            self.assertIsNotNone(gradient, variable.path)

    @parameterized.named_parameters(*NAMED)
    def test_paths_begin_with_the_layer(self, name):
        layer = decoder(name)
        for variable in layer.weights:
            self.assertStartsWith(variable.path, f"{layer.name}/")

    def test_weights_of_the_source_add_up_to_one(self):
        for name in ("transformer", "lstm", "dot"):
            _, weights = stepwise(decoder(name), ids(), source())
            np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)

    def test_a_fixed_context_reads_the_vector_alone(self):
        layer, read = decoder("fixed_context"), source()
        states = tf.random.normal(read.states.shape)
        np.testing.assert_array_equal(
            layer(ids(), read), layer(ids(), read._replace(states=states))
        )
        other = read._replace(vector=read.vector + 1)
        self.assertGreater(
            np.abs(layer(ids(), read) - layer(ids(), other)).min(), 0
        )

    def test_a_first_state_of_zeros_reads_no_vector(self):
        layer, read = decoder("dot"), source()
        other = read._replace(vector=read.vector + 1)
        np.testing.assert_array_equal(layer(ids(), read), layer(ids(), other))

    def test_a_random_first_state_is_drawn_once(self):
        layer = decoder("random_state")
        np.testing.assert_array_equal(
            layer(ids(), source()), layer(ids(), source())
        )
        path = f"{layer.name}/first_state"
        (state,) = [v for v in layer.weights if v.path == path]
        self.assertNotIn(path, [v.path for v in layer.trainable_variables])
        self.assertGreater(np.std(state), 0.5)

    def test_shared_embeddings_are_the_encoders(self):
        network = tiny.bert(embedding_size=8)
        layer = decoder(network=network, vocab_size=0)
        self.assertTrue(layer.config.shares_table)
        self.assertEqual(layer.config.vocab_size, network.vocab_size)
        self.assertFalse(
            [v for v in layer.weights if v.path.endswith("/token")]
        )
        random = np.random.default_rng(5)
        table = random.normal(size=(network.vocab_size, 8)).astype("float32")
        expected = layer(ids(), source(), table)
        logits, _ = stepwise(layer, ids(), source(), table)
        np.testing.assert_allclose(logits, expected, atol=2e-5)
        # The output layer is the table as well.
        table[TARGETS + 3] += 1  # none of the ids
        changed = np.abs(layer(ids(), source(), table) - expected).max((0, 1))
        self.assertEqual(np.flatnonzero(changed > 1e-6).tolist(), [TARGETS + 3])

    @parameterized.parameters(
        {"position": "sinusoidal"},
        {"residual": False},
        {"residual": False, "norm_first": True},
        {"shared_query_key": True},
        {"embedding_sum": False},
        {"embedding_sum": False, "position": "sinusoidal"},
    )
    def test_steps_have_the_fields_of_the_network(self, **fields):
        layer = decoder(network=tiny.bert(**fields))
        logits, _ = stepwise(layer, ids(), source())
        np.testing.assert_allclose(logits, layer(ids(), source()), atol=2e-5)
        for name, value in fields.items():
            self.assertEqual(getattr(layer.config, name), value)

    def test_concatenated_embeddings_are_those_of_tokens_and_positions(self):
        network = tiny.bert(embedding_sum=False, embedding_size=8)
        layer = decoder(network=network, vocab_size=0)
        self.assertEqual(layer.embeddings.combine.kernel.shape, (16, 16))
        tokens, positions = np.split(layer.embeddings.combine.kernel, 2)
        table = np.random.default_rng(5).normal(size=(network.vocab_size, 8))
        x = table[ids()] @ tokens
        x += layer.embeddings.position_table.numpy()[:LENGTH] @ positions
        x -= x.mean(-1, keepdims=True)
        np.testing.assert_allclose(
            layer.embeddings(ids(), tf.constant(table, tf.float32)),
            x / x.std(-1, keepdims=True),
            atol=1e-5,
        )

    def test_a_recurrent_decoder_has_nothing_to_concatenate(self):
        for size in (8, 16):
            network = tiny.bert(embedding_sum=False, embedding_size=size)
            layer = decoder("lstm", network=network, vocab_size=0)
            self.assertIsNone(layer.embeddings.combine)
            self.assertEqual(layer.embeddings.project is None, size == 16)

    def test_the_queries_of_a_decoder_may_be_its_keys(self):
        block = decoder(network=tiny.bert(shared_query_key=True)).blocks[0]
        self.assertEqual(block.attention.qkv.kernel.shape, (16, 32))
        query, key, _ = block.attention.project(source().states)
        np.testing.assert_array_equal(query, key)

    @parameterized.parameters(False, True)
    def test_without_residual_a_sublayer_replaces_its_input(self, norm_first):
        network = tiny.bert(residual=False, norm_first=norm_first)
        block = decoder(network=network).blocks[0]
        x = tf.random.stateless_normal((3, LENGTH, 16), (1, 2))
        mask = tf.ones((3, LENGTH, LENGTH), tf.bool)
        source_mask = tf.ones((3, 1, 7), tf.bool)
        keys_values = block.cross_attention.read(source().states)
        y = x
        for norm, sublayer in (
            (block.attention_norm, lambda y: block.attention(y, mask)),
            (
                block.cross_attention_norm,
                lambda y: block.cross_attention(y, keys_values, source_mask)[0],
            ),
            (block.feed_forward_norm, block.feed_forward),
        ):
            y = norm(y) if norm_first else y
            y = tf.reshape(sublayer(y), x.shape)
            y = y if norm_first else norm(y)
        np.testing.assert_allclose(
            block(x, mask, keys_values, source_mask), y, atol=1e-5
        )

    def test_widths_that_no_heads_divide_are_refused(self):
        network = tiny.elmo(projection_size=97, lstm_size=100)
        with self.assertRaisesRegex(errors.InputError, "194 hidden units"):
            decoders.config_for(network, vocab_size=9)


class CopyBlocksTest(absltest.TestCase):
    def test_the_decoder_gets_the_encoders_layers(self):
        encoder = tiny.bert(num_layers=3).build_encoder()
        layer = decoder(network=encoder.config, num_layers=2)
        before = layer.blocks[0].cross_attention.query.kernel.numpy()
        copied = transformer_decoder.copy_blocks(encoder, layer)
        for mine, of in ((0, 0), (1, 2)):
            for name in ("attention", "feed_forward", "attention_norm"):
                for a, b in zip(
                    getattr(layer.blocks[mine], name).trainable_variables,
                    getattr(encoder.blocks[of], name).trainable_variables,
                    strict=True,
                ):
                    np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(
            layer.embeddings.position_table,
            encoder.embeddings.position_table,
        )
        np.testing.assert_array_equal(
            layer.blocks[0].cross_attention.query.kernel, before
        )
        self.assertFalse([path for path in copied if "cross" in path])
        self.assertFalse([path for path in copied if path.endswith("/token")])

    def test_a_recurrent_decoder_has_no_such_layers(self):
        encoder = tiny.bert().build_encoder()
        with self.assertRaisesRegex(errors.InputError, "decoder_init=encoder"):
            transformer_decoder.copy_blocks(encoder, decoder("lstm"))


if __name__ == "__main__":
    absltest.main()
