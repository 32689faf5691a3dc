"""Beam search against all hypotheses, plain Python and KerasHub."""

import keras_hub
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import generation
from tests import beam_reference as reference

END = 1
# Vocabulary and maximum length, for searches in all hypotheses there are.
SIZES = ((2, 5), (3, 4), (4, 3), (5, 2))
PENALTIES = (-1.5, -0.5, 0.0, 0.6, 1.0, 2.5)
SETTINGS = {
    "plain": {},
    "no_end": {"end_id": None},
    "bigrams": {"no_repeat_ngram_size": 2},
    "unigrams": {"no_repeat_ngram_size": 1, "min_length": 3},
    "unigrams_no_end": {"no_repeat_ngram_size": 1, "end_id": None},
    "min_length": {"min_length": 2},
    "coverage": {"coverage_penalty": 0.4},
    "all": {
        "coverage_penalty": 1.0,
        "no_repeat_ngram_size": 2,
        "min_length": 1,
    },
}
LIMITS = (9, 1, 2, 0, 3)


def source_mask(model):
    """The mask of the source: row r has r % 3 + 1 real positions."""
    batch, _, width = model.attention.shape
    return np.arange(width) < np.arange(batch)[:, None] % width + 1


def searched(model, beams, *, coverage_penalty=0.0, limits=None, **settings):
    """The Beams of all rows of a model."""
    more = {}
    if coverage_penalty:
        more = {
            "coverage_penalty": coverage_penalty,
            "attention": lambda state: state["attention"],
            "source_mask": tf.constant(source_mask(model), tf.int32),
        }
    if limits is not None:
        more["limits"] = tf.constant(limits, tf.int32)
    return generation.beam_search(
        model.step,
        model.state(beams),
        start_ids=tf.zeros([model.batch], tf.int32),
        max_length=model.length,
        num_beams=beams,
        pad_id=-1,
        **({"end_id": END} | settings | more),
    )


def rules_of(model, row, *, limits=None, **settings):
    limit = model.length if limits is None else min(limits[row], model.length)
    return reference.Rules(
        limit=limit,
        source_mask=tuple(source_mask(model)[row].astype(int)),
        **({"end_id": END} | settings),
    )


