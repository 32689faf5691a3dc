"""Files of texts and summaries: all layouts give the same examples."""

import json
import os

from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.data import summary_files, unlabelled_texts
from tests import tiny

SENTENCES = ["The plot is old.", "It is dull, too.", "A new film"]
LIST = "".join(f"{sentence}\x1e" for sentence in SENTENCES)
TEXT = " ".join(SENTENCES)
SUMMARY = "an old plot, and dull"
EXAMPLE = {"text": TEXT, "summary": json.dumps([SUMMARY]), "labels": ""}


def lines(*objects):
    return "\n".join(map(json.dumps, objects)) + "\n"


class ReadTest(parameterized.TestCase):
    def write(self, name, text):
        return self.create_tempfile(name, text).full_path

    @parameterized.parameters(
        ("a.tsv", f"text\tsummary\n{TEXT}\t{SUMMARY}\n"),
        ("a.csv", f'id,Abstract,title\n7,"{TEXT}","{SUMMARY}"\n'),
        ("a.jsonl", lines({"article": TEXT, "highlights": SUMMARY})),
        ("a.jsonl", lines({"document": TEXT, "summary": [SUMMARY]})),
        ("a.json", json.dumps([{"text": TEXT, "tldr": SUMMARY}], indent=1)),
        ("a.tsv", f"{TEXT}\t{SUMMARY}\n", "text=0,summary=1"),
        (
            "a.jsonl",
            lines({"text": "x", "summary": "y", "body": TEXT, "gold": SUMMARY}),
            "text=body,summary=gold",
        ),
    )
    def test_every_layout_gives_the_same_example(self, name, text, columns=""):
        path = self.write(name, text)
        examples = list(summary_files.read(path, columns=columns))
        self.assertEqual(examples, [EXAMPLE])
        texts = list(summary_files.read_texts(path, columns=columns))
        self.assertEqual(texts, [{"text": TEXT}])

    @parameterized.parameters("sentences", "source", "text")
    def test_a_list_has_its_sentences_and_several_summaries(self, name):
        row = {name: SENTENCES, "target": [SUMMARY, "dull"]}
        path = self.write("scitldr.jsonl", lines(row))
        self.assertEqual(
            list(summary_files.read(path)),
            [
                {
                    "text": LIST,
                    "summary": json.dumps([SUMMARY, "dull"]),
                    "labels": "",
                }
            ],
        )
        self.assertEqual(list(summary_files.read_texts(path)), [{"text": LIST}])

    @parameterized.parameters(
        ([1, 0, 1],), ([True, False, True],), ("1 0 1",), ("[1, 0, 1]",)
    )
    def test_labels_choose_sentences(self, labels):
        row = {"text": SENTENCES, "labels": labels}
        (example,) = summary_files.read(self.write("a.jsonl", lines(row)))
        self.assertEqual(example["labels"], "1 0 1")
        # Without a summary, they are it.
        self.assertEqual(
            json.loads(example["summary"]), ["The plot is old.\nA new film"]
        )
        path = self.write("a.jsonl", lines(row | {"summary": SUMMARY}))
        (example,) = summary_files.read(path)
        self.assertEqual(
            (example["labels"], example["summary"]),
            ("1 0 1", json.dumps([SUMMARY])),
        )

    def test_labels_are_not_read_if_only_a_summary_is_named(self):
        row = {"text": SENTENCES, "summary": SUMMARY, "labels": ["cs", "ai"]}
        path = self.write("a.jsonl", lines(row))
        (example,) = summary_files.read(path, columns="summary=summary")
        self.assertEqual(example["labels"], "")
        with self.assertRaisesRegex(
            errors.InputError, "line 1: expected labels.*text=NAME,summary=NAME"
        ):
            list(summary_files.read(path))

    @parameterized.parameters(
        ({"text": TEXT}, "a column summary, or labels"),
        (
            {"summary": SUMMARY},
            "a column text; the columns there are 'summary'",
        ),
        ({"text": 3, "summary": "a"}, "'text': expected a text or a list"),
        ({"text": " ", "summary": "a"}, "expected a text, found an empty"),
        (
            {"text": ["", " "], "summary": "a"},
            "expected a text, found an empty",
        ),
        ({"text": ["a", 3], "summary": "a"}, "sentence 1: expected text"),
        ({"text": ["a\x1eb"], "summary": "a"}, "sentence 0: .*U\\+001E"),
        ({"text": TEXT, "summary": ""}, "expected a summary, found an empty"),
        ({"text": TEXT, "summary": ["a", " "]}, "found an empty"),
        ({"text": TEXT, "summary": []}, "of them, found an empty list"),
        ({"text": TEXT, "summary": None}, "found nothing"),
        ({"text": TEXT, "summary": [3]}, "expected a summary, found 3"),
        ({"text": TEXT, "labels": [1, 0]}, "a text that is no such list"),
        ({"text": SENTENCES, "labels": [1, 0]}, "labels, 2, found 3 sentences"),
        ({"text": SENTENCES, "labels": [2, 0, 1]}, "a 0 or 1 for each"),
        ({"text": SENTENCES, "labels": [0, 0, 0]}, "a label 1, found only 0"),
        ({"text": SENTENCES, "labels": []}, "a 0 or 1 for each"),
        ({"text": SENTENCES, "labels": None}, "expected a summary"),
    )
    def test_invalid_rows_are_located(self, row, message):
        path = self.write("a.jsonl", lines({**row}))
        with self.assertRaisesRegex(errors.InputError, message):
            list(summary_files.read(path))
        good = {"text": TEXT, "summary": SUMMARY}
        path = self.write("b.jsonl", lines(good, row))
        with self.assertRaisesRegex(
            errors.InputError, f"{path}, line 2:.*{message}"
        ):
            list(summary_files.read(path))

    def test_a_named_column_that_is_absent_is_refused(self):
        path = self.write("a.jsonl", lines({"text": TEXT, "summary": SUMMARY}))
        with self.assertRaisesRegex(
            errors.InputError, "column 'body' for text"
        ):
            list(summary_files.read(path, columns="text=body"))

    def test_texts_need_no_summaries_nor_their_columns(self):
        path = self.write("a.jsonl", lines({"body": TEXT}))
        columns = "text=body,summary=gold"
        self.assertEqual(
            list(summary_files.read_texts(path, columns=columns)),
            [{"text": TEXT}],
        )
        rows = unlabelled_texts.read(
            path,
            ("text",),
            columns,
            read_table=lambda path: summary_files.read_texts(
                path, columns=columns
            ),
        )
        self.assertEqual(list(rows), [{"text": TEXT}])

    def test_a_file_without_rows_is_refused(self):
        path = self.write("a.tsv", "text\tsummary\n")
        with self.assertRaisesRegex(errors.InputError, "expected rows"):
            list(summary_files.read(path))

    @parameterized.parameters(
        ("scitldr/train.jsonl", 1992, 1992),
        ("scitldr/dev.jsonl", 619, 1453),
        ("csl_title/train.tsv", 1600, 1600),
    )
    def test_real_files_are_read(self, name, count, summaries):
        path = os.path.join(tiny.SHARED_DATA, name)
        if not os.path.exists(path):
            self.skipTest(f"needs {path}")
        examples = list(summary_files.read(path))
        self.assertLen(examples, count)
        self.assertEqual(
            sum(len(json.loads(each["summary"])) for each in examples),
            summaries,
        )


class TextRowTest(absltest.TestCase):
    def test_common_names_and_the_standard_one_first(self):
        for row, text in (
            ({"text": TEXT}, TEXT),
            ({"article": TEXT}, TEXT),
            ({"sentences": SENTENCES}, LIST),
            ({"source": tuple(SENTENCES), "text": "a"}, "a"),
            ({"text": TEXT.encode()}, TEXT),
            ({"text": ["a", "", "b"]}, "a\x1e\x1eb\x1e"),
            ({"text": []}, ""),
        ):
            self.assertEqual(summary_files.text_row(row), {"text": text})
        for row in ({}, {"body": "a"}, {"text": None}):
            with self.assertRaisesRegex(ValueError, "a list of its sentences"):
                summary_files.text_row(row)


if __name__ == "__main__":
    absltest.main()
