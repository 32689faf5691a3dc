from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import absltest
from matplotlib import axes, figure

from bert_keras import errors
from bert_keras.tasks import base
from bert_keras.training import plots


class ManyClassesTest(absltest.TestCase):
    def test_a_picture_of_many_classes_is_as_large_as_one_of_some(self):
        def size(classes):
            names = [f"class {number}" for number in range(classes)]
            counts = np.eye(classes, dtype=np.int64)
            png = plots.confusion(base.Table(names, names, counts))
            image = tf.image.decode_png(png).shape
            return image[0], image[1], len(png)

        height, width, some = size(plots.MAX_CLASSES)
        self.assertEqual(size(400)[:2], (height, width))
        # Without names and numbers, which take longest to draw.
        self.assertLess(size(plots.MAX_CLASSES + 1)[2], some)

    def test_a_count_stands_in_the_row_of_its_label(self):
        def drawn(counts):
            with mock.patch.object(figure.Figure, "savefig"):
                with mock.patch.object(axes.Axes, "text") as text:
                    plots.confusion(base.Table("ab", "ab", np.array(counts)))
            return {call.args[2]: call.args[:2] for call in text.mock_calls}

        # x is the answer's column, y the label's row.
        self.assertEqual(drawn([[1, 2], [3, 4]])["2"], (1, 0))
        self.assertEqual(drawn([[1, 2], [3, 4]])["3"], (0, 1))


class CheckTest(absltest.TestCase):
    def test_a_picture_is_a_png(self):
        plots.check_picture("")
        plots.check_picture("not/there.PNG")
        with self.assertRaisesRegex(errors.InputError, "ends in .png"):
            plots.check_picture("picture.txt", "plot")


class LengthTest(absltest.TestCase):
    def test_each_metric_is_a_line(self):
        columns, rows = ("texts", "bleu", "chrf"), ("1-4 words", "5-9 words")
        values = np.array([[7, 30, 50], [8, 20, 40]])
        with mock.patch.object(figure.Figure, "savefig"):
            with mock.patch.object(axes.Axes, "plot") as plot:
                plots.by_length(base.Table(rows, columns, values))
        lines = {
            call.kwargs["label"]: list(call.args[1]) for call in plot.mock_calls
        }
        self.assertEqual(lines, {"bleu": [30, 20], "chrf": [50, 40]})


class ContextsTest(absltest.TestCase):
    def test_many_points_are_numbered(self):
        def drawn(count):
            points = np.arange(2 * count).reshape(count, 2)
            labels = [f"${each} film" for each in range(count)]
            with mock.patch.object(figure.Figure, "savefig"):
                with mock.patch.object(axes.Axes, "annotate") as annotate:
                    plots.contexts(points, np.array([0.5, 0.25]), labels)
            return [call.args[:2] for call in annotate.mock_calls]

        self.assertEqual(drawn(2), [("$0 film", (0, 1)), ("$1 film", (2, 3))])
        many = drawn(plots.MAX_CONTEXTS + 1)
        self.assertEqual(many[-1][0], str(plots.MAX_CONTEXTS))


class CompressionTest(absltest.TestCase):
    def test_points_are_numbered_and_near_ones_together_from_the_left(self):
        with mock.patch.object(figure.Figure, "savefig"):
            with mock.patch.object(axes.Axes, "annotate") as annotate:
                plots.compression(
                    ["a", "b", "c", "d"],
                    [0.5, 0.5, 0.9, 0.5],
                    {"ms": [10.1, 10.0, 10.0, 1.0], "MB": [1, 10, 100, 1000]},
                    metric="accuracy",
                    chosen="b",
                )
        drawn = [(call.args[0], *call.args[1]) for call in annotate.mock_calls]
        self.assertCountEqual(
            drawn[:3], [("2, 1", 10.0, 0.5), ("3", 10.0, 0.9), ("4", 1.0, 0.5)]
        )
        self.assertCountEqual(
            drawn[3:],
            [("1", 1, 0.5), ("2", 10, 0.5), ("3", 100, 0.9), ("4", 1000, 0.5)],
        )


if __name__ == "__main__":
    absltest.main()
