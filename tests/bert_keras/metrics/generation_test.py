"""Metrics of generated text: the libraries' own results, and by hand."""

import doctest
import json
import os

import numpy as np
import sacrebleu
from absl.testing import absltest, parameterized
from rouge_score import rouge_scorer

from bert_keras import errors
from bert_keras.data import sentence_splitter
from bert_keras.metrics import generation
from tests import tiny

HYPOTHESES = [
    "The cat sat on the mat, and the dog didn't.",
    "It is a guide to action which ensures that 3.5% obey.",
    "",
]
REFERENCES = [
    "The cat sat on a mat; the dog did not.",
    "It is a guide to action that ensures 3.5% will obey.",
    "Nothing is here.",
]
CHINESE = ["这部电影很好看,演员也不错。", "我们提出一种新的方法BERT-base"]
CHINESE_REFERENCES = [
    "这部电影非常好看，演员不错。",
    "本文提出了一种新方法ALBERT-base",
]
LIBRARY_NAMES = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}


def library_rouge(hypotheses, references):
    """rouge_score's results with its own tokenizer, from 0 to 100."""
    scorer = rouge_scorer.RougeScorer(list(LIBRARY_NAMES.values()))
    scores = [
        scorer.score_multi([r] if isinstance(r, str) else r, h)
        for h, r in zip(hypotheses, references, strict=True)
    ]
    return {
        name: 100 * np.mean([each[key].fmeasure for each in scores])
        for name, key in LIBRARY_NAMES.items()
    }