class BeamsTest(parameterized.TestCase):
    def assert_rows(self, got, model, find, *, number, **settings):
        """Compares Beams with what `find` returns for each row."""
        got = generation.Beams(*(values.numpy() for values in got))
        for row in range(model.batch):
            rules = rules_of(model, row, **settings)
            want = find(*model.row(row), rules)[:number]
            for index, each in enumerate(want):
                padding = [-1] * (model.length - len(each.ids))
                self.assertEqual(
                    got.ids[row, index].tolist(), each.ids + padding
                )
                self.assertEqual(got.length[row, index], len(each.ids))
                self.assertEqual(got.ended[row, index], each.ended)
            count = len(want)
            for name in ("score", "log_prob"):
                values = getattr(got, name)[row]
                np.testing.assert_allclose(
                    values[:count],
                    [getattr(each, name) for each in want],
                    rtol=2e-5,
                    atol=2e-6,
                )
                np.testing.assert_array_equal(values[count:], -np.inf)
            np.testing.assert_array_equal(got.ids[row, count:], -1)
            np.testing.assert_array_equal(got.length[row, count:], 0)
            self.assertFalse(np.any(got.ended[row, count:]))

    @parameterized.parameters(*SETTINGS)
    def test_enough_beams_find_the_best_of_all(self, name):
        for seed, (size, length) in enumerate(SIZES):
            model = reference.Model(
                20, size, length, seed, scale=(1.0, 4.0)[seed % 2]
            )
            limits = np.resize(LIMITS, 20) if seed % 3 == 1 else None
            number = (1, 3)[seed % 2]
            for penalty in PENALTIES[seed % 2 :: 2]:
                values = SETTINGS[name] | {"length_penalty": penalty}
                self.assert_rows(
                    searched(
                        model,
                        size**length,
                        num_return=number,
                        limits=limits,
                        **values,
                    ),
                    model,
                    reference.all_hypotheses,
                    number=number,
                    limits=limits,
                    **values,
                )

    @parameterized.product(name=tuple(SETTINGS), beams=(1, 2, 4))
    def test_few_beams_find_what_plain_python_finds(self, name, beams):
        for seed, penalty in enumerate(PENALTIES[beams % 2 :: 2]):
            model = reference.Model(12, 5, 5, seed, scale=(1, 3, 5)[seed])
            number = 1 + seed % beams
            values = SETTINGS[name] | {"length_penalty": penalty}
            self.assert_rows(
                searched(model, beams, num_return=number, **values),
                model,
                lambda *row: reference.search(*row, beams),
                number=number,
                **values,
            )

    def test_more_answers_do_not_change_the_first(self):
        model = reference.Model(8, 5, 5, 1, scale=3.0)
        for penalty in (-1.0, 0.0, 2.0):
            all_four = searched(model, 4, num_return=4, length_penalty=penalty)
            for number in (1, 2, 3):
                fewer = searched(
                    model, 4, num_return=number, length_penalty=penalty
                )
                for got, want in zip(fewer, all_four, strict=True):
                    np.testing.assert_array_equal(got, want[:, :number])

    @parameterized.parameters(*SETTINGS)
    def test_one_beam_is_greedy(self, name):
        settings = SETTINGS[name]
        model = reference.Model(12, 5, 5, 3)
        limits = np.resize(LIMITS, 12)
        greedy = generation.greedy(
            model.step,
            model.state(1),
            start_ids=tf.zeros([12], tf.int32),
            max_length=5,
            limits=tf.constant(limits, tf.int32),
            pad_id=-1,
            **{"end_id": END}
            | {k: v for k, v in settings.items() if "coverage" not in k},
        )
        for penalty in PENALTIES:
            got = searched(
                model, 1, limits=limits, length_penalty=penalty, **settings
            )
            for name in ("ids", "length", "ended"):
                np.testing.assert_array_equal(
                    getattr(got, name)[:, 0], getattr(greedy, name), name
                )

    def test_one_beam_is_greedy_where_rounding_makes_probabilities_equal(self):
        # 64 logits of about 0: the probabilities of the last two are equal.
        logits = np.zeros(64, np.float32)
        logits[50:] = (1e-8, *[0] * 12, 2e-8)
        log_probs = tf.nn.log_softmax(logits).numpy()
        self.assertEqual(log_probs[50], log_probs[63])

        def step(ids, state):
            return tf.tile(logits[np.newaxis], [tf.size(ids), 1]), state

        options = {"start_ids": tf.zeros([2], tf.int32), "end_id": None}
        options["max_length"] = 3
        greedy = generation.greedy(step, (), **options)
        got = generation.beam_search(step, (), num_beams=1, **options)
        np.testing.assert_array_equal(greedy.ids, np.full((2, 3), 63))
        np.testing.assert_array_equal(got.ids[:, 0], greedy.ids)

    def test_a_row_does_not_depend_on_the_others(self):
        model = reference.Model(6, 5, 4, 2)
        limits = np.array([4, 1, 3, 4, 2, 4])
        together = searched(
            model, 3, num_return=3, limits=limits, coverage_penalty=0.5
        )
        mask = source_mask(model)
        for row in range(6):
            alone = reference.Model(1, 5, 4, 2)
            alone.logits = model.logits[row : row + 1]
            alone.attention = model.attention[row : row + 1]
            got = generation.beam_search(
                alone.step,
                alone.state(3),
                start_ids=tf.zeros([1], tf.int32),
                end_id=END,
                max_length=4,
                num_beams=3,
                num_return=3,
                limits=tf.constant(limits[row : row + 1], tf.int32),
                coverage_penalty=0.5,
                attention=lambda state: state["attention"],
                source_mask=tf.constant(mask[row : row + 1], tf.int32),
                pad_id=-1,
            )
            for each, want in zip(got, together, strict=True):
                np.testing.assert_allclose(each[0], want[row], rtol=1e-6)

    @parameterized.parameters(False, True)
    def test_it_compiles_for_batches_of_any_size(self, xla):
        everything = SETTINGS["all"] | {"num_return": 2, "length_penalty": 0.6}
        model = reference.Model(5, 4, 4, 0)
        mask = tf.constant(source_mask(model), tf.int32)

        @tf.function(
            jit_compile=xla,
            autograph=False,
            input_signature=[
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([None, None], tf.int32),
            ],
        )
        def search(rows, source_mask):
            state = model.state(1) | {"row": rows}
            state["node"] = tf.fill(tf.shape(rows), -1)
            state["attention"] = tf.zeros([tf.size(rows), 3])
            return generation.beam_search(
                model.step,
                generation.tile(state, 3),
                start_ids=tf.zeros_like(rows),
                end_id=END,
                max_length=4,
                num_beams=3,
                attention=lambda state: state["attention"],
                source_mask=source_mask,
                pad_id=-1,
                **everything,
            )

        want = searched(model, 3, **everything)
        got = search(tf.range(5), mask)
        for name, values in want._asdict().items():
            np.testing.assert_allclose(
                getattr(got, name), values, rtol=1e-5, err_msg=name
            )
        empty = search(tf.zeros([0], tf.int32), mask[:0])
        self.assertEqual(empty.ids.shape, (0, 2, 4))
        self.assertEqual(empty.score.shape, (0, 2))
        shapes = search.get_concrete_function().structured_outputs
        self.assertEqual(shapes.ids.shape.as_list(), [None, 2, 4])
        self.assertEqual(shapes.ended.shape.as_list(), [None, 2])

    def test_no_new_tokens_are_an_empty_hypothesis(self):
        model = reference.Model(2, 3, 2, 0)
        model.length = 0
        got = searched(model, 2, num_return=2)
        np.testing.assert_array_equal(got.score, [[0, -np.inf]] * 2)
        self.assertEqual(got.ids.shape, (2, 2, 0))


