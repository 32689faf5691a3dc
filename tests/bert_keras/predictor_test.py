"""What a person may give to Predictor, and what is refused with its place."""

import dataclasses
import math
import os
import pathlib
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, console, errors, predictor
from bert_keras import model as model_lib
from bert_keras.networks import bert
from bert_keras.tasks import (
    classification,
    intent_slots,
    question_answering,
    tagging,
)
from bert_keras.training import evaluate, finetune
from bert_keras.training import settings as settings_lib
from tests import tiny


class Frame:
    """What is asked of a data frame, of pandas or another library."""

    def __init__(self, *texts, rows="to_dict"):
        self.texts = texts
        setattr(self, rows, self._rows)
        if rows == "to_dict":
            self.iterrows = None

    def __iter__(self):
        return iter(("text", "label"))

    def _rows(self, form="records"):
        assert form == "records"
        return [{"text": text, "label": 1} for text in self.texts]


class ArgumentsTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        model = tiny.classifier()
        cls.model = predictor.Predictor(model, tiny.tokenizer())
        task = dataclasses.replace(model.task, pair=True)
        pair = model_lib.BertModel(bert.BertEncoder(tiny.bert()), task)
        cls.pair = predictor.Predictor(pair, tiny.tokenizer())
        cls.film, cls.plot = cls.model.predict(["a good film", "old plot"])

    @parameterized.named_parameters(
        ("string", lambda: "a good film"),
        ("bytes", lambda: b"a good film"),
        ("bytearray", lambda: bytearray(b"a good film")),
        ("row", lambda: {"text": "a good film"}),
        ("row_of_bytes", lambda: {"text": b"a good film", "more": None}),
        ("variable", lambda: tf.Variable("a good film")),
        ("scalar_tensor", lambda: tf.constant("a good film")),
        ("scalar_array", lambda: np.array("a good film")),
        ("numpy_string", lambda: np.str_("a good film")),
    )
    def test_one_text_is_one_example(self, make):
        (answer,) = self.model.predict(make())
        self.assertEqual(answer["label"], self.film["label"])
        self.assertAlmostEqual(answer["score"], self.film["score"], places=5)

    @parameterized.named_parameters(
        ("list", lambda: ["a good film", "old plot"]),
        ("tuple", lambda: ("a good film", "old plot")),
        ("generator", lambda: (x for x in ("a good film", "old plot"))),
        ("variable", lambda: tf.Variable(["a good film", "old plot"])),
        ("tensor", lambda: tf.constant(["a good film", "old plot"])),
        ("array", lambda: np.array(["a good film", "old plot"])),
        ("objects", lambda: np.array(["a good film", b"old plot"], object)),
        ("column", lambda: np.array([["a good film"], ["old plot"]])),
        ("tensors", lambda: [*map(tf.constant, ("a good film", "old plot"))]),
        ("mixed", lambda: [b"a good film", {"text": "old plot"}]),
        ("pandas", lambda: Frame("a good film", "old plot")),
        ("polars", lambda: Frame("a good film", "old plot", rows="to_dicts")),
        ("arrow", lambda: Frame("a good film", "old plot", rows="to_pylist")),
    )  # fmt: skip
    def test_items_are_examples_in_their_order(self, make):
        answers = self.model.predict(make())
        for answer, alone in zip(answers, (self.film, self.plot), strict=True):
            np.testing.assert_allclose(
                answer["scores"], alone["scores"], atol=1e-5
            )

    @parameterized.named_parameters(
        ("none", [None], "example 1: expected text, found None"),
        ("number", [3], "example 1: expected text, found 3"),
        ("nan", [math.nan], "example 1: expected text, found nan"),
        ("none_in_a_row", [{"text": None}], "example 1, text: .*found None"),
        ("nan_in_a_row", [{"text": math.nan}], "example 1, text: .*found nan"),
        ("list_in_a_row", [{"text": ["a"]}], "example 1, text: .*a list"),
        ("dict_in_a_row", [{"text": {}}], "example 1, text: .*an object"),
        ("number_in_a_row", [{"text": 3}], "example 1, text: .*found 3"),
        ("number_in_a_list", [[3]], "example 1, text: .*found 3"),
        ("two_texts", [["a", "b"]], "example 1: .*reads 1 texts .*got 2"),
        ("no_text", [[]], "example 1: .*got 0"),
        ("another_column", [{"txt": "a"}], "example 1: .*text; got txt"),
        ("latin_1", [b"caf\xe9"], "example 1, text: byte 3 is not valid UTF-8"),
        ("set", [{"a"}], "example 1: .*found a set"),
        ("numbers", [np.array([1.0])], "example 1, text: .*found 1.0"),
    )  # fmt: skip
    def test_what_is_no_text_is_refused_with_its_index(self, items, message):
        for ask in (self.model.predict, self.model.stream):
            with self.assertRaisesRegex(errors.InputError, message):
                list(ask(["a film", *items]))

    @parameterized.parameters(
        (None, "found None"), (3, "found 3"), (math.nan, "found nan"),
        ({"a", "b"}, "found a set"), ({"text": ["a", "b"]}, "example 0, text"),
        (tf.constant([1, 2]), "example 0: expected text, found 1"),
        (tf.constant([["a", "b"]]), "example 0: .*got 2"),
        (Frame("a", math.nan), "example 1, text: .*found nan"),
    )  # fmt: skip
    def test_what_holds_no_texts_is_refused(self, examples, message):
        with self.assertRaisesRegex(errors.InputError, message):
            self.model.predict(examples)

    @parameterized.product(
        name=("batch_size", "ahead"), value=(0, -1, 2.0, "3", True, None)
    )
    def test_batches_have_a_whole_number_of_texts(self, name, value):
        with self.assertRaisesRegex(errors.InputError, f"{name}: .*from 1"):
            self.model.stream(["a"], **{name: value})
        self.assertLen(self.model.predict(["a"], batch_size=np.int64(1)), 1)

    def test_a_pair_is_a_sequence_or_a_row(self):
        row = {"text": "a", "text_pair": b"film"}
        answers = self.pair.predict(
            [("a", "film"), ["a", b"film"], row, np.array(["a", "film"])]
        )
        self.assertLen({answer["label"] for answer in answers}, 1)
        self.assertLen(self.pair.predict(row), 1)
        self.assertLen(self.pair.predict(np.array([["a", "film"]] * 3)), 3)

    @parameterized.parameters((["a", "b"],), (("a", "b"),), ("ab",), (b"a",))
    def test_a_text_alone_is_no_pair(self, examples):
        with self.assertRaisesRegex(
            errors.InputError, r"example 0: .*2 texts .*got 1.*\[\(a, b\)\]"
        ):
            self.pair.predict(examples)

    def test_a_lone_surrogate_is_replaced(self):
        one, two = self.model.predict(["good \ud83d", "good \ufffd"])
        self.assertEqual(one, two)


