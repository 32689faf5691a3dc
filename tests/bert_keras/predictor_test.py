"""What a person may give to Predictor, and what is refused with its place."""

import dataclasses
import math

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors, predictor
from bert_keras import model as model_lib
from bert_keras.networks import bert
from tests import tiny


class Frame:
    """What is asked of a data frame, of pandas or another library."""

    def __init__(self, *texts, rows="to_dict"):
        self.texts = texts
        setattr(self, rows, self._rows)
        if rows == "to_dict":
            self.iterrows = None

    def __iter__(self):
        return iter(("text", "label"))

    def _rows(self, form="records"):
        assert form == "records"
        return [{"text": text, "label": 1} for text in self.texts]


class ArgumentsTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        model = tiny.classifier()
        cls.model = predictor.Predictor(model, tiny.tokenizer())
        task = dataclasses.replace(model.task, pair=True)
        pair = model_lib.BertModel(bert.BertEncoder(tiny.bert()), task)
        cls.pair = predictor.Predictor(pair, tiny.tokenizer())
        cls.film, cls.plot = cls.model.predict(["a good film", "old plot"])

    @parameterized.named_parameters(
        ("string", lambda: "a good film"),
        ("bytes", lambda: b"a good film"),
        ("bytearray", lambda: bytearray(b"a good film")),
        ("row", lambda: {"text": "a good film"}),
        ("row_of_bytes", lambda: {"text": b"a good film", "more": None}),
        ("variable", lambda: tf.Variable("a good film")),
        ("scalar_tensor", lambda: tf.constant("a good film")),
        ("scalar_array", lambda: np.array("a good film")),
        ("numpy_string", lambda: np.str_("a good film")),
    )
    def test_one_text_is_one_example(self, make):
        (answer,) = self.model.predict(make())
        self.assertEqual(answer["label"], self.film["label"])
        self.assertAlmostEqual(answer["score"], self.film["score"], places=5)

    @parameterized.named_parameters(
        ("list", lambda: ["a good film", "old plot"]),
        ("tuple", lambda: ("a good film", "old plot")),
        ("generator", lambda: (x for x in ("a good film", "old plot"))),
        ("variable", lambda: tf.Variable(["a good film", "old plot"])),
        ("tensor", lambda: tf.constant(["a good film", "old plot"])),
        ("array", lambda: np.array(["a good film", "old plot"])),
        ("objects", lambda: np.array(["a good film", b"old plot"], object)),
        ("column", lambda: np.array([["a good film"], ["old plot"]])),
        ("tensors", lambda: [*map(tf.constant, ("a good film", "old plot"))]),
        ("mixed", lambda: [b"a good film", {"text": "old plot"}]),
        ("pandas", lambda: Frame("a good film", "old plot")),
        ("polars", lambda: Frame("a good film", "old plot", rows="to_dicts")),
        ("arrow", lambda: Frame("a good film", "old plot", rows="to_pylist")),
    )  # fmt: skip
    def test_items_are_examples_in_their_order(self, make):
        answers = self.model.predict(make())
        for answer, alone in zip(answers, (self.film, self.plot), strict=True):
            np.testing.assert_allclose(
                answer["scores"], alone["scores"], atol=1e-5
            )

    @parameterized.named_parameters(
        ("none", [None], "example 1: expected text, found None"),
        ("number", [3], "example 1: expected text, found 3"),
        ("nan", [math.nan], "example 1: expected text, found nan"),
        ("none_in_a_row", [{"text": None}], "example 1, text: .*found None"),
        ("nan_in_a_row", [{"text": math.nan}], "example 1, text: .*found nan"),
        ("list_in_a_row", [{"text": ["a"]}], "example 1, text: .*a list"),
        ("dict_in_a_row", [{"text": {}}], "example 1, text: .*an object"),
        ("number_in_a_row", [{"text": 3}], "example 1, text: .*found 3"),
        ("number_in_a_list", [[3]], "example 1, text: .*found 3"),
        ("two_texts", [["a", "b"]], "example 1: .*reads 1 texts .*got 2"),
        ("no_text", [[]], "example 1: .*got 0"),
        ("another_column", [{"txt": "a"}], "example 1: .*text; got txt"),
        ("latin_1", [b"caf\xe9"], "example 1, text: byte 3 is not valid UTF-8"),
        ("set", [{"a"}], "example 1: .*found a set"),
        ("numbers", [np.array([1.0])], "example 1, text: .*found 1.0"),
    )  # fmt: skip
    def test_what_is_no_text_is_refused_with_its_index(self, items, message):
        for ask in (self.model.predict, self.model.stream):
            with self.assertRaisesRegex(errors.InputError, message):
                list(ask(["a film", *items]))

    @parameterized.parameters(
        (None, "found None"), (3, "found 3"), (math.nan, "found nan"),
        ({"a", "b"}, "found a set"), ({"text": ["a", "b"]}, "example 0, text"),
        (tf.constant([1, 2]), "example 0: expected text, found 1"),
        (tf.constant([["a", "b"]]), "example 0: .*got 2"),
        (Frame("a", math.nan), "example 1, text: .*found nan"),
    )  # fmt: skip
    def test_what_holds_no_texts_is_refused(self, examples, message):
        with self.assertRaisesRegex(errors.InputError, message):
            self.model.predict(examples)

    @parameterized.product(
        name=("batch_size", "ahead"), value=(0, -1, 2.0, "3", True, None)
    )
    def test_batches_have_a_whole_number_of_texts(self, name, value):
        with self.assertRaisesRegex(errors.InputError, f"{name}: .*from 1"):
            self.model.stream(["a"], **{name: value})
        self.assertLen(self.model.predict(["a"], batch_size=np.int64(1)), 1)

    def test_a_pair_is_a_sequence_or_a_row(self):
        row = {"text": "a", "text_pair": b"film"}
        answers = self.pair.predict(
            [("a", "film"), ["a", b"film"], row, np.array(["a", "film"])]
        )
        self.assertLen({answer["label"] for answer in answers}, 1)
        self.assertLen(self.pair.predict(row), 1)
        self.assertLen(self.pair.predict(np.array([["a", "film"]] * 3)), 3)

    @parameterized.parameters((["a", "b"],), (("a", "b"),), ("ab",), (b"a",))
    def test_a_text_alone_is_no_pair(self, examples):
        with self.assertRaisesRegex(
            errors.InputError, r"example 0: .*2 texts .*got 1.*\[\(a, b\)\]"
        ):
            self.pair.predict(examples)

    def test_a_lone_surrogate_is_replaced(self):
        one, two = self.model.predict(["good \ud83d", "good \ufffd"])
        self.assertEqual(one, two)


if __name__ == "__main__":
    absltest.main()
