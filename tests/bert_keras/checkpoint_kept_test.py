"""What stays readable in a run folder, whenever a process ends."""

from absl.testing import absltest, parameterized

from bert_keras import checkpoint, loading
from tests import tiny
from tests.bert_keras.checkpoint_test import optimizer


class Killed(BaseException):
    """A process that ends; nothing may catch it."""


class EndingTokenizer(type(tiny.tokenizer())):
    """Ends the process where it is saved."""

    def save_vocabulary(self, path):
        raise Killed


class EndingVariable:
    """Ends the process when it is read."""

    def numpy(self):
        raise Killed


class KeptTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.run_folder = self.create_tempdir().full_path
        self.tokenizer = tiny.tokenizer()
        self.model = tiny.classifier()

    def save(self, step, **options):
        options = {"tokenizer": self.tokenizer, "model": self.model} | options
        return checkpoint.save(self.run_folder, step=step, **options)

    @parameterized.parameters("vocabulary", "optimizer")
    def test_a_step_that_is_written_again_is_whole_or_not_listed(self, where):
        self.save(1)
        self.save(2, optimizer=optimizer(self.model).state())
        options = {"model": tiny.classifier()}  # of other weights
        if where == "vocabulary":
            options["tokenizer"] = EndingTokenizer(
                tiny.VOCABULARY, lowercase=True
            )
        else:
            options["optimizer"] = {"slot": EndingVariable()}
        with self.assertRaises(Killed):
            self.save(2, **options)
        listed = checkpoint.steps(self.run_folder)
        self.assertIn(1, listed)
        for step in listed:  # a damaged one would raise
            folder = checkpoint.step_folder(self.run_folder, step)
            loading.load_model(checkpoint.read(folder))

    def test_the_latest_stays_though_it_is_not_the_last(self):
        for step in (1, 2, 3, 4):
            self.save(step)
        checkpoint.mark(self.run_folder, "latest", 1)
        checkpoint.prune(self.run_folder, 2, self.tokenizer)
        self.assertEqual(checkpoint.steps(self.run_folder), [1, 3, 4])
        self.assertEqual(checkpoint.read(self.run_folder).step, 1)

    def test_the_best_and_the_latest_stay_beside_the_last_one(self):
        for step in (1, 2, 3, 4, 5):
            self.save(step)
        checkpoint.mark(self.run_folder, "best", 2)
        checkpoint.mark(self.run_folder, "latest", 4)
        checkpoint.prune(self.run_folder, 1, self.tokenizer)
        self.assertEqual(checkpoint.steps(self.run_folder), [2, 4, 5])


if __name__ == "__main__":
    absltest.main()
