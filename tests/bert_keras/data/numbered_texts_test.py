"""Several texts in one row: joined, and separated as they were."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest

from bert_keras.data import numbered_texts, packing
from tests import tiny

NAMES = ("token_ids", "segment_ids", "padding_mask")


def rows():
    tokenizer = tiny.tokenizer()
    texts = [["a good film", "bad", "very old plot .", "dull"], ["", "not"] * 2]
    segments = [tokenizer(tf.constant(column)) for column in texts]
    packed = packing.pack(segments, tokenizer.frame, seq_length=16)
    # Two texts, none, two texts.
    return packed | {"example_index": tf.constant([0, 0, 2, 2])}


def joined(count=3):
    return numbered_texts.join(
        rows(),
        tf.constant([1, 2, 1, 2]),
        feature="token_ids",
        num_examples=tf.constant(count),
    )


class NumberedTextsTest(absltest.TestCase):
    def test_joined_rows_have_their_texts_one_after_the_other(self):
        before, features = rows(), joined()
        lengths = before["padding_mask"].numpy().sum(axis=1)
        for example in (0, 2):
            parts = [2 * (example // 2) + text for text in (0, 1)]
            expected = np.concatenate(
                [before["token_ids"][part, : lengths[part]] for part in parts]
            )
            row = features["token_ids"][example, : len(expected)]
            np.testing.assert_array_equal(row, expected)
        mask = features["padding_mask"].numpy()
        self.assertEqual(mask[1].sum(), 0)
        self.assertEqual((mask[2] == 2).sum(), lengths[3])

    def test_separated_rows_are_those_of_before(self):
        for static in (False, True):
            features = joined()
            index = numbered_texts.text_index
            if static:  # as in a graph for XLA or TFLite
                index = tf.function(index, autograph=False)
            features[numbered_texts.INDEX] = index(
                features["padding_mask"], num_texts=2, max_length=16
            )
            separate = numbered_texts.separate(features, NAMES)
            before = rows()
            width = before["token_ids"].shape[1]
            for name in NAMES:
                value = separate[name].numpy()
                self.assertEqual(value.shape[0], 6)
                self.assertEqual(value[:, width:].sum(), 0)
                np.testing.assert_array_equal(
                    value[[0, 1, 4, 5], :width], before[name], name
                )
                self.assertEqual(value[2:4].sum(), 0)

    def test_lengths_are_bounded_and_few(self):
        mask = tf.constant([[1] * 9 + [2] * 3])
        for longest, width in ((16, 16), (9, 9)):
            index = numbered_texts.text_index(
                mask, num_texts=2, max_length=longest
            )
            self.assertEqual(index.shape, (1, 2, width))

    def test_features_of_any_shape_are_separated(self):
        """As characters, ELMo's input: (B, S, 50)."""
        features = joined()
        features[numbered_texts.INDEX] = numbered_texts.text_index(
            features["padding_mask"], num_texts=2, max_length=16
        )
        ids = features["token_ids"]
        features["wide"] = tf.stack([ids, 2 * ids], axis=-1)
        separate = numbered_texts.separate(features, (*NAMES, "wide"))
        np.testing.assert_array_equal(
            separate["wide"][..., 1], 2 * separate["token_ids"]
        )

    def test_both_orders_are_packed_as_alone(self):
        tokenizer = tiny.tokenizer()
        first, second = (
            tokenizer(tf.constant(texts))
            for texts in (
                ["a good film", "dull"],
                ["not bad", "a very old plot"],
            )
        )
        features = numbered_texts.both_orders(
            [first, second], tokenizer.frame, seq_length=8
        )
        for number, pair in ((1, [first, second]), (2, [second, first])):
            alone = packing.pack(pair, tokenizer.frame, seq_length=8)
            for row in (0, 1):
                is_text = features["padding_mask"][row].numpy() == number
                length = alone["padding_mask"][row].numpy().sum()
                for name in ("token_ids", "segment_ids"):
                    np.testing.assert_array_equal(
                        features[name][row].numpy()[is_text],
                        alone[name][row, :length],
                    )


if __name__ == "__main__":
    absltest.main()