class EndTest(parameterized.TestCase):
    """When the loop ends; tokens 0, 1, 2, and END."""

    def calls(self, probabilities, **settings):
        """Searches in a chain of tokens; returns Beams, number of steps.

        probabilities: those of the next token, by the last one, (V, V); the
          first of all is after token 0.
        """
        with np.errstate(divide="ignore"):
            table = np.log(np.array(probabilities, np.float32))
        table = tf.constant(np.maximum(table, -1e9))
        seen = []

        def step(ids, state):
            seen.append(ids.numpy().tolist())
            return tf.gather(table, ids), state

        got = generation.beam_search(
            step,
            (),
            start_ids=tf.zeros([1], tf.int32),
            end_id=END,
            max_length=6,
            **settings,
        )
        return got, len(seen)

    # The first token ends with probability 0.6. With 0.4 the text continues,
    # for as long as it may.
    LONG = ((0, 0.6, 0.4), (0, 1, 0), (0, 0, 1))

    @parameterized.parameters(
        # 0: no continuation can be more probable.
        (0.0, 1, []),
        # log(0.6) = -0.51 and, of six tokens, log(0.4) / (11 / 6) = -0.50.
        (1.0, 6, [2] * 6),
        # The exponent at which both scores are equal is 0.965.
        (0.97, 6, [2] * 6),
        (0.96, 1, []),
        (-2.0, 1, []),
    )
    def test_it_ends_when_nothing_can_become_better(self, penalty, steps, ids):
        got, calls = self.calls(self.LONG, num_beams=2, length_penalty=penalty)
        self.assertEqual(calls, steps)
        self.assertEqual(got.ids[0, 0].numpy().tolist(), (ids + [0] * 6)[:6])

    def test_it_continues_for_the_worst_that_is_returned(self):
        _, calls = self.calls(
            self.LONG, num_beams=2, num_return=2, length_penalty=0.0
        )
        self.assertEqual(calls, 6)

    def test_a_penalty_of_length_bounds_by_the_next_token(self):
        # With a negative exponent, the shortest continuation is the best one:
        # log(0.6) (7 / 6)^1 = -0.60 and log(0.6) (7 / 6)^5 = -1.10; the text
        # without a token has log(0.4) = -0.92.
        table = ((0, 0.4, 0.6), (0, 1, 0), (0, 1, 0))
        for penalty, steps, ids in ((-1.0, 2, [2]), (-5.0, 1, [])):
            got, calls = self.calls(table, num_beams=2, length_penalty=penalty)
            self.assertEqual(calls, steps)
            self.assertEqual(got.ids[0, 0, : len(ids)].numpy().tolist(), ids)
            self.assertEqual(got.length[0, 0], len(ids))

    def test_it_ends_if_nothing_can_become_better_than_equal(self):
        table = ((0, 0.5, 0.5), (0, 1, 0), (0, 0, 1))
        got, calls = self.calls(table, num_beams=2, length_penalty=0.0)
        self.assertEqual(calls, 1)
        self.assertEqual(got.length[0, 0], 0)

    def test_what_is_complete_is_before_equals_that_are_not(self):
        # After two tokens, 3 0, 3 3, 2 2 and the empty text have 0.25 each;
        # three of them are kept, and so 2 2 2, of 0.25 as well, is not found.
        table = (
            (0, 0.25, 0.25, 0.5),
            (0, 1, 0, 0),
            (0, 0, 1, 0),
            (0.5, 0, 0, 0.5),
        )
        got, _ = self.calls(
            table, num_beams=3, num_return=3, length_penalty=0.0
        )
        self.assertEqual(got.length[0, 0], 0)
        np.testing.assert_allclose(np.exp(got.score[0, 0]), 0.25, rtol=1e-6)
        self.assertLess(np.exp(got.score[0, 1]), 0.2)

    def test_all_rows_end_before_the_loop_does(self):
        model = reference.Model(2, 3, 5, 0)
        model.logits[0, :, END] = 50
        model.logits[1, :, END] = -50
        got = searched(model, 2)
        np.testing.assert_array_equal(got.length[:, 0], [0, 5])
        np.testing.assert_array_equal(got.ended[:, 0], [True, False])


