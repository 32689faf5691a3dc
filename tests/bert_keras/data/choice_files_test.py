"""Files of questions with choices: all layouts give the same examples."""

import json

from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.data import choice_files, unlabelled_texts

CHOICES = ["in the sea", "on a hill", "at home"]
EXAMPLE = {
    "context": "The lighthouse is on a hill.",
    "question": "Where is it?",
    **dict(zip(choice_files.CHOICES, CHOICES, strict=False)),
    "label": "1",
    "group": "The lighthouse is on a hill.",
}
TEXTS = EXAMPLE["context"], EXAMPLE["question"]
OBJECT = {"context": TEXTS[0], "question": TEXTS[1], "choices": CHOICES}
RACE = {
    "id": "high1.txt",
    "article": TEXTS[0],
    "questions": [TEXTS[1], "Why?"],
    "options": [CHOICES, ["because", "so"]],
    "answers": ["B", "A"],
}


def lines(*objects):
    return "\n".join(map(json.dumps, objects)) + "\n"


class ReadTest(parameterized.TestCase):
    def write(self, name, text):
        return self.create_tempfile(name, text).full_path

    @parameterized.parameters(
        (
            "swag.csv",
            ",video-id,sent1,sent2,ending0,ending1,ending2,label\n"
            f"0,v1,{TEXTS[0]},{TEXTS[1]},{','.join(CHOICES)},1\n",
        ),
        (
            "letters.tsv",
            "passage\tquestion\toption_A\toption_B\toption_C\tanswer\n"
            f"{TEXTS[0]}\t{TEXTS[1]}\t" + "\t".join(CHOICES) + "\tB\n",
        ),
        ("index.jsonl", lines(OBJECT | {"label": 1})),
        ("letter.jsonl", lines(OBJECT | {"answer": "b"})),
        ("text.ndjson", lines(OBJECT | {"label": "on a hill"})),
        (
            "arc.jsonl",
            lines(
                OBJECT
                | {
                    "choices": {"text": CHOICES, "label": ["1", "2", "3"]},
                    "answerKey": "2",
                }
            ),
        ),
        ("one.json", json.dumps([OBJECT | {"label": 1}], indent=1)),
    )
    def test_every_layout_gives_the_same_example(self, name, text):
        self.assertEqual(
            list(choice_files.read(self.write(name, text))), [EXAMPLE]
        )

    @parameterized.parameters(
        ("race.jsonl", lines(RACE)), ("race.json", json.dumps(RACE, indent=2))
    )
    def test_race_has_several_questions_of_an_article(self, name, text):
        first, second = choice_files.read(self.write(name, text))
        self.assertEqual(first, EXAMPLE)
        self.assertEqual(
            (second["question"], second["choice_b"], second["label"]),
            ("Why?", "so", "0"),
        )
        self.assertEqual(first["group"], second["group"])

    def test_absent_choices_are_empty_up_to_a_number(self):
        path = self.write("rows.jsonl", lines(OBJECT | {"label": 1}))
        (example,) = choice_files.read(path, num_choices=4)
        self.assertEqual(example["choice_d"], "")
        with self.assertRaisesRegex(
            errors.InputError, "line 1: expected at most 2 choices, found 3"
        ):
            list(choice_files.read(path, num_choices=2))

    def test_columns_are_named_or_counted(self):
        path = self.write("named.tsv", "t\tp\tq\tr\n" + "a\tb\tc\t1\n")
        columns = "context=t,choice_a=p,choice_b=q,label=r"
        (example,) = choice_files.read(path, columns=columns)
        self.assertEqual((example["choice_b"], example["label"]), ("c", "1"))
        path = self.write("counted.tsv", "a\tb\tc\t0\n")
        columns = "context=0,choice_a=1,choice_b=2,label=3"
        (example,) = choice_files.read(path, columns=columns)
        self.assertEqual((example["context"], example["label"]), ("a", "0"))

    def test_json_files_without_labels_have_the_same_layouts(self):
        path = self.write("race.jsonl", lines(RACE))
        first, second = unlabelled_texts.read(
            path,
            ("context", "question", *choice_files.CHOICES[:3]),
            read_table=lambda path: choice_files.read_texts(
                path, num_choices=3
            ),
        )
        self.assertEqual(
            (first["choice_b"], second["question"]), ("on a hill", "Why?")
        )

    def test_a_column_keeps_its_letter(self):
        for name, text in (
            ("a.csv", "option_A,option_C,answer\nx,y,C\n"),
            ("b.csv", "ending1,ending3,label\nx,y,2\n"),
            ("c.jsonl", lines({"choice_a": "x", "choice_c": "y", "label": 2})),
        ):
            (example,) = choice_files.read(self.write(name, text))
            self.assertEqual(
                [example[n] for n in choice_files.CHOICES[:3]], ["x", "", "y"]
            )
            self.assertEqual(example["label"], "2")

    def test_a_choice_of_white_space_is_absent(self):
        row = OBJECT | {
            "choices": [" \u200b\u3000", *CHOICES[1:]],
            "label": "C",
        }
        (example,) = choice_files.read(self.write("a.jsonl", lines(row)))
        self.assertEqual((example["choice_a"], example["label"]), ("", "2"))

    def test_columns_that_are_not_read_are_mentioned(self):
        row = {"id": "1", "text": "x", "choices": CHOICES, "label": 0}
        reader = choice_files.read(self.write("a.jsonl", lines(row)))
        list(reader)
        self.assertIn("not read: 'id', 'text'", reader.warning)
        reader = choice_files.read(
            self.write("b.jsonl", lines(OBJECT | {"id": "1", "label": 0}))
        )
        list(reader)
        self.assertEqual(reader.warning, "")

    def test_a_header_is_no_row_of_a_file_without_one(self):
        path = self.write("a.csv", "context,one,two\na,b,c\n")
        columns = "context=0,choice_a=1,choice_b=2"
        with self.assertRaisesRegex(errors.InputError, "the first row is one"):
            list(choice_files.read_texts(path, columns=columns, num_choices=2))

    def test_a_row_has_the_common_names_of_a_file(self):
        row = {"passage": TEXTS[0], "query": TEXTS[1], "options": CHOICES}
        self.assertEqual(
            choice_files.text_row(row), choice_files.text_row(OBJECT)
        )
        endings = {f"ending{n}": text for n, text in enumerate(CHOICES)}
        row = {"sent1": TEXTS[0], "sent2": TEXTS[1], **endings}
        self.assertEqual(
            choice_files.text_row(row), choice_files.text_row(OBJECT)
        )

    @parameterized.parameters(
        {"context": "a"},
        {"context": "a", "choices": []},
        {"context": "a", "choices": ["", " "]},
        {"context": "a", "first": "b", "second": "c"},
        {"choices": ["a", "b"], "choice_a": "c"},
    )
    def test_a_row_without_choices_is_refused(self, **row):
        with self.assertRaisesRegex(ValueError, "expected .*choice_a"):
            choice_files.text_row(row)

    def test_texts_need_no_label(self):
        path = self.write("rows.csv", "question,choice_a,choice_b\nq,a,b\n")
        (texts,) = choice_files.read_texts(path, num_choices=3)
        self.assertEqual(
            texts,
            {
                **{"context": "", "question": "q"},
                **{"choice_a": "a", "choice_b": "b", "choice_c": ""},
            },
        )

    @parameterized.parameters(
        ("a.csv", "context,label\nx,1\n", "columns of choices"),
        ("b.csv", "context,choice_a,choice_b\nx,y,z\n", "a column label"),
        ("c.csv", "context,a,a,label\nx,y,z,1\n", "different names"),
        ("d.tsv", "choice_a\tchoice_b\tlabel\nx\ty\n", "line 2: .*3 fields"),
        ("e.jsonl", lines(OBJECT | {"label": 3}), "line 1: .* there are 3"),
        ("f.jsonl", lines(OBJECT | {"label": "D"}), "found 'D'"),
        ("g.jsonl", lines(OBJECT | {"label": None}), "expected a label"),
        ("h.jsonl", lines(OBJECT | {"label": 0, "choices": ["x"]}), "two or"),
        ("i.jsonl", lines(OBJECT | {"label": 0, "choices": "xy"}), "a list"),
        ("j.jsonl", lines(OBJECT | {"label": 0, "context": 3}), "expected tex"),
        (
            "k.jsonl",
            lines(OBJECT | {"label": "1", "choices": ["1", "2"]}),
            "'1' is the index of choice 1 and the text of choice 0",
        ),
        ("l.jsonl", lines(RACE | {"answers": ["A"]}), "the same length"),
        ("m.txt", "x", "a name that ends in"),
        ("n.json", "[1]", "object 1: expected an object"),
        ("o.csv", "context,ending0,label\nx,y,0\n", "columns of choices"),
    )
    def test_what_is_wrong_is_located(self, name, text, message):
        with self.assertRaisesRegex(errors.InputError, message):
            list(choice_files.read(self.write(name, text)))


class LabelTest(parameterized.TestCase):
    @parameterized.parameters(
        ("1", "any", 1),
        (2, "index", 2),
        ("C", "any", 2),
        ("at home", "text", 2),
        ("1", "text", 0),
    )
    def test_index_letter_and_text(self, label, label_format, expected):
        choices = ["1" if label_format == "text" else "sea", "hill", "at home"]
        self.assertEqual(
            choice_files.label_index(label, choices, label_format), expected
        )

    def test_an_absent_choice_is_no_label(self):
        for label in ("1", "B"):
            with self.assertRaisesRegex(ValueError, "there are 2"):
                choice_files.label_index(label, ["a", "", "c"])

    def test_a_text_that_occurs_twice_is_refused(self):
        with self.assertRaisesRegex(ValueError, "several choices"):
            choice_files.label_index("same", ["same", "same"])


if __name__ == "__main__":
    absltest.main()
