"""What predict and evaluate do with lines, labels and folders of any kind."""

import collections
import contextlib
import dataclasses
import io
import json
import os

from absl.testing import absltest, parameterized

from bert_keras import checkpoint, console, errors, labelled_examples
from bert_keras import model as model_lib
from bert_keras.data import records, unlabelled_texts
from bert_keras.networks import bert
from bert_keras.tasks import (
    classification,
    intent_slots,
    sequence_to_sequence,
    tagging,
)
from bert_keras.training import evaluate, finetune, labelled_records
from bert_keras.training import settings as settings_lib
from tests import tiny
from tests.trainers import mains


class Files(parameterized.TestCase):
    def file(self, name, content):
        if isinstance(content, str):
            content = content.encode()
        path = os.path.join(self.create_tempdir().full_path, name)
        with open(path, "wb") as file:
            file.write(content)
        return path


class LinesTest(Files):
    @parameterized.parameters("null", "NaN", "3", "true", "[]", '["a"]', "{}")
    def test_what_is_no_text_is_refused_with_line_and_column(self, value):
        line = f'{{"text": "a", "text_pair": {value}}}'
        with self.assertRaisesRegex(
            errors.InputError,
            "line 7, column 'text_pair': expected text, found ",
        ):
            unlabelled_texts.parse(line, ("text", "text_pair"), 7)
        self.assertEqual(
            unlabelled_texts.parse(line, ("text",), 7), {"text": "a"}
        )

    @parameterized.parameters(
        ('{"a":' * 10_000, "nested too deeply"),
        ('{"text": ' + "1" * 4301 + "}", "4,300 digits"),
        ('{"text": "a", "text": "b"}', "'text' twice"),
        ('{"text": "a"', "at column 13"),
    )
    def test_json_that_cannot_be_read_is_named_with_its_line(
        self, line, message
    ):
        with self.assertRaisesRegex(errors.InputError, f"line 7 .*{message}"):
            unlabelled_texts.parse(line, ("text",), 7)

    @parameterized.parameters(
        ('{"text": "cut \\ud83d"}', "cut \ufffd"),
        ('\ufeff{"text": "a"}', "a"),
        ("\ufeffa", "a"),
        ("null", "null"),
        ("[/b]", "[/b]"),
    )
    def test_a_line_becomes_a_text(self, line, text):
        self.assertEqual(
            unlabelled_texts.parse(line, ("text",), 1), {"text": text}
        )

    def test_lines_are_those_of_the_file_packed_or_not(self):
        content = "\ufeffa\r\n\nb\u2028c\n".encode()
        for name in ("x.txt", "x"):
            path = self.file(name, content)
            self.assertEqual(
                list(unlabelled_texts.read_lines(path)), ["a", "", "b\u2028c"]
            )

    @parameterized.parameters(
        (
            "x.txt",
            b"a\nb\xff\n",
            "line 2: expected UTF-8, found byte 0xFF at column 2.*CP1252",
        ),
        ("x.txt", "a\nb\n".encode("utf-16"), "found UTF-16"),
        ("x.txt", b"a\rb\rc\r", "found CR alone"),
        ("x.json", b'[{"text": "a"},\n{"text": "b"}]', "line 1: .*one JSON"),
        ("x.jsonl", b'{"text": "a"}\nb\n', "line 2: expected one JSON object"),
    )
    def test_files_of_another_kind_are_named(self, name, content, message):
        path = self.file(name, content)
        with self.assertRaisesRegex(errors.InputError, f"{path}.*{message}"):
            list(unlabelled_texts.read_lines(path))
        with self.assertRaisesRegex(errors.InputError, "found a folder"):
            list(unlabelled_texts.read_lines(os.path.dirname(path)))

    ONE = classification.Classification()
    PAIR = classification.Classification(pair=True)

    @parameterized.parameters(
        (ONE, "x.csv", "text,label\na,1\n'b',\n"),
        (ONE, "x.CSV", "Label,Sentence\n1,a\n2,'b'\n"),
        (ONE, "x.tsv", "text\tlabel\na\t1\n'b'\tnan\n"),
        (ONE, "x.tsv", "text\na\n'b'\n"),
        (ONE, "x.csv", "text;label\na;1\n'b';\n"),
        (dataclasses.replace(ONE, columns="text=0,label=1"), "x.csv",
         "a;1\n'b';2\n"),
        (PAIR, "x.csv", "sentence1,sentence2\na,c\n'b',c\n"),
        (PAIR, "x.TSV", "id\tsentence1\tsentence2\n1\ta\tc\n2\t'b'\tc\n"),
        (dataclasses.replace(ONE, columns="text=body,label=gold"), "x.csv",
         "id,body\n1,a\n2,'b'\n"),
        (dataclasses.replace(PAIR, columns="text=A,text_pair=B"), "x.tsv",
         "A\tB\na\tc\n'b'\tc\n"),
        (dataclasses.replace(ONE, columns="text=0,label=1"), "x.tsv",
         "a\t1\n'b'\t2\n"),
    )  # fmt: skip
    def test_a_table_is_read_by_the_columns_of_training(
        self, task, name, content
    ):
        rows = list(
            unlabelled_texts.read(
                self.file(name, content), task.text_columns, task.columns
            )
        )
        texts = [
            {name: row[name] for name in task.text_columns} for row in rows
        ]
        expected = [{"text": "a"}, {"text": "'b'"}]
        if task.pair:
            expected = [row | {"text_pair": "c"} for row in expected]
        self.assertEqual(texts, expected)

    @parameterized.parameters(
        (ONE, "x.csv", "a film\n", "'a film'.*as .txt or .jsonl"),
        (ONE, "x.tsv", "a\tb\n", "'a', 'b'.*as .txt or .jsonl"),
        (PAIR, "x.csv", "text,label\na,b\n", "missing: text_pair.*as .txt or"),
        (ONE, "x.csv", 'text,label\n"a,b\n', "line 2.*not closed"),
    )
    def test_a_table_without_the_columns_of_texts_is_refused(
        self, task, name, content, message
    ):
        path = self.file(name, content)
        with self.assertRaisesRegex(errors.InputError, f"{path}.*{message}"):
            list(unlabelled_texts.read(path, task.text_columns))

    def test_a_tsv_file_of_pairs_needs_no_header(self):
        path = self.file("x.tsv", "a\tb\nc\td\n")
        lines = list(unlabelled_texts.read(path, self.PAIR.text_columns))
        self.assertEqual(lines, ["a\tb", "c\td"])

    def test_json_lines_are_known_by_all_their_names(self):
        for name in ("x.JSONL", "x.ndjson", "x.Json"):
            path = self.file(name, b' {"text": "a"}\nb\n')
            lines = unlabelled_texts.read_lines(path)
            self.assertEqual(next(lines), '{"text": "a"}')
            with self.assertRaisesRegex(errors.InputError, "line 2: .*JSON"):
                next(lines)