class TiesTest(absltest.TestCase):
    def search(self, **settings):
        def step(ids, state):
            return tf.zeros([tf.size(ids), 3]), state

        return generation.beam_search(
            step,
            (),
            start_ids=tf.zeros([1], tf.int32),
            max_length=2,
            length_penalty=0.0,
            pad_id=-1,
            **settings,
        )

    def test_lower_beams_and_tokens_are_first(self):
        got = self.search(end_id=None, num_beams=5, num_return=5)
        self.assertEqual(
            got.ids[0].numpy().tolist(),
            [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]],
        )

    def test_what_was_complete_first_is_before_its_equals(self):
        got = self.search(end_id=2, num_beams=9, num_return=7)
        self.assertEqual(
            got.ids[0].numpy().tolist(),
            [[-1, -1], [0, 0], [0, 1], [0, -1], [1, 0], [1, 1], [1, -1]],
        )


class ArgumentsTest(parameterized.TestCase):
    @parameterized.parameters(
        ({"num_return": 3}, "num_return=3: expected a number from 1 to num_b"),
        ({"num_return": 0}, "num_return=0"),
        ({"coverage_penalty": -0.1}, "coverage_penalty=-0.1: expected at lea"),
        ({"coverage_penalty": 0.1}, "expected `attention` and `source_mask`"),
    )
    def test_others_are_refused(self, settings, words):
        with self.assertRaisesRegex(ValueError, words):
            generation.beam_search(
                None,
                (),
                start_ids=tf.zeros([1], tf.int32),
                end_id=END,
                max_length=2,
                num_beams=2,
                **settings,
            )

    def test_beams_of_a_text_are_consecutive(self):
        nest = {"a": tf.constant([1, 2]), "b": [tf.constant([[1.0], [2.0]])]}
        got = generation.tile(nest, 2)
        np.testing.assert_array_equal(got["a"], [1, 1, 2, 2])
        np.testing.assert_array_equal(got["b"][0], [[1], [1], [2], [2]])


