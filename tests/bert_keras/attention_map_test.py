import numpy as np
from absl.testing import absltest, parameterized

from bert_keras import attention_map, errors
from bert_keras.training import plots
from tests import sharp
from tests.bert_keras.tasks import sequence_to_sequence_test as models

TEXT = "the film is good"


class AttentionMapTest(parameterized.TestCase):
    @parameterized.parameters("transformer", "dot", "windows")
    def test_each_generated_token_reads_the_source(self, name):
        model = models.make(name, weights=4)
        found = attention_map.attention_map(model, TEXT)
        self.assertEqual(found.source, ("[CLS]", *TEXT.split(), "[SEP]"))
        shape = len(found.target), len(found.source)
        self.assertEqual(found.weights.shape, shape)
        np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-5)
        text = model.predict([TEXT])[0]["text"]
        tokens = model.tokenizer.target(
            [text]
        )  # those of the text, and its end
        self.assertGreaterEqual(len(found.target), tokens.row_lengths()[0])

    def test_all_windows_are_read(self):
        model = models.make("windows", seq_length=4, weights=4)
        found = attention_map.attention_map(model, TEXT)
        words = [t for t in found.source if t not in ("[CLS]", "[SEP]")]
        self.assertEqual(words, TEXT.split())
        self.assertEqual(found.source.count("[CLS]"), 2)

    def test_the_picture_is_a_png(self):
        weights = np.full((2, 3), 1 / 3)
        picture = plots.attention(["a", "$b$", "é"], ["c", "d"], weights)
        self.assertStartsWith(picture, b"\x89PNG")

    def test_damaged_weights_are_refused(self):
        model = models.make()
        decoder = model.model.head.by_name()["decoder"]
        decoder.bias.assign(np.nan * decoder.bias)
        with self.assertRaisesRegex(errors.InputError, "weights are damaged"):
            attention_map.attention_map(model, TEXT)

    @parameterized.parameters(
        lambda: models.make("gru_without_attention"),
        lambda: sharp.make("classification"),
    )
    def test_models_without_attention_are_refused(self, make):
        with self.assertRaisesRegex(errors.InputError, "attends to its source"):
            attention_map.attention_map(make(), TEXT)


if __name__ == "__main__":
    absltest.main()
