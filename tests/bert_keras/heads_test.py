"""Heads against their definitions in NumPy float64."""

import math

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors, heads
from bert_keras.networks import bert as bert_lib
from tests import tiny

ROWS, LENGTH, HIDDEN = 4, 6, 16
# A full row, shorter ones, and one of padding alone.
MASK = np.arange(LENGTH) < np.array([6, 4, 1, 0])[:, np.newaxis]


def encoded(layers=5):
    random = np.random.default_rng(0)
    # Negative on the whole: the maximum of padding (0) would be seen.
    hidden = random.normal(-3, 1, (layers, ROWS, LENGTH, HIDDEN))
    hidden *= MASK[..., np.newaxis]
    pooled = random.normal(size=(ROWS, HIDDEN))
    return {
        "hidden": [tf.constant(layer, tf.float32) for layer in hidden],
        "pooled": tf.constant(pooled, tf.float32),
    }, hidden


def randomised(layer):
    """`layer` with random weights, and they by name."""
    layer.build()
    random, values = np.random.default_rng(1), {}
    for variable in layer.weights:
        if "seed" not in variable.path:
            value = random.normal(size=variable.shape)
            variable.assign(value)
            values[variable.path.split("/", 1)[1]] = value
    return values


def normalised(x, values, epsilon=1e-12):
    """Ba et al. 2016, equations 3 and 4."""
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon)
    return x * values["norm/gamma"] + values["norm/beta"]


gelu = np.vectorize(lambda x: x * 0.5 * (1 + math.erf(x / 2**0.5)))


class PoolingTest(parameterized.TestCase):
    def pooled(self, name, layers=5):
        pooling = heads.Pooling(tiny.bert(num_layers=layers - 1), name)
        pooling.build()
        inputs, hidden = encoded(layers)
        vectors = pooling(inputs, tf.constant(MASK, tf.int32)).numpy()
        self.assertEqual(vectors.shape, (ROWS, pooling.width))
        return vectors, hidden

    def test_first_is_what_the_pooler_gave(self):
        vectors, _ = self.pooled("first")
        np.testing.assert_array_equal(vectors, encoded()[0]["pooled"])

    def test_last_is_the_state_of_the_last_token(self):
        vectors, hidden = self.pooled("last")
        np.testing.assert_allclose(
            vectors, hidden[-1, range(ROWS), [5, 3, 0, 0]], rtol=1e-6
        )

    def test_mean_and_max_are_over_tokens(self):
        for name, function in (("mean", np.mean), ("max", np.max)):
            vectors, hidden = self.pooled(name)
            for row, length in enumerate(MASK.sum(axis=1)[:3]):
                np.testing.assert_allclose(
                    vectors[row],
                    function(hidden[-1, row, :length], axis=0),
                    rtol=1e-5,
                )
            self.assertTrue(np.isfinite(vectors[3]).all())

    @parameterized.parameters((5, 4), (3, 2))
    def test_layers_joins_cls_of_the_last_four(self, layers, joined):
        # Counted without the embeddings (Devlin et al. 2019, table 7).
        vectors, hidden = self.pooled("layers", layers)
        expected = np.concatenate(list(hidden[-joined:, :, 0]), axis=-1)
        np.testing.assert_allclose(vectors, expected, rtol=1e-6)

    @parameterized.parameters(LENGTH, 9)
    def test_concat_is_all_tokens_and_zeros_up_to_seq_length(self, length):
        pooling = heads.Pooling(tiny.bert(), "concat", seq_length=length)
        pooling.build()
        # Networks compute states at padding, too.
        hidden = np.random.default_rng(0).normal(size=(ROWS, LENGTH, HIDDEN))
        vectors = pooling(
            {"hidden": [tf.constant(hidden, tf.float32)]},
            tf.constant(MASK, tf.int32),
        )
        self.assertEqual(pooling.width, length * HIDDEN)
        expected = np.zeros((ROWS, length * HIDDEN))
        for row, count in enumerate(MASK.sum(axis=1)):
            tokens = hidden[row, :count].ravel()
            expected[row, : len(tokens)] = tokens
        np.testing.assert_allclose(vectors, expected, rtol=1e-6)

    def test_concat_has_one_length(self):
        with self.assertRaisesRegex(errors.InputError, "found None"):
            heads.ClassificationHead(tiny.bert(), 2, "concat")
        head = heads.ClassificationHead(
            tiny.bert(), 2, "concat", seq_length=LENGTH - 1
        )
        head.build()
        message = "expected rows of at most 5 tokens.*found 6"
        with self.assertRaisesRegex(errors.InputError, message):
            head(encoded()[0], tf.constant(MASK, tf.int32))

    @parameterized.parameters(*heads.POOLINGS)
    def test_a_causal_network_is_read_where_it_has_read_the_text(self, name):
        """Its first token attends only to itself."""
        network = bert_lib.BertEncoder(tiny.bert(causal=True))
        if name == "layers":
            with self.assertRaisesRegex(errors.InputError, "pooling=last"):
                heads.ClassificationHead(network.config, 2, name)
            return
        pooling = heads.Pooling(network.config, name, seq_length=8)
        pooling.build()
        inputs = tiny.inputs(1, 8)
        inputs["padding_mask"] = tf.ones((1, 8), tf.int32)
        ids = inputs["token_ids"].numpy()
        ids[0, -1] = 5 + (ids[0, -1] + 1) % 20
        one = pooling(network(**inputs), inputs["padding_mask"])
        inputs["token_ids"] = tf.constant(ids)
        two = pooling(network(**inputs), inputs["padding_mask"])
        self.assertGreater(np.abs(one - two).max(), 1e-6)

    def test_lstm_does_not_read_padding(self):
        pooling = heads.Pooling(tiny.bert(), "lstm")
        pooling.build()
        inputs, _ = encoded()
        mask = tf.constant(MASK, tf.int32)
        whole = pooling(inputs, mask).numpy()
        for row, length in enumerate(MASK.sum(axis=1)[:3]):
            alone = pooling(
                {"hidden": [inputs["hidden"][-1][row : row + 1, :length]]},
                mask[row : row + 1, :length],
            )
            np.testing.assert_allclose(whole[row], alone[0], atol=1e-6)
        # Each of the two layers is read.
        for lstm in pooling.lstms:
            kernel = lstm.cell.recurrent_kernel
            kernel.assign(kernel + 0.5)
            other = pooling(inputs, mask).numpy()
            self.assertGreater(np.abs(other - whole)[0].max(), 1e-4)
            whole = other


