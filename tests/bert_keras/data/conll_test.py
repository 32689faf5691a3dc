import gzip

from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.data import conll


class ConllTest(parameterized.TestCase):
    def file(self, content, name="x.conll"):
        if isinstance(content, str):
            content = content.encode()
        if name.endswith(".gz"):
            content = gzip.compress(content)
        return self.create_tempfile(name, content).full_path

    @parameterized.named_parameters(
        ("tabs", "EU\tB-ORG\nacts\tO\n\nYes\tO\n"),
        ("blanks", "EU B-ORG\nacts O\n\nYes O\n"),
        ("columns", "EU NNP I B-ORG\nacts VB O O\n\nYes UH O O\n"),
        ("windows", "EU\tB-ORG\r\nacts\tO\r\n\r\nYes\tO\r\n"),
        ("no_end", "EU\tB-ORG\nacts\tO\n \n\nYes\tO"),
        ("white_space_at_the_end", "EU B-ORG \nacts O\t \u3000\n\nYes O\xa0"),
        ("two_blanks", "EU  B-ORG\nacts   O\n\nYes O"),
        ("numbers", "1\tEU\tB-ORG\n2\tacts\tO\n\n1\tYes\tO\n"),
        ("comments", "# a source\nEU B-ORG\nacts O\n\n#\tan O-x\nYes O\n"),
        ("numbers_from_0", "0\tEU\tB-ORG\n1\tacts\tO\n\n0\tYes\tO\n"),
        ("comment_in_a_tag", "# Vitamin O\nEU B-ORG\nacts O\n\n# a b O\nYes O"),
        ("comment_alone", "# Vitamin O\n\nEU B-ORG\nacts O\n\nYes O\n"),
        ("key", "# id = O\nEU x y B-ORG\nacts x y O\n\n# a = O\nYes x y O"),
        ("no_tabs", "# id O\nEU\tx\tB-ORG\nacts\tx\tO\n\n# b O\nYes\tx\tO"),
        ("no_break_line", "EU B-ORG\nacts O\n\xa0\nYes O\n"),
        ("ideographic_line", "EU B-ORG\nacts O\n\u3000 \nYes O\n\u3000"),
        ("form_feed", "EU B-ORG\nacts O\n\f\n\x1c\n\x85\n\v\nYes O\n"),
        ("cr_cr_lf", "EU B-ORG\r\r\nacts O\r\r\n\r\r\nYes O\r\r\n"),
        ("documents", "-DOCSTART- O\n\nEU B-ORG\nacts O\n-DOCSTART- O\nYes O"),
    )
    def test_reads(self, content):
        for name in ("x.conll", "x.bmes.gz"):
            sentences = list(conll.read(self.file(content, name)))
            self.assertEqual(
                sentences, [(["EU", "acts"], ["B-ORG", "O"]), (["Yes"], ["O"])]
            )

    @parameterized.named_parameters(
        ("no_tag", "a\tO\nb\n", "line 2: expected a word and a tag"),
        ("no_word", "a\tO\n\tO\n", "line 2: expected a word and a tag"),
        ("another_tag", "a\tO\n\nb\tPER\n", "line 3: expected a tag .*'PER'"),
        ("blank_in_a_type", "a\tB-first name\n", "line 1: .*'B-first name'"),
        ("no_break_space", "a\tB-x\xa0y\n", "line 1: .*white space"),
        ("ideographic", "a\tB-x\u3000y\n", "line 1: .*white space"),
        ("more_columns", "a\tO\nNew York\tx\tO\n", "line 2: expected 2 col"),
        ("fewer_columns", "a x O\nb O\n", "line 2: expected 3 columns"),
        (
            "a_number_is_missing",
            "1 a O\n2 b O\n\n" * 1001 + "3 c O\n",
            "line 3004: expected 1, the number of the word",
        ),
        (
            "one_number_among_right_ones_is_missing",
            "1 a O\n2 b O\n\n" * 50 + "1 c O\n3 d O\n",
            "line 152: expected 2, the number of the word, found '3'",
        ),
        (
            "one_sentence_has_no_numbers",
            "1 a O\n2 b O\n\n" * 3 + "c d O\n",
            "line 10: expected 1, the number of the word, found 'c'",
        ),
        ("a_gap", "1 a O\n3 b O\n", "line 2: expected 2, the number"),
        ("through", "1 a O\n2 b O\n\n3 c O\n", "line 4: expected 1, the num"),
        ("from_5", "5 a O\n6 b O\n", "line 1: expected 1, the number"),
        (
            "a_range",
            "1-2\tim\tO\n1\tin\tO\n2\tdem\tO\n3\tHaus\tO\n",
            "line 1: expected 1, the number .* '1-2'.*range",
        ),
        (
            "an_empty_node",
            "1 a O\n1.1 b O\n2 c O\n",
            "line 2: expected 2, the number .* '1.1'",
        ),
        ("utf16", "a\tO\n".encode("utf-16"), "expected UTF-8, found UTF-16"),
        ("utf16_without_mark", "a\tO\n".encode("utf-16-be"), "found UTF-16"),
        ("cr_alone", "a\tO\rb\tO\r", "found CR alone"),
        ("no_utf8", b"a\tO\n\xff\tO\n", "line 2: expected UTF-8"),
        ("nothing", "\n\n", "expected tagged words, found none"),
    )
    def test_refuses_with_file_and_line(self, content, words):
        path = self.file(content)
        for read in (conll.examples, conll.read):
            if words.endswith("found none"):
                read = conll.examples
            with self.assertRaisesRegex(errors.InputError, f"{path}.*{words}"):
                list(read(path))

    def test_a_folder_is_named_as_one(self):
        folder = self.create_tempdir().full_path
        with self.assertRaisesRegex(errors.InputError, "found a folder"):
            list(conll.examples(folder))

    NESTED = "1\tFC\tB-ORG\tO\n2\tBonn\tI-ORG\tB-LOC\n3\t!\tO\tO\n"

    def test_the_column_of_tags_can_be_named(self):
        path = self.file(self.NESTED)
        inner = conll.examples(path)
        (row,) = inner
        self.assertEqual((row["text"], row["tags"]), ("FC Bonn !", "O B-LOC O"))
        self.assertRegex(
            inner.warning, "last column, 3 .*column 2 also holds tags"
        )
        outer = conll.examples(path, tag_column=2)
        (row,) = outer
        self.assertEqual(row["tags"], "B-ORG I-ORG O")
        self.assertEqual(outer.warning, "")

    @parameterized.parameters(
        (1, "column 1 holds words"),
        (0, "line 1: expected a tag such as"),
        (4, "line 1: expected a tag in column 4, counted from 0, found 4"),
    )
    def test_a_column_that_holds_no_tags_is_refused(self, column, message):
        path = self.file(self.NESTED.replace("FC", "O").replace("Bonn", "O")
                         .replace("!", "O"))  # fmt: skip
        with self.assertRaisesRegex(errors.InputError, message):
            list(conll.examples(path, tag_column=column))

    def test_words_that_are_numbers_are_words(self):
        (row,) = conll.examples(self.file("1\tO\n2\tO\nthe\tO\n"))
        self.assertEqual(row["text"], "1 2 the")
        (row,) = conll.examples(self.file("1 CD O\n2 CD O\nthe DT O\n"))
        self.assertEqual(row["text"], "1 2 the")

    def test_a_word_that_looks_like_a_comment_is_counted(self):
        rows = conll.examples(self.file("# NN O\n1 CD O\n\n# x\nthe DT O\n"))
        self.assertEqual([row["text"] for row in rows], ["# 1", "the"])
        self.assertRegex(rows.warning, 'x.conll: 1 lines begin with "# "')

    def test_bilou_is_read_as_bioes(self):
        (row,) = conll.examples(self.file("a U-X\nb B-X\nc I-X\nd L-X\n"))
        self.assertEqual(row["tags"], "S-X B-X I-X E-X")
        self.assertEqual(conll.tags("U-X B-X L-X O"), "S-X B-X E-X O".split())

    def test_words_stand_with_blanks_between(self):
        (row,) = conll.examples(self.file("EU\tB-ORG\nac😀ts\tO\n.\tO\n"))
        self.assertEqual(
            row,
            {
                "text": "EU ac😀ts .",
                "words": "0-2 3-8 9-10",
                "tags": "B-ORG O O",
            },
        )
        self.assertEqual(
            conll.word_offsets(row["words"]), [(0, 2), (3, 8), (9, 10)]
        )

    def test_characters_stand_without(self):
        rows = list(
            conll.examples(self.file("北\tB-LOC\n京\tI-LOC\n\n1\tO\n2\tO\n"))
        )
        self.assertEqual([row["text"] for row in rows], ["北京", "12"])
        self.assertEqual(rows[0]["words"], "0-1 1-2")

    def test_a_white_space_character_is_a_word(self):
        (row,) = conll.examples(self.file("北\tO\n\u3000\tO\n京\tO\n"))
        self.assertEqual(row["text"], "北\u3000京")


if __name__ == "__main__":
    absltest.main()
