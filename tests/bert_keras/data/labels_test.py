import contextlib
import itertools
import math

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras.data import labels

BLANKS = " \t\u3000\xa0\u2003\ufeff\u200b\x85"


class LabelsTest(parameterized.TestCase):
    @parameterized.parameters(
        ("good", "good"), (" a b ", "a b"), (f"{BLANKS}好{BLANKS}", "好"),
        (1, "1"), (1.0, "1.0"), (True, "true"), ("[/good]", "[/good]"),
        ("a,b", "a,b"), ("null", "null"), ("[a]", "[a]"), ("{x}", "{x}"),
        ("[a], 'b'", "[a], 'b'"), ("NA", "NA"), ("None", "None"),
    )  # fmt: skip
    def test_one_label_is_stripped_and_nothing_else(self, value, label):
        self.assertEqual(labels.parse_label(value), label)

    @parameterized.parameters(
        None, "", " ", "\u3000", math.nan, math.inf, "nan", " NaN ", ([],),
        ({},), (["a"],), '["a"]', "['x', 'y']", "['x']", "[1, 2]", "[]",
        '{"a": 1}', "[ 'it''s' ]", '\u3000["a"]\xa0',
    )  # fmt: skip
    def test_a_missing_label_or_a_list_is_refused(self, value):
        with self.assertRaisesRegex(ValueError, "expected (a|one) label"):
            labels.parse_label(value)

    @parameterized.parameters(
        ("a, b", "a,b"), (" b\u3000,\xa0a,", "b,a"), ("a,a", "a"), ("a", "a"),
        (["a", "b "], "a,b"), (["好\u3000", "\xa0x"], "好,x"), ([], ""),
        ('["a", "b"]', "a,b"), ("[]", ""), ("[a]", "[a]"),
        ("[a],[/b]", "[a],[/b]"), (3, "3"), (None, ""), (math.nan, ""),
        ("nan", ""), ("", ""), (" ", ""), ("a b", "a b"),
    )  # fmt: skip
    def test_several_labels_are_joined(self, value, label):
        self.assertEqual(labels.parse_labels(value), label)
        self.assertEqual(labels.parse_labels(label), label)

    @parameterized.parameters(
        ([1],), ([None],), (["a", ["b"]],), ({"a": 1},), (["a,b"],), ([""],),
        (["a", " "],), ("['a', 'b']",), ("[a, b]",), ("[1, 2]",), ({},),
        ('["a", 1]',), ('["a", "b]',), ([math.nan],), (["nan"],),
        (["a", " NaN"],), (["[1]"],), (["[a", "b]"],), (['["a"]'],),
        (["['a'"  , "'b']"],), (["[]"],), ('["nan", "x"]',), "a,nan",
        "[1],",
    )  # fmt: skip
    def test_other_lists_and_objects_are_refused(self, value):
        with self.assertRaisesRegex(ValueError, "^expected (a list|labels)"):
            labels.parse_labels(value)

    @parameterized.parameters(
        *itertools.product(
            ("a", "nan", "[1]", "[", "[a]", "]", "['b'", "NA", "null", "1.0"),
            repeat=2,
        )
    )
    def test_labels_read_twice_are_the_same(self, one, other):
        for value in ([one, other], [one], f"{one},{other}", one):
            for read in (labels.parse_label, labels.parse_labels):
                with contextlib.suppress(ValueError):
                    label = read(value)
                    self.assertEqual(read(label), label)
                    if isinstance(value, list):
                        self.assertEqual(
                            label.split(","), list(dict.fromkeys(value))
                        )

    def test_names_that_may_be_missing_values_or_one_number_are_named(self):
        self.assertEqual(labels.doubts(["a", "nano", "1", "2", "1.5"]), "")
        for name in ("NA", "None", "null", "NULL", "<NA>", "N/A", "NaT", "NAN"):
            self.assertIn(f"class: {name}.", labels.doubts(["a", name]))
        self.assertIn(
            "1 and 1.0 are the same number", labels.doubts(["1.0", "1", "x"])
        )

    @parameterized.parameters(
        "5", " 5\u3000", "1e3", "-.5", "5.", "+1.5E-2", "0005", 2, 2.5, "1e-50"
    )
    def test_a_number_is_one_number_for_python_and_tensorflow(self, value):
        text = labels.parse_number(value)
        self.assertEqual(float(text), float(value))
        number = tf.strings.to_number(text).numpy()
        self.assertEqual(number, np.float32(float(text)))

    @parameterized.parameters(
        "", " ", "nan", "NaN", "inf", "-Infinity", "1e39", "1e400", "1_000",
        "１.5", "٣", "1,5", "0x1", "five", "1 2", "1e", ".", math.nan, math.inf,
        None, True, ([1],), ({},), "1" * 400, "3e38", "-3e38", "1.1e16", 2e18,
    )  # fmt: skip
    def test_other_forms_are_refused(self, value):
        with self.assertRaisesRegex(ValueError, "^expected a finite number, f"):
            labels.parse_number(value)


if __name__ == "__main__":
    absltest.main()
