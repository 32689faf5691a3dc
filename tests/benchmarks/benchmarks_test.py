"""Benchmarks on tiny models, each in a process of its own.

Their flags have the same names, so one process cannot import several.
"""

import json
import os
import subprocess
import sys

import pytest
from absl.testing import absltest, parameterized

from bert_keras import checkpoint
from tests import sharp, tiny

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")

READ_FROM_AN_EXITED_SIDE = """
import subprocess, sys
from benchmarks import latency
side = subprocess.Popen(
    [sys.executable, "-c", "raise SystemExit(3)"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
side.wait()
latency.run_turn(side, "ONNX Runtime")
"""

CHECK_A_PAIR = """
from absl import flags
from benchmarks import serving_throughput
from bert_keras.tasks import classification
flags.FLAGS(["", "--checkpoint=runs/mnli"])
serving_throughput.check_task(classification.Classification(pair=True))
"""

SPLIT_EXAMPLES = """
import json
from absl import flags
from benchmarks import tflite_parity
flags.FLAGS(["", "--data=dev.tsv", "--examples=2", "--checkpoint=run"])
print(json.dumps([
    tflite_parity.split_examples(list(range(n))) for n in (1, 2, 3)]))
"""

DETECT_UNANSWERABLE = """
import json
import numpy as np
from absl import flags
from benchmarks import unanswerable
from tests import sharp
flags.FLAGS(["", "--checkpoint=run", "--data=dev.json"])
start = np.array([[9.0, 1, 5, 2], [9, 1, 2, 5], [9, 5, 5, 1]])
end = np.array([[9.0, 5, 2, 9], [9, 1, 2, 5], [9, 1, 2, 3]])
context = np.array([[False, True, True, False]] + 2 * [[False] + 3 * [True]])
labels = np.array([True, True, False, False])
model = sharp.make("question_answering")
rows = [
    {"question": "is the film good ?", "context": "the old film is dull . " * n}
    for n in (1, 3, 9)]
print(json.dumps([
    unanswerable.crossed(start, end, context).tolist(),
    unanswerable.auc(np.array([3.0, 1, 2, 1]), labels),
    unanswerable.detection(np.array([True, False, True, False]), labels),
    unanswerable.scores(model, rows, 2)[1].tolist(),
    [each["no_answer_score"] for each in model.predict(rows)]]))
"""


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )


class BenchmarksTest(parameterized.TestCase):
    def assert_refused(self, done, *parts):
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        for part in parts:
            self.assertIn(part, done.stderr)

    def test_latency_of_tflite_refuses_larger_batches(self):
        self.assert_refused(
            run(
                *("-m", "benchmarks.latency", "--group=tflite"),
                "--batch_size=2",
            ),
            "--batch_size=2: expected 1",
        )

    def test_latency_names_the_side_that_exited(self):
        self.assert_refused(
            run("-c", READ_FROM_AN_EXITED_SIDE), "'ONNX Runtime'", "status 3"
        )

    def test_serving_throughput_needs_a_checkpoint_and_texts(self):
        self.assert_refused(
            run("-m", "benchmarks.serving_throughput"),
            "--checkpoint and --texts",
        )

    def test_serving_throughput_needs_a_task_of_one_text(self):
        self.assert_refused(
            run("-c", CHECK_A_PAIR), "runs/mnli", "a task that reads one text"
        )

    def test_tflite_parity_says_if_int8_is_compared_on_its_calibration(self):
        done = run("-c", SPLIT_EXAMPLES)
        self.assertEqual(done.returncode, 0, done.stderr)
        one, two, three = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(one[:2], [[0], [0]])
        self.assertEqual(two[:2], [[0, 1], [0, 1]])
        self.assertEqual(three, [[0, 1], [2], ""])
        self.assertIn("dev.tsv has only 2", two[2])

    @pytest.mark.slow
    def test_unanswerable_measures_crossings_and_the_margins_of_predict(self):
        done = run("-c", DETECT_UNANSWERABLE)
        self.assertEqual(done.returncode, 0, done.stderr)
        crossed, auc, detection, margins, expected = json.loads(
            done.stdout.splitlines()[-1]
        )
        # [CLS], the largest, and tokens outside the context do not count.
        self.assertEqual(crossed, [True, False, False])
        # Of 4 pairs (3 > 2, 3 > 1, 1 < 2, 1 = 1) two and a half are in order.
        self.assertEqual(auc, 0.625)
        self.assertEqual(detection, [0.5, 0.5])
        for margin, score in zip(margins, expected, strict=True):
            self.assertAlmostEqual(margin, score, places=4)


