"""A network of a user's on every command: --modules names its module."""

import pytest
from absl.testing import absltest

from bert_keras import checkpoint
from bert_keras import model as model_lib
from bert_keras.tasks import classification
from tests import tiny
from tests.examples import mean_network
from tests.trainers import mains
from tests.trainers.mains import call, write

MODULE = "tests.examples.mean_network"


def tearDownModule():
    mains.close()


class ModulesTest(absltest.TestCase):
    @pytest.mark.slow
    def test_a_network_of_ones_own_is_found_where_its_module_is_named(self):
        folder = self.create_tempdir().full_path
        start, rows = f"{folder}/start", f"{folder}/rows.tsv"
        write(rows, "text\tlabel\n" + mains.ROWS)
        config = mean_network.MeanConfig(vocab_size=len(tiny.VOCABULARY))
        task = classification.Classification(
            seq_length=16, labels=("bad", "good")
        )
        model = model_lib.BertModel(config.build_encoder(), task)
        checkpoint.save(start, model, tiny.tokenizer(), step=0)
        commands = {
            "trainers.predict": {"checkpoint": start, "input": rows},
            "trainers.evaluate": {
                "checkpoint": start,
                "data": rows,
                "batch_size": 1,
            },
            "trainers.describe": {"checkpoint": start},
            "trainers.probe": {"checkpoint": start, "train": rows, "dev": rows},
            "trainers.convert": {
                "checkpoint": start,
                "output": f"{folder}/converted",
            },
            "trainers.compress": {
                "checkpoint": start,
                "train": rows,
                "dev": rows,
                "output": f"{folder}/small",
                "target": "1x",
                "candidates": "original",
            },
            "trainers.finetune": {
                "init": start,
                "train": rows,
                "epochs": 1,
                "seq_length": 16,
                "output": f"{folder}/tuned",
            },
            "export.saved_model": {
                "checkpoint": start,
                "output": f"{folder}/served",
            },
            "export.tflite": {
                "checkpoint": start,
                "output": f"{folder}/device",
                "seq_length": 16,
            },
        }
        for command, flags in commands.items():
            code, _, error = call(command, **flags)
            self.assertEqual(code, 1, command)
            self.assertIn(f"--modules={MODULE}", error)
            code, _, error = call(command, modules="no.such", **flags)
            self.assertEqual(code, 1, command)
            self.assertIn("--modules=no.such: expected dotted names", error)
        code, _, error = call(
            "trainers.pretrain",
            records=rows,
            modules="no.such",
            output=f"{folder}/new",
        )
        self.assertEqual(code, 1)
        self.assertIn("--modules=no.such: expected dotted names", error)
        for command, flags in commands.items():
            code, _, error = call(command, modules=MODULE, **flags)
            self.assertEqual((code, error), (0, ""), command)


if __name__ == "__main__":
    absltest.main()
