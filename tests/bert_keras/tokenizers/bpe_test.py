import json
import os
import pathlib
import pickle
import tempfile
import time
import unicodedata

import tensorflow as tf
import tokenizers as library
from absl.testing import absltest, parameterized
from tokenizers import models, normalizers, pre_tokenizers

from bert_keras import errors
from bert_keras.text import byte_pairs
from bert_keras.tokenizers import base, bpe
from tests.bert_keras.data import reference_tokenizer
from tests.bert_keras.tokenizers.nasty import NASTY

LINES = (
    "The films were filmed in the film studio, and the finest film won.",
    "A banana, bananas and an ananas: nananana na banana!",
    "Filming the finest studios in a fine, final season (banana's season).",
    "aaaa aaaaa aaaaaaa abab ababab bababa",
    "Цена фильма выросла; фильмы и цены. ΣΑΣ ΣΑΣΑ σας Άνα",
    "中文电影很好。电影，中文！ 한국어 한국",
    "naïve cafés: Café, NAÏVE, cafés 1999 1,999 19.99",
)
TEXTS = LINES * 3


class Reference:
    """Byte pairs as in Sennrich et al. 2016, one word at a time."""

    def __init__(self, tokenizer):
        self.ids = {t: i for i, t in enumerate(tokenizer.vocabulary)}
        self.ranks = {pair: i for i, pair in enumerate(tokenizer.merges)}
        self.split = reference_tokenizer.ReferenceTokenizer(
            ["[UNK]"], lowercase=tokenizer.lowercase
        )

    def __call__(self, text):
        words = self.split.words(text)
        return [i for word in words for i in self.word(word)]

    def word(self, word):
        ids = []
        for start in range(0, len(word), byte_pairs.MAX_PART):
            part = list(word[start : start + byte_pairs.MAX_PART])
            if start + len(part) == len(word):
                part[-1] += "</w>"
            ids += [
                self.ids.get(t, self.ids["<unk>"]) for t in self.merge(part)
            ]
        return ids

    def merge(self, symbols):
        while True:
            pairs = set(zip(symbols, symbols[1:], strict=False))
            best = min(pairs & self.ranks.keys(), key=self.ranks.get, default=0)
            if not best:
                return symbols
            merged = []
            for symbol in symbols:
                if (
                    merged
                    and (merged[-1], symbol) == best
                    and not (len(merged) > 1 and merged[-2] is None)
                ):
                    merged[-1] += symbol
                    merged.append(None)  # do not merge it again
                else:
                    merged = [m for m in merged if m is not None]
                    merged.append(symbol)
            symbols = [m for m in merged if m is not None]


def of_library(tokenizer):
    """The same tokenizer of Hugging Face's library."""
    other = library.Tokenizer(
        models.BPE(
            {t: i for i, t in enumerate(tokenizer.vocabulary)},
            list(tokenizer.merges),
            unk_token="<unk>",
            end_of_word_suffix="</w>",
            fuse_unk=False,
        )
    )
    other.normalizer = normalizers.BertNormalizer(lowercase=tokenizer.lowercase)
    other.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return other


def learned(lowercase=True, size=220):
    return bpe.BytePairTokenizer.learn(TEXTS, size, lowercase=lowercase)


