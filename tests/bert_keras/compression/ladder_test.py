"""The ladder: which candidates there are for networks of any depth."""

from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.compression import ladder
from bert_keras.device import tflite_converter
from bert_keras.serving import saved_model


def names(num_layers):
    return [each.name for each in ladder.ladder(num_layers)]


class LadderTest(parameterized.TestCase):
    def test_candidates_of_twelve_layers(self):
        self.assertEqual(
            names(12),
            [
                *("original", "original-bfloat16", "original-tflite"),
                *("original-dynamic", "original-int8"),
                *("trimmed", "trimmed-dynamic"),
                *("layers-6", "layers-6-dynamic"),
                *("layers-4", "layers-4-dynamic"),
                *("exits-0.3", "exits-0.5", "exits-0.7"),
                "layers-6-trimmed-dynamic",
            ],
        )

    def test_one_layer_has_neither_a_student_nor_an_exit(self):
        self.assertEqual(names(1), names(12)[:7])

    @parameterized.parameters(
        (1, []), (2, [1]), (3, [2, 1]), (4, [2, 1]), (5, [3, 2]), (6, [3, 2])
    )
    def test_students_have_a_half_and_a_third_of_the_layers(self, count, found):
        self.assertEqual(ladder.student_layers(count), found)

    @parameterized.parameters(1, 2, 12)
    def test_names_are_distinct_and_precisions_known(self, num_layers):
        found = ladder.ladder(num_layers)
        self.assertLen({each.name for each in found}, len(found))
        for each in found:
            self.assertIn(
                each.precision,
                saved_model.PRECISIONS
                if each.artifact == ladder.SAVED_MODEL
                else tflite_converter.QUANTIZATIONS,
            )

    def test_recipes_have_distinct_names(self):
        recipes = {each.recipe for each in ladder.ladder(12)}
        self.assertEqual(
            {each.name for each in recipes},
            {
                *("original", "trimmed", "layers-6", "layers-4", "exits"),
                "layers-6-trimmed",
            },
        )


class ChosenTest(parameterized.TestCase):
    @parameterized.parameters(
        ("trimmed", ["original", "trimmed"]),
        ("trimmed, original-int8", ["original", "original-int8", "trimmed"]),
        ("original", ["original"]),
    )
    def test_the_original_is_always_among_them(self, wanted, expected):
        found = ladder.chosen(ladder.ladder(2), wanted)
        self.assertEqual([each.name for each in found], expected)

    def test_without_names_all_are_chosen(self):
        every = ladder.ladder(3)
        self.assertEqual(ladder.chosen(every, ""), every)

    def test_an_unknown_name_is_refused_with_the_known_ones(self):
        with self.assertRaisesRegex(
            errors.InputError,
            "^candidates=layers-7: expected some of original, .*, layers-1,",
        ):
            ladder.chosen(ladder.ladder(2), "trimmed,layers-7")


if __name__ == "__main__":
    absltest.main()
