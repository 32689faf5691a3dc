"""What the page shows of the answers of each task."""

import math

import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bert_keras import commands, console, errors, playground, word_vectors
from bert_keras.playground import blocks, fill_mask, shared_words, views
from bert_keras.playground import session as playground_session
from bert_keras.tasks import base
from tests import sharp
from tests.bert_keras.playground import pages

VIEWS = {
    "causal_lm": views.Continuation,
    "classification": views.Classes,
    "early_exit": views.EarlyExit,
    "pair": views.Classes,
    "multi_label": views.Classes,
    "hostile": views.Classes,
    "regression": views.Number,
    "tagging": views.Entities,
    "intent_slots": views.IntentSlots,
    "question_answering": views.Answers,
    "embedding": views.Similarity,
    "one_embedding": views.Embeddings,
    "masked_lm": views.FilledMasks,
    "multiple_choice": views.Choices,
    "sequence_to_sequence": views.GeneratedText,
    "denoising": views.GeneratedText,
    "extractive_summary": views.Summary,
    "next_sentence": views.Follows,
    "matching": views.Matches,
    "replaced_tokens": views.SuspectTokens,
    "token_order": views.RestoredOrder,
    "token_scores": views.TokenProbabilities,
    "bidirectional_lm": views.ExpectedWords,
    "elmo_tagging": views.Entities,
    "users": views.View,
}


def find(reply, block):
    return [each for each in reply["blocks"] if each["block"] == block]


