"""Tasks of users: what is found, imported and refused."""

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
import tempfile
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import (
    checkpoint,
    errors,
    formats,
    loading,
    options,
    predictor,
    registry,
)
from bert_keras import model as model_lib
from bert_keras.networks import bert
from bert_keras.tasks import base, classification
from bert_keras.training import input_pipeline, settings
from tests import tiny

# A task whose import can be seen.
MODULE = """
import dataclasses
import pathlib

import keras

from bert_keras.tasks import classification

pathlib.Path(__file__).with_suffix(".imported").touch()


@keras.saving.register_keras_serializable("users")
@dataclasses.dataclass(frozen=True)
class Mine(classification.Classification):
    pass
"""


def write(folder, name, text):
    path = os.path.join(folder, *name.split(".")) + ".py"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(textwrap.dedent(text))
    return path


def save(folder, task, /, **changes):
    """A checkpoint whose config.json is changed by hand."""
    model = model_lib.BertModel(bert.BertEncoder(tiny.bert()), task)
    step = checkpoint.save(folder, model, tiny.tokenizer(), step=1)
    path = os.path.join(step, checkpoint.CONFIG)
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    del config["checksum"]
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config | changes, file)
    return step


TASK = classification.Classification(seq_length=16, labels=("bad", "good"))


class UsersTaskTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.mkdtemp()
        sys.path.insert(0, cls.folder)
        write(cls.folder, "seen.task", MODULE)
        write(cls.folder, "unseen.task", MODULE)
        write(cls.folder, "several.task", MODULE + "class Other(Mine): pass\n")
        write(cls.folder, "without_dot", MODULE)

    @classmethod
    def tearDownClass(cls):
        sys.path.remove(cls.folder)
        super().tearDownClass()

    def run_folder(self, name):
        return save(
            self.create_tempdir().full_path,
            TASK,
            task=TASK.to_dict() | {"name": name},
        )

    def test_a_head_of_a_task_that_is_not_known_is_said_to_be_left_out(self):
        folder = self.run_folder("unseen.task")
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            source = input_pipeline.read_init(
                settings.FinetuneSettings(), folder
            )
        self.assertIsNone(source.task)
        text = " ".join(said.getvalue().split())
        self.assertIn("its head is left out: its task is in the module", text)

    @parameterized.parameters(
        ("unseen.task", "nor imported here.*import it before loading"),
        ("bert_keras.tasks.base", "defines 0 tasks"),
        ("os.path", "defines 0 tasks"),
        ("classify", "nor imported here"),
        ("", "nor imported here"),
        ("base", "nor imported here"),
        (5, "its task is 5; expected the name of a module"),
        (None, "its task is None; expected the name of a module"),
        (["os"], "expected the name of a module"),
        ("a..b", "nor imported here"),
    )
    def test_what_a_folder_names_is_not_imported(self, name, reason):
        folder = self.run_folder(name)
        for load in (
            predictor.load,
            lambda path: loading.load_model(formats.read(path)),
        ):
            with self.assertRaisesRegex(errors.InputError, reason):
                load(folder)
        self.assertFalse(
            os.path.exists(os.path.join(self.folder, "unseen/task.imported"))
        )
        self.assertNotIn("unseen.task", sys.modules)

    def test_its_encoder_can_still_be_taken(self):
        source = formats.read(self.run_folder("unseen.task"))
        model = loading.load_model(source, TASK)
        self.assertEqual(model(tiny.inputs())["label"].shape, (4, 2))

    def test_a_module_that_the_user_names_is_used(self):
        folder = self.run_folder("seen.task")
        registry.import_modules("seen.task")
        loaded = predictor.load(folder)
        self.assertEqual(type(loaded.task).__name__, "Mine")
        again = self.create_tempdir().full_path
        checkpoint.save(again, loaded.model, loaded.tokenizer, step=2)
        self.assertEqual(predictor.load(again).task, loaded.task)

    @pytest.mark.slow
    def test_on_the_command_line_the_modules_flag_names_it(self):
        folder = self.run_folder("unseen.task")
        for flags, said in (
            ([], "--modules=unseen.task"),
            (["--modules=unseen.task"], ""),
            (["--task=unseen.task"], ""),  # its former name
        ):
            done = subprocess.run(
                [sys.executable, "-m", "trainers.predict", *flags]
                + [f"--checkpoint={folder}"],
                input="a good film\n",
                capture_output=True,
                text=True,
                env=os.environ | {"PYTHONPATH": self.folder},
            )
            self.assertEqual(done.returncode, int(bool(said)), done.stderr)
            self.assertIn(said, done.stderr)
        self.assertIn('"label"', done.stdout)
        os.remove(os.path.join(self.folder, "unseen/task.imported"))

    def test_members_under_their_former_names_are_refused_by_name(self):
        with self.assertRaisesRegex(
            errors.InputError, "Old.*inputs -> preprocess, sums -> metric_sums"
        ):

            class Old(classification.Classification):
                def inputs(self, raw, tokenizer):
                    return {}

                def sums(self, outputs, inputs, targets):
                    return {}

    def test_options_under_their_former_names_have_the_same_bounds(self):
        @dataclasses.dataclass
        class Before:
            count: int = base.knob(None, "Rows.", least=1, most=9, kind=int)

        @dataclasses.dataclass
        class Today:
            count: int = options.option(
                None, "Rows.", minimum=1, maximum=9, value_type=int
            )

        before, today = (
            dict(dataclasses.fields(each)[0].metadata)
            for each in (Before, Today)
        )
        self.assertEqual(before, today)

    def test_the_task_of_the_docstring_works(self):
        _, text = base.Task.__doc__.split("author writes:\n\n")
        text, _ = text.split("\n    A task is an object")
        imports = """
        import dataclasses
        import numpy as np
        import tensorflow as tf
        from bert_keras import heads as heads_lib
        from bert_keras.data import labelled_files, packing
        from bert_keras.tasks import base
        """
        write(
            self.folder,
            "question.task",
            textwrap.dedent(imports) + textwrap.dedent(text),
        )
        task = base.find("question.task")(seq_length=16)
        written = [
            name
            for name in vars(type(task))
            if not name.startswith("_") and hasattr(base.Task, name)
        ]
        self.assertLen(written, 11)
        path = write(self.folder, "rows", "")[:-3] + ".tsv"
        with open(path, "w", encoding="utf-8") as file:
            file.write("text\tlabel\na good film\tno\nis it good ?\tyes\n")
        rows = list(task.read_examples(path))
        raw = {name: tf.constant([r[name] for r in rows]) for name in rows[0]}
        model = model_lib.BertModel(bert.BertEncoder(tiny.bert()), task)
        features = task.preprocess(raw, tiny.tokenizer())
        targets = task.make_targets(raw, features, tiny.tokenizer())
        loss = task.loss(model(features, targets), features, targets)
        self.assertGreater(loss["question"], 0)
        model.head.question.score.bias.assign([9.0])
        answers = predictor.Predictor(model, tiny.tokenizer()).predict(
            [row["text"] for row in rows]
        )
        self.assertEqual([a["question"] for a in answers], [True, True])
        self.assertEqual(task.metrics(answers, rows), {"accuracy": 0.5})

    def test_a_task_that_no_load_would_find_is_not_saved(self):
        class Local(classification.Classification):
            pass

        import several.task
        import without_dot

        for task_class, message in (
            (Local, "not have it at its top level"),
            (several.task.Mine, r"has other tasks too \(Other\)"),
            (without_dot.Mine, "without_dot has no dot"),
        ):
            task = task_class(labels=("bad", "good"))
            with self.assertRaisesRegex(errors.InputError, message):
                task.to_dict()
            model = model_lib.BertModel(bert.BertEncoder(tiny.bert()), task)
            run = self.create_tempdir().full_path
            with self.assertRaisesRegex(errors.InputError, message):
                checkpoint.save(run, model, tiny.tokenizer(), step=1)
            self.assertEqual(checkpoint.steps(run), [])

    def test_meanings_survive_json(self):
        write(
            self.folder,
            "nested.task",
            MODULE.replace(
                "    pass",
                """    pairs: tuple = (("a", "b"), ("c", "d"))

    @property
    def head_signatures(self):
        return {"label": [self.pairs, {0: "a"}]}
""",
            ),
        )
        import nested.task

        task = nested.task.Mine(seq_length=16, labels=("bad", "good"))
        model = model_lib.BertModel(bert.BertEncoder(tiny.bert()), task)
        model.head.label.score.bias.assign([3.0, 4.0])
        run = self.create_tempdir().full_path
        checkpoint.save(run, model, tiny.tokenizer(), step=1)
        again = loading.load_model(checkpoint.read(run), task)
        self.assertEqual(
            again.head.label.score.bias.numpy().tolist(), [3.0, 4.0]
        )

    def test_what_json_cannot_hold_is_refused_when_it_is_saved(self):
        write(
            self.folder,
            "sets.task",
            MODULE.replace("    pass", "    names: object = None"),
        )
        import sets.task

        for value in ({"a"}, float("nan"), np.float32(1), b"a"):
            task = sets.task.Mine(labels=("bad", "good"), names=value)
            with self.assertRaisesRegex(errors.InputError, "saved as JSON"):
                task.to_dict()

    @parameterized.parameters("without_dot", "a..b", ".task", "a-b.c", "")
    def test_only_dotted_names_are_imported(self, name):
        with self.assertRaisesRegex(
            errors.InputError, "expected one of bidirectional_lm, "
        ):
            base.find(name)

    def test_a_module_that_lacks_another_says_which(self):
        write(self.folder, "tensorx_tasks.task", "import tensorx")
        with self.assertRaisesRegex(ModuleNotFoundError, "'tensorx'"):
            base.find("tensorx_tasks.task")

    @parameterized.parameters(
        ({"pooling": "avg"}, "pooling=avg: expected one of first"),
        (
            {"problem_type": "ranks"},
            "problem_type=ranks: expected one of single_label",
        ),
        ({"seq_length": 0}, "seq_length=0: expected 4 to"),
        ({"labels": ["good", "good"]}, "labels has .'good'. more than once"),
        ({"weights": [1.0]}, "a weight for each of 2 labels"),
        ({"labels": ["a\ud800"]}, "surrogates not allowed"),
        ({"labels": []}, "the task has no labels"),
        ({"seq_length": "16"}, "seq_length is '16'; expected a whole number"),
        ({"labels": "good"}, "labels is 'good'; expected a list"),
        ({"labels": [1]}, r"labels is \[1\]; expected a list"),
        ({"pair": 1}, "pair is 1; expected true or false"),
        ({"import": "os"}, "unknown: .'import'."),
    )
    def test_settings_of_another_type_are_refused(self, change, message):
        folder = save(
            self.create_tempdir().full_path, TASK, task=TASK.to_dict() | change
        )
        with self.assertRaisesRegex(errors.InputError, message):
            predictor.load(folder)


if __name__ == "__main__":
    absltest.main()
