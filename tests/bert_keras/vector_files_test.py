import os

import numpy as np
from absl.testing import absltest, parameterized

from bert_keras import errors, vector_files

ROWS = np.random.default_rng(0).uniform(-1, 1, (23, 2, 3)).astype(np.float32)


class VectorFileTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.create_tempdir().full_path, "x.npy")

    def open(self, dtype="float32", of="a", shape=(2, 3)):
        return vector_files.VectorFile(
            self.path, shape=shape, dtype=dtype, identity={"of": of}
        )

    def stop_after(self, count, **settings):
        with self.assertRaises(KeyboardInterrupt):
            with self.open(**settings) as file:
                for row in ROWS[:count]:
                    file.write(row)
                raise KeyboardInterrupt

    def continued(self, **settings):
        """Writes the rest of the rows; returns how many there were."""
        with self.open(**settings) as file:
            done = file.done
            for row in ROWS[done:]:
                file.write(row)
        return done

    @parameterized.parameters(
        ("float32", 0), ("float16", 2**-11), ("int8", 0.5 / 127 + 1e-6)
    )
    def test_numpy_reads_it(self, dtype, error):
        self.assertEqual(self.continued(dtype=dtype), 0)
        read = np.load(self.path)
        self.assertEqual(read.dtype, dtype)
        scale = 127 if dtype == "int8" else 1
        np.testing.assert_allclose(
            read.astype(np.float32) / scale, ROWS, rtol=0, atol=error
        )
        self.assertEqual(os.listdir(os.path.dirname(self.path)), ["x.npy"])

    @parameterized.parameters(0, 1, 10, 23)
    def test_a_stopped_file_is_continued(self, count):
        self.stop_after(count)
        self.assertFalse(os.path.exists(self.path))
        # A process that was killed leaves a row that is written in part.
        with open(self.path + ".partial", "ab") as file:
            file.write(b"123")
        self.assertEqual(self.continued(), count)
        np.testing.assert_array_equal(np.load(self.path), ROWS)

    @parameterized.parameters(
        ({"of": "b"},), ({"dtype": "float16"},), ({"shape": (3, 2)},)
    )
    def test_other_vectors_are_not_continued(self, changes):
        self.stop_after(10)
        with self.open(**changes) as file:
            self.assertEqual(file.done, 0)
            file.write(np.zeros(changes.get("shape", (2, 3))))
        self.assertLen(np.load(self.path), 1)

    def test_a_damaged_state_begins_anew(self):
        self.stop_after(10)
        with open(self.path + ".partial.json", "w") as file:
            file.write("{")
        self.assertEqual(self.continued(), 0)
        np.testing.assert_array_equal(np.load(self.path), ROWS)

    def test_no_rows(self):
        with self.open():
            pass
        self.assertEqual(np.load(self.path).shape, (0, 2, 3))

    @parameterized.parameters(1.5, -2.0, float("nan"))
    def test_int8_holds_values_from_minus_one_to_one(self, value):
        with self.assertRaisesRegex(errors.InputError, "from -1 to 1, found"):
            with self.open(dtype="int8") as file:
                file.write(np.full((2, 3), value))

    def test_float16_holds_no_larger_values(self):
        with self.assertRaisesRegex(errors.InputError, "65504, found 7e.04"):
            with self.open(dtype="float16") as file:
                file.write(np.full((2, 3), 65504.0))
                file.write(np.full((2, 3), -7e4))

    def test_remote_files_and_other_shapes_are_refused(self):
        with self.assertRaisesRegex(errors.InputError, "local files"):
            vector_files.VectorFile(
                "gs://x/y.npy", shape=(1,), dtype="int8", identity={}
            )
        with self.assertRaisesRegex(ValueError, r"shape \(2, 3\), found"):
            with self.open() as file:
                file.write(np.zeros((3, 2)))


if __name__ == "__main__":
    absltest.main()
