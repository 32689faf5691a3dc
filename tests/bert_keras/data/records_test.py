"""Damaged records are refused when they are opened, not in mid-training."""

import json
import os

import numpy as np
import safetensors.numpy
from absl.testing import absltest, parameterized

from bert_keras import errors, files
from bert_keras.data import records
from tests.bert_keras.data import batches_test


class DamageTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        batches_test.write(self.folder)
        self.path = os.path.join(self.folder, records.shard_name(1))

    def edit(self, change, *, manifest):
        """Changes the tensors of a shard, and the manifest's checksum too."""
        tensors = dict(safetensors.numpy.load_file(self.path))
        change(tensors)
        safetensors.numpy.save_file(tensors, self.path)
        if manifest:
            path = os.path.join(self.folder, records.MANIFEST)
            values = files.read_json(path)
            values["shards"][1]["sha256"] = files.checksum(self.path)
            with open(path, "w", encoding="utf-8") as file:
                json.dump(values, file)

    def test_a_changed_id_is_noticed(self):
        def change(tensors):
            tensors["token:inputs/token_ids"][3] += 1

        self.edit(change, manifest=False)
        with self.assertRaisesRegex(errors.InputError, "00001.* is damaged"):
            records.Records(self.folder)

    @parameterized.parameters(
        lambda t: t.pop("row_splits"),
        lambda t: t.update(row_splits=t["row_splits"][::-1].copy()),
        lambda t: t.update(row_splits=t["row_splits"] + 1),
        lambda t: t.update(row_splits=t["row_splits"][:-1].copy()),
        lambda t: t.update(row_splits=t["row_splits"].astype(np.float32)),
        lambda t: t.update(row_splits=t["row_splits"][None].copy()),
        lambda t: t.update(row_splits=np.zeros(0, np.int64)),
        lambda t: t.update({"token:inputs/token_ids": np.zeros(3, np.uint16)}),
        lambda t: t.update({"row:targets/label/labels": np.zeros(3, np.int32)}),
    )
    def test_parts_that_do_not_fit_together_are_refused(self, change):
        self.edit(change, manifest=True)
        with self.assertRaisesRegex(errors.InputError, "00001.* is damaged"):
            records.Records(self.folder)

    @parameterized.parameters("../shard-0.safetensors", "/etc/passwd", "", 3)
    def test_shards_are_files_of_the_folder(self, name):
        path = os.path.join(self.folder, records.MANIFEST)
        values = files.read_json(path)
        values["shards"][0]["name"] = name
        with open(path, "w", encoding="utf-8") as file:
            json.dump(values, file)
        with self.assertRaisesRegex(errors.InputError, "a list of shards"):
            records.Records(self.folder)

    @parameterized.parameters("", "{", "[]", "[" * 100_000, '{"shards": 3}')
    def test_a_damaged_manifest_is_refused(self, text):
        path = os.path.join(self.folder, records.MANIFEST)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        with self.assertRaises(errors.InputError):
            records.Records(self.folder)


if __name__ == "__main__":
    absltest.main()
