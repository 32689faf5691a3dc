"""Negatives of pairs: never a right one, all others alike, equal halves."""

import collections

from absl.testing import absltest, parameterized

from bert_keras.data import other_texts


def pair(text, other, label="1"):
    return {"text": text, "text_pair": other, "label": label}


PAIRS = [pair(f"q{number}", f"a{number}") for number in range(6)]


def drawn(pairs, number):
    """The second texts that are drawn for each first text, in order."""
    texts = collections.defaultdict(list)
    left = collections.Counter(tuple(each.items()) for each in pairs)
    for row in other_texts.add(pairs, number):
        if left[tuple(row.items())]:
            left[tuple(row.items())] -= 1
        else:
            assert row["label"] == "0"
            texts[row["text"]].append(row["text_pair"])
    assert not sum(left.values())
    return texts


class OtherTextsTest(parameterized.TestCase):
    @parameterized.parameters(1, 2, 3, 5, 50)
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
        self.assertEqual(rows, list(other_texts.add(PAIRS, number)))

    def test_other_columns_stay(self):
        pairs = [each | {"group": each["text"]} for each in PAIRS]
        for row in other_texts.add(pairs, 1):
            self.assertEqual(row["group"], row["text"])

    def test_no_second_text_of_an_equal_first_text_is_drawn(self):
        pairs = [
            *[pair("q0", "x"), pair("q0", "y"), pair("q0", "z", "0")],
            *[pair("q1", "x"), pair("q1", "w"), pair("q2", "y")],
        ]
        found = drawn(pairs, 9)
        # q0 and q1 have two matches, q2 one.
        self.assertEqual(sorted(found["q0"]), ["w", "w"])
        self.assertEqual(sorted(found["q1"]), ["y", "y", "z", "z"])
        self.assertEqual(sorted(found["q2"]), ["w", "x", "z"])

    @parameterized.parameters(1, 4)
    def test_nor_among_many(self, number):
        # Each text has three right ones, far from each other in the file.
        pairs = [
            pair(f"q{text}", f"a{(text * 7 + 1000 * turn) % 3000}")
            for turn in range(3)
            for text in range(3000)
        ]
        right = {(each["text"], each["text_pair"]) for each in pairs}
        found = drawn(pairs, number)
        for text, others in found.items():
            self.assertLen(others, 3 * number)
            for other in others:
                self.assertNotIn((text, other), right)

    def test_a_pair_that_is_no_match_has_no_negatives(self):
        pairs = [*PAIRS, pair("q9", "a0", "0")]
        rows = list(other_texts.add(pairs, 2))
        self.assertLen(rows, 6 * 3 + 1)
        self.assertEqual(rows[-1], pairs[-1])

    @parameterized.parameters(4, 40)  # all others are counted, or tried
    def test_all_others_are_drawn_alike(self, count):
        # A text that many pairs have counts once.
        pairs = [pair(f"q{n}", f"a{min(n, count)}") for n in range(8000)]
        counts = collections.Counter(
            other for others in drawn(pairs, 1).values() for other in others
        )
        rows = 8000 - count  # those of the last text
        for number in range(count):
            expected = rows / count
            self.assertAlmostEqual(
                counts[f"a{number}"], expected, delta=5 * expected**0.5
            )
        self.assertLess(counts[f"a{count}"], 10)

    def test_a_text_with_nearly_all_second_texts(self):
        pairs = [pair("q", f"a{number}") for number in range(2000)]
        found = drawn([*pairs, pair("other", "b")], 3)
        self.assertEqual(found["q"], ["b"] * 2000)

    def test_texts_without_another_have_no_negatives(self):
        for pairs in ([], [pair("a", "x")], [pair("a", "x"), pair("b", "x")]):
            self.assertEqual(list(other_texts.add(pairs, 1)), pairs)


if __name__ == "__main__":
    absltest.main()
