"""ELMo's tokenizer: words and the ids of their characters."""

import collections
import os
import pickle
import re

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.tokenizers import base, characters, wordpiece
from tests import tiny

TEXTS = (
    "A very good film, isn't it?",
    "  white \t space\nand\u00a0more\u3000",
    "电影 is 电影, naïve\U0001f600!",
    "",
    "a-b_c $5.00 [MASK] <S> </S>",
    "x" * 60 + " y " + "é" * 30,
    "z" * 250 + " end",
    "cafe\u0301 \x00control\x07s",
)


def spelled(word):
    """A word's ids by bilm-tf's rules, in plain Python."""
    letters = [value + 1 for value in word.encode()[:48]]
    ids = [259, *letters, 260]
    return ids + [261] * (50 - len(ids))


class CharactersTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.tokenizer = tiny.characters()

    def test_ids_are_bytes_between_marks(self):
        words = [
            "a",
            "film",
            "电影",
            "x" * 48,
            "x" * 60,
            "é" * 30,
            "\U0001f600",
        ]
        np.testing.assert_array_equal(
            characters.encode(tf.constant(words)), [spelled(w) for w in words]
        )

    def test_no_words_have_no_ids(self):
        self.assertEqual(
            characters.encode(tf.constant([], tf.string)).shape[0], 0
        )

    def test_the_frame_is_a_sentences(self):
        frame = self.tokenizer.frame
        start = (259, 257, 260, *[261] * 47)
        end = (259, 258, 260, *[261] * 47)
        self.assertEqual(
            frame, base.Frame((start,), (end, start), (end,), "characters")
        )
        self.assertEqual(self.tokenizer.special_ids, (start, end))

    def test_offsets_cover_the_words(self):
        ids, starts, ends = self.tokenizer.with_offsets(tf.constant(TEXTS))
        np.testing.assert_array_equal(
            ids.values, self.tokenizer(tf.constant(TEXTS)).values
        )
        for number in (0, 1, 2, 4):
            parts = [
                TEXTS[number][start:end]
                for start, end in zip(
                    starts[number].numpy(), ends[number].numpy(), strict=True
                )
            ]
            self.assertEqual(self.tokenizer.tokens(ids[number].numpy()), parts)
            self.assertTrue(all(parts))

    def test_words_are_wordpieces(self):
        """Words begin where those of BERT's tokenizer do."""
        pieces = wordpiece.Tokenizer(tiny.VOCABULARY, lowercase=False)
        texts = tf.constant(TEXTS)
        ids, starts, _ = pieces.with_offsets(texts)
        first = pieces.word_starts(ids)
        expected = tf.ragged.boolean_mask(starts, first)
        _, starts, _ = self.tokenizer.with_offsets(texts)
        self.assertEqual(starts.to_list(), expected.to_list())

    def test_a_text_is_lowercased_where_asked(self):
        lower = characters.Characters(self.tokenizer.vocabulary, lowercase=True)
        ids, starts, ends = lower.with_offsets(["Ein GROẞER Éclair"])
        self.assertEqual(
            lower.tokens(ids[0].numpy()), ["ein", "großer", "eclair"]
        )
        self.assertEqual(starts.to_list(), [[0, 4, 11]])
        self.assertEqual(ends.to_list(), [[3, 10, 17]])

    def test_invalid_utf8_is_dropped(self):
        ids = self.tokenizer([b"go\xffod \xf0\x9f film"])
        self.assertEqual(
            self.tokenizer.tokens(ids[0].numpy()), ["good", "film"]
        )

    @parameterized.parameters(
        ("b" * 201, "b" * 48),
        ("b" * 900, "b" * 48),
        ("a" + "ไ" * 16, "a" + "ไ" * 15),  # 48 bytes end inside a character
    )
    def test_of_a_long_word_the_first_characters_are_read(self, word, read):
        ids, starts, ends = self.tokenizer.with_offsets([f"{word} x"])
        self.assertEqual(ids.to_list(), self.tokenizer([f"{word} x"]).to_list())
        np.testing.assert_array_equal(ids[0][0], spelled(word))
        self.assertEqual(starts.to_list(), [[0, len(word) + 1]])
        self.assertEqual(ends.to_list(), [[len(word), len(word) + 2]])
        self.assertEqual(self.tokenizer.tokens(ids[0].numpy()), [read, "x"])
        texts = self.tokenizer.token_texts(ids.to_tensor())
        self.assertEqual(texts[0][0].numpy().decode(), read)
        text = self.tokenizer.detokenize(ids)
        self.assertEqual(text[0].numpy().decode(), f"{read} x")

    def test_word_ids(self):
        ids = self.tokenizer(["a film is unheard .", ""])
        word_ids = self.tokenizer.word_ids(ids)
        words = [self.tokenizer.vocabulary[i] for i in word_ids[0].numpy()]
        self.assertEqual(words, ["a", "film", "is", "<UNK>", "."])
        frame = self.tokenizer.frame
        special = tf.constant([[frame.start[0], frame.end[0]]])
        special = tf.RaggedTensor.from_tensor(special)
        self.assertEqual(self.tokenizer.word_ids(special).to_list(), [[1, 0]])

    def test_each_token_is_a_word(self):
        ids = self.tokenizer(["a film", "", "x"])
        self.assertEqual(
            self.tokenizer.word_starts(ids).to_list(), [[True] * 2, [], [True]]
        )

    def test_detokenizes(self):
        text = "the film 电影 is naïve !"
        ids = self.tokenizer([text, ""])
        expected = ["the film电影is naïve !".encode(), b""]
        self.assertEqual(
            self.tokenizer.detokenize(ids).numpy().tolist(), expected
        )
        padded = ids.to_tensor()
        self.assertEqual(
            self.tokenizer.detokenize(padded).numpy().tolist(), expected
        )
        word_ids = self.tokenizer.word_ids(self.tokenizer(["the film x"]))
        self.assertEqual(
            self.tokenizer.detokenize(word_ids).numpy().tolist(),
            [b"the film <UNK>"],
        )
        ids = tf.constant([[1, 3, 0]])
        self.assertEqual(
            self.tokenizer.detokenize(ids).numpy().tolist(), [b"the"]
        )

    def test_learns_the_most_frequent_words(self):
        texts = ["a b b c", "c c, d " + "e" * 49, "a . a ."]
        learned = characters.Characters.learn(texts, 7, lowercase=False)
        counts = collections.Counter(re.findall(r"\w+|\S", " ".join(texts)))
        order = sorted(counts, key=lambda word: (-counts[word], word))
        self.assertEqual(
            learned.vocabulary, (*characters.SPECIAL_WORDS, *order[:4])
        )

    @parameterized.parameters(3, 8, 100)
    def test_a_size_that_the_text_lacks_is_refused(self, size):
        with self.assertRaisesRegex(errors.InputError, "of 4 to 7 words"):
            characters.Characters.learn(["a b c d"], size, lowercase=False)

    @parameterized.parameters(
        (("Film", "the"), False), (("film", "the"), True), ((), False)
    )
    def test_the_case_is_inferred(self, words, lowercase):
        path = self.create_tempfile(
            content="\n".join((*characters.SPECIAL_WORDS, *words))
        ).full_path
        read = characters.Characters.from_vocab(path)
        self.assertEqual(read.lowercase, lowercase)

    @parameterized.parameters(
        ("a\nb\n", "lack </S>, <S>, <UNK>"),
        ("</S>\n<S>\n<UNK>\na\nb\na\n", "has 'a' 2 times"),
        ("</S>\n<S>\n<UNK>\n\nb\n", "line 4 of the vocabulary is empty"),
    )
    def test_wrong_vocabularies_are_refused(self, content, message):
        path = self.create_tempfile(content=content).full_path
        with self.assertRaisesRegex(errors.InputError, f"{path}.*{message}"):
            characters.Characters.from_vocab(path)

    def test_a_vocabulary_in_another_encoding_is_refused(self):
        path = self.create_tempfile(
            content="é".encode("latin-1"), mode="wb"
        ).full_path
        with self.assertRaisesRegex(errors.InputError, "in UTF-8"):
            characters.Characters.from_vocab(path)

    def test_is_saved_and_pickled(self):
        folder = self.create_tempdir().full_path
        names = self.tokenizer.save(folder)
        self.assertEqual(os.listdir(folder), list(names))
        again = base.from_dict(self.tokenizer.to_dict(), folder)
        self.assertEqual(again.fingerprint, self.tokenizer.fingerprint)
        pickled = pickle.loads(pickle.dumps(again))
        self.assertEqual(pickled.vocabulary, self.tokenizer.vocabulary)


if __name__ == "__main__":
    absltest.main()
