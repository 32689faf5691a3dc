"""Records name their tokenizer, and fingerprints are those of before."""

import json
import os

from absl.testing import absltest, parameterized

from bert_keras.data import corpus, corpus_chunks, pretraining_records, records
from bert_keras.tokenizers import wordpiece
from tests import tiny


def write(folder, words, **metadata):
    words.save(folder)
    entry = records.write_shard(
        os.path.join(folder, records.shard_name(0)),
        records.columns_of(
            [{"inputs/token_ids": [2, 5, 3], "inputs/segment_ids": [0, 0, 0]}],
            per_token=records.PER_TOKEN,
        ),
    )
    records.write_manifest(folder, [entry], seq_length=8, **metadata)


class RecordsTokenizerTest(parameterized.TestCase):
    @parameterized.parameters(True, False)
    def test_records_read_their_tokenizer(self, lowercase):
        folder = self.create_tempdir().full_path
        tokenizer = wordpiece.Tokenizer(tiny.VOCABULARY, lowercase=lowercase)
        write(folder, tokenizer, **records.tokenizer_metadata(tokenizer))
        again = records.Records(folder).tokenizer()
        self.assertEqual(again.fingerprint, tokenizer.fingerprint)

    def test_records_of_before_read_alike_and_have_the_same_fingerprint(self):
        tokenizer = tiny.tokenizer()
        new, old = (self.create_tempdir().full_path for _ in range(2))
        write(new, tokenizer, **records.tokenizer_metadata(tokenizer))
        write(old, tokenizer, lowercase=True, tokenizer=tokenizer.fingerprint)
        with open(os.path.join(old, records.MANIFEST)) as file:
            self.assertNotIn(records.SETTINGS, json.load(file))
        new, old = records.Records(new), records.Records(old)
        self.assertEqual(new.fingerprint, old.fingerprint)
        self.assertEqual(old.tokenizer().fingerprint, tokenizer.fingerprint)

    @parameterized.parameters(
        (
            None,
            "4deb53a6ad4679585a7c70ea1f03452d48c0e221149cd81ccb3a97269f4a7393",
        ),
        (
            pretraining_records.MaskSettings(0.2, 7),
            "6615603c979073c2484568394073799f4e5b90d1fecc2267963fa2c51b1ed508",
        ),
    )
    def test_chunks_that_were_made_before_are_found(self, masks, fingerprint):
        settings = pretraining_records.ShardSettings(
            folder="anywhere",
            tokenizer=tiny.tokenizer(),
            seq_length=32,
            objective="sop",
            passes=2,
            seed=5,
            masks=masks,
        )
        document = corpus.Document(*["x"] * 5, digest="abc", size=1)
        chunk = corpus_chunks.Chunk("train", 3, [document])
        self.assertEqual(
            pretraining_records._fingerprint(chunk, settings), fingerprint
        )


if __name__ == "__main__":
    absltest.main()
