"""Damaged checkpoints and full disks: the messages, and where a run resumes."""

import functools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile

import pytest
from absl.testing import absltest, parameterized

from bert_keras import checkpoint
from tests import tiny
from tests.trainers import mains


def tearDownModule():
    mains.close()


def change(path, edit):
    with open(path, "r+b") as file:
        data = bytearray(file.read())
        file.seek(0)
        file.truncate()
        file.write(edit(data))


def cut_short(data):
    return data[: len(data) // 2]


def flip_a_bit(data):
    data[len(data) // 2] ^= 1
    return data


def another_word(data):
    return data.replace(b"film", b"flim")


def another_number(data):
    return data.replace(b'"step": 4', b'"step": 5')


class DamageTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.mkdtemp()
        cls.path = functools.partial(os.path.join, cls.folder)
        code, _, error = mains.call(
            "trainers.prepare",
            input=mains.write(cls.path("corpus.txt"), mains.CORPUS),
            output=cls.path("records"),
            vocab=mains.write(
                cls.path("vocab.txt"), "\n".join(tiny.VOCABULARY)
            ),
            seq_length=32,
            dev_fraction=0.1,
        )
        assert not code, error
        cls.whole = cls.path("whole")
        cls.flags = {
            "records": cls.path("records"),
            "model": mains.write(
                cls.path("model.json"), json.dumps(tiny.bert().to_dict())
            ),
            "steps": 4,
            "save_every": 2,
            "batch_size": 8,
        }
        code, _, error = mains.call(
            "trainers.pretrain", output=cls.whole, **cls.flags
        )
        assert not code, error

    def damaged(self, name, edit):
        """A copy of the run with one file of its last checkpoint changed."""
        run = tempfile.mkdtemp(dir=self.folder)
        shutil.copytree(self.whole, run, dirs_exist_ok=True)
        path = os.path.join(checkpoint.step_folder(run, 4), name)
        if edit is None:
            os.remove(path)
        else:
            change(path, edit)
        return run

    def assert_like_whole(self, run):
        one, two = (
            checkpoint.read(checkpoint.step_folder(folder, 4)).metadata
            for folder in (run, self.whole)
        )
        self.assertEqual(one, two)

    @parameterized.parameters(
        (checkpoint.ENCODER, cut_short, "is damaged: its checksum"),
        (checkpoint.OPTIMIZER, flip_a_bit, "is damaged: its checksum"),
        (checkpoint.HEAD, None, "is missing"),
        ("vocab.txt", another_word, "is damaged: its checksum"),
        (checkpoint.CONFIG, cut_short, "cannot be read"),
        (checkpoint.CONFIG, another_number, "is damaged: its checksum"),
        (checkpoint.CONFIG, None, ""),  # as if killed while saving
    )
    def test_the_checkpoint_before_is_used(self, name, edit, words):
        run = self.damaged(name, edit)
        code, _, error, said = mains.call_and_listen(
            "trainers.pretrain", output=run, **self.flags
        )
        self.assertEqual((code, error), (0, ""))
        said = " ".join(said.split())
        if words:
            self.assertRegex(
                said, f"{name} .*{words}.*Trying the checkpoint before it"
            )
        self.assertIn("resuming from step 2", said)
        self.assert_like_whole(run)

    def test_without_a_whole_one_the_run_does_not_start_anew(self):
        run = self.damaged(checkpoint.ENCODER, cut_short)
        change(
            os.path.join(checkpoint.step_folder(run, 2), checkpoint.ENCODER),
            cut_short,
        )
        code, _, error = mains.call(
            "trainers.pretrain", output=run, **self.flags
        )
        self.assertEqual(code, 1)
        self.assertRegex(error, "^error: .*step-00000002.* is damaged")

    def test_a_pointer_without_a_number_is_told(self):
        run = self.damaged(checkpoint.ENCODER, lambda data: data)
        mains.write(os.path.join(run, "best"), "x")
        code, _, error = mains.call("trainers.predict", checkpoint=run)
        self.assertEqual(code, 1)
        self.assertRegex(error, "^error: .*best: expected the number of a step")
        # Training writes it anew.
        code, _, error = mains.call(
            "trainers.pretrain", output=run, **self.flags
        )
        self.assertEqual((code, error), (0, ""))
        self.assertEqual(checkpoint.read(run).step, checkpoint.steps(run)[-1])

    @pytest.mark.slow
    def test_a_full_disk_leaves_earlier_checkpoints_whole(self):
        run = self.damaged(checkpoint.CONFIG, None)
        before = checkpoint.read(checkpoint.step_folder(run, 2)).metadata
        size = os.path.getsize(
            os.path.join(checkpoint.step_folder(run, 2), checkpoint.OPTIMIZER)
        )
        arguments = self.flags | {"output": run}

        def no_room():  # for a file as large as the optimizer's
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, size - 1))

        process = subprocess.run(
            [sys.executable, "-m", "trainers.pretrain"]
            + [f"--{name}={value}" for name, value in arguments.items()],
            cwd=mains.ROOT,
            preexec_fn=no_room,
            capture_output=True,
            text=True,
        )
        self.assertEqual(process.returncode, 1)
        self.assertRegex(
            process.stderr.splitlines()[-1],
            "^error: step 4 could not be saved in .*too large.* free some",
        )
        self.assertEqual(checkpoint.steps(run), [2])
        self.assertFalse(os.path.exists(checkpoint.step_folder(run, 4)))
        after = checkpoint.read(checkpoint.step_folder(run, 2))
        self.assertEqual(after.metadata, before)
        code, _, error = mains.call(
            "trainers.pretrain", output=run, **self.flags
        )
        self.assertEqual((code, error), (0, ""))
        self.assert_like_whole(run)


if __name__ == "__main__":
    absltest.main()
