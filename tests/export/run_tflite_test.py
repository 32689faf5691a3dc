import dataclasses
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import model as model_lib
from bert_keras import predictor as predictor_lib
from bert_keras.device import tflite
from bert_keras.tokenizers import wordpiece
from export import run_tflite
from tests import sharp, tiny

VOCABULARIES = {
    "bert_uncased_en_vocab.txt": True,
    "bert_cased_en_vocab.txt": False,
    "bert_chinese_vocab.txt": True,
}

# Whatever a board lacks cannot be imported.
ALONE = """
import runpy, sys
for name in ("tensorflow", "keras", "tensorflow_text", "bert_keras", "absl"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class WordPieceTest(parameterized.TestCase):
    @parameterized.product(
        name=tuple(VOCABULARIES), corpus=("corpus_en", "corpus_zh")
    )
    def test_ids_are_those_of_the_tokenizer(self, name, corpus):
        path = os.path.join(tiny.SHARED_DATA, "vocab", name)
        if not os.path.exists(path):
            self.skipTest(f"{path} is not here")
        tokenizer = wordpiece.Tokenizer.from_file(path)
        self.assertEqual(tokenizer.lowercase, VOCABULARIES[name])
        words = run_tflite.WordPiece(
            tokenizer.vocabulary,
            lowercase=tokenizer.lowercase,
            unk_id=tokenizer.unk_id,
        )
        folder, lines = os.path.join(tiny.SHARED_DATA, corpus), []
        for each in sorted(os.listdir(folder)):
            each = os.path.join(folder, each)
            if os.path.isfile(each):
                with open(each, encoding="utf-8") as file:
                    lines += file.read().splitlines()[:1000]
        expected = tokenizer(tf.constant(lines)).to_list()
        for line, ids in zip(lines, expected, strict=True):
            self.assertEqual(words(line), ids, line)

    @parameterized.parameters(True, False)
    def test_odd_characters(self, lowercase):
        texts = [
            "",
            " \t\n ",
            "ΑΣ ΟΔΟΣ Straße İstanbul",
            "na\u0308ive e\u0301 \u0301",
            "a\u200bb\u00adc \ufeffx \x00\x07y \ufffd",
            "x" * 200 + " " + "x" * 201,
            "很好,good！😀👍🏽 한국어 ﬁ ＡＢ",
            "a\u2028b\u3000c\xa0d",
            "don't $5.00 [MASK] ~`^ «x»",
        ]
        tokenizer = wordpiece.Tokenizer(
            [
                *tiny.VOCABULARY,
                *"bcdefgxy",
                *(f"##{c}" for c in "abcdefgxyσς"),
                *("α", "ο", "δ", "$", "'", "[", "]"),
            ],
            lowercase=lowercase,
        )
        words = run_tflite.WordPiece(
            tokenizer.vocabulary, lowercase=lowercase, unk_id=tokenizer.unk_id
        )
        for text, ids in zip(texts, tokenizer(texts).to_list(), strict=True):
            self.assertEqual(words(text), ids, text)

    @parameterized.parameters(True, False)
    def test_bytes_that_are_not_utf8_are_dropped_as_by_the_tokenizer(
        self, lowercase
    ):
        generator = random.Random(1)
        parts = [
            *(bytes([byte]) for byte in range(0x80, 0x100)),
            *(b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xe5\xbd", b"\xc0\xaf"),
            *(b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\x00", b" ", b"a"),
            *("好".encode(), "é".encode(), "😀".encode(), b"film", b"\x1c"),
        ]
        texts = [
            b"".join(generator.choices(parts, k=generator.randrange(12)))
            for _ in range(3000)
        ]
        tokenizer = wordpiece.Tokenizer(
            [*tiny.VOCABULARY, "e", "é", "##film", "##a", "##é", "##e"],
            lowercase=lowercase,
        )
        words = run_tflite.WordPiece(
            tokenizer.vocabulary, lowercase=lowercase, unk_id=tokenizer.unk_id
        )
        lines = list(
            run_tflite.read(io.TextIOWrapper(io.BytesIO(b"\n".join(texts))))
        )
        # The last text is a line if there is something in it.
        expected = tokenizer(tf.constant(texts[: len(lines)])).to_list()
        for text, (line, dirty), ids in zip(
            texts, lines, expected, strict=False
        ):
            self.assertEqual(words(line.rstrip("\n")), ids, text)
            clean = text.decode("utf-8", "ignore")
            self.assertEqual(line.rstrip("\n"), clean)
            self.assertEqual(dirty, clean.encode() != text)

    def test_a_run_of_accents_takes_no_quadratic_time(self):
        # 15 seconds where the accents were sorted before they were dropped.
        start = time.monotonic()
        self.assertEqual(
            list(self.pieces("a" + "\u0301\u0323" * 40_000 + " film")),
            [tiny.VOCABULARY.index("a"), tiny.VOCABULARY.index("film")],
        )
        self.assertLess(time.monotonic() - start, 5)

    @parameterized.parameters(
        "\u302e\u302f",  # class 224
        "\U0001d16d\u302e",  # classes 226 and 224
        "\U0001d165\u0301\u1b44",  # 216, an accent, 9
        "\u0344\u034f\u302f",  # one that is two accents, one of class 0
    )
    def test_marks_that_stay_are_sorted_in_no_quadratic_time(self, marks):
        vocabulary = ["[UNK]", "a", *(f"##{c}" for c in "".join(marks))]
        tokenizer = wordpiece.Tokenizer(
            ["[PAD]", "[CLS]", "[SEP]", *vocabulary], lowercase=True
        )
        words = run_tflite.WordPiece(
            tokenizer.vocabulary, lowercase=True, unk_id=tokenizer.unk_id
        )
        for text in ("a" + marks, "a" + marks * 20, marks[::-1] * 9 + "a"):
            self.assertEqual(words(text), tokenizer([text]).to_list()[0], text)
        start = time.process_time()
        words("a" + marks * 40_000)  # 4 seconds where it is quadratic
        self.assertLess(time.process_time() - start, 2)

    @parameterized.parameters(True, False)
    def test_controls_are_dropped_before_letters_are_folded(self, lowercase):
        tokenizer = wordpiece.Tokenizer(
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"sσΣ"]
            + [f"##{c}" for c in "sσςΣ"],
            lowercase=lowercase,
        )
        words = run_tflite.WordPiece(
            tokenizer.vocabulary, lowercase=lowercase, unk_id=tokenizer.unk_id
        )
        texts = [
            f"{before}{control}Σ{control}{after}"
            for before in ("s", "", " ")
            for after in ("s", "", " ", ".")
            for control in ("\x11", "\0", "\x7f", "\u200b", "\xad", "\ufffd")
        ]
        for text, ids in zip(texts, tokenizer(texts).to_list(), strict=True):
            self.assertEqual(words(text), ids, repr(text))

    def pieces(self, text):
        return run_tflite.WordPiece(tiny.VOCABULARY, lowercase=True, unk_id=1)(
            text
        )


class MainTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.predictors, cls.paths = {}, {}
        for task in ("classification", "pair", "tagging", "masked_lm", "multi"):
            predictor = sharp.make("pair" if task == "multi" else task)
            if task == "multi":
                settings = dataclasses.replace(
                    predictor.task, problem_type="multi_label", pair=False
                )
                model = model_lib.BertModel(predictor.model.encoder, settings)
                sharp.spread(model.head, 3)
                predictor = predictor_lib.Predictor(model, predictor.tokenizer)
            cls.predictors[task] = predictor
            cls.paths[task] = tflite.export(
                cls.predictors[task],
                os.path.join(folder.name, task),
                seq_length=24,
            )

    def run_main(self, task, lines, *arguments):
        return subprocess.run(
            [sys.executable, "-c", ALONE, run_tflite.__file__]
            + [f"--model={self.paths[task]}", *arguments],
            input=lines,
            capture_output=True,
            text=True,
        )

    def run_bytes(self, task, content, **environment):
        done = subprocess.run(
            [sys.executable, run_tflite.__file__]
            + [f"--model={self.paths[task]}"],
            input=content,
            capture_output=True,
            env={**os.environ, **environment},
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        return answers, done.stderr.decode()

    def fail_main(self, path):
        done = subprocess.run(
            [sys.executable, run_tflite.__file__, f"--model={path}"],
            input="a film\n",
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEmpty(done.stdout)
        errors = [
            line
            for line in done.stderr.splitlines()
            if not line.startswith("INFO")
        ]
        self.assertLen(errors, 1, done.stderr)
        self.assertStartsWith(errors[0], "error: ")
        return errors[0]

    @parameterized.parameters(
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "utf-16"},
        {},
    )
    def test_text_is_utf8_in_any_locale(self, **environment):
        texts = ["a very good film", "很 好", "坏 电影 é"]
        lines = "".join(f"{text}\n" for text in texts).encode()
        answers, said = self.run_bytes("classification", lines, **environment)
        expected = self.predictors["classification"].predict(texts)
        self.assertIn("好", {each["label"] for each in expected})
        self.assertEqual(
            [each["label"] for each in answers],
            [each["label"] for each in expected],
        )
        self.assertNotIn("UTF-8", said)

    def test_lines_that_are_not_utf8_are_answered_and_counted(self):
        lines = b"a \xff film\n\xe5\xbd dull\nfilm\n\xed\xa0\x80good\n\x00bad"
        answers, said = self.run_bytes("tagging", lines)
        self.assertEqual(
            [each["pieces"][1:-1] for each in answers],
            [["a", "film"], ["dull"], ["film"], ["good"], ["bad"]],
        )
        self.assertIn("Invalid UTF-8 bytes were dropped from 3 lines.", said)

    def test_no_text_is_no_answer(self):
        self.assertEqual(self.run_bytes("classification", b"")[0], [])

    def test_an_answer_tells_of_a_text_that_was_truncated(self):
        answers, _ = self.run_bytes("tagging", b"film\n" + b"a " * 23 + b"\n")
        self.assertEqual([a["truncated"] for a in answers], [False, True])

    def test_a_reader_that_leaves_ends_it_quietly(self):
        process = subprocess.Popen(
            [sys.executable, run_tflite.__file__]
            + [f"--model={self.paths['tagging']}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        process.stdin.write(b"a film\n")
        process.stdin.flush()
        self.assertIn(b'"tag"', process.stdout.readline())
        process.stdout.close()
        _, said = process.communicate(b"a film\n" * 100)
        self.assertNotIn(b"Error", said)
        self.assertNotIn(b"Traceback", said)
        self.assertEqual(process.returncode, 0)

    def test_a_model_that_cannot_be_read_is_one_line(self):
        folder = self.create_tempdir().full_path
        path = os.path.join(folder, "model_float32.tflite")
        self.assertIn("No such file", self.fail_main(path))
        source = os.path.dirname(self.paths["classification"])
        for name in os.listdir(source):
            shutil.copy(os.path.join(source, name), folder)
        with open(path, "wb") as file:
            file.write(b"no model at all")
        self.assertIn("not a valid", self.fail_main(path))
        for content, expected in (
            ("[]", "indices"),
            ("{", "Expecting"),
            ("{}", "has no 'vocabulary'"),
            ("[" * 100_000, "recursion"),
        ):
            with open(path.replace(".tflite", ".json"), "w") as file:
                file.write(content)
            self.assertIn(expected, self.fail_main(path))

    @parameterized.parameters(
        {"signatures": []}, {"inputs": 3}, {"inputs": ["a"]}, {"classes": "2"},
        {"cls_id": "2"}, {"vocabulary": 3}, {"vocabulary": {}},
    )  # fmt: skip
    def test_metadata_of_another_type_is_one_line(self, **changes):
        path = self.copy(**changes)
        with self.assertRaisesRegex(SystemExit, "^error: .* or its .json: "):
            with mock.patch.object(sys, "argv", ["", f"--model={path}"]):
                run_tflite.main()

    def copy(self, **changes):
        """The path of a copied model whose .json says other things."""
        folder = self.create_tempdir().full_path
        source = self.paths["classification"]
        for name in os.listdir(os.path.dirname(source)):
            shutil.copy(os.path.join(os.path.dirname(source), name), folder)
        path = os.path.join(folder, os.path.basename(source))
        with open(path.replace(".tflite", ".json")) as file:
            metadata = json.load(file)
        with open(path.replace(".tflite", ".json"), "w") as file:
            json.dump(metadata | changes, file)
        return path

    @parameterized.parameters(
        *("../../../etc/passwd", "/etc/passwd", "..", "", "a/vocab.txt"),
        *("..\\vocab.txt", "C:vocab.txt", "vocab.txt\0", 0, None),
        (["vocab.txt"],),
    )
    def test_a_file_that_is_not_beside_the_model_is_not_opened(self, name):
        for key in ("vocabulary", "labels"):
            with self.assertRaisesRegex(
                ValueError, "a file name without a folder"
            ):
                run_tflite.Model(self.copy(**{key: name}), 1)

    def test_a_vocabulary_of_another_model_is_refused(self):
        path = self.copy()
        words = os.path.join(os.path.dirname(path), "vocab.txt")
        with open(words) as file:
            pieces = file.read()
        for content, message in (
            (pieces + "more\n", f"found {len(tiny.VOCABULARY) + 1}"),
            (pieces.rstrip("\n"), f"found {len(tiny.VOCABULARY) - 1}"),
            (pieces.replace("[CLS]", "cls"), r"expected \[CLS\] as wordpiece"),
            (pieces.replace("\n", "\r\n"), r"found '\[PAD\]\\r'"),
        ):
            with open(words, "w", newline="") as file:
                file.write(content)
            with self.assertRaisesRegex(ValueError, message):
                run_tflite.Model(path, 1)

    def test_utf16_is_refused(self):
        for order in ("utf-16-le", "utf-16-be"):
            text = io.BytesIO("\ufeffa film\n".encode(order))
            with self.assertRaisesRegex(SystemExit, "iconv -f UTF-16"):
                list(run_tflite.read(io.TextIOWrapper(text)))

    def test_a_full_disk_is_one_line(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("/dev/full is not here")
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, run_tflite.__file__]
                + [f"--model={self.paths['tagging']}"],
                input=b"a film\n",
                stdout=full,
                stderr=subprocess.PIPE,
            )
        said = done.stderr.decode()
        self.assertEqual(done.returncode, 1, said)
        self.assertIn("error: answers cannot be written: No space", said)
        self.assertNotIn("Traceback", said)
        self.assertNotIn("Exception", said)

    def test_labels_of_another_model_are_refused(self):
        folder = self.create_tempdir().full_path
        source = self.paths["classification"]
        for name in os.listdir(os.path.dirname(source)):
            shutil.copy(os.path.join(os.path.dirname(source), name), folder)
        with open(os.path.join(folder, "labels.txt"), "w") as file:
            file.write("bad\n")
        error = self.fail_main(os.path.join(folder, os.path.basename(source)))
        self.assertIn("expected 3 labels in labels.txt, found 1", error)

    @parameterized.parameters("classification", "pair")
    def test_answers_are_the_predictors(self, task):
        texts = [
            ("a very good film", "很好"),
            ("", "dull"),
            ("坏 电影 " * 20, "the plot is old " * 9),
        ]
        rows = [
            dict(
                zip(self.predictors[task].task.text_columns, each, strict=False)
            )
            for each in texts
        ]
        lines = "".join("\t".join(row.values()) + "\n" for row in rows)
        done = self.run_main(task, lines, "--runs=3")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, "3 runs, 2 threads: 50 %: .* ms")
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        # The long one is cut at the file's length, as by a shorter model.
        for answer, expected in zip(
            answers[:2], self.predictors[task].predict(rows[:2]), strict=False
        ):
            self.assertEqual(answer["label"], expected["label"])
            self.assertAlmostEqual(
                answer["score"], expected["score"], delta=1e-5
            )
        self.assertLen(answers, 3)

    def test_of_several_classes_all_above_a_half_are_given(self):
        texts = ["a very good film", "dull", "很 好", "not bad !", ""]
        done = self.run_main("multi", "".join(f"{text}\n" for text in texts))
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        expected = self.predictors["multi"].predict(texts)
        self.assertGreater(len({a["label"].count(",") for a in expected}), 1)
        for answer, each in zip(answers, expected, strict=True):
            self.assertEqual(answer["label"], each["label"])
            self.assertAlmostEqual(answer["score"], each["score"], delta=1e-5)

    def test_a_mask_is_filled(self):
        text = "a [MASK] film is [MASK] ."
        done = self.run_main("masked_lm", f"{text}\n")
        answer = json.loads(done.stdout)
        (expected,) = self.predictors["masked_lm"].predict([text])
        vocabulary = self.predictors["masked_lm"].tokenizer.vocabulary
        self.assertEqual(answer["pieces"].count("[MASK]"), 2)
        self.assertEqual(
            [vocabulary[number] for number in answer["token_id"][:2]],
            expected["token"][:2],
        )

    def test_numbers_stand_beside_their_pieces(self):
        done = self.run_main("tagging", "a very good film\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        answer = json.loads(done.stdout)
        self.assertEqual(
            answer["pieces"],
            ["[CLS]", "a", "very", "good", "film", "[SEP]"],
        )
        self.assertLen(answer["tag"], 24)

    def test_a_line_with_too_few_texts(self):
        done = self.run_main("pair", "alone\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn("line 1: expected 2 texts", done.stderr)

    def test_rows_are_those_of_the_task(self):
        predictor = self.predictors["pair"]
        model = run_tflite.Model(self.paths["pair"], 1)
        texts = ("good " * 30, "dull " * 40)
        inputs = model.inputs(texts)
        expected = predictor.task.__class__(
            **{**predictor.task.get_config(), "seq_length": 24}
        ).preprocess(
            {
                name: tf.constant([text])
                for name, text in zip(
                    predictor.task.text_columns, texts, strict=True
                )
            },
            predictor.tokenizer,
        )
        for name, value in inputs.items():
            np.testing.assert_array_equal(value, expected[name], name)


if __name__ == "__main__":
    absltest.main()
