"""The model cards of runs: their figures, of the best step, after a restart."""

import os
import re
import shutil
import tempfile
from unittest import mock

import pytest
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import checkpoint, console, formats, model_card
from bert_keras.training import run_card, trainer
from tests import tiny
from tests.trainers import mains

SETTINGS = {
    "task": "classification",
    "epochs": 3,
    "batch_size": 8,
    "seq_length": 8,
    "log_every": 1,
    "save_every": 3,
    "learning_rate": 1e-2,
    "max_checkpoints_to_keep": 9,
}


def load(path):
    try:
        from huggingface_hub import ModelCard
    except ImportError:
        raise absltest.SkipTest("needs huggingface_hub") from None
    return ModelCard.load(path)


def without_time(text):
    return re.sub("time: .*\n|sha256: .*", "", text)


class FinetuneTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.init = cls.path("init")
        checkpoint.save(
            cls.init, tiny.masked_lm_model(), tiny.tokenizer(), step=0
        )
        long = "a good film is a good film and a good film\tgood\n"
        cls.rows = mains.write(
            cls.path("rows.tsv"), "text\tlabel\n" + mains.ROWS + long
        )
        cls.whole = cls.path("whole")
        cls.finetune(cls.whole, card_language="de,en", card_license="mit")

    @classmethod
    def path(cls, *names):
        return os.path.join(cls.folder, *names)

    @classmethod
    def finetune(cls, output, **changes):
        return bert_keras.finetune(
            cls.init, cls.rows, cls.rows, output=output, **SETTINGS, **changes
        )

    def cards(self, run):
        """{step, or "": text}"""
        folders = {"": run} | {
            step: checkpoint.step_folder(run, step)
            for step in checkpoint.steps(run)
        }
        texts = {}
        for name, folder in folders.items():
            with open(os.path.join(folder, model_card.FILE)) as file:
                texts[name] = file.read()
        return texts

    def test_its_metrics_are_those_of_evaluate(self):
        loaded = load(os.path.join(self.whole, model_card.FILE))
        self.assertEqual(
            {e.metric_name: e.metric_value for e in loaded.data.eval_results},
            bert_keras.evaluate(self.whole, self.rows),
        )
        (first, *_) = loaded.data.eval_results
        self.assertEqual(first.dataset_name, "rows.tsv")
        self.assertEqual(loaded.data.language, ["de", "en"])
        self.assertEqual(loaded.data.license, "mit")

    def test_every_step_shows_its_own_metrics_and_the_run_the_best_steps(self):
        cards = self.cards(self.whole)
        self.assertLen(cards, 4)
        for step in checkpoint.steps(self.whole):
            folder = checkpoint.step_folder(self.whole, step)
            head = model_card.read(folder).head
            (result,) = head["model-index"][0]["results"]
            self.assertEqual(
                {each["name"]: each["value"] for each in result["metrics"]},
                bert_keras.evaluate(folder, self.rows),
            )
        self.assertEqual(cards[""], cards[checkpoint.read(self.whole).step])

    def test_it_says_how_the_model_was_made(self):
        card = model_card.read(self.whole)
        origin = card.sections[model_card.ORIGIN]
        self.assertIn("bert-keras finetune \\\n", origin)
        self.assertIn("--task=classification", origin)
        self.assertIn("--learning_rate=0.01", origin)
        self.assertNotIn("--log_every", origin)
        # log_every had another value than its default.
        self.assertIn("Settings that affect the result and are not", origin)
        self.assertNotIn("--warmup_ratio", origin)
        self.assertIn("training rows: 17", origin)
        self.assertIn("of 9, of 8 rows each", origin)
        self.assertIn("CPU cores", origin)
        self.assertIn(
            "Truncated: 1 of 17 training rows, 1 of 17 dev rows, at 8 tokens",
            card.sections[model_card.LIMITS],
        )
        self.assertEqual(card.head["library_name"], "bert_keras")

    @pytest.mark.slow
    def test_a_run_that_was_stopped_writes_the_same_cards(self):
        run = self.path("stopped")
        save = trainer.Trainer._save

        def save_and_stop(self, step):
            save(self, step)
            if step == 6:
                raise KeyboardInterrupt

        with mock.patch.object(trainer.Trainer, "_save", save_and_stop):
            with self.assertRaises(KeyboardInterrupt):
                self.finetune(run, card_language="de,en", card_license="mit")
        self.finetune(run, card_language="de,en", card_license="mit")
        expected, cards = self.cards(self.whole), self.cards(run)
        self.assertEqual(cards.keys(), expected.keys())
        for name, card in cards.items():
            card = card.replace("stopped", "whole")
            self.assertEqual(without_time(card), without_time(expected[name]))

    def test_an_edited_card_is_kept_and_the_run_says_so(self):
        run = self.path("edited")
        os.makedirs(run)
        path = mains.write(os.path.join(run, model_card.FILE), "# My notes\n")
        with console.output.capture() as captured:
            self.finetune(run)
        self.assertIn("edited, so kept as it is", captured.get())
        with open(path) as file:
            self.assertEqual(file.read(), "# My notes\n")
        best = checkpoint.read(run)
        self.assertIn("model-index", model_card.read(best.folder).head)

    @pytest.mark.slow
    def test_the_language_and_the_name_of_the_base_model_are_inherited(self):
        init = self.path("models--org--tiny-bert", "snapshots", "0123abc")
        shutil.copytree(self.init, init)
        mains.write(
            os.path.join(init, "step-00000000", model_card.FILE),
            "---\nlanguage: zh\nlicense: mit\n---\n# Tiny\n",
        )
        run = self.path("inherited")
        bert_keras.finetune(
            init, self.rows, output=run, **SETTINGS,
            card_dataset="org/films", dev_fraction=0.3,
        )  # fmt: skip
        head = model_card.read(run).head
        self.assertEqual(head["language"], "zh")
        self.assertEqual(head["base_model"], "org/tiny-bert")
        self.assertEqual(head["datasets"], ["org/films"])
        self.assertNotIn("license", head)
        (result,) = head["model-index"][0]["results"]
        self.assertEqual(result["dataset"]["name"], "org/films")

    @pytest.mark.slow
    def test_the_language_of_a_published_model_is_not_that_of_the_texts(self):
        init = self.path("english")
        formats.FORMATS["hugging_face"].write(
            init, tiny.masked_lm_model(), tiny.tokenizer()
        )
        mains.write(
            os.path.join(init, model_card.FILE), "---\nlanguage: en\n---\n# E\n"
        )
        run = self.path("german")
        bert_keras.finetune(
            init, self.rows, output=run, **SETTINGS, dev_fraction=0.3
        )
        self.assertNotIn("language", model_card.read(run).head)

    def test_a_model_of_random_weights_has_no_base_model(self):
        init = self.path("models--org--other-bert", "snapshots", "0123abc")
        shutil.copytree(self.init, init)
        run = self.path("from_scratch")
        bert_keras.finetune(
            init, self.rows, output=run, **SETTINGS,
            from_scratch=True, dev_fraction=0.3,
        )  # fmt: skip
        self.assertNotIn("base_model", model_card.read(run).head)

    def test_a_predictor_and_what_is_made_of_it_know_the_card(self):
        self.assertEqual(
            bert_keras.load(self.whole).card, model_card.read(self.whole)
        )


