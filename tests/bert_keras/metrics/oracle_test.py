"""The oracle raises the overlap that rouge_score measures, greedily."""

import itertools
import random

from absl.testing import absltest, parameterized

from bert_keras.metrics import generation, oracle
from tests import tiny


def rouge(text, references):
    metrics = [generation.rouge([text], [each]) for each in references]
    return max((m["rouge_1"] + m["rouge_2"]) / 100 for m in metrics)


class OracleTest(parameterized.TestCase):
    @parameterized.parameters(
        ("The plot is old.", ["An old plot", "the plot, it is dull"]),
        ("很好的电影, a film", ["这部电影很好", "film a"]),
        ("a b", ["b a"]),
        ("", ["a"]),
    )
    def test_overlap_is_the_sum_of_rouge_1_and_2(self, text, references):
        self.assertAlmostEqual(
            oracle.overlap(text, references), rouge(text, references)
        )

    def test_each_sentence_raises_the_overlap_most(self):
        numbers = random.Random(1)
        words = [word for word in tiny.WORDS if word.isalpha()]
        for _ in range(20):
            sentences = [" ".join(numbers.choices(words, k=4)) for _ in "12345"]
            references = [" ".join(numbers.choices(words, k=9)) for _ in "12"]
            chosen, best = [], 0.0
            for _ in range(3):
                scores = {
                    index: rouge(
                        " ".join(
                            sentences[i] for i in sorted([*chosen, index])
                        ),
                        references,
                    )
                    for index in range(5)
                    if index not in chosen
                }
                index = max(scores, key=lambda i: (round(scores[i], 9), -i))
                if scores[index] <= best + 1e-9:
                    break
                best = scores[index]
                chosen.append(index)
            self.assertEqual(
                oracle.greedy(sentences, references, 3), sorted(chosen)
            )

    def test_bigrams_of_neighbours_count_in_the_order_of_the_text(self):
        sentences = ["x a", "b c", "y z"]
        self.assertEqual(oracle.greedy(sentences, ["b c x a"], 3), [0, 1])
        joined = "x a b c"
        self.assertAlmostEqual(oracle.overlap(joined, ["x a b c"]), 2.0)

    def test_it_stops_when_no_sentence_raises_the_overlap(self):
        sentences = ["a b", "a b", "c d", "", "e"]
        self.assertEqual(oracle.greedy(sentences, ["a b"], 3), [0])
        self.assertEqual(oracle.greedy(sentences, ["q"], 3), [])
        self.assertEqual(oracle.greedy(sentences, ["e a b"], 1), [0])
        self.assertEqual(oracle.greedy([], ["a"], 3), [])

    def test_any_reference_counts(self):
        sentences = ["a b", "c d", "e f"]
        for order in itertools.permutations(["a x y z", "c d", "q"]):
            self.assertEqual(oracle.greedy(sentences, order, 2), [1])


if __name__ == "__main__":
    absltest.main()
