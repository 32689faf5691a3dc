import numpy as np
import tensorflow as tf
from absl.testing import absltest

from bert_keras.data import noise

MASK, FIRST = 4, 10


def rows(count=300, length=40, seed=0):
    """Returns ids [2 ... 3 0 0], is_token, ordinary; row r is r % 9 shorter."""
    random = np.random.default_rng(seed)
    ids = random.integers(FIRST, 99, (count, length)).astype(np.int32)
    ends = length - 1 - np.arange(count) % 9
    position = np.arange(length)
    ids[:, 0] = 2
    ids[np.arange(count), ends] = 3
    is_token = position <= ends[:, None]
    ids *= is_token
    return ids, is_token, ids >= FIRST


def uniform(shape, seed=1):
    return tf.constant(np.random.default_rng(seed).random(shape), tf.float32)


def content(ids, left=None):
    left = ids > 0 if left is None else np.asarray(left) > 0
    return [
        row[here].tolist()
        for row, here in zip(np.asarray(ids), left, strict=True)
    ]


class NoiseTest(absltest.TestCase):
    def test_a_share_of_the_ordinary_tokens_is_masked(self):
        ids, _, ordinary = rows()
        masked = noise.mask(
            ids, ordinary, uniform(ids.shape), share=0.3, mask_id=MASK
        ).numpy()
        changed = masked != ids
        self.assertFalse((changed & ~ordinary).any())
        self.assertTrue((masked[changed] == MASK).all())
        self.assertAlmostEqual(changed[ordinary].mean(), 0.3, delta=0.01)

    def test_deleted_tokens_leave_no_gap(self):
        ids, is_token, ordinary = rows()
        deleted = ordinary & (uniform(ids.shape) < 0.3)
        after, left = noise.delete(ids, is_token, deleted)
        expected = content(ids, is_token & ~deleted.numpy())
        self.assertEqual(content(after, left), expected)
        # Padding is at the end, and 0.
        self.assertTrue((np.diff(left, axis=1) <= 0).all())
        self.assertTrue((after.numpy()[left.numpy() == 0] == 0).all())

    def test_the_example_of_deleting(self):
        ids = tf.constant([[2, 7, 8, 9, 3]])
        after, left = noise.delete(
            ids, ids > 0, tf.constant([[False, False, True, False, False]])
        )
        self.assertEqual(after.numpy().tolist(), [[2, 7, 9, 3, 0]])
        self.assertEqual(left.numpy().tolist(), [[1, 1, 1, 1, 0]])

    def test_swapped_tokens_move_a_little(self):
        _, is_token, ordinary = rows()
        ids = np.where(ordinary, FIRST + np.arange(40), 0) + np.where(
            is_token & ~ordinary, [2] + [3] * 39, 0
        )
        after = noise.swap(ids, ordinary, uniform(ids.shape)).numpy()
        np.testing.assert_array_equal(after[~ordinary], ids[~ordinary])
        np.testing.assert_array_equal(np.sort(after), np.sort(ids))
        moved = np.abs(after - ids)[ordinary]
        self.assertEqual(moved.max(), noise.SWAP_DISTANCE)
        self.assertGreater((moved > 0).mean(), 0.5)

    def test_a_span_becomes_one_mask(self):
        ids = tf.constant([[2, 7, 8, 9, 3, 0]])
        starts = tf.constant([[1.0, 0.0, 1.0, 1.0, 1.0, 1.0]])
        # exp(-2) < 0.2 <= 3 exp(-2): one more token than the first.
        lengths = tf.fill([1, 6], 0.2)
        after, left = noise.spans(
            ids,
            ids > 0,
            ids > 5,
            starts,
            lengths,
            share=0.3,
            mask_id=MASK,
        )
        self.assertEqual(after.numpy().tolist(), [[2, MASK, 9, 3, 0, 0]])
        self.assertEqual(left.numpy().tolist(), [[1, 1, 1, 1, 0, 0]])

    def test_spans_cover_their_share_and_keep_the_rest_in_order(self):
        ids, is_token, ordinary = rows(2000)
        after, left = noise.spans(
            ids,
            is_token,
            ordinary,
            uniform(ids.shape),
            uniform(ids.shape, 2),
            share=0.3,
            mask_id=MASK,
        )
        kept = spans = 0
        for before, row in zip(content(ids), content(after, left), strict=True):
            rest = [token for token in row if token != MASK]
            iterator = iter(before)
            self.assertTrue(all(token in iterator for token in rest))
            self.assertEqual((row[0], row[-1]), (2, 3))
            self.assertNotIn((MASK, MASK), zip(row, row[1:], strict=False))
            kept += len(rest) - 2
            spans += row.count(MASK)
        covered = ordinary.sum() - kept
        # The first tokens of a row have fewer before them, where a span starts.
        self.assertAlmostEqual(covered / ordinary.sum(), 0.29, delta=0.015)
        self.assertAlmostEqual(covered / spans, 3.4, delta=0.4)

    def test_poisson_numbers_have_their_distribution(self):
        draws = noise.poisson(uniform((200_000,)), 2.0).numpy()
        self.assertAlmostEqual(draws.mean(), 2.0, delta=0.02)
        self.assertAlmostEqual(draws.var(), 2.0, delta=0.03)
        shares = np.bincount(draws, minlength=6)[:6] / len(draws)
        expected = [0.1353, 0.2707, 0.2707, 0.1804, 0.0902, 0.0361]
        np.testing.assert_allclose(shares, expected, atol=0.004)


class InsertSpanTest(absltest.TestCase):
    def test_a_span_that_just_fits_is_inserted_before_a_border(self):
        ids = tf.constant([[2, 7, 3, 0, 0]] * 2)
        source, _, offset = noise.insert_span(
            ids > 0,
            tf.constant([[False, True, True, False, False]] * 2),
            tf.constant([[0.0, 0.1, 0.0], [0.0, 0.9, 0.0]]),
            share=1.0,
            lengths=tf.constant([2]),
        )
        np.testing.assert_array_equal(
            offset, [[-1, 0, 1, -1, -1], [-1, -1, 0, 1, -1]]
        )
        moved = tf.where(offset < 0, tf.gather(ids, source, batch_dims=1), 9)
        np.testing.assert_array_equal(moved, [[2, 9, 9, 7, 3], [2, 7, 9, 9, 3]])


if __name__ == "__main__":
    absltest.main()
