"""Fine-tuning without a checkpoint: a new network and its vocabulary."""

import inspect
import json
import os
import shutil
import tempfile
from unittest import mock

import numpy as np
import pytest
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import checkpoint, errors, model_card, safetensors_mmap
from bert_keras.tasks import classification, embedding, multiple_choice
from bert_keras.tokenizers import (
    base,
    bpe,
    characters,
    sentencepiece,
    wordpiece,
)
from bert_keras.training import new_network, run_folder, trainer
from tests import tiny
from tests.bert_keras.tasks import first_word
from tests.trainers import mains

TEXTS = (
    ("a good film , a good story", "great"),
    ("the film is good", "great"),
    ("a dull old film", "poor"),
    ("bad , a very bad story", "poor"),
)
ROWS = "text\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in TEXTS * 2)
SETTINGS = {
    "task": "classification",
    "epochs": 2,
    "batch_size": 4,
    "seq_length": 16,
    "learning_rate": 1e-2,
    "save_every": 2,
    "max_checkpoints_to_keep": 9,
}
REPEATED = {"a", "good", "film", ",", "story", "the", "is", "dull", "old"} | {
    *("bad", "very")
}


class NewNetworkTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.rows = mains.write(cls.path("rows.tsv"), ROWS)
        cls.model = mains.write(
            cls.path("tiny.json"), json.dumps(tiny.bert().to_dict())
        )
        cls.whole = cls.path("whole")
        cls.predictor = cls.finetune(cls.whole)

    @classmethod
    def path(cls, *names):
        return os.path.join(cls.folder, *names)

    @classmethod
    def finetune(cls, output, **changes):
        values = {"train": cls.rows, "dev": cls.rows, "model": cls.model}
        values |= {"output": output} | SETTINGS | changes
        return bert_keras.finetune(**values)

    def started(self, output, **changes):
        """Starts a run, which ends before its first step; its trainer."""
        trainers = []

        def stop(self, *args, **kwargs):
            trainers.append(self)
            raise KeyboardInterrupt

        with mock.patch.object(trainer.Trainer, "train", stop):
            with self.assertRaises(KeyboardInterrupt):
                self.finetune(output, **changes)
        return trainers[0]

    def assert_weights(self, run, other):
        one, two = (
            safetensors_mmap.tensors(
                os.path.join(checkpoint.read(each).folder, checkpoint.OPTIMIZER)
            )
            for each in (run, other)
        )
        self.assertEqual(one.keys(), two.keys())
        for name, value in one.items():
            np.testing.assert_array_equal(value, two[name], name)

    def test_the_vocabulary_is_of_the_rows_texts(self):
        tokenizer = self.predictor.tokenizer
        self.assertContainsSubset(REPEATED, tokenizer.vocabulary)
        self.assertEmpty({"great", "poor"}.intersection(tokenizer.vocabulary))
        self.assertTrue(tokenizer.lowercase)
        config = self.predictor.model.encoder.config
        self.assertEqual(config, tiny.bert(vocab_size=tokenizer.vocab_size))
        self.assertEqual(self.predictor.task.labels, ("great", "poor"))

    def test_each_training_row_is_read_once_and_no_row_held_out(self):
        learned = []

        def learn(texts, *args, **kwargs):
            learned.append(list(texts))
            return tiny.tokenizer()

        rows = mains.write(
            self.path("pairs.tsv"),
            "text\ttext_pair\tlabel\n"
            + "".join(f"a{n}\tb{n}\t{n % 2}\n" for n in range(20)),
        )
        with mock.patch.object(wordpiece.Tokenizer, "learn", learn):
            self.started(
                self.path("half"), train=rows, dev="", dev_fraction=0.5
            )
        (texts,) = learned
        self.assertLen(texts, 20)
        self.assertLen(set(texts), 20)
        self.assertEqual(
            {text[1:] for text in texts if text[0] == "a"},
            {text[1:] for text in texts if text[0] == "b"},
        )

    @parameterized.parameters(
        (classification.Classification(), {"text": "x", "label": "l"}, ["x"]),
        (
            classification.Classification(),
            {"text": "x", "text_pair": "y", "label": "l"},
            ["x", "y"],
        ),
        (
            embedding.Embedding(),
            {"text": "x", "text_pair": "y", "label": "1"},
            ["x", "y"],
        ),
        (
            multiple_choice.MultipleChoice(),
            {"context": "c", "question": "q", "label": "0", "group": "g"}
            | {"choice_a": "x", "choice_b": "y", "choice_c": "z"},
            ["c", "q", "x", "y", "z"],
        ),
        (
            bert_keras.tasks.QuestionAnswering(),
            {"context": "c", "question": "q", "answers": "[]"},
            ["q", "c"],
        ),
        (
            bert_keras.tasks.Tagging(),
            {"text": "x", "tags": "O", "words": "0-1"},
            ["x"],
        ),
    )
    def test_texts_of_a_row_are_those_that_the_network_reads(
        self, task, row, texts
    ):
        self.assertEqual(list(task.vocabulary_texts(row)), texts)

    def test_the_identity_has_all_that_matters(self):
        values = run_folder.files.read_json(
            os.path.join(self.whole, run_folder.IDENTITY)
        )
        self.assertContainsSubset(
            {
                "tokenizer": "wordpiece",
                "vocab_size": 0,
                "model_type": "unigram",
                "lowercase": None,
                "init": "",
            }.items(),
            values["settings"].items(),
        )
        reads = values["reads"]
        self.assertEqual(reads["init"], "")
        tokenizer = self.predictor.tokenizer
        self.assertEqual(reads["tokenizer"], tokenizer.fingerprint)
        self.assertEqual(reads["network"]["vocab_size"], tokenizer.vocab_size)
        self.assertNotIn("vocab", reads)

    def test_the_card_says_that_there_was_no_checkpoint(self):
        card = model_card.read(self.whole)
        self.assertNotIn("base_model", card.head)
        origin = card.sections[model_card.ORIGIN]
        size = self.predictor.tokenizer.vocab_size
        self.assertIn(
            f"start: no checkpoint: random weights, and a vocabulary of {size} "
            "entries learned from the training rows",
            origin,
        )
        self.assertIn(f"--model={self.model}", origin)

    @pytest.mark.slow
    def test_a_resumed_run_never_learns_again(self):
        run = self.path("stopped")
        save = trainer.Trainer._save

        def save_and_stop(self, step):
            save(self, step)
            raise KeyboardInterrupt

        with mock.patch.object(trainer.Trainer, "_save", save_and_stop):
            with self.assertRaises(KeyboardInterrupt):
                self.finetune(run)
        with mock.patch.object(
            wordpiece.Tokenizer, "learn", side_effect=AssertionError("again")
        ):
            self.finetune(run)
        self.assert_weights(run, self.whole)
        # The vocabulary stays the one that it was started with.
        for changes, message in (
            ({"vocab_size": 20}, "vocab_size=0 before, 20 now"),
            ({"model": "tiny"}, "other contents of network"),
        ):
            with self.assertRaisesRegex(errors.InputError, message):
                self.finetune(run, **changes)

    @pytest.mark.slow
    def test_before_the_first_checkpoint_it_is_read_from_the_records(self):
        run = self.path("records_only")
        fingerprint = self.predictor.tokenizer.fingerprint
        first = self.started(run).tokenizer
        self.assertEqual(first.fingerprint, fingerprint)
        with mock.patch.object(
            wordpiece.Tokenizer, "learn", side_effect=AssertionError("again")
        ):
            self.assertEqual(
                self.started(run).tokenizer.fingerprint, fingerprint
            )
        # Whatever changes what is learned makes it learn anew.
        more = mains.write(self.path("more.tsv"), ROWS + "new new\tgreat\n")
        prints = {fingerprint}
        for changes in (
            {"vocab_size": 20},
            {"train": more},
            {"tokenizer": "bpe", "vocab_size": 50},
            {"tokenizer": "sentencepiece", "vocab_size": 24},
            {"tokenizer": "sentencepiece", "vocab_size": 24}
            | {"model_type": "bpe"},
            {"lowercase": False},
            {"dev": "", "dev_fraction": 0.5},
        ):
            prints.add(self.started(run, **changes).tokenizer.fingerprint)
        self.assertLen(prints, 8)
        self.assertEqual(self.started(run).tokenizer.fingerprint, fingerprint)

    def test_killed_before_the_records_are_complete_it_is_learned_again(self):
        run = self.path("early")
        with mock.patch(
            "bert_keras.data.records.write_manifest",
            side_effect=KeyboardInterrupt,
        ):
            with self.assertRaises(KeyboardInterrupt):
                self.finetune(run)
        started = self.started(run)
        self.assertEqual(
            started.tokenizer.fingerprint, self.predictor.tokenizer.fingerprint
        )

    def test_byte_pairs_have_a_frame(self):
        started = self.started(
            self.path("byte_pairs"), tokenizer="bpe", vocab_size=40
        )
        self.assertEqual(started.tokenizer.vocabulary[-3:], bpe.FRAME)
        self.assertEqual(started.model.encoder.config.vocab_size, 43)

    def test_a_vocabulary_is_read_and_known_by_its_contents(self):
        vocab = mains.write(
            self.path("vocab.txt"), "\n".join([*tiny.VOCABULARY, "A"])
        )
        run = self.path("read")
        started = self.started(run, vocab=vocab)
        self.assertFalse(started.tokenizer.lowercase)
        self.assertEqual(started.tokenizer.vocabulary[-1], "A")
        self.assertIn("read from vocab.txt", str(started.card))
        started = self.started(run, vocab=vocab, lowercase=True)
        self.assertTrue(started.tokenizer.lowercase)
        self.finetune(run, vocab=vocab)
        mains.write(vocab, "\n".join([*tiny.VOCABULARY, "B"]))
        with self.assertRaisesRegex(errors.InputError, "contents of vocab"):
            self.finetune(run, vocab=vocab)

    def test_a_task_adds_its_target_to_what_is_learned(self):
        rows = mains.write(
            self.path("targets.tsv"),
            "text\tlabel\n" + "good film\t好 电影\nbad film\t坏 电影\n" * 2,
        )
        run = self.path("targets")
        task = first_word.FirstWord(seq_length=16, target_size=9)
        model = bert_keras.finetune(
            train=rows, model=self.model, task=task, output=run, epochs=1
        )
        self.assertIn("film", model.tokenizer.vocabulary)
        self.assertIn("影", model.tokenizer.target.vocabulary)
        self.assertNotIn("影", model.tokenizer.vocabulary)
        self.assertEqual(
            checkpoint.read(run).tokenizer().fingerprint,
            model.tokenizer.fingerprint,
        )

    @parameterized.parameters(
        ({"model": ""}, "`init` is missing: .* with `model`"),
        ({"init": "x"}, "init=x and model=.*: expected one of them"),
        ({"vocab_size": 9, "init": "x", "model": ""}, "vocab_size=9 is for a"),
        ({"vocab": "v", "init": "x", "model": ""}, "vocab=v is for a new"),
        ({"tokenizer": "bpe", "init": "x", "model": ""}, "tokenizer=bpe is"),
        ({"model_type": "bpe", "init": "x", "model": ""}, "model_type=bpe is"),
        ({"from_scratch": True}, "from_scratch=True is for `init`"),
        ({"allow_missing": "x"}, "allow_missing=x is for `init`"),
        ({"vocab": "v", "vocab_size": 9}, "vocab=v and vocab_size=9"),
        ({"vocab": "v", "model_type": "bpe"}, "model_type=bpe is for learning"),
        ({"model_type": "bpe"}, "is for `tokenizer`=sentencepiece"),
        ({"model": "huge"}, "model=huge: expected one of tiny"),
        ({"model": "elmo_tiny"}, "elmo reads characters, .*token_ids"),
        ({"tokenizer": "characters"}, "bert reads token_ids"),
        ({"tokenizer": "pair"}, "made by tasks"),
        ({"vocab_size": 4000}, "Request 62 or fewer"),
        ({"seq_length": 65}, "64 positions"),
        ({"train": ""}, "`train` is missing"),
    )
    def test_what_does_not_fit_is_refused_in_one_line(self, changes, message):
        run = self.path("refused")
        with self.assertRaisesRegex(errors.InputError, message) as caught:
            self.finetune(run, **changes)
        self.assertNotIn("\n", str(caught.exception))
        self.assertFalse(os.path.exists(os.path.join(run, "records")))

    def test_a_wrong_name_is_refused_before_learning(self):
        with mock.patch.object(
            new_network, "tokenizer", side_effect=AssertionError
        ):
            with self.assertRaisesRegex(errors.InputError, "model=huge"):
                self.finetune(self.path("refused"), model="huge")

    def test_no_rows_are_refused_as_such(self):
        rows = mains.write(self.path("none.tsv"), "text\tlabel\n")
        with self.assertRaisesRegex(errors.InputError, "none.tsv: .*no rows"):
            self.finetune(self.path("refused"), train=rows)

    def test_calls_of_before_are_understood(self):
        names = list(inspect.signature(bert_keras.finetune).parameters)
        self.assertEqual(names[:3], ["init", "train", "dev"])
        with self.assertRaisesRegex(errors.InputError, "nowhere"):
            bert_keras.finetune(
                "nowhere", self.rows, task="classification", output="x"
            )
        with self.assertRaisesRegex(errors.InputError, "`init` is missing"):
            bert_keras.finetune(
                None, self.rows, task="classification", output="x"
            )

    @pytest.mark.slow
    def test_a_run_from_before_these_settings_resumes(self):
        init, run = self.path("init"), self.path("before")
        checkpoint.save(init, tiny.masked_lm_model(), tiny.tokenizer(), step=0)
        self.finetune(run, init=init, model="")
        path = os.path.join(run, run_folder.IDENTITY)
        values = run_folder.files.read_json(path)
        for name in ("model", "tokenizer", "vocab", "vocab_size", "model_type"):
            del values["settings"][name]
        mains.write(path, json.dumps(values))
        self.finetune(run, init=init, model="")
        mains.write(path, json.dumps(values))
        with self.assertRaisesRegex(errors.InputError, "contents of init"):
            self.finetune(run)

    def test_one_command_is_enough(self):
        run = self.path("command")
        code, out, error = mains.call(
            "trainers.finetune",
            task="classification",
            model=self.model,
            vocab_size=25,
            train=self.rows,
            dev=self.rows,
            output=run,
            epochs=1,
            seq_length=16,
        )
        self.assertEqual((code, error), (0, ""))
        self.assertIn("no checkpoint: random weights", out)
        self.assertEqual(bert_keras.load(run).tokenizer.vocab_size, 25)
        code, _, error = mains.call(
            "trainers.finetune", init="x", vocab_size=9, train="y", output="z"
        )
        self.assertEqual(code, 1)
        self.assertRegex(error, "--vocab_size=9 is for .* with --model; --init")