class ScoreTest(parameterized.TestCase):
    def assert_metrics(self, metrics, expected):
        for name, value in expected.items():
            self.assertAlmostEqual(metrics[name], value, places=9, msg=name)

    def test_english_scores_as_the_libraries(self):
        metrics = generation.score(HYPOTHESES, REFERENCES)
        bleu = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES])
        chrf = sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES])
        self.assert_metrics(
            metrics,
            {"bleu": bleu.score, "chrf": chrf.score, "exact_match": 0}
            | library_rouge(HYPOTHESES, REFERENCES),
        )
        self.assertGreater(metrics["bleu"], 10)

    def test_real_summaries_score_as_the_libraries(self):
        path = os.path.join(tiny.SHARED_DATA, "scitldr", "dev.jsonl")
        if not os.path.exists(path):
            self.skipTest(f"needs {path}")
        with open(path) as file:
            rows = [json.loads(line) for line in file][:200]
        # The library drops other characters than ASCII's.
        rows = [r for r in rows if json.dumps(r, ensure_ascii=False).isascii()]
        self.assertGreater(len(rows), 50)
        texts = [row["source"][-1] for row in rows]
        metrics = generation.score(texts, [row["target"] for row in rows])
        width = max(len(row["target"]) for row in rows)
        columns = [
            [dict(enumerate(row["target"])).get(n) for row in rows]
            for n in range(width)
        ]
        self.assert_metrics(
            metrics,
            library_rouge(texts, [row["target"] for row in rows])
            | {
                "bleu": sacrebleu.corpus_bleu(texts, columns).score,
                "chrf": sacrebleu.corpus_chrf(texts, columns).score,
            },
        )

    def test_chinese_has_the_characters_of_the_zh_tokenizer(self):
        metrics = generation.score(CHINESE, CHINESE_REFERENCES)
        bleu = sacrebleu.corpus_bleu(
            CHINESE, [CHINESE_REFERENCES], tokenize="zh"
        )
        self.assertAlmostEqual(metrics["bleu"], bleu.score)
        self.assertGreater(bleu.score, 10)
        words = sacrebleu.corpus_bleu(CHINESE, [CHINESE_REFERENCES])
        self.assertNotAlmostEqual(metrics["bleu"], words.score)

    @parameterized.parameters(
        # 5 and 4 tokens, of which "a", "good" and "film" are shared, in order;
        # of 4 and 3 bigrams "a good" is shared.
        ("a good old film today", "A GOOD, fine film", 6 / 9, 2 / 7, 6 / 9),
        # The order counts for the longest common subsequence only.
        ("b a", "a b", 1, 0, 1 / 2),
        # A token counts as often as the other text has it.
        ("a a a a", "a a", 2 * 2 / 6, 2 * 1 / 4, 2 * 2 / 6),
        ("很好 电影！", "电影很好", 1, 2 * 2 / 6, 1 / 2),
        ("schöne Häuser", "Schöne Haus", 1 / 2, 0, 1 / 2),
        ("schöne", "schone", 0, 0, 0),
        ("GPT3模型", "gpt3 的模型", 2 * 3 / 7, 2 * 1 / 5, 2 * 3 / 7),
        ("", "a", 0, 0, 0),
        ("...", "a", 0, 0, 0),
        ("a", " \n", 0, 0, 0),
    )
    def test_rouge_by_hand(self, hypothesis, reference, *expected):
        metrics = generation.rouge([hypothesis], [reference])
        np.testing.assert_allclose(
            list(metrics.values()), 100 * np.array(expected), atol=1e-9
        )

    def test_rouge_is_the_mean_and_takes_the_best_reference(self):
        metrics = generation.rouge(
            ["a b c d", "x"], [["a b x y", "c a b d"], "y"]
        )
        np.testing.assert_allclose(
            list(metrics.values()), [100 / 2, 100 * 1 / 3 / 2, 100 * 3 / 4 / 2]
        )

    def test_bleu_by_hand(self):
        # Of 5 words 4 match, of 4 bigrams 2, of 3 trigrams 1, of 2 runs of 4
        # none, for which sacrebleu counts 1/2.
        metrics = generation.score(["a b c x d"], ["a b c y d"])
        expected = (4 / 5 * 2 / 4 * 1 / 3 * (1 / 2) / 2) ** (1 / 4)
        self.assertAlmostEqual(metrics["bleu"], 100 * expected)

    def test_empty_hypotheses_make_the_corpus_shorter(self):
        text = "a good old film with a plot"
        full = generation.score([text], [text])
        half = generation.score([text, ""], [text, text])
        self.assertAlmostEqual(full["bleu"], 100)
        self.assertAlmostEqual(half["bleu"], 100 * np.exp(1 - 14 / 7))
        self.assertAlmostEqual(half["rouge_l"], 50)
        self.assertEqual(half["exact_match"], 50)
        self.assertEqual(set(generation.score([""], ["a"]).values()), {0.0})

    def test_exact_match_ignores_white_space_only(self):
        metrics = generation.score(
            [" a  film\n", "A film", "a film"],
            ["a film", "a film", ["the film", "a film "]],
        )
        self.assertAlmostEqual(metrics["exact_match"], 200 / 3)

    def test_texts_may_have_different_numbers_of_references(self):
        rows = (["a b c d e"], [["x", "a b c d e", "y"]])
        metrics = generation.score(rows[0] * 2, [rows[1][0], "a b c d e"])
        self.assertAlmostEqual(metrics["bleu"], 100)
        self.assertAlmostEqual(metrics["exact_match"], 100)
        # A reference that is absent for one text is not one for another.
        other = generation.score(rows[0] * 2, ["a b c d e", rows[1][0]])
        self.assertEqual(metrics, other)
        # Of a text's own references, 4 words are the closest to 1 word. An
        # empty one would be closer, and the corpus would not be too short.
        metrics = generation.score(
            ["a b c d e", "a"], [["a b c d e", "x"], "a b c d"]
        )
        self.assertAlmostEqual(metrics["bleu"], 100 * np.exp(1 - 9 / 6))

    def test_short_and_long_sources_are_scored_apart(self):
        sources = [" ".join("a" * length) for length in (3, 9, 1, 3, 2, 30, 3)]
        targets = [f"the answer to text {n} is this" for n in range(7)]
        answers = [*targets[:5], "another text altogether", targets[6]]
        names, values = generation.by_length(sources, answers, targets)
        # Texts of one length are in one group, however many.
        self.assertEqual(names, ["1-2 words", "3 words", "9 words", "30 words"])
        self.assertEqual(values[:, 0].tolist(), [2, 3, 1, 1])
        np.testing.assert_allclose(values[:3, 1:], 100)
        of_long = generation.score(answers[5:6], targets[5:6])
        self.assertLess(of_long["chrf"], 50)
        for name, value in zip(
            generation.LENGTH_COLUMNS[1:], values[3, 1:], strict=True
        ):
            self.assertAlmostEqual(value, of_long[name])
        names, _ = generation.by_length(["很 好", "好"], ["a", "b"], ["a", "b"])
        self.assertEqual(names, ["1 character", "2 characters"])

    def test_the_share_of_the_references_chooses_the_language(self):
        # 3 of 10 characters are not more than 30%.
        self.assertFalse(generation.is_chinese(["很好的 abcdefg"]))
        self.assertTrue(generation.is_chinese(["很好的 abc", "def"]))
        self.assertTrue(generation.is_chinese(["很好的了 abcdefghi"]))
        self.assertFalse(generation.is_chinese(["a", "  "]))
        self.assertFalse(generation.is_chinese([]))
        hypotheses = ["很好 with many English words"]
        one = generation.score(hypotheses, ["很好 many English words here"])
        bleu = sacrebleu.corpus_bleu(
            hypotheses, [["很好 many English words here"]]
        )
        self.assertAlmostEqual(one["bleu"], bleu.score)

    @parameterized.parameters(
        ([], [], "at least one"),
        (["a"], ["a", "b"], "found 2 and 1"),
        ("ab", ["a", "b"], "hypotheses='ab': expected a list"),
        (["a", "b"], "ab", "references='ab': expected a list"),
        (["a", "b"], ["a", []], "reference 1: expected a text or a list"),
        (["a", "b"], ["a", None], "reference 1"),
        (["a", None], ["a", "b"], "hypothesis 1: expected text, found nothing"),
        (["a"], [["a", 3]], "reference 0: expected text, found 3"),
    )
    def test_invalid_texts_are_refused(self, hypotheses, references, message):
        for function in (generation.score, generation.rouge):
            with self.assertRaisesRegex(errors.InputError, message):
                function(hypotheses, references)

    def test_the_examples_of_the_docstrings(self):
        failed, tried = doctest.testmod(
            generation,
            optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE,
        )
        self.assertEqual(failed, 0)
        self.assertGreater(tried, 3)


