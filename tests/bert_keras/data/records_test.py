"""Damaged records are refused when they are opened, not in mid-training."""

import json
import os

import numpy as np
import safetensors.numpy
from absl.testing import absltest, parameterized

from bert_keras import errors, files
from bert_keras.data import records
from tests.bert_keras.data import batches_test

IDS = "inputs/token_ids"
TARGET_SPLITS = "row_splits:target_tokens"
TARGET_LABELS = "target_token:targets/next/labels"

# What commit 9578f10, which knew no targets, wrote of `of_row`s: the starts of
# the files' SHA-256, and the fingerprint. With a table or without.
FORMER = {
    False: (
        {
            "manifest.json": "569ad9874aa77aa7",
            "shard-00000.safetensors": "7b768277fb18c000",
            "shard-00001.safetensors": "1327e12f9025514c",
        },
        "91f06b125eeb4cdd",
    ),
    True: (
        {
            "manifest.json": "3fdb82b7191a7623",
            "shard-00000.safetensors": "4414300cb50a30eb",
            "shard-00001.safetensors": "a76bac38b0b2ca99",
        },
        "f3d97db41923f301",
    ),
}


class FormerTest(parameterized.TestCase):
    @parameterized.parameters(False, True)
    def test_records_without_targets_are_written_as_before(self, table):
        folder = self.create_tempdir().full_path
        per_token = [*records.PER_TOKEN, *["inputs/characters"] * table]
        entries = []
        for shard, numbers in enumerate((range(10), range(10, 20))):
            rows = [batches_test.row(number) for number in numbers]
            for row in rows if table else ():
                label, length = row["targets/label/labels"], len(row[IDS])
                characters = np.full((length, 5), label % 3, np.int32)
                row["inputs/characters"] = characters
            path = os.path.join(folder, records.shard_name(shard))
            columns = records.columns_of(rows, per_token=per_token)
            entries.append(records.write_shard(path, columns))
        records.write_manifest(folder, entries, seq_length=20)
        digests = {
            name: files.checksum(os.path.join(folder, name))[:16]
            for name in os.listdir(folder)
        }
        fingerprint = records.Records(folder).fingerprint
        self.assertEqual((digests, fingerprint), FORMER[table])


class DamageTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        batches_test.write(self.folder)

    def edit(self, change, *, manifest, shard=1):
        """Changes the tensors of a shard, and the manifest's checksum too."""
        shard_path = os.path.join(self.folder, records.shard_name(shard))
        tensors = dict(safetensors.numpy.load_file(shard_path))
        change(tensors)
        safetensors.numpy.save_file(tensors, shard_path)
        if manifest:
            path = os.path.join(self.folder, records.MANIFEST)
            values = files.read_json(path)
            values["shards"][shard]["sha256"] = files.checksum(shard_path)
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

    @parameterized.parameters(
        lambda t: t.pop(TARGET_SPLITS),
        lambda t: t.update({TARGET_SPLITS: t[TARGET_SPLITS][::-1].copy()}),
        lambda t: t.update({TARGET_SPLITS: t[TARGET_SPLITS] + 1}),
        lambda t: t.update({TARGET_SPLITS: t[TARGET_SPLITS].repeat(2)[1:]}),
        lambda t: t.update({TARGET_SPLITS: t[TARGET_SPLITS].astype(float)}),
        lambda t: t.update({TARGET_LABELS: np.zeros((3, 2), np.int64)}),
        lambda t: t.update({TARGET_LABELS: np.zeros((), np.int64)}),
        lambda t: t.pop(TARGET_LABELS),
        lambda t: t.update({TARGET_LABELS: t[TARGET_LABELS][:, 0].copy()}),
        lambda t: [t.pop(name) for name in list(t) if "target_token" in name],
    )
    def test_targets_that_do_not_fit_are_refused(self, change):
        batches_test.write(self.folder, targets=True)
        records.Records(self.folder)
        self.edit(change, manifest=True)
        with self.assertRaisesRegex(errors.InputError, "00001.* is damaged"):
            records.Records(self.folder)

    @parameterized.parameters(
        lambda name: name == TARGET_SPLITS,
        lambda name: name.startswith("target_token:"),
    )
    def test_target_tokens_and_their_row_splits_need_each_other(self, lost):
        batches_test.write(self.folder, shards=1, targets=True)

        def change(tensors):
            for name in list(filter(lost, tensors)):
                del tensors[name]

        self.edit(change, manifest=True, shard=0)
        with self.assertRaisesRegex(errors.InputError, "00000.* is damaged"):
            records.Records(self.folder)

    @parameterized.parameters(
        lambda t: t.pop("token:inputs/segment_ids"),
        lambda t: t.pop("row:targets/label/labels"),
        lambda t: t.update(
            {"row:inputs/segment_ids": t.pop("token:inputs/segment_ids")[:34]}
        ),
        lambda t: t.update(
            {"row:targets/label/labels": np.zeros((34, 2), np.int32)}
        ),
    )
    def test_a_shard_without_a_feature_of_the_first_is_refused(self, change):
        self.edit(change, manifest=True)
        with self.assertRaisesRegex(errors.InputError, "00001.* is damaged"):
            records.Records(self.folder)

    def test_a_folder_of_a_later_version_is_refused(self):
        path = os.path.join(self.folder, records.MANIFEST)
        values = files.read_json(path) | {"format": "bert_keras.records.4"}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(values, file)
        with self.assertRaisesRegex(
            errors.InputError, "format bert_keras.records.4; .*records.3"
        ):
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
