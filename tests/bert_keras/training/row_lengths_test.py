"""What records would lose of a row's targets is refused."""

import dataclasses

import numpy as np
from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.tasks import base
from bert_keras.training import row_lengths
from tests.bert_keras.tasks import second_text

LABELS, WEIGHTS = "targets/next/labels", "targets/next/weights"
NAMES = [LABELS, WEIGHTS]


def values(weights, **more):
    weights = np.array(weights, np.float32)
    return {LABELS: np.zeros_like(weights), WEIGHTS: weights, **more}


class OfTargetsTest(parameterized.TestCase):
    task = second_text.SecondText(max_target_length=3)

    @parameterized.parameters(
        ([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0.5, 2, 1e-30]], [2, 1, 0, 3]),
        ([[], []], [0, 0]),
    )
    def test_the_weights_specify_the_lengths(self, weights, lengths):
        found = row_lengths.of_targets(self.task, values(weights), NAMES)
        self.assertEqual(found.tolist(), lengths)

    @parameterized.parameters(
        ([[1, 1, 0], [1, 0, 1]], r"term next > 0 .*found \[1.0, 0.0, 1.0\]"),
        ([[0, 1, 1]], r"found \[0.0, 1.0, 1.0\]"),
        ([[1, -1, 0]], r"found \[1.0, -1.0, 0.0\]"),
        ([[1, 0, -1]], r"found \[1.0, 0.0, -1.0\]"),
        ([[1, np.nan, 0]], r"found \[1.0, nan, 0.0\]"),
        ([[1, 1, 1, 1]], "at most 3 .*max_target_length.*next has one of 4"),
        ([1, 1], r"shapes \(W, T, ...\).*'targets/next/weights': \(2,\)"),
    )
    def test_other_weights_are_refused(self, weights, message):
        with self.assertRaisesRegex(errors.InputError, f"text: .*{message}"):
            row_lengths.of_targets(self.task, values(weights), NAMES)

    def test_all_terms_have_the_same_tokens(self):
        names = [*NAMES, "targets/copy/weights", "targets/copy/labels"]
        other = np.array([[2, 2], [2, 0]], np.float32)
        stored = values([[1, 1], [1, 0]])
        stored |= {"targets/copy/labels": other, "targets/copy/weights": other}
        found = row_lengths.of_targets(self.task, stored, names)
        self.assertEqual(found.tolist(), [2, 1])
        stored["targets/copy/weights"] = other[::-1]
        with self.assertRaisesRegex(errors.InputError, "next and copy"):
            row_lengths.of_targets(self.task, stored, names)

    def test_all_features_have_the_same_width(self):
        for width in (1, 3):
            stored = values([[1, 1]], **{"inputs/x": np.zeros((1, width))})
            with self.assertRaisesRegex(errors.InputError, "'inputs/x'"):
                row_lengths.of_targets(self.task, stored, [*NAMES, "inputs/x"])

    def test_a_stored_feature_needs_a_term(self):
        stored = {"inputs/x": np.zeros((2, 3))}
        with self.assertRaisesRegex(errors.InputError, "inputs/x; found none"):
            row_lengths.of_targets(self.task, stored, ["inputs/x"])

    def test_a_task_declares_the_maximum(self):
        task = base.Task()
        self.assertIsNone(task.max_target_length)
        with self.assertRaisesRegex(errors.InputError, "at most 0 tokens"):
            row_lengths.of_targets(task, values([[1]]), NAMES)
        task = dataclasses.replace(self.task, max_target_length=1)
        found = row_lengths.of_targets(task, values([[1, 0]]), NAMES)
        self.assertEqual(found.tolist(), [1])


if __name__ == "__main__":
    absltest.main()
