from absl.testing import absltest, parameterized

from bert_keras.data import held_out


class HeldOutTest(parameterized.TestCase):
    @parameterized.product(
        share=(0.01, 0.03, 1 / 7, 0.15, 0.3, 1 / 3, 0.5), first=(0.0, 0.7)
    )
    def test_the_share_is_held_out_of_any_number_of_rows(self, share, first):
        count = 0
        for number in range(2_000):
            count += held_out.is_held_out(number, share, first)
            self.assertEqual(count, int((number + 1) * share + first))

    def test_none_is_held_out_by_a_share_of_0(self):
        self.assertFalse(
            any(held_out.is_held_out(number, 0.0, 0.9) for number in range(99))
        )


if __name__ == "__main__":
    absltest.main()
