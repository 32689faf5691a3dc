import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras.data import packing
from bert_keras.tokenizers import base

CLS, SEP = 101, 102
BERT = base.Frame((CLS,), (SEP,), (SEP,))
ROBERTA = base.Frame((0,), (2, 2), (2,))
NONE = base.Frame((), (), ())


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
            BERT,
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

    @parameterized.parameters(1, 2)
    def test_a_row_is_truncated_if_tokens_are_missing_and_only_then(
        self, segments
    ):
        lengths = list(
            range(14)
        )  # 8 fill a row of one segment, 6 and 1 one of two
        packed = packing.pack(
            [ragged([[7] * length for length in lengths])]
            + [ragged([[8]] * len(lengths))] * (segments - 1),
            BERT,
            seq_length=10,
        )
        kept_lengths = packed["padding_mask"].numpy().sum(axis=1)
        wanted = np.array(lengths) + (2 if segments == 1 else 4)
        np.testing.assert_array_equal(
            packed["truncated"], kept_lengths < wanted
        )
        np.testing.assert_array_equal(kept_lengths, np.minimum(wanted, 10))

    @parameterized.parameters(BERT, ROBERTA, NONE)
    def test_spans_of_arrays_pack_alike(self, *frame):
        frame = base.Frame(*frame)
        random = np.random.default_rng(0)
        ids = random.integers(5, 99, 200).astype(np.uint16)
        spans = np.sort(random.integers(0, 200, (2, 30, 2)), axis=-1)
        spans[..., 1] += spans[..., 0] == spans[..., 1]  # none is empty
        for second in (spans[1], np.zeros_like(spans[1])):
            row_splits, token_ids, segment_ids = packing.pack_spans(
                ids, spans[0], second, frame
            )
            segments = [
                [ids[slice(*span)].tolist() for span in part]
                for part in (spans[0], second)
            ]
            segments = segments if second.any() else segments[:1]
            packed = packing.pack(
                [ragged(segment) for segment in segments],
                frame,
                seq_length=500,
            )
            real = packed["padding_mask"].numpy() > 0
            for name, actual in (
                ("token_ids", token_ids),
                ("segment_ids", segment_ids),
            ):
                np.testing.assert_array_equal(
                    packed[name].numpy()[real], actual
                )
            np.testing.assert_array_equal(np.diff(row_splits), real.sum(axis=1))

    @parameterized.product(frame=(BERT, ROBERTA, NONE), segments=(1, 2))
    def test_rows_have_the_frame_of_their_tokenizer(self, frame, segments):
        random = np.random.default_rng(1)
        texts = [
            [
                random.integers(5, 99, n).tolist()
                for n in random.integers(9, size=40)
            ]
            for _ in range(segments)
        ]
        room = frame.capacity(9, segments)
        packed = packing.pack(list(map(ragged, texts)), frame, seq_length=9)
        for row, parts in enumerate(zip(*texts, strict=True)):
            kept = truncated(*parts, *[[]] * (2 - segments), room)[:segments]
            expected = [*frame.start]
            for number, part in enumerate(kept):
                expected += [*(frame.between if number else ()), *part]
            expected += frame.end
            mask = packed["padding_mask"][row].numpy()
            ids = packed["token_ids"][row].numpy()
            self.assertEqual(ids[mask > 0].tolist(), expected)
            second = packed["segment_ids"][row].numpy().sum()
            last = len(kept[1]) + len(frame.end) if segments == 2 else 0
            self.assertEqual(second, last)

    def test_facts_stay_with_their_tokens(self):
        random = np.random.default_rng(2)
        first, second = (
            ragged(
                [
                    range(100 * k, 100 * k + n)
                    for n in random.integers(9, size=30)
                ]
            )
            for k in (5, 6)
        )
        for frame in (BERT, ROBERTA, NONE):
            packed = packing.pack(
                [first, second],
                frame,
                seq_length=11,
                per_token={
                    "next": [first + 1, second + 1],
                    "second": [None, second],
                },
                padding_value=-1,
            )
            ids = packed["token_ids"].numpy()
            np.testing.assert_array_equal(
                packed["next"], np.where(ids >= 500, ids + 1, -1)
            )
            np.testing.assert_array_equal(
                packed["second"], np.where(ids >= 600, ids, -1)
            )

    def test_ids_may_be_rows_of_numbers(self):
        frame = base.Frame(((1, 1),), (), ((2, 2),), feature="characters")
        ids = ragged([[3, 4], [5]]).with_values(
            tf.constant([[3, 3], [4, 4], [5, 5]])
        )
        packed = packing.pack([ids], frame, seq_length=3)
        self.assertEqual(
            packed["characters"].numpy().tolist(),
            [[[1, 1], [3, 3], [2, 2]], [[1, 1], [5, 5], [2, 2]]],
        )
        self.assertEqual(packed["truncated"].numpy().tolist(), [True, False])

    def test_texts_that_share_a_row_are_the_rows_of_each(self):
        random = np.random.default_rng(3)
        texts = [
            ragged(
                [random.integers(5, 99, n) for n in random.integers(9, size=20)]
            )
            for _ in range(3)
        ]
        shared = packing.pack_separately(texts, BERT, seq_length=19)
        positions = packing.position_ids(shared["padding_mask"], 3)
        alone = [packing.pack([text], BERT, seq_length=6) for text in texts]
        for row in range(20):
            for number, one in enumerate(alone, 1):
                of_text = shared["padding_mask"][row].numpy() == number
                real = one["padding_mask"][row].numpy() > 0
                np.testing.assert_array_equal(
                    shared["token_ids"][row].numpy()[of_text],
                    one["token_ids"][row].numpy()[real],
                )
                np.testing.assert_array_equal(
                    positions[row].numpy()[of_text], np.arange(real.sum())
                )
        np.testing.assert_array_equal(
            shared["truncated"],
            np.any([one["truncated"] for one in alone], axis=0),
        )

    def test_no_text_gives_no_row(self):
        for segments in ([ragged([])], [ragged([]), ragged([])]):
            packed = packing.pack(segments, BERT, seq_length=8)
            self.assertEqual(packed["token_ids"].shape[0], 0)


