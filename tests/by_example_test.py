"""BERT by example, in two languages: what the pages print and state is true."""

import ast
import os
import pathlib
import re
import sys

import numpy as np
import pytest
import safetensors.numpy
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, predictor
from tests import markdown, tiny

ROOT = pathlib.Path(__file__).absolute().parents[1]
ENGLISH = ROOT / "docs" / "bert_by_example.md"
CHINESE = ROOT / "docs" / "bert_by_example.zh.md"
# Sections that compute the same in both languages.
SAME_NUMBERS = ("3.1", "3.2", "3.3", "3.4", "4", "5", "6.1", "7")
CHECKPOINT = os.path.join(tiny.SHARED_DATA, "checkpoints", "mini_en")


def read(page):
    return page.read_text(encoding="utf-8")


def sections(page):
    """Splits a page at its numbered headings: {"3.1": text}."""
    parts = re.split(r"^###? (\d[.\d]*) .*$", read(page), flags=re.M)
    return {
        number.rstrip("."): text
        for number, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def numbers(text):
    """Returns the numbers that a reader sees; code and small ones excluded."""
    text = re.sub(r"```python.*?```", "", text, flags=re.S)
    found = re.findall(r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?", text)
    plain = {number.replace(",", "") for number in found}
    return {number for number in plain if "." in number or len(number) > 2}


def as_this_python_runs_it(page):
    """Returns a page whose blocks print the same under this Python.

    Docstrings of the standard library differ between versions of Python; the
    pages show what 3.11 counts in them.
    """
    text = read(page)
    if sys.version_info[:2] == (3, 11):
        return text
    before, learner, after = text.partition("wordpiece_learner.learn(")
    return before + learner + after.replace("```text\n", "```shown\n", 1)


def numpy_file(page):
    """Returns the code of the forward pass in NumPy."""
    (code,) = (
        block.text
        for block in markdown.blocks(read(page))
        if "def bert(" in block.text
    )
    return code


def without_comments(code):
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef)):
            if ast.get_docstring(node):
                del node.body[0]
    return ast.unparse(tree)


class ByExampleTest(parameterized.TestCase):
    def assert_prints_what_it_says(self, page):
        path = self.create_tempfile(
            page.name, as_this_python_runs_it(page), encoding="utf-8"
        ).full_path
        count = markdown.run(path, self.create_tempdir("run").full_path)
        self.assertGreater(count, 20)

    @pytest.mark.slow
    def test_every_block_prints_what_stands_below_it(self):
        self.assert_prints_what_it_says(ENGLISH)

    @pytest.mark.slow
    def test_every_block_prints_what_stands_below_it_in_chinese(self):
        self.assert_prints_what_it_says(CHINESE)

    def test_both_pages_have_the_same_sections(self):
        english, chinese = sections(ENGLISH), sections(CHINESE)
        self.assertEqual(list(english), list(chinese))
        self.assertLen([name for name in english if "." not in name], 8)

    def test_both_pages_state_the_same_numbers(self):
        english, chinese = sections(ENGLISH), sections(CHINESE)
        for name in SAME_NUMBERS:
            with self.subTest(name):
                found = numbers(english[name])
                self.assertEqual(found, numbers(chinese[name]))
        self.assertIn("109482240", numbers(english["5"]))

    def test_the_forward_pass_is_one_file_of_at_most_80_lines(self):
        code = numpy_file(ENGLISH)
        self.assertLessEqual(len(code.splitlines()), 80)
        self.assertEqual(
            without_comments(code), without_comments(numpy_file(CHINESE))
        )
        imported = {
            alias.name
            for node in ast.walk(ast.parse(code))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        self.assertEqual(imported, {"math", "numpy"})

    def test_the_forward_pass_in_numpy_runs_on_pretrained_weights(self):
        if not os.path.isdir(CHECKPOINT):
            self.skipTest(f"{CHECKPOINT} is missing")
        namespace = {}
        exec(numpy_file(ENGLISH), namespace)
        encoder = predictor.load(CHECKPOINT).model.encoder
        inputs = {
            name: value.numpy() for name, value in tiny.inputs(2, 10).items()
        }
        weights = safetensors.numpy.load_file(
            os.path.join(CHECKPOINT, checkpoint.ENCODER)
        )
        hidden, pooled = namespace["bert"](
            weights, encoder.config.num_heads, **inputs
        )
        expected = encoder(**inputs)
        real = inputs["padding_mask"] > 0
        np.testing.assert_allclose(
            hidden[-1][real], expected["hidden"][-1].numpy()[real], atol=1e-5
        )
        np.testing.assert_allclose(pooled, expected["pooled"], atol=1e-5)

    @parameterized.parameters(ENGLISH, CHINESE)
    def test_files_that_a_page_names_exist(self, page):
        text = read(page)
        paths = [
            *re.findall(r"`((?:bert_keras|benchmarks)/[\w/]+\.py)`", text),
            *(
                f"docs/{name}"
                for name in re.findall(r"\]\((\w[\w.]+\.md)", text)
            ),
        ]
        self.assertGreater(len(paths), 10)
        for path in paths:
            self.assertTrue((ROOT / path).is_file(), path)


if __name__ == "__main__":
    absltest.main()
