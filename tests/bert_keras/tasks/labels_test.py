"""Labels of rows from files and from Python, in every task that has some."""

import os

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.tasks import (
    classification,
    embedding,
    intent_slots,
    tagging,
)
from tests import tiny

BLANK = "\u3000\xa0 "


class LabelsTest(parameterized.TestCase):
    def file(self, name, content):
        if isinstance(content, str):
            content = content.encode()
        return self.create_tempfile(name, content, mode="wb").full_path

    def targets(self, task, *labels):
        return task.make_targets(
            {"label": tf.constant(labels)}, {}, tiny.tokenizer()
        )

    def test_blanks_around_a_label_are_not_part_of_it(self):
        path = self.file(
            "a.csv", f"text,label\na,{BLANK}pos\nb,pos{BLANK}\nc,neg \nd,neg\n"
        )
        task = classification.Classification()
        rows = list(task.read_examples(path))
        self.assertEqual(
            [row["label"] for row in rows], ["pos", "pos", "neg", "neg"]
        )
        python = [row | {"label": f"{BLANK}{row['label']} "} for row in rows]
        for examples in (rows, python):
            learned = task.adapt(examples, None)
            self.assertEqual(learned.labels, ("neg", "pos"))
            labels, _ = self.targets(learned, *(r["label"] for r in examples))[
                "label"
            ]
            self.assertEqual(labels.numpy().tolist(), [1, 1, 0, 0])
            answers = [{"label": row["label"]} for row in rows]
            self.assertEqual(learned.metrics(answers, examples)["accuracy"], 1)

    def test_a_list_is_several_labels(self):
        path = self.file(
            "a.jsonl",
            '{"text": "a", "label": ["x", "y\\u3000"]}\n'
            '{"text": "b", "label": "y,\\u3000x"}\n'
            '{"text": "c", "label": ["y"]}\n{"text": "d", "label": []}\n'
            '{"text": "e", "label": null}\n{"text": "f", "label": NaN}\n',
        )
        task = classification.Classification(problem_type="multi_label")
        rows = list(task.read_examples(path))
        task = task.adapt(rows, None)
        self.assertEqual(task.labels, ("x", "y"))
        labels, _ = self.targets(task, *(row["label"] for row in rows))["label"]
        np.testing.assert_array_equal(
            labels, [[1, 1], [1, 1], [0, 1], [0, 0], [0, 0], [0, 0]]
        )
        answers = [{"label": row["label"]} for row in rows]
        self.assertEqual(task.metrics(answers, rows)["f1_micro"], 1)

    def test_a_name_is_not_found_inside_another(self):
        task = classification.Classification(
            problem_type="multi_label",
            labels=("a", "a.b", "b c", "[/x]", "x|y"),
        )
        labels, _ = self.targets(task, "a.b, [/x]", "x|y", "b c,a", "")["label"]
        np.testing.assert_array_equal(
            labels,
            [[0, 1, 0, 1, 0], [0, 0, 0, 0, 1], [1, 0, 1, 0, 0], [0] * 5],
        )
        with self.assertRaisesRegex(errors.InputError, "label 'b' does not"):
            self.targets(task, "a,b")

    @parameterized.parameters(
        (
            "single_label",
            "x",
            "a,x\nb,y\nc,z\nd,x\n",
            "bc",
            "2 rows .*[(]x: 2[)]",
        ),
        (
            "multi_label",
            "x",
            'a,"x,y"\nb,y\nc,\nd,x\n',
            "bc",
            "2 rows .*[(]x: 2[)]",
        ),
        ("multi_label", "x,y", 'a,"x,y"\nb,y\nc,z\n', "c", "2 r.*x: 1, y: 2"),
        (
            "regression",
            "-1",
            "a,-1.0\nb,1\nc,-1\nd,-1e0\n",
            "b",
            "3 rows .*-1: 3",
        ),
        ("regression", "-1.0", "a,-1\nb,1\n", "b", "1 rows .*-1.0: 1"),
        (
            "single_label",
            "x,q",
            "a,x\nb,y\n",
            "b",
            "No row has the label q of skip",
        ),
        (
            "multi_label",
            "q,xy",
            "a,x\nb,y\n",
            "ab",
            "No row has the label q or xy ",
        ),
        ("regression", "7", "a,1\nb,2\n", "ab", "No row has the label 7 "),
    )
    def test_rows_of_skipped_labels_are_left_out_and_counted(
        self, kind, skip, content, left, note
    ):
        path = self.file("a.csv", f"text,label\n{content}")
        task = classification.Classification(
            problem_type=kind, skip_labels=skip
        )
        examples = task.read_examples(path)
        self.assertEqual("".join(row["text"] for row in examples), left)
        self.assertRegex(examples.warning, f"{path}: .*{note}")

    def test_skipped_labels_of_another_kind_are_refused(self):
        task = classification.Classification(
            problem_type="regression", skip_labels="x"
        )
        path = self.file("a.csv", "text,label\na,1\n")
        with self.assertRaisesRegex(errors.InputError, "skip_labels=x: .*numb"):
            task.read_examples(path)
        task = classification.Classification(skip_labels="x")
        path = self.file("b.csv", "text,label\na,x\n")
        with self.assertRaisesRegex(
            errors.InputError, "found none. 1 rows are left out for labels in"
        ):
            list(task.read_examples(path))

    @parameterized.product(
        kind=("single_label", "multi_label"),
        name=("NA", "None", "null", "<NA>", "NaT"),
    )
    def test_a_class_that_may_be_a_missing_label_is_named(self, kind, name):
        path = self.file("a.tsv", f"text\tlabel\na\tx\nb\t{name}\nc\tx\n")
        task = classification.Classification(problem_type=kind)
        examples = task.read_examples(path)
        learned = task.adapt(examples, None)
        self.assertEqual(learned.labels, tuple(sorted([name, "x"])))
        self.assertIn(f"a class: {name}.", examples.warning)
        self.assertIn(f"skip_labels={name}.", examples.warning)

    @parameterized.parameters(
        (["1", "-100"], "row 1: expected a label from -1 to 1, .* found -100"),
        (["-5.5", "5", "0"], "row 0: expected a label from -5 to 5"),
        (["1e-46", "0"], "the highest label is 1e-46"),
        (["0", "-1"], "the highest label is 0"),
    )
    def test_labels_that_are_no_cosines_are_refused(self, labels, message):
        rows = [{"text": "a", "text_pair": "b", "label": n} for n in labels]
        with self.assertRaisesRegex(errors.InputError, message):
            embedding.Embedding().adapt(rows, None)

    def test_labels_down_to_minus_the_highest_are_cosines(self):
        rows = [
            {"text": "a", "text_pair": "b", "label": n}
            for n in ("-4", "4", "0")
        ]
        task = embedding.Embedding().adapt(rows, None)
        share, _ = self.targets(task, "-4", "4", "0")["similarity"]
        self.assertEqual(share.numpy().tolist(), [-1, 1, 0])

    @parameterized.product(
        kind=("single_label", "multi_label", "regression"),
        name=("a.jsonl", "a.csv"),
    )
    def test_a_missing_label_is_none_of_several_and_else_malformed(
        self, kind, name
    ):
        content = {
            "a.jsonl": '{"text": "a", "label": "1"}\n'
            '{"text": "b", "label": null}\n',
            "a.csv": "text,label\na,1\nb,\n",
        }[name]
        task = classification.Classification(problem_type=kind)
        examples = task.read_examples(self.file(name, content))
        if kind == "multi_label":
            self.assertEqual([r["label"] for r in examples], ["1", ""])
            return
        with self.assertRaisesRegex(
            errors.InputError, r"line [23]: column 'label': expected a .*label|"
            r"line [23]: column 'label': expected a finite number"
        ):  # fmt: skip
            list(examples)

    @parameterized.product(
        label=("nan", "inf", "-Infinity", "1_000", "1,5", "１", "", "1e39"),
        task=(
            classification.Classification(problem_type="regression"),
            embedding.Embedding(),
        ),
    )
    def test_what_is_no_finite_number_is_refused_with_file_and_line(
        self, label, task
    ):
        rows = f'text,text_pair,label\na,b," 1e0"\nc,d,"{label}"\n'
        path = self.file("a.csv", rows)
        with self.assertRaisesRegex(
            errors.InputError, f"{path}, line 3: .*expected a finite number"
        ):
            list(task.read_examples(path))

    @parameterized.parameters(
        classification.Classification(problem_type="regression"),
        embedding.Embedding(),
    )
    def test_a_row_from_python_is_refused_with_its_number(self, task):
        rows = [{"text": "a", "label": "1"}, {"text": "b", "label": "nan"}]
        with self.assertRaisesRegex(errors.InputError, "row 1: .*finite"):
            task.adapt(rows, None)
        with self.assertRaisesRegex(errors.InputError, "row 1: .*finite"):
            self.targets(task, "1", "inf")

    def test_a_number_is_what_python_reads(self):
        task = classification.Classification(problem_type="regression")
        labels, _ = self.targets(task, "1e3", " 2.5\u3000", "-.5")["label"]
        self.assertEqual(labels.numpy().tolist(), [1000, 2.5, -0.5])

    @parameterized.parameters("text=a,labels=b", "text=a,text=b", "texts=a")
    def test_names_of_columns_there_are_not_are_refused(self, columns):
        for task_class in (classification.Classification, embedding.Embedding):
            with self.assertRaisesRegex(errors.InputError, "columns: expected"):
                task_class(columns=columns).read_examples("a.csv")