class IdsTest(parameterized.TestCase):
    @parameterized.product(lowercase=(True, False))
    def test_are_those_of_the_algorithm(self, lowercase):
        tokenizer = learned(lowercase)
        self.assertGreater(len(tokenizer.merges), 20)
        reference = Reference(tokenizer)
        for text, ids in zip(
            NASTY + TEXTS, tokenizer(NASTY + TEXTS).to_list(), strict=True
        ):
            self.assertEqual(ids, reference(text), msg=ascii(text))

    @parameterized.product(lowercase=(True, False))
    def test_are_those_of_the_library(self, lowercase):
        # It lower-cases letter by letter, keeps private-use characters out, and
        # splits no long words.
        texts = [
            t
            for t in NASTY + TEXTS
            if "Σ" not in t and "\ue000" not in t and len(t) <= 100
        ]
        self.assertGreater(len(texts), 40)
        tokenizer = learned(lowercase)
        expected = of_library(tokenizer).encode_batch(texts)
        for text, ids, other in zip(
            texts, tokenizer(texts).to_list(), expected, strict=True
        ):
            self.assertEqual(ids, other.ids, msg=ascii(text))

    def test_every_old_character_is_split_as_the_rules_do(self):
        characters = [
            chr(code)
            for code in range(0x30000)
            if unicodedata.ucd_3_2_0.category(chr(code)) not in ("Cn", "Cs")
            and not 0xE000 < code < 0xF8FF
            and code != 0x1734  # Mn until Unicode 14, then Mc
        ]
        vocabulary = ["<unk>", "a", "b", "a</w>", "b</w>", "ab</w>"]
        tokenizer = bpe.BytePairTokenizer(
            vocabulary, [("a", "b</w>")], lowercase=True
        )
        reference = Reference(tokenizer)
        texts = [f"a{c}b" for c in characters]
        for text, ids in zip(texts, tokenizer(texts).to_list(), strict=True):
            if ids != reference(text):
                self.fail(f"{text!a} gave {tokenizer.tokens(ids)}")

    @parameterized.parameters(
        ("aaaa", ["aa", "aa</w>"]),
        ("aaaaa", ["aa", "aa", "a</w>"]),
        ("aaaaaa", ["aa", "aa", "aa</w>"]),
        ("a", ["a</w>"]),
        ("aa aaa", ["aa</w>", "aa", "a</w>"]),
    )
    def test_a_pair_in_a_row_is_merged_from_the_left(self, text, tokens):
        tokenizer = bpe.BytePairTokenizer(
            ["<unk>", "a", "a</w>", "aa", "aa</w>"],
            [("a", "a"), ("a", "a</w>")],
            lowercase=True,
        )
        self.assertEqual(tokenizer.tokens(tokenizer([text])[0].numpy()), tokens)

    def test_a_long_word_is_split_in_parts(self):
        tokenizer = bpe.BytePairTokenizer(
            ["<unk>", "x", "x</w>"], [], lowercase=True
        )
        for size in (99, 100, 101, 200, 1001):
            ids = tokenizer(["x" * size])[0].numpy().tolist()
            self.assertEqual(ids, [1] * (size - 1) + [2])
        word = "ab" * 60
        tokenizer = bpe.BytePairTokenizer(
            ["<unk>", "a", "b", "b</w>", "ab", "ab</w>", "ba"],
            [("b", "a"), ("a", "b"), ("a", "b</w>")],
            lowercase=True,
        )
        self.assertEqual(
            tokenizer([word]).to_list(), [Reference(tokenizer)(word)]
        )

    def test_equal_texts_give_equal_vocabularies_of_the_requested_size(self):
        for lowercase in (True, False):
            first, second = learned(lowercase), learned(lowercase)
            self.assertLen(first.vocabulary, 220)
            self.assertEqual(first.vocabulary, second.vocabulary)
            self.assertEqual(first.merges, second.merges)
            self.assertEqual(first.vocabulary[:3], ("<pad>", "<unk>", "<end>"))
        with self.assertRaisesRegex(errors.InputError, "Expected text for"):
            learned(size=5000)


