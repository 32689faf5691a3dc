import functools

import numpy as np
import tensorflow as tf
from absl.testing import absltest

from bert_keras.data import hiding, masking

VOCAB, MASK, CLS, SEP = 1000, 4, 2, 3


mask_tokens = functools.partial(
    masking.mask_tokens,
    share=0.15,
    mask_id=MASK,
    special_ids=(CLS, SEP),
    vocab_size=VOCAB,
)


def apply_masks(token_ids, padding_mask, seeds, **options):
    values = mask_tokens(
        tf.constant(token_ids, tf.int32),
        tf.constant(padding_mask, tf.int32),
        tf.constant(seeds, tf.int32),
        **options,
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
        masked, positions, labels, weights = apply_masks(
            token_ids, mask, seeds(2000)
        )
        np.testing.assert_array_equal(weights.sum(axis=1), 15)
        replaced = np.take_along_axis(masked, positions, axis=1)[weights > 0]
        before = labels[weights > 0]
        # 30,000 draws: one standard deviation is 0.23 points.
        self.assertAlmostEqual((replaced == MASK).mean(), 0.8, delta=0.01)
        self.assertAlmostEqual((replaced == before).mean(), 0.1, delta=0.01)

    def test_random_tokens_are_of_the_whole_vocabulary(self):
        token_ids = rows(2000)
        masked, *_ = apply_masks(
            token_ids, np.ones_like(token_ids), seeds(2000)
        )
        replaced = (masked != token_ids) & (masked != MASK)
        drawn = masked[replaced]  # about 3,000, evenly from 0 to VOCAB - 1
        self.assertAlmostEqual(drawn.mean() / VOCAB, 0.5, delta=0.03)
        self.assertLess(drawn.min(), 0.01 * VOCAB)
        self.assertBetween(drawn.max(), 0.99 * VOCAB, VOCAB - 1)

    def test_of_a_short_row_one_token_is_chosen(self):
        # 15 % of 3 tokens would be none.
        token_ids = rows(5, length=3)
        _, positions, _, weights = apply_masks(
            token_ids, np.ones_like(token_ids), seeds(5)
        )
        self.assertEqual(weights.tolist(), [[1]] * 5)
        self.assertEqual(positions.tolist(), [[1]] * 5)

    def test_labels_are_what_stood_there_and_all_else_is_untouched(self):
        token_ids = rows(50)
        masked, positions, labels, weights = apply_masks(
            token_ids, np.ones_like(token_ids), seeds(50)
        )
        chosen = np.zeros(token_ids.shape, bool)
        for row in range(50):
            masked_positions = positions[row][weights[row] > 0]
            self.assertTrue((np.diff(masked_positions) > 0).all())
            np.testing.assert_array_equal(
                labels[row][weights[row] > 0], token_ids[row][masked_positions]
            )
            chosen[row, masked_positions] = True
        np.testing.assert_array_equal(masked[~chosen], token_ids[~chosen])
        self.assertFalse(chosen[:, [0, -1]].any())

    def test_rows_without_special_tokens_are_masked_completely(self):
        # Padding of the positions is position 0, which may be chosen, too.
        token_ids = np.random.default_rng(0).integers(5, VOCAB, (400, 16))
        masked, positions, labels, weights = apply_masks(
            token_ids,
            np.ones_like(token_ids),
            seeds(400),
            replacements=masking.Replacements(1.0, 0.0),
        )
        self.assertEqual(weights[0].tolist(), [1, 1, 0])
        first = (positions == 0) & (weights > 0)
        self.assertGreater(first.sum(), 10)
        np.testing.assert_array_equal((masked == MASK).sum(axis=1), 2)
        np.testing.assert_array_equal(masked[first.any(axis=1), 0], MASK)
        np.testing.assert_array_equal(labels[first], token_ids[first.any(1), 0])

    def test_places_are_spread_evenly(self):
        token_ids = rows(4000, length=20)
        _, positions, _, weights = apply_masks(
            token_ids, np.ones_like(token_ids), seeds(4000)
        )
        counts = np.bincount(positions[weights > 0], minlength=20)[1:-1]
        self.assertLess(counts.std() / counts.mean(), 0.06)

    def test_padding_is_never_chosen_and_empty_rows_have_no_weight(self):
        token_ids = rows(3)
        mask = np.ones_like(token_ids)
        mask[0, 10:], mask[1] = 0, 0
        token_ids *= mask
        masked, positions, _, weights = apply_masks(token_ids, mask, seeds(3))
        self.assertLess(positions[0].max(), 10)
        self.assertEqual(weights.sum(axis=1).tolist(), [2, 0, 15])
        np.testing.assert_array_equal(masked[1], 0)

    def test_a_rows_draw_depends_on_its_seed_alone(self):
        token_ids = rows(8)
        mask = np.ones_like(token_ids)
        whole = apply_masks(token_ids, mask, seeds(8))
        part = apply_masks(token_ids[3:5], mask[3:5], seeds(8)[3:5])
        for one, two in zip(whole, part, strict=True):
            np.testing.assert_array_equal(one[3:5], two)
        other = apply_masks(token_ids, mask, seeds(8, step=1))
        self.assertFalse(np.array_equal(whole[1], other[1]))

    def test_graphs_and_xla_draw_the_same(self):
        token_ids = tf.constant(rows(8), tf.int32)
        args = token_ids, tf.ones_like(token_ids), tf.constant(seeds(8))
        eager = mask_tokens(*args)
        compiled = tf.function(mask_tokens, jit_compile=True)(*args)
        data = tf.data.Dataset.from_tensors(args).map(mask_tokens)
        for values in (compiled, next(iter(data))):
            for one, two in zip(eager, values, strict=True):
                np.testing.assert_array_equal(one, two)

    def test_there_are_max_predictions_places(self):
        for length in range(8, 130):
            token_ids = rows(1, length)
            _, positions, _, _ = apply_masks(token_ids, token_ids > 0, seeds(1))
            self.assertEqual(
                positions.shape[1], masking.max_predictions(length, 0.15)
            )

    def test_no_more_than_places_are_chosen(self):
        token_ids = rows(40)
        mask = np.arange(100) < np.arange(1, 41)[:, None] * 2
        whole = apply_masks(token_ids, mask, seeds(40))
        capped = apply_masks(token_ids, mask, seeds(40), num_masks=5)
        self.assertEqual(capped[1].shape, (40, 5))
        np.testing.assert_array_equal(
            capped[3].sum(axis=1), np.minimum(whole[3].sum(axis=1), 5)
        )

    def test_other_shares_of_masks_and_random_tokens(self):
        token_ids = rows(2000)
        for mask_share, random_share in ((1.0, 0.0), (0.0, 1.0), (0.5, 0.2)):
            masked, positions, labels, weights = apply_masks(
                token_ids,
                np.ones_like(token_ids),
                seeds(2000),
                replacements=masking.Replacements(mask_share, random_share),
            )
            replaced = np.take_along_axis(masked, positions, axis=1)
            masks = (replaced == MASK)[weights > 0].mean()
            same = (replaced == labels)[weights > 0].mean()
            self.assertAlmostEqual(masks, mask_share, delta=0.01)
            kept = 1 - mask_share - random_share
            self.assertAlmostEqual(same, kept, delta=0.01)

    def test_random_tokens_by_frequency(self):
        counts = np.zeros(VOCAB, np.int64)
        counts[[7, 8, 999]] = 1, 2, 5
        token_ids = rows(2000)
        masked, positions, _, weights = apply_masks(
            token_ids,
            np.ones_like(token_ids),
            seeds(2000),
            replacements=masking.Replacements(0, 1, tuple(counts)),
        )
        drawn = np.take_along_axis(masked, positions, axis=1)[weights > 0]
        shares = np.bincount(drawn, minlength=VOCAB) / len(drawn)
        np.testing.assert_allclose(shares, counts / 8, atol=0.01)

    def words(self, length=100):
        """Words of three tokens, of which the last is cut."""
        starts = np.arange(length) % 3 == 0
        whole = np.arange(length) < length - 4
        tile = [np.tile(each, (500, 1)) for each in (starts, whole)]
        return hiding.Units(*map(tf.constant, tile))

    def test_words_are_masked_completely_and_within_the_share(self):
        token_ids = rows(500)
        _, positions, labels, weights = apply_masks(
            token_ids,
            np.ones_like(token_ids),
            seeds(500),
            units=self.words(),
        )
        chosen = np.zeros(token_ids.shape, bool)
        for row in range(500):
            places = positions[row][weights[row] > 0]
            self.assertTrue((np.diff(places) > 0).all())
            chosen[row, places] = True
            np.testing.assert_array_equal(
                labels[row][weights[row] > 0], token_ids[row][places]
            )
        self.assertFalse(chosen[:, -4:].any())
        # [CLS] is the first of three; its word has the other two.
        np.testing.assert_array_equal(chosen[:, 1], chosen[:, 2])
        words = chosen[:, 3:96].reshape(500, 31, 3)
        np.testing.assert_array_equal(words.any(2), words.all(2))
        counts = chosen.sum(axis=1)
        self.assertEqual(counts.max(), 15)
        self.assertGreater(counts.mean(), 14.7)

    def test_a_words_tokens_share_their_draw_if_asked(self):
        token_ids = rows(500)
        for whole in (True, False):
            masked, positions, labels, weights = apply_masks(
                token_ids,
                np.ones_like(token_ids),
                seeds(500),
                units=self.words(),
                replacements=masking.Replacements(0.5, 0.3, whole_groups=whole),
            )
            chosen = np.zeros(token_ids.shape, bool)
            for row in range(500):
                chosen[row, positions[row][weights[row] > 0]] = True
            action = np.where(masked == MASK, 0, 1 + (masked == token_ids))
            words = action[:, 3:96].reshape(500, 31, 3)
            words = words[chosen[:, 3:96].reshape(500, 31, 3).all(axis=2)]
            alike = (words == words[:, :1]).all(axis=1).mean()
            # A random token is the right one in 1 of 1,000 draws.
            low, high = (0.99, 1) if whole else (0.1, 0.25)
            self.assertBetween(alike, low, high)
            shares = np.bincount(words.ravel(), minlength=3) / words.size
            np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.03)

    def test_finds_the_masks_of_a_text(self):
        ids = tf.constant([[2, 4, 9, 4, 3], [2, 9, 9, 3, 0]])
        positions, valid = masking.mask_positions(ids, MASK, 3)
        self.assertEqual(positions.numpy().tolist(), [[1, 3, 0], [0, 0, 0]])
        self.assertEqual(valid.numpy().sum(), 2)


