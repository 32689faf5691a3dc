"""The notebooks in examples/ run from their first cell to their last.

Jupyter's kernel runs them where nbclient, ipykernel and jupytext are installed;
Python does elsewhere.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys
from unittest import mock

import pytest
from absl.testing import absltest, parameterized

ROOT = pathlib.Path(__file__).absolute().parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.py"))
HAS_JUPYTER = all(
    importlib.util.find_spec(name)
    for name in ("ipykernel", "jupytext", "nbclient")
)


@pytest.mark.slow
class NotebooksTest(parameterized.TestCase):
    @parameterized.parameters(*NOTEBOOKS)
    # They run in another folder, as they would with an installed package.
    @mock.patch.dict(os.environ, PYTHONPATH=str(ROOT))
    def test_all_cells_run(self, name):
        folder = self.create_tempdir().full_path
        if not HAS_JUPYTER:
            subprocess.run(
                [sys.executable, EXAMPLES / name], check=True, cwd=folder
            )
            return
        import jupytext
        import nbclient

        notebook = jupytext.read(EXAMPLES / name)
        client = nbclient.NotebookClient(
            notebook, timeout=900, resources={"metadata": {"path": folder}}
        )
        client.execute()
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        self.assertTrue(all(cell.execution_count for cell in cells))

    def test_each_is_in_the_table_of_the_readme(self):
        readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
        self.assertLen(NOTEBOOKS, 3)
        for name in NOTEBOOKS:
            self.assertIn(f"| `{name}` |", readme)


if __name__ == "__main__":
    absltest.main()
