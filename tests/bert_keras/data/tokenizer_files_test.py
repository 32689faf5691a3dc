"""What a tokenizer reads from a vocabulary file, and tells from it."""

import pathlib
import re
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.tokenizers import wordpiece

DATA = pathlib.Path(__file__).resolve().parents[3] / ".." / "shared" / "data"

SPECIALS = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n"


class VocabularyTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        folder = self.enter_context(tempfile.TemporaryDirectory())
        self.path = pathlib.Path(folder) / "vocab.txt"

    @parameterized.named_parameters(
        ("unix", "\n", "\n"),
        ("windows", "\r\n", "\r\n"),
        ("no_final_newline", "\n", ""),
        ("blank_lines_at_the_end", "\n", "\n\n \n"),
    )
    def test_reads_line_ends_of(self, separator, end):
        pieces = [*wordpiece.SPECIAL_TOKENS, "a\u2028", "\u3000", "\x85", "b"]
        self.path.write_bytes((separator.join(pieces) + end).encode())
        tokenizer = wordpiece.Tokenizer.from_file(self.path)
        self.assertSequenceEqual(tokenizer.vocabulary, pieces)

    def test_reads_what_it_saves(self):
        tokenizer = wordpiece.Tokenizer(
            [*wordpiece.SPECIAL_TOKENS, "word", "a\u2028", "\u3000", "\x85"],
            lowercase=False,
        )
        tokenizer.save_vocabulary(self.path)
        again = wordpiece.Tokenizer.from_file(self.path, lowercase=False)
        self.assertEqual(again.vocabulary, tokenizer.vocabulary)
        self.assertEqual(again.fingerprint, tokenizer.fingerprint)
        self.assertNotIn(b"\r", self.path.read_bytes())

    def test_knows_its_special_tokens(self):
        tokenizer = wordpiece.Tokenizer(
            ["a", "[SEP]", "[MASK]", "[PAD]", "[CLS]", "[UNK]"], lowercase=True
        )
        self.assertEqual(
            (
                tokenizer.pad_id,
                tokenizer.unk_id,
                tokenizer.cls_id,
                tokenizer.sep_id,
                tokenizer.mask_id,
            ),
            (3, 5, 4, 1, 2),
        )
        self.assertEqual(tokenizer.vocab_size, 6)
        self.assertEqual(tokenizer(["a b"]).to_list(), [[0, 5]])
        self.assertEqual(tokenizer.tokens(np.array([0, 2])), ["a", "[MASK]"])

    def test_a_mask_is_optional(self):
        tokenizer = wordpiece.Tokenizer(
            [*wordpiece.SPECIAL_TOKENS[:4], "a"], lowercase=True
        )
        self.assertIsNone(tokenizer.mask_id)
        self.assertLen(
            tokenizer(["[MASK]"], special_tokens=True).to_list()[0], 3
        )

    def test_the_fingerprint_depends_on_order_and_casing(self):
        pieces = [*wordpiece.SPECIAL_TOKENS, "a", "b"]
        prints = {
            wordpiece.Tokenizer(p, lowercase=lowercase).fingerprint
            for p in (pieces, pieces[:-2] + ["b", "a"], pieces + ["c"])
            for lowercase in (True, False)
        }
        self.assertLen(prints, 6)

    @parameterized.parameters((0, True), (1, True), (2, False), (50, False))
    def test_capitals_in_more_than_a_hundredth_mean_cased(
        self, capitals, lowercase
    ):
        pieces = [*wordpiece.SPECIAL_TOKENS, "[unused1]", "[unused2]"]
        pieces += [f"A{i}" for i in range(capitals)]
        pieces += [f"a{i}" for i in range(150 - len(pieces))]
        self.path.write_text("\n".join(pieces))
        tokenizer = wordpiece.Tokenizer.from_file(self.path)
        self.assertEqual(tokenizer.lowercase, lowercase)
        for argument in (True, False):
            tokenizer = wordpiece.Tokenizer.from_file(
                self.path, lowercase=argument
            )
            self.assertEqual(tokenizer.lowercase, argument)

    @parameterized.named_parameters(
        ("japanese", "が ##ぎ 東 です", "東 の ##か"),
        ("korean", "한국 ##어 이", "ㄱ ##ㄴ ᄒ ##ᅡ"),
        ("hindi", "हिन्दी ##में", "क ##ख"),
        ("thai", "ที่ ##นี่ ดี", "กา ##นา"),
        ("vietnamese", "việt ##tiếng", "viet ##tieng"),
        ("hebrew", "שָׁלוֹם", "שלום"),
    )
    def test_accents_mean_cased_where_there_are_no_capitals(
        self, accented, bare
    ):
        for words, lowercase in ((accented, False), (bare, True)):
            pieces = [*wordpiece.SPECIAL_TOKENS, *words.split(), "a", "##b"]
            self.path.write_text("\n".join(pieces), "utf-8")
            tokenizer = wordpiece.Tokenizer.from_file(self.path)
            self.assertEqual(tokenizer.lowercase, lowercase, words)
            # Each piece is found in text, so no word is lost to [UNK].
            whole = [word for word in words.split() if word[0] != "#"]
            ids = tokenizer(whole).values.numpy()
            self.assertNotIn(tokenizer.unk_id, ids)

    @parameterized.parameters(
        ("bert_uncased_en", True),
        ("bert_cased_en", False),
        ("bert_chinese", True),
    )
    def test_tells_the_casing_of_published_vocabularies(self, name, lowercase):
        path = DATA / "vocab" / f"{name}_vocab.txt"
        if not path.exists():
            self.skipTest(f"real data is absent: {path}")
        tokenizer = wordpiece.Tokenizer.from_file(path)
        self.assertEqual(tokenizer.lowercase, lowercase)

    @parameterized.named_parameters(
        ("empty", b"", "is empty"),
        ("blank", b"\n\n", "is empty"),
        ("not_utf8", b"[PAD]\n\xff\xfe\n", "line 2"),
        ("no_special_tokens", b"a\nb\n[PAD]\n", r"\[UNK\], \[CLS\], \[SEP\]"),
        ("twice", SPECIALS + b"x\nx\n", "'x' as entries 4 and 5"),
        ("three_times", SPECIALS + b"x\ny\nx\nx\n", "rename entry 4, 6 to"),
        (
            "twice_beside_unused",
            b"[unused1]\n" + SPECIALS + b"x\nx\n",
            r"rename entry 5 to an unused wordpiece such as \[unused2\]",
        ),
        ("blank_line", SPECIALS + b"\nx\n", "entry 4 .* ''"),
        ("long", SPECIALS + b"x" * 300, "exceeds"),
    )
    def test_refuses_a_file_that_is(self, content, word):
        self.path.write_bytes(content)
        with self.assertRaisesRegex(
            errors.InputError, f"{self.path}: .*{word}"
        ):
            wordpiece.Tokenizer.from_file(self.path)

    def test_renaming_the_named_entry_of_two_keeps_the_ids_of_readers(self):
        pieces = [*wordpiece.SPECIAL_TOKENS, "river", "long", "river"]
        last_index = {piece: index for index, piece in enumerate(pieces)}
        with self.assertRaises(errors.InputError) as caught:
            wordpiece.Tokenizer(pieces, lowercase=True)
        entry = re.search(r"rename entry (\d+)", str(caught.exception))[1]
        pieces[int(entry)] = "[unused1]"
        tokenizer = wordpiece.Tokenizer(pieces, lowercase=True)
        for word in ("river", "long"):
            self.assertEqual(tokenizer([word]).to_list(), [[last_index[word]]])

    def test_refuses_a_file_that_is_absent(self):
        with self.assertRaisesRegex(errors.InputError, "cannot be read"):
            wordpiece.Tokenizer.from_file(self.path)


if __name__ == "__main__":
    absltest.main()
