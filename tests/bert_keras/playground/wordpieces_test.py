"""The tokens that the page shows of a text."""

from absl.testing import absltest

from bert_keras import predictor
from bert_keras.playground import wordpieces
from tests import tiny


class WordpiecesTest(absltest.TestCase):
    def test_tokens_are_those_of_the_model_and_unknown_ones_are_marked(self):
        tokenizer = tiny.tokenizer()
        model = predictor.Predictor(tiny.classifier(), tokenizer)
        read = wordpieces.read(model, [{"text": "film qqq film"}])
        (row,) = read["rows"]
        self.assertEqual(
            [token["token"] for token in row],
            ["[CLS]", "film", "[UNK]", "film", "[SEP]"],
        )
        self.assertEqual(
            [token["unknown"] for token in row],
            [False, False, True, False, False],
        )
        self.assertEqual((read["count"], read["unknown"]), (5, 1))


if __name__ == "__main__":
    absltest.main()
