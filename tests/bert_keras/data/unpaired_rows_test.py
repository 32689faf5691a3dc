import dataclasses
import os

import numpy as np
from absl.testing import absltest, parameterized

from bert_keras.data import (
    corpus,
    corpus_chunks,
    pretraining_records,
    sentence_pairs,
    unpaired_rows,
)
from bert_keras.data import records as records_lib
from tests import tiny

TEXT = (
    "a good film .\na dull plot and a good story .\n\nthe old story .\n"
    "a bad film .\n\na fine story\n"
)


class SpansTest(parameterized.TestCase):
    @parameterized.product(
        num_tokens=(0, 1, 2, 7, 9, 30), seq_length=(2, 3, 10), offset=(0, 1, 2)
    )
    def test_full_rows_cover_the_stream_in_order(
        self, num_tokens, seq_length, offset
    ):
        spans = unpaired_rows.full_rows(num_tokens, seq_length, offset)
        lengths = spans[:, 1] - spans[:, 0]
        self.assertTrue((lengths > 1).all())
        self.assertTrue((lengths <= seq_length).all())
        self.assertTrue((lengths[1:-1] == seq_length).all())
        covered = np.concatenate([np.arange(*span) for span in spans] or [[]])
        # Only a row of one token is left out, and that is the first or last.
        self.assertContainsSubset(covered, range(num_tokens))
        self.assertTrue((np.diff(covered) == 1).all())
        self.assertGreaterEqual(len(covered), num_tokens - 2)

    def test_sentence_rows_split_long_sentences_only(self):
        ends = np.array([2, 7, 8, 14])
        self.assertEqual(
            unpaired_rows.sentence_rows(ends, 3).tolist(),
            [[0, 2], [2, 5], [5, 7], [7, 8], [8, 11], [11, 14]],
        )
        self.assertEmpty(unpaired_rows.sentence_rows(ends[:0], 3))

    def test_every_document_is_ended(self):
        documents = sentence_pairs.TokenizedDocuments(
            np.array([7, 8, 9]), np.array([1, 2, 3]), np.array([2, 3])
        )
        self.assertEqual(
            unpaired_rows.end_documents(documents, 1).tolist(), [7, 8, 1, 9, 1]
        )
        self.assertEqual(
            unpaired_rows.end_documents(documents, None).tolist(), [7, 8, 9]
        )


class RecordsTest(parameterized.TestCase):
    def rows(self, **changes):
        """The text of each row, of every pass."""
        folder = self.create_tempdir().full_path
        path = os.path.join(folder, "corpus.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.write(TEXT)
        (chunk,) = corpus_chunks.Partition(corpus.scan([path]), held_out=0.0)
        settings = pretraining_records.ShardSettings(
            folder=folder,
            tokenizer=tiny.tokenizer(),
            seq_length=8,
            objective="none",
        )
        settings = dataclasses.replace(settings, **changes)
        documents = pretraining_records.encode(chunk, settings)
        passes = []
        for columns in pretraining_records.sample_records(
            documents, settings, "train", 0
        ):
            rows = records_lib.Rows.of_columns(columns)
            batch = rows.read(np.arange(len(rows)), 8)
            self.assertEqual(batch["inputs/segment_ids"].max(), 0)
            mask = batch["inputs/padding_mask"] > 0
            passes.append(
                [
                    " ".join(settings.tokenizer.tokens(ids[real]))
                    for ids, real in zip(
                        batch["inputs/token_ids"], mask, strict=True
                    )
                ]
            )
        return passes

    def test_full_rows_run_across_sentences_and_documents(self):
        (rows,) = self.rows(packing="full")
        stream = TEXT.strip().replace("\n\n", " [SEP] ").replace("\n", " ")
        self.assertEqual(" ".join(rows), f"{stream} [SEP]")
        self.assertEqual({len(row.split()) for row in rows[:-1]}, {8})

    def test_passes_of_full_rows_begin_elsewhere(self):
        first, second, third = self.rows(packing="full", passes=3)
        self.assertLen(
            {row for rows in (first, second, third) for row in rows},
            len(first) + len(second) + len(third),
        )
        self.assertEqual(" ".join(second), " ".join(first))
        again = self.rows(packing="full", passes=3)
        self.assertEqual(again, [first, second, third])

    def test_sentences_are_rows_with_special_tokens(self):
        (rows,) = self.rows(packing="sentences")
        self.assertEqual(
            rows,
            [
                "[CLS] a good film . [SEP]",
                "[CLS] a dull plot and a good [SEP]",
                "[CLS] story . [SEP]",
                "[CLS] the old story . [SEP]",
                "[CLS] a bad film . [SEP]",
                "[CLS] a fine story [SEP]",
            ],
        )


if __name__ == "__main__":
    absltest.main()
