"""Recurrent networks through what their commands call: runs and exports."""

import json
import os
import tempfile

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized
from ai_edge_litert import schema_py_generated as schema

from bert_keras import checkpoint, layers, predictor, verification
from bert_keras import model as model_lib
from bert_keras.device import tflite
from bert_keras.serving import saved_model
from bert_keras.tasks import classification, tagging
from bert_keras.training import finetune, prepare, pretrain
from tests import tiny
from tests.trainers import runs

SENTENCES = (
    "the dog of house {} is hairy .",
    "it sleeps all day .",
    "the old cat of house {} is very dull .",
)
ROWS = "good dog\tyes\nhairy cat\tyes\nbad day\tno\ndull house\tno\n"
NETWORKS = {
    "lstm": {"bidirectional": False},
    "bilstm": {},
    "gru": {"cell": "gru", "bidirectional": False},
    "bigru": {"cell": "gru"},
}
TASKS = {
    "classification": lambda: classification.Classification(
        seq_length=32, labels=("bad", "so so", "好")
    ),
    "tagging": lambda: tagging.Tagging(
        seq_length=32, stride=16, types=("FILM", "人")
    ),
}


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


class RunsTest(absltest.TestCase):
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

    def pretrain(self, name, packing, objective, *, output="run", **network):
        """Prepares records once, and pretrains on them."""
        records = os.path.join(self.folder, packing)
        if not os.path.exists(records):
            prepare.prepare(
                self.corpus,
                output=records,
                packing=packing,
                vocab_size=60,
                seq_length=16,
                dev_fraction=0.2,
            )
        values = tiny.rnn(dropout=0.0, **network).to_dict()
        output = os.path.join(self.folder, name, output)
        model = pretrain.pretrain(
            records,
            output=output,
            objective=objective,
            model=write(self.folder, f"{name}.json", json.dumps(values)),
            steps=40,
            batch_size=16,
            learning_rate=0.02,
            save_every=20,
            log_every=1,
        )
        with open(os.path.join(output, "log.jsonl")) as file:
            lines = [json.loads(line) for line in file]
        losses = [line["loss"] for line in lines if "loss" in line]
        self.assertLess(losses[-1], 0.8 * losses[0])
        return model, output

    def test_masked_words_and_a_classifier(self):
        _, start = self.pretrain("bilstm", "segments", "masked_lm")
        rows = write(self.folder, "train.tsv", "text\tlabel\n" + 8 * ROWS)
        model = finetune.finetune(
            start,
            rows,
            rows,
            task="classification",
            output=os.path.join(self.folder, "classifier"),
            epochs=10,
            batch_size=8,
            seq_length=16,
            learning_rate=0.02,
        )
        answers = model.predict(["good dog", "dull house", ""])
        self.assertEqual(
            [answer["label"] for answer in answers[:2]], ["yes", "no"]
        )
        again = predictor.load(os.path.join(self.folder, "classifier"))
        self.assertEqual(again.model.encoder.config, model.model.encoder.config)
        self.assertEqual(again.predict(["good dog"]), answers[:1])

    @pytest.mark.slow
    def test_a_language_model_continues_texts(self):
        model, _ = self.pretrain(
            "gru", "full", "causal_lm", cell="gru", bidirectional=False
        )
        texts = ["it sleeps all", "the", ""]
        folder = saved_model.export(model, os.path.join(self.folder, "served"))
        served = tf.saved_model.load(folder).signatures["serving_default"]
        got = served(text=tf.constant(texts))
        want = model.serve_text(text=tf.constant(texts))
        for name, value in want.items():
            np.testing.assert_array_equal(got[name], value, name)
        answers = model.predict(texts)
        self.assertNotEmpty(answers[0]["tokens"])
        for answer, alone in zip(answers, texts, strict=True):
            self.assertEqual(model.predict([alone]), [answer])

    @pytest.mark.slow
    def test_a_run_in_parts_is_the_run(self):
        _, whole = self.pretrain("parts", "segments", "masked_lm")
        _, output = self.pretrain(
            "parts", "segments", "masked_lm", output="parts"
        )
        first, *later = checkpoint.steps(output)
        for step in later:
            folder = checkpoint.step_folder(output, step)
            for name in os.listdir(folder):
                os.remove(os.path.join(folder, name))
            os.rmdir(folder)
        checkpoint.mark(output, "latest", first)
        os.remove(os.path.join(output, "best"))
        self.pretrain("parts", "segments", "masked_lm", output="parts")
        one, other = map(checkpoint.read, (whole, output))
        self.assertEqual(one.metadata["sha256"], other.metadata["sha256"])