class TokensTest(parameterized.TestCase):
    @parameterized.parameters(
        ("It's 3.5% of U.S. x_y-z", "it s 3 5 of u s x y z"),
        ("Straße, ÉCOLE; naïve", "straße école naïve"),
        ("二〇二六年的GPT-4模型", "二 〇 二 六 年 的 gpt 4 模 型"),
        ("カタかな한국어 말", "カ タ か な 한국어 말"),
        ("हिन्दी में", "हिन्दी में"),  # marks are parts of words
        ("x² ½ ❤️ —", "x"),
        ("𠀀𠀁", "𠀀 𠀁"),
        ("", ""),
    )
    def test_words_and_characters(self, text, expected):
        self.assertEqual(generation.tokens(text), expected.split())

    def test_ascii_has_the_tokens_of_the_library(self):
        from rouge_score import tokenize

        text = "".join(map(chr, range(128))) + " a_b C-D3.5 "
        self.assertEqual(
            generation.tokens(text), tokenize.tokenize(text, stemmer=None)
        )


class LeadTest(parameterized.TestCase):
    @parameterized.parameters(
        ("One fell.  Two rose! Three?", 1, "One fell."),
        ("One fell.  Two rose! Three?", 2, "One fell.  Two rose!"),
        ("Dr. Ada met him. He left.", 1, "Dr. Ada met him."),
        ("天气好。我们走！再见", 2, "天气好。我们走！"),
        ("a heading\n\n A text. More", 2, "a heading\n\n A text."),
        ("a text\nof lines. More", 1, "a text\nof lines."),
        (" One. ", 3, "One."),
        ("Ha. Ha. Ha.", 2, "Ha. Ha."),
        (" \n", 1, ""),
        ("", 1, ""),
    )
    def test_first_sentences(self, text, n, expected):
        self.assertEqual(generation.lead(text, n), expected)

    def test_at_least_one_sentence_is_expected(self):
        with self.assertRaisesRegex(errors.InputError, "n=0"):
            generation.lead("a", 0)

    def test_all_sentences_are_the_text(self):
        text = "A first one. A second one! And 3.5 more? “Yes.”"
        count = len(sentence_splitter.split(text))
        self.assertGreater(count, 2)
        self.assertEqual(generation.lead(text, count), text)


if __name__ == "__main__":
    absltest.main()
