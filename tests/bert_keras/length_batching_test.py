import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import length_batching


def rows(*lengths):
    """Rows of ids 1, 2, 3, ... of these lengths."""
    ids = tf.ragged.range(1, tf.constant(lengths, tf.int32) + 1).to_tensor()
    return {
        "token_ids": ids,
        "segment_ids": tf.zeros_like(ids),
        "padding_mask": tf.cast(ids > 0, tf.int32),
    }


class ByLengthTest(parameterized.TestCase):
    def decode(self):
        """Answers that show what was read; notes the shape of each pass."""
        self.passes = []

        def record(*shape):
            self.passes.append(tuple(int(size) for size in shape))

        @tf.function(autograph=False)
        def decode(token_ids, segment_ids, padding_mask):
            shape = tf.shape(token_ids)
            recorded = tf.py_function(record, [shape[0], shape[1]], [])
            with tf.control_dependencies([recorded]):
                total = tf.reduce_sum(token_ids, axis=1)
            return {
                "sum": total,
                "two": tf.stack([total, segment_ids[:, 0]], axis=1),
                "twice": 2 * token_ids,
                "score": 0.5 * tf.cast(padding_mask, tf.float32),
            }

        return decode

    @parameterized.parameters(
        ([5],),
        ([3, 90, 3, 40, 41, 90, 2],),
        ([64] * 300,),
        (list(range(2, 130)),),
    )
    def test_answers_are_those_of_all_rows_at_once(self, lengths):
        inputs, decode = rows(*lengths), self.decode()
        for run in (
            length_batching.in_length_batches,
            tf.function(length_batching.in_length_batches),
        ):
            got, want = run(decode, inputs), decode(**inputs)
            self.assertEqual(set(got), set(want))
            for name, value in want.items():
                np.testing.assert_array_equal(got[name], value, name)

    def test_rows_join_while_padding_is_cheaper_than_a_pass(self):
        near = length_batching.OVERHEAD_TOKENS // 4
        length_batching.in_length_batches(
            self.decode(), rows(100, 100 - near, 10, 100, 12)
        )
        self.assertEqual(self.passes, [(3, 100), (2, 12)])

    def test_the_rows_of_the_docstring_need_three_passes(self):
        length_batching.in_length_batches(
            self.decode(), rows(3, 90, 41, 3, 90, 40)
        )
        self.assertEqual(self.passes, [(3, 90), (2, 40), (1, 3)])

    def test_padding_of_one_pass_is_still_cheap_enough(self):
        for more, passes in ((0, 1), (1, 2)):
            missing = length_batching.OVERHEAD_TOKENS + more
            length_batching.in_length_batches(
                self.decode(), rows(100, 100 - missing)
            )
            self.assertLen(self.passes, passes)

    def test_a_pass_has_so_many_tokens_at_most(self):
        count = 2 * length_batching.MAX_TOKENS // 64 + 1
        length_batching.in_length_batches(self.decode(), rows(*[64] * count))
        self.assertEqual(
            self.passes,
            [(length_batching.MAX_TOKENS // 64, 64)] * 2 + [(1, 64)],
        )

    def test_copies_of_a_row_count_as_tokens(self):
        count = length_batching.MAX_TOKENS // 64
        length_batching.in_length_batches(
            self.decode(), rows(*[64] * count), copies=4
        )
        self.assertEqual(self.passes, [(count // 4, 64)] * 4)

    def test_a_row_longer_than_a_pass_stands_alone(self):
        length_batching.in_length_batches(
            self.decode(), rows(length_batching.MAX_TOKENS + 1, 2)
        )
        self.assertEqual(
            self.passes, [(1, length_batching.MAX_TOKENS + 1), (1, 2)]
        )

    def test_of_no_rows_the_shapes_are_told(self):
        inputs = {
            name: tf.zeros((0, 2), tf.int32)
            for name in ("token_ids", "segment_ids", "padding_mask")
        }
        got = tf.function(length_batching.in_length_batches)(
            self.decode(), inputs
        )
        shapes = {name: tuple(value.shape) for name, value in got.items()}
        self.assertEqual(
            shapes,
            {"sum": (0,), "two": (0, 2), "twice": (0, 2), "score": (0, 2)},
        )


if __name__ == "__main__":
    absltest.main()
