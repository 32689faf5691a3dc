import os

import tensorflow as tf
from absl.testing import absltest

from bert_keras import predictor, signatures
from tests import tiny


class Words(tf.Module):
    """A tokenizer that holds a resource: a table of words."""

    def __init__(self):
        super().__init__()
        keys = tf.constant(["good", "bad"])
        values = tf.range(1, 3)
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(keys, values), 0
        )

    def __call__(self, texts):
        return self.table.lookup(texts)


class Characters:
    """What a network of characters states of its inputs."""

    inputs = {"characters": (5,), "padding_mask": ()}


class SignaturesTest(absltest.TestCase):
    def save(self, words, **kept):
        model = predictor.Predictor(tiny.classifier(), tiny.tokenizer())
        folder = os.path.join(self.create_tempdir().full_path, "saved")
        specs = {"text": tf.TensorSpec((None,), tf.string, name="text")}
        signatures.save(
            model,
            folder,
            {"ids": (lambda text: {"ids": words(text)}, specs)},
            **kept,
        )
        return folder

    def test_the_resources_of_a_tokenizer_are_saved_with_the_graphs(self):
        words = Words()
        path = self.save(words, tokenizer=words)
        served = tf.saved_model.load(path).signatures["ids"]
        ids = served(text=tf.constant(["bad", "good", "film"]))["ids"]
        self.assertEqual(ids.numpy().tolist(), [2, 1, 0])

    def test_without_the_tokenizer_its_resources_stop_the_save(self):
        with self.assertRaisesRegex(AssertionError, "untracked"):
            self.save(Words())

    def test_the_networks_inputs_are_named_and_padded_in_their_order(self):
        specs = signatures.token_specs(tiny.bert(), 1, 8)
        self.assertEqual(
            list(specs), ["token_ids", "segment_ids", "padding_mask"]
        )
        self.assertEqual(
            {spec.shape.as_list() == [1, 8] for spec in specs.values()}, {True}
        )
        features = {
            "characters": tf.ones((2, 3, 5), tf.int32),
            "padding_mask": tf.ones((2, 3), tf.int32),
            "example_index": tf.range(2),
        }
        padded = signatures.padded(features, Characters, 4)
        self.assertEqual(
            {name: value.shape.as_list() for name, value in padded.items()},
            {"characters": [2, 4, 5], "padding_mask": [2, 4]},
        )
        self.assertEqual(int(tf.reduce_sum(padded["padding_mask"])), 6)


if __name__ == "__main__":
    absltest.main()
