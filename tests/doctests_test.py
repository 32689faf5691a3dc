"""The examples of public docstrings are true, on tiny data.

Each docstring runs in a folder of its own, with the files that it names.
"""

import contextlib
import doctest
import inspect
import os
import random
import shutil
import sys
import tempfile

import keras
import numpy as np
from absl.testing import absltest

import bert_keras
from bert_keras import checkpoint
from tests import tiny

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def _rows(count, seed):
    """Rows whose label a tiny model learns in a moment."""
    draw = random.Random(seed)
    words = {"positive": ("good", "fine"), "negative": ("bad", "dull")}
    for number in range(count):
        label = ("positive", "negative")[number % 2]
        noun = draw.choice(("film", "story", "plot", "actor", "one"))
        yield f"a {draw.choice(words[label])} {noun}\t{label}\n"


def _write_files(folder):
    files = {
        "vocab.txt": "\n".join(tiny.VOCABULARY),
        "train.tsv": "text\tlabel\n" + "".join(_rows(64, seed=1)),
        "dev.tsv": "text\tlabel\n" + "".join(_rows(10, seed=2)),
        "corpus.txt": "\n".join(
            "".join(row.replace("\t", " is ") for row in _rows(6, seed))
            for seed in range(20)
        ),
    }
    for name, text in files.items():
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)


def _make_runs():
    """Makes the two runs that examples start from: `base` and `sst2`."""
    # Larger weights than BERT's, as so small a network hardly learns with them.
    config = tiny.bert(
        dropout=0.0,
        attention_dropout=0.0,
        initializer_range=0.2,
        max_position_embeddings=128,
    )
    task = bert_keras.tasks.MaskedLM().adapt([], tiny.tokenizer())
    keras.utils.set_random_seed(1)
    base = bert_keras.BertModel(config, task)
    bert_keras.Predictor(base, tiny.tokenizer()).save("runs/base")
    bert_keras.finetune(
        "runs/base",
        "train.tsv",
        "dev.tsv",
        task="classification",
        output="runs/sst2",
        epochs=10,
        batch_size=8,
        learning_rate=1e-2,
        seq_length=16,
    )
    bert_keras.prepare(
        "corpus.txt", output="records", vocab="vocab.txt", seq_length=32
    )


def _documented():
    """The public objects: {dotted name: object}."""
    found = {"bert_keras": bert_keras}
    for name in bert_keras.__all__:
        value = getattr(bert_keras, name)
        found[f"bert_keras.{name}"] = value
        if not inspect.isclass(value):
            continue
        for member, function in vars(value).items():
            if not member.startswith("_") and inspect.isfunction(function):
                found[f"bert_keras.{name}.{member}"] = function
    return found


@contextlib.contextmanager
def _inside(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class DoctestsTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = os.path.join(temporary.name, "files")
        os.makedirs(cls.folder)
        _write_files(cls.folder)
        with _inside(cls.folder):
            _make_runs()
        cls.examples = {
            name: doctest.DocTestParser().get_doctest(
                inspect.getdoc(value), {}, name, inspect.getsourcefile(value), 0
            )
            for name, value in _documented().items()
            if ">>>" in (inspect.getdoc(value) or "")
            and not isinstance(value, str)
        }

    def test_every_example_prints_what_it_says(self):
        for name, example in self.examples.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                own = os.path.join(folder, "files")
                shutil.copytree(self.folder, own)
                example.globs = {"bert_keras": bert_keras, "np": np}
                output = []
                with _inside(own):
                    failed, tried = doctest.DocTestRunner(
                        optionflags=OPTIONS, verbose=False
                    ).run(example, out=output.append, clear_globs=False)
                self.assertGreater(tried, 0)
                self.assertEqual(failed, 0, "".join(output))

    def test_the_main_names_have_an_example(self):
        wanted = {
            *("Predictor", "load", "prepare", "pretrain", "finetune"),
            *("evaluate", "to_dataset", "Tokenizer", "BertConfig"),
            *("BertEncoder", "BertModel", "Task", "checkpoint", "formats"),
            *("tasks", "Predictor.evaluate", "Predictor.save"),
        }
        names = {name.removeprefix("bert_keras.") for name in self.examples}
        self.assertEmpty(wanted - names)

    def test_what_they_show_of_a_run_is_there(self):
        """Otherwise a passing example could be of nothing."""
        run = checkpoint.read(os.path.join(self.folder, "runs/sst2"))
        self.assertEqual(run.metadata["scores"]["accuracy"], 1.0)


if __name__ == "__main__":
    if sys.argv[1:] == ["--count"]:
        DoctestsTest.setUpClass()
        counts = {
            name: len(example.examples)
            for name, example in DoctestsTest.examples.items()
        }
        print(f"{len(counts)} docstrings, {sum(counts.values())} examples")
        sys.exit()
    absltest.main()