class WindowsTest(parameterized.TestCase):
    @parameterized.product(room=(1, 2, 5, 8), stride=(1, 2, 3, 8, 100))
    def test_every_token_is_seen_and_counted_once(self, room, stride):
        texts = [list(range(n, 2 * n)) for n in range(20)]
        windows = packing.windows(ragged(texts), room, stride)
        counted = [[] for _ in texts]
        for ids, index, begin, first, last in zip(
            windows.values.to_list(), *map(np.asarray, windows[1:]), strict=True
        ):
            self.assertEqual(ids, texts[index][begin : begin + room])
            self.assertBetween(first, begin, last)
            self.assertLessEqual(last, begin + len(ids))
            counted[index] += texts[index][first:last]
        self.assertEqual(counted, texts)
        windows_per_text = np.bincount(
            windows.example_index, minlength=len(texts)
        )
        fitting = [len(text) <= room for text in texts]
        self.assertEqual((windows_per_text == 1).tolist(), fitting)

    def test_a_token_counts_where_it_has_the_most_context(self):
        room, length = 9, 40
        windows = packing.windows(ragged([list(range(length))]), room, 4)
        begins = windows.start.numpy()
        ends = np.minimum(begins + room, length)
        for begin, end, first, last in zip(
            begins,
            ends,
            windows.own_start.numpy(),
            windows.own_stop.numpy(),
            strict=True,
        ):
            for token in range(first, last):
                contexts = [
                    min(token - a, b - 1 - token)
                    for a, b in zip(begins[:-1], ends[:-1], strict=True)
                ]
                context = min(token - begin, end - 1 - token)
                if begin and end < length - 4:
                    self.assertGreaterEqual(context, max(contexts) - 1)

    def test_each_text_has_its_own_room(self):
        texts = [[1, 2, 3, 4], [5, 6, 7, 8]]
        windows = packing.windows(ragged(texts), tf.constant([4, 2]), 2)
        self.assertEqual(
            windows.values.to_list(), [[1, 2, 3, 4], [5, 6], [7, 8]]
        )

    def test_no_text_gives_no_window_and_an_empty_text_one(self):
        graph = tf.function(
            lambda ids: packing.windows(ids, 3, 2),
            input_signature=[
                tf.RaggedTensorSpec([None, None], tf.int32, ragged_rank=1)
            ],
        )
        self.assertEqual(graph(ragged([])).example_index.shape[0], 0)
        windows = graph(ragged([[], [1], []]))
        self.assertEqual(windows.values.to_list(), [[], [1], []])
        self.assertEqual(windows.example_index.numpy().tolist(), [0, 1, 2])


if __name__ == "__main__":
    absltest.main()
