import gzip
import json
import os

from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.data import text_pairs


class ReadTest(parameterized.TestCase):
    def write(self, name, content):
        path = os.path.join(self.create_tempdir(), name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
        return path

    def read(self, name, content, **settings):
        return list(text_pairs.read(self.write(name, content), **settings))

    @parameterized.parameters(
        ("source", "target"),
        ("text", "summary"),
        ("Abstract", "Title"),
        ("src", "tgt"),
    )
    def test_common_columns_are_recognised(self, text, target):
        rows = self.read("a.tsv", f"id\t{target}\t{text}\n1\tkurz\tlong text\n")
        self.assertEqual(rows, [{"text": "long text", "target": "kurz"}])

    def test_columns_by_name_and_by_position(self):
        rows = self.read(
            "a.csv", "de,en\nja,yes\n", columns="text=en,target=de"
        )
        self.assertEqual(rows, [{"text": "yes", "target": "ja"}])
        rows = self.read("a.tsv", "yes\tja\tCC\n", columns="text=0,target=1")
        self.assertEqual(rows, [{"text": "yes", "target": "ja"}])

    def test_spaces_around_the_names_of_a_header_do_not_count(self):
        rows = self.read("a.csv", "text, target\nyes,ja\n")
        self.assertEqual(rows, [{"text": "yes", "target": "ja"}])

    def test_a_column_that_is_not_named_has_a_common_name(self):
        rows = self.read(
            "a.tsv", "en\tscore\tsummary\nyes\t3\tja\n", columns="text=en"
        )
        self.assertEqual(rows, [{"text": "yes", "target": "ja"}])

    @parameterized.parameters(
        ("text=0", "expected target=POSITION"),
        ("text=0,target=2", "target=2, from 0; the first row has 2"),
        ("text=0,target=de", "the column '0' for text"),
    )
    def test_columns_that_are_not_there_are_refused(self, columns, message):
        with self.assertRaisesRegex(errors.InputError, message):
            self.read("a.tsv", "yes\tja\n", columns=columns)

    @parameterized.parameters(
        ("a.tsv", "article\tscore\nyes\t3\n", ""),
        ("a.tsv", "en\tde\nyes\tja\n", "text=en,target=de"),
        ("a.tsv", "en\nyes\n", "text=en,target=de"),
        ("a.tsv", "yes\n", "text=0,target=1"),
        ("a.jsonl", '{"en": ["yes"], "score": 1}\n', "text=en"),
    )
    def test_texts_are_read_without_targets(self, name, content, columns):
        path = self.write(name, content)
        rows = list(text_pairs.read_texts(path, columns=columns))
        self.assertEqual(rows, [{"text": "yes"}])

    def test_lists_of_sentences_and_of_targets(self):
        row = {"source": ["One.", "Two."], "target": ["a", "b"]}
        (example,) = self.read("a.jsonl", json.dumps(row) + "\n")
        self.assertEqual(example["text"], "One. Two.")
        self.assertEqual(example["target"], "a")
        self.assertEqual(text_pairs.references(example), ["a", "b"])
        (example,) = self.read("b.jsonl", '{"text": "x", "target": "y"}\n')
        self.assertEqual(text_pairs.references(example), ["y"])

    def test_chinese_sentences_are_joined_without_spaces(self):
        self.assertEqual(text_pairs.text_of(["好。", "很好。"]), "好。很好。")
        self.assertEqual(text_pairs.text_of(["a", "", " b "]), "a b")

    @parameterized.parameters(
        ('{"text": "x", "target": []}', "found an empty list. Fix the row.$"),
        ('{"text": "x", "target": [null]}', r"\(null\) at index 0"),
        ('{"text": "x", "target": 3}', "expected a target"),
        ('{"text": "x", "target": " "}', "not empty"),
        ('{"text": "x", "target": ["a", ""]}', "not empty"),
        ('{"text": " ", "target": "a"}', "text that is not empty"),
        ('{"text": 3, "target": "a"}', "expected text"),
        ('{"text": ["a", 3], "target": "a"}', "a list with 3 at index 1"),
        ('{"text": "a"}', "'text'"),
    )
    def test_rows_that_are_no_pairs_are_refused(self, line, message):
        with self.assertRaisesRegex(errors.InputError, message):
            self.read("a.jsonl", line + "\n")

    def test_a_file_without_known_columns_lists_them(self):
        with self.assertRaisesRegex(errors.InputError, "'x', 'y'.*text=NAME"):
            self.read("a.tsv", "x\ty\n1\t2\n")

    def test_parallel_files(self):
        path = self.write("train.en", "yes\nno\n")
        with open(path[:-2] + "de", "w") as file:
            file.write("ja\nnein\n")
        rows = list(text_pairs.read(path, target_suffix="de"))
        self.assertEqual(
            rows,
            [{"text": "yes", "target": "ja"}, {"text": "no", "target": "nein"}],
        )
        self.assertEqual(
            text_pairs.data_files(path, "de"), [path, path[:-2] + "de"]
        )

    def test_tables_are_read_without_the_suffix(self):
        path = self.write("dev.tsv", "text\ttarget\nyes\tja\n")
        (row,) = text_pairs.read(path, target_suffix="de")
        self.assertEqual(row, {"text": "yes", "target": "ja"})
        self.assertEqual(text_pairs.data_files(path, "de"), [path])

    def test_compressed_parallel_files(self):
        folder = self.create_tempdir().full_path
        for suffix, text in (("en", b"yes\n"), ("de", b"ja\n")):
            with gzip.open(f"{folder}/train.{suffix}.gz", "wb") as file:
                file.write(text)
        path = f"{folder}/train.en.gz"
        self.assertLen(list(text_pairs.read(path, target_suffix=".de")), 1)

    @parameterized.parameters(
        ("ja\nnein\nmehr\n", "train.de has more, from line 3"),
        ("ja\n", "train.en has more, from line 2"),
        ("ja\n\n", "line 2: expected a target"),
    )
    def test_parallel_files_that_do_not_fit_are_refused(self, targets, message):
        path = self.write("train.en", "yes\nno\n")
        with open(path[:-2] + "de", "w") as file:
            file.write(targets)
        with self.assertRaisesRegex(errors.InputError, message):
            list(text_pairs.read(path, target_suffix="de"))

    def test_the_suffix_of_the_texts_is_refused(self):
        with self.assertRaisesRegex(errors.InputError, "target_suffix=en"):
            text_pairs.target_path("data/train.en", "en")
        with self.assertRaisesRegex(errors.InputError, "one of them"):
            text_pairs.read("a.en", columns="text=0", target_suffix="de")

    def test_rows_from_python_have_a_text(self):
        self.assertEqual(
            text_pairs.text_row({"source": ["a", "b"]}), {"text": "a b"}
        )
        with self.assertRaisesRegex(ValueError, "'text'"):
            text_pairs.text_row({"label": "a"})


if __name__ == "__main__":
    absltest.main()
