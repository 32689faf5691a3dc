"""Short rows share a row: nothing is lost, and each is read as alone."""

import json
import os
import tempfile

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import checkpoint, errors
from bert_keras.data import batches as batches_lib
from bert_keras.data import joined_rows, packing
from bert_keras.data import records as records_lib
from bert_keras.networks import base as networks
from bert_keras.tasks import causal_lm, classification, denoising, masked_lm
from bert_keras.training import input_pipeline, pretrain
from tests import tiny
from tests.trainers import mains
from tests.trainers.prepare_test import corpus


def tearDownModule():
    mains.close()


class FitTest(parameterized.TestCase):
    @parameterized.parameters(8, 20, 64)
    def test_every_text_is_in_one_row_that_it_fits_into(self, most):
        lengths = np.random.default_rng(0).integers(1, most + 1, 1000)
        rows = joined_rows.fit(lengths, most)
        texts = [text for row in rows for text in row]
        self.assertEqual(sorted(texts), list(range(1000)))
        sums = [lengths[row].sum() for row in rows]
        self.assertLessEqual(max(sums), most)
        self.assertGreater(np.mean(sums), 0.9 * most)
        for row in rows:
            self.assertEqual(row, sorted(row))

    def test_the_fullest_row_that_has_room_is_taken(self):
        # 6 of 8, then 5 of 8; 2 fits into both, 3 only into the second.
        rows = joined_rows.fit(np.array([6, 5, 2, 3, 8, 1]), 8)
        self.assertEqual(rows, [[0, 2], [1, 3], [4], [5]])

    def test_columns_move_together(self):
        splits = np.array([0, 3, 8, 12])
        columns = records_lib.Columns(
            splits,
            {"inputs/token_ids": np.arange(12), "inputs/x": -np.arange(12)},
            {},
        )
        joined = joined_rows.join(columns, 7)
        self.assertEqual(joined.row_splits.tolist(), [0, 7, 12])
        ids = [0, 1, 2, 8, 9, 10, 11, 3, 4, 5, 6, 7]
        self.assertEqual(joined.per_token["inputs/token_ids"].tolist(), ids)
        self.assertEqual(
            joined.per_token["inputs/x"].tolist(), [-x for x in ids]
        )
        self.assertEqual(
            joined.per_token[joined_rows.MASK].tolist(),
            [1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1, 1],
        )

    def test_positions_start_at_0_in_each_text(self):
        mask = tf.constant([[1, 1, 2, 3, 3, 3, 0, 0], [1] * 8, [0] * 8])
        positions = packing.restarting_positions(mask).numpy()
        self.assertEqual(positions[0, :6].tolist(), [0, 1, 0, 0, 1, 2])
        self.assertEqual(positions[1].tolist(), list(range(8)))
        self.assertEqual(positions[0, 6:].tolist(), [0, 0])
        two = tf.constant([[1, 1, 1, 2, 2, 0]])
        np.testing.assert_array_equal(
            packing.restarting_positions(two), packing.position_ids(two, 2)
        )


class RecordsTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = path = folder.name
        flags = {
            "input": mains.write(os.path.join(path, "c.txt"), corpus(150)),
            "vocab": mains.write(
                os.path.join(path, "vocab.txt"), "\n".join(tiny.VOCABULARY)
            ),
            "seq_length": 64,
            "sentence_objective": "none",
            "dev_fraction": 0.1,
            "word_boundaries": "tokenizer",
            "workers": 1,
        }
        for packing_name in ("segments", "documents"):
            code, _, error = mains.call(
                "trainers.prepare",
                output=os.path.join(path, packing_name),
                packing=packing_name,
                **flags,
            )
            assert not code, error
        cls.flags = flags

    def records(self, name):
        return records_lib.Records(os.path.join(self.folder, name, "train"))

    def test_the_texts_are_those_of_rows_of_their_own(self):
        alone, joined = self.records("segments"), self.records("documents")
        self.assertEqual(joined.manifest["packing"], "documents")
        self.assertEqual(alone.lengths.sum(), joined.lengths.sum())
        self.assertLess(len(joined), 0.9 * len(alone))

        def texts(records):
            batch = records.read(np.arange(len(records)), 64)
            found = []
            for row in range(len(records)):
                mask = batch["inputs/padding_mask"][row]
                for number in range(1, mask.max() + 1):
                    inside = mask == number
                    found.append(
                        tuple(
                            tuple(batch[f"inputs/{name}"][row, inside].tolist())
                            for name in ("token_ids", "unit_starts")
                        )
                    )
            return found

        self.assertEqual(sorted(texts(alone)), sorted(texts(joined)))

    def test_each_text_has_the_hidden_states_it_has_alone(self):
        joined = self.records("documents")
        task = pretrain.adapted(
            masked_lm.MaskedLM(masked_unit="words"), joined, joined.tokenizer()
        )
        encoder = tiny.bert(initializer_range=0.3).build_encoder()
        sampler = batches_lib.BatchSampler(joined.lengths, 16, shuffle=False)
        stream = batches_lib.stream(joined, sampler)
        batch = next(iter(input_pipeline.completed(task, stream)))
        features = batch["inputs"]
        hidden = networks.encode(encoder, features, training=False)["hidden"]
        last = hidden[-1].numpy()
        mask, ids = (
            features[name].numpy() for name in ("padding_mask", "token_ids")
        )
        self.assertGreater(mask.max(), 1)
        for row in range(16):
            for number in range(1, mask[row].max() + 1):
                inside = mask[row] == number
                alone = encoder(
                    token_ids=ids[row : row + 1, inside],
                    segment_ids=np.zeros((1, inside.sum()), np.int32),
                    padding_mask=np.ones((1, inside.sum()), np.int32),
                )["hidden"][-1][0]
                np.testing.assert_allclose(last[row, inside], alone, atol=1e-5)

    def test_a_run_learns_from_them_and_serves_single_texts(self):
        output = os.path.join(self.create_tempdir().full_path, "run")
        code, _, error = mains.call(
            "trainers.pretrain",
            records=os.path.join(self.folder, "documents"),
            output=output,
            model="tiny",
            steps=4,
            batch_size=8,
            evaluate_batches=1000,
            report_to="",
        )
        self.assertEqual((code, error), (0, ""))
        task = checkpoint.read(output).task
        self.assertFalse(task.packed)
        self.assertEqual(task.seq_length, 64)
        # Its evaluation reads the rows as the training did.
        metrics = bert_keras.evaluate(
            output,
            os.path.join(self.folder, "documents", "dev"),
            batch_size=8,
        )
        with open(os.path.join(output, "log.jsonl"), encoding="utf-8") as file:
            *_, last = (json.loads(line) for line in file)
        for name, value in metrics.items():
            self.assertAlmostEqual(last[f"dev/{name}"], value, places=5)

    def test_tasks_of_single_texts_refuse_them(self):
        manifest = self.records("documents").manifest
        for task in (
            causal_lm.CausalLM(),
            denoising.Denoising(),
            classification.Classification(),
        ):
            with self.assertRaisesRegex(errors.InputError, "several texts"):
                task.for_records(manifest)

    def test_pairs_do_not_share_a_row(self):
        for name, value in (
            ("sentence_objective", "nsp"),
            ("format", "google"),
        ):
            code, _, error = mains.call(
                "trainers.prepare",
                output=os.path.join(self.create_tempdir().full_path, "x"),
                packing="documents",
                **(self.flags | {"word_boundaries": "none", name: value}),
            )
            self.assertEqual(code, 1)
            self.assertIn(f"found {value}", error)


if __name__ == "__main__":
    absltest.main()
