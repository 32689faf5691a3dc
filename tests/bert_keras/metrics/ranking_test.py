"""Ranks of a search against sorting, with ties and several right texts."""

import numpy as np
from absl.testing import absltest

from bert_keras.metrics import ranking


class RankingTest(absltest.TestCase):
    def test_a_rank_is_the_index_in_the_sorted_cosines(self):
        random = np.random.default_rng(0)
        queries = random.normal(size=(2500, 4))
        candidates = random.normal(size=(9, 4))
        own = random.integers(0, 9, 2500)
        cosines = (
            queries
            @ (candidates / np.linalg.norm(candidates, axis=1, keepdims=True)).T
        )
        expected = [
            list(np.argsort(-row)).index(index) + 1
            for row, index in zip(cosines, own, strict=True)
        ]
        right = [{index} for index in own]
        actual = ranking.ranks(queries, candidates, own, right)
        np.testing.assert_array_equal(actual, expected)

    def test_other_right_texts_are_left_out_and_equal_ones_are_better(self):
        query = np.array([[1.0, 0.0]])
        candidates = np.array([[1.0, 0.0], [2.0, 1.0], [1.0, 1.0], [3.0, 3.0]])
        for right, rank in (({2}, 4), ({0, 2}, 3), ({0, 1, 2, 3}, 1)):
            (actual,) = ranking.ranks(query, candidates, [2], [right])
            self.assertEqual(actual, rank)
        same = ranking.ranks(query, np.ones((5, 2)), [0], [{0}])
        self.assertEqual(same, [5])

    def test_ranks_in_groups_leave_out_other_right_rows(self):
        rows = [
            *[("a", 0.5, True), ("a", 0.9, True), ("a", 0.7, False)],
            *[("b", 0.4, False), ("a", 0.5, False), ("b", 0.6, True)],
            *[("c", 0.1, True), ("d", 0.1, False)],
        ]
        actual = ranking.grouped_ranks(*zip(*rows, strict=True))
        # c has no other rows, d no right one.
        np.testing.assert_array_equal(actual, [3, 1, 1])

    def test_no_ranks_have_no_mean(self):
        metrics = ranking.retrieval(np.array([], np.int64))
        self.assertTrue(np.isnan(list(metrics.values())).all())

    def test_the_means_are_of_reciprocal_ranks_and_of_first_ones(self):
        metrics = ranking.retrieval(np.array([1, 2, 4, 1]))
        self.assertEqual(metrics, {"mrr": 2.75 / 4, "accuracy_at_1": 0.5})


if __name__ == "__main__":
    absltest.main()
