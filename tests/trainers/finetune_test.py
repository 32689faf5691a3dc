"""Every kind of task from a file to answers, as a user calls the mains."""

import json
import os

import pytest
from absl.testing import absltest

from bert_keras import checkpoint, predictor
from bert_keras.data import records
from tests.trainers import mains
from tests.trainers.mains import ROWS, call, write


def tearDownModule():
    mains.close()


class FinetuneTest(mains.Case):
    def test_tagging_goes_from_a_file_to_places_in_a_text(self):
        rows = "the\tO\nactor\tB-PER\nis\tO\ngood\tO\n\n" * 16
        rows = write(self.path("rows.conll"), rows)
        run = self.path("tagger")
        flags = self.finetune_flags(train=rows, dev=rows, output=run)
        flags |= {"task": "tagging", "learning_rate": 0.01, "epochs": 20}
        code, out, error = call("trainers.finetune", **flags)
        self.assertEqual((code, error), (0, ""))
        self.assertIn("dev f1", out)
        (answer,) = predictor.load(run).predict(["is the actor dull"])
        self.assertEqual(answer["text"], ["actor"])
        self.assertEqual((answer["start"], answer["end"]), ([7], [12]))
        code, _, error = call(
            "trainers.evaluate", checkpoint=run, data=rows, columns="text=0"
        )
        self.assertEqual(code, 1)
        self.assertIn("no columns", error)

    def test_embedding_learns_from_pairs_in_one_row(self):
        pairs = "a good film\ta fine film\t5\na good film\tdull plot\t0\n"
        rows = write(
            self.path("pairs.tsv"), "text\ttext_pair\tlabel\n" + pairs * 8
        )
        run = self.path("vectors")
        flags = self.finetune_flags(train=rows, dev=rows, output=run)
        flags |= {"task": "embedding", "learning_rate": 0.01, "epochs": 20}
        code, out, error = call("trainers.finetune", **flags)
        self.assertEqual((code, error), (0, ""))
        log = self.log(run)
        losses = [line["loss"] for line in log if "loss" in line]
        self.assertLess(losses[-1], 0.1 * losses[0])
        self.assertGreater(
            min(n["gradient_norm"] for n in log if "loss" in n), 0
        )
        self.assertGreater(log[-1]["dev/spearman"], 0.8)
        # Without --profile nothing is traced, in a run of more steps than that.
        self.assertFalse(os.path.exists(os.path.join(run, "profile")))

    @pytest.mark.slow
    def test_questions_are_learnt_scored_and_answered(self):
        context = "the film is good . " * 9 + "the plot is bad ."
        questions = [
            ("the film ?", [("good", context.index("good"))]),
            ("the plot ?", [("bad", context.index("bad")), ("bad", 0)]),
            ("the actor ?", []),
        ]
        rows = write(
            self.path("squad.json"),
            json.dumps({"data": [{"paragraphs": [{"context": context, "qas": [
                {"id": name, "question": name, "is_impossible": not answers,
                 "answers": [{"text": t, "answer_start": s}
                             for t, s in answers]}
                for name, answers in questions
            ]}]}]}),
        )  # fmt: skip
        run, answers = self.path("squad"), self.path("squad.jsonl")
        code, _, error, said = mains.call_and_listen(
            "trainers.finetune",
            **self.finetune_flags(
                task="question_answering",
                train=rows,
                dev=rows,
                output=run,
                epochs=1,
                seq_length=32,
                doc_stride=8,
            ),
        )
        self.assertEqual((code, error), (0, ""))
        self.assertIn("1 of 3 answers", said)
        lines = records.Records(os.path.join(run, "records")).lengths
        self.assertGreater(len(lines), len(questions))  # windows
        code, out, error = call(
            "trainers.evaluate", checkpoint=run, data=rows, output=answers
        )
        self.assertEqual((code, error), (0, ""))
        self.assertIn("best_f1_threshold", out)
        code, _, error = call(
            "trainers.evaluate", checkpoint=run, data=rows, columns="text=a"
        )
        self.assertEqual(code, 1)
        self.assertIn("have no columns", error)
        with open(answers) as file:
            expected = [json.loads(line)["answer"] for line in file]
        lines = write(
            self.path("questions.txt"),
            "".join(f"{name}\t{context}\n" for name, _ in questions),
        )
        code, out, _ = call("trainers.predict", checkpoint=run, input=lines)
        got = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(
            [answer["answer"] for answer in got],
            [answer["answer"] for answer in expected],
        )
        for answer in got:
            self.assertEqual(
                context[answer["start"] : answer["end"]], answer["answer"]
            )

    def test_without_dev_a_part_of_each_label_is_held_out(self):
        folder = self.path("split")
        code, out, error = call(
            "trainers.finetune",
            **self.finetune_flags(output=folder, dev="", dev_fraction=0.25),
        )
        self.assertEqual((code, error), (0, ""))
        self.assertRegex(out, "training rows +│ 12 ")
        self.assertRegex(out, "dev rows +│ 4 ")
        self.assertRegex(out, "dev accuracy of always '(good|bad)' +│ 0.5 ")

    @pytest.mark.slow
    def test_articles_stay_whole_and_the_best_threshold_is_saved(self):
        def article(number):
            context = f"the film is number {number} and good"
            asked = [("a number", "number"), ("an actor", "")]
            questions = [
                {
                    "id": f"{number} {question}",
                    "question": question,
                    "is_impossible": not answer,
                    "answers": [{"text": answer, "answer_start": 12}][
                        : len(answer)
                    ],
                }
                for question, answer in asked
            ]
            return {"paragraphs": [{"context": context, "qas": questions}]}

        train = write(
            self.path("articles.json"),
            json.dumps({"data": [article(number) for number in range(8)]}),
        )
        folder = self.path("articles")
        flags = self.finetune_flags(
            task="question_answering", train=train, dev="", output=folder
        )
        flags |= {"dev_fraction": 0.25, "seq_length": 32}
        code, out, error = call("trainers.finetune", **flags)
        self.assertEqual((code, error), (0, ""))
        self.assertRegex(out, "training rows +│ 12 ")
        self.assertRegex(out, "dev rows +│ 4 ")
        for line in self.log(folder):
            if "dev/f1" in line:
                saved = checkpoint.read(
                    checkpoint.step_folder(folder, line["step"])
                )
                self.assertEqual(
                    saved.task.no_answer_threshold,
                    line["dev/best_f1_threshold"],
                )
                self.assertNotEqual(saved.task.no_answer_threshold, 0)

    def test_one_article_cannot_be_held_out_in_part(self):
        context = "the film is good"
        asked = {
            "id": "1",
            "question": "what ?",
            "answers": [{"text": "good", "answer_start": 12}],
        }
        article = {"paragraphs": [{"context": context, "qas": [asked] * 9}]}
        train = write(
            self.path("one_article.json"), json.dumps({"data": [article]})
        )
        folder = self.path("one_article")
        for seed in (1, 3):  # the article is learned from, or held out
            code, _, error = call(
                "trainers.finetune",
                **self.finetune_flags(
                    task="question_answering",
                    train=train,
                    dev="",
                    output=folder,
                    dev_fraction=0.4,
                    seed=seed,
                ),
            )
            self.assertEqual(code, 1)
            self.assertRegex(
                error, "dev_fraction=0.4: expected rows .*found none.*--dev"
            )
        self.assertFalse(os.path.exists(folder))

    def test_a_label_whose_only_row_is_held_out_says_so(self):
        rows = "".join(f"text {n}\tonly {n}\n" for n in range(12))
        train = write(self.path("single.tsv"), "text\tlabel\n" + rows)
        code, _, error = call(
            "trainers.finetune",
            **self.finetune_flags(
                train=train, dev="", dev_fraction=0.4, output=self.path("x")
            ),
        )
        self.assertEqual(code, 1)
        self.assertRegex(
            error, "each label must be in both parts; or give a file with"
        )

    def test_truncated_rows_are_counted(self):
        long = "text\tlabel\n" + ROWS.replace("a bad film", "bad " * 20)
        train = write(self.path("long.tsv"), long)
        folder = self.path("long")
        flags = self.finetune_flags(output=folder, train=train, epochs=1)
        message = "4 of 16 training rows, at 16 tokens"
        for _ in range(2):  # and where the run is at its end
            code, out, error, said = mains.call_and_listen(
                "trainers.finetune", **flags
            )
            self.assertEqual((code, error), (0, ""))
            self.assertRegex(out, f"rows truncated +│ {message}")
            self.assertIn(f"truncated: {message}", " ".join(said.split()))
        self.assertNotIn("truncated", self.printed["finetune"])

    @pytest.mark.slow
    def test_malformed_rows_are_counted_or_stop(self):
        bad = write(self.path("bad.tsv"), "text\tlabel\n" + ROWS + "no label\n")
        flags = self.finetune_flags(output=self.path("bad"), train=bad)
        code, _, error = call("trainers.finetune", **flags)
        self.assertEqual(code, 1)
        self.assertRegex(error, "bad.tsv, line 18")
        code, out, error = call("trainers.finetune", **flags, on_bad_row="skip")
        self.assertEqual((code, error), (0, ""))
        self.assertRegex(out, "malformed rows skipped +│ 1 ")
        flags = self.finetune_flags(output=self.path("bad_dev"), dev=bad)
        code, _, error, said = mains.call_and_listen(
            "trainers.finetune", **flags, on_bad_row="skip"
        )
        self.assertEqual((code, error), (0, ""))
        self.assertIn("1 of 17 rows are malformed", " ".join(said.split()))

    def test_numbers_are_learned_and_scored(self):
        rows = write(
            self.path("numbers.tsv"),
            "text\tlabel\n"
            + ROWS.replace("good\n", "4.5\n").replace("bad\n", "0.5\n"),
        )
        folder = self.path("numbers")
        code, out, error = call(
            "trainers.finetune",
            **self.finetune_flags(
                output=folder, train=rows, dev=rows, problem_type="regression"
            ),
        )
        self.assertEqual((code, error), (0, ""))
        self.assertIn("dev spearman", out)
        code, out, _ = call("trainers.predict", checkpoint=folder, input=rows)
        self.assertIn('"value"', out)


if __name__ == "__main__":
    absltest.main()
