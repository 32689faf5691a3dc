"""The command `probe`: its files, its table and what it refuses."""

import json
import os
import tempfile

from absl.testing import absltest, parameterized

from bert_keras import checkpoint
from bert_keras import model as model_lib
from tests import tiny
from tests.trainers import mains
from tests.trainers.mains import call, write

WORDS = "film\tB-X\nis\tO\ngood\tO\n\nold\tO\nstory\tB-X\n\n"


def tearDownModule():
    mains.close()


class ProbeTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.base = os.path.join(cls.folder, "base")
        model = model_lib.BertModel(tiny.bert().build_encoder(), None)
        checkpoint.save(cls.base, model, tiny.tokenizer(), step=0)
        cls.rows = write(f"{cls.folder}/a.tsv", "text\tlabel\n" + mains.ROWS)
        cls.words = write(f"{cls.folder}/a.conll", WORDS * 3)

    def call(self, **flags):
        flags = {
            "train": self.rows,
            "dev": self.rows,
            "seq_length": 16,
        } | flags
        return call("trainers.probe", checkpoint=self.base, **flags)

    def test_it_writes_a_line_for_each_layer_and_a_plot(self):
        output = f"{self.folder}/probes"
        code, out, error = self.call(output=output)
        self.assertEqual((code, error), (0, ""))
        self.assertIn("layer 2", out)
        self.assertIn("Always 'bad': accuracy 0.5. 2 labels; 16 rows", out)
        with open(f"{output}/probe.jsonl", encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        self.assertEqual([line["layer"] for line in lines], [0, 1, 2])
        for line in lines:
            self.assertAlmostEqual(
                line["selectivity"], line["accuracy"] - line["control"]
            )
            self.assertEqual(line["majority"], 0.5)
        with open(f"{output}/probe.png", "rb") as file:
            self.assertEqual(file.read(4), b"\x89PNG")
        code, _, error = self.call(output=output)
        self.assertEqual(code, 1)
        self.assertIn("holds probe.jsonl, probe.png", error)

    def test_it_reads_words(self):
        code, out, error = self.call(
            task="tagging", train=self.words, dev=self.words
        )
        self.assertEqual((code, error), (0, ""))
        self.assertIn("3 labels; 15 rows to fit, 15 to measure", out)

    @parameterized.parameters(
        ({"dev": ""}, "--dev"),
        ({"seq_length": 128}, "the network has 64 positions"),
        ({"tag_column": 1}, "--tag_column=1 has no effect"),
        ({"columns": "text=nothing"}, "nothing"),
        ({"task": "masked_lm"}, "masked_lm"),
    )
    def test_it_refuses(self, flags, expected):
        code, _, error = self.call(**flags)
        self.assertEqual(code, 1)
        self.assertIn(expected, error)

    def test_tagged_words_have_no_columns(self):
        code, _, error = self.call(
            task="tagging", train=self.words, dev=self.words, columns="text=a"
        )
        self.assertEqual(code, 1)
        self.assertIn("the files of tagging have no columns", error)


if __name__ == "__main__":
    absltest.main()
