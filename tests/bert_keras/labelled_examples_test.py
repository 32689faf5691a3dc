"""What a reader says of its file, and examples that Python gives."""

from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import console, labelled_examples

tasks = bert_keras.tasks


class Reader(list):
    """The examples of a user's task."""


class WarningTest(parameterized.TestCase):
    def printed(self, function, *arguments):
        with console.console.capture() as captured:
            function(*arguments)
        return captured.get()

    @parameterized.parameters("warning", "note")  # today, and in version 0.1
    def test_the_warning_of_a_reader_is_printed(self, name):
        reader = Reader()
        setattr(reader, name, "a.csv: 2 rows are malformed.")
        self.assertEqual(
            self.printed(labelled_examples.print_warning, reader),
            "a.csv: 2 rows are malformed.\n",
        )
        self.assertEqual(self.printed(labelled_examples.print_warning, []), "")


class PythonTest(parameterized.TestCase):
    """Texts and labels give the examples of a file with the same rows."""

    @parameterized.named_parameters(
        (
            "single_label",
            tasks.Classification(),
            ("rows.jsonl", '{"text": "a", "label": 1}\n'),
            (["a"], [1]),
        ),
        (
            "multi_label",
            tasks.Classification(problem_type="multi_label"),
            ("rows.jsonl", '{"text": "a", "label": ["x", "y"]}\n'),
            (["a"], [("x", "y")]),
        ),
        (
            "regression",
            tasks.Classification(problem_type="regression"),
            ("rows.jsonl", '{"text": "a", "label": 0.5}\n'),
            (["a"], [0.5]),
        ),
        (
            "embedding",
            tasks.Embedding(pair=True),
            ("rows.tsv", "text\ttext_pair\tlabel\na\tb\t2.5\n"),
            ([("a", "b")], [2.5]),
        ),
        (
            "summary",
            tasks.ExtractiveSummary(),
            (
                "rows.jsonl",
                '{"text": ["a", "b"], "summary": ["c"]}\n'
                '{"text": ["a", "b"], "labels": [0, 1]}\n',
            ),
            ([{"text": ["a", "b"]}] * 2, ["c", [0, 1]]),
        ),
        (
            "tagging",
            tasks.Tagging(),
            ("rows.conll", "EU B-ORG\nacts O\n"),
            (["EU  acts"], [["B-ORG", "O"]]),
        ),
        (
            "tagging_of_characters",
            tasks.Tagging(),
            ("rows.conll", "我 B-PER\n很 O\n"),
            (["我很"], ["B-PER O"]),
        ),
        (
            "other_prefixes",
            tasks.Tagging(),
            ("rows.conll", "EU U-ORG\nacts O\n"),
            (["EU acts"], ["U-ORG O"]),
        ),
    )
    def test_rows_of_a_file(self, task, file, values):
        name, content = file
        path = self.create_tempfile(name, content).full_path
        expected, skipped = labelled_examples.from_file(task, path)
        self.assertEqual(
            list(map(dict, labelled_examples.from_python(task, *values))),
            list(map(dict, expected)),
        )
        self.assertEqual(skipped, 0)


if __name__ == "__main__":
    absltest.main()
