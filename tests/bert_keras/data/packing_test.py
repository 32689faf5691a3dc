import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras.data import packing

CLS, SEP = 101, 102


def truncated(first, second, room):
    """Longest-first as BERT describes it: one token at a time."""
    first, second = list(first), list(second)
    while len(first) + len(second) > room:
        (first if len(first) > len(second) else second).pop()
    return first, second


def ragged(rows):
    return tf.RaggedTensor.from_row_lengths(
        tf.constant([x for row in rows for x in row], tf.int32),
        tf.constant([len(row) for row in rows], tf.int64),
    )


class PackTest(parameterized.TestCase):
    @parameterized.parameters(5, 8, 9, 16)
    def test_pairs_are_cut_longest_first(self, seq_length):
        lengths = [(a, b) for a in range(0, 14) for b in range(0, 14)]
        firsts = [list(range(1, a + 1)) for a, _ in lengths]
        seconds = [list(range(21, b + 21)) for _, b in lengths]
        packed = packing.pack(
            [ragged(firsts), ragged(seconds)],
            cls_id=CLS,
            sep_id=SEP,
            seq_length=seq_length,
        )
        for row, (first, second) in enumerate(
            zip(firsts, seconds, strict=True)
        ):
            first, second = truncated(first, second, seq_length - 3)
            expected = [CLS, *first, SEP, *second, SEP]
            ids = packed["token_ids"][row].numpy()
            mask = packed["padding_mask"][row].numpy()
            self.assertEqual(ids[mask > 0].tolist(), expected)
            self.assertEqual(ids[mask == 0].sum(), 0)
            segments = packed["segment_ids"][row].numpy()[mask > 0]
            self.assertEqual(segments.sum(), len(second) + 1)
            alone = packing.pack_arrays(
                np.array(first, np.int32),
                np.array(second, np.int32),
                cls_id=CLS,
                sep_id=SEP,
            )
            if second:
                self.assertEqual(alone["token_ids"].tolist(), expected)
                self.assertEqual(
                    alone["segment_ids"].tolist(), segments.tolist()
                )

    def test_no_text_gives_no_row(self):
        for segments in ([ragged([])], [ragged([]), ragged([])]):
            packed = packing.pack(
                segments, cls_id=CLS, sep_id=SEP, seq_length=8
            )
            self.assertEqual(packed["token_ids"].shape[0], 0)


if __name__ == "__main__":
    absltest.main()
