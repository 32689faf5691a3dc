"""Options: types, bounds, names of before, and what is suggested for others."""

import dataclasses
import pathlib

import numpy as np
from absl.testing import absltest, parameterized

from bert_keras import errors, options


@options.with_former_names
@dataclasses.dataclass(frozen=True)
class Settings:
    whole: int = options.option(1, "A count.", minimum=0, formerly=("count",))
    number: float = options.option(0.5, "A share.", maximum=1.0)
    text: str = options.option("", "A word.")
    choice: bool | None = options.option(None, "A choice.", value_type=bool)
    share: float = options.option(0.5, "A share.", minimum=0.0, maximum=1.0)
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class OtherSettings:
    folder: str = options.option("", "A folder.")


class CheckTest(parameterized.TestCase):
    @parameterized.parameters(
        {"whole": True},
        {"whole": 1.5},
        {"whole": -1},
        {"number": "1"},
        {"number": True},
        {"number": float("nan")},
        {"number": 10**400},
        {"number": 1.5},
        {"text": 1},
        {"text": "\ud800"},
        {"choice": 1},
        {"choice": "yes"},
    )
    def test_a_value_of_another_type_or_out_of_bounds(self, **values):
        (name,) = values
        with self.assertRaisesRegex(errors.InputError, name):
            options.check(Settings(**values))

    @parameterized.parameters(
        {"whole": 0},
        {"number": 1},
        {"number": -3.5},
        {"text": "电"},
        {"choice": None},
        {"choice": False},
    )
    def test_a_value_of_the_type(self, **values):
        options.check(Settings(**values))


class KeywordsTest(absltest.TestCase):
    def test_they_are_split_by_class_and_are_what_flags_would_give(self):
        own, other = options.divide(
            {
                "whole": np.int64(3),
                "number": 2,
                "folder": pathlib.Path("runs", "x"),
            },
            Settings,
            OtherSettings,
        )
        self.assertEqual(own, {"whole": 3, "number": 2.0})
        self.assertEqual([type(value) for value in own.values()], [int, float])
        self.assertEqual(other, {"folder": "runs/x"})

    def test_an_unknown_one_suggests_similar_ones_or_lists_all(self):
        with self.assertRaisesRegex(
            errors.InputError,
            r"^numbr is not a setting; did you mean number\?$",
        ):
            options.divide({"numbr": 1}, Settings)
        with self.assertRaisesRegex(
            errors.InputError, "expected one of choice, number, share, text"
        ):
            options.divide({"zzz": 1}, Settings)
        with self.assertRaisesRegex(errors.InputError, "did you mean traim"):
            options.divide({"train": 1}, Settings, others=("traim",))

    def test_a_former_name_is_translated_and_says_so(self):
        with self.assertWarnsRegex(FutureWarning, "^count .* use whole=3"):
            self.assertEqual(Settings(count=3), Settings(whole=3))
        with self.assertRaisesRegex(errors.InputError, "give whole alone"):
            Settings(count=3, whole=4)
        with self.assertRaisesRegex(errors.InputError, "give whole alone"):
            Settings(whole=4, count=3)


class ConstructTest(parameterized.TestCase):
    def test_values_of_json_are_read_through_former_names(self):
        self.assertEqual(
            options.construct(Settings, {"count": 3, "names": ["a", "b"]}),
            Settings(whole=3, names=("a", "b")),
        )

    @parameterized.parameters(
        ({"wholes": 1}, "unknown: .'wholes'."),
        ({"whole": "1"}, "whole"),
        ({"whole": -1}, "at least 0"),
        ({"number": 2.0}, "at most 1"),
        ({"text": None}, "text"),
        ({"share": 2.0}, "expected 0.0 to 1.0"),
        ({"names": "ab"}, "names"),
        ({"names": ["a", 1]}, "names"),
    )
    def test_what_does_not_fit_is_named(self, values, message):
        with self.assertRaisesRegex(errors.InputError, message):
            options.construct(Settings, values)

    def test_a_required_option_is_not_empty(self):
        options.require("output", "runs/x")
        with self.assertRaisesRegex(errors.InputError, "`output` is missing"):
            options.require("output", "")

    @parameterized.parameters(0, -1, 1.0, True, "1", None)
    def test_a_whole_number_from_1_is_required(self, value):
        options.require_whole(count=np.int32(1))
        with self.assertRaisesRegex(errors.InputError, "count: .*from 1"):
            options.require_whole(count=value)


if __name__ == "__main__":
    absltest.main()
