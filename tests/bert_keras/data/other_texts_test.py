"""Negatives of pairs: never a right one, all others alike, equal halves."""

import collections
from unittest import mock

from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.data import other_texts


def pair(text, other, label="1"):
    return {"text": text, "text_pair": other, "label": label}


PAIRS = [pair(f"q{number}", f"a{number}") for number in range(6)]


class OtherTextsTest(parameterized.TestCase):
    @parameterized.parameters(1, 3, 5, 50)
    def test_each_match_is_followed_by_so_many_negatives(self, number):
        count = min(number, 5)  # all others
        rows = list(other_texts.add(PAIRS, number))
        self.assertLen(rows, 6 * (1 + count))
        for index, own in enumerate(PAIRS):
            first, *others = rows[index * (1 + count) :][: 1 + count]
            self.assertEqual(first, own)
            texts = [other["text_pair"] for other in others]
            self.assertLen(set(texts), count)
            self.assertNotIn(own["text_pair"], texts)
            for other in others:
                self.assertEqual(other["text"], own["text"])
                self.assertEqual(other["label"], "0")

    def test_no_second_text_of_an_equal_first_text_is_drawn(self):
        pairs = [
            *[pair("q0", "x"), pair("q0", "y"), pair("q0", "z", "0")],
            *[pair("q1", "x"), pair("q1", "w"), pair("q2", "y")],
        ]
        rows = list(other_texts.add(pairs, 9))
        drawn = collections.defaultdict(set)
        for row in rows:
            if row["label"] == "0" and row not in pairs:
                drawn[row["text"]].add(row["text_pair"])
        self.assertEqual(
            drawn, {"q0": {"w"}, "q1": {"y", "z"}, "q2": {"x", "z", "w"}}
        )

    def test_a_pair_that_is_no_match_has_no_negatives(self):
        pairs = [*PAIRS, pair("q9", "a0", "0")]
        rows = list(other_texts.add(pairs, 2))
        self.assertLen(rows, 6 * 3 + 1)
        self.assertEqual(rows[-1], pairs[-1])

    def test_all_others_are_drawn_alike(self):
        # A text that many pairs have counts once.
        pairs = [pair(f"q{n}", f"a{min(n, 4)}") for n in range(4000)]
        rows = other_texts.add(pairs, 1)
        counts = collections.Counter(
            row["text_pair"] for row in rows if row["label"] == "0"
        )
        for number in range(4):  # 1 of 4 in 3,996 rows; sd 27
            self.assertAlmostEqual(counts[f"a{number}"], 999, delta=110)
        self.assertLess(counts["a4"], 5)

    def test_blocks_draw_from_themselves_and_the_one_before(self):
        with mock.patch.object(other_texts, "_BLOCK", 2):
            rows = list(other_texts.add(PAIRS, 9))
            again = list(other_texts.add(iter(PAIRS), 9))
        self.assertEqual(rows, again)
        drawn = collections.defaultdict(set)
        for row in rows:
            if row["label"] == "0":
                drawn[row["text"]].add(row["text_pair"])
        self.assertEqual(drawn["q0"], {"a1"})
        self.assertEqual(drawn["q2"], {"a0", "a1", "a3"})
        self.assertEqual(drawn["q5"], {"a2", "a3", "a4"})

    def test_the_last_block_of_one_row_has_negatives(self):
        with mock.patch.object(other_texts, "_BLOCK", 5):
            rows = list(other_texts.add(PAIRS, 1))
        self.assertLen(rows, 12)

    def test_rows_without_another_text_are_refused(self):
        for pairs in ([pair("a", "x")], [pair("a", "x"), pair("b", "x")]):
            with self.assertRaisesRegex(
                errors.InputError, "different second texts"
            ):
                list(other_texts.add(pairs, 1))
        self.assertEmpty(list(other_texts.add([], 1)))


if __name__ == "__main__":
    absltest.main()
