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
        ("a,b", "a,b"), ('["a"]', '["a"]'), ("null", "null"),
    )  # fmt: skip
    def test_one_label_is_stripped_and_nothing_else(self, value, label):
        self.assertEqual(labels.one(value), label)

    @parameterized.parameters(
        None, "", " ", "\u3000", math.nan, math.inf, "nan", " NaN ", ([],),
        ({},), (["a"],),
    )  # fmt: skip
    def test_a_missing_label_is_refused(self, value):
        with self.assertRaisesRegex(ValueError, "expected (a|one) label"):
            labels.one(value)

    @parameterized.parameters(
        ("a, b", "a,b"), (" b\u3000,\xa0a,", "b,a"), ("a,a", "a"), ("a", "a"),
        (["a", "b "], "a,b"), (["好\u3000", "\xa0x"], "好,x"), ([], ""),
        ('["a", "b"]', "a,b"), ("[]", ""), ("[a]", "[a]"),
        ("[a],[/b]", "[a],[/b]"), (3, "3"), (None, ""), (math.nan, ""),
        ("nan", ""), ("", ""), (" ", ""), ("a b", "a b"),
    )  # fmt: skip
    def test_several_labels_are_joined(self, value, label):
        self.assertEqual(labels.several(value), label)
        self.assertEqual(labels.several(label), label)

    @parameterized.parameters(
        ([1],), ([None],), (["a", ["b"]],), ({"a": 1},), (["a,b"],), ([""],),
        (["a", " "],), ("['a', 'b']",), ("[a, b]",), ("[1, 2]",), ({},),
        ('["a", 1]',), ('["a", "b]',), ([math.nan],),
    )  # fmt: skip
    def test_other_lists_and_objects_are_refused(self, value):
        with self.assertRaisesRegex(ValueError, "^expected (a list|labels)"):
            labels.several(value)

    @parameterized.parameters(
        "5", " 5\u3000", "1e3", "-.5", "5.", "+1.5E-2", "0005", 2, 2.5, "1e-50"
    )
    def test_a_number_is_one_number_for_python_and_tensorflow(self, value):
        text = labels.number(value)
        self.assertEqual(float(text), float(value))
        number = tf.strings.to_number(text).numpy()
        self.assertEqual(number, np.float32(float(text)))

    @parameterized.parameters(
        "", " ", "nan", "NaN", "inf", "-Infinity", "1e39", "1e400", "1_000",
        "１.5", "٣", "1,5", "0x1", "five", "1 2", "1e", ".", math.nan, math.inf,
        None, True, ([1],), ({},), "1" * 400,
    )  # fmt: skip
    def test_other_forms_are_refused(self, value):
        with self.assertRaisesRegex(ValueError, "^expected a finite number, f"):
            labels.number(value)


if __name__ == "__main__":
    absltest.main()
