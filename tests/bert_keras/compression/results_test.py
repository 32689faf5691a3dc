"""Targets, and which candidate is recommended for them."""

import os

from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.compression import results


def result(name, accuracy, milliseconds, megabytes):
    # Another metric is higher where accuracy is lower.
    metrics = {"accuracy": accuracy, "mcc": 1 - accuracy}
    return results.Result(
        name,
        metrics=metrics,
        milliseconds=milliseconds,
        megabytes=megabytes,
    )


ORIGINAL = result("original", 0.9, 10.0, 40.0)
RESULTS = (
    ORIGINAL,
    result("slow", 0.95, 6.0, 4.0),
    result("half", 0.8, 5.0, 20.0),
    result("tied", 0.8, 4.0, 21.0),
    result("third", 0.7, 2.0, 5.0),
    results.Result("broken", error="no such op"),
)


class TargetTest(parameterized.TestCase):
    @parameterized.parameters(
        ("5x", 5, "x"),
        ("2.5x", 2.5, "x"),
        ("5MB", 5, "MB"),
        (" 5 mb ", 5, "MB"),
        ("2ms", 2, "ms"),
        ("0.5MS", 0.5, "ms"),
    )
    def test_it_is_parsed(self, text, amount, unit):
        target = results.parse_target(text)
        self.assertEqual(target, results.Target(amount, unit))

    @parameterized.parameters(
        "", "5", "x", "0x", "0.0ms", "-2ms", "5GB", "5 x MB", "infx", "1e3ms"
    )
    def test_it_is_refused(self, text):
        with self.assertRaisesRegex(
            errors.InputError, f"^target={text}: expected a positive number"
        ):
            results.parse_target(text)

    @parameterized.parameters("5x", "5MB", "0.5ms")
    def test_it_is_shown_as_it_is_written(self, text):
        self.assertEqual(str(results.parse_target(text)), text)


class RecommendTest(parameterized.TestCase):
    @parameterized.parameters(
        ("1x", "slow"),  # the best of all
        ("2x", "tied"),  # half is as good, and reaches it exactly, but slower
        ("5x", "third"),  # 2 ms are exactly five times as fast
        ("40MB", "slow"),
        ("20.5MB", "slow"),
        ("4ms", "tied"),
        ("3ms", "third"),
    )
    def test_the_best_metric_that_reaches_the_target(self, target, name):
        choice = results.recommend(results.parse_target(target), RESULTS)
        self.assertEqual((choice.result.name, choice.is_reached), (name, True))

    def test_of_equal_metrics_the_faster_one_whatever_the_order(self):
        target = results.Target(2, "x")
        choice = results.recommend(target, [ORIGINAL, *RESULTS[:0:-1]])
        self.assertEqual(choice.result.name, "tied")

    @parameterized.parameters(
        ("6x", "third"), ("3MB", "slow"), ("1ms", "third")
    )
    def test_without_one_the_nearest(self, target, name):
        choice = results.recommend(results.parse_target(target), RESULTS)
        self.assertEqual((choice.result.name, choice.is_reached), (name, False))

    def test_of_equally_near_ones_the_better(self):
        near = [result("a", 0.5, 2.0, 1.0), result("b", 0.6, 2.0, 1.0)]
        choice = results.recommend(results.Target(9, "x"), [ORIGINAL, *near])
        self.assertEqual(choice.result.name, "b")


class RowTest(absltest.TestCase):
    def test_a_failed_candidate_has_only_its_error(self):
        self.assertEqual(
            RESULTS[-1].row(), {"name": "broken", "error": "no such op"}
        )

    def test_metrics_are_beside_the_costs(self):
        self.assertEqual(
            RESULTS[1].row(),
            {
                "name": "slow",
                "accuracy": 0.95,
                "mcc": 1 - 0.95,
                "artifact": "",
                "milliseconds": 6.0,
                "megabytes": 4.0,
                "parameters": 0,
            },
        )


class DamagedTest(absltest.TestCase):
    def test_a_result_that_cannot_be_read_is_made_again(self):
        folder = self.create_tempdir().full_path
        for text in ('{"name": "orig', '{"nothing": 1}'):
            with open(os.path.join(folder, results.FILE), "w") as file:
                file.write(text)
            self.assertIsNone(results.read(folder))


if __name__ == "__main__":
    absltest.main()
