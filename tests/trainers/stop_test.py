"""Runs that are killed or asked to stop, and started again.

`python -m tests.trainers.stop_test --kills=25` kills as often as you like.
"""

import functools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from absl import flags
from absl.testing import absltest, parameterized
from tensorboard.backend.event_processing import event_accumulator

from bert_keras import checkpoint
from bert_keras.training import meter
from tests import tiny
from tests.trainers import replicas_test

KILLS = flags.DEFINE_integer("kills", 4, "Kills, over four kinds of runs.")

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
STEPS = 120
# Two logical CPUs, so that --strategy=mirrored has two replicas.
START = """
import runpy, sys
from tests import devices
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
COMMANDS = tuple(
    (module, strategy)
    for module in ("pretrain", "finetune")
    for strategy in ("one_device", "mirrored")
)


def start(module, **flags):
    return subprocess.Popen(
        [sys.executable, "-c", START, f"trainers.{module}"]
        + [f"--{name}={value}" for name, value in flags.items()],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def log(run):
    """Its lines, without those that tell the time."""
    try:
        with open(os.path.join(run, "log.jsonl")) as file:
            lines = file.read().split("\n")[:-1]
    except FileNotFoundError:
        return []
    lines = [json.loads(line) for line in lines]
    for line in lines:
        for name in meter.TIMES:
            line.pop(name, None)
    return lines


def board(run):
    """[(step, loss)] as TensorBoard shows them."""
    events = event_accumulator.EventAccumulator(
        os.path.join(run, "tensorboard"),
        size_guidance={event_accumulator.TENSORS: 0},
    )
    events.Reload()
    return [event.step for event in events.Tensors("loss")]


@pytest.mark.slow
class StopTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.mkdtemp()
        path = cls.path = functools.partial(os.path.join, cls.folder)
        tiny.tokenizer().save_vocabulary(path("vocab.txt"))
        with open(path("corpus.txt"), "w") as file:
            for number in range(60):
                words = tiny.WORDS[number % 9 :]
                file.write(f"a {' '.join(words)} .\n\nthe film !\n" * 2)
        with open(path("train.tsv"), "w") as file:
            file.write("text\tlabel\n")
            for number in range(8 * STEPS // 4):
                words = " ".join(tiny.WORDS[number % 7 : number % 19 + 8])
                file.write(f"{words}\t{('bad', 'good')[number % 2]}\n")
        with open(path("model.json"), "w") as file:
            json.dump(tiny.bert().to_dict(), file)
        cls.run_whole(
            "prepare",
            input=path("corpus.txt"),
            output=path("records"),
            vocab=path("vocab.txt"),
            seq_length=32,
            dev_fraction=0.1,
        )
        shared = {"batch_size": 8, "log_every": 3, "save_every": 10}
        cls.flags = {
            "pretrain": {
                "records": path("records"),
                "model": path("model.json"),
                "steps": STEPS,
                "evaluate_every": 25,
                **shared,
            },
            "finetune": {
                "init": path("whole-pretrain-one_device"),
                "train": path("train.tsv"),
                "dev": path("train.tsv"),
                "epochs": 4,
                "seq_length": 16,
                **shared,
            },
        }
        for module, strategy in COMMANDS:
            cls.run_whole(
                module,
                strategy=strategy,
                output=path(f"whole-{module}-{strategy}"),
                **cls.flags[module],
            )

    @classmethod
    def run_whole(cls, module, **flags):
        run = start(module, **flags)
        _, error = run.communicate()
        if run.returncode:
            raise AssertionError(error)

    def stopped(self, sign, after, module, more=0.0, **flags):
        """Starts a run, signals it once it logged `after` more lines."""
        aim = len(log(flags["output"])) + after
        process = start(module, **flags)
        began = time.monotonic()
        while len(log(flags["output"])) < aim and process.poll() is None:
            self.assertLess(time.monotonic(), began + 120)
            os.sched_yield()
        moment = time.monotonic() + more
        while time.monotonic() < moment and process.poll() is None:
            os.sched_yield()
        process.send_signal(sign)
        _, error = process.communicate()
        return process.returncode, error

    def assert_like_whole(self, run, whole):
        self.assertEqual(log(run), log(whole))
        steps = [line["step"] for line in log(run) if "loss" in line]
        self.assertEqual(board(run), steps)
        one, two = (
            checkpoint.read(checkpoint.step_folder(folder, STEPS)).metadata
            for folder in (run, whole)
        )
        self.assertEqual(one, two)

    @parameterized.parameters(*enumerate(COMMANDS))
    def test_killed_at_any_moment_it_ends_bit_equal(self, number, command):
        module, strategy = command
        moment = random.Random(number)
        run = self.path(f"killed-{module}-{strategy}")
        flags = self.flags[module] | {"output": run, "strategy": strategy}
        for kill in range(number, KILLS.value, len(COMMANDS)):
            # In training and saving, and in starting: imports, records.
            lines = moment.randint(0, 7)
            more = moment.uniform(0, 0.1 if lines else 12)
            code, _ = self.stopped(signal.SIGKILL, lines, module, more, **flags)
            steps = checkpoint.steps(run)
            print(
                f"kill {kill}: {module} {strategy}, exit code {code}, "
                f"{len(log(run))} lines, checkpoints {steps}",
                flush=True,
            )
        self.run_whole(module, **flags)
        self.assert_like_whole(run, self.path(f"whole-{module}-{strategy}"))

    def test_asked_to_stop_it_saves_and_ends_bit_equal(self):
        run = self.path("asked")
        flags = self.flags["pretrain"] | {
            "output": run,
            "strategy": "one_device",
        }
        code, error = self.stopped(signal.SIGTERM, 7, "pretrain", **flags)
        self.assertEqual(code, 75, error)
        self.assertIn("asked to stop", error)
        self.assertLess(checkpoint.steps(run)[-1], STEPS)
        self.run_whole("pretrain", **flags)
        self.assert_like_whole(run, self.path("whole-pretrain-one_device"))

    def workers(self, run):
        values = self.flags["pretrain"] | {
            "output": run,
            "strategy": "multi_worker_mirrored",
        }
        return replicas_test.start_workers(
            ["trainers.pretrain"]
            + [f"--{name}={value}" for name, value in values.items()]
        )

    def ended(self, workers, code=0):
        errors = [worker.communicate()[1] for worker in workers]
        self.assertEqual([w.returncode for w in workers], [code] * 2, errors)
        return errors

    def test_one_of_two_processes_is_asked_to_stop(self):
        whole, run = self.path("whole-workers"), self.path("asked-workers")
        self.ended(self.workers(whole))
        workers = self.workers(run)
        while len(log(run)) < 7:
            self.assertIsNone(workers[0].poll())
            os.sched_yield()
        workers[1].send_signal(signal.SIGTERM)
        errors = self.ended(workers, code=75)
        self.assertIn("asked to stop", errors[0])  # worker 0 speaks
        last = checkpoint.steps(run)[-1]
        print("both stopped at step", last)
        self.assertLess(last, STEPS)
        self.ended(self.workers(run))
        self.assert_like_whole(run, whole)

    def test_one_of_two_processes_is_killed(self):
        run = self.path("killed-workers")
        workers = self.workers(run)
        while not checkpoint.steps(run):
            self.assertIsNone(workers[0].poll())
            os.sched_yield()
        workers[1].kill()
        _, error = workers[0].communicate()
        workers[1].communicate()
        self.assertEqual(workers[0].returncode, 1)
        self.assertRegex(
            error.splitlines()[-1], "^error: another worker has stopped"
        )


if __name__ == "__main__":
    absltest.main()
