"""Generation against plain Python loops and the exact distributions."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors, generation
from tests import beam_reference

SIZE, END, LENGTH = 7, 0, 6


def chain(seed=0):
    """Logits of the next token by the last one: a Markov chain."""
    return np.random.default_rng(seed).normal(size=(SIZE, SIZE)) * 2


def step_of(table):
    """A step of the chain that counts its calls in the state."""
    table = tf.constant(table, tf.float32)

    def step(ids, state):
        return tf.gather(table, ids), {"calls": state["calls"] + 1}

    return step


def state_of(batch):
    return {"calls": tf.zeros([batch], tf.int32)}


def slow_greedy(table, start, end, length):
    ids = []
    last = start
    while len(ids) < length:
        last = int(np.argmax(table[last]))
        if last == end:
            return ids, True
        ids.append(last)
    return ids, False


def slow_constrained(start, length, **settings):
    """Greedy tokens of chain(5) that the rules of beam search allow."""
    rules = beam_reference.Rules(end_id=END, **settings)
    table, ids = chain(5), []
    while len(ids) < length:
        logits = table[([start] + ids)[-1]]
        token = max(rules.allowed(ids, SIZE), key=lambda each: logits[each])
        if token == END:
            return ids, True
        ids.append(token)
    return ids, False


def softmax(x):
    weights = np.exp(x - np.max(x))
    return weights / weights.sum()


def slow_distribution(logits, temperature=1.0, top_k=0, top_p=1.0):
    """Float64 probabilities, token by token as the definitions have them."""
    shares = softmax(np.asarray(logits, np.float64) / temperature)
    order = np.argsort(-shares, kind="stable")
    if top_k:
        order = order[:top_k]
    kept, total = [], 0.0
    for token in order:
        if kept and total >= top_p * shares[order].sum():
            break
        kept.append(token)
        total += shares[token]
    result = np.zeros_like(shares)
    result[kept] = shares[kept] / shares[kept].sum()
    return result


def sampled(table, starts, seeds, **settings):
    return generation.sample(
        step_of(table),
        state_of(len(starts)),
        start_ids=tf.constant(starts, tf.int32),
        seeds=seeds,
        end_id=END,
        max_length=LENGTH,
        **settings,
    )


def some_seeds(count):
    ids = tf.range(count)[:, tf.newaxis]
    return generation.row_seeds(ids, tf.ones_like(ids), 3)


class GreedyTest(parameterized.TestCase):
    @parameterized.product(seed=(0, 1, 2, 3), end=(END, None, 4))
    def test_each_row_is_that_of_a_plain_loop(self, seed, end):
        table, starts = chain(seed), list(range(SIZE))
        got = generation.greedy(
            step_of(table),
            state_of(SIZE),
            start_ids=tf.constant(starts),
            end_id=end,
            max_length=LENGTH,
            pad_id=-1,
        )
        for row, start in enumerate(starts):
            ids, ended = slow_greedy(table, start, end, LENGTH)
            padding = [-1] * (LENGTH - len(ids))
            self.assertEqual(got.ids[row].numpy().tolist(), ids + padding)
            self.assertEqual(int(got.length[row]), len(ids))
            self.assertEqual(bool(got.ended[row]), ended)

    def test_the_loop_ends_when_all_rows_have_ended(self):
        table = np.zeros((SIZE, SIZE))
        table[1, 2] = table[2, END] = table[3, 4] = table[4, 5] = 9
        table[5, END] = 9
        calls = []

        def step(ids, state):
            calls.append(ids.numpy().tolist())
            return step_of(table)(ids, state)

        got = generation.greedy(
            step,
            state_of(2),
            start_ids=tf.constant([1, 3]),
            end_id=END,
            max_length=LENGTH,
        )
        self.assertLen(calls, 3)
        np.testing.assert_array_equal(got.length, [1, 2])

    def test_limits_hold_for_each_row(self):
        table = np.eye(SIZE)[[1, 2, 3, 4, 5, 6, 1]]
        got = generation.greedy(
            step_of(table),
            state_of(4),
            start_ids=tf.constant([1, 1, 1, 1]),
            end_id=None,
            max_length=LENGTH,
            limits=tf.constant([0, 2, 6, 99]),
        )
        np.testing.assert_array_equal(got.length, [0, 2, 6, 6])
        np.testing.assert_array_equal(got.ids[1], [2, 3, 0, 0, 0, 0])
        self.assertFalse(np.any(got.ended))

    def test_no_rows_give_no_tokens(self):
        got = generation.greedy(
            step_of(chain()),
            state_of(0),
            start_ids=tf.zeros([0], tf.int32),
            end_id=END,
            max_length=LENGTH,
        )
        self.assertEqual(got.ids.shape, (0, LENGTH))


class ConstrainedTest(parameterized.TestCase):
    def constrained(self, rows, length, *, size, end=0, **settings):
        """The tokens that may follow the first `length` ids of each row."""
        logits = -tf.range(size, dtype=tf.float32)[tf.newaxis]
        got = generation.constrained(
            tf.repeat(logits, len(rows), axis=0),
            tf.constant(rows),
            tf.constant(length),
            end_id=end,
            **settings,
        ).numpy()
        self.assertEmpty(np.setdiff1d(got, [*logits[0].numpy(), -np.inf]))
        return [np.flatnonzero(np.isfinite(row)).tolist() for row in got]

    @parameterized.parameters(
        # Ids after the length, here 9 or 1, are not read.
        (1, [2, 3, 9, 9], 2, [0, 1, 4]),
        (1, [9, 9, 9, 9], 0, [0, 1, 2, 3, 4]),
        (2, [2, 3, 2, 9], 3, [0, 1, 2, 4]),
        (2, [2, 2, 2, 1], 2, [0, 1, 3, 4]),
        (2, [2, 3, 4, 1], 3, [0, 1, 2, 3, 4]),
        (2, [2, 9, 9, 9], 1, [0, 1, 2, 3, 4]),
        (2, [2, 3, 2, 4, 2, 9], 5, [0, 1, 2]),
        (3, [2, 3, 4, 2, 3, 1], 5, [0, 1, 2, 3]),
        (3, [2, 3, 4, 3, 3, 1], 5, [0, 1, 2, 3, 4]),
        (3, [2, 2, 2, 1, 1, 1], 2, [0, 1, 2, 3, 4]),
        (3, [2, 2, 2, 1, 1, 1], 3, [0, 1, 3, 4]),
        (5, [2, 2, 2, 2], 4, [0, 1, 2, 3, 4]),
    )
    def test_no_sequence_of_tokens_occurs_twice(self, size, ids, length, want):
        other = list(range(5, 5 + len(ids)))
        first, second = self.constrained(
            [other, ids], length, size=11, no_repeat_ngram_size=size
        )
        self.assertEqual([t for t in first if t < 5], [0, 1, 2, 3, 4])
        self.assertEqual(second, want + list(range(5, 11)))

    def test_the_end_is_forbidden_before_the_minimum(self):
        for length, want in ((0, [1, 2]), (1, [1, 2]), (2, [0, 1, 2])):
            got = self.constrained([[1, 2, 1]], length, size=3, min_length=2)
            self.assertEqual(got, [want])
        got = self.constrained([[1, 2]], 0, size=3, end=None, min_length=2)
        self.assertEqual(got, [[0, 1, 2]])

    def test_if_all_are_forbidden_the_text_ends(self):
        settings = {"size": 3, "no_repeat_ngram_size": 1, "min_length": 3}
        got = self.constrained([[1, 2, 9], [1, 1, 9]], 2, **settings)
        self.assertEqual(got, [[0], [2]])
        rows = [[1, 0, 2, 9], [1, 0, 1, 9]]
        got = self.constrained(rows, 3, end=None, **settings)
        self.assertEqual(got, [[0, 1, 2], [2]])

    def test_the_end_may_be_what_the_step_forbids(self):
        got = generation.constrained(
            tf.constant([[-np.inf, -np.inf, 1.0]]),
            tf.constant([[2, 2]]),
            tf.constant(1),
            end_id=0,
            no_repeat_ngram_size=1,
        )
        self.assertEqual(np.argmax(got), 0)
        self.assertTrue(np.isfinite(got[0, 0]))

    @parameterized.parameters(
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 3},
        {"min_length": 4},
        {"no_repeat_ngram_size": 2, "min_length": 3},
    )
    def test_greedy_and_sampled_texts_are_constrained(self, **settings):
        starts, seeds = [1 + i % (SIZE - 1) for i in range(50)], some_seeds(50)
        greedy = generation.greedy(
            step_of(chain(5)),
            state_of(50),
            start_ids=tf.constant(starts),
            end_id=END,
            max_length=12,
            pad_id=-1,
            **settings,
        )
        drawn = generation.sample(
            step_of(chain(5)),
            state_of(50),
            start_ids=tf.constant(starts),
            seeds=seeds,
            end_id=END,
            max_length=12,
            top_p=0.95,
            pad_id=-1,
            **settings,
        )
        for got in (greedy, drawn):
            for row in range(50):
                ids = got.ids[row, : got.length[row]].numpy().tolist()
                self.check(ids, bool(got.ended[row]), **settings)
        self.assertGreater(len({tuple(row) for row in drawn.ids.numpy()}), 20)
        for row, start in enumerate(starts[:6]):
            ids, ended = slow_constrained(start, 12, **settings)
            padding = [-1] * (12 - len(ids))
            self.assertEqual(greedy.ids[row].numpy().tolist(), ids + padding)
            self.assertEqual(bool(greedy.ended[row]), ended)

    def check(self, ids, ended, *, no_repeat_ngram_size=0, min_length=0):
        self.assertNotIn(END, ids)
        size = no_repeat_ngram_size
        if size:
            ngrams = list(zip(*(ids[i:] for i in range(size)), strict=False))
            self.assertLen(set(ngrams), len(ngrams))
        all_used = size == 1 and len(ids) == SIZE - 1
        self.assertTrue(len(ids) >= min_length or all_used)
        self.assertTrue(ended or len(ids) == 12)


class RestrictTest(parameterized.TestCase):
    @parameterized.product(
        seed=(0, 1, 2, 3, 4),
        top_k=(0, 1, 3, 50),
        top_p=(0.0, 0.3, 0.8, 0.97, 1.0),
    )
    def test_the_sets_are_those_of_the_definitions(self, seed, top_k, top_p):
        logits = np.random.default_rng(seed).normal(size=(4, 30)) * 3
        got = generation.restrict(
            tf.constant(logits, tf.float32),
            top_k=tf.fill([4], top_k),
            top_p=tf.fill([4], top_p),
        )
        for row, kept in zip(logits, np.isfinite(got), strict=True):
            want = slow_distribution(row, top_k=top_k, top_p=top_p) > 0
            np.testing.assert_array_equal(kept, want)

    def test_no_token_is_kept_beyond_an_exact_sum(self):
        logits = tf.math.log([[0.125, 0.5, 0.25, 0.125]])
        got = generation.restrict(
            tf.repeat(logits, 2, axis=0),
            top_k=tf.constant([0, 0]),
            top_p=tf.constant([0.5, 0.75]),
        )
        np.testing.assert_array_equal(
            np.isfinite(got),
            [[False, True, False, False], [False, True, True, False]],
        )

    def test_nothing_is_lost_of_a_long_tail_without_a_limit(self):
        # A float32 sum of the first million would be 1 long before the end.
        logits = tf.concat([[[30.0]], tf.zeros((1, 50_000))], axis=1)
        got = generation.restrict(
            logits, top_k=tf.constant([0]), top_p=tf.constant([1.0])
        )
        self.assertTrue(np.isfinite(got).all())


class SampleTest(parameterized.TestCase):
    def test_a_token_of_probability_0_is_never_drawn(self):
        logits = tf.constant([[-np.inf, 0.0, -np.inf, 0.0, -np.inf]] * 4)
        draws = tf.constant([0.0, 0.5 - 2**-23, 0.5, 1 - 2**-23])
        np.testing.assert_array_equal(
            generation.draw(logits, draws), [1, 1, 3, 3]
        )

    @parameterized.parameters(
        {},
        {"temperature": 0.5},
        {"temperature": 1.7},
        {"top_k": 3},
        {"top_p": 0.8},
        {"temperature": 1.3, "top_k": 5, "top_p": 0.7},
    )
    def test_frequencies_are_those_of_the_distribution(self, **settings):
        table, count = chain(7), 20_000
        starts = np.tile(np.arange(SIZE), count // SIZE + 1)[:count]
        got = sampled(table, starts, some_seeds(count), **settings)
        first = np.where(got.length > 0, got.ids[:, 0], END)
        statistic, freedom = 0.0, 0
        for start in range(SIZE):
            drawn = np.bincount(first[starts == start], minlength=SIZE)
            shares = slow_distribution(table[start], **settings)
            self.assertEqual(drawn[shares == 0].sum(), 0)
            expected = drawn.sum() * shares[shares > 0]
            statistic += np.sum((drawn[shares > 0] - expected) ** 2 / expected)
            freedom += np.count_nonzero(shares) - 1
        # Chi-square has the mean `freedom` and the variance 2 * freedom.
        self.assertLess(statistic, freedom + 4 * np.sqrt(2 * freedom))

    def test_pairs_of_draws_are_independent(self):
        table = np.zeros((SIZE, SIZE))
        got = generation.sample(
            step_of(table),
            state_of(20_000),
            start_ids=tf.zeros([20_000], tf.int32),
            seeds=some_seeds(20_000),
            end_id=None,
            max_length=2,
        )
        pairs = np.bincount(
            got.ids[:, 0] * SIZE + got.ids[:, 1], minlength=SIZE**2
        )
        expected = 20_000 / SIZE**2
        statistic = np.sum((pairs - expected) ** 2) / expected
        freedom = SIZE**2 - 1
        self.assertLess(statistic, freedom + 4 * np.sqrt(2 * freedom))

    def test_temperature_0_and_top_k_1_are_greedy(self):
        table, starts = 20 * chain(2), list(range(SIZE))
        seeds = some_seeds(SIZE)
        want = generation.greedy(
            step_of(table),
            state_of(SIZE),
            start_ids=tf.constant(starts),
            end_id=END,
            max_length=LENGTH,
        )
        for settings in (
            {"temperature": 0.0},
            {"temperature": np.finfo(np.float32).tiny},
            {"top_k": 1},
            {"top_p": 0.0},
        ):
            got = sampled(table, starts, seeds, **settings)
            np.testing.assert_array_equal(got.ids, want.ids)

    def test_settings_of_each_row_are_its_own(self):
        table, starts = chain(2), [3] * 4
        seeds = some_seeds(1)
        each = (
            {"temperature": 0.0, "top_k": 0, "top_p": 1.0},
            {"temperature": 2.0, "top_k": 0, "top_p": 1.0},
            {"temperature": 1.0, "top_k": 2, "top_p": 1.0},
            {"temperature": 1.0, "top_k": 0, "top_p": 0.6},
        )
        together = sampled(
            table,
            starts,
            tf.repeat(seeds, 4),
            **{name: tf.constant([e[name] for e in each]) for name in each[0]},
        )
        for row, settings in enumerate(each):
            alone = sampled(table, [3], seeds, **settings)
            np.testing.assert_array_equal(alone.ids[0], together.ids[row])


class SettingsTest(parameterized.TestCase):
    @parameterized.parameters(
        {},
        {"num_beams": 1, "length_penalty": 0.0, "coverage_penalty": 0.0},
        {"num_beams": 4, "num_return_sequences": 4, "do_sample": False},
        {"num_beams": 1, "top_p": 0.5},
        {"min_new_tokens": 3, "max_new_tokens": 3, "no_repeat_ngram_size": 9},
    )
    def test_what_goes_together(self, **settings):
        generation.check(generation.SequenceSettings(**settings))

    @parameterized.parameters(
        ({"do_sample": False, "seed": 0}, "seed=0 has no effect with do_sampl"),
        ({"num_beams": 2, "do_sample": True}, "do_sample=True has no effect w"),
        ({"num_beams": 2, "seed": 0}, "seed=0 has no effect with num_beams=2;"),
        ({"length_penalty": 0.0}, "=0.0 has no effect without `num_beams`; se"),
        ({"coverage_penalty": 0.0}, "coverage_penalty=0.0 has no effect witho"),
        ({"num_return_sequences": 2}, "expected at most 1, the value of `num_"),
        ({"num_beams": 3, "num_return_sequences": 4}, "=4: expected at most 3"),
        ({"min_new_tokens": 4, "max_new_tokens": 3}, "min_new_tokens=4: expec"),
        ({"num_beams": 2, "max_new_tokens": 0}, "num_beams=2 has no effect w"),
        ({"num_beams": 0}, "num_beams=0: expected at least 1"),
        ({"num_beams": 2.0}, "num_beams is 2.0; expected a whole number"),
        ({"num_beams": 2, "length_penalty": 5.1}, "=5.1: expected -5.0 to 5"),
        ({"num_beams": 2, "coverage_penalty": -0.1}, "=-0.1: expected 0.0 to"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size=-1: expected at"),
        ({"min_new_tokens": -1}, "min_new_tokens=-1: expected at least 0"),
    )
    def test_what_does_not_is_refused_by_name(self, settings, words):
        with self.assertRaisesRegex(errors.InputError, words) as caught:
            generation.check(generation.SequenceSettings(**settings))
        self.assertIn(caught.exception.argument, settings)


class SeedsTest(absltest.TestCase):
    def test_a_row_has_its_own_numbers_in_any_batch(self):
        ids = tf.constant([[5, 6, 7], [6, 5, 7], [5, 6, 0]])
        mask = tf.constant([[1, 1, 1], [1, 1, 1], [1, 1, 0]])
        seeds = generation.row_seeds(ids, mask, 1).numpy()
        self.assertLen(set(seeds.tolist()), 3)
        alone = generation.row_seeds(ids[2:, :2], mask[2:, :2], 1)
        self.assertEqual(int(alone[0]), int(seeds[2]))
        padded = generation.row_seeds(
            tf.pad(ids, [[0, 0], [0, 4]], constant_values=9),
            tf.pad(mask, [[0, 0], [0, 4]]),
            1,
        )
        np.testing.assert_array_equal(padded, seeds)
        other = generation.row_seeds(ids, mask, tf.constant([2, 1, 2])).numpy()
        np.testing.assert_array_equal(other == seeds, [False, True, False])

    def test_numbers_are_uniform(self):
        seeds = some_seeds(5000)
        draws = np.stack(
            [generation.uniform(seeds, tf.constant(i)) for i in range(8)]
        )
        self.assertBetween(draws.min(), 0.0, 1e-3)
        self.assertBetween(draws.max(), 1 - 1e-3, 1.0 - 1e-9)
        counts, _ = np.histogram(draws, bins=50, range=(0, 1))
        statistic = np.sum((counts - 800) ** 2) / 800
        self.assertLess(statistic, 49 + 4 * np.sqrt(98))
        self.assertLess(np.abs(np.corrcoef(draws) - np.eye(8)).max(), 0.06)

    def test_splitmix64_is_the_published_one(self):
        # The first numbers of the reference code with the seed 1234567.
        golden = np.uint64(0x9E3779B97F4A7C15)
        with np.errstate(over="ignore"):
            states = np.uint64(1234567) + golden * np.arange(
                1, 4, dtype="uint64"
            )
        np.testing.assert_array_equal(
            generation._mix(tf.constant(states)),
            np.array(
                [
                    6457827717110365317,
                    3203168211198807973,
                    9817491932198370423,
                ],
                np.uint64,
            ),
        )


if __name__ == "__main__":
    absltest.main()