ROWS = (("a good film", "good"), ("old plot", "bad"), ("not bad", "good"))


class EvaluateTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = predictor.Predictor(tiny.classifier(), tiny.tokenizer())

    def file(self, rows=ROWS, head="text\tlabel"):
        lines = [head, *("\t".join(row) for row in rows)]
        return self.create_tempfile(
            "rows.tsv", "\n".join(lines) + "\n"
        ).full_path

    def test_a_file_and_its_rows_have_the_figures_of_the_command(self):
        path = self.file()
        run = self.create_tempdir().full_path
        self.model.save(run)
        expected = evaluate.evaluate(run, path)
        texts, labels = zip(*ROWS, strict=True)
        self.assertEqual(self.model.evaluate(path), expected)
        self.assertEqual(self.model.evaluate(pathlib.Path(path)), expected)
        self.assertEqual(self.model.evaluate(texts, labels), expected)
        frame = Frame(*texts)
        self.assertEqual(self.model.evaluate(frame, np.array(labels)), expected)
        self.assertIn("accuracy", expected)

    def test_the_columns_of_a_file_may_have_other_names(self):
        run = self.create_tempdir().full_path
        self.model.save(run)
        expected = self.model.evaluate(self.file())
        path = self.file(head="review\tstars")
        named = {"label": "stars", "text": "review"}
        for columns in ("text=review,label=stars", named):
            self.assertEqual(
                self.model.evaluate(path, columns=columns), expected
            )
            self.assertEqual(
                evaluate.evaluate(run, path, columns=columns), expected
            )

    @parameterized.parameters("classification", "embedding")
    def test_a_dict_of_columns_is_saved_as_the_text_of_the_flag(self, name):
        made = [
            settings_lib.from_keywords(
                settings_lib.FinetuneSettings, name, {"columns": columns}
            )[1]
            for columns in (
                {"label": "stars", "text": "review"},
                "text=review,label=stars",
            )
        ]
        self.assertEqual(made[0].to_dict(), made[1].to_dict())

    @parameterized.parameters(
        (dict(data=[]), "found none"),
        (dict(data=["a"]), "example 0: expected a label, found nothing"),
        (dict(data=["a"], labels=["ugly"]), "the labels: .*all rows"),
        (dict(data=["a"], labels=[]), "0 labels and 1 texts"),
        (dict(data="no.tsv"), "no.tsv"),
        (dict(data=["a"], labels=["bad"], columns="text=x"), "only a labelled"),
    )  # fmt: skip
    def test_what_cannot_be_scored_is_named(self, arguments, message):
        with self.assertRaisesRegex(errors.InputError, message):
            self.model.evaluate(**arguments)


class SaveTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.model = predictor.Predictor(tiny.classifier(), tiny.tokenizer())
        self.folder = os.path.join(self.create_tempdir().full_path, "mine")

    def test_it_is_read_back_bit_equal(self):
        self.model.save(pathlib.Path(self.folder))
        again = predictor.load(self.folder)
        for part in ("encoder", "head"):
            one, two = (
                checkpoint.weight_values(getattr(each.model, part))
                for each in (self.model, again)
            )
            self.assertEqual(one.keys(), two.keys())
            for path, value in one.items():
                np.testing.assert_array_equal(value, two[path], path)
        self.assertEqual(again.task, self.model.task)
        self.assertEqual(
            again.tokenizer.fingerprint, self.model.tokenizer.fingerprint
        )
        self.assertEqual(again.predict("a film"), self.model.predict("a film"))

    def test_a_run_may_start_from_it(self):
        self.model.save(self.folder)
        rows = self.create_tempfile(
            "rows.tsv", "text\tlabel\na film\tbad\ngood\tgood\n"
        ).full_path
        tuned = finetune.finetune(
            self.folder,
            rows,
            task=self.model.task,
            output=f"{self.folder}-run",
            epochs=1,
            learning_rate=0.0,
            weight_decay=0.0,
        )
        self.assertEqual(tuned.predict("a film"), self.model.predict("a film"))

    def test_a_folder_with_files_is_refused_and_left_alone(self):
        os.makedirs(self.folder)
        self.model.save(self.folder)  # an empty one is fine
        before = sorted(os.listdir(self.folder))
        with self.assertRaisesRegex(errors.InputError, "holds .*latest"):
            self.model.save(self.folder)
        self.assertEqual(sorted(os.listdir(self.folder)), before)
        with self.assertRaisesRegex(errors.InputError, "is a file"):
            self.model.save(os.path.join(self.folder, "latest"))
        with self.assertRaisesRegex(errors.InputError, "path of a folder"):
            self.model.save("")

    def test_rounded_weights_are_not_saved(self):
        self.model.save(self.folder)
        rounded = predictor.load(self.folder, precision="bfloat16")
        with self.assertRaisesRegex(errors.InputError, "found bfloat16"):
            rounded.save(f"{self.folder}-rounded")

    def test_another_task_gets_new_heads(self):
        self.model.save(self.folder)
        task = classification.Classification(
            labels=("no", "perhaps", "yes"), seq_length=32
        )
        other = predictor.load(self.folder, task=task)
        self.assertIn(
            other.predict("a film")[0]["label"], ("no", "perhaps", "yes")
        )
        path = "embeddings/token"
        np.testing.assert_array_equal(
            checkpoint.weight_values(other.model.encoder)[path],
            checkpoint.weight_values(self.model.model.encoder)[path],
        )


