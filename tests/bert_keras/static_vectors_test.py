"""Files of word vectors, their errors, and word2vec."""

import os
import sys
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from bert_keras import errors, static_vectors
from tests import tiny

WORDS = ("film", "苹果", "new_york", "-", "2")
VALUES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
LINES = [
    f"{word} {' '.join(map(repr, map(float, row)))}\n".encode()
    for word, row in zip(WORDS, VALUES, strict=True)
]
BINARY = b"5 3\n" + b"".join(
    word.encode() + b" " + row.astype("<f4").tobytes() + b"\n"
    for word, row in zip(WORDS, VALUES, strict=True)
)


class ReadTest(parameterized.TestCase):
    def write(self, content):
        path = os.path.join(self.create_tempdir().full_path, "vectors")
        with open(path, "wb") as file:
            file.write(content)
        return path

    @parameterized.named_parameters(
        ("glove", b"".join(LINES)),
        ("windows", b"".join(LINES).replace(b"\n", b"\r\n")),
        ("byte_order_mark", b"\xef\xbb\xbf" + b"".join(LINES)),
        ("of_word2vec_too", b"\xef\xbb\xbf5 3\n" + b"".join(LINES)),
        ("no_last_newline", b"".join(LINES).rstrip(b"\n")),
        ("word2vec_text", b"".join([b"5 3\n", *LINES])),
        # word2vec writes a newline after each word, and others do not.
        ("word2vec_binary", BINARY),
        (
            "binary_without_newlines",
            b"5 3\n"
            + b"".join(
                word.encode() + b" " + row.astype("<f4").tobytes()
                for word, row in zip(WORDS, VALUES, strict=True)
            ),
        ),
    )
    def test_every_format_has_the_same_vectors(self, content):
        vectors = static_vectors.read(self.write(content))
        self.assertEqual(vectors.words, WORDS)
        self.assertEqual(vectors.values.dtype, np.float32)
        np.testing.assert_array_equal(vectors.values, VALUES)

    def test_a_word_of_a_text_file_may_have_spaces(self):
        vectors = static_vectors.read(self.write(b"a 1 2\nat home 3 4\n"))
        self.assertEqual(vectors.words, ("a", "at home"))
        np.testing.assert_array_equal(vectors.values, [[1, 2], [3, 4]])

    def test_some_words_are_read_in_the_order_of_the_file(self):
        vectors = static_vectors.read(
            self.write(BINARY), {"2", "苹果", "absent"}
        )
        self.assertEqual(vectors.words, ("苹果", "2"))
        np.testing.assert_array_equal(vectors.values, VALUES[[1, 4]])
        some = vectors.select(["2", "film", "苹果"])
        self.assertEqual(some.words, ("2", "苹果"))
        np.testing.assert_array_equal(some.values, VALUES[[4, 1]])

    @parameterized.parameters(
        (b"", "expected word vectors, found none"),
        (b"a 1 2\nb 1\n", "line 2: expected a word and 2 numbers"),
        (b"a 1 2\nb 1 x\n", "line 2: .*'x'"),
        (b"a 1 2\nb 1 nan\n", "line 2: expected finite numbers"),
        (b"a 1 2\nb 3 4\na 5 6\n", "line 3: expected each word once"),
        (b"a 1 2\n\xff 3 4\n", "line 2: expected a word in UTF-8"),
        (b"3 2\na 1 2\nb 3 4\n", "expected 3 words.*found 2"),
        (b"2 2\na 1 2\nb 3\n", "line 3: expected a word and 2 numbers"),
        (BINARY[:-5], "word 5 of 5: expected 12 bytes of numbers, found 8"),
        (BINARY[:-15], "word 5 of 5: expected a word, a space"),
        (BINARY + b"x", "expected 5 words.*found more bytes"),
        (b"2 2\n" + b"\x80\x02" * 20_000, "word 1 of 2: expected a word"),
    )
    def test_other_contents_are_refused_in_one_line(self, content, message):
        path = self.write(content)
        with self.assertRaisesRegex(errors.InputError, message) as caught:
            static_vectors.read(path)
        self.assertNotIn("\n", str(caught.exception))
        self.assertIn(path, str(caught.exception))


class TableTest(absltest.TestCase):
    def test_a_words_vector_is_the_mean_of_its_tokens_rows(self):
        table = np.random.default_rng(1).normal(size=(len(tiny.VOCABULARY), 4))
        index = tiny.VOCABULARY.index
        vectors = static_vectors.of_table(
            table, tiny.tokenizer(), ["电影", "xyz", "films", "", "good"]
        )
        self.assertEqual(vectors.words, ("电影", "films", "good"))
        expected = [
            (table[index("电")] + table[index("影")]) / 2,
            (table[index("film")] + table[index("##s")]) / 2,
            table[index("good")],
        ]
        np.testing.assert_allclose(vectors.values, expected, rtol=1e-6)
        none = static_vectors.of_table(table, tiny.tokenizer(), ["xyz"])
        self.assertEqual((none.words, none.values.shape), ((), (0, 4)))


class LearnTest(absltest.TestCase):
    def test_without_gensim_it_says_what_to_install(self):
        missing = {"gensim": None, "gensim.models": None}
        with mock.patch.dict(sys.modules, missing):
            with self.assertRaisesRegex(errors.InputError, "pip install"):
                static_vectors.learn([["a"]])

    def test_words_of_the_same_contexts_are_near(self):
        try:
            import gensim  # noqa: F401
        except ImportError:
            self.skipTest("gensim is not installed")
        random = np.random.default_rng(0)
        fruit, tools = ["apple", "pear"], ["saw", "axe"]
        texts = [
            ["eat", "the", "ripe", str(random.choice(fruit)), "now"]
            if row % 2
            else ["cut", "a", "big", "log", "with", str(random.choice(tools))]
            for row in range(2000)
        ]
        one, two = (static_vectors.learn(texts, width=8) for _ in range(2))
        np.testing.assert_array_equal(one.values, two.values)
        values = one.select(["apple", "pear", "axe"]).values
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        self.assertGreater(values[0] @ values[1], values[0] @ values[2])
        with self.assertRaisesRegex(errors.InputError, "5 occurrences"):
            static_vectors.learn([["a", "b"]])


if __name__ == "__main__":
    absltest.main()