class EvaluateTest(Files):
    def run_of(self, task):
        run = self.create_tempdir().full_path
        model = model_lib.BertModel(bert.BertEncoder(tiny.bert()), task)
        checkpoint.save(run, model, tiny.tokenizer(), step=1)
        checkpoint.mark(run, "latest", 1)
        return run

    def evaluate(self, task, data, **settings):
        """(the table, what was said, the metrics)."""
        out, said = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            metrics = evaluate.run(
                evaluate.EvaluateSettings(
                    checkpoint=self.run_of(task), data=data, **settings
                )
            )
        return out.getvalue(), " ".join(said.getvalue().split()), metrics

    TASK = classification.Classification(seq_length=8, labels=("0.0", "1.0"))

    def test_labels_never_seen_in_training_are_told_with_counts(self):
        data = self.file("dev.csv", "text,label\na,1\nb,1\nc, 0\nd,1.0 \n")
        out, said, metrics = self.evaluate(self.TASK, data)
        message = "3 of 4 rows: '1' 2, '0' 1"
        self.assertRegex(out, f"labels never seen in training +│ {message}")
        self.assertRegex(said, f"labels never seen in training, .*{message}")
        self.assertIn(metrics["accuracy"], (0.0, 0.25))

    @parameterized.parameters(
        (
            "single_label",
            "dev.csv",
            "text,label\na,1\nb,0\n",
            "2 of 2 rows: '1' 1",
        ),
        (
            "multi_label",
            "dev.csv",
            'text,label\na,"1,x"\n',
            "1 of 1 rows: .*'x' 1",
        ),
        ("multi_label", "dev.jsonl", '{"text": "a", "label": ["x"]}', "'x' 1"),
    )
    def test_a_file_of_other_labels_is_refused(
        self, kind, name, content, message
    ):
        task = dataclasses.replace(self.TASK, problem_type=kind)
        with self.assertRaisesRegex(
            errors.InputError, f"{name}: .*labels of the training.*{message}"
        ):
            self.evaluate(task, self.file(name, content))

    def test_parallel_files_are_read_whatever_training_read(self):
        texts = self.file("dev.en", "a film\n")
        with open(f"{os.path.dirname(texts)}/dev.de", "w") as file:
            file.write("ein Film\n")
        for settings in ({"columns": "text=0,target=1"}, {}):
            task = sequence_to_sequence.SequenceToSequence(**settings)
            examples, _ = labelled_examples.from_file(
                task, texts, target_suffix="de"
            )
            self.assertEqual(
                [dict(each) for each in examples],
                [{"text": "a film", "target": "ein Film"}],
            )
        with self.assertRaisesRegex(
            errors.InputError, "target_suffix=de: the files of classification"
        ):
            labelled_examples.from_file(self.TASK, texts, target_suffix="de")

    def test_types_and_intents_never_seen_are_told(self):
        data = self.file("dev.conll", "a B-PER\nb U-LOC\n\nc B-PER\n")
        task = tagging.Tagging(types=("PER",))
        out, _, _ = self.evaluate(task, data)
        self.assertRegex(out, "never seen in training +│ 1 of 2 rows: 'LOC' 1")
        task = intent_slots.IntentSlots(types=("PER",), intents=("ask",))
        row = {"text": "a b", "words": "0-1 2-3", "tags": "U-LOC O"}
        self.assertEqual(task.unseen(row | {"label": "tell"}), ["tell", "LOC"])
        self.assertEqual(task.unseen(row | {"label": "ask "}), ["LOC"])

    def test_truncated_and_malformed_rows_are_counted(self):
        long = "the film " * 20
        data = self.file("dev.csv", f"text,label\n{long},0.0\nb,1.0\nc,\n")
        task = dataclasses.replace(self.TASK, on_bad_row="skip")
        out, said, _ = self.evaluate(task, data)
        self.assertRegex(out, "rows truncated +│ 1 of 2, at 8 tokens")
        self.assertRegex(out, "malformed rows left out +│ 1 ")
        self.assertIn("1 of 3 rows are malformed and left out", said)

    def test_the_table_has_the_accuracy_of_the_most_frequent_label(self):
        data = self.file("dev.csv", "text,label\na,1.0\nb,0.0\nc,1.0\nd,1.0\n")
        out, _, metrics = self.evaluate(self.TASK, data)
        self.assertRegex(out, "accuracy of always '1.0' +│ 0.75 ")
        self.assertEqual({*metrics}, {"accuracy", "f1_macro", "mcc"})
        task = dataclasses.replace(self.TASK, problem_type="multi_label")
        self.assertNotIn("always", self.evaluate(task, data)[0])

    def test_a_separator_other_than_a_comma_is_reported(self):
        data = self.file("dev.csv", "text;label\na, b;1.0\nc;0.0\n")
        _, said, _ = self.evaluate(self.TASK, data)
        message = "dev.csv: columns are separated by ';'."
        self.assertEqual(said.count(message), 1)
        flags = {"checkpoint": self.run_of(self.TASK), "input": data}
        code, out, _, said = mains.call_and_listen("trainers.predict", **flags)
        self.assertEqual((code, len(out.splitlines())), (0, 2))
        self.assertEqual(" ".join(said.split()).count(message), 1)

    def test_a_missing_label_of_several_is_none(self):
        task = dataclasses.replace(self.TASK, problem_type="multi_label")
        data = self.file(
            "dev.jsonl",
            '{"text": "a", "label": ["0.0"]}\n{"text": "b", "label": []}\n'
            '{"text": "c", "label": null}\n{"text": "d", "label": "1.0, 0.0"}',
        )
        answers = os.path.join(self.create_tempdir().full_path, "a.jsonl")
        self.evaluate(task, data, output=answers)
        with open(answers) as file:
            rows = [json.loads(line)["row"] for line in file]
        self.assertEqual(
            [row["label"] for row in rows], ["0.0", "", "", "1.0,0.0"]
        )

    def test_labels_that_look_like_markup_are_shown(self):
        labels = ("[/good]", "[bad]", ":cat:", "$\\frac$")
        task = dataclasses.replace(self.TASK, labels=labels)
        rows = "".join(f"{name}\t{name}\n" for name in labels)
        data = self.file("dev.tsv", f"text\tlabel\n{rows}")
        answers = os.path.join(self.create_tempdir().full_path, "a.jsonl")
        out, _, _ = self.evaluate(task, data, output=answers)
        for name in labels:
            self.assertIn(f"│ {name} ", out)
        self.assertIn("a-confusion.png", os.listdir(os.path.dirname(answers)))

    @parameterized.parameters(
        ({}, "here.tsv: .* found none. The file has no rows"),
        ({"dev": "x"}, "here.tsv: .* found none. The file has no rows"),
        (
            {"dev_fraction": 0.9},
            "dev_fraction=0.9: .*found none in .*here.tsv; all",
        ),
    )
    def test_training_without_rows_says_why_there_are_none(
        self, changes, message
    ):
        rows = "a\t0.5\n" if "dev_fraction" in changes else ""
        train = self.file("here.tsv", f"text\tlabel\n{rows}")
        settings = settings_lib.FinetuneSettings(
            init=self.run_of(self.TASK), train=train, **changes
        )
        with self.assertRaisesRegex(errors.InputError, message):
            finetune._run(settings, self.TASK, None)

    def test_records_are_no_labelled_file(self):
        folder = self.create_tempdir().full_path
        for part in ("train", "dev"):
            os.makedirs(os.path.join(folder, part))
            records.write_manifest(
                os.path.join(folder, part),
                [{"rows": 1, "tokens": 1, "longest": 1}],
                seq_length=8,
            )
        for data in (folder, os.path.join(folder, "dev")):
            with self.assertRaisesRegex(errors.InputError, "labelled file"):
                self.evaluate(self.TASK, data)

    @parameterized.parameters("", "x.tfrecord", "nowhere.tsv")
    def test_what_is_no_labelled_file_is_refused(self, name):
        folder = self.create_tempdir().full_path
        with self.assertRaisesRegex(errors.InputError, folder):
            self.evaluate(self.TASK, os.path.join(folder, name))


