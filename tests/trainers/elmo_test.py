"""ELMo through what its commands call: records, runs, answers, exports."""

import json
import os
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest

from bert_keras import checkpoint, errors, predictor, token_vectors
from bert_keras.data import batches, records, shard_arrays
from bert_keras.device import tflite
from bert_keras.networks import base as networks
from bert_keras.serving import saved_model
from bert_keras.training import finetune, prepare, pretrain
from tests import tiny
from tests.trainers import runs

SENTENCES = (
    "the dog of house {} is hairy .",
    "it sleeps all day .",
    "the old cat of house {} is very dull .",
)
CONLL = (
    "Ada B-PER\nmet O\nAlan B-PER\n. O\n\nthe O\ndog O\nmet O\nBob B-PER\n\n"
)


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


class ElmoTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        documents = (
            "\n".join(line.format(n) for line in SENTENCES) for n in range(40)
        )
        cls.corpus = write(cls.folder, "corpus.txt", "\n\n".join(documents))
        cls.records = os.path.join(cls.folder, "records")
        cls.prepare(cls.records)
        cls.run_folder = os.path.join(cls.folder, "run")
        config = tiny.elmo(dropout=0.0).to_dict()
        cls.model_file = write(cls.folder, "mine.json", json.dumps(config))
        cls.model = cls.pretrain(cls.run_folder)

    @classmethod
    def prepare(cls, output, **settings):
        settings = {
            "tokenizer": "characters",
            "packing": "sentences",
            "vocab_size": 15,
            "seq_length": 16,
            "dev_fraction": 0.2,
        } | settings
        return prepare.prepare(cls.corpus, output=output, **settings)

    @classmethod
    def pretrain(cls, output, **settings):
        settings = {
            "objective": "bidirectional_lm",
            "model": cls.model_file,
            "steps": 40,
            "batch_size": 16,
            "learning_rate": 0.02,
            "evaluate_every": 20,
            "log_every": 1,
        } | settings
        return pretrain.pretrain(cls.records, output=output, **settings)

    def log(self, name):
        with open(os.path.join(self.run_folder, "log.jsonl")) as file:
            lines = [json.loads(line) for line in file]
        return [line[name] for line in lines if name in line]

    def test_records_have_each_words_characters(self):
        train = records.Records(os.path.join(self.records, "train"))
        tokenizer = train.tokenizer()
        self.assertEqual(train.manifest["format"], records.TABLES_FORMAT)
        sampler = batches.BatchSampler(train.lengths, 8, shuffle=False)
        (batch,) = batches.stream(train, sampler, stop_step=1)
        inputs = {k: v.numpy() for k, v in batch["inputs"].items()}
        self.assertEqual(inputs["characters"].shape[2:], (50,))
        for row in range(3):
            real = inputs["padding_mask"][row] > 0
            words = tokenizer.tokens(inputs["characters"][row][real])
            self.assertEqual((words[0], words[-1]), ("<S>", "</S>"))
            sentence = SENTENCES[row].format("|").split()
            self.assertEqual(
                [w for w in words[1:-1] if not w.isdecimal()],
                [w for w in sentence if w != "|"],
            )
            ids = tokenizer.tokens(inputs["word_ids"][row][real].tolist())
            for word, known in zip(words, ids, strict=True):
                expected = word if word in tokenizer.vocabulary else "<UNK>"
                self.assertEqual(known, expected)
            self.assertFalse(inputs["characters"][row][~real].any())

    def test_distinct_words_are_stored_once(self):
        path = os.path.join(self.records, "train", "shard-00000.safetensors")
        stored = checkpoint.safetensors_mmap.tensors(path)
        table = stored["table:inputs/characters"]
        self.assertLen(np.unique(table, axis=0), len(table))
        self.assertEqual(table.dtype, np.uint16)
        self.assertGreater(len(stored["index:inputs/characters"]), 500)
        self.assertLess(len(table), 70)

    def test_a_damaged_index_is_refused(self):
        shard = dict(
            checkpoint.safetensors_mmap.tensors(
                os.path.join(self.records, "train", "shard-00000.safetensors")
            )
        )
        self.assertTrue(shard_arrays.are_consistent(shard))
        name = "index:inputs/characters"
        for index in (shard[name] + 100, shard[name] - 1, shard[name][:-1]):
            self.assertFalse(shard_arrays.are_consistent(shard | {name: index}))
        del shard["table:inputs/characters"]
        self.assertFalse(shard_arrays.are_consistent(shard))

    def test_learns_both_directions(self):
        for name in ("loss/forward", "loss/backward"):
            losses = self.log(name)
            self.assertLess(losses[-1], 0.8 * losses[0], name)
        metrics = checkpoint.read(self.run_folder).metadata["scores"]
        both = (metrics["loss/forward"] + metrics["loss/backward"]) / 2
        self.assertAlmostEqual(metrics["loss/both"], both, places=6)
        self.assertAlmostEqual(metrics["perplexity"], np.exp(both), places=4)

    def test_another_network_or_objective_is_refused(self):
        for settings, message in (
            ({"model": "tiny"}, "ids are characters"),
            ({"objective": "masked_lm"}, r"has none"),
        ):
            with self.assertRaisesRegex(errors.InputError, message):
                self.pretrain(self.create_tempdir().full_path, **settings)

    def test_full_rows_end_documents(self):
        output = self.create_tempdir().full_path
        self.prepare(output, packing="full")
        train = records.Records(os.path.join(output, "train"))
        self.assertEqual(set(train.lengths[:-1]), {16})
        rows = train.read(np.arange(len(train)), 16)
        real = rows["inputs/padding_mask"] > 0
        words = train.tokenizer().tokens(rows["inputs/characters"][real])
        self.assertEqual(words.count("</S>"), 32)
        self.assertNotIn("<S>", words)

    @pytest.mark.slow
    def test_a_tagger_on_frozen_layers(self):
        """Trained, served, and refused where there is no WordPiece."""
        train = write(self.folder, "train.conll", 4 * CONLL)
        output = os.path.join(self.create_tempdir().full_path, "tagger")
        model = finetune.finetune(
            self.run_folder,
            train,
            train,
            task="tagging",
            output=output,
            wrappers="mix",
            freeze="encoder",
            epochs=20,
            batch_size=8,
            learning_rate=0.05,
            seq_length=16,
        )
        before, after = map(checkpoint.read, (self.run_folder, output))
        for path, value in before.encoder_values().items():
            np.testing.assert_array_equal(after.encoder_values()[path], value)
        self.assertGreater(after.metadata["scores"]["f1"], 0.5)
        (answer,) = model.predict("Ada met Bob .")
        self.assertNotEmpty(answer["text"])
        for text, start in zip(answer["text"], answer["start"], strict=True):
            self.assertEqual("Ada met Bob .".index(text), start)
        folder = saved_model.export(model, os.path.join(output, "served"))
        served = tf.saved_model.load(folder).signatures["serving_default"]
        texts = tf.constant(["Ada met Bob .", "", "x " * 40])
        got, want = served(text=texts), model.serve_text(text=texts)
        for name in ("start", "score"):
            width = want[name].shape[1]
            np.testing.assert_allclose(
                got[name][:, :width], want[name], atol=1e-5
            )
        path = tflite.export(model, os.path.join(output, "tflite"))
        difference = tflite.compare(path, model)
        self.assertLess(difference.distance, 1e-5)
        self.assertEqual(difference.agreement, 1.0)

    def test_vectors_of_tokens(self):
        task = token_vectors.TokenVectors(layers="0,2,-1")
        model = predictor.load(self.run_folder, task=task)
        text = "the dog sleeps ."
        long, empty = model.predict([text, ""])
        self.assertEqual(long["token"], text.split())
        self.assertEqual((empty["token"], empty["layer_0"]), ([], []))
        features = task.preprocess(
            {"text": tf.constant([text])}, model.tokenizer
        )
        hidden = networks.encode(model.model.encoder, features)["hidden"]
        for index in (0, 2, -1):
            np.testing.assert_allclose(
                long[f"layer_{index}"], hidden[index][0, 1:-1], atol=1e-6
            )
        self.assertEqual(long["layer_2"], long["layer_-1"])
        for layers in ("x", "", "1,,2"):
            with self.assertRaisesRegex(errors.InputError, "expected indices"):
                token_vectors.TokenVectors(layers=layers)
        with self.assertRaisesRegex(errors.InputError, "layers 0 to 2"):
            task = token_vectors.TokenVectors(layers="3")
            predictor.load(self.run_folder, task=task)

    def test_vectors_of_wordpieces(self):
        model = predictor.Predictor(
            predictor.model_lib.BertModel(
                tiny.bert(), token_vectors.TokenVectors(layers="-1")
            ),
            tiny.tokenizer(),
        )
        (answer,) = model.predict(["films"])
        self.assertEqual(answer["token"], ["film", "##s"])
        self.assertEqual(np.shape(answer["layer_-1"]), (2, 16))

    @pytest.mark.slow
    def test_a_run_in_parts_is_the_run(self):
        output = os.path.join(self.create_tempdir().full_path, "parts")
        settings = {"save_every": 7, "num_sampled": 5, "steps": 20}
        whole = os.path.join(self.create_tempdir().full_path, "whole")
        self.pretrain(whole, **settings)
        self.pretrain(output, **settings)
        steps = checkpoint.steps(output)
        for step in steps[1:]:
            folder = checkpoint.step_folder(output, step)
            for name in os.listdir(folder):
                os.remove(os.path.join(folder, name))
            os.rmdir(folder)
        checkpoint.mark(output, "latest", steps[0])
        os.remove(os.path.join(output, "best"))
        self.pretrain(output, **settings)
        one, other = map(checkpoint.read, (whole, output))
        self.assertEqual(one.metadata["sha256"], other.metadata["sha256"])


class StepTest(absltest.TestCase):
    def test_bfloat16_trains(self):
        losses = {}
        for policy in ("float32", "mixed_bfloat16"):
            before = keras.config.dtype_policy()
            keras.config.set_dtype_policy(policy)
            self.addCleanup(keras.config.set_dtype_policy, before)
            losses[policy] = runs.Run("bidirectional_lm", peak=0.01).train()
        np.testing.assert_allclose(
            losses["mixed_bfloat16"], losses["float32"], rtol=0.02
        )
        self.assertLess(losses["float32"][-1], losses["float32"][0])


if __name__ == "__main__":
    absltest.main()