class HeadsTest(parameterized.TestCase):
    def test_masked_lm_is_transform_gelu_norm_and_the_table(self):
        """gelu(h W + b), LayerNorm, E^T, + bias (Devlin et al. 2019, 3.1)."""
        head = heads.MaskedLMHead(tiny.bert(embedding_size=8))
        values = randomised(head)
        inputs, hidden = encoded()
        positions = np.array([[1, 5], [0, 3], [0, 0], [2, 1]])
        table = np.random.default_rng(2).normal(size=(head.bias.shape[0], 8))
        actual = head(
            inputs["hidden"][-1],
            tf.constant(positions, tf.int32),
            tf.constant(table, tf.float32),
        )
        x = np.take_along_axis(hidden[-1], positions[..., np.newaxis], axis=1)
        x = x @ values["transform/kernel"] + values["transform/bias"]
        expected = normalised(gelu(x), values) @ table.T + values["bias"]
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)

    def test_sentences_spans_and_classes_are_one_product(self):
        inputs, hidden = encoded()
        pooled = inputs["pooled"].numpy().astype(float)
        bert = tiny.bert()
        for head, call, x in (
            (
                heads.NextSentenceHead(bert),
                lambda head: head(inputs["pooled"]),
                pooled,
            ),
            (
                heads.ClassificationHead(bert, 3),
                lambda head: head(inputs, tf.constant(MASK, tf.int32)),
                pooled,
            ),
            (
                heads.TokenClassificationHead(bert, 3),
                lambda head: head(inputs["hidden"][-1]),
                hidden[-1],
            ),
            (
                heads.SpanHead(bert),
                lambda head: tf.stack(head(inputs["hidden"][-1]), axis=-1),
                hidden[-1],
            ),
        ):
            values = randomised(head)
            np.testing.assert_allclose(
                call(head),
                x @ values["score/kernel"] + values["score/bias"],
                rtol=1e-4,
                atol=1e-4,
                err_msg=type(head).__name__,
            )

    def test_sentences_are_scored_at_their_positions(self):
        inputs, hidden = encoded()
        head = heads.SentenceHead(tiny.bert())
        values = randomised(head)
        positions = np.array([[0, 3], [2, 0], [0, 0], [1, 5]], np.int32)
        states = np.take_along_axis(hidden[-1], positions[..., None], axis=1)
        expected = states @ values["score/kernel"] + values["score/bias"]
        for call in (
            head(inputs["hidden"][-1], tf.constant(positions)),
            head(tf.constant(states, tf.float32), None),
        ):
            np.testing.assert_allclose(call, expected[..., 0], rtol=1e-4)
        dropped = head(
            tf.constant(states, tf.float32), None, training=True
        ).numpy()
        self.assertGreater(np.abs(dropped - expected[..., 0]).max(), 1e-3)

    def test_every_text_of_a_row_has_a_vector_of_its_own(self):
        inputs, hidden = encoded()
        mask = np.array(
            [
                [1, 1, 2, 2, 2, 3],
                [1, 2, 3, 0, 0, 0],
                [1, 1, 1, 1, 0, 0],
                [0, 0, 0, 0, 0, 0],
            ],
            np.int32,
        )
        for number in (1, 2, 3):
            got = heads.pool(inputs["hidden"][-1], tf.constant(mask), number)
            for row in range(ROWS):
                own = hidden[-1][row][mask[row] == number]
                want = own.mean(axis=0) if len(own) else np.zeros(HIDDEN)
                np.testing.assert_allclose(got[row], want, atol=1e-5)

    def test_classes_are_scored_after_dropout_in_training(self):
        inputs, _ = encoded()
        bert = tiny.bert(dropout=0.5)
        for head, call in (
            (
                heads.ClassificationHead(bert, 2),
                lambda head: head(inputs, MASK, training=True),
            ),
            (
                heads.TokenClassificationHead(bert, 2),
                lambda head: head(inputs["hidden"][-1], training=True),
            ),
        ):
            randomised(head)
            self.assertGreater(np.abs(call(head) - call(head)).max(), 0.1)


if __name__ == "__main__":
    absltest.main()
