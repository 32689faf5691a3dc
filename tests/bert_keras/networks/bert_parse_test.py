import json

from absl.testing import absltest, parameterized

from bert_keras import errors, named_networks
from bert_keras.networks import bert as bert_lib
from tests import tiny


class SizesTest(parameterized.TestCase):
    @parameterized.parameters(
        # Turc et al. 2019, table 1; Devlin et al. 2019, section 3.
        ("tiny", 2, 128),
        ("mini", 4, 256),
        ("small", 4, 512),
        ("medium", 8, 512),
        ("base", 12, 768),
        ("large", 24, 1024),
    )
    def test_are_the_published_ones(self, name, layers, hidden_size):
        bert = bert_lib.named(name)
        self.assertEqual(
            (bert.num_layers, bert.hidden_size), (layers, hidden_size)
        )
        # All have heads of 64, and feed-forward layers of four times the width.
        self.assertEqual(bert.head_width, 64)
        self.assertEqual(bert.intermediate_size, 4 * hidden_size)
        self.assertEqual(bert.vocab_size, 30522)


class ParseTest(parameterized.TestCase):
    @parameterized.parameters(
        ({"hidden_size": "16"}, "hidden_size is '16'; expected a whole"),
        ({"hidden_size": 16.0}, "hidden_size is 16.0; expected a whole"),
        ({"hidden_size": True}, "hidden_size is True; expected a whole"),
        (
            {"hidden_size": 0},
            "hidden_size is 0; expected a whole number from 1",
        ),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"vocab_size": 10**30}, "vocab_size is 1000"),
        ({"num_layers": 10**8}, "num_layers is 100,000,000; expected at"),
        ({"layer_norm_epsilon": -1.0}, "layer_norm_epsilon is -1.0"),
        ({"initializer_range": -0.1}, "layer_norm_epsilon is 1e-12 and init"),
        ({"dropout": 10**400}, "dropout is 1000"),
        ({"dropout": 1}, "dropout is 1; expected a share"),
        ({"dropout": float("nan")}, "dropout is nan; expected a number"),
        ({"causal": "no"}, "causal is 'no'; expected true or false"),
        ({"causal": 0}, "causal is 0; expected true or false"),
        ({"activation": None}, "activation is None; expected a string"),
        ({"embedding_size": [8]}, "embedding_size is .8.; expected a whole"),
        ({"layers": 2}, ".*unknown here: .'layers'."),
    )
    def test_a_file_with_other_types_is_refused(self, change, message):
        path = self.create_tempfile("m.json").full_path
        with open(path, "w") as file:
            json.dump(tiny.bert().to_dict() | change, file)
        with self.assertRaisesRegex(errors.InputError, f"m.json: {message}"):
            named_networks.parse(path)

    @parameterized.parameters("[1]", "{", "3", "[" * 100_000, "\udcff")
    def test_a_file_that_is_no_object_is_refused(self, text):
        path = self.create_tempfile("m.json").full_path
        with open(path, "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        with self.assertRaisesRegex(errors.InputError, "m.json cannot be read"):
            named_networks.parse(path)

    def test_whole_numbers_may_stand_for_floats_and_null_for_none(self):
        path = self.create_tempfile("m.json").full_path
        values = tiny.bert(embedding_size=None, dropout=0).to_dict()
        with open(path, "w") as file:
            json.dump(values, file)
        self.assertEqual(named_networks.parse(path).to_dict(), values)


if __name__ == "__main__":
    absltest.main()
