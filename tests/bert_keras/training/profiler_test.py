import pathlib

import tensorflow as tf
from absl.testing import absltest

from bert_keras.training import profiler


class ProfilerTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.run_folder = self.create_tempdir().full_path

    def step(self, batch):
        value = tf.linalg.matmul(tf.ones((8, 8)), tf.ones((8, 8)))
        return {"loss": batch * tf.reduce_sum(value)}

    def traces(self):
        return list(pathlib.Path(self.run_folder).rglob("*.xplane.pb"))

    def test_five_steps_are_traced_after_ten(self):
        with profiler.Profiler(self.step, self.run_folder) as step:
            for number in range(1, 21):
                self.assertEqual(step(number)["loss"], 512 * number)
                self.assertLen(self.traces(), number >= 15)
        self.assertIn(b"MatMul", self.traces()[0].read_bytes())

    def test_a_run_that_ends_in_between_leaves_its_trace(self):
        with self.assertRaises(SystemExit):
            with profiler.Profiler(self.step, self.run_folder) as step:
                for number in range(1, 13):
                    step(number)
                raise SystemExit
        self.assertLen(self.traces(), 1)
        with profiler.Profiler(self.step, self.run_folder) as step:
            step(1)
        self.assertLen(self.traces(), 1)


if __name__ == "__main__":
    absltest.main()
