import os

from absl.testing import absltest

from bert_keras import errors, locks, staging


class StagingTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.output = self.create_tempdir().full_path

    def test_one_export_at_a_time_writes_into_a_folder(self):
        with staging.aside(self.output, "1"):
            with self.assertRaisesRegex(errors.InputError, "being written by"):
                with staging.aside(self.output, "2"):
                    pass
        with locks.hold(self.output):
            with self.assertRaisesRegex(errors.InputError, "being written by"):
                with staging.aside(self.output, "1"):
                    pass
        self.assertEqual(os.listdir(self.output), [])

    def test_what_a_killed_one_left_is_removed(self):
        left = os.path.join(self.output, ".unfinished-1", "old")
        os.makedirs(left)
        with staging.aside(self.output, "1") as folder:
            self.assertEqual(os.listdir(folder), [])
            self.assertEqual(folder, os.path.dirname(left))
        self.assertFalse(os.path.exists(folder))


if __name__ == "__main__":
    absltest.main()
