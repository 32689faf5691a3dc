from absl.testing import absltest

from tests import tiny


class NetworkConfigTest(absltest.TestCase):
    def test_states_what_the_encoder_reads(self):
        self.assertEqual(
            dict(tiny.bert().inputs),
            {"token_ids": (), "segment_ids": (), "padding_mask": ()},
        )

    def test_learned_positions_end(self):
        self.assertEqual(tiny.bert().max_length, 64)
        self.assertIsNone(tiny.bert(position="sinusoidal").max_length)

    def test_tokens_are_as_wide_as_the_network_unless_projected(self):
        self.assertEqual(tiny.bert(embedding_size=None).embedding_width, 16)
        self.assertEqual(tiny.bert(embedding_size=8).embedding_width, 8)


if __name__ == "__main__":
    absltest.main()
