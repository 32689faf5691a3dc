"""A task's target vocabulary: learned once per run, saved, served."""

import os
import shutil
import tempfile
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import checkpoint, errors, safetensors_mmap
from bert_keras import model as model_lib
from bert_keras.data import records
from bert_keras.networks import bert
from bert_keras.serving import saved_model
from bert_keras.tokenizers import pair, sentencepiece
from bert_keras.training import trainer
from bert_keras.wrappers import label_smoothing
from tests import tiny
from tests.bert_keras.tasks import first_word

PAIRS = (
    ("a good film", "好 电影"),
    ("the film is good", "好 好"),
    ("a dull old story", "坏 电影"),
    ("bad , very bad", "坏 坏"),
)
ROWS = "text\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in PAIRS * 2)
TEXTS = [text for text, _ in PAIRS]
SETTINGS = {
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "save_every": 2,
    "max_checkpoints_to_keep": 9,
}


def task(**changes):
    settings = {"seq_length": 16, "target_size": 9} | changes
    return first_word.FirstWord(**settings)


class RunTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.init = cls.path("init")
        model = model_lib.BertModel(bert.BertEncoder(tiny.bert()), None)
        checkpoint.save(cls.init, model, tiny.tokenizer(), step=0)
        cls.rows = cls.path("rows.tsv")
        with open(cls.rows, "w", encoding="utf-8") as file:
            file.write(ROWS)
        cls.whole = cls.path("whole")
        cls.model = cls.finetune(cls.whole)

    @classmethod
    def path(cls, *names):
        return os.path.join(cls.folder, *names)

    @classmethod
    def finetune(cls, output, **changes):
        values = {"task": task(), "output": output} | SETTINGS | changes
        files = {"init": cls.init, "train": cls.rows, "dev": cls.rows}
        return bert_keras.finetune(**files | values)

    def setUp(self):
        super().setUp()
        first_word.learned.clear()

    def started(self, output, **changes):
        """Starts a run, which ends before its first step; its tokenizer."""
        tokenizers = []

        def stop(self, *args, **kwargs):
            tokenizers.append(self.tokenizer)
            raise KeyboardInterrupt

        with mock.patch.object(trainer.Trainer, "train", stop):
            with self.assertRaises(KeyboardInterrupt):
                self.finetune(output, **changes)
        return tokenizers[0]

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

    def test_the_target_is_learned_from_the_training_rows(self):
        tokenizer = self.model.tokenizer
        self.assertIsInstance(tokenizer, pair.PairTokenizer)
        self.assertEqual(tokenizer.vocabulary, tuple(tiny.VOCABULARY))
        self.assertEqual(
            set(tokenizer.target.vocabulary[5:]), {"好", "坏", "电", "影"}
        )
        self.assertEqual(self.model.task.num_words, 9)
        for folder in (
            os.path.join(self.whole, "records"),
            checkpoint.read(self.whole).folder,
        ):
            self.assertIn("target.vocab.txt", os.listdir(folder))

    def test_it_answers_in_the_targets_words(self):
        answers = self.model.predict(TEXTS)
        self.assertLessEqual(
            {answer["word"] for answer in answers},
            {"好", "坏", "电", "影", ""},
        )
        again = bert_keras.load(self.whole)
        self.assertEqual(again.predict(TEXTS), answers)

    @parameterized.parameters("wordpiece", "sentencepiece")
    @pytest.mark.slow_after(1)
    def test_a_saved_model_has_both_vocabularies(self, name):
        model = self.model
        if name == "sentencepiece":
            # A model of type BPE is a resource of the graph.
            pieces = pair.PairTokenizer(
                model.tokenizer.source, sentencepiece_bpe()
            )
            chinese = task().with_settings(num_words=pieces.target.vocab_size)
            model = bert_keras.Predictor(
                model_lib.BertModel(model.model.encoder, chinese), pieces
            )
        folder = self.create_tempdir().full_path
        served = tf.saved_model.load(saved_model.export(model, f"{folder}/x"))
        answers = served.signatures["serving_default"](text=tf.constant(TEXTS))
        expected = model.predict(TEXTS)
        self.assertEqual(
            [word.decode() for word in answers["word"].numpy()],
            [answer["word"] for answer in expected],
        )
        self.assertEqual(
            answers["length"].numpy().tolist(),
            [answer["length"] for answer in expected],
        )

    def test_a_resumed_run_never_learns_again(self):
        run = self.path("stopped")
        save = trainer.Trainer._save

        def save_and_stop(self, step):
            save(self, step)
            raise KeyboardInterrupt

        with mock.patch.object(trainer.Trainer, "_save", save_and_stop):
            with self.assertRaises(KeyboardInterrupt):
                self.finetune(run)
        self.assertLen(first_word.learned, 1)
        # Whatever the task would learn now.
        with mock.patch.object(
            first_word.FirstWord,
            "extend_tokenizer",
            side_effect=AssertionError("learned again"),
        ):
            self.finetune(run)
            self.finetune(run)  # a complete one, too
        self.assert_weights(run, self.whole)

    def test_a_damaged_checkpoint_leaves_the_one_before(self):
        run = self.path("damaged")
        shutil.copytree(self.whole, run)
        folder = checkpoint.step_folder(run, checkpoint.steps(run)[-1])
        with open(os.path.join(folder, "target.vocab.txt"), "a") as file:
            file.write("x\n")
        tokenizer = self.started(run)
        self.assertEmpty(first_word.learned)
        self.assertEqual(
            tokenizer.fingerprint, self.model.tokenizer.fingerprint
        )

    @pytest.mark.slow
    def test_before_the_first_checkpoint_it_is_read_from_the_records(self):
        run = self.path("records_only")
        for _ in range(2):
            tokenizer = self.started(run)
            self.assertLen(first_word.learned, 1)
        # Other settings are allowed until then, and learn anew.
        other = {"target_tokenizer": "bpe", "target_size": 7}
        byte_pairs = self.started(run, task=task(**other))
        self.assertLen(first_word.learned, 2)
        names = os.listdir(os.path.join(run, "records"))
        self.assertIn("target.merges.txt", names)
        self.assertNotIn("target.vocab.txt", names)
        # The tokens of its frame are added, as to that of a checkpoint.
        self.assertEqual(byte_pairs.target.vocab_size, 7 + 3)
        self.assertIs(byte_pairs.with_frame(), byte_pairs)
        # A damaged copy is learned again.
        path = os.path.join(run, "records", "target.vocab.json")
        with open(path, "w") as file:
            file.write("{}")
        again = self.started(run, task=task(**other))
        self.assertLen(first_word.learned, 3)
        self.assertEqual(again.fingerprint, byte_pairs.fingerprint)
        again = self.started(run)
        self.assertEqual(again.fingerprint, tokenizer.fingerprint)

    def test_killed_before_the_records_are_complete_it_is_learned_again(self):
        run = self.path("early")
        with mock.patch.object(
            records, "write_manifest", side_effect=KeyboardInterrupt
        ):
            with self.assertRaises(KeyboardInterrupt):
                self.finetune(run)
        tokenizer = self.started(run)
        self.assertLen(first_word.learned, 2)
        self.assertEqual(
            tokenizer.fingerprint, self.model.tokenizer.fingerprint
        )

    def test_held_out_rows_are_not_learned_from(self):
        run = self.path("held_out")
        self.started(run, task=task(target_size=7), dev="", dev_fraction=0.5)
        (texts,) = first_word.learned
        self.assertCountEqual(texts, [text for _, text in PAIRS])

    def test_another_start_is_refused_by_its_vocabulary(self):
        init = self.path("other_init")
        model = model_lib.BertModel(bert.BertEncoder(tiny.bert()), None)
        words = bert_keras.Tokenizer(tiny.VOCABULARY, lowercase=False)
        checkpoint.save(init, model, words, step=0)
        with self.assertRaisesRegex(errors.InputError, "contents of tokenizer"):
            self.finetune(self.whole, init=init)

    def test_a_run_of_such_a_task_is_a_start_of_another(self):
        tokenizer = self.started(self.path("continued"), init=self.whole)
        self.assertEmpty(first_word.learned)
        self.assertEqual(
            tokenizer.fingerprint, self.model.tokenizer.fingerprint
        )

    @pytest.mark.slow
    def test_wrappers_pass_it_on(self):
        wrapped = label_smoothing.LabelSmoothing(task())
        tokenizer = self.started(self.path("wrapped"), task=wrapped)
        self.assertEqual(
            tokenizer.fingerprint, self.model.tokenizer.fingerprint
        )

    def test_an_ordinary_task_leaves_it_as_it_is(self):
        tokenizer = tiny.tokenizer()
        ordinary = bert_keras.tasks.Classification()
        self.assertIs(ordinary.extend_tokenizer(tokenizer, None), tokenizer)


def sentencepiece_bpe():
    return sentencepiece.SentencePieceTokenizer.learn(
        [b for _, b in PAIRS * 3], 12, lowercase=True, model_type="bpe"
    )


if __name__ == "__main__":
    absltest.main()
