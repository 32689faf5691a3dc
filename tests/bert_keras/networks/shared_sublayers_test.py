"""Groups of layers that share attention or feed-forward layers alone."""

import dataclasses
import os
import re

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, decoders, errors, layers
from bert_keras import model as model_lib
from bert_keras.networks import bert as bert_lib
from tests import tiny
from trainers import describe

# Lan et al. 2020, table 4, in millions: by E, then by what is shared, in the 12
# layers of ALBERT-base.
PUBLISHED = {
    768: {"all": 31, "attention": 83, "feed_forward": 57, "": 108},
    128: {"all": 12, "attention": 64, "feed_forward": 38, "": 89},
}
SHARED = ("attention", "feed_forward")


def config(shared="attention", groups=2, **changes):
    """Four layers, in two groups of two."""
    fields = {
        "num_layers": 4,
        "num_hidden_groups": groups,
        "shared_sublayers": shared,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }
    return tiny.bert(**(fields | changes))


def build(shared="attention", groups=2, **changes):
    """An encoder with random weights, biases included."""
    encoder = config(shared, groups, **changes).build_encoder()
    random = np.random.default_rng(1)
    for variable in encoder.trainable_variables:
        variable.assign(random.normal(0, 0.3, variable.shape))
    return encoder


def count(network):
    """The published formula: tables, projection, N groups or L layers."""
    width, inner = network.hidden_size, network.intermediate_size
    norm = 2 * width
    attention = 4 * (width**2 + width) + norm
    feed_forward = 2 * width * inner + inner + width + norm
    groups = network.num_hidden_groups or network.num_layers
    times = {"attention": network.num_layers, "feed_forward": groups}
    if network.shared_sublayers == "attention":
        times = {"attention": groups, "feed_forward": network.num_layers}
    if network.shared_sublayers == "all":
        times = dict.fromkeys(times, groups)
    rows = network.vocab_size + network.max_position_embeddings + 2
    embedding = network.embedding_width
    project = embedding * width + width if embedding != width else 0
    return (
        rows * embedding
        + 2 * embedding
        + project
        + times["attention"] * attention
        + times["feed_forward"] * feed_forward
        + width**2
        + width  # the pooler
    )


def separate(encoder):
    """The encoder that shares nothing, with the same weights in each layer."""
    other = dataclasses.replace(
        encoder.config, num_hidden_groups=None, shared_sublayers="all"
    ).build_encoder()
    for name in ("embeddings", "pooler", "final_norm"):
        if getattr(encoder, name):
            source, target = getattr(encoder, name), getattr(other, name)
            target.set_weights(source.get_weights())
    for source, target in zip(encoder.blocks, other.blocks, strict=True):
        for name in ("attention", "feed_forward"):
            for part in (name, f"{name}_norm"):
                getattr(target, part).set_weights(
                    getattr(source, part).get_weights()
                )
    return other


def gradients(encoder):
    """{path in the encoder: gradient} of a sum of the last hidden states."""
    with tf.GradientTape() as tape:
        outputs = encoder(**tiny.inputs(), training=True)
        loss = tf.reduce_sum(tf.sin(outputs["hidden"][-1]))
        loss += tf.reduce_sum(outputs["pooled"])
    paths = {
        path: variable.value
        for path, variable in checkpoint.weights(encoder).items()
    }
    return {
        path: tf.convert_to_tensor(gradient).numpy()
        for path, gradient in tape.gradient(loss, paths).items()
    }


