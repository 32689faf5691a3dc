"""freeze: parts of a network that training leaves as they are."""

import json
import os

import keras
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors
from bert_keras import model as model_lib
from bert_keras.networks import base as networks
from bert_keras.tasks import classification, embedding
from bert_keras.training import finetune, trainer
from bert_keras.wrappers import mix
from tests import tiny

ROWS = "good film\tyes\nfine film\tyes\nbad film\tno\ndull plot\tno\n"
STARTS = {
    "bert": (tiny.bert, tiny.tokenizer, "encoder/embeddings/"),
    "elmo": (tiny.elmo, tiny.characters, "encoder/characters/"),
    "rnn": (tiny.rnn, tiny.tokenizer, "encoder/embeddings/"),
}


class FreezeTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        self.rows = os.path.join(self.folder, "train.tsv")
        with open(self.rows, "w") as file:
            file.write("text\tlabel\n" + 4 * ROWS)

    def run_of(self, network, name, **settings):
        config, tokenizer, _ = STARTS[network]
        start = os.path.join(self.folder, network)
        if not os.path.exists(start):
            keras.utils.set_random_seed(1)
            model = model_lib.BertModel(config().build_encoder(), None)
            checkpoint.save(start, model, tokenizer(), step=0)
        output = os.path.join(self.folder, name)
        settings = {"epochs": 2, "weight_decay": 0.5} | settings
        finetune.finetune(
            start,
            self.rows,
            self.rows,
            task=mix.Mix(classification.Classification(seq_length=16)),
            output=output,
            batch_size=8,
            learning_rate=0.01,
            log_every=1,
            **settings,
        )
        return checkpoint.read(start), checkpoint.read(output)

    @parameterized.product(
        network=tuple(STARTS), part=("encoder", "embeddings", "")
    )
    @pytest.mark.slow
    def test_what_is_frozen_stays_bit_equal_in_all(self, network, part):
        self.check_frozen(network, part)

    @parameterized.parameters(
        *zip(STARTS, ("encoder", "embeddings", ""), strict=True)
    )
    def test_what_is_frozen_stays_bit_equal(self, network, part):
        self.check_frozen(network, part)

    def check_frozen(self, network, part):
        before, after = self.run_of(network, "run", freeze=part)
        *_, embeddings = STARTS[network]
        slots = checkpoint.safetensors_mmap.tensors(
            os.path.join(after.folder, checkpoint.OPTIMIZER)
        )
        values = after.encoder_values()
        for path, value in before.encoder_values().items():
            name = f"encoder/{path}"
            frozen = part == "encoder" or (
                part == "embeddings" and name.startswith(embeddings)
            )
            self.assertEqual(f"{name}/m" in slots, not frozen, name)
            if "pooler" in path:
                continue  # the mix reads no pooler
            self.assertEqual((value == values[path]).all(), frozen, name)
        self.assertIn("head/mix/gamma/m", slots)

    def test_a_frozen_network_runs_without_dropout(self):
        encoder = tiny.elmo(dropout=0.5).build_encoder()
        inputs = tiny.elmo_inputs()

        def passes():
            return [
                networks.encode(encoder, inputs, training=True)["pooled"]
                for _ in range(2)
            ]

        one, other = passes()
        self.assertGreater(np.abs(one - other).max(), 1e-3)
        encoder.trainable = False
        one, other = passes()
        np.testing.assert_array_equal(one, other)

    def test_a_stopped_run_resumes(self):
        settings = {"freeze": "encoder", "save_every": 2}
        _, complete = self.run_of("elmo", "run", **settings)
        run = os.path.join(self.folder, "run")
        last = checkpoint.steps(run)[-1]
        for name in os.listdir(checkpoint.step_folder(run, last)):
            os.remove(os.path.join(checkpoint.step_folder(run, last), name))
        expected = dict(complete.metadata["sha256"])
        checkpoint.mark(run, "latest", checkpoint.steps(run)[-1])
        _, resumed = self.run_of("elmo", "run", **settings)
        self.assertEqual(resumed.metadata["sha256"], expected)

    def test_another_part_is_another_run(self):
        self.run_of("elmo", "run", freeze="encoder")
        with self.assertRaisesRegex(errors.InputError, "freeze"):
            self.run_of("elmo", "run", freeze="")
        with open(os.path.join(self.folder, "run", "settings.json")) as file:
            settings = json.load(file)["settings"]
        self.assertEqual(settings["freeze"], "encoder")

    def test_a_task_without_weights_is_refused(self):
        model = model_lib.BertModel(
            tiny.elmo().build_encoder(), embedding.Embedding(pair=True)
        )
        with self.assertRaisesRegex(errors.InputError, "nothing to train"):
            trainer.freeze(model, "encoder")


if __name__ == "__main__":
    absltest.main()