class KerasHubTest(parameterized.TestCase):
    """The samplers of KerasHub, which continue beams after the end token."""

    SIZE, LENGTH, BATCH = 9, 6, 16

    def table(self, seed):
        """Logits by the number of tokens and the last one.

        The end token follows itself for ever.
        """
        random = np.random.default_rng(seed)
        table = random.normal(size=(self.LENGTH, self.SIZE, self.SIZE))
        table[:, END] = -1e9
        table[:, END, END] = 0
        return tf.constant(table, tf.float32)

    def starts(self):
        return 2 + tf.range(self.BATCH) % (self.SIZE - 2)

    def generate(self, function, table, **settings):
        def step(ids, state):
            return tf.gather_nd(table, tf.stack([state, ids], 1)), state + 1

        return function(
            step,
            tf.zeros([self.BATCH * settings.get("num_beams", 1)], tf.int32),
            start_ids=self.starts(),
            max_length=self.LENGTH,
            pad_id=END,
            **settings,
        )

    def sample(self, sampler, table):
        def following(prompt, cache, index):
            logits = tf.gather(table[index - 1], prompt[:, index - 1])
            return logits, None, cache

        prompt = tf.pad(self.starts()[:, tf.newaxis], [[0, 0], [0, 6]])
        return sampler(following, prompt, index=1)

    @parameterized.parameters(
        keras_hub.samplers.GreedySampler(), keras_hub.samplers.TopKSampler(k=1)
    )
    def test_greedy_tokens_are_equal(self, sampler):
        for seed in range(3):
            table = self.table(seed)
            want = self.sample(sampler, table)
            got = self.generate(generation.greedy, table, end_id=END)
            np.testing.assert_array_equal(got.ids, want[:, 1:])

    @parameterized.parameters(1, 2, 4, 7)
    def test_beams_without_an_end_are_equal(self, beams):
        sampler = keras_hub.samplers.BeamSampler(
            num_beams=beams, return_all_beams=True
        )
        for seed in range(3):
            table = self.table(seed)
            ids, log_probs = self.sample(sampler, table)
            got = self.generate(
                generation.beam_search,
                table,
                end_id=None,
                num_beams=beams,
                num_return=beams,
                length_penalty=0.0,
            )
            np.testing.assert_array_equal(got.ids, ids[:, :, 1:])
            np.testing.assert_allclose(got.log_prob, log_probs, rtol=1e-5)
            np.testing.assert_array_equal(got.score, got.log_prob)

    @parameterized.parameters(1, 2, 4)
    def test_what_has_ended_is_kept_and_never_worse(self, beams):
        sampler = keras_hub.samplers.BeamSampler(
            num_beams=beams, return_all_beams=True
        )
        equal = 0
        for seed in range(3):
            table = self.table(seed)
            ids, log_probs = self.sample(sampler, table)
            got = self.generate(
                generation.beam_search,
                table,
                end_id=END,
                num_beams=beams,
                length_penalty=0.0,
            )
            difference = got.log_prob[:, 0] - log_probs[:, 0]
            self.assertGreater(np.min(difference), -1e-5)
            same = np.abs(difference) < 1e-5
            np.testing.assert_array_equal(
                got.ids[:, 0][same], ids[:, 0, 1:][same]
            )
            equal += np.count_nonzero(same)
        self.assertGreater(equal, 40)  # of 48


if __name__ == "__main__":
    absltest.main()