class ViewsTest(parameterized.TestCase):
    @parameterized.parameters(*pages.CASES)
    @pytest.mark.slow_after(5)
    def test_a_view_is_chosen_by_the_shape_of_the_answers(self, case):
        self.assertIs(type(pages.session(case).view), VIEWS[case])

    @pytest.mark.slow
    def test_every_task_of_the_package_has_a_view_of_its_own(self):
        seen = {
            pages.session(case).task.name
            for case, view in VIEWS.items()
            if view is not views.View
        }
        self.assertContainsSubset(base.names(), seen)

    @parameterized.parameters(*pages.CASES)
    @pytest.mark.slow_after(5)
    def test_examples_are_answered(self, case):
        session = pages.session(case)
        if case != "users":
            self.assertNotEmpty(session.examples)
        for example in session.examples:
            self.assertNotEmpty(session.answer(example)["blocks"])

    def test_early_exits_name_the_layer(self):
        session = pages.session("early_exit")
        (answer,) = session.predictor.predict(["a good film"])
        reply = session.answer({"text": "a good film"})
        (message,) = find(reply, "message")
        self.assertEqual(
            message["text"],
            f"Answered by layer {answer['exit_layer']} of 2.",
        )

    @parameterized.parameters(*pages.CASES)
    @pytest.mark.slow_after(5)
    def test_the_answers_are_the_predictors(self, case):
        session = pages.session(case)
        texts = pages.texts(case)
        rows = [texts]
        if session.view.lines:
            column = session.view.lines
            lines = texts[column].split("\n")
            rows = [texts | {column: line} for line in lines]
        answers = session.answer(texts)["answers"]
        self.assertEqual(answers, session.predictor.predict(rows))

    @parameterized.parameters("classification", "pair", "multi_label")
    def test_classes_are_sorted_by_score(self, case):
        session = pages.session(case)
        reply = session.answer(pages.texts(case))
        (answer,), ((bars,)) = reply["answers"], [find(reply, "bars")[0]]
        values = [row["value"] for row in bars["rows"]]
        self.assertEqual(values, sorted(answer["scores"], reverse=True))
        names = dict(zip(session.task.labels, answer["scores"], strict=True))
        self.assertEqual(
            {row["label"]: row["value"] for row in bars["rows"]}, names
        )
        best = [row["label"] for row in bars["rows"] if row["best"]]
        self.assertEqual(
            ",".join(sorted(best)),
            ",".join(sorted(filter(None, answer["label"].split(",")))),
        )

    def test_choices_have_their_texts_and_absent_ones_no_bar(self):
        session = pages.session("multiple_choice")
        texts = pages.texts("multiple_choice")
        reply = session.answer(texts)
        (answer,), (bars,) = reply["answers"], find(reply, "bars")
        shown = {
            row["label"]: (row["tag"], row["value"]) for row in bars["rows"]
        }
        expected = {
            texts["choice_a"]: ("A", answer["scores"][0]),
            texts["choice_b"]: ("B", answer["scores"][1]),
        }
        self.assertEqual(shown, expected)
        (best,) = (row["label"] for row in bars["rows"] if row["best"])
        self.assertEqual(best, answer["choice"])

    def test_a_summary_is_highlighted_and_each_sentence_has_a_bar(self):
        session = pages.session("extractive_summary")
        # The same sentence twice, of which one is chosen.
        text = "a good film . Was it ? A good film . Was it ? 😀 old !"
        reply = session.answer({"text": text})
        (answer,), (bars,) = reply["answers"], find(reply, "bars")
        (marked,) = find(reply, "marked_text")
        sentences = ["a good film .", "Was it ?", "A good film ."]
        sentences += ["Was it ?", "😀 old !"]
        self.assertEqual([row["label"] for row in bars["rows"]], sentences)
        self.assertEqual(
            [row["value"] for row in bars["rows"]], answer["scores"]
        )
        best = [row["best"] for row in bars["rows"]]
        self.assertEqual(np.flatnonzero(best).tolist(), answer["sentences"])
        begins = [text.index(sentences[0]), text.index(sentences[1])]
        begins += [
            text.index("A good"),
            text.rindex("Was it"),
            text.index("😀"),
        ]
        self.assertEqual(
            [span["start"] for span in marked["spans"]],
            [begins[index] for index in answer["sentences"]],
        )
        for row, begin, sentence in zip(
            bars["rows"], begins, sentences, strict=True
        ):
            end = begin + len(sentence)
            self.assertEqual(
                (row["span"]["start"], row["span"]["end"]), (begin, end)
            )

    def test_sentences_that_were_not_read_are_said(self):
        session = pages.session("extractive_summary")
        reply = session.answer({"text": "A film . " * 12})
        (answer,) = reply["answers"]
        self.assertEqual(answer["unread"], 6)
        said = [block["text"] for block in find(reply, "message")]
        self.assertTrue(any("6 sentences" in text for text in said), said)

    @parameterized.parameters("tagging", "intent_slots")
    def test_spans_are_the_entities_in_code_points(self, case):
        reply = pages.session(case).answer(pages.texts(case))
        (answer,) = reply["answers"]
        (text,) = find(reply, "marked_text")
        self.assertNotEmpty(answer["text"])
        spans = text["spans"]
        self.assertEqual(
            [text["text"][span["start"] : span["end"]] for span in spans],
            answer["text"],
        )
        self.assertEqual([span["label"] for span in spans], answer["type"])

    def test_questions_share_a_context(self):
        reply = pages.session("question_answering").answer(
            pages.texts("question_answering")
        )
        (text,) = find(reply, "marked_text")
        headlines = find(reply, "headline")
        self.assertLen(headlines, 2)
        answered = [a["answer"] for a in reply["answers"] if a["answer"]]
        self.assertEqual(
            [text["text"][s["start"] : s["end"]] for s in text["spans"]],
            answered,
        )
        for bars, answer in zip(
            find(reply, "bars"), reply["answers"], strict=True
        ):
            for row, text_of_span in zip(
                bars["rows"], answer["answers"], strict=True
            ):
                span = row["span"]
                part = text["text"][span["start"] : span["end"]]
                self.assertEqual(part, text_of_span)

    def test_candidates_of_a_mask_begin_with_the_answer(self):
        reply = pages.session("masked_lm").answer(pages.texts("masked_lm"))
        (answer,) = reply["answers"]
        bars = find(reply, "bars")
        self.assertLen(bars, 2)
        for index, each in enumerate(bars):
            rows = each["rows"]
            self.assertEqual(rows[0]["label"], answer["token"][index])
            np.testing.assert_allclose(
                rows[0]["value"], answer["score"][index], atol=1e-6
            )
            values = [row["value"] for row in rows]
            self.assertEqual(values, sorted(values, reverse=True))
            self.assertLess(sum(values), 1 + 1e-5)
        (text,) = find(reply, "marked_text")
        self.assertNotIn("[MASK]", text["text"])

    @parameterized.parameters(
        ("a [MASK] film", ["good"], "a good film", ["good"]),
        ("a film[MASK] [MASK]", ["##s", "。"], "a films 。", ["s", "。"]),
        ("[MASK]😀[MASK]", ["a"], "a😀[MASK]", ["a"]),
        ("a", ["b"], "a", []),
    )
    def test_masks_are_filled_in_their_order(self, text, tokens, filled, parts):
        got, spans = fill_mask.fill(text, "[MASK]", tokens)
        self.assertEqual(got, filled)
        self.assertEqual([got[s["start"] : s["end"]] for s in spans], parts)

    def test_a_text_without_a_mask_gets_a_message(self):
        reply = pages.session("masked_lm").answer({"text": "a film"})
        (message,) = reply["blocks"]
        self.assertIn("no [MASK]", message["text"])

    def test_lines_are_compared_with_the_first_one(self):
        session = pages.session("one_embedding")
        lines = ["a good film", "a good film", "dull old plot"]
        reply = session.answer({"text": "\n".join(lines)})
        bars, *words = find(reply, "bars")
        same, other = (row["value"] for row in bars["rows"])
        self.assertAlmostEqual(same, 1, places=5)
        self.assertLess(other, 1 - 1e-4)
        captions = [each["caption"].split(":")[0] for each in words]
        self.assertEqual(captions, ["good", "film"])
        for each in words:
            (row,) = each["rows"]
            self.assertEqual(row["label"], "a good film")
            self.assertAlmostEqual(row["value"], 1, places=5)

    def test_the_words_that_lines_share_differ_by_their_contexts(self):
        session = pages.session("one_embedding")
        lines = ["the FILM is 很好", "a good film", "dull", "film 很 好 很好"]
        reply = session.answer({"text": "\n".join(lines)})
        _, film, good = find(reply, "bars")
        self.assertEqual(film["caption"], "film: cosine with its first use")
        self.assertEqual(
            [row["label"] for row in film["rows"]], [lines[1], lines[3]]
        )
        self.assertEqual([row["label"] for row in good["rows"]], [lines[3]])
        vectors = word_vectors.ContextualVectors(session.predictor)
        finder = vectors.finder(["film"])
        uses = [
            next(each for each in finder.find(line) if each.word == "film")
            for line in (lines[0], lines[1], lines[3])
        ]
        states, _ = vectors(uses)
        expected = word_vectors.cosines(states[:1], states[1:])[0]
        values = [row["value"] for row in film["rows"]]
        np.testing.assert_allclose(values, expected, atol=1e-5)
        self.assertLess(max(values), 1 - 1e-4)

    def test_long_lines_that_are_equal_are_quick(self):
        random = np.random.default_rng(0).integers(0x4E00, 0x9FA5, 100_000)
        line = "".join(map(chr, random))
        self.assertNotEmpty(shared_words.in_common([line, line]))

    @parameterized.parameters(
        (["我喜欢吃苹果", "苹果和华为", "a red apple"], ["苹果"]),
        (["北京大学的课", "在北京大学", "去北京"], ["北京", "北京大学"]),
        (["我吃苹果", "他吃苹果", "苹果手机"], ["苹果", "吃苹果"]),
        (
            ["他在北京大学的图书馆", "我去北京大学的图书馆"],
            ["北京大学的图书馆"],
        ),
        (["一", "一"], []),
        (["not hot", "hot not", "x x"], ["not", "hot"]),
        (["苹果苹果"], []),
    )
    def test_shared_words_are_those_of_most_lines(self, lines, expected):
        self.assertEqual(shared_words.in_common(lines), expected)

    def test_the_scale_is_the_cosine(self):
        reply = pages.session("embedding").answer(pages.texts("embedding"))
        ((answer,), (scale,)) = reply["answers"], find(reply, "scale")
        vectors = np.array([answer["embedding"], answer["embedding_pair"]])
        self.assertAlmostEqual(
            scale["value"], float(vectors[0] @ vectors[1]), places=5
        )

    def test_a_users_view_is_preferred(self):
        class Moods(views.View):
            needs = {"mood": str, "scores": list}

            def show(self, rows):
                [(texts, answer)] = rows
                return [blocks.headline(texts["headline"], answer["mood"])]

        session = playground.Session(
            pages.session("users").predictor, views=(Moods, *playground.VIEWS)
        )
        (block,) = session.answer({"headline": "a film"})["blocks"]
        self.assertEqual(block["caption"], "a film")

    def test_an_unknown_answer_is_shown_by_its_keys(self):
        session = pages.session("users")
        reply = session.answer({"headline": "a fine film"})
        (mood,), (bars,) = find(reply, "headline"), find(reply, "bars")
        self.assertEqual(mood["text"], reply["answers"][0]["mood"])
        self.assertCountEqual(
            [row["label"] for row in bars["rows"]], ["bad", "good"]
        )
        self.assertTrue(session.describe()["open_json"])


