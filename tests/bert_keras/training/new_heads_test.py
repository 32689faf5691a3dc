"""New heads that start as the encoder: what they need to start from."""

import os

from absl.testing import absltest

import bert_keras
from bert_keras import checkpoint, errors
from bert_keras.tasks import denoising, sequence_to_sequence
from bert_keras.training import new_heads
from tests import tiny
from tests.bert_keras.tasks import sequence_to_sequence_test as models

STARTED = {"decoder_init": "encoder"}


class NewHeadsTest(absltest.TestCase):
    def saved(self, model):
        folder = os.path.join(self.create_tempdir(), "start")
        checkpoint.save(folder, model, tiny.tokenizer(), step=1)
        return checkpoint.read(folder)

    def test_a_new_network_has_no_weights_to_start_from(self):
        folder = self.create_tempdir()
        message = "decoder_init=encoder needs the weights of a checkpoint"
        for start in (
            {"model": "mini"},
            {"init": folder.full_path, "from_scratch": True},
        ):
            with self.assertRaisesRegex(errors.InputError, message):
                bert_keras.finetune(
                    task="sequence_to_sequence",
                    train=folder.create_file("rows.tsv").full_path,
                    output=os.path.join(folder, "run"),
                    **start,
                    **STARTED,
                )

    def test_they_start_as_the_encoder(self):
        init = self.saved(
            bert_keras.BertModel(tiny.bert().build_encoder(), None)
        )
        task = denoising.Denoising(seq_length=16, **STARTED)
        model = bert_keras.BertModel(
            tiny.bert().build_encoder(), task.adapt([], tiny.tokenizer())
        )
        new_heads.check(task, is_pretrained=True)
        new_heads.initialize(model, init)
        decoder = model.head.by_name()["decoder"]
        self.assertAllEqual(
            decoder.blocks[0].attention.qkv.kernel,
            model.encoder.blocks[0].attention.qkv.kernel,
        )

    def test_heads_that_are_continued_do_not_start_anew(self):
        init = self.saved(models.make().model)
        model = models.make(**STARTED).model
        with self.assertRaisesRegex(errors.InputError, "start are continued"):
            new_heads.initialize(model, init)
        new_heads.initialize(models.make().model, init)

    def test_other_tasks_need_nothing(self):
        task = sequence_to_sequence.SequenceToSequence()
        new_heads.check(task, is_pretrained=False)

    def assertAllEqual(self, one, two):  # noqa: N802 (as in unittest)
        self.assertTrue(bool((one.numpy() == two.numpy()).all()))


if __name__ == "__main__":
    absltest.main()