class LearnUpToTest(parameterized.TestCase):
    @parameterized.parameters(
        wordpiece.Tokenizer,
        bpe.BytePairTokenizer,
        characters.Characters,
        sentencepiece.SentencePieceTokenizer,
    )
    def test_a_small_text_gives_what_it_has(self, cls):
        reads = []

        def texts():
            reads.append(1)
            return (text for text, _ in TEXTS * 2)

        most = cls.learn_up_to(texts, 8000, lowercase=True)
        self.assertBetween(most.vocab_size, 14, 100)
        self.assertGreater(len(reads), 1)
        with self.assertRaises(errors.TooLittleTextError):
            cls.learn(texts(), most.vocab_size + 1, lowercase=True)
        again = cls.learn(texts(), most.vocab_size, lowercase=True)
        self.assertEqual(again.vocabulary, most.vocabulary)
        # What there is is no reason to learn all of it.
        fewer = cls.learn_up_to(texts, most.vocab_size - 1, lowercase=True)
        self.assertEqual(fewer.vocab_size, most.vocab_size - 1)

    def test_other_errors_are_not_hidden(self):
        with self.assertRaisesRegex(errors.InputError, "text in which 0 char"):
            wordpiece.Tokenizer.learn_up_to(list, 8000, lowercase=True)
        with self.assertRaisesRegex(errors.InputError, "learns no vocabulary"):
            base.Tokenizer.learn_up_to(list, 8000, lowercase=True)

    @pytest.mark.slow
    def test_settings_reach_the_learner(self):
        pieces = sentencepiece.SentencePieceTokenizer.learn_up_to(
            lambda: [text for text, _ in TEXTS * 2],
            26,
            lowercase=False,
            model_type="bpe",
        )
        self.assertFalse(pieces.lowercase)
        other = sentencepiece.SentencePieceTokenizer.learn(
            [text for text, _ in TEXTS * 2],
            26,
            lowercase=False,
            model_type="bpe",
        )
        self.assertEqual(pieces.model, other.model)


def tearDownModule():
    mains.close()


if __name__ == "__main__":
    absltest.main()
