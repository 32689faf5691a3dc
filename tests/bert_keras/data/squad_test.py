import gzip
import json
import os

from absl.testing import absltest, parameterized

from bert_keras import errors, labelled_examples
from bert_keras.data import squad
from bert_keras.tasks import question_answering
from tests import tiny

CONTEXT = "𝄞 Ada met Bo. Ada left."


def article(*questions, context=CONTEXT):
    return {"data": [{"paragraphs": [{"context": context, "qas": questions}]}]}


def question(*answers, **more):
    return {
        "id": "q1",
        "question": "Who?",
        "answers": [{"text": t, "answer_start": s} for t, s in answers],
    } | more


class SquadTest(parameterized.TestCase):
    def write(self, content, name="train.json"):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        path = os.path.join(self.create_tempdir().full_path, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def read(self, content):
        return list(squad.read(self.write(content)))

    # As shared/data/SOURCES.md says, and what follows from it.
    @parameterized.parameters(
        # file, questions, impossible, answers, misplaced, unplaced
        ("squad_v1.1/train.json", 8038, 0, 26128, 0, 0),
        ("squad_v2.0/train.json", 9791, 4872, 16298, 0, 0),
        ("cmrc2018/dev.json", 3219, 0, 9657, 200, 3),
        ("drcd/dev.json", 3524, 0, 7048, 0, 0),
        ("xquad_en/train.json", 911, 0, 911, 0, 0),
        ("xquad_zh/train.json", 911, 0, 911, 0, 0),
    )
    def test_real_files_hold_what_their_sources_say(
        self, name, questions, impossible, answers, misplaced, unplaced
    ):
        path = os.path.join(tiny.SHARED_DATA, name)
        if not os.path.exists(path):
            self.skipTest(f"needs shared/data/{name}")
        read = squad.read(path)
        rows = list(read)
        self.assertLen(rows, questions)
        self.assertEqual(
            sum(row["is_impossible"] == "true" for row in rows), impossible
        )
        self.assertEqual(read.num_answers, answers)
        self.assertEqual(read.num_misplaced_answers, misplaced)
        self.assertEqual(read.num_questions_without_located_answer, unplaced)
        self.assertEqual(bool(read.warning), misplaced > 0)
        for row in rows:
            start = int(row["answer_start"])
            if start >= 0:
                end = start + len(row["answer"])
                self.assertEqual(row["context"][start:end], row["answer"])
            self.assertEqual(
                json.loads(row["answers"]) == [], row["is_impossible"] == "true"
            )

    def test_offsets_count_code_points(self):
        (row,) = self.read(article(question(("Ada", 2))))
        self.assertEqual((row["answer"], row["answer_start"]), ("Ada", "2"))

    def test_the_first_answer_in_its_place_is_learnt_and_all_are_gold(self):
        (row,) = self.read(article(question(("Ada", 3), ("Bo", 10))))
        self.assertEqual(json.loads(row["answers"]), ["Ada", "Bo"])
        self.assertEqual((row["answer"], row["answer_start"]), ("Bo", "10"))

    def test_a_misplaced_answer_is_gold_and_not_learnt(self):
        read = squad.read(self.write(article(question(("Ada", -1)))))
        (row,) = read
        self.assertEqual(json.loads(row["answers"]), ["Ada"])
        self.assertEqual((row["answer"], row["answer_start"]), ("", "-1"))
        self.assertEqual(row["is_impossible"], "false")
        self.assertIn("1 of 1 answers", read.warning)

    def test_impossible_questions_have_no_answers(self):
        one, two = self.read(
            article(question(("Bo", 10), is_impossible=True), question())
        )
        for row in (one, two):
            self.assertEqual(row["is_impossible"], "true")
            self.assertEqual(json.loads(row["answers"]), [])

    @parameterized.parameters("", " ", "\u3000\n")
    def test_a_blank_answer_is_none_as_if_the_question_were_flagged(self, text):
        answers = [(text, -1), (text, 0)]
        (flagged,) = self.read(article(question(*answers, is_impossible=True)))
        read = squad.read(self.write(article(question(*answers))))
        self.assertEqual(list(read), [flagged])
        self.assertEqual(flagged["is_impossible"], "true")
        self.assertIn("2 blank answers are ignored", read.warning)
        self.assertIn("1 questions have only blank answers", read.warning)

    def test_a_blank_answer_beside_another_is_left_out_and_told(self):
        read = squad.read(self.write(article(question(("", 0), ("Bo", 10)))))
        (row,) = read
        self.assertEqual(json.loads(row["answers"]), ["Bo"])
        self.assertEqual((row["answer"], row["answer_start"]), ("Bo", "10"))
        self.assertIn("1 blank answers are ignored", read.warning)
        self.assertEqual((read.num_answers, read.num_misplaced_answers), (1, 0))

    def test_answers_to_an_impossible_question_are_told(self):
        asked = question(("Bo", 10), is_impossible=True)
        read = squad.read(self.write(article(asked)))
        list(read)
        self.assertIn("1 questions are flagged as impossible", read.warning)

    def test_half_a_surrogate_pair_keeps_the_offsets(self):
        (row,) = self.read(article(question(("b", 2)), context="\ud83db b"[1:]))
        self.assertEqual(row["answer_start"], "2")
        (row,) = self.read(article(question(("b", 2)), context="\ud83d b"))
        self.assertEqual(row["context"], "\ufffd b")
        self.assertEqual(row["answer_start"], "2")

    def test_gzipped_files_are_read(self):
        content = gzip.compress(json.dumps(article(question())).encode())
        path = self.write(content, "dev.json.gz")
        self.assertLen(list(squad.read(path)), 1)

    @parameterized.parameters(
        (b'{"data": [', "line 1, column"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"data": 1' + b"0" * 4300 + b"}", "4,300 digits"),
        (b'{"data": [], "data": []}', "the key 'data' twice"),
        ('{"data": []}'.encode("utf-16"), "expected UTF-8, found UTF-16"),
        (b'{\r"data": [],\r}\r', "line 1, column|line 3, column"),
        (article({"question": "Who?", "id": "1"}), r"at data.*answers"),
        (article(question(("Bo", 1)) | {"answers": None}), "a list at"),
        (b'{"data": "\xff"}', "line 1: expected UTF-8, found byte 0xff"),
        ([], "a list at data, .* the file is a list"),
        ({"text": 1}, "at data, .* the file has the keys text"),
        ({}, "at data, .* the file has the keys .none."),
        ({"data": []}, "expected questions, found none"),
        ({"data": [{"paragraphs": [3]}]},
         r"at data\[0\].paragraphs\[0\].context, .* is 3"),
        (article({"question": "Who?"}), r"at data.*qas\[0\].answers"),
        (article(question(("Bo", "10"))),
         r"a whole number at .*answers\[0\].answer_start, .* it is a string"),
        (article(question(("Bo", True))), "a whole number at"),
        (article(question(is_impossible="no")), "true or false at .*impossib"),
    )  # fmt: skip
    def test_what_is_wrong_is_named_with_its_place(self, content, message):
        with self.assertRaisesRegex(errors.InputError, message):
            self.read(content)

    def test_the_message_on_a_file_names_it_and_says_what_to_do(self):
        path = self.write(article(question(("Bo", "10"))))
        with self.assertRaises(errors.InputError) as caught:
            list(squad.read(path))
        message = str(caught.exception)
        self.assertStartsWith(message, f"{path}: expected a whole number")
        self.assertEndsWith(message, "but it is a string. Fix the file.")

    @parameterized.parameters(
        ("Bo", "expected a list at answers, .* but it is a string"),
        (["Bo"], r"expected .* at answers\[0\].text, .* is a string"),
        ([{"text": "Bo"}], r"at answers\[0\].answer_start, .* the keys text"),
        ([{"text": "Bo", "answer_start": "10"}], "a whole number at answers"),
        ({"text": "Bo", "answer_start": 10}, "found `text`: a string"),
        ({"text": ["Bo"], "answer_start": 10}, "found `answer_start`: 10"),
        ({"text": ["Bo"]}, "found the keys text"),
        ({"text": ["Bo", "Ada"], "answer_start": [10]}, "found 1 and 2"),
    )
    def test_malformed_answers_from_python_are_named_with_their_index(
        self, answers, message
    ):
        task = question_answering.QuestionAnswering()
        texts = [("Who?", CONTEXT)] * 2
        labels = [[{"text": "Bo", "answer_start": 10}], answers]
        with self.assertRaisesRegex(
            errors.InputError, f"^example 1: .*{message}"
        ) as caught:
            labelled_examples.from_python(task, texts, labels)
        self.assertNotIn("file", str(caught.exception))

    def test_another_kind_of_file_is_refused(self):
        with self.assertRaisesRegex(errors.InputError, "ends in .json"):
            squad.read("train.tsv")


if __name__ == "__main__":
    absltest.main()
