"""The code of docs/: the blocks of each page run.

A page runs in a folder of its own, where `minilm` is a tiny model in Hugging
Face's format that knows the pages' words. `bert-keras` is that of this
checkout; the fast tests run its commands in one process.
"""

import functools
import os
import pathlib
import re
import shutil
import socket
import stat
import sys
import tempfile
from unittest import mock

import keras
import numpy as np
import pytest
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import model as model_lib
from bert_keras.formats import hugging_face
from bert_keras.networks import bert
from bert_keras.tokenizers import wordpiece
from tests import markdown
from tests import warm_command as warm_command_lib

ROOT = pathlib.Path(__file__).absolute().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    str(path.relative_to(DOCS))
    for path in DOCS.rglob("*.md")
    # They are the largest ones, and have a test of their own.
    if not path.name.startswith("bert_by_example")
)

# Enough for a model of 2 layers to learn a handful of rows.
LEARN = {
    "--epochs=10": "--epochs=20",
    "--batch_size=4 --learning_rate=1e-4": "--batch_size=2"
    " --learning_rate=1e-2",
}
# Page -> text to replace in its blocks.
REPLACE = {
    "getting_started.md": LEARN | {"--dev_fraction=0.25": "--dev=train.csv"},
    "finetuning/classification.md": LEARN,
}
# The pages that use what another page made: a classifier and its rows.
WITH_CLASSIFIER = ("serving.md", "on_device.md", "formats_and_weights.md")
# Page -> (file of the tests that it shows, where its reader saves it).
SHOWN = {
    "adding_a_task.md": (
        "examples/longer_text.py",
        "my_tasks/longer_text.py",
    ),
    "adding_a_network.md": (
        "examples/mean_network.py",
        "my_networks/mean_network.py",
    ),
    "adding_a_tokenizer.md": (
        "bert_keras/tokenizers/characters.py",
        "my_tokenizers/characters.py",
    ),
    "adding_a_wrapper.md": (
        "examples/length_too.py",
        "my_wrappers/length_too.py",
    ),
    "adding_a_sentence_objective.md": (
        "examples/gap.py",
        "my_objectives/gap.py",
    ),
}
# They take long; the files that the pages of adding_* show have fast tests.
# Of pages about tasks, `make test` runs those of classification and tagging.
LATER = (
    *("asking.md", "generation.md", "inside.md", "recurrent_networks.md"),
    "words_in_context.md",
    *(
        f"finetuning/{name}.md"
        for name in (
            *("embedding", "extractive_summary", "index", "intent_slots"),
            *("multi_label", "multiple_choice", "pairs", "question_answering"),
            *("regression", "sequence_to_sequence"),
        )
    ),
)
# These start processes of their own.
SLOW = (
    "elmo.md",
    *("distributed_training.md", "on_device.md", "formats_and_weights.md"),
    *("adding_a_task.md", "adding_a_network.md", "adding_a_tokenizer.md"),
    *("adding_a_wrapper.md", "adding_a_sentence_objective.md"),
)

ROWS = """\
text,label
a fine film,positive
good story and good actors,positive
a dull film,negative
bad story and bad actors,negative
"""


def text_of(page):
    return (DOCS / page).read_text(encoding="utf-8")


@functools.cache
def everything():
    """The text of all pages."""
    return "\n".join(map(text_of, PAGES))


@functools.cache
def shared_folder():
    """A folder with `minilm`, `bin/bert-keras`, and `runs/films` of ROWS."""
    folder = tempfile.mkdtemp()
    keras.utils.set_random_seed(1)
    letters = sorted({c for c in everything() if c.isprintable() and c != " "})
    words = sorted(set(re.findall("[a-z]{2,12}", everything().lower())))
    tokenizer = wordpiece.Tokenizer(
        list(
            dict.fromkeys(
                [
                    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
                    *(c.lower() for c in letters if len(c.lower()) == 1),
                    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
                    *words,
                ]
            )
        ),
        lowercase=True,
    )
    config = bert.BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        intermediate_size=32,
        initializer_range=0.3,
        dropout=0.0,
        attention_dropout=0.0,
    )
    encoder = config.build_encoder()
    # A vector depends on its word alone: other words in the pages change no
    # answer.
    encoder.embeddings.token_table.assign(
        [
            np.random.default_rng(list(token.encode())).normal(0, 0.3, 16)
            for token in tokenizer.vocabulary
        ]
    )
    os.mkdir(os.path.join(folder, "minilm"))
    hugging_face.write(
        os.path.join(folder, "minilm"),
        model_lib.BertModel(encoder, None),
        tokenizer,
    )
    write_command(os.path.join(folder, "bin"))
    return folder


