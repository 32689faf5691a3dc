"""A network with all fields for experiments: trained, saved and exported."""

import os

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, predictor
from bert_keras.device import tflite
from bert_keras.serving import saved_model
from tests import tiny

FIELDS = {
    "embedding_sum": False,
    "embedding_size": 8,
    "token_rank": 4,
    "residual": False,
    "shared_query_key": True,
    "num_layers": 3,
    "num_hidden_groups": 2,
    "shared_sublayers": "attention",
    "num_task_types": 3,
    "task_type": 1,
}


def make():
    """A classifier with random weights."""
    model = tiny.classifier(**FIELDS)
    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        value = random.normal(0, 0.2, variable.shape)
        variable.assign(value + variable.path.endswith("gamma"))
    return model


class FieldsTogetherTest(parameterized.TestCase):
    def test_every_weight_gets_a_gradient(self):
        model = make()
        variables = {v.path: v for v in model.trainable_variables}
        with tf.GradientTape() as tape:
            logits = model(tiny.inputs(), training=True)["label"]
            loss = tf.reduce_sum(tf.nn.log_softmax(logits)[:, 0])
        gradients = tape.gradient(
            loss, {path: v.value for path, v in variables.items()}
        )
        for path, gradient in gradients.items():
            self.assertIsNotNone(gradient, path)
            gradient = tf.convert_to_tensor(gradient).numpy()
            self.assertGreater(np.abs(gradient).max(), 0, path)
        rows = np.abs(gradients["encoder/embeddings/task_type"]).max(axis=1)
        self.assertEqual((rows > 0).tolist(), [False, True, False])

    def test_parameters_by_formula(self):
        """H = 16, E = 8, R = 4, 3 layers; the first two share attention."""
        tables = (len(tiny.VOCABULARY) + 8) * 4 + (2 + 64 + 3) * 8
        combine, norm = 4 * 8 * 16 + 16, 2 * 16
        attention = 16 * 32 + 32 + 16 * 16 + 16 + norm
        feed_forward = 16 * 32 + 32 + 32 * 16 + 16 + norm
        pooler = 16 * 16 + 16
        self.assertEqual(
            make().encoder.count_params(),
            tables + combine + norm + 2 * attention + 3 * feed_forward + pooler,
        )

    def test_a_checkpoint_and_a_keras_file_give_the_same_answers(self):
        model = make()
        expected = model(tiny.inputs())["label"]
        folder = os.path.join(self.create_tempdir().full_path, "saved")
        checkpoint.save(folder, model, tiny.tokenizer(), step=0)
        path = self.create_tempfile("model.keras").full_path
        model.save(path)
        for again in (
            predictor.load(folder).model,
            keras.saving.load_model(path),
        ):
            self.assertEqual(again.encoder.config, model.encoder.config)
            np.testing.assert_array_equal(
                again(tiny.inputs())["label"], expected
            )

    def test_exports_answer_alike(self):
        model = predictor.Predictor(make(), tiny.tokenizer())
        folder = self.create_tempdir().full_path
        served = saved_model.export(model, os.path.join(folder, "served"))
        difference = saved_model.compare(tf.saved_model.load(served), model)
        self.assertLess(difference.distance, 1e-5)
        path = tflite.export(
            model, os.path.join(folder, "device"), seq_length=16
        )
        self.assertLess(tflite.compare(path, model).distance, 1e-5)


if __name__ == "__main__":
    absltest.main()
