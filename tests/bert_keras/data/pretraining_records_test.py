import dataclasses
import os
from unittest import mock

from absl.testing import absltest

from bert_keras import files
from bert_keras.data import corpus, corpus_chunks, pretraining_records
from tests import tiny


class PretrainingRecordsTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        path = os.path.join(self.folder, "corpus.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.write("a good film .\na dull plot .\n\nthe old story .\n")
        partition = corpus_chunks.Partition(corpus.scan([path]), held_out=0.0)
        (self.chunk,) = partition
        self.settings = pretraining_records.ShardSettings(
            folder=self.folder,
            tokenizer=tiny.tokenizer(),
            seq_length=16,
            objective="none",
        )

    def write(self, **changes):
        """Returns the result and the number of files that were hashed."""
        settings = dataclasses.replace(self.settings, **changes)
        with mock.patch.object(
            files, "checksum", side_effect=files.checksum
        ) as checksum:
            result = pretraining_records.write_shards(self.chunk, settings)
        return result, checksum.call_count

    def test_an_equal_call_reuses_the_shards(self):
        first, _ = self.write()
        self.assertLen(first["shards"], 1)
        self.assertEqual(self.write(), (first, 1))

    def test_shards_of_other_settings_are_not_read(self):
        first, count = self.write()
        second, again = self.write(seed=2)
        self.assertNotEqual(first["fingerprint"], second["fingerprint"])
        self.assertEqual(again, count)

    def test_a_damaged_shard_is_written_again(self):
        first, _ = self.write()
        (shard,) = first["shards"]
        path = os.path.join(self.folder, "train", shard["name"])
        with open(path, "ab") as file:
            file.write(b"x")
        self.assertEqual(self.write()[0], first)
        self.assertEqual(files.checksum(path), shard["sha256"])

    def test_a_result_file_of_other_contents_is_written_again(self):
        first, _ = self.write()
        path = os.path.join(self.folder, "train", "chunk-00000.json")
        with open(path, "w", encoding="utf-8") as file:
            file.write("{}")
        self.assertEqual(self.write()[0], first)
        self.assertEqual(files.read_json(path), first)


if __name__ == "__main__":
    absltest.main()
