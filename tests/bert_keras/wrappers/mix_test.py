"""Mix: learned sums of a network's layers, for every task and network."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, loading, predictor
from bert_keras import model as model_lib
from bert_keras.networks import base as networks
from bert_keras.tasks import causal_lm, classification, tagging
from bert_keras.wrappers import base, mix, r_drop
from tests import tiny

NETWORKS = {
    "bert": (tiny.bert, tiny.inputs),
    "elmo": (tiny.elmo, tiny.elmo_inputs),
    "rnn": (tiny.rnn, tiny.inputs),
}
W, GAMMA = np.array([0.5, -1.0, 0.25]), 1.75


def model_of(network, task, **changes):
    keras.utils.set_random_seed(1)
    config, _ = NETWORKS[network]
    model = model_lib.BertModel(config(**changes).build_encoder(), task)
    wrapper = next(
        (each for each in base.all_of(task) if isinstance(each, mix.Mix)), None
    )
    if wrapper:
        head = model.head.mix
        head.layer_bias.assign(W[: len(head.indices)])
        head.gamma.assign(GAMMA)
    return model


def tagger(**settings):
    return mix.Mix(tagging.Tagging(types=("PER",), seq_length=32), **settings)


class MixTest(parameterized.TestCase):
    @parameterized.product(network=tuple(NETWORKS), layer_norm=(False, True))
    def test_the_task_reads_the_papers_sum(self, network, layer_norm):
        model = model_of(network, tagger(layer_norm=layer_norm))
        inputs = NETWORKS[network][1]()
        hidden = [
            x.numpy().astype(float)
            for x in networks.encode(model.encoder, inputs)["hidden"]
        ]
        if layer_norm:
            hidden = [
                (x - x.mean(-1, keepdims=True))
                / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
                for x in hidden
            ]
        share = np.exp(W) / np.exp(W).sum()
        mixed = GAMMA * sum(s * x for s, x in zip(share, hidden, strict=True))
        head = model.head.tag.score
        expected = mixed @ head.kernel.numpy() + head.bias.numpy()
        real = inputs["padding_mask"].numpy() > 0
        np.testing.assert_allclose(
            model(inputs)["tag"].numpy()[real], expected[real], atol=2e-5
        )

    @parameterized.parameters(("0", (0,)), ("0,2", (0, 2)), ("all", (0, 1, 2)))
    def test_layers_are_chosen(self, layers, indices):
        model = model_of("elmo", tagger(layers=layers))
        self.assertEqual(model.head.mix.indices, indices)
        ids = tiny.elmo_inputs()
        changed = dict(ids)
        numbers = ids["characters"].numpy()
        numbers[0, 5] = numbers[0, 6]
        changed["characters"] = tf.constant(numbers)
        difference = np.abs(model(ids)["tag"] - model(changed)["tag"])[0]
        at = difference.max(-1) > 1e-7
        # Layer 0 alone has no context: the tag of the changed word changes.
        self.assertEqual(at.sum() == 1, layers == "0")
        self.assertTrue(at[5])

    @parameterized.parameters("bert", "elmo")
    def test_the_pooled_text_is_the_mixs_mean(self, network):
        task = mix.Mix(classification.Classification(labels=("bad", "good")))
        model = model_of(network, task)
        inputs = NETWORKS[network][1]()
        hidden = networks.encode(model.encoder, inputs)["hidden"]
        mixed = model.head.mix(hidden).numpy()
        mask = inputs["padding_mask"].numpy()[..., None]
        pooled = (mixed * mask).sum(1) / mask.sum(1)
        head = model.head.label.score
        np.testing.assert_allclose(
            model(inputs)["label"],
            pooled @ head.kernel.numpy() + head.bias.numpy(),
            atol=1e-5,
        )

    def test_a_task_that_would_predict_without_it_is_refused(self):
        task = causal_lm.CausalLM().adapt([], tiny.tokenizer())
        with self.assertRaisesRegex(errors.InputError, "with the last layer"):
            model_of("bert", mix.Mix(r_drop.RDrop(task)), causal=True)

    def test_l2_is_a_term_of_the_loss(self):
        task = tagger(l2=0.1)
        model = model_of("elmo", task)
        inputs = tiny.elmo_inputs()
        inputs["padding_mask"] *= tf.constant(
            [[1], [1], [1], [0]]
        )  # a row of none
        labels = tf.zeros((4, 12), tf.int32), tf.ones((4, 12))
        features, targets = task.randomize(
            inputs, {"tag": labels}, tf.zeros((4, 2), tf.int32)
        )
        _, weights = targets["mix"]
        np.testing.assert_array_equal(weights, [1, 1, 1, 0])
        with tf.GradientTape() as tape:
            outputs = model(features, targets, training=False)
            terms = task.loss(outputs, features, targets)
            mean = terms["mix"] / tf.reduce_sum(weights)
        np.testing.assert_allclose(mean, 0.1 * (W**2).sum(), rtol=1e-6)
        gradient = tape.gradient(mean, model.head.mix.layer_bias.value)
        np.testing.assert_allclose(gradient, 0.2 * W, rtol=1e-6)
        self.assertEqual(
            set(task.task.loss(outputs, features, targets)), {"tag"}
        )

    def test_its_weights_do_not_decay(self):
        from bert_keras import optimizers

        model = model_of("elmo", tagger())
        optimizer = optimizers.Optimizer(
            model.head.mix.trainable_variables,
            rule=optimizers.AdamW(),
            schedule=optimizers.Schedule(1.0, 0, 10),
        )
        self.assertEqual(optimizer.decays, [0.0, 0.0])

    @parameterized.parameters("bert", "elmo")
    @pytest.mark.slow_after(1)
    def test_is_served(self, network):
        tokenizer = tiny.tokenizer() if network == "bert" else tiny.characters()
        task = mix.Mix(classification.Classification(labels=("bad", "good")))
        model = model_of(network, task)
        folder = os.path.join(self.create_tempdir().full_path, "run")
        checkpoint.save(folder, model, tokenizer, step=0)
        texts = ["a good film", "dull", ""]
        answers = predictor.Predictor(model, tokenizer).predict(texts)
        again = predictor.load(folder)
        self.assertEqual(again.task, task)
        self.assertEqual(again.predict(texts), answers)
        saved = checkpoint.read(folder)
        np.testing.assert_array_equal(
            saved.head_values()["mix/layer_bias"], W.astype(np.float32)
        )

    def test_a_task_takes_over_the_heads_of_the_same_mix(self):
        folder = os.path.join(self.create_tempdir().full_path, "run")
        checkpoint.save(
            folder, model_of("elmo", tagger()), tiny.characters(), step=0
        )
        source = checkpoint.read(folder)
        self.assertEqual(source.matching_heads(tagger(layers="0,1")), {"tag"})
        model = loading.load_model(source, tagger(l2=1.0))
        np.testing.assert_allclose(model.head.mix.layer_bias, W)

    def test_r_drop_in_it_runs_twice(self):
        inner = tagging.Tagging(types=("PER",), seq_length=32)
        task = mix.Mix(r_drop.RDrop(inner))
        outputs = model_of("elmo", task)(
            tiny.elmo_inputs(), {"tag": None}, training=True
        )
        self.assertEqual(set(outputs), {"tag", "r_drop/tag"})

    @parameterized.parameters("", "x", "-1", "0,0", "1.5", "0,,1")
    def test_wrong_layers_are_refused(self, layers):
        with self.assertRaisesRegex(errors.InputError, "expected all, or"):
            tagger(layers=layers)

    def test_layers_that_the_network_lacks_are_refused(self):
        with self.assertRaisesRegex(errors.InputError, "has the layers 0 to 2"):
            model_of("elmo", tagger(layers="3"))


if __name__ == "__main__":
    absltest.main()
