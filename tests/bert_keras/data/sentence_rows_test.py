"""Rows of sentences: special tokens, segments, and what does not fit."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras.data import sentence_rows
from bert_keras.tokenizers import base
from tests import tiny

FRAME = base.Frame((2,), (3,), (3,))


def pack(texts, frame=FRAME, **settings):
    """texts: a list of sentences each, which are lists of ids."""
    ids = tf.ragged.constant(
        [sentence for text in texts for sentence in text],
        ragged_rank=1,
        dtype=tf.int32,
    )
    count = tf.constant([len(text) for text in texts], tf.int64)
    settings = {"seq_length": 20, "max_sentences": 9} | settings
    features = sentence_rows.pack(ids, count, frame, **settings)
    return {name: value.numpy().tolist() for name, value in features.items()}


class PackTest(parameterized.TestCase):
    def test_the_example_of_the_module(self):
        rows = pack([[[7, 8], [9], [6, 6]], [[5]]])
        self.assertEqual(
            rows,
            {
                "token_ids": [
                    [2, 7, 8, 3, 2, 9, 3, 2, 6, 6, 3],
                    [2, 5, 3] + 8 * [0],
                ],
                "segment_ids": [
                    [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0],
                    11 * [0],
                ],
                "padding_mask": [11 * [1], 3 * [1] + 8 * [0]],
                "example_index": [0, 1],
                "truncated": [False, False],
                "num_read": [3, 1],
            },
        )

    @parameterized.parameters(
        # (seq_length, ids of the row, sentences in it, whether it is cut)
        (11, [2, 7, 8, 3, 2, 9, 3, 2, 6, 6, 3], 3, False),
        (10, [2, 7, 8, 3, 2, 9, 3, 2, 6, 3], 3, True),
        (9, [2, 7, 8, 3, 2, 9, 3], 2, True),  # no room for a token
        (7, [2, 7, 8, 3, 2, 9, 3], 2, True),
        (6, [2, 7, 8, 3], 1, True),
        (4, [2, 7, 8, 3], 1, True),
        (3, [2, 7, 3], 1, True),
    )
    def test_what_does_not_fit_is_not_in_the_row(
        self, length, ids, count, truncated
    ):
        texts = [[[7, 8], [9], [6, 6]], [[5]]]
        rows = pack(texts, seq_length=length)
        self.assertEqual(rows["token_ids"][0], ids)
        self.assertEqual(rows["num_read"], [count, 1])
        self.assertEqual(rows["truncated"], [truncated, False])

    def test_no_sentence_is_read_after_one_that_is_not(self):
        rows = pack([[[7], 9 * [8], [9]]], seq_length=8)
        self.assertEqual(rows["token_ids"], [[2, 7, 3, 2, 8, 8, 8, 3]])
        rows = pack([[[7], 9 * [8], [9]]], seq_length=6)
        self.assertEqual(rows["num_read"], [2])
        rows = pack([[[7], 9 * [8], [9]]], seq_length=5)
        self.assertEqual(rows["token_ids"], [[2, 7, 3]])

    def test_at_most_so_many_sentences_are_read(self):
        rows = pack([[[7], [8], [9]], [[5]]], max_sentences=2)
        self.assertEqual(rows["token_ids"][0], [2, 7, 3, 2, 8, 3])
        self.assertEqual(rows["num_read"], [2, 1])
        self.assertEqual(rows["truncated"], [True, False])

    def test_a_sentence_without_tokens_has_its_frame(self):
        rows = pack([[[7], [], [9]]])
        self.assertEqual(rows["token_ids"], [[2, 7, 3, 2, 3, 2, 9, 3]])
        self.assertEqual(rows["num_read"], [3])
        self.assertEqual(pack([[[7], []]], seq_length=5)["num_read"], [2])
        rows = pack([[[7], []]], seq_length=4)
        self.assertEqual((rows["num_read"], rows["truncated"]), ([1], [True]))

    def test_a_text_in_the_middle_may_have_no_sentences(self):
        rows = pack([[[7]], [], [[8], [9]]])
        self.assertEqual(
            rows["token_ids"],
            [[2, 7, 3, 0, 0, 0], 6 * [0], [2, 8, 3, 2, 9, 3]],
        )
        self.assertEqual(rows["num_read"], [1, 0, 2])
        self.assertEqual(rows["truncated"], [False] * 3)

    def test_tokens_of_several_ids(self):
        frame = base.Frame(((2, 2),), (), ((3, 3),), feature="characters")
        rows = pack([[[[7, 1], [8, 1]], [[9, 1]]]], frame, seq_length=6)
        ids = [[2, 2], [7, 1], [8, 1], [3, 3]]
        self.assertEqual(rows["characters"], [ids])
        self.assertEqual(rows["segment_ids"], [4 * [0]])

    def test_elmos_words_are_found_again(self):
        tokenizer = tiny.characters()
        ids = tokenizer(tf.constant(["a film", "很 好"]))
        features = sentence_rows.pack(
            ids,
            tf.constant([2], tf.int64),
            tokenizer.frame,
            seq_length=9,
            max_sentences=3,
        )
        for token, expected in (
            (tokenizer.frame.start[0], [[0, 4, -1]]),
            (tokenizer.frame.end[-1], [[3, 7, -1]]),
        ):
            found = sentence_rows.positions(features["characters"], token, 3)
            self.assertEqual(found.numpy().tolist(), expected)

    def test_no_texts_have_no_rows(self):
        rows = pack([])
        self.assertEqual(np.shape(rows["token_ids"])[0], 0)
        self.assertEqual(rows["num_read"], [])


class PositionsTest(absltest.TestCase):
    def test_positions_are_ascending_and_padded(self):
        ids = tf.constant([[2, 7, 3, 2, 9, 3], [2, 3, 0, 0, 0, 0], 6 * [5]])
        for token, count, expected in (
            (2, 3, [[0, 3, -1], [0, -1, -1], [-1, -1, -1]]),
            (3, 3, [[2, 5, -1], [1, -1, -1], [-1, -1, -1]]),
            (2, 1, [[0], [0], [-1]]),
            (2, 8, [[0, 3] + 6 * [-1], [0] + 7 * [-1], 8 * [-1]]),
        ):
            found = sentence_rows.positions(ids, (token,), count)
            self.assertEqual(found.numpy().tolist(), expected)
            self.assertEqual(found.dtype, tf.int32)


if __name__ == "__main__":
    absltest.main()
