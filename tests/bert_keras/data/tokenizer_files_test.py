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
        ours = wordpiece.Tokenizer.from_file(self.path)
        self.assertSequenceEqual(ours.vocabulary, pieces)

    def test_reads_what_it_saves(self):
        ours = wordpiece.Tokenizer(
            [*wordpiece.SPECIAL_TOKENS, "word", "a\u2028", "\u3000", "\x85"],
            lowercase=False,
        )
        ours.save_vocabulary(self.path)
        again = wordpiece.Tokenizer.from_file(self.path, lowercase=False)
        self.assertEqual(again.vocabulary, ours.vocabulary)
        self.assertEqual(again.fingerprint, ours.fingerprint)
        self.assertNotIn(b"\r", self.path.read_bytes())

    def test_knows_its_special_tokens(self):
        ours = wordpiece.Tokenizer(
            ["a", "[SEP]", "[MASK]", "[PAD]", "[CLS]", "[UNK]"], lowercase=True
        )
        self.assertEqual(
            (ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id, ours.mask_id),
            (3, 5, 4, 1, 2),
        )
        self.assertEqual(ours.vocab_size, 6)
        self.assertEqual(ours(["a b"]).to_list(), [[0, 5]])
        self.assertEqual(ours.tokens(np.array([0, 2])), ["a", "[MASK]"])

    def test_a_mask_is_optional(self):
        ours = wordpiece.Tokenizer(
            [*wordpiece.SPECIAL_TOKENS[:4], "a"], lowercase=True
        )
        self.assertIsNone(ours.mask_id)
        self.assertLen(ours(["[MASK]"], special_tokens=True).to_list()[0], 3)

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
        ours = wordpiece.Tokenizer.from_file(self.path)
        self.assertEqual(ours.lowercase, lowercase)
        for given in (True, False):
            ours = wordpiece.Tokenizer.from_file(self.path, lowercase=given)
            self.assertEqual(ours.lowercase, given)

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
            ours = wordpiece.Tokenizer.from_file(self.path)
            self.assertEqual(ours.lowercase, lowercase, words)
            # Each piece is found in text, so no word is lost to [UNK].
            whole = [word for word in words.split() if word[0] != "#"]
            ids = ours(whole).values.numpy()
            self.assertNotIn(ours.unk_id, ids)

    @parameterized.parameters(
        ("bert_uncased_en", True),
        ("bert_cased_en", False),
        ("bert_chinese", True),
    )
    def test_tells_the_casing_of_published_vocabularies(self, name, lowercase):
        path = DATA / "vocab" / f"{name}_vocab.txt"
        if not path.exists():
            self.skipTest(f"real data is absent: {path}")
        ours = wordpiece.Tokenizer.from_file(path)
        self.assertEqual(ours.lowercase, lowercase)

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
            r"rename entry 5 to an unused piece such as \[unused2\]",
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
        theirs = {piece: index for index, piece in enumerate(pieces)}
        with self.assertRaises(errors.InputError) as caught:
            wordpiece.Tokenizer(pieces, lowercase=True)
        entry = re.search(r"rename entry (\d+)", str(caught.exception))[1]
        pieces[int(entry)] = "[unused1]"
        ours = wordpiece.Tokenizer(pieces, lowercase=True)
        for word in ("river", "long"):
            self.assertEqual(ours([word]).to_list(), [[theirs[word]]])

    def test_refuses_a_file_that_is_absent(self):
        with self.assertRaisesRegex(errors.InputError, "cannot be read"):
            wordpiece.Tokenizer.from_file(self.path)


if __name__ == "__main__":
    absltest.main()