class TagsTest(parameterized.TestCase):
    def test_the_column_of_tags_is_a_setting_of_the_task(self):
        path = self.create_tempfile(
            "a.conll", "1\tFC\tB-ORG\tO\n2\tBonn\tI-ORG\tB-LOC\n"
        ).full_path
        for column, types in ((-1, ("LOC",)), (2, ("ORG",)), (3, ("LOC",))):
            task = tagging.Tagging(tag_column=column)
            rows = task.read_examples(path)
            self.assertEqual(task.adapt(rows, None).types, types)
            self.assertEqual(bool(rows.warning), column < 0)

    def test_settings_of_before_are_saved_as_before(self):
        self.assertNotIn("tag_column", tagging.Tagging().to_dict())
        task = tagging.Tagging(tag_column=2)
        values = task.to_dict()
        self.assertEqual(values.pop("name"), "tagging")
        self.assertEqual(tagging.Tagging.from_config(values), task)

    def test_bilou_is_learned_as_bioes(self):
        rows = [{"tags": "U-X O B-X I-X L-X"}]
        task = tagging.Tagging().adapt(rows, None)
        self.assertEqual((task.scheme, task.types), ("BIOES", ("X",)))


class IntentFilesTest(parameterized.TestCase):
    def folder(self, **files):
        folder = self.create_tempdir().full_path
        names = {"words": "seq.in", "tags": "seq.out", "label": "label"}
        for name, content in files.items():
            with open(os.path.join(folder, names[name]), "wb") as file:
                if isinstance(content, str):
                    content = content.encode()
                file.write(content)
        return folder

    def test_reads_words_tags_and_labels(self):
        folder = self.folder(
            words="\ufefffly to New\xa0York\r\nhi  there\n",
            tags="O O U-city \nO\tO\n",
            label="go\u3000\ngreet\n",
        )
        one, two = intent_slots.IntentSlots().read_examples(folder)
        self.assertEqual(one["text"], "fly to New\xa0York")
        self.assertEqual((one["tags"], one["label"]), ("O O S-city", "go"))
        self.assertEqual((two["words"], two["label"]), ("0-2 3-8", "greet"))

    @parameterized.parameters(
        ({"words": b"caf\xe9\n"}, "seq.in, line 1: expected UTF-8"),
        ({"tags": "O\n".encode("utf-16")}, "seq.out: .*found UTF-16"),
        ({"label": "a\rb\rc"}, "label: .*CR alone"),
        ({"tags": "city\n"}, "seq.out, line 1: expected a tag .*'city'"),
        ({"label": "nan\n"}, "label, line 1: expected a label"),
        ({"label": "two words\n"}, "line 1: .*2 labels"),
        ({"tags": "O O\n"}, "line 1: .*1 words, 2 tags"),
        ({"tags": "O\nO\n"}, "the same number of lines"),
        ({"words": "", "tags": "", "label": ""}, "the files are"),
    )
    def test_refuses_with_file_and_line(self, changes, message):
        files = {"words": "fly\n", "tags": "O\n", "label": "go\n"} | changes
        folder = self.folder(**files)
        with self.assertRaisesRegex(errors.InputError, message):
            list(intent_slots.IntentSlots().read_examples(folder))

    def test_a_column_of_tags_is_not_taken(self):
        with self.assertRaisesRegex(errors.InputError, "tag_column=2"):
            list(intent_slots.IntentSlots(tag_column=2).read_examples("x"))


class ClassWeightsTest(absltest.TestCase):
    def test_each_label_weighs_alike_and_a_row_1_on_average(self):
        rows = [{"text": "a", "label": label} for label in "aaaaaabbc"]
        task = classification.Classification(class_weights=True)
        task = task.adapt(rows, None)
        counts = np.array([6, 2, 1])
        np.testing.assert_allclose(counts * task.weights, [3, 3, 3])
        raw = {
            name: tf.constant([row[name] for row in rows])
            for name in ("text", "label")
        }
        features = {"example_index": tf.range(9)}
        _, weights = task.make_targets(raw, features, None)["label"]
        np.testing.assert_allclose(np.mean(weights), 1.0, rtol=1e-6)
        np.testing.assert_allclose(weights[0], 0.5)


class FormerDictTest(absltest.TestCase):
    def test_records_of_before_are_known_by_kind(self):
        task = classification.Classification(labels=("a", "b"))
        values = task.former_dict()
        self.assertEqual(
            list(values)[:6],
            [
                *("name", "seq_length", "columns", "on_bad_row"),
                *("skip_labels", "kind"),
            ],
        )
        self.assertEqual(values["kind"], "single")
        self.assertNotIn("pair_order", values)


if __name__ == "__main__":
    absltest.main()
