"""A progress bar in a notebook: one output, replaced in place."""

import contextlib
import io
import sys
import types
from unittest import mock

from absl.testing import absltest

from bert_keras import console


class Cell:
    """What IPython's `display` does to the outputs of a cell."""

    def __init__(self):
        self.outputs = []
        self.updates = 0

    def display(self, data, *, raw, display_id):
        assert raw and display_id
        self.outputs.append(data)
        return self

    def update(self, data, *, raw):
        assert raw
        self.updates += 1
        self.outputs[-1] = data


class NotebookTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.cell = Cell()
        ipython = types.ModuleType("IPython")
        ipython.display = self.cell
        self.enter_context(mock.patch.dict(sys.modules, IPython=ipython))
        self.enter_context(
            mock.patch.object(console.console, "is_jupyter", True)
        )

    def test_a_cell_has_one_bar_with_the_last_step(self):
        error = io.StringIO()
        with contextlib.redirect_stderr(error):
            with console.Progress("training", total=100) as progress:
                (first,) = self.cell.outputs
                for step in range(1, 101):
                    progress.update(step, f"loss {step / 100:.2f} <b>")
        (last,) = self.cell.outputs
        self.assertEqual(first["text/plain"], "training  0/100 steps")
        self.assertRegex(
            last["text/plain"],
            r"^training  100/100 steps  .* steps/s  0:00 left  loss 1.00 <b>$",
        )
        self.assertIn('value="100" max="100"', last["text/html"])
        self.assertIn("&lt;b&gt;", last["text/html"])
        # Far fewer than the steps: each is a message to the browser.
        self.assertLess(self.cell.updates, 20)
        self.assertEqual(error.getvalue(), "")

    def test_an_error_leaves_the_bar_where_it_was(self):
        with self.assertRaises(KeyboardInterrupt):
            with console.Progress("training", total=4) as progress:
                progress.update(3)
                raise KeyboardInterrupt
        (last,) = self.cell.outputs
        self.assertIn("3/4 steps", last["text/plain"])

    def test_what_is_not_to_be_shown_is_not(self):
        for options in ({"shown": False}, {"total": 0, "shown": False}):
            with console.Progress("x", **{"total": 1} | options) as progress:
                progress.update(1)
        with mock.patch.object(console.console, "quiet", True):
            with console.Progress("x", total=1) as progress:
                progress.update(1)
        self.assertEmpty(self.cell.outputs)


class PlainTest(absltest.TestCase):
    def test_lines_can_be_left_out(self):
        for lines, count in ((True, 1), (False, 0)):
            error = io.StringIO()
            with contextlib.redirect_stderr(error):
                with console.Progress("x", total=1, lines=lines) as progress:
                    progress.update(1)
            self.assertLen(error.getvalue().splitlines(), count)


if __name__ == "__main__":
    absltest.main()