class NamesTest(parameterized.TestCase):
    @parameterized.parameters(
        ("/c/hub/models--bert-base-uncased/snapshots/86b", "bert-base-uncased"),
        ("models--a--b/snapshots/86b/", "a/b"),
        ("runs/models--a--b", ""),
        ("runs/base", ""),
    )
    def test_names_of_the_hub_are_read_from_its_cache(self, folder, name):
        self.assertEqual(checkpoint.hub_name(folder), name)

    @parameterized.parameters(
        (0.2, "less than 1 s"), (59.6, "1 min"), (61, "1 min 1 s"),
        (3600, "1 h"), (7325, "2 h 2 min"),
    )  # fmt: skip
    def test_durations_are_readable(self, seconds, text):
        self.assertEqual(run_card._duration(seconds), text)

    def test_the_time_is_that_of_all_starts(self):
        run = self.create_tempdir().full_path
        lines = (
            '{"step": 10, "loss": 1.0, "rows_per_second": 8.0}\n'
            '{"step": 10, "dev/accuracy": 0.5}\n'
            '{"step": 15, "loss": 1.0, "rows_per_second": 4.0}\n'
            '{"step": 20, "loss": 1.0, "rows_per_second": 4.0}\n'
        )
        mains.write(os.path.join(run, "log.jsonl"), lines)
        self.assertEqual(run_card.training_seconds(run, 4, 15), 5 + 5)


if __name__ == "__main__":
    absltest.main()