class ReportTest(absltest.TestCase):
    def test_brackets_and_colons_are_shown_as_they_are(self):
        text = "[/a] [bold]b[/bold] :cat:"
        out, said = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            console.say(text)
            console.table(text, {text: text})
            with console.Progress(text, total=1) as progress:
                progress.update(1, text)
        self.assertEqual(out.getvalue().count(text), 3)
        self.assertEqual(said.getvalue().count(text), 3)

    def test_a_bar_shows_brackets_as_they_are(self):
        progress = console.Progress("[/a]", total=1)
        progress.update(1, "[/b] [bold]")
        (task,) = progress.bar.tasks
        shown = [
            str(column(task))
            for column in progress.bar.columns
            if hasattr(column, "text_format")
        ]
        self.assertEqual(shown[0], "[/a]")
        self.assertIn("[/b] [bold]", shown[1])


class EncodeTest(absltest.TestCase):
    def test_truncated_examples_are_counted(self):
        task = EvaluateTest.TASK
        rows = [
            {"text": text, "label": "1.0"}
            for text in ("a", "the film " * 20, "a film", "bad " * 9)
        ]
        counts = collections.Counter()
        list(labelled_records.encode(task, tiny.tokenizer(), rows, counts))
        self.assertEqual(counts, collections.Counter(examples=4, truncated=2))


if __name__ == "__main__":
    absltest.main()
