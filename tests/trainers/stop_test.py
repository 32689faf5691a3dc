"""Runs that are killed or asked to stop, and started again."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from absl.testing import absltest

from bert_keras import checkpoint
from tests import tiny

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
STEPS = 120


def start(module, **flags):
    return subprocess.Popen(
        [sys.executable, "-m", module]
        + [f"--{name}={value}" for name, value in flags.items()],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def log(run):
    try:
        with open(os.path.join(run, "log.jsonl")) as file:
            lines = file.read().split("\n")[:-1]
    except FileNotFoundError:
        return []
    lines = [json.loads(line) for line in lines]
    for line in lines:
        line.pop("tokens_per_second", None)
    return lines


@pytest.mark.slow
class StopTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.mkdtemp()
        vocabulary = os.path.join(cls.folder, "vocab.txt")
        tiny.tokenizer().save(vocabulary)
        corpus = os.path.join(cls.folder, "corpus.txt")
        with open(corpus, "w") as file:
            for number in range(60):
                words = tiny.WORDS[number % 9 :]
                file.write(f"a {' '.join(words)} .\n\nthe film !\n" * 2)
        model = os.path.join(cls.folder, "model.json")
        with open(model, "w") as file:
            json.dump(tiny.bert().to_dict(), file)
        records = os.path.join(cls.folder, "records")
        prepare = start(
            "trainers.prepare",
            input=corpus,
            output=records,
            vocab=vocabulary,
            seq_length=32,
            held_out=0.1,
        )
        _, error = prepare.communicate()
        if prepare.returncode:
            raise AssertionError(error)
        cls.flags = {
            "records": records,
            "model": model,
            "steps": STEPS,
            "batch_size": 8,
            "log_every": 1,
            "save_every": 10,
            "evaluate_every": 25,
        }
        cls.whole = os.path.join(cls.folder, "whole")
        run = start("trainers.pretrain", output=cls.whole, **cls.flags)
        _, error = run.communicate()
        if run.returncode:
            raise AssertionError(error)

    def stopped(self, run, sign, after):
        """Starts the run, signals it once it logged `after` more lines."""
        aim = len(log(run)) + after
        process = start("trainers.pretrain", output=run, **self.flags)
        deadline = time.monotonic() + 120
        while len(log(run)) < aim and process.poll() is None:
            self.assertLess(time.monotonic(), deadline)
            os.sched_yield()
        process.send_signal(sign)
        _, error = process.communicate()
        return process.returncode, error

    def assert_like_whole(self, run):
        process = start("trainers.pretrain", output=run, **self.flags)
        _, error = process.communicate()
        self.assertEqual(process.returncode, 0, error)
        self.assertEqual(log(run), log(self.whole))
        one, two = (
            checkpoint.read(checkpoint.step_folder(folder, STEPS)).facts
            for folder in (run, self.whole)
        )
        self.assertEqual(one, two)

    def test_killed_at_any_moment_it_ends_bit_equal(self):
        moment = random.Random(3)
        run = os.path.join(self.folder, "killed")
        for _ in range(3):
            code, _ = self.stopped(run, signal.SIGKILL, moment.randint(5, 40))
            self.assertEqual(code, -signal.SIGKILL)
        self.assert_like_whole(run)

    def test_asked_to_stop_it_saves_and_ends_bit_equal(self):
        run = os.path.join(self.folder, "asked")
        code, error = self.stopped(run, signal.SIGTERM, 13)
        self.assertEqual(code, 0, error)
        self.assertIn("asked to stop", error)
        self.assertEqual(
            checkpoint.steps(run)[-1],
            len([line for line in log(run) if "loss" in line]),
        )
        self.assert_like_whole(run)


if __name__ == "__main__":
    absltest.main()
