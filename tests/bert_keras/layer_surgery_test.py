"""Smaller networks with the weights of a larger one."""

import numpy as np
from absl.testing import absltest, parameterized

from bert_keras import errors, layer_surgery
from bert_keras import model as model_lib
from bert_keras.networks import bert
from bert_keras.tasks import classification, masked_lm
from bert_keras.wrappers import early_exit, mix
from tests import sharp, tiny


def made(**changes):
    task = classification.Classification(labels=("bad", "good"))
    network = bert.BertEncoder(tiny.bert(num_layers=4, **changes))
    model = model_lib.BertModel(network, task)
    sharp.spread(model, 1)
    return model


class KeepLayersTest(parameterized.TestCase):
    def test_layers_and_all_else_are_copied(self):
        model = made()
        student = layer_surgery.keep_layers(model, [0, 3])
        self.assertEqual(student.encoder.config.num_layers, 2)
        for number, source in enumerate((0, 3)):
            for one, other in zip(
                student.encoder.blocks[number].weights,
                model.encoder.blocks[source].weights,
                strict=True,
            ):
                np.testing.assert_array_equal(one, other)
        for part in ("embeddings", "pooler"):
            for one, other in zip(
                getattr(student.encoder, part).weights,
                getattr(model.encoder, part).weights,
                strict=True,
            ):
                np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(
            student.head.label.score.kernel, model.head.label.score.kernel
        )

    def test_all_layers_are_the_same_model(self):
        model, features = made(), tiny.inputs()
        same = layer_surgery.keep_layers(model, [0, 1, 2, 3])
        np.testing.assert_array_equal(
            same(features, training=False)["label"],
            model(features, training=False)["label"],
        )

    @parameterized.parameters([[]], [[1, 0]], [[0, 0]], [[0, 4]], [[-1]])
    def test_other_numbers_are_refused(self, layers):
        with self.assertRaisesRegex(errors.InputError, "from 0 to 3"):
            layer_surgery.keep_layers(made(), layers)

    def test_heads_of_several_layers_are_refused(self):
        for wrapper in (early_exit.EarlyExit, mix.Mix):
            task = classification.Classification(labels=("bad", "good"))
            network = bert.BertEncoder(tiny.bert(num_layers=4))
            model = model_lib.BertModel(network, wrapper(task))
            with self.assertRaisesRegex(errors.InputError, "each of its"):
                layer_surgery.keep_layers(model, [0, 2])

    def test_a_head_that_reads_more_layers_is_refused(self):
        task = classification.Classification(
            labels=("bad", "good"), pooling="layers"
        )
        network = bert.BertEncoder(tiny.bert(num_layers=4))
        with self.assertRaisesRegex(errors.InputError, "depends on what"):
            layer_surgery.keep_layers(model_lib.BertModel(network, task), [0])

    def test_shared_layers_are_refused(self):
        with self.assertRaisesRegex(errors.InputError, "share their weights"):
            layer_surgery.keep_layers(made(num_hidden_groups=1), [0])


class KeepUnitsTest(parameterized.TestCase):
    @parameterized.parameters("gelu", "swiglu")
    def test_units_without_weight_are_left_out(self, activation):
        model = made(activation=activation)
        size = model.encoder.config.intermediate_size
        for number, block in enumerate(model.encoder.blocks):
            outer = block.feed_forward.outer.kernel
            values = outer.numpy()
            values[number::2] *= 1e-30
            outer.assign(values)
        smaller = layer_surgery.keep_units(model, size // 2 + 1)
        self.assertEqual(
            smaller.encoder.config.intermediate_size, size // 2 + 1
        )
        self.assertLess(smaller.count_params(), model.count_params())
        features = tiny.inputs()
        np.testing.assert_allclose(
            smaller(features, training=False)["label"],
            model(features, training=False)["label"],
            atol=1e-6,
        )

    def test_what_comes_in_counts_as_what_goes_out(self):
        model = made()
        inner = model.encoder.blocks[0].feed_forward.inner
        values = inner.kernel.numpy()
        values[:, 3] *= 1e-30
        inner.kernel.assign(values)
        size = model.encoder.config.intermediate_size
        smaller = layer_surgery.keep_units(model, size - 1)
        np.testing.assert_array_equal(
            smaller.encoder.blocks[0].feed_forward.inner.kernel,
            np.delete(values, 3, axis=1),
        )
        np.testing.assert_array_equal(
            smaller.encoder.blocks[0].feed_forward.inner.bias,
            np.delete(inner.bias.numpy(), 3),
        )

    def test_a_decoder_with_as_many_is_refused(self):
        model = sharp.make("sequence_to_sequence").model
        with self.assertRaisesRegex(errors.InputError, "depends on what"):
            layer_surgery.keep_units(model, 9)

    @parameterized.parameters(0, -1, 1000)
    def test_other_sizes_are_refused(self, size):
        with self.assertRaisesRegex(errors.InputError, "expected 1 to"):
            layer_surgery.keep_units(made(), size)


class FactorizeTokensTest(parameterized.TestCase):
    def test_it_is_the_nearest_product(self):
        model = made()
        table = model.encoder.embeddings.token_table.numpy()
        smaller = layer_surgery.factorize_tokens(model, 5)
        self.assertEqual(
            smaller.encoder.embeddings.token_table.shape, (len(table), 5)
        )
        u, s, v = np.linalg.svd(np.float64(table), full_matrices=False)
        nearest = (u[:, :5] * s[:5]) @ v[:5]
        np.testing.assert_allclose(
            smaller.encoder.token_table, nearest, atol=1e-5
        )

    def test_a_table_of_this_rank_gives_the_same_answers(self):
        model = made()
        table = model.encoder.embeddings.token_table
        random = np.random.default_rng(0)
        table.assign(
            random.normal(size=(table.shape[0], 3))
            @ random.normal(size=(3, table.shape[1]))
        )
        smaller = layer_surgery.factorize_tokens(model, 3)
        features = tiny.inputs()
        np.testing.assert_allclose(
            smaller(features, training=False)["label"],
            model(features, training=False)["label"],
            atol=1e-5,
        )

    def test_heads_read_the_product(self):
        network = bert.BertEncoder(tiny.bert())
        model = model_lib.BertModel(network, masked_lm.MaskedLM())
        smaller = layer_surgery.factorize_tokens(model, 6)
        features = tiny.inputs() | {"positions": np.array([[1]] * 4)}
        logits = smaller(features, training=False)["masked_lm"]
        self.assertEqual(logits.shape[-1], network.config.vocab_size)

    def test_the_shapes_of_a_checkpoint_are_checked(self):
        config = layer_surgery.factorize_tokens(made(), 4).encoder.config
        config.check_shapes({"embeddings/token": (config.vocab_size, 4)})
        with self.assertRaisesRegex(errors.InputError, "does not fit"):
            config.check_shapes({"embeddings/token": (config.vocab_size, 16)})

    def test_other_ranks_are_refused(self):
        for rank in (0, made().encoder.config.hidden_size):
            with self.assertRaisesRegex(errors.InputError, "less than"):
                layer_surgery.factorize_tokens(made(), rank)
        smaller = layer_surgery.factorize_tokens(made(), 4)
        with self.assertRaisesRegex(errors.InputError, "already"):
            layer_surgery.factorize_tokens(smaller, 3)


if __name__ == "__main__":
    absltest.main()
