import numpy as np
import tensorflow as tf
from absl.testing import absltest

from bert_keras.data import masking

VOCAB, MASK, CLS, SEP = 1000, 4, 2, 3


def draw(token_ids, padding_mask, seeds):
    values = masking.mask_tokens(
        tf.constant(token_ids, tf.int32),
        tf.constant(padding_mask, tf.int32),
        tf.constant(seeds, tf.int32),
        share=0.15,
        mask_id=MASK,
        special_ids=(CLS, SEP),
        vocab_size=VOCAB,
    )
    return [value.numpy() for value in values]


def rows(count, length=100, seed=0):
    token_ids = np.random.default_rng(seed).integers(5, VOCAB, (count, length))
    token_ids[:, 0], token_ids[:, -1] = CLS, SEP
    return token_ids


def seeds(count, step=0):
    return np.stack([np.full(count, step), np.arange(count)], axis=1)


class MaskTokensTest(absltest.TestCase):
    def test_shares_are_the_papers(self):
        token_ids = rows(2000)
        mask = np.ones_like(token_ids)
        masked, positions, labels, weights = draw(token_ids, mask, seeds(2000))
        np.testing.assert_array_equal(weights.sum(axis=1), 15)
        there = np.take_along_axis(masked, positions, axis=1)[weights > 0]
        before = labels[weights > 0]
        # 30,000 draws: one standard deviation is 0.23 points.
        self.assertAlmostEqual((there == MASK).mean(), 0.8, delta=0.01)
        self.assertAlmostEqual((there == before).mean(), 0.1, delta=0.01)

    def test_labels_are_what_stood_there_and_all_else_is_untouched(self):
        token_ids = rows(50)
        masked, positions, labels, weights = draw(
            token_ids, np.ones_like(token_ids), seeds(50)
        )
        chosen = np.zeros(token_ids.shape, bool)
        for row in range(50):
            places = positions[row][weights[row] > 0]
            self.assertTrue((np.diff(places) > 0).all())
            np.testing.assert_array_equal(
                labels[row][weights[row] > 0], token_ids[row][places]
            )
            chosen[row, places] = True
        np.testing.assert_array_equal(masked[~chosen], token_ids[~chosen])
        self.assertFalse(chosen[:, [0, -1]].any())

    def test_places_are_spread_evenly(self):
        token_ids = rows(4000, length=20)
        _, positions, _, weights = draw(
            token_ids, np.ones_like(token_ids), seeds(4000)
        )
        counts = np.bincount(positions[weights > 0], minlength=20)[1:-1]
        self.assertLess(counts.std() / counts.mean(), 0.06)

    def test_padding_is_never_chosen_and_empty_rows_have_no_weight(self):
        token_ids = rows(3)
        mask = np.ones_like(token_ids)
        mask[0, 10:], mask[1] = 0, 0
        token_ids *= mask
        masked, positions, _, weights = draw(token_ids, mask, seeds(3))
        self.assertLess(positions[0].max(), 10)
        self.assertEqual(weights.sum(axis=1).tolist(), [2, 0, 15])
        np.testing.assert_array_equal(masked[1], 0)

    def test_a_rows_draw_depends_on_its_seed_alone(self):
        token_ids = rows(8)
        mask = np.ones_like(token_ids)
        whole = draw(token_ids, mask, seeds(8))
        part = draw(token_ids[3:5], mask[3:5], seeds(8)[3:5])
        for one, two in zip(whole, part, strict=True):
            np.testing.assert_array_equal(one[3:5], two)
        other = draw(token_ids, mask, seeds(8, step=1))
        self.assertFalse(np.array_equal(whole[1], other[1]))

    def test_finds_the_masks_of_a_text(self):
        ids = tf.constant([[2, 4, 9, 4, 3], [2, 9, 9, 3, 0]])
        positions, valid = masking.mask_positions(ids, MASK, 3)
        self.assertEqual(positions.numpy().tolist(), [[1, 3, 0], [0, 0, 0]])
        self.assertEqual(valid.numpy().sum(), 2)


if __name__ == "__main__":
    absltest.main()
