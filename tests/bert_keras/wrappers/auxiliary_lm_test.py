"""The language model beside a task: what is learned, and what is served."""

from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors, predictor
from bert_keras import model as model_lib
from bert_keras.networks import bert
from bert_keras.tasks import causal_lm, classification, multiple_choice
from bert_keras.wrappers import auxiliary_lm, label_smoothing, r_drop
from tests import (
    devices,  # noqa: F401 (two CPUs)
    sharp,
    tiny,
)
from tests.trainers import runs

TERM, AuxiliaryLM = auxiliary_lm.TERM, auxiliary_lm.AuxiliaryLM
TASK = classification.Classification(labels=("bad", "good"), seq_length=16)
CHOICES = multiple_choice.MultipleChoice(seq_length=12, num_choices=3)
GPT = {"causal": True, "pooler": False, "embedding_norm": False}


def make(task, **network):
    network = GPT | {"dropout": 0.0, "attention_dropout": 0.0} | network
    model = model_lib.BertModel(bert.BertEncoder(tiny.bert(**network)), task)
    sharp.spread(model, 1)
    return model


def row_losses(hidden, table, ids, mask):
    """Mean -log p of the next tokens of each row, in float64."""
    losses = []
    logits = np.float64(hidden) @ np.float64(table).T
    logits -= logits.max(axis=-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    for row in range(len(ids)):
        each = [
            -log_p[row, here, ids[row, here + 1]]
            for here in range(ids.shape[1] - 1)
            if mask[row, here + 1] > 0
            and mask[row, here] == mask[row, here + 1]
        ]
        losses.append(np.mean(each) if each else 0.0)
    return np.array(losses)


class LossTest(parameterized.TestCase):
    def test_it_is_the_mean_over_the_tokens_of_each_text(self):
        task = AuxiliaryLM(TASK, weight=0.7)
        model = make(task)
        batch = next(runs.batches(task, 1))
        features, targets = batch["inputs"], batch["targets"]
        outputs = model(features, targets)
        losses = task.loss(outputs, features, targets)
        encoded = model.encoder(**features)
        expected = row_losses(
            encoded["hidden"][-1].numpy(),
            model.encoder.token_table.numpy(),
            features["token_ids"].numpy(),
            features["padding_mask"].numpy(),
        )
        np.testing.assert_allclose(outputs[TERM], expected, rtol=1e-5)
        np.testing.assert_allclose(
            losses[TERM], np.sum(expected * targets[TERM][1]), rtol=1e-5
        )
        plain = TASK.loss(outputs, features, targets)["label"]
        np.testing.assert_array_equal(losses["label"], plain)
        self.assertEqual(task.loss_weights, {TERM: 0.7})

    def test_the_choices_of_an_example_are_its_texts(self):
        task = AuxiliaryLM(CHOICES)
        model = make(task)
        batch = next(runs.batches(task, 1))
        features = batch["inputs"]
        outputs = model(features, batch["targets"])
        rows = CHOICES.encoder_rows(features, tiny.bert().inputs)
        encoded = model.encoder(
            **{name: rows[name] for name in tiny.bert().inputs}
        )
        losses = row_losses(
            encoded["hidden"][-1].numpy(),
            model.encoder.token_table.numpy(),
            rows["token_ids"].numpy(),
            rows["padding_mask"].numpy(),
        ).reshape(-1, 3)
        lengths = rows["padding_mask"].numpy().sum(axis=1).reshape(-1, 3)
        expected = losses.sum(axis=1) / np.maximum((lengths > 1).sum(axis=1), 1)
        np.testing.assert_allclose(outputs[TERM], expected, rtol=1e-5)

    def test_packed_texts_do_not_predict_each_other(self):
        """As those of a pair that an embedding is learned from."""
        model = make(AuxiliaryLM(TASK))
        ids = tf.constant([[2, 7, 8, 3, 2, 9, 3, 0]])
        mask = tf.constant([[1, 1, 1, 1, 2, 2, 2, 0]])
        encoded = model.encoder(
            token_ids=ids, segment_ids=tf.zeros_like(ids), padding_mask=mask
        )
        losses = auxiliary_lm._token_losses(
            encoded["hidden"][-1], model.encoder.token_table, ids, mask
        )
        np.testing.assert_array_equal(
            losses.numpy() > 0, [[True, True, True, False, True, True, False]]
        )

    def test_each_row_has_a_weight(self):
        task = AuxiliaryLM(TASK)
        raw = {"text": tf.constant(["a film", ""]), "label": ["bad", "good"]}
        raw["label"] = tf.constant(raw["label"])
        features = task.preprocess(raw, tiny.tokenizer())
        targets = task.make_targets(raw, features, tiny.tokenizer())
        self.assertEqual(set(targets), {"label", TERM})
        np.testing.assert_array_equal(targets[TERM][1], [1, 1])

    def test_padded_rows_change_nothing(self):
        task = AuxiliaryLM(TASK)
        model = make(task)
        batch = next(runs.batches(task, 1))
        more = tf.nest.map_structure(
            lambda x: tf.pad(x, [[0, 2]] + [[0, 0]] * (x.shape.rank - 1)),
            {name: batch[name] for name in ("inputs", "targets")},
        )
        one, two = (
            task.loss(model(x["inputs"], x["targets"]), *x.values())
            for x in (
                {name: batch[name] for name in ("inputs", "targets")},
                more,
            )
        )
        for term, value in one.items():
            np.testing.assert_allclose(value, two[term], rtol=1e-6)


class TrainingTest(parameterized.TestCase):
    def run_of(self, task, *shape):
        with mock.patch.dict(runs.TASKS, auxiliary=lambda: task):
            run = runs.Run("auxiliary", *shape, network=GPT)
            losses = run.train(stop=8)
        return {"losses": np.array(losses), **run.weights()}

    @parameterized.parameters(
        ("one_device", 4), ("mirrored", 1), ("mirrored", 2)
    )
    @pytest.mark.slow_after(1)
    def test_replicas_and_micro_batches_make_the_same_update(self, *shape):
        task = AuxiliaryLM(TASK)
        alone, other = self.run_of(task), self.run_of(task, *shape)
        for name, value in alone.items():
            np.testing.assert_allclose(value, other[name], atol=1e-6)

    @parameterized.parameters(TASK, CHOICES)
    @pytest.mark.slow_after(1)
    def test_weight_0_is_the_task_alone(self, task):
        plain = self.run_of(task)
        none = self.run_of(AuxiliaryLM(task, weight=0.0))
        some = self.run_of(AuxiliaryLM(task, weight=0.5))
        for name, value in plain.items():
            # A softmax does not change when all logits do: this bias has no
            # gradient, and AdamW follows its rounding errors.
            if "choice/score/bias" not in name:
                np.testing.assert_allclose(none[name], value, atol=1e-6)
        self.assertGreater(np.abs(some["losses"] - plain["losses"]).min(), 0.1)


class WrapperTest(absltest.TestCase):
    def test_a_network_that_reads_the_answer_is_refused(self):
        with self.assertRaisesRegex(errors.InputError, "needs a causal netw"):
            make(AuxiliaryLM(TASK), causal=False)

    def test_pretraining_is_refused(self):
        manifest = {"seq_length": 16, "objective": "none", "packing": "full"}
        with self.assertRaisesRegex(errors.InputError, "learns from records"):
            AuxiliaryLM(causal_lm.CausalLM()).for_records(manifest)

    def test_what_is_served_is_the_task(self):
        model = make(AuxiliaryLM(TASK))
        self.assertEqual(model.task.for_serving(), TASK)
        plain = model_lib.BertModel(model.encoder, TASK)
        plain.head.set_weights(model.head.get_weights())
        texts = ["a good film", ""]
        self.assertEqual(
            predictor.Predictor(model, tiny.tokenizer()).predict(texts),
            predictor.Predictor(plain, tiny.tokenizer()).predict(texts),
        )

    def test_other_wrappers_are_inside_or_outside(self):
        """R-Drop encodes twice: the loss is the mean of both passes'."""
        batch = next(runs.batches(AuxiliaryLM(TASK), 1))
        features, targets = batch["inputs"], batch["targets"]
        alone = AuxiliaryLM(TASK)
        outputs = make(alone)(features, targets, training=True)
        expected = alone.loss(outputs, features, targets)[TERM]
        for task in (
            AuxiliaryLM(r_drop.RDrop(TASK)),
            r_drop.RDrop(AuxiliaryLM(TASK)),
            AuxiliaryLM(label_smoothing.LabelSmoothing(TASK)),
        ):
            outputs = make(task)(features, targets, training=True)
            losses = task.loss(outputs, features, targets)
            np.testing.assert_allclose(losses[TERM], expected, rtol=1e-6)


if __name__ == "__main__":
    absltest.main()
