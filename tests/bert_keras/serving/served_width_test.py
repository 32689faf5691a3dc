"""Answers do not depend on how a server splits and joins requests."""

import contextlib
import dataclasses
import os
import tempfile

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest
from tensorflow.core.protobuf import config_pb2

from bert_keras import predictor as predictor_lib
from bert_keras import signatures, verification
from bert_keras.serving import saved_model, served_width
from tests import servers, sharp, tiny

ROWS, PARTS = 70, (1, 7, 64)
LIMITS = {"max_characters": 2_000, "max_entities": 6}
KINDS = ("multi_label", "regression")
LISTS = (
    "tagging",
    "intent_slots",
    "question_answering",
    "extractive_summary",
)
ENTITIES = ("tagging", "intent_slots")
OTHERS = tuple(task for task in sharp.TASKS if task not in ENTITIES) + KINDS


def make(task):
    if task in KINDS:
        labels = ("bad", "so so", "好") if task == "multi_label" else ()
        return sharp.make_classifier(problem_type=task, labels=labels)
    return sharp.make(task)


def texts(seed):
    """Returns texts: empty ones, short ones, and ones of several windows."""
    random = np.random.default_rng(seed)
    words = [*tiny.WORDS, "[MASK]", "😀", "unknown"]
    return [
        " ".join(random.choice(words, length))
        for length in random.choice((0, 1, 3, 8, 20, 60), ROWS)
    ]