def write_command(folder):
    """Writes a `bert-keras` that runs this checkout in a process of its own."""
    os.mkdir(folder)
    path = os.path.join(folder, "bert-keras")
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f'#!/bin/sh\nexport PYTHONPATH="{ROOT}:$PYTHONPATH"\n'
            f"exec {sys.executable} -c "
            '"from bert_keras import commands; commands.main()" "$@"\n'
        )
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)


@functools.cache
def warm_command():
    """The folder of a fast `bert-keras`, and its process."""
    folder = tempfile.mkdtemp()
    return folder, warm_command_lib.start(folder, ROOT)


def tearDownModule():
    if warm_command.cache_info().currsize:
        process = warm_command()[1]
        process.kill()
        process.communicate()
        warm_command.cache_clear()  # another file may start its own


@functools.cache
def classifier():
    """The folder of a run that serving and conversion start from."""
    folder = tempfile.mkdtemp()
    rows = os.path.join(folder, "train.csv")
    pathlib.Path(rows).write_text(ROWS, encoding="utf-8")
    bert_keras.finetune(
        os.path.join(shared_folder(), "minilm"),
        rows,
        rows,
        task="classification",
        output=os.path.join(folder, "runs", "films"),
        epochs=2,
        seq_length=64,
    )
    return folder


def prepare(page, folder):
    """Puts into a page's folder what its reader has from other pages."""
    shutil.copytree(
        os.path.join(shared_folder(), "minilm"), os.path.join(folder, "minilm")
    )
    if page in WITH_CLASSIFIER:
        shutil.copytree(classifier(), folder, dirs_exist_ok=True)
    if page == "distributed_training.md":
        pathlib.Path(folder, "train.csv").write_text(ROWS, encoding="utf-8")
    if page in SHOWN:
        source, target = SHOWN[page]
        target = pathlib.Path(folder, target)
        target.parent.mkdir()
        shutil.copy(ROOT / "tests" / source, target)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def has_blocks(page):
    return any(block.is_run for block in markdown.blocks(text_of(page)))


def forget_modules():
    """Forgets the modules that a page's reader wrote."""
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


class BlocksTest(parameterized.TestCase):
    def run_page(self, page, commands):
        """Runs a page with the `bert-keras` in the folder `commands`."""
        folder = self.create_tempdir().full_path
        prepare(page, folder)
        replace = dict(REPLACE.get(page, {}))
        if page == "distributed_training.md":
            ports = free_ports(2)
            replace |= {"localhost:12345": f"localhost:{ports[0]}"}
            replace |= {"localhost:12346": f"localhost:{ports[1]}"}
        path = [
            commands,
            os.path.dirname(sys.executable),
            os.environ["PATH"],
        ]
        self.addCleanup(forget_modules)
        with mock.patch.object(sys, "path", [folder, *sys.path]):
            count = markdown.run(
                str(DOCS / page),
                folder,
                replace=replace,
                environment={"PATH": os.pathsep.join(path)},
            )
        self.assertGreater(count, 0)

    @parameterized.named_parameters(
        (page, page)
        for page in PAGES
        if has_blocks(page) and page not in LATER + SLOW
    )
    def test_blocks_run_and_print_what_is_shown_(self, page):
        self.run_page(page, warm_command()[0])

    @parameterized.named_parameters((page, page) for page in LATER)
    @pytest.mark.slow
    def test_later_blocks_run_and_print_what_is_shown_(self, page):
        self.run_page(page, warm_command()[0])

    @parameterized.named_parameters((page, page) for page in SLOW)
    @pytest.mark.slow
    def test_slow_blocks_run_and_print_what_is_shown_(self, page):
        self.run_page(page, os.path.join(shared_folder(), "bin"))


if __name__ == "__main__":
    absltest.main()
