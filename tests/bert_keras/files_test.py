import os
from unittest import mock

from absl.testing import absltest

from bert_keras import errors, files
from tests.trainers import mains


class CheckOutputTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        self.path = lambda name: os.path.join(self.folder, name)
        self.rows = mains.write(self.path("rows.tsv"), "text\n")

    def test_no_input_is_written_over_under_whatever_name(self):
        os.link(self.rows, self.path("hard"))
        os.symlink(self.rows, self.path("soft"))
        os.makedirs(self.path("run"))
        best = mains.write(self.path("run/best"), "1")
        for output in (
            self.rows,
            self.path("hard"),
            self.path("soft"),
            f"file://{self.rows}",
            best,
            self.path("run/new"),
        ):
            with self.assertRaisesRegex(errors.InputError, "is `.*` or in it"):
                files.check_output(
                    output, input=self.rows, checkpoint=self.path("run")
                )
        files.check_output(
            self.path("new"), input=self.rows, checkpoint=self.path("run")
        )
        files.check_output(
            self.path("run2"), input="gs://b/rows", checkpoint=self.path("run")
        )

    def test_standard_input_is_not_written_over(self):
        with open(self.rows) as file:
            stat = os.fstat(file.fileno())
            with mock.patch.object(os, "fstat", lambda _: stat):
                with self.assertRaisesRegex(errors.InputError, "the standard"):
                    files.check_output(self.rows, input="")
                files.check_output(self.path("new"), input="")

    def test_a_folder_and_a_file_in_none_are_refused_before_the_work(self):
        for output in (self.folder, self.path("missing/answers.jsonl")):
            with self.assertRaisesRegex(errors.InputError, "name of a file"):
                files.check_output(output, input=self.rows)


if __name__ == "__main__":
    absltest.main()