def make(network, task):
    """A predictor whose answers differ from text to text."""
    config = tiny.rnn(hidden_size=32, **NETWORKS[network])
    model = model_lib.BertModel(config.build_encoder(), TASKS[task]())
    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0, 0.7, variable.shape))
    return predictor.Predictor(model, tiny.tokenizer())


def ops(path):
    """The names of a TFLite file's ops; fails if one is not a builtin."""
    names = {
        number: name
        for name, number in vars(schema.BuiltinOperator).items()
        if name.isupper()
    }
    with open(path, "rb") as file:
        file = schema.ModelT.InitFromPackedBuf(file.read())
    assert not any(code.customCode for code in file.operatorCodes)
    return {names[code.builtinCode] for code in file.operatorCodes}


class ExportsTest(parameterized.TestCase):
    def folder(self, name):
        return os.path.join(self.create_tempdir().full_path, name)

    def check(self, network, task, *quantizations):
        model = make(network, task)
        served = tf.saved_model.load(
            saved_model.export(model, self.folder("served"))
        )
        difference = saved_model.compare(served, model)
        self.assertLess(difference.distance, 1e-5)
        self.assertEqual(difference.agreement, 1.0)
        for quantization in quantizations:
            path = tflite.export(
                model,
                self.folder("device"),
                quantization=quantization,
                seq_length=(8, 24),
            )
            self.assertContainsSubset({"WHILE", "FULLY_CONNECTED"}, ops(path))
            if quantization == "float32":
                difference = tflite.compare(path, model)
                self.assertLess(difference.distance, 1e-5)
                self.assertEqual(difference.agreement, 1.0)

    @parameterized.parameters(
        ("bilstm", "classification", "float32"),
        ("gru", "tagging", "dynamic"),
    )
    @pytest.mark.slow_after(1)
    def test_answer_like_the_predictor(self, network, task, *quantizations):
        self.check(network, task, *quantizations)

    @parameterized.product(network=tuple(NETWORKS), task=tuple(TASKS))
    @pytest.mark.slow
    def test_all_answer_like_the_predictor(self, network, task):
        self.check(network, task, "float32", "float16", "dynamic")

    def test_int8_is_refused(self):
        """TensorFlow's calibrator would end the process."""
        with self.assertRaisesRegex(
            verification.ExportError,
            "loop of a recurrent network, .* Take `quan",
        ):
            tflite.export(
                make("gru", "classification"),
                self.folder("device"),
                quantization="int8",
                seq_length=8,
                data=[{"text": "a good film"}],
            )


class StepTest(absltest.TestCase):
    def test_bfloat16_trains(self):
        losses = {}
        for policy in ("float32", "mixed_bfloat16"):
            with layers.global_policy(policy):
                run = runs.Run("bilstm_tagging", peak=0.02)
                batch = next(runs.batches(run.task, 1))
                losses[policy] = []
                for step in range(20):
                    batch["step"] = tf.constant(step, tf.int64)
                    losses[policy].append(float(run.step(batch)["loss"]))
        np.testing.assert_allclose(
            losses["mixed_bfloat16"], losses["float32"], rtol=0.03
        )
        self.assertLess(losses["float32"][-1], 0.9 * losses["float32"][0])


if __name__ == "__main__":
    absltest.main()
