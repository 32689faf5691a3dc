"""pair_order=both: the order of two texts does not change the answer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors, formats, predictor
from bert_keras import model as model_lib
from bert_keras.networks import bert
from bert_keras.serving import saved_model
from bert_keras.tasks import classification
from tests import sharp, tiny

PAIRS = [
    ("a good film", "not bad"),
    ("the very old plot " * 9, "dull"),
    ("", "a"),
]
EXCHANGED = [pair[::-1] for pair in PAIRS]
BOTH = {"pair": True, "pair_order": "both", "seq_length": 16}
NETWORKS = {"bert": {}, "gpt": bert.GPT}
TANH = {"activation": "gelu_tanh"}


def make(network="bert", **settings):
    keras.utils.set_random_seed(1)
    settings = {"labels": ("bad", "good", "so so")} | BOTH | settings
    model = model_lib.BertModel(
        bert.BertEncoder(tiny.bert(**NETWORKS.get(network, TANH))),
        classification.Classification(**settings),
    )
    sharp.spread(model, 1)
    return predictor.Predictor(model, tiny.tokenizer())


class PairOrderTest(parameterized.TestCase):
    @parameterized.product(
        network=tuple(NETWORKS), problem_type=("single_label", "regression")
    )
    @pytest.mark.slow_after(1)
    def test_exchanged_texts_have_the_same_answer(self, network, problem_type):
        labels = () if problem_type == "regression" else ("a", "b")
        model = make(network, problem_type=problem_type, labels=labels)
        key = "value" if problem_type == "regression" else "scores"
        answers = model.predict(PAIRS + EXCHANGED)
        values = np.array([answer[key] for answer in answers])
        np.testing.assert_allclose(values[:3], values[3:], atol=1e-6)
        one = make(
            network, problem_type=problem_type, labels=labels, pair_order="one"
        )
        values = [answer[key] for answer in one.predict(PAIRS + EXCHANGED)]
        difference = np.abs(np.array(values[:3]) - np.array(values[3:]))
        self.assertGreater(difference.max(), 1e-3)

    @parameterized.parameters(
        *((network, "first") for network in NETWORKS),
        ("bert", "mean"),
        ("bert", "layers"),
        ("bert", "last"),
        ("bert", "concat"),
    )
    @pytest.mark.slow_after(2)
    def test_the_vectors_of_both_orders_are_added(self, network, pooling):
        """Radford et al. 2018, section 3.3: before the linear layer."""
        model = make(
            network, pooling=pooling, problem_type="regression", labels=()
        )
        head = model.model.head.label
        vectors = 0.0
        for pairs in (PAIRS, EXCHANGED):
            task = classification.Classification(pair=True, seq_length=16)
            raw = dict(
                zip(
                    task.text_columns,
                    map(tf.constant, zip(*pairs, strict=True)),
                    strict=True,
                )
            )
            features = task.preprocess(raw, model.tokenizer)
            encoder = model.model.encoder
            encoded = encoder(**{n: features[n] for n in encoder.config.inputs})
            pooled = head.pooling(encoded, features["padding_mask"])
            vectors += np.float64(pooled.numpy())
        expected = vectors @ head.score.kernel.numpy() + head.score.bias.numpy()
        values = [answer["value"] for answer in model.predict(PAIRS)]
        np.testing.assert_allclose(values, expected[:, 0], atol=1e-4)

    @pytest.mark.slow
    def test_a_saved_model_answers_alike(self):
        model = make()
        folder = self.create_tempdir().full_path
        path = saved_model.export(model, f"{folder}/model")
        difference = saved_model.compare(
            tf.saved_model.load(path), model, max_characters=100, max_entities=4
        )
        self.assertLess(difference.distance, 1e-5)
        self.assertEqual(difference.agreement, 1.0)

    def test_what_cannot_be_is_refused(self):
        model = make()
        with self.assertRaisesRegex(errors.InputError, "as a SavedModel"):
            model.task.for_device()
        for name, written in (
            ("hugging_face", model),
            ("google", make("tanh")),
        ):
            with self.assertRaisesRegex(errors.InputError, "pair_order both"):
                formats.FORMATS[name].write(
                    f"{self.create_tempdir().full_path}/x",
                    written.model,
                    written.tokenizer,
                )
        task = classification.Classification(pair_order="both")
        rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
        with self.assertRaisesRegex(errors.InputError, "expected pairs"):
            task.adapt(rows, None)

    def test_a_head_of_one_order_is_another_head(self):
        one, both = (
            classification.Classification(labels=("a", "b"), pair=True, **more)
            for more in ({}, {"pair_order": "both"})
        )
        self.assertNotEqual(one.head_signatures, both.head_signatures)
        self.assertEqual(
            one.head_signatures["label"], [["a", "b"], "single", "first"]
        )


if __name__ == "__main__":
    absltest.main()
