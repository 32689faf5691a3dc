"""Each tokenizer goes from raw text to files that are served."""

import glob
import json
import os
import tempfile

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import checkpoint, predictor
from bert_keras.data import records
from bert_keras.tokenizers import bpe
from bert_keras.tokenizers import sentencepiece as sentencepiece_lib
from tests import tiny
from tests.trainers import mains

SENTENCES = (
    "The film is not bad, and the plot isn't dull.",
    "A fine old story: the actor was very good!",
    "一个 好 电影, and a new one.",
    "Bad acting, bad plot, bad film in 1999, really.",
)


def tearDownModule():
    mains.close()


class TokenizersTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.mkdtemp()
        lines = [
            f"{SENTENCES[i % 4]}\n{SENTENCES[i % 3]}\n" for i in range(160)
        ]
        cls.corpus = mains.write(cls.path("corpus.txt"), "\n".join(lines))
        rows = [f"{text}\t{text[0]}" for text in SENTENCES * 4]
        cls.table = mains.write(
            cls.path("rows.tsv"), "\n".join(["text\tlabel", *rows])
        )

    @classmethod
    def path(cls, *names):
        return os.path.join(cls.folder, *names)

    def call(self, name, **flags):
        code, out, error = mains.call(name, **flags)
        self.assertEqual(code, 0, error)
        return out

    def prepare(self, output, **flags):
        flags = {"seq_length": 32, "deduplicate": "false"} | flags
        return self.call(
            "trainers.prepare",
            input=self.corpus,
            output=self.path(output),
            **flags,
        )

    @parameterized.parameters(
        ("sentencepiece", {"vocab_size": 50}),
        ("sentencepiece", {"vocab_size": 50, "model_type": "bpe"}),
        ("bpe", {"vocab_size": 90, "packing": "full"}),
    )
    def test_records_do_not_depend_on_workers_or_repetition(self, name, flags):
        learned = []
        for workers in (1, 2):
            output = f"{name}-{len(flags)}-{workers}"
            self.prepare(output, tokenizer=name, workers=workers, **flags)
            with open(self.path(output, "train", "manifest.json")) as file:
                manifest = json.load(file)
            (shard,) = glob.glob(self.path(output, "train", "shard-*"))
            with open(shard, "rb") as file:
                learned.append((manifest["tokenizer"], file.read()))
        self.assertEqual(*learned)
        tokenizer = records.Records(self.path(output, "train")).tokenizer()
        self.assertEqual(tokenizer.to_dict()["name"], name)

    def test_a_vocabulary_is_read(self):
        self.prepare("learned", tokenizer="bpe", vocab_size=90, packing="full")
        vocabulary = self.path("learned")
        self.prepare("read", tokenizer="bpe", vocab=vocabulary, packing="full")
        for name in bpe.BytePairTokenizer.files:
            with open(self.path("learned", name), "rb") as one:
                with open(self.path("read", name), "rb") as other:
                    self.assertEqual(one.read(), other.read())

    @parameterized.parameters("full", "sentences")
    def test_the_next_command_is_of_the_tokenizers_network(self, packing):
        for name, size, objective in (
            ("bpe", 90, "--objective=causal_lm --model=gpt_mini"),
            ("characters", 9, "--objective=bidirectional_lm --model=elmo_tiny"),
        ):
            out = self.prepare(
                f"{name}-{packing}",
                tokenizer=name,
                vocab_size=size,
                packing=packing,
            )
            self.assertIn(objective, " ".join(out.replace("│", " ").split()))

    def test_what_does_not_fit_is_refused_in_one_line(self):
        for flags, message in (
            ({"tokenizer": "bpe", "vocab_size": 90}, "no entry .MASK.*=full"),
            (
                {"tokenizer": "wordpiece", "vocab_size": 90}
                | {"model_type": "bpe"},
                "--model_type=bpe is for --tokenizer=sentencepiece",
            ),
            (
                {"tokenizer": "characters", "vocab_size": 9},
                "no entry .MASK.*bidirectional LM, give --packing=sentences",
            ),
            (
                {"tokenizer": "sentencepiece", "vocab": self.corpus}
                | {"model_type": "bpe"},
                "--model_type=bpe is for learning, with --vocab_size",
            ),
            (
                {"tokenizer": "sentencepiece", "vocab": self.corpus},
                "a model of SentencePiece",
            ),
            (
                {"tokenizer": "bpe", "vocab": self.corpus, "packing": "full"},
                "vocab.json and merges.txt",
            ),
        ):
            code, _, error = mains.call(
                "trainers.prepare",
                input=self.corpus,
                output=self.path("refused"),
                **flags,
            )
            self.assertEqual(code, 1)
            self.assertRegex(error, message)
            self.assertEqual(error.strip().count("\n"), 0, error)

    def init(self, name):
        """Returns a checkpoint with a tokenizer of the given name."""
        if name == "sentencepiece":
            self.prepare(
                "records", tokenizer=name, vocab_size=50, dev_fraction=0.1
            )
            self.call(
                "trainers.pretrain",
                records=self.path("records"),
                output=self.path("pretrained"),
                model="tiny",
                steps=3,
                batch_size=4,
            )
            return self.path("pretrained")
        words = bpe.BytePairTokenizer.learn(SENTENCES * 4, 90, lowercase=True)
        words = words.with_frame()
        model = bert_keras.BertModel(
            tiny.bert(vocab_size=words.vocab_size).build_encoder(), None
        )
        checkpoint.save(self.path("start"), model, words, step=0)
        return self.path("start")

    @parameterized.parameters("sentencepiece", "bpe")
    @pytest.mark.slow
    def test_it_is_fine_tuned_and_served(self, name):
        run = self.path(f"run_{name}")
        self.call(
            "trainers.finetune",
            task="classification",
            init=self.init(name),
            train=self.table,
            dev=self.table,
            output=run,
            epochs=2,
            seq_length=32,
        )
        answers = predictor.load(run)
        self.assertIsInstance(
            answers.tokenizer,
            {
                "bpe": bpe.BytePairTokenizer,
                "sentencepiece": sentencepiece_lib.SentencePieceTokenizer,
            }[name],
        )
        self.assertLen(answers.tokenizer.frame.start, 1)
        served = self.path(f"served_{name}")
        self.call("export.saved_model", checkpoint=run, output=served)
        (folder,) = glob.glob(os.path.join(served, "*", "saved_model.pb"))
        loaded = tf.saved_model.load(os.path.dirname(folder))
        output = loaded.signatures["serving_default"](
            text=tf.constant(SENTENCES)
        )
        expected = answers.predict([{"text": text} for text in SENTENCES])
        scores = [answer["scores"] for answer in expected]
        np.testing.assert_allclose(output["scores"], scores, atol=1e-5)
        device = self.path(f"device_{name}")
        self.call(
            "export.tflite", checkpoint=run, output=device, seq_length="32"
        )
        for file in answers.tokenizer.files:
            self.assertTrue(os.path.exists(os.path.join(device, file)), file)
        with open(os.path.join(device, "model_float32.md")) as file:
            text = file.read()
        self.assertIn(f"`{answers.tokenizer.files[0]}`", text)
        self.assertNotIn("vocab.txt", text)


if __name__ == "__main__":
    absltest.main()