class SessionTest(parameterized.TestCase):
    def test_wordpieces_are_what_the_model_reads(self):
        reply = pages.session("pair").answer(
            {"text": "a film", "text_pair": "dulled xyz"}
        )
        (row,) = reply["wordpieces"]["rows"]
        self.assertEqual(
            [piece["token"] for piece in row],
            "[CLS] a film [SEP] dull ##ed [UNK] [SEP]".split(),
        )
        self.assertEqual(
            [piece["segment"] for piece in row], [0, 0, 0, 0, 1, 1, 1, 1]
        )
        self.assertEqual(reply["wordpieces"]["unknown"], 1)

    def test_packed_texts_count_as_segments(self):
        reply = pages.session("embedding").answer(
            {"text": "a film", "text_pair": "plot"}
        )
        (row,) = reply["wordpieces"]["rows"]
        self.assertEqual(
            [piece["segment"] for piece in row if piece["token"] == "[CLS]"],
            [0, 1],
        )

    def test_a_mask_is_one_wordpiece(self):
        reply = pages.session("masked_lm").answer({"text": "a [MASK]"})
        (row,) = reply["wordpieces"]["rows"]
        self.assertEqual(row[2]["token"], "[MASK]")

    def test_a_long_text_has_a_bounded_number_of_wordpieces(self):
        reply = pages.session("tagging").answer({"text": "a " * 2000})
        pieces = reply["wordpieces"]
        self.assertGreater(pieces["count"], 2000)
        self.assertLessEqual(sum(map(len, pieces["rows"])), 512)

    def test_a_truncated_text_is_said_to_be(self):
        reply = pages.session("classification").answer({"text": "a " * 100})
        self.assertIn("32 tokens", reply["blocks"][-1]["text"])

    @parameterized.parameters(
        (None, "found nothing"),
        ("a", "found a string"),
        ([], "found a list"),
        ({}, "expected an object with text, found nothing"),
        ({"text": "a", "more": "b"}, "found text, more"),
        ({"text": 3}, "text: expected text, found 3"),
        ({"text": None}, "text: expected text, found nothing"),
        ({"text": " \n"}, "expected a text; write one first"),
        ({"text": "a" * 100_001}, "at most 100,000 .* found 100,001"),
    )
    def test_what_is_no_text_is_refused(self, texts, message):
        with self.assertRaisesRegex(errors.InputError, message):
            pages.session("classification").answer(texts)

    @parameterized.parameters(
        ("\n \n", "question is empty"),
        ("a\n" * 21, "at most 20 lines, found 21"),
    )
    def test_lines_are_bounded(self, question, message):
        with self.assertRaisesRegex(errors.InputError, message):
            pages.session("question_answering").answer(
                {"question": question, "context": "a film"}
            )

    def test_the_model_is_described(self):
        session = pages.session("pair")
        described = session.describe()
        model = session.predictor.model
        self.assertEqual(described["task"], "classification")
        self.assertEqual(
            described["parameters"],
            sum(math.prod(weight.shape) for weight in model.weights),
        )
        self.assertEqual(
            [column["title"] for column in described["columns"]],
            ["Text", "Second text"],
        )

    @parameterized.parameters("classification", "one_embedding")
    def test_examples_that_are_refused_are_not_offered(self, case):
        refused = [
            {"text": text}
            for text in (
                "",
                " \n",
                "a" * (playground_session.MOST_CHARACTERS + 1),
            )
        ]
        accepted = [{"text": f"film {n}"} for n in range(9)]
        with absltest.mock.patch.object(console, "say") as say:
            session = playground.Session(
                pages.session(case).predictor,
                examples=iter([*refused, *accepted]),
            )
        self.assertEqual(session.examples, accepted[:6])
        self.assertIn("3 examples are not offered", say.call_args[0][0])
        # The user's file may have no other rows.
        with absltest.mock.patch.object(console, "say"):
            session = playground.Session(
                pages.session(case).predictor, examples=refused
            )
        self.assertEqual(session.examples, pages.session(case).examples)

    def test_a_refusal_names_the_command_as_the_user_calls_it(self):
        texts = {"text": "a" * (playground_session.MOST_CHARACTERS + 1)}
        for called, name in (
            (True, "`bert-keras predict`"),
            (False, "`python -m trainers.predict`"),
        ):
            with absltest.mock.patch.object(
                commands, "_called_by_name", called
            ):
                with self.assertRaisesRegex(errors.InputError, name):
                    pages.session("classification").answer(texts)

    def test_examples_of_the_users_data_are_offered(self):
        rows = [{"text": f"film {i}", "label": "bad"} for i in range(9)]
        session = playground.Session(
            sharp.make("classification"), examples=rows
        )
        self.assertLen(session.examples, 6)
        self.assertEqual(session.examples[0], {"text": "film 0"})


if __name__ == "__main__":
    absltest.main()