def tokens(task):
    """Rows of ids whose padding differs from row to row."""
    length = task.max_row_length
    rows = tiny.inputs(ROWS, length)
    if "text_pair" in task.text_columns and task.name == "embedding":
        mask = rows["padding_mask"]
        second = tf.cast(tf.range(length) >= length // 3, tf.int32)
        rows["padding_mask"] = mask * (1 + second)
    if task.name == "masked_lm":
        every_third = tf.range(length) % 3 == 1
        ids = tf.where(every_third, task.mask_id, rows["token_ids"])
        rows["token_ids"] = ids * rows["padding_mask"]
    if task.name == "extractive_summary":
        starts = tf.range(length) % 4 == 0
        ids = tf.where(starts, task.token[0], rows["token_ids"])
        rows["token_ids"] = ids * rows["padding_mask"]
    return rows


class Facts:
    """What holds of every task; TASKS are those of a test case."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder, cls.predictors, cls.served = folder.name, {}, {}
        for task in cls.TASKS:
            cls.predictors[task] = make(task)
            path = os.path.join(folder.name, task)
            saved_model.save(cls.predictors[task], path, **LIMITS)
            cls.served[task] = tf.saved_model.load(path)

    def requests(self, name):
        """(signature, inputs (70, ...)) of each signature of a task."""
        task, served = self.predictors[name].task, self.served[name]
        raw = {text: texts(seed) for seed, text in enumerate(task.text_columns)}
        yield (
            served.signatures[signatures.TEXT],
            {text: tf.constant(values) for text, values in raw.items()},
        )
        yield served.signatures[signatures.TOKENS], tokens(task)
        if task.request_settings:
            yield (
                served.signatures[signatures.WITH_SETTINGS],
                {text: tf.constant(values) for text, values in raw.items()}
                | signatures.some_settings(task, ROWS),
            )
        if task.class_names:
            examples = tf.constant(signatures.serialized_examples(raw))
            yield served.signatures[signatures.CLASSIFY], {"inputs": examples}

    def assertSame(self, got, want, name):
        self.assertEqual(got.dtype, want.dtype, name)
        if want.dtype.kind == "f":
            # These weights are so large that rounding shows three times over.
            # Logits are not bounded; -1e4 stands for a span that cannot be.
            most = max(1.0, np.abs(want[want > -1e3]).max(initial=0.0))
            np.testing.assert_allclose(got, want, 0, 3e-6 * most, err_msg=name)
        else:
            np.testing.assert_array_equal(got, want, name)

    def cases(self):
        for task in self.TASKS:
            for answer, inputs in self.requests(task):
                with self.subTest(task=task, inputs=list(inputs)):
                    yield answer, inputs

    def test_answers_joined_of_parts_are_those_of_all(self):
        for answer, inputs in self.cases():
            unsplit = answer(**inputs)
            for size in PARTS:
                parts = [
                    answer(
                        **{
                            name: value[start : start + size]
                            for name, value in inputs.items()
                        }
                    )
                    for start in range(0, ROWS, size)
                ]
                for name, value in unsplit.items():
                    # A server copies part after part; NumPy looks at shapes.
                    joined = np.concatenate([part[name] for part in parts])
                    self.assertSame(joined, value.numpy(), f"{name}, {size}")

    def test_all_widths_are_in_the_signature(self):
        for answer, inputs in self.cases():
            for rows in (0, 1, 5):
                answers = answer(
                    **{name: value[:rows] for name, value in inputs.items()}
                )
                for name, value in answers.items():
                    shape = answer.structured_outputs[name].shape
                    self.assertTrue(shape[1:].is_fully_defined(), name)
                    self.assertEqual(value.shape, (rows, *shape[1:]), name)

    def test_lists_are_the_predictors_and_count_is_their_true_length(self):
        for task in set(LISTS) & set(self.TASKS):
            predictor, many = self.predictors[task], []
            answer, raw = next(self.requests(task))
            answers = {k: v.numpy() for k, v in answer(**raw).items()}
            expected = predictor_lib.rows_of(
                predictor.task, predictor.serve_text(**raw)
            )
            for row, want in enumerate(expected):
                lists = predictor.task.list_padding
                count = answers["count"][row]
                many.append(count)
                # The chosen sentences are fewer than those with a score.
                self.assertEqual(max(len(want[n]) for n in lists), count)
                for name, empty in lists.items():
                    got = servers.plain(answers[name][row].tolist())
                    kept = min(len(want[name]), len(got))
                    self.assertEqual(got[kept:], [empty] * (len(got) - kept))
                    if not isinstance(empty, float):
                        self.assertEqual(got[:kept], want[name][:kept])
            self.assertGreater(len(set(many)), 3)
            if task in ENTITIES:
                self.assertGreater(max(many), LIMITS["max_entities"])

    def test_columns_of_padding_change_nothing(self):
        for task in self.TASKS:
            predictor, served = self.predictors[task], self.served[task]
            answer = served.signatures[signatures.TOKENS]
            every = tokens(predictor.task)
            rows = {name: value[:, :20] for name, value in every.items()}
            padding = [[0, 0], [0, predictor.task.max_row_length - 20]]
            answers = answer(
                **{name: tf.pad(value, padding) for name, value in rows.items()}
            )
            for name, value in predictor.tokens(**rows).items():
                got = answers[name].numpy()
                if got.shape != value.shape:
                    self.assertFalse(np.any(got[:, 20:]), name)
                    got = got[:, :20]
                self.assertSame(got, value.numpy(), name)


class EntitiesTest(Facts, absltest.TestCase):
    TASKS = ENTITIES

    def test_rows_of_another_length_are_refused(self):
        path = os.path.join(self.folder, "tagging")
        with contextlib.ExitStack() as stack:
            session = stack.enter_context(
                tf.compat.v1.Session(graph=tf.Graph())
            )
            graph = tf.compat.v1.saved_model.load(session, ["serve"], path)
            signature = graph.signature_def[signatures.TOKENS]
            options = config_pb2.CallableOptions(
                feed=[
                    signature.inputs[name].name for name in tiny.bert().inputs
                ],
                fetch=[signature.outputs["tag"].name],
            )
            # As a server runs it; Session.run itself would compare the shapes.
            answer = session._make_callable_from_options(options)
            rows = np.ones((2, 32), np.int32)
            self.assertEqual(answer(rows, rows, rows)[0].shape, (2, 32))
            for length in (16, 40):
                rows = np.ones((2, length), np.int32)
                with self.assertRaisesRegex(
                    tf.errors.InvalidArgumentError, r"expected shape \[\?,32\]"
                ):
                    answer(rows, rows, rows)

    def test_a_task_whose_widths_follow_the_batch_is_not_exported(self):
        predictor = self.predictors["tagging"]

        class Unlisted(type(predictor.task)):
            list_padding = {}

        fields = {
            field.name: getattr(predictor.task, field.name)
            for field in dataclasses.fields(predictor.task)
        }
        unlisted = predictor_lib.Predictor(predictor.model, tiny.tokenizer())
        unlisted.task = Unlisted(**fields)
        with self.assertRaisesRegex(
            verification.ExportError, "of serving_default .* batch to batch"
        ):
            saved_model.save(
                unlisted, os.path.join(self.folder, "unlisted"), **LIMITS
            )

    def test_an_answer_called_count_is_refused(self):
        task = self.predictors["tagging"].task
        with self.assertRaisesRegex(
            verification.ExportError, "rename the answer"
        ):
            served_width.fit({"count": tf.constant([1])}, task, 6)


@pytest.mark.slow
class OtherTasksTest(Facts, absltest.TestCase):
    TASKS = OTHERS


if __name__ == "__main__":
    absltest.main()
