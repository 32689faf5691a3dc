"""Students of some of a teacher's layers."""

import numpy as np
from absl.testing import absltest, parameterized

from bert_keras import errors, layer_surgery
from bert_keras import model as model_lib
from bert_keras.networks import bert
from bert_keras.tasks import classification
from bert_keras.wrappers import early_exit, mix
from tests import sharp, tiny


def made(**changes):
    task = classification.Classification(labels=("bad", "good"))
    network = bert.BertEncoder(tiny.bert(num_layers=4, **changes))
    model = model_lib.BertModel(network, task)
    sharp.spread(model, 1)
    return model


class KeepLayersTest(parameterized.TestCase):
    def test_layers_and_all_else_are_copied(self):
        model = made()
        student = layer_surgery.keep_layers(model, [0, 3])
        self.assertEqual(student.encoder.config.num_layers, 2)
        for number, source in enumerate((0, 3)):
            for one, other in zip(
                student.encoder.blocks[number].weights,
                model.encoder.blocks[source].weights,
                strict=True,
            ):
                np.testing.assert_array_equal(one, other)
        for part in ("embeddings", "pooler"):
            for one, other in zip(
                getattr(student.encoder, part).weights,
                getattr(model.encoder, part).weights,
                strict=True,
            ):
                np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(
            student.head.label.score.kernel, model.head.label.score.kernel
        )

    def test_all_layers_are_the_same_model(self):
        model, features = made(), tiny.inputs()
        same = layer_surgery.keep_layers(model, [0, 1, 2, 3])
        np.testing.assert_array_equal(
            same(features, training=False)["label"],
            model(features, training=False)["label"],
        )

    @parameterized.parameters([[]], [[1, 0]], [[0, 0]], [[0, 4]], [[-1]])
    def test_other_numbers_are_refused(self, layers):
        with self.assertRaisesRegex(errors.InputError, "from 0 to 3"):
            layer_surgery.keep_layers(made(), layers)

    def test_heads_of_several_layers_are_refused(self):
        for wrapper in (early_exit.EarlyExit, mix.Mix):
            task = classification.Classification(labels=("bad", "good"))
            network = bert.BertEncoder(tiny.bert(num_layers=4))
            model = model_lib.BertModel(network, wrapper(task))
            with self.assertRaisesRegex(errors.InputError, "each of its"):
                layer_surgery.keep_layers(model, [0, 2])

    def test_shared_layers_are_refused(self):
        with self.assertRaisesRegex(errors.InputError, "share their weights"):
            layer_surgery.keep_layers(made(num_hidden_groups=1), [0])


if __name__ == "__main__":
    absltest.main()
