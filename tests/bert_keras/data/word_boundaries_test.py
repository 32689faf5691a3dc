"""Facts on words, phrases and entities, against slow references."""

import os
import sys
import types
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.data import hiding, packing, word_boundaries
from bert_keras.tokenizers import base as tokenizers
from tests import tiny

TOKENIZER = tiny.tokenizer()


def starts_of(sentences, **settings):
    """The text of each unit of each level, by sentence."""
    ids = TOKENIZER(tf.constant(sentences))
    finder = word_boundaries.Finder(
        word_boundaries.Settings(**settings), TOKENIZER
    )
    facts = finder.starts(sentences, ids)
    splits = ids.row_splits.numpy()
    levels = []
    for level in range(3):
        rows = []
        for begin, end in zip(splits[:-1], splits[1:], strict=True):
            units = []
            for index in range(begin, end):
                (token,) = TOKENIZER.tokens([ids.values[index].numpy()])
                if facts[index] >> 2 * level & 1:
                    units.append(token)
                else:
                    units[-1] += f" {token}"
            rows.append(units)
        levels.append(rows)
    return levels


class WordBoundariesTest(parameterized.TestCase):
    def test_words_are_those_of_the_tokenizer(self):
        words, phrases, entities = starts_of(["the plots ! 很好", "", "old"])
        self.assertEqual(words, phrases)
        self.assertEqual(words, entities)
        expected = ["the", "plot ##s", "!", "很", "好"]
        self.assertEqual(words, [expected, [], ["old"]])

    def test_phrases_are_the_longest_of_complete_words(self):
        words, phrases, entities = starts_of(
            ["a good film is a good", "film the plots plot", "很好电影很好"],
            phrases=("good film", "a good film", "plot", "the plot", "很好电"),
            entities=("is a good film", "影很"),
        )
        self.assertEqual(
            phrases,
            [
                ["a good film", "is", "a", "good"],
                # "the plot" is no complete word of "the plots".
                ["film", "the", "plot ##s", "plot"],
                ["很 好 电", "影", "很", "好"],
            ],
        )
        self.assertEqual(entities[:2], words[:2])  # none across sentences
        self.assertEqual(entities[2], ["很", "好", "电", "影 很", "好"])

    def test_words_of_jieba(self):
        class Tokenizer:
            tmp_dir = None

            def initialize(self):
                assert os.path.isdir(self.tmp_dir)

            def lcut(self, text):
                return {
                    "很好电影 plots": ["很好", "电影", " ", "plots"],
                    "好": ["好"],
                    "film": ["fi", "lm"],
                    "plots": list("plots"),
                }[text]

        word_boundaries._jieba.cache_clear()
        self.addCleanup(word_boundaries._jieba.cache_clear)
        module = types.SimpleNamespace(Tokenizer=Tokenizer)
        with mock.patch.dict(sys.modules, {"jieba": module}):
            words, phrases, _ = starts_of(
                ["很好电影 plots", "好"], words="jieba", phrases=("好电",)
            )
        self.assertEqual(words, [["很 好", "电 影", "plot ##s"], ["好"]])
        # A phrase need not respect them; what is left of a word is a unit.
        self.assertEqual(phrases, [["很", "好 电", "影", "plot ##s"], ["好"]])

        # The letters of other languages stay together.
        with mock.patch.dict(sys.modules, {"jieba": module}):
            words, _, _ = starts_of(["film", "plots"], words="jieba")
        self.assertEqual(words, [["film"], ["plot ##s"]])

    def test_without_jieba_its_package_is_named(self):
        word_boundaries._jieba.cache_clear()
        with mock.patch.dict(sys.modules, {"jieba": None}):
            with self.assertRaisesRegex(errors.InputError, r"\[jieba\]"):
                starts_of(["好"], words="jieba")

    def test_packed_facts_tell_what_is_cut(self):
        random = np.random.default_rng(0)
        length, rows = 300, 40
        starts = random.random((3, length)) < [[0.7], [0.5], [0.3]]
        starts[:, 0] = True
        facts = sum(
            row.astype(np.uint8) << 2 * level
            for level, row in enumerate(starts)
        ).astype(np.uint8)
        bounds = np.sort(random.integers(0, length, (rows, 4)), axis=1)
        first, second = bounds[:, :2], bounds[:, 2:]
        second[::3] = second[::3, :1]  # rows of one segment
        frame = tokenizers.Frame((2,), (3, 3), (3,))
        packed = word_boundaries.pack(facts, first, second, frame)
        splits, token_ids, _ = packing.pack_spans(
            np.arange(length) + 10, first, second, frame
        )
        self.assertLen(packed, len(token_ids))
        for row in range(rows):
            inside = slice(splits[row], splits[row + 1])
            spans = [first[row], second[row]]
            for token, fact in zip(
                token_ids[inside] - 10, packed[inside], strict=True
            ):
                if token < 0:  # of the frame
                    self.assertEqual(fact, 0b010101)
                    continue
                begin, end = next(s for s in spans if s[0] <= token < s[1])
                for level in range(3):
                    own = starts[level]
                    unit = token - np.argmax(own[token::-1])
                    after = np.flatnonzero(own[token + 1 :])
                    stop = token + 1 + after[0] if len(after) else length
                    cut = unit < begin or stop > end
                    self.assertEqual(fact >> 2 * level & 1, own[token])
                    self.assertEqual(fact >> 2 * level + 1 & 1, cut)

    def test_a_lexicon_is_a_phrase_a_line(self):
        path = os.path.join(self.create_tempdir().full_path, "phrases.txt")

        def read(data):
            with open(path, "wb") as file:
                file.write(data)
            return word_boundaries.read_lexicon(path)

        text = "\ufeffnew york\r\n\n 很好 \nnew york\n".encode()
        self.assertEqual(read(text), ("new york", "很好"))
        with self.assertRaisesRegex(errors.InputError, "found none"):
            read(b"\n \n")
        with self.assertRaisesRegex(errors.InputError, "line 2: .*GB18030"):
            read("a\n很".encode("gb18030"))

    def test_phrases_with_unknown_tokens_are_told(self):
        missing = word_boundaries.unknown(("good film", "龥", " "), TOKENIZER)
        self.assertEqual(missing, ["龥", " "])
        self.assertEmpty(word_boundaries.unknown((), TOKENIZER))

    def test_stored_levels_have_names(self):
        settings = word_boundaries.Settings(entities=("a",))
        self.assertEqual(settings.units, ["words", "entities"])
        self.assertLessEqual({*settings.units}, {*hiding.LEVELS})
        told = word_boundaries.how_to_store({"words", "phrases"})
        self.assertEqual(told, "`phrases` and `word_boundaries`")


if __name__ == "__main__":
    absltest.main()
