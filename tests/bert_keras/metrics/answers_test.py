import json
import math
import os

from absl.testing import absltest, parameterized

from bert_keras.data import squad
from bert_keras.metrics import answers as answers_lib
from tests import tiny

ENGLISH, CHINESE = answers_lib.English(), answers_lib.Chinese()
PUBLISHED = os.path.join(tiny.SHARED_DATA, "reference", "squad_predictions")


class AnswerScoresTest(parameterized.TestCase):
    @parameterized.parameters(
        ("squad_v1.1_bert_ensemble",),
        ("squad_v1.1_logistic_regression_baseline",),
        ("squad_v2.0_bert_single_model",),
        ("squad_v2.0_bidaf_self_attention_elmo_single_model",),
    )
    def test_published_predictions_get_their_scores(self, name):
        version = name[: len("squad_v1.1")]
        gold = os.path.join(tiny.SHARED_DATA, version, "train.json")
        if not (os.path.exists(PUBLISHED) and os.path.exists(gold)):
            self.skipTest(f"needs {PUBLISHED} and {gold}")
        with open(os.path.join(PUBLISHED, "expected_scores.json")) as file:
            expected = json.load(file)[f"{name}.json"]
        with open(os.path.join(PUBLISHED, f"{name}.json")) as file:
            answers = json.load(file)
        metrics = [
            answers_lib.best(
                # Ten questions have no prediction: wrong, as in the script.
                answers.get(row["id"], ""),
                json.loads(row["answers"]),
                ENGLISH,
            )
            for row in squad.read(gold)
        ]
        self.assertLen(metrics, expected["questions"])
        for score in ("exact_match", "f1"):
            mean = math.fsum(getattr(s, score) for s in metrics) / len(metrics)
            # The file gives percents of four decimals.
            self.assertAlmostEqual(
                round(100 * mean, 4), expected[score], delta=1e-9
            )

    @parameterized.parameters(
        ("The Nobel Prize!", "nobel prize", 1, 1),
        ("a Nobel Prize in Physics", "Nobel Prize", 0, 2 / 3),
        ("in 1903", "in in 1903", 0, 4 / 5),
        ("", "Nobel", 0, 0),
        ("the", "", 1, 1),  # nothing is left of either
        ("well-known", "wellknown", 1, 1),
    )
    def test_english_counts_words(self, answer, gold, exact, f1):
        metrics = ENGLISH.score(answer, gold)
        self.assertEqual(metrics.exact_match, exact)
        self.assertAlmostEqual(metrics.f1, f1)

    @parameterized.parameters(
        ("光荣和ω-force", "光荣和ω-Force。", 1, 1),
        ("1990年", "在1990年代", 0, 4 / 6),  # 1990 is one segment
        ("北京上海", "上海北京", 0, 1 / 2),  # in a run
        ("3.5米", "35米", 0, 1 / 2),
        ("New York 市", "york 市", 0, 4 / 5),
        ("……", "…", 0, 2 / 3),
        ("", "北京", 0, 0),
        ("，", "", 1, 1),
    )
    def test_chinese_counts_the_longest_common_run(
        self, answer, gold, exact, f1
    ):
        metrics = CHINESE.score(answer, gold)
        self.assertEqual(metrics.exact_match, exact)
        self.assertAlmostEqual(metrics.f1, f1)

    def test_each_score_takes_its_best_gold(self):
        metrics = answers_lib.best("Ada Bo", ["Ada", "Ada Bo C"], ENGLISH)
        self.assertEqual(metrics.exact_match, 0)
        self.assertAlmostEqual(metrics.f1, 0.8)

    def test_without_gold_the_empty_answer_is_right(self):
        for answer, right in (("", 1), ("Ada", 0)):
            metrics = answers_lib.best(answer, [], ENGLISH)
            self.assertEqual((metrics.exact_match, metrics.f1), (right, right))

    def test_the_threshold_parts_answers_from_none_where_it_pays(self):
        no_answer_scores = [3.0, -1.0, 0.0, 2.0]
        answered, unanswered = [0.0, 1.0, 0.5, 0.0], [1.0, 0.0, 0.0, 1.0]
        threshold, score = answers_lib.best_threshold(
            no_answer_scores, answered, unanswered
        )
        self.assertEqual((threshold, score), (1.0, 3.5 / 4))

    def test_the_threshold_does_not_part_equal_no_answer_scores(self):
        _, score = answers_lib.best_threshold([1.0, 1.0], [1, 0], [0, 1])
        self.assertEqual(score, 0.5)

    @parameterized.parameters((1.0, 0.0), (0.0, 1.0))
    def test_the_threshold_may_answer_all_or_none(self, answered, unanswered):
        no_answer_scores = [5.0, -5.0]
        threshold, score = answers_lib.best_threshold(
            no_answer_scores, [answered] * 2, [unanswered] * 2
        )
        self.assertEqual(score, 1.0)
        self.assertEqual(
            all(n <= threshold for n in no_answer_scores), bool(answered)
        )
        self.assertEqual(
            any(n <= threshold for n in no_answer_scores), bool(answered)
        )


if __name__ == "__main__":
    absltest.main()
