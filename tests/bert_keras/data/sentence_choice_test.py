"""The best sentences, and those that repeat a better one."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras.data import sentence_choice
from bert_keras.metrics import generation
from tests import tiny

SENTENCES = [
    "The film is good, not old.",
    "It is: good NOT old?",  # shares 4 words with the first
    "a very dull story",
    "dull story; was new",  # shares 2 words with the one before
    "",
]
SCORES = [0.9, 0.8, 0.7, 0.6, 1.0]


def choose(scores, sentences, **settings):
    chosen = tf.function(sentence_choice.choose)(
        tf.constant(scores, tf.float32),
        tf.constant(sentences) != "",
        tf.constant(sentences),
        **settings,
    )
    return [np.flatnonzero(row).tolist() for row in chosen.numpy()]


def reference(scores, sentences, count, size):
    """Trigram blocking as in the paper, sentence by sentence."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    chosen = []

    def ngrams(index):
        words = generation.tokens(sentences[index])
        return {
            tuple(words[i : i + size]) for i in range(len(words) - size + 1)
        }

    for index in order:
        if not sentences[index] or len(chosen) == count:
            continue
        if not (size and any(ngrams(index) & ngrams(i) for i in chosen)):
            chosen.append(index)
    return sorted(chosen)


class ChooseTest(parameterized.TestCase):
    @parameterized.parameters(
        (1, 0, [0]),
        (2, 0, [0, 1]),
        (9, 0, [0, 1, 2, 3]),
        (2, 3, [0, 2]),
        (2, 4, [0, 2]),
        (2, 5, [0, 1]),
        (3, 3, [0, 2, 3]),
        (3, 2, [0, 2]),
    )
    def test_the_best_that_repeat_nothing(self, count, size, expected):
        self.assertEqual(
            choose([SCORES], [SENTENCES], count=count, ngram_size=size),
            [expected],
        )

    def test_words_of_another_text_do_not_count(self):
        sentences = [["a good old film", "x"], ["a good old film", "x"]]
        self.assertEqual(
            choose([[0.9, 0.1]] * 2, sentences, count=2, ngram_size=3),
            [[0, 1], [0, 1]],
        )

    def test_chinese_characters_are_words(self):
        sentences = [["这部电影很好", "电影很差", "影很好看"]]
        scores = [[0.9, 0.8, 0.7]]
        for size, expected in ((2, [0]), (3, [0]), (4, [0, 1, 2])):
            self.assertEqual(
                choose(scores, sentences, count=3, ngram_size=size),
                [expected],
            )

    def test_random_texts_are_chosen_as_in_the_paper(self):
        random = np.random.default_rng(1)
        words = [word for word in tiny.WORDS if word.isalpha()][:6]
        for size in (0, 1, 2, 3):
            texts = [
                [
                    " ".join(random.choice(words, random.integers(0, 6)))
                    for _ in "123456"
                ]
                for _ in range(20)
            ]
            scores = random.random((20, 6)).round(1)
            self.assertEqual(
                choose(scores, texts, count=3, ngram_size=size),
                [
                    reference(row.tolist(), text, 3, size)
                    for row, text in zip(scores, texts, strict=True)
                ],
            )

    def test_no_text_has_no_sentences(self):
        for size in (0, 3):
            self.assertEqual(
                choose(
                    np.zeros((0, 4)),
                    np.zeros((0, 4), str),
                    count=2,
                    ngram_size=size,
                ),
                [],
            )

    @parameterized.parameters(
        "It's 3.5% of U.S. x_y-z",
        "Straße, ÉCOLE; naïve",
        "二〇二六年的GPT-4模型",
        "カタかな한국어 말",
        "हिन्दी में",
        "x² ½ —",
        "",
    )
    def test_words_are_the_tokens_of_rouge(self, text):
        (words,) = sentence_choice.words(tf.constant([text])).to_list()
        self.assertEqual(
            [word.decode() for word in words], generation.tokens(text)
        )


if __name__ == "__main__":
    absltest.main()