@pytest.mark.slow
class TinyModelsTest(parameterized.TestCase):
    """Each main runs from its flags to its table."""

    def checkpoint(self, predictor):
        path = os.path.join(self.create_tempdir().full_path, "run")
        checkpoint.save(path, predictor.model, tiny.tokenizer(), step=1)
        return f"--checkpoint={path}"

    def write(self, name, lines):
        path = os.path.join(self.create_tempdir().full_path, name)
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        return path

    def run_main(self, name, *flags):
        done = run("-m", f"benchmarks.{name}", *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return " ".join(done.stdout.split())  # cells and captions wrap

    def test_unanswerable_compares_two_detectors(self):
        answers = [{"text": "old", "answer_start": 4}]
        questions = [
            {
                "id": str(number),
                "question": "is the film good ?",
                "is_impossible": not each,
                "answers": each,
            }
            for number, each in enumerate((answers, []))
        ]
        paragraph = {"context": "the old film is dull .", "qas": questions}
        data = {"data": [{"title": "t", "paragraphs": [paragraph]}]}
        out = self.run_main(
            "unanswerable",
            self.checkpoint(sharp.make("question_answering")),
            f"--data={self.write('dev.json', [json.dumps(data)])}",
        )
        self.assertIn("2 questions, 50.0% without an answer", out)
        self.assertIn("start behind end", out)

    @parameterized.parameters("serving_parity", "serving_splits")
    def test_served_answers_are_those_of_the_checkpoint(self, name):
        rows = [f"{word}\tso so" for word in tiny.WORDS]
        data = self.write("dev.tsv", ["text\tlabel", *rows])
        flags = [self.checkpoint(sharp.make("classification"))]
        table = self.run_main(name, *flags, f"--data={data}", "--examples=12")
        self.assertIn("12", table)

    def test_pretraining_race_logs_losses_in_time(self):
        words = tiny.WORDS
        lines = [f"the {a} is {b} .\n" for a in words for b in words]
        folder = self.create_tempdir().full_path
        prepared = run(
            *("-m", "trainers.prepare", "--vocab_size=60", "--seq_length=16"),
            *("--dev_fraction=0.2", "--sentence_objective=none"),
            f"--input={self.write('corpus.txt', lines)}",
            f"--output={folder}/records",
        )
        self.assertEqual(prepared.returncode, 0, prepared.stderr)
        out = self.run_main(
            "pretraining_race",
            *(f"--records={folder}/records", f"--output={folder}/race"),
            *("--sides=bert_keras", "--layers=1", "--width=64"),
            *("--minutes=0.4", "--turn_seconds=12", "--evaluate_every=20"),
            *("--dev_batches=2", "--batch_size=8"),
        )
        self.assertIn("bert_keras:", out)
        path = os.path.join(folder, "race", "race.json")
        with open(path, encoding="utf-8") as file:
            losses = json.load(file)["bert_keras"]
        self.assertGreater(losses[0][2], losses[-1][2])
        self.assertBetween(losses[-1][0], losses[0][0], 24)
        self.assertTrue(os.path.exists(os.path.join(folder, "race/race.png")))

    def test_tflite_parity_compares_whatever_the_metric_is(self):
        predictor = sharp.make_classifier(problem_type="regression")
        words = [word for word in tiny.WORDS if word.isalpha()][:9]
        answers = predictor.predict(words)
        rows = [  # the Spearman correlation is negative
            f"{word}\t{-answer['value']}"
            for word, answer in zip(words, answers, strict=True)
        ]
        table = self.run_main(
            "tflite_parity",
            self.checkpoint(predictor),
            f"--data={self.write('dev.tsv', ['text	label', *rows])}",
            *("--examples=9", "--seq_length=16"),
        )
        self.assertIn("-1.0000", table)
        self.assertIn("has only 9", table)

    def test_serving_throughput_times_three_graphs(self):
        table = self.run_main(
            "serving_throughput",
            self.checkpoint(sharp.make("classification")),
            f"--texts={self.write('texts.txt', tiny.WORDS)}",
            "--rounds=1",
        )
        self.assertIn("padded to 32", table)
        self.assertIn("First request after warm-up", table)


if __name__ == "__main__":
    absltest.main()
