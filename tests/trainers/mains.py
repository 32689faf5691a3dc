"""Mains called as a user calls them, many in one process of their own."""

import functools
import json
import os
import subprocess
import sys
import tempfile

from absl.testing import parameterized

from tests import tiny

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")

# Runs several mains one after the other in one process, for TensorFlow takes
# seconds to import: each line of standard input is a JSON list of arguments.
RUNNER = """
import contextlib, io, json, runpy, sys, traceback
import keras
from absl import app, flags

from tests import devices

app.define_help_flags()
kept = set(flags.FLAGS)
for line in sys.stdin:
    sys.argv = json.loads(line)
    out, said, code = io.StringIO(), io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            runpy.run_module(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code or 0
    except Exception:
        code = traceback.format_exc()
    for name in set(flags.FLAGS) - kept:
        delattr(flags.FLAGS, name)
    keras.config.set_dtype_policy("float32")
    error = code if isinstance(code, str) else ""
    answer = [int(bool(code)), out.getvalue(), error, said.getvalue()]
    print(json.dumps(answer), flush=True)
"""


@functools.cache
def runner():
    return subprocess.Popen(
        [sys.executable, "-c", RUNNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        text=True,
    )


def close():
    """For tearDownModule."""
    if runner.cache_info().currsize:
        runner().stdin.close()
        runner().wait()
        runner().stdout.close()
        runner.cache_clear()


def call(module, **flags):
    """(exit code, standard output, the error line)."""
    return call_and_listen(module, **flags)[:3]


def call_and_listen(module, **flags):
    """The same, and what was said on standard error meanwhile."""
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    runner().stdin.write(json.dumps([module, *arguments]) + "\n")
    runner().stdin.flush()
    return tuple(json.loads(runner().stdout.readline()))


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


SENTENCES = (
    "the film is good .",
    "a dull old story !",
    "很 好 电影",
    "not bad ?",
)
CORPUS = "".join(
    "\n".join((*SENTENCES * 3, f"story {number} .")) + "\n\n"
    for number in range(30)
)
ROWS = "".join(
    f"{text}\t{label}\n"
    for text, label in (
        ("a good film", "good"),
        ("a bad film", "bad"),
        ("fine story", "good"),
        ("dull plot", "bad"),
    )
    * 4
)


class Case(parameterized.TestCase):
    """A tiny model prepared, pretrained and fine-tuned, once for a class."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.mkdtemp()
        cls.path = functools.partial(os.path.join, cls.folder)
        cls.vocab = write(cls.path("vocab.txt"), "\n".join(tiny.VOCABULARY))
        cls.corpus = write(cls.path("corpus.txt"), CORPUS)
        cls.rows = write(cls.path("rows.tsv"), "text\tlabel\n" + ROWS)
        cls.model = write(
            cls.path("model.json"), json.dumps(tiny.bert().to_dict())
        )
        cls.records = cls.path("records")
        cls.base = cls.path("base")
        cls.tuned = cls.path("tuned")
        cls.printed = {}
        for name, arguments in (
            (
                "prepare",
                {
                    "input": cls.corpus,
                    "output": cls.records,
                    "vocab": cls.vocab,
                    "seq_length": 32,
                    "dev_fraction": 0.1,
                },
            ),
            ("pretrain", cls.pretrain_flags()),
            ("finetune", cls.finetune_flags()),
        ):
            code, out, error = call(f"trainers.{name}", **arguments)
            if code:
                raise AssertionError(f"{name}: {error}")
            cls.printed[name] = out

    @classmethod
    def pretrain_flags(cls, **changes):
        return {
            "records": cls.records,
            "output": cls.base,
            "model": cls.model,
            "steps": 4,
            "batch_size": 8,
            "log_every": 1,
        } | changes

    @classmethod
    def finetune_flags(cls, **changes):
        return {
            "init": cls.base,
            "train": cls.rows,
            "dev": cls.rows,
            "output": cls.tuned,
            "epochs": 2,
            "batch_size": 8,
            "seq_length": 16,
            "log_every": 1,
        } | changes

    def log(self, run):
        with open(os.path.join(run, "log.jsonl")) as file:
            return [json.loads(line) for line in file]
