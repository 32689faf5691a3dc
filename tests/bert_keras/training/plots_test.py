import numpy as np
import tensorflow as tf
from absl.testing import absltest

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

        height, width, some = size(plots.MOST_CLASSES)
        self.assertEqual(size(400)[:2], (height, width))
        # Without names and numbers, which take longest to draw.
        self.assertLess(size(plots.MOST_CLASSES + 1)[2], some)


if __name__ == "__main__":
    absltest.main()