class MeasureTest(absltest.TestCase):
    def test_windows_are_counted_and_the_longest_is_measured(self):
        task = question_answering.QuestionAnswering(
            seq_length=16, max_question_length=4, doc_stride=4
        )
        model = predictor.Predictor(
            model_lib.BertModel(bert.BertEncoder(tiny.bert()), task),
            tiny.tokenizer(),
        )
        contexts = ["good " * 40, "film", "good " * 20]
        counts, longest = model._measure(
            question=tf.constant(["film"] * 3), context=tf.constant(contexts)
        )
        features = task.preprocess(
            {
                "question": tf.constant(["film"] * 3),
                "context": tf.constant(contexts),
            },
            tiny.tokenizer(),
        )
        windows = features["example_index"].numpy()
        np.testing.assert_array_equal(counts, np.bincount(windows))
        self.assertEqual(counts[1], 1)
        self.assertGreater(counts[0], counts[2])
        np.testing.assert_array_equal(longest, [16, 5, 16])


class OtherTaskTest(parameterized.TestCase):
    @parameterized.parameters(
        ("embeddings", "task=embeddings: expected one of"),
        ("tagging", "a checkpoint with the head tag.* for task=tagging"),
        (classification.Classification, "expected an object"),
        (
            classification.Classification(seq_length=32),
            "the task has no labels",
        ),
        (tagging.Tagging(seq_length=32), "the task has no types"),
        (
            intent_slots.IntentSlots(types=("x",), seq_length=32),
            "the task has no intents",
        ),
        (
            classification.Classification(labels=("a", "b"), seq_length=4096),
            "the network has .* positions; lower it",
        ),
    )
    def test_what_is_no_task_for_the_network_is_refused(self, task, message):
        folder = os.path.join(self.create_tempdir().full_path, "run")
        predictor.Predictor(tiny.classifier(), tiny.tokenizer()).save(folder)
        with self.assertRaisesRegex(errors.InputError, message):
            predictor.load(folder, task=task)


class ProgressTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.model = predictor.Predictor(tiny.classifier(), tiny.tokenizer())
        self.shown = []
        test = self

        class Recorded(console.Progress):
            def __init__(self, title, *, shown, **options):
                super().__init__(title, shown=False, **options)
                test.shown.append([shown, options["total"]])

            def update(self, done, message=""):
                test.shown[-1].append(done)

        self.enter_context(mock.patch.object(console, "Progress", Recorded))
        self.enter_context(mock.patch.object(predictor, "PROGRESS_FROM", 8))

    @pytest.mark.slow
    def test_only_many_texts_have_a_bar(self):
        self.model.predict(["a"] * 7)
        self.model.predict(["a"] * 8)
        self.model.predict(["a"] * 8, progress=False)
        self.model.predict(["a"], progress=True)
        self.model.predict(text for text in ["a"] * 9)  # of unknown number
        self.assertEqual(
            [shown for shown, *_ in self.shown],
            [False, True, False, True, False],
        )

    def test_every_batch_moves_it(self):
        self.model.predict(["a"] * 250, batch_size=2, progress=True)
        ((_, total, *done),) = self.shown
        self.assertEqual(done, sorted(done))
        self.assertEqual((total, done[-1]), (250, 250))
        self.assertGreater(len(done), 50)


if __name__ == "__main__":
    absltest.main()