def splitmix(state, index):
    """Steele et al. 2014 in Python's integers."""
    value = (state + (index + 1) * 0x9E3779B97F4A7C15) % 2**64
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
    return value ^ value >> 31


def surprise(counts):
    """Chi-square of counts that should be equal, in standard deviations."""
    expected = counts.mean()
    chi_square = ((counts - expected) ** 2).sum() / expected
    freedom = counts.size - 1
    return (chi_square - freedom) / np.sqrt(2 * freedom)


class UniformTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # Neighbouring seeds, as streams give them: (seed, place).
        cls.drawn = {
            seed: masking.uniform(
                tf.constant(seeds(20_000, step=seed), tf.int32), 168
            ).numpy()
            for seed in (0, 1)
        }

    def test_equals_splitmix_in_whole_numbers(self):
        pairs = [[0, 0], [7, -1], [-(2**31), 2**31 - 1]]
        values = masking.uniform(tf.constant(pairs, tf.int32), 5).numpy()
        for (first, second), row in zip(pairs, values, strict=True):
            key = splitmix(splitmix(0, first), second)
            expected = [(splitmix(key, c) >> 40) / 2**24 for c in range(5)]
            self.assertEqual(row.tolist(), expected)

    def test_millions_are_uniform(self):
        for drawn in self.drawn.values():
            self.assertBetween(drawn.min(), 0, 1e-5)
            self.assertBetween(drawn.max(), 1 - 1e-5, 1 - 2**-24)
            for values in (drawn, drawn * 1024 % 1):  # high bits, middle bits
                counts, _ = np.histogram(values, 1024, (0, 1))
                self.assertLess(abs(surprise(counts)), 4)
            # Every column by itself: these choose the places.
            worst = max(
                abs(surprise(np.histogram(column, 100, (0, 1))[0]))
                for column in drawn.T
            )
            self.assertLess(worst, 5)

    def test_neighbours_do_not_know_each_other(self):
        zero, one = self.drawn.values()
        neighbours = {
            "rows": (zero[:-1], zero[1:]),
            "columns": (zero[:, :-1], zero[:, 1:]),
            "seeds": (zero, one),
            "diagonals": (zero[:-1, 1:], zero[1:, :-1]),
        }
        for name, pair in neighbours.items():
            with self.subTest(name):
                left, right = (values.ravel() for values in pair)
                correlation = np.corrcoef(left, right)[0, 1]
                self.assertLess(abs(correlation) * np.sqrt(left.size), 4)
                cells = np.bincount(
                    (left * 64).astype(int) * 64 + (right * 64).astype(int),
                    minlength=64 * 64,
                )
                self.assertLess(abs(surprise(cells)), 4)


if __name__ == "__main__":
    absltest.main()
