import subprocess
import sys

from absl.testing import absltest

from tests.trainers import mains

FOLDERS = """
import sys
from demo import __main__ as demo
pairs = zip(sys.argv[1::2], sys.argv[2::2])
print(*(demo.table_folder(*pair) for pair in pairs))
"""


class TableFolderTest(absltest.TestCase):
    def test_tables_of_the_same_name_have_different_folders(self):
        pairs = [
            ("a/train.tsv", "a/dev.tsv"),
            ("b/train.tsv", "b/dev.tsv"),
            ("a/train.tsv", "b/dev.tsv"),
            ("data.v1.tsv", "dev.tsv"),
            ("data.v2.tsv", "dev.tsv"),
            ("./a/train.tsv", "./a/dev.tsv"),  # the first again
        ]
        # In a process of its own: the demo defines flags.
        output = subprocess.run(
            [sys.executable, "-c", FOLDERS, *sum(pairs, ())],
            cwd=mains.ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        *folders, again = output.split()
        self.assertLen(set(folders), len(pairs) - 1)
        self.assertEqual(again, folders[0])
        self.assertStartsWith(again, "own-train-")


if __name__ == "__main__":
    absltest.main()
