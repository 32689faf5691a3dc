"""pooling=concat: all tokens side by side, in training, answers and exports."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import (
    checkpoint,
    errors,
    loading,
    predictor,
    vocabulary_surgery,
)
from bert_keras import model as model_lib
from bert_keras.device import tflite
from bert_keras.networks import bert
from bert_keras.serving import saved_model
from bert_keras.tasks import classification
from bert_keras.wrappers import r_drop
from tests import sharp, tiny

LENGTH, HIDDEN = 16, 16
TEXTS = ["a good film", "", "the very old plot is not bad " * 4, "dull"]
TASK = classification.Classification(
    labels=("bad", "good"), pooling="concat", seq_length=LENGTH
)


def make(task=TASK):
    keras.utils.set_random_seed(1)
    model = model_lib.BertModel(bert.BertEncoder(tiny.bert()), task)
    sharp.spread(model, 1)
    return predictor.Predictor(model, tiny.tokenizer())


def scores(answers):
    return np.array([answer["scores"] for answer in answers])


class ConcatPoolingTest(parameterized.TestCase):
    def test_scores_are_those_of_numpy_in_a_batch_and_alone(self):
        model = make()
        encoder, head = model.model.encoder, model.model.head.label
        kernel, bias = (np.float64(each) for each in head.score.get_weights())
        self.assertEqual(kernel.shape, (LENGTH * HIDDEN, 2))
        together = scores(model.predict(TEXTS))
        for text, answer in zip(TEXTS, together, strict=True):
            features = TASK.preprocess(
                {"text": tf.constant([text])}, model.tokenizer
            )
            encoded = encoder(**{n: features[n] for n in encoder.config.inputs})
            vector = np.zeros(LENGTH * HIDDEN)
            tokens = encoded["hidden"][-1].numpy().ravel()
            vector[: len(tokens)] = tokens
            exponents = np.exp(vector @ kernel + bias)
            np.testing.assert_allclose(
                answer, exponents / exponents.sum(), atol=1e-5
            )
            (alone,) = scores(model.predict([text]))
            np.testing.assert_allclose(answer, alone, atol=1e-6)
        self.assertGreater(np.ptp(together[:, 0]), 1e-2)

    def test_a_row_trains_the_weights_of_its_tokens(self):
        model = make().model
        features = TASK.preprocess(
            {"text": tf.constant(["a good film", "not very good"])},
            tiny.tokenizer(),
        )
        targets = {"label": (tf.constant([1, 0]), tf.ones(2))}
        inputs = {n: features[n] for n in model.encoder.config.inputs}
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            loss = TASK.loss(outputs, inputs, targets)["label"]
        kernel = model.head.label.score.kernel
        gradient = tape.gradient(loss, kernel.value).numpy()
        trained = np.abs(gradient).reshape(LENGTH, -1).max(axis=1) > 0
        self.assertEqual(list(trained), [True] * 5 + [False] * 11)

    def test_a_saved_model_answers_alike(self):
        model = make()
        path = f"{self.create_tempdir().full_path}/model"
        difference = saved_model.compare(
            tf.saved_model.load(saved_model.export(model, path)),
            model,
            max_characters=100,
            max_entities=4,
        )
        self.assertLess(difference.distance, 1e-5)
        self.assertEqual(difference.agreement, 1.0)

    def test_a_tflite_file_has_the_same_rows_or_shorter_ones(self):
        model = make()
        folder = self.create_tempdir().full_path
        path = tflite.export(model, folder, seq_length=[8, LENGTH])
        difference = tflite.compare(path, model)
        self.assertLess(difference.distance, 1e-5)
        self.assertEqual(difference.agreement, 1.0)
        message = "seq_length=17: expected 4 to 16, the tokens that its head"
        with self.assertRaisesRegex(errors.InputError, message):
            tflite.export(model, folder, seq_length=17)

    def test_a_checkpoint_has_one_length(self):
        model = make()
        folder = f"{self.create_tempdir().full_path}/saved"
        model.save(folder)
        again = predictor.load(folder)
        np.testing.assert_array_equal(
            scores(again.predict(TEXTS)), scores(model.predict(TEXTS))
        )
        other = TASK.with_settings(seq_length=12)
        source = checkpoint.read(folder)
        for task in (other, r_drop.RDrop(other)):
            message = "seq_length=12: the head of .* set seq_length=16"
            with self.assertRaisesRegex(errors.InputError, message) as caught:
                loading.load_model(source, task)
            self.assertNotIn("\n", str(caught.exception))
        # A new head may have any length.
        task = other.with_settings(labels=("a", "b", "c"))
        head = loading.load_model(source, task).head.label
        self.assertEqual(head.score.kernel.shape, (12 * HIDDEN, 3))

    def test_positions_are_not_made_too_few_for_the_head(self):
        model = make().model
        message = "8 positions are too few for the head"
        with self.assertRaisesRegex(errors.InputError, message):
            vocabulary_surgery.resize_positions(model, 8)
        resized = vocabulary_surgery.resize_positions(model, LENGTH)
        self.assertEqual(resized.task.seq_length, LENGTH)


if __name__ == "__main__":
    absltest.main()
