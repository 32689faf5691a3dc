"""The command `describe --text`: the page and what it refuses."""

import os
import tempfile

from absl.testing import absltest, parameterized

from bert_keras import checkpoint
from tests import tiny
from tests.bert_keras.attention_page_test import data_of
from tests.bert_keras.self_attention_test import make
from tests.trainers import mains
from tests.trainers.mains import call_and_listen


def tearDownModule():
    mains.close()


class DescribeTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.base = os.path.join(folder.name, "base")
        cls.output = os.path.join(folder.name, "page.html")
        checkpoint.save(cls.base, make().model, tiny.tokenizer(), step=0)

    def call(self, **flags):
        flags = {"checkpoint": self.base, "output": self.output} | flags
        return call_and_listen("trainers.describe", **flags)

    def test_it_writes_the_page_of_a_pair(self):
        code, _, error, said = self.call(text="a [MASK] .", text_pair="good")
        self.assertEqual((code, error), (0, ""))
        self.assertIn("2 layers, 2 heads, 7 tokens", said)
        with open(self.output, encoding="utf-8") as file:
            data = data_of(file.read())
        self.assertEqual(data["tokens"][1:3], ["a", "[MASK]"])
        self.assertEqual(data["segments"], [0, 0, 0, 0, 0, 1, 1])
        self.assertLen(data["masks"], 1)

    @parameterized.parameters(
        ({"output": ""}, "--text: expected --checkpoint, --text and --output"),
        ({"text": ""}, "--output: expected --checkpoint, --text and --outp"),
        ({"checkpoint": "", "model": "tiny"}, "--text: expected --checkpoint"),
        ({"output": "page.txt"}, "expected the name of an .html file"),
        ({"seq_length": 9}, "--seq_length has no effect here"),
        ({"rows": 9}, "--rows has no effect here"),
        ({"text": "film " * 70}, "72 tokens, special tokens included"),
    )
    def test_it_refuses(self, flags, expected):
        code, _, error, _ = self.call(**({"text": "a film"} | flags))
        self.assertEqual(code, 1)
        self.assertIn(expected, error)


if __name__ == "__main__":
    absltest.main()