class TextTest(parameterized.TestCase):
    def test_offsets_are_exact(self):
        tokenizer = learned()
        texts = list(NASTY + TEXTS) + [b"caf\xc3 \xffa\xc3(b"]
        ids, starts, ends = tokenizer.with_offsets(texts)
        self.assertEqual(ids.to_list(), tokenizer(texts).to_list())
        rows = zip(
            texts, *(x.to_list() for x in (ids, starts, ends)), strict=True
        )
        for text, row, first, last in rows:
            if isinstance(text, bytes):
                text = text.decode("utf-8", "ignore")
            for token, start, end in zip(row, first, last, strict=True):
                self.assertTrue(0 <= start < end <= len(text), ascii(text))
                if token == tokenizer.unk_id:
                    continue
                source = text[start:end]
                form = unicodedata.normalize("NFD", source.lower())
                form = "".join(
                    c
                    for c in form
                    if unicodedata.category(c)[0] not in "MC" and c != "\ufffd"
                )
                name = tokenizer.vocabulary[token].removesuffix("</w>")
                # A character of several tokens is the source of each.
                self.assertIn(
                    name.replace("ς", "σ"), form.replace("ς", "σ"), ascii(text)
                )

    def test_offsets_are_those_of_the_library(self):
        tokenizer = learned()
        for encoded, starts, ends in zip(
            of_library(tokenizer).encode_batch(LINES[:4]),
            *(x.to_list() for x in tokenizer.with_offsets(LINES[:4])[1:]),
            strict=True,
        ):
            self.assertEqual(
                encoded.offsets, list(zip(starts, ends, strict=True))
            )

    def test_words_start_after_the_end_of_another(self):
        tokenizer = learned()
        ids = tokenizer(["banana's 中文 film", "", "na", "film ☃a"])
        starts = tokenizer.word_starts(ids)
        words = []
        for row, flags in zip(ids.to_list(), starts.to_list(), strict=True):
            for token, flag in zip(tokenizer.tokens(row), flags, strict=True):
                if flag:
                    words.append("")
                words[-1] += token.removesuffix("</w>")
        self.assertEqual(
            words[:7], ["banana", "'", "s", "中", "文", "film", "na"]
        )
        self.assertEqual(words[7:], ["film", "<unk>", "a"])

    def test_the_first_token_of_a_row_starts_a_word(self):
        tokenizer = learned()
        inside = tokenizer.vocabulary.index("f")
        ids = tf.ragged.constant([[inside, inside], [], [inside]], tf.int32)
        self.assertEqual(
            tokenizer.word_starts(ids).to_list(), [[True, False], [], [True]]
        )

    def test_ids_become_text_again(self):
        tokenizer = learned().with_frame()
        ids = tokenizer(["A naïve film, 中文电影!", ""])
        text = ["a naive film ,中文电影!", ""]
        self.assertEqual(
            [t.decode() for t in tokenizer.detokenize(ids).numpy()], text
        )
        (start,), (delimiter,), (extract,) = tokenizer.frame[:3]
        row = [start, *ids[0].numpy(), delimiter, extract, tokenizer.end_id]
        padded = tf.constant([row + [tokenizer.pad_id] * 4])
        self.assertEqual(
            tokenizer.detokenize(padded).numpy()[0].decode(), text[0]
        )

    def test_without_padding_an_unknown_character_stays(self):
        tokenizer = bpe.BytePairTokenizer(
            ["<unk>", "a</w>", "b</w>"], [], lowercase=True
        )
        self.assertEqual((tokenizer.pad_id, tokenizer.end_id), (0, None))
        ids = tf.constant([[1, 0, 2, 0, 0]])
        self.assertEqual(tokenizer.detokenize(ids).numpy()[0], b"a <unk> b")

    def test_literal_special_tokens_are_words_unless_asked_for(self):
        tokenizer = learned().with_frame()
        text = ["film<end> <extract>film"]
        plain = tokenizer(text).to_list()[0]
        self.assertNotIn(tokenizer.end_id, plain)
        special = tokenizer(text, special_tokens=True)[0].numpy()
        self.assertEqual(
            tokenizer.tokens(special),
            ["film</w>", "<end>", "<extract>", "film</w>"],
        )

    def test_a_frame_is_added_at_the_end_of_the_vocabulary(self):
        tokenizer = learned()
        self.assertEqual(tokenizer.frame[:3], ((), (), ()))
        framed = tokenizer.with_frame()
        self.assertEqual(framed.frame[:3], ((220,), (221,), (222,)))
        self.assertEqual(framed.vocabulary[:220], tokenizer.vocabulary)
        self.assertEqual(framed(TEXTS).to_list(), tokenizer(TEXTS).to_list())
        self.assertIs(framed.with_frame(), framed)
        self.assertNotEqual(framed.fingerprint, tokenizer.fingerprint)


