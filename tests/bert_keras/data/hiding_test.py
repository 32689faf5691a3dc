"""Groups of units are chosen like one after the other, and never in part."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras.data import hiding

ROWS, LENGTH = 60, 40


def draws(seed=0):
    random = np.random.default_rng(seed)
    starts = random.random((ROWS, LENGTH)) < 0.6
    maskable = random.random((ROWS, LENGTH)) < 0.93
    whole = random.random((ROWS, LENGTH)) < 0.97
    sizes, order = random.random((2, ROWS, LENGTH)).astype(np.float32)
    budget = random.integers(1, 12, ROWS)
    return starts, maskable, whole, sizes, order, budget


def choose(
    probabilities, starts, maskable, whole, sizes, order, budget, most=LENGTH
):
    chosen, group = hiding.choose(
        hiding.Units(tf.constant(starts), tf.constant(whole), probabilities),
        tf.constant(maskable),
        tf.constant(budget, tf.int32),
        most,
        sizes=tf.constant(sizes),
        order=tf.constant(order),
    )
    return chosen.numpy(), group.numpy()


def one_by_one(
    probabilities, starts, maskable, sizes, order, budget, most=LENGTH
):
    """The choice in a row, token by token and group by group."""
    limits = np.cumsum(np.float32(probabilities))
    limits /= limits[-1]
    groups, drawn, left = [], 0, 0
    for token in range(LENGTH):
        if not maskable[token]:
            continue
        follows = token and maskable[token - 1]
        if starts[token] or not follows:  # a unit begins
            if left == 0:
                left = 1 + np.searchsorted(limits[:-1], sizes[drawn], "right")
                drawn += 1
                groups.append([])
            elif not follows:
                groups.append([])
            left -= 1
        groups[-1].append(token)
    chosen = np.zeros(LENGTH, bool)
    shortest = min(map(len, groups), default=most + 1)
    budget = 0 if shortest > most else max(budget, shortest)
    for number in np.argsort(order[: len(groups)], kind="stable"):
        if len(groups[number]) <= budget:
            budget -= len(groups[number])
            chosen[groups[number]] = True
    return chosen, groups


class HidingTest(parameterized.TestCase):
    @parameterized.parameters(*hiding.GROUPS)
    def test_the_choice_is_that_of_one_group_after_the_other(self, name):
        starts, maskable, whole, sizes, order, budget = draws()
        probabilities = hiding.GROUPS[name]
        chosen, _ = choose(
            probabilities, starts, maskable, whole, sizes, order, budget
        )
        for row in range(ROWS):
            expected, _ = one_by_one(
                probabilities,
                starts[row],
                maskable[row] & whole[row],
                sizes[row],
                order[row],
                budget[row],
            )
            np.testing.assert_array_equal(chosen[row], expected)
        self.assertGreater(chosen.sum(), 0.8 * budget.sum())

    def test_groups_are_complete_and_never_of_two_segments(self):
        starts, maskable, whole, sizes, order, budget = draws(1)
        chosen, group = choose(
            hiding.GROUPS["ngrams"],
            *(starts, maskable, whole, sizes, order, budget),
        )
        open_tokens = maskable & whole
        self.assertFalse((chosen & ~open_tokens).any())
        for row in range(ROWS):
            for number in range(group[row].max() + 1):
                inside = np.flatnonzero(
                    (group[row] == number) & open_tokens[row]
                )
                self.assertLen({*chosen[row, inside].tolist()}, 1)
                np.testing.assert_array_equal(np.diff(inside), 1)

    @parameterized.parameters(1, 2, 3, 5)
    def test_of_a_row_whose_groups_are_too_long_the_shortest_is_chosen(
        self, most
    ):
        random = np.random.default_rng(4)
        starts = random.random((ROWS, LENGTH)) < 0.25
        ones = np.ones((ROWS, LENGTH), bool)
        sizes, order = random.random((2, ROWS, LENGTH)).astype(np.float32)
        budget = np.ones(ROWS, int)
        chosen, _ = choose(
            (1.0,), starts, ones, ones, sizes, order, budget, most
        )
        for row in range(ROWS):
            expected, groups = one_by_one(
                (1.0,), starts[row], ones[row], sizes[row], order[row], 1, most
            )
            np.testing.assert_array_equal(chosen[row], expected)
            shortest = min(map(len, groups))
            self.assertEqual(
                chosen[row].sum(), shortest if shortest <= most else 0
            )

    @parameterized.parameters(
        ("one", 1.0), ("ngrams", 18 / 11), ("spans", 3.797)
    )
    def test_the_sizes_are_those_of_the_papers(self, name, mean):
        length, rows = 400, 200
        random = np.random.default_rng(2)
        ones = np.ones((rows, length), bool)
        sizes, order = random.random((2, rows, length)).astype(np.float32)
        _, group = choose(
            hiding.GROUPS[name], ones, ones, ones, sizes, order, [100] * rows
        )
        counts = np.concatenate([np.bincount(row)[:-1] for row in group])
        self.assertAlmostEqual(counts.mean(), mean, delta=0.02 * mean)
        shares = np.bincount(counts)[1:] / len(counts)
        expected = np.array(hiding.GROUPS[name])
        np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.01)

    def test_every_place_is_as_probable(self):
        length, rows = 30, 6000
        random = np.random.default_rng(3)
        ones = np.ones((rows, length), bool)
        sizes, order = random.random((2, rows, length)).astype(np.float32)
        chosen, _ = choose(
            hiding.GROUPS["ngrams"],
            *(ones, ones, ones, sizes, order, [6] * rows),
        )
        shares = chosen.mean(axis=0)
        np.testing.assert_allclose(shares, 0.2, atol=0.025)

    def test_units_of_a_level(self):
        # A word of three tokens, the second of which starts an entity; cut.
        facts = tf.constant([[0b010101, 0b010000, 0b000000, 0b100111]])
        for level, starts, whole in (
            (0, [1, 1, 1, 1], [1, 1, 1, 1]),
            (1, [1, 0, 0, 1], [1, 1, 1, 0]),
            (2, [1, 0, 0, 1], [1, 1, 1, 1]),
            (3, [1, 1, 0, 0], [1, 1, 1, 0]),
        ):
            for value in (level, tf.constant(level)):
                units = hiding.of_level(facts, value)
                self.assertEqual(units.starts.numpy().tolist(), [starts])
                self.assertEqual(units.whole.numpy().tolist(), [whole])


if __name__ == "__main__":
    absltest.main()
