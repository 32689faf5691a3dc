"""A cached step computes what the encoder computes for the whole text."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import kv_cache, layers
from bert_keras.networks import bert
from tests import tiny

LENGTHS, NEW = (1, 5, 3, 9), 6
NETWORKS = {
    "gpt": bert.GPT,
    "two_segments": {"causal": True},
    "pre_norm": {"causal": True, "norm_first": True, "num_segments": 1},
    "shared": {"causal": True, "num_hidden_groups": 1, "embedding_size": 8},
    "concatenated": {
        "causal": True,
        "embedding_sum": False,
        "embedding_size": 8,
    },
    "task_type": {"causal": True, "num_task_types": 3, "task_type": 2},
    "shared_query_key": {"causal": True, "shared_query_key": True},
    "shared_sublayers": {
        "causal": True,
        "num_hidden_groups": 1,
        "shared_sublayers": "feed_forward",
    },
    "sinusoidal": {
        "causal": True,
        "position": "sinusoidal",
        "max_position_embeddings": 4,
    },
}


def texts(length):
    """Rows of `length` tokens, (4, length)."""
    random = np.random.default_rng(0)
    ids = random.integers(5, len(tiny.VOCABULARY), (len(LENGTHS), length))
    return tf.constant(ids, tf.int32)


def encoded(encoder, ids):
    """The last hidden states (B, S, H) of complete texts."""
    inputs = {"token_ids": ids, "padding_mask": tf.ones_like(ids)}
    if encoder.config.num_segments > 1:
        inputs["segment_ids"] = tf.zeros_like(ids)
    return encoder(**inputs)["hidden"][-1]


class CacheTest(parameterized.TestCase):
    @parameterized.parameters(*NETWORKS)
    def test_hidden_states_are_those_of_the_complete_text(self, name):
        config = tiny.bert(initializer_range=0.3, **NETWORKS[name])
        encoder = config.build_encoder()
        longest = max(LENGTHS)
        complete = texts(longest + NEW)
        want = encoded(encoder, complete).numpy()
        mask = tf.sequence_mask(LENGTHS, longest, dtype=tf.int32)
        ids, state = kv_cache.read_prompts(
            encoder,
            # What stands in the padding must not matter.
            token_ids=tf.where(mask > 0, complete[:, :longest], 7),
            padding_mask=mask,
            max_new_tokens=NEW,
        )
        rows = np.arange(len(LENGTHS))
        for number in range(NEW):
            position = np.array(LENGTHS) - 1 + number
            np.testing.assert_array_equal(ids, complete.numpy()[rows, position])
            hidden, state = kv_cache.step(encoder, ids, state)
            np.testing.assert_allclose(
                hidden[:, 0], want[rows, position], atol=1e-5
            )
            ids = tf.gather(complete, position + 1, axis=1, batch_dims=1)

    def test_bfloat16_caches_are_bfloat16(self):
        with layers.global_policy("mixed_bfloat16"):
            encoder = tiny.bert(**bert.GPT).build_encoder()
        ids = texts(4)
        _, state = kv_cache.read_prompts(
            encoder,
            token_ids=ids,
            padding_mask=tf.ones_like(ids),
            max_new_tokens=2,
        )
        hidden, state = kv_cache.step(encoder, ids[:, 3], state)
        self.assertEqual(hidden.dtype, tf.bfloat16)
        for keys, values in state["layers"]:
            self.assertEqual(keys.shape, (4, 2, 6, 8))
            self.assertEqual((keys.dtype, values.dtype), (tf.bfloat16,) * 2)
        np.testing.assert_allclose(
            tf.cast(hidden[:, 0], tf.float32),
            tf.cast(encoded(encoder, ids)[:, 3], tf.float32),
            atol=0.05,
        )


if __name__ == "__main__":
    absltest.main()