class GraphTest(parameterized.TestCase):
    @parameterized.product(special_tokens=(True, False))
    def test_gives_int32_rows_for_any_batch(self, special_tokens):
        tokenizer = learned()
        reference = Reference(tokenizer)
        graph = tf.function(
            lambda text: tokenizer(text, special_tokens=special_tokens),
            input_signature=[tf.TensorSpec([None], tf.string)],
        )
        for batch in ([], [""], ["", "film", ""]):
            ids = graph(tf.constant(batch, tf.string))
            self.assertEqual(ids.dtype, tf.int32)
            self.assertEqual(ids.shape.as_list(), [len(batch), None])
            self.assertEqual(ids.to_list(), list(map(reference, batch)))

    def test_a_saved_model_needs_no_assets(self):
        tokenizer, module = learned(), tf.Module()
        signature = [tf.TensorSpec([None], tf.string)]
        module.tokenize = tf.function(tokenizer, input_signature=signature)
        module.offsets = tf.function(
            tokenizer.with_offsets, input_signature=signature
        )
        folder = self.enter_context(tempfile.TemporaryDirectory())
        tf.saved_model.save(module, folder)
        self.assertEmpty(list(pathlib.Path(folder).glob("assets/*")))
        loaded = tf.saved_model.load(folder)
        text = tf.constant(NASTY)
        self.assertEqual(
            loaded.tokenize(text).to_list(), tokenizer(NASTY).to_list()
        )
        for ours, other in zip(
            tokenizer.with_offsets(text), loaded.offsets(text), strict=True
        ):
            self.assertEqual(ours.to_list(), other.to_list())

    def test_works_in_a_dataset(self):
        tokenizer = learned()
        rows = tf.data.Dataset.from_tensor_slices(list(LINES)).batch(3)
        ids = [row for batch in rows.map(tokenizer) for row in batch.to_list()]
        self.assertEqual(ids, tokenizer(list(LINES)).to_list())

    @parameterized.parameters(
        "a", "ab", "banana", "film ", "中", "é", "<end>", "\u0301\u0316", "x☃"
    )
    def test_time_grows_with_the_length_and_not_its_square(self, unit):
        text = [unit * (200_000 // len(unit.encode()))]
        tokenizer = learned()
        for read in (tokenizer, tokenizer.with_offsets):
            start = time.process_time()
            read(text)
            self.assertLess(time.process_time() - start, 4)


class FilesTest(parameterized.TestCase):
    def test_a_folder_is_read_as_it_was_saved(self):
        for tokenizer in (learned(), learned(False).with_frame()):
            folder = self.create_tempdir().full_path
            self.assertEqual(tokenizer.save(folder), tokenizer.files)
            again = base.from_dict(tokenizer.to_dict(), folder)
            self.assertEqual(again.vocabulary, tokenizer.vocabulary)
            self.assertEqual(again.merges, tokenizer.merges)
            self.assertEqual(again.fingerprint, tokenizer.fingerprint)
            self.assertEqual(again(NASTY).to_list(), tokenizer(NASTY).to_list())

    def test_the_files_are_those_of_hugging_face(self):
        tokenizer, folder = learned(), self.create_tempdir().full_path
        tokenizer.save(folder)
        other = library.Tokenizer(
            models.BPE.from_file(
                os.path.join(folder, "vocab.json"),
                os.path.join(folder, "merges.txt"),
                unk_token="<unk>",
                end_of_word_suffix="</w>",
            )
        )
        other.normalizer = normalizers.BertNormalizer(lowercase=True)
        other.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self.assertEqual(
            [row.ids for row in other.encode_batch(LINES[:4])],
            tokenizer(LINES[:4]).to_list(),
        )

    @parameterized.parameters(*bpe.NAMES)
    def test_published_names_are_read_from_the_folder_or_a_file(self, *names):
        tokenizer, folder = learned(), self.create_tempdir().full_path
        tokenizer.save(folder)
        for old, new in zip(tokenizer.files, names, strict=True):
            os.rename(os.path.join(folder, old), os.path.join(folder, new))
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            again = bpe.BytePairTokenizer.from_vocab(path)
            self.assertEqual(again.vocabulary, tokenizer.vocabulary)
            self.assertTrue(again.lowercase)

    def test_casing_is_inferred_from_the_vocabulary(self):
        folder = self.create_tempdir().full_path
        learned(False).save(folder)
        self.assertFalse(bpe.BytePairTokenizer.from_vocab(folder).lowercase)

    def test_it_pickles_with_and_without_a_folder(self):
        tokenizer, folder = learned(), self.create_tempdir().full_path
        tokenizer.save(folder)
        for each in (
            tokenizer,
            bpe.BytePairTokenizer.from_folder(folder, lowercase=True),
        ):
            again = pickle.loads(pickle.dumps(each))
            self.assertEqual(again.fingerprint, tokenizer.fingerprint)

    @parameterized.parameters(
        ({"a": 0, "<unk>": 2}, "", "the id of each token, from 0 to 1"),
        ({"a": 0, "b": 1}, "", "a vocabulary with <unk>"),
        ({"a": 0, "<unk>": 1}, "a b\n", "merge 1 is 'a b'.* lacks 'b'"),
        ({"a": 0, "<unk>": 1}, "a\n", "line 1 is 'a'"),
        (
            {"a": 0, "<unk>": 1, "aa": 2},
            "#version: 0.2\na a\n\na a\n",
            "merge 2 is 'a a', which is repeated",
        ),
        ({"a": 0, "<unk>": 1}, "", "end a word with </w>.*GPT-2 and RoBERTa"),
        ({"\ud800</w>": 0, "<unk>": 1}, "", "vocab.json .* expected JSON in"),
    )
    def test_files_that_do_not_fit_are_refused(self, vocabulary, merges, error):
        folder = self.create_tempdir()
        folder.create_file("vocab.json", json.dumps(vocabulary))
        folder.create_file("merges.txt", merges)
        with self.assertRaisesRegex(errors.InputError, error):
            bpe.BytePairTokenizer.from_vocab(folder.full_path)

    def test_a_folder_without_both_files_is_refused(self):
        folder = self.create_tempdir()
        path = folder.create_file("vocab.json", "{}").full_path
        for each in (folder.full_path, path, f"{path}.txt"):
            with self.assertRaisesRegex(errors.InputError, "vocab.json and"):
                bpe.BytePairTokenizer.from_vocab(each)


if __name__ == "__main__":
    absltest.main()
