import functools
import pathlib
import random
import tempfile
import time
import unicodedata

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
from absl.testing import absltest, parameterized

from bert_keras.text import text_cleaning
from bert_keras.tokenizers import wordpiece
from tests.bert_keras.data import reference_tokenizer
from tests.bert_keras.tokenizers.nasty import NASTY

DATA = pathlib.Path(__file__).resolve().parents[3] / ".." / "shared" / "data"


def small_vocabulary(lowercase: bool) -> list[str]:
    """All characters of NASTY, both ways, and some words."""
    split = reference_tokenizer.ReferenceTokenizer(
        ["[UNK]"], lowercase=lowercase
    )
    characters = sorted({c for t in NASTY for w in split.words(t) for c in w})
    # Some are left out, so that there is something unknown.
    characters = [c for i, c in enumerate(characters) if i % 17]
    pieces = dict.fromkeys(
        [*wordpiece.SPECIAL_TOKENS, *characters, "word", "##s", "##aa", "don"]
        + [f"##{c}" for c in characters]
    )
    return list(pieces)


def make(lowercase=True):
    return wordpiece.Tokenizer(small_vocabulary(lowercase), lowercase=lowercase)


class RulesTest(parameterized.TestCase):
    @parameterized.product(lowercase=(True, False))
    def test_agrees_with_the_rules_on_nasty_text(self, lowercase):
        tokenizer = make(lowercase)
        rules = reference_tokenizer.ReferenceTokenizer(
            tokenizer.vocabulary, lowercase=lowercase
        )
        for text, ids in zip(NASTY, tokenizer(NASTY).to_list(), strict=True):
            self.assertEqual(ids, rules(text), msg=ascii(text))

    @parameterized.product(lowercase=(True, False))
    def test_treats_every_old_character_as_the_rules_do(self, lowercase):
        # Younger ones depend on the Unicode version of Python and of the ops.
        characters = [
            chr(code)
            for code in range(0x110000)
            if unicodedata.ucd_3_2_0.category(chr(code)) not in ("Cn", "Cs")
            and not 0xE000 < code < 0xF8FF
            and not 0xF0000 < code
            and code != 0x1734  # Mn until Unicode 14 (Python 3.10), then Mc
        ]
        vocabulary = [*wordpiece.SPECIAL_TOKENS, "a", "b", "##b"]
        tokenizer = wordpiece.Tokenizer(vocabulary, lowercase=lowercase)
        rules = reference_tokenizer.ReferenceTokenizer(
            vocabulary, lowercase=lowercase
        )
        texts = [f"a{c}b" for c in characters]
        normal = text_cleaning.normalize(
            tf.constant(texts), lowercase=lowercase
        )
        for text, ids, clean in zip(
            texts, tokenizer(texts).to_list(), normal.numpy(), strict=True
        ):
            if ids != rules(text):
                self.fail(f"{text!a} gave {tokenizer.tokens(ids)}")
            letters = "".join(clean.decode().split())
            if letters != "".join(rules.words(text)):
                self.fail(f"{text!a} became {letters!a}")

    @parameterized.named_parameters(
        ("uncased_en", "bert_uncased_en", "corpus_en/wikitext2_valid.txt"),
        ("cased_en", "bert_cased_en", "corpus_en/wikitext2_valid.txt"),
        ("chinese", "bert_chinese", "corpus_zh/cluecorpussmall_sampled.txt"),
        ("cross", "bert_chinese", "corpus_en/wikitext2_valid.txt"),
    )
    def test_agrees_with_the_rules_on_real_lines(self, vocabulary, corpus):
        if not DATA.exists():
            self.skipTest(f"real data is absent: {DATA}")
        tokenizer = wordpiece.Tokenizer.from_file(
            DATA / "vocab" / f"{vocabulary}_vocab.txt"
        )
        rules = reference_tokenizer.ReferenceTokenizer(
            tokenizer.vocabulary, lowercase=tokenizer.lowercase
        )
        lines = (DATA / corpus).read_text("utf-8").split("\n")[:2000:4]
        for line, ids in zip(lines, tokenizer(lines).to_list(), strict=True):
            self.assertEqual(ids, rules(line), msg=line)

    def test_long_runs_of_marks_are_ordered_as_the_rules_do(self):
        # Of Python 3.10's Unicode; marks that are no accents stay and are
        # moved past each other, but never past a mark of class 0.
        old = [
            chr(code)
            for code in range(0x20000)
            if unicodedata.ucd_3_2_0.combining(chr(code))
            or unicodedata.ucd_3_2_0.category(chr(code)) in ("Mn", "Mc", "Me")
        ]
        others = [
            c for c in old if unicodedata.ucd_3_2_0.category(c) in ("Mc", "Me")
        ]
        stay = [c for c in others if unicodedata.combining(c)]
        more = "Σ\u0345\u034f\u0344\u0f73\u0f75\u1e69\U0001d15e\U0001d160한가İ"
        generator = random.Random(3)
        texts = [
            "".join(
                generator.choice(
                    generator.choice((old, stay, others, more, "\u0334"))
                )
                for _ in range(generator.randint(40, 300))
            )
            for _ in range(300)
        ]
        texts += [text + "\u0301\u0316" * 40 for text in NASTY]
        rules = reference_tokenizer.ReferenceTokenizer(
            ["[UNK]"], lowercase=True
        )
        clean = text_cleaning.normalize(tf.constant(texts), lowercase=True)
        for text, normalized in zip(texts, clean.numpy(), strict=True):
            self.assertEqual(
                "".join(normalized.decode().split()),
                "".join(rules.words(text)),
                msg=ascii(text),
            )

    def test_every_mark_that_may_be_moved_is_looked_for(self):
        codes = [
            *range(0xD800),
            *range(0xE000, 0x20000),
            *range(0xE0000, 0xE0200),
        ]
        characters = text_cleaning._characters(tf.constant(codes))
        simple = tf_text.normalize_utf8(characters, "NFD") == characters
        moved = tf.logical_or(
            text_cleaning._swapped(
                tf.constant(codes), tf.fill([len(codes)], 0x334)
            ),
            text_cleaning._swapped(
                tf.fill([len(codes)], 0x345), tf.constant(codes)
            ),
        )
        matched = tf.strings.regex_full_match(
            characters, f"[{text_cleaning._MARKS}]"
        )
        lost = tf.logical_and(moved, tf.logical_and(simple, ~matched))
        self.assertEmpty([hex(codes[i]) for i in tf.where(lost)[:, 0]])
        self.assertGreater(int(tf.math.count_nonzero(moved & simple)), 900)
        # So do those that begin with such a mark once they are decomposed.
        for code in codes:
            first = unicodedata.normalize("NFD", chr(code))[0]
            if unicodedata.combining(first):
                self.assertTrue(matched[codes.index(code)], hex(code))

    def test_bytes_that_are_not_utf8_are_dropped(self):
        texts = [
            b"\xff",
            b"caf\xc3",
            b"a\xc3(b",
            b"\xed\xa0\x80word",
            b"wo\xf8\x88\x80\x80\x80rd\x00 \x01",
            "中".encode()[:2] + "ΑΣ".encode() + b"\xffx",
        ]
        for lowercase in (True, False):
            tokenizer = make(lowercase)
            rules = reference_tokenizer.ReferenceTokenizer(
                tokenizer.vocabulary, lowercase=lowercase
            )
            self.assertEqual(
                tokenizer(texts).to_list(), [rules(t) for t in texts]
            )

    def test_a_piece_with_white_space_does_not_join_two_words(self):
        tokenizer = wordpiece.Tokenizer(
            [*wordpiece.SPECIAL_TOKENS, "a", "b", "a b", "\u2028", "a\u3000b"]
            + ["\x00", "##\xa0b"],
            lowercase=False,
        )
        ids = tokenizer(["a b a\u2028b a\u3000b a\xa0b \x00"]).values.numpy()
        self.assertEqual(tokenizer.tokens(ids), ["a", "b"] * 4)


class GraphTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.tokenizer = make()

    def ids(self, *tokens):
        return [self.tokenizer.vocabulary.index(t) for t in tokens]

    @parameterized.product(special_tokens=(True, False))
    def test_gives_int32_rows_for_any_batch(self, special_tokens):
        graph = tf.function(
            lambda text: self.tokenizer(text, special_tokens=special_tokens),
            input_signature=[tf.TensorSpec([None], tf.string)],
        )
        for batch in ([], [""], ["", "word", ""]):
            ids = graph(tf.constant(batch, tf.string))
            self.assertEqual(ids.dtype, tf.int32)
            self.assertEqual(ids.shape.as_list(), [len(batch), None])
            self.assertEqual(
                ids.to_list(), [self.ids(*text.split()) for text in batch]
            )

    def test_literal_special_tokens_are_words_unless_asked_for(self):
        text = ["a[MASK] [SEP]words[mask]"]
        plain = self.tokenizer(text).to_list()[0]
        self.assertNoCommonElements(
            plain, [self.tokenizer.mask_id, self.tokenizer.sep_id]
        )
        special = self.tokenizer(text, special_tokens=True).to_list()[0]
        tokens = self.tokenizer.tokens(special)
        self.assertEqual(tokens[:5], ["a", "[MASK]", "[SEP]", "word", "##s"])
        self.assertEqual(tokens[5], "[")

    def test_special_tokens_change_nothing_where_there_are_none(self):
        texts = [t for t in NASTY if "[" not in t]
        self.assertEqual(
            self.tokenizer(texts, special_tokens=True).to_list(),
            self.tokenizer(texts).to_list(),
        )

    def test_works_in_a_dataset(self):
        rows = tf.data.Dataset.from_tensor_slices(["word", "words"]).batch(2)
        (ids,) = rows.map(self.tokenizer)
        self.assertEqual(
            ids.to_list(), [self.ids("word"), self.ids("word", "##s")]
        )

    def test_a_saved_model_needs_no_assets(self):
        module = tf.Module()
        module.tokenize = tf.function(
            self.tokenizer,
            input_signature=[tf.TensorSpec([None], tf.string)],
        )
        folder = self.enter_context(tempfile.TemporaryDirectory())
        tf.saved_model.save(module, folder)
        self.assertEmpty(list(pathlib.Path(folder).glob("assets/*")))
        loaded = tf.saved_model.load(folder)
        self.assertEqual(
            loaded.tokenize(tf.constant(NASTY)).to_list(),
            self.tokenizer(NASTY).to_list(),
        )

    @parameterized.parameters("a", "word ", "中", "[MASK]", "é", "，\u3000")
    def test_a_megabyte_is_one_row(self, unit):
        count = 2**20 // len(unit.encode())
        for special_tokens in (True, False):
            ids = self.tokenizer([unit * count], special_tokens=special_tokens)
            self.assertLessEqual(ids.shape[0], 1)
            self.assertGreater(ids.values.shape[0], 0)

    @parameterized.parameters(
        "\u0301\u0316",  # accents in the wrong order
        "\u302e\U0001d165",  # marks that are no accents
        "\u0897\U0001e5ef",  # of Unicode 16
        "\u0f73",  # two marks in one
        "a" + "\u0301\u0316" * 15,
        "\u1e69" + "\u0f73" * 30,
        "Σ'",
        "[MAS",
        "👩\u200d👩\u200d👧",
        "x" * 201 + " ",
        "\udcff\udcc0é",  # not UTF-8
    )
    def test_time_grows_with_the_length_and_not_its_square(self, unit):
        data = unit.encode("utf-8", "surrogateescape")
        text = tf.constant([data * (200_000 // len(data))])
        for read in (
            self.tokenizer,
            functools.partial(self.tokenizer, special_tokens=True),
            self.tokenizer.with_offsets,
        ):
            start = time.process_time()
            read(text)
            # A tenth of a second; in the square, 13 and more.
            self.assertLess(time.process_time() - start, 4)


class OffsetsTest(parameterized.TestCase):
    def assert_exact(self, tokenizer, texts):
        """ids are the call's, and every place is where its piece came from."""
        ids, starts, ends = tokenizer.with_offsets(texts)
        self.assertEqual(ids.to_list(), tokenizer(texts).to_list())
        sources, pieces = [], []
        for text, row, first, last in zip(
            texts, *(x.to_list() for x in (ids, starts, ends)), strict=True
        ):
            if isinstance(text, bytes):
                text = text.decode("utf-8", "ignore")
            spans = list(zip(first, last, strict=True))
            for number, (piece, span) in enumerate(
                zip(row, spans, strict=True)
            ):
                start, end = span
                self.assertTrue(0 <= start < end <= len(text), ascii(text))
                # A letter of several pieces has no part for each.
                near = spans[max(number - 1, 0) : number + 2]
                shared = sum(a < end and start < b for a, b in near) > 1
                if piece != tokenizer.unk_id and not shared:
                    sources.append(text[start:end])
                    pieces.append(tokenizer.vocabulary[piece])
        if not sources:
            return
        normal = text_cleaning.normalize(
            tf.constant(sources), lowercase=tokenizer.lowercase
        )
        for source, form, piece in zip(
            sources, normal.numpy(), pieces, strict=True
        ):
            # A sigma is final by what stands beside it.
            form, piece = (x.replace("ς", "σ") for x in (form.decode(), piece))
            self.assertIn(piece, (form, f"##{form}"), ascii(source))

    @parameterized.product(lowercase=(True, False))
    def test_are_exact_on_nasty_text(self, lowercase):
        self.assert_exact(make(lowercase), list(NASTY))

    @parameterized.product(lowercase=(True, False))
    def test_are_exact_on_random_text(self, lowercase):
        generator = np.random.default_rng(7)
        characters = sorted({c for text in NASTY for c in text})
        texts = [
            "".join(generator.choice(characters, generator.integers(400)))
            for _ in range(60)
        ]
        # Without spaces, so that words become too long.
        texts += [text.replace(" ", "x") for text in texts]
        texts += [
            "".join(map(chr, generator.integers(0x110000, size=50))).encode(
                "utf-8", "surrogatepass"
            )
            for _ in range(300)
        ]
        texts += [generator.bytes(generator.integers(300)) for _ in range(300)]
        self.assert_exact(make(lowercase), texts)

    def test_are_exact_where_runs_of_marks_are_long(self):
        runs = ("\u0301\u0316" * 40, "\u0301" * 99 + "\u0334", "\u0345" * 33)
        self.assert_exact(
            make(True),
            [f"{text}{run}{text[:5]}" for text in NASTY for run in runs],
        )

    @parameterized.named_parameters(
        ("uncased_en", "bert_uncased_en", "corpus_en/wikitext2_valid.txt"),
        ("cased_en", "bert_cased_en", "corpus_en/wikitext2_valid.txt"),
        ("chinese", "bert_chinese", "corpus_zh/cluecorpussmall_sampled.txt"),
    )
    def test_are_exact_on_real_lines(self, vocabulary, corpus):
        if not DATA.exists():
            self.skipTest(f"real data is absent: {DATA}")
        tokenizer = wordpiece.Tokenizer.from_file(
            DATA / "vocab" / f"{vocabulary}_vocab.txt"
        )
        lines = (DATA / corpus).read_text("utf-8").split("\n")[:2400:6]
        self.assert_exact(tokenizer, lines)

    @parameterized.parameters(
        ("une CAFE\u0301.", [(0, 3), (4, 9), (9, 10)]),
        ("İS👍🏽 ok", [(0, 2), (2, 4), (5, 7)]),
        (b"\xff\x00is\xe4\xb8 ok", [(1, 3), (4, 6)]),
        (f"is {'é' * 201}, is", [(0, 2), (3, 204), (204, 205), (206, 208)]),
    )
    def test_count_code_points_of_the_text(self, text, spans):
        tokenizer = wordpiece.Tokenizer(
            [*wordpiece.SPECIAL_TOKENS, "une", "cafe", ".", ",", "is", "ok"]
            + ["##👍🏽"],
            lowercase=True,
        )
        _, starts, ends = tokenizer.with_offsets([text])
        actual = zip(starts.to_list()[0], ends.to_list()[0], strict=True)
        self.assertEqual(list(actual), spans)

    def test_are_the_same_in_a_saved_model(self):
        tokenizer, module = make(), tf.Module()
        module.read = tf.function(
            tokenizer.with_offsets,
            input_signature=[tf.TensorSpec([None], tf.string)],
        )
        folder = self.enter_context(tempfile.TemporaryDirectory())
        tf.saved_model.save(module, folder)
        loaded = tf.saved_model.load(folder)
        for texts in (list(NASTY), [""], []):
            texts = tf.constant(texts, tf.string)
            for got, want in zip(
                loaded.read(texts), tokenizer.with_offsets(texts), strict=True
            ):
                self.assertEqual(got.to_list(), want.to_list())
                self.assertEqual(got.dtype, tf.int32)


if __name__ == "__main__":
    absltest.main()