class SharedSublayersTest(parameterized.TestCase):
    def test_parameters_are_those_of_table_4(self):
        base = bert_lib.named("base", vocab_size=30_000)
        for embedding_size, row in PUBLISHED.items():
            for shared, millions in row.items():
                network = dataclasses.replace(
                    base,
                    embedding_size=embedding_size,
                    num_hidden_groups=1 if shared else None,
                    shared_sublayers=shared or "all",
                )
                # BERT-base, 109.1, is 108 there.
                self.assertAlmostEqual(
                    count(network) / 1e6, millions, delta=1.1
                )

    @parameterized.product(
        shared=("all", *SHARED), groups=(1, 2, 4), embedding_size=(None, 8)
    )
    def test_an_encoder_has_as_many_parameters_as_the_formula(
        self, shared, groups, embedding_size
    ):
        network = config(shared, groups, embedding_size=embedding_size)
        encoder = network.build_encoder()
        self.assertEqual(encoder.count_params(), count(network))
        listed = sum(
            part.parameters for part in describe.parts(network, seq_length=8)
        )
        self.assertEqual(listed, count(network))

    @parameterized.parameters(*SHARED)
    def test_layers_of_a_group_have_one_sublayer_and_its_norm(self, shared):
        blocks = build(shared).blocks
        (other,) = {*SHARED} - {shared}
        for one, two in ((0, 1), (2, 3)):
            for part in (shared, f"{shared}_norm"):
                self.assertIs(
                    getattr(blocks[one], part), getattr(blocks[two], part)
                )
        for part in (shared, f"{shared}_norm"):
            self.assertLen({id(getattr(each, part)) for each in blocks}, 2)
        for part in (other, f"{other}_norm"):
            self.assertLen({id(getattr(each, part)) for each in blocks}, 4)

    @parameterized.product(shared=SHARED, norm_first=(False, True))
    def test_outputs_and_gradients_are_those_of_equal_layers(
        self, shared, norm_first
    ):
        encoder = build(shared, norm_first=norm_first)
        other = separate(encoder)
        for one, two in zip(
            encoder(**tiny.inputs())["hidden"],
            other(**tiny.inputs())["hidden"],
            strict=True,
        ):
            np.testing.assert_allclose(one, two, atol=1e-5)
        expected = {}
        for path, gradient in gradients(other).items():
            block = re.fullmatch(rf"block_(\d)/({shared}.*)", path)
            if block:  # variables are in the first block of a group of two
                path = f"block_{int(block[1]) // 2 * 2}/{block[2]}"
            expected[path] = expected.get(path, 0) + gradient
        actual = gradients(encoder)
        self.assertEqual(set(actual), set(expected))
        for path, gradient in actual.items():
            np.testing.assert_allclose(
                gradient, expected[path], atol=1e-4, err_msg=path
            )
            if not path.endswith("qkv/bias"):  # keys' biases have none
                self.assertGreater(np.abs(gradient).max(), 1e-6, path)

    @parameterized.parameters(*SHARED)
    def test_a_shared_sublayer_has_the_depth_of_its_first_layer(self, shared):
        encoder = build(shared)
        (other,) = {*SHARED} - {shared}
        depths = {}
        for path in checkpoint.weights(encoder):
            block, _, rest = path.partition("/")
            if rest.startswith(("attention", "feed_forward")):
                part = rest.partition("/")[0].removesuffix("_norm")
                depth = encoder.config.layer_index(f"encoder/{path}")
                depths.setdefault(part, set()).add((block, depth))
        self.assertEqual(depths[shared], {("block_0", 1), ("block_2", 3)})
        self.assertEqual(
            depths[other], {(f"block_{layer}", layer + 1) for layer in range(4)}
        )

    @parameterized.parameters(*SHARED)
    def test_a_checkpoint_and_a_keras_file_give_the_same_network(self, shared):
        encoder = build(shared)
        folder = self.create_tempdir().full_path
        model = model_lib.BertModel(encoder, tiny.classifier().task)
        checkpoint.save(folder, model, tiny.tokenizer(), step=0)
        source = checkpoint.read(folder)
        self.assertEqual(source.config, encoder.config)
        again = source.config.build_encoder()
        source.load_encoder(again)
        path = os.path.join(folder, "encoder.keras")
        encoder.save(path)
        for network in (again, keras.saving.load_model(path)):
            np.testing.assert_array_equal(
                network(**tiny.inputs())["pooled"],
                encoder(**tiny.inputs())["pooled"],
            )

    def test_a_frozen_sublayer_stays_frozen_in_a_file(self):
        encoder = build("attention")
        encoder.blocks[0].attention.trainable = False
        encoder.blocks[3].feed_forward.trainable = False
        again = bert_lib.BertEncoder.from_config(encoder.get_config())
        self.assertEqual(layers.frozen(again), layers.frozen(encoder))
        self.assertEqual(
            [each.path for each in again.trainable_variables],
            [each.path for each in encoder.trainable_variables],
        )

    def test_it_needs_groups(self):
        for value, message in (
            ("attention", "has no effect without groups"),
            ("norms", "must be one of all, attention, feed_forward"),
        ):
            with self.assertRaisesRegex(errors.InputError, message):
                tiny.bert(shared_sublayers=value)

    def test_a_damaged_number_of_layers_is_refused_before_it_is_built(self):
        shapes = {"embeddings/token": (36, 16), "block_0/attention/x": (1,)}
        config("attention", 1).check_shapes(shapes)
        network = config("attention", 1, num_layers=1000)
        with self.assertRaisesRegex(errors.InputError, "1000 in the model"):
            network.check_shapes(shapes)

    def test_a_decoder_of_blocks_refuses_it(self):
        with self.assertRaisesRegex(errors.InputError, "shared_sublayers"):
            decoders.config_for(config("attention"))
        decoders.config_for(config("attention"), kind="gru")
        decoders.config_for(config("all"))


if __name__ == "__main__":
    absltest.main()
