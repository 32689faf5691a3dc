from absl.testing import absltest, parameterized

from bert_keras import errors


class AsFlagsTest(parameterized.TestCase):
    @parameterized.parameters(
        ("seed=3: too many `steps`.", "--seed=3: too many --steps."),
        (
            "(seed=3 before, 4 now; steps=1",
            "(--seed=3 before, 4 now; --steps=1",
        ),
        # What is no argument of this command stays as it is.
        ("warmup=3, `warmup` and steps", "warmup=3, `warmup` and steps"),
        # Nor is a name within a path, a quotation, a value or another name.
        ("runs/seed=3 'seed=3' x=seed=3", "runs/seed=3 'seed=3' x=seed=3"),
        ("my_seed=3 --seed=3 seeds=3", "my_seed=3 --seed=3 seeds=3"),
        ("seed_of=3, seed=", "seed_of=3, --seed="),
        # A name that begins with another one.
        ("seed_more=3", "--seed_more=3"),
    )
    def test_arguments_become_flags(self, text, expected):
        names = {"seed", "steps", "seed_more"}
        self.assertEqual(errors.as_flags(text, names), expected)

    def test_without_flags_a_text_stays(self):
        self.assertEqual(errors.as_flags("`a` b=1", ()), "`a` b=1")

    def test_an_error_knows_its_argument(self):
        error = errors.InputError("seed=-1: expected 0.", argument="seed")
        self.assertEqual(error.argument, "seed")
        self.assertEqual(str(error), "seed=-1: expected 0.")
        self.assertIsNone(errors.InputError("no file").argument)


class ListedTest(absltest.TestCase):
    def test_a_long_list_is_cut_and_counted(self):
        self.assertEqual(errors.listed("abc", most=3), "['a', 'b', 'c']")
        self.assertEqual(
            errors.listed(range(2345)),
            f"{list(range(20))} and 2,325 more",
        )


if __name__ == "__main__":
    absltest.main()
