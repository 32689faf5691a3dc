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
        ("documents", "-DOCSTART- O\n\nEU B-ORG\nacts O\n-DOCSTART- O\nYes O"),
    )
    def test_reads(self, content):
        for name in ("x.conll", "x.bmes.gz"):
            found = list(conll.read(self.file(content, name)))
            self.assertEqual(
                found, [(["EU", "acts"], ["B-ORG", "O"]), (["Yes"], ["O"])]
            )

    @parameterized.named_parameters(
        ("no_tag", "a\tO\nb\n", "line 2: expected a word and a tag"),
        ("no_word", "a\tO\n\tO\n", "line 2: expected a word and a tag"),
        ("another_tag", "a\tO\n\nb\tPER\n", "line 3: expected a tag .*'PER'"),
        ("no_utf8", b"a\tO\n\xff\tO\n", "line 2: expected UTF-8"),
        ("nothing", "\n\n", "expected tagged words, found none"),
    )
    def test_refuses_with_file_and_line(self, content, words):
        path = self.file(content)
        with self.assertRaisesRegex(errors.InputError, f"{path}.*{words}"):
            list(conll.rows(path))

    def test_words_stand_with_blanks_between(self):
        (row,) = conll.rows(self.file("EU\tB-ORG\nac😀ts\tO\n.\tO\n"))
        self.assertEqual(
            row,
            {
                "text": "EU ac😀ts .",
                "words": "0-2 3-8 9-10",
                "tags": "B-ORG O O",
            },
        )
        self.assertEqual(conll.places(row["words"]), [(0, 2), (3, 8), (9, 10)])

    def test_characters_stand_without(self):
        rows = list(
            conll.rows(self.file("北\tB-LOC\n京\tI-LOC\n\n1\tO\n2\tO\n"))
        )
        self.assertEqual([row["text"] for row in rows], ["北京", "12"])
        self.assertEqual(rows[0]["words"], "0-1 1-2")

    def test_a_white_space_character_is_a_word(self):
        (row,) = conll.rows(self.file("北\tO\n\u3000\tO\n京\tO\n"))
        self.assertEqual(row["text"], "北\u3000京")


if __name__ == "__main__":
    absltest.main()
