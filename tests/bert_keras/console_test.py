import pathlib

import numpy as np
import tensorflow as tf
from absl.testing import absltest

from bert_keras import console
from bert_keras.tasks import base


class TraceTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.run_folder = self.create_tempdir().full_path

    def step(self, batch):
        value = tf.linalg.matmul(tf.ones((8, 8)), tf.ones((8, 8)))
        return {"loss": batch * tf.reduce_sum(value)}

    def traces(self):
        return list(pathlib.Path(self.run_folder).rglob("*.xplane.pb"))

    def test_five_steps_are_traced_after_ten(self):
        with console.Trace(self.step, self.run_folder) as step:
            for number in range(1, 21):
                self.assertEqual(step(number)["loss"], 512 * number)
                self.assertLen(self.traces(), number >= 15)
        self.assertIn(b"MatMul", self.traces()[0].read_bytes())

    def test_a_run_that_ends_in_between_leaves_its_trace(self):
        with self.assertRaises(SystemExit):
            with console.Trace(self.step, self.run_folder) as step:
                for number in range(1, 13):
                    step(number)
                raise SystemExit
        self.assertLen(self.traces(), 1)
        with console.Trace(self.step, self.run_folder) as step:
            step(1)
        self.assertLen(self.traces(), 1)


class ManyClassesTest(absltest.TestCase):
    def test_a_picture_of_many_classes_is_as_large_as_one_of_some(self):
        def size(classes):
            names = [f"class {number}" for number in range(classes)]
            counts = np.eye(classes, dtype=np.int64)
            png = console.confusion(base.Table(names, names, counts))
            image = tf.image.decode_png(png).shape
            return image[0], image[1], len(png)

        height, width, some = size(console.MOST_CLASSES)
        self.assertEqual(size(400)[:2], (height, width))
        # Without names and numbers, which take longest to draw.
        self.assertLess(size(console.MOST_CLASSES + 1)[2], some)


if __name__ == "__main__":
    absltest.main()
