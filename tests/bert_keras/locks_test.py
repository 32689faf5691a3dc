import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from unittest import mock

import tensorflow as tf
from absl.testing import absltest

from bert_keras import errors, files, locks
from tests.trainers import mains

HOLD = """
import sys
from bert_keras import locks
with locks.hold(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def _try(folder, answers):
    try:
        with locks.hold(folder):
            answers.put("held")
    except errors.InputError as error:
        answers.put(str(error))


def beat(path):
    """Returns the time in a lock file, which may be half written."""
    while "beat" not in (lock := locks._read(path)):
        os.sched_yield()
    return lock["beat"]


class LocksTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = os.path.join(self.create_tempdir().full_path, "run")

    def test_a_second_writer_is_refused_and_told_who_the_first_is(self):
        with locks.hold(self.folder):
            with self.assertRaisesRegex(
                errors.InputError, f"being written by process {os.getpid()} on"
            ):
                with locks.hold(self.folder):
                    pass
            answers = multiprocessing.get_context("spawn").SimpleQueue()
            process = multiprocessing.get_context("spawn").Process(
                target=_try, args=(self.folder, answers)
            )
            process.start()
            self.assertIn("being written by process", answers.get())
            process.join()
        with locks.hold(self.folder):
            pass

    def test_a_killed_writer_leaves_the_folder_free(self):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, self.folder],
            cwd=mains.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.assertEqual(process.stdout.readline(), b"held\n")
        with self.assertRaisesRegex(errors.InputError, f"{process.pid} on"):
            with locks.hold(self.folder):
                pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
        self.assertTrue(os.path.exists(os.path.join(self.folder, locks.NAME)))
        with locks.hold(self.folder):
            pass

    def test_only_a_folder_that_was_made_and_stayed_empty_is_removed(self):
        with locks.hold(self.folder):
            pass
        self.assertFalse(os.path.exists(self.folder))
        os.makedirs(self.folder)
        with locks.hold(self.folder):
            pass
        self.assertEqual(os.listdir(self.folder), [])
        with locks.hold(os.path.join(self.folder, "more")):
            mains.write(os.path.join(self.folder, "more", "file"), "")
        self.assertEqual(os.listdir(self.folder), ["more"])
        self.assertEqual(os.listdir(f"{self.folder}/more"), ["file"])

    def test_what_others_call_like_the_lock_stays(self):
        os.makedirs(self.folder)
        path = os.path.join(self.folder, locks.NAME)
        for text in ("mine", "", '{"mine": 1}'):
            mains.write(path, text)
            with self.assertRaisesRegex(errors.InputError, "is not a lock"):
                with locks.hold(self.folder):
                    pass
            with open(path) as file:
                self.assertEqual(file.read(), text)
        precious = mains.write(self.create_tempfile("p").full_path, "precious")
        os.remove(path)
        os.symlink(precious, path)
        with self.assertRaisesRegex(errors.InputError, "is not a lock"):
            with locks.hold(self.folder):
                pass
        with open(precious) as file:
            self.assertEqual(file.read(), "precious")

    def test_a_lock_file_that_somebody_removes_lets_nobody_in(self):
        path = os.path.join(self.folder, locks.NAME)
        with locks.hold(self.folder):
            os.remove(path)
            with self.assertRaisesRegex(errors.InputError, "being written by"):
                with locks.hold(self.folder):
                    pass
        with locks.hold(self.folder):
            pass

    def test_what_appears_in_a_new_folder_at_the_end_stays(self):
        real = os.rmdir

        def late(folder):
            mains.write(os.path.join(folder, "late"), "")
            real(folder)

        with mock.patch.object(os, "rmdir", late), locks.hold(self.folder):
            pass
        self.assertEqual(os.listdir(self.folder), ["late"])

    def test_file_paths_are_local(self):
        with locks.hold(self.folder):
            with self.assertRaisesRegex(errors.InputError, "being written by"):
                with locks.hold(f"file://{self.folder}"):
                    pass

    def test_the_lock_is_free_after_an_error(self):
        with self.assertRaises(ZeroDivisionError), locks.hold(self.folder):
            raise ZeroDivisionError
        with locks.hold(self.folder):
            pass

    def test_a_folder_that_cannot_be_made_is_named(self):
        path = mains.write(self.create_tempfile("file").full_path, "")
        with self.assertRaisesRegex(errors.InputError, "file"):
            with locks.hold(path):
                pass

    def test_a_remote_lock_counts_while_it_is_fresh(self):
        folder = "ram://locks/run"
        path = f"{folder}/{locks.NAME}"
        other = {"pid": 1, "host": "other", "since": "now", "id": "x"}

        def held(seconds):
            files.write_text(
                path, json.dumps(other | {"beat": time.time() - seconds})
            )

        held(locks.STALE - 30)
        with self.assertRaisesRegex(
            errors.InputError, "process 1 on other .*set .break_lock. to ignore"
        ):
            with locks.hold(folder):
                pass
        with locks.hold(folder, break_lock=True):
            self.assertEqual(files.read_json(path)["pid"], os.getpid())
            with self.assertRaisesRegex(errors.InputError, "by process"):
                with locks.hold(folder):
                    pass
        self.assertFalse(tf.io.gfile.exists(path))
        held(locks.STALE + 1)
        with locks.hold(folder):
            pass
        files.write_text(path, "?")
        with locks.hold(folder):
            pass

    def test_a_remote_lock_is_written_anew(self):
        folder = "ram://locks/beating"
        path = f"{folder}/{locks.NAME}"
        with mock.patch.object(locks, "HEARTBEAT", 0.01):
            with locks.hold(folder):
                first = beat(path)
                while beat(path) == first:
                    os.sched_yield()

    def test_a_failed_heartbeat_is_tried_again(self):
        folder = "ram://locks/failing"
        path = f"{folder}/{locks.NAME}"
        real, failures = files.write_text, []

        def write_text(*arguments):
            if len(failures) < 2:
                failures.append(arguments)
                raise tf.errors.UnavailableError(None, None, "try again")
            real(*arguments)

        with (
            mock.patch.object(locks, "HEARTBEAT", 0.01),
            warnings.catch_warnings(record=True) as caught,
            locks.hold(folder),
        ):
            warnings.simplefilter("always")
            first = beat(path)
            with mock.patch.object(files, "write_text", write_text):
                while beat(path) == first:
                    os.sched_yield()
        self.assertLen(failures, 2)
        self.assertLen(caught, 2)
        self.assertRegex(str(caught[0].message), "rewritten .try again")

    def test_a_heartbeat_does_not_take_back_a_lock_that_was_broken(self):
        folder = "ram://locks/broken"
        path = f"{folder}/{locks.NAME}"
        other = {"pid": 1, "host": "other", "since": "now", "id": "x"}
        with (
            mock.patch.object(locks, "HEARTBEAT", 0.01),
            warnings.catch_warnings(record=True) as caught,
            self.assertRaisesRegex(
                errors.InputError, "taken over by process 1 on other"
            ),
            locks.hold(folder),
        ):
            warnings.simplefilter("always")
            while not caught:  # the heartbeat may be about to write: repeat
                files.write_text(f"{path}.other", json.dumps(other))
                tf.io.gfile.rename(f"{path}.other", path, overwrite=True)
        self.assertLen(caught, 1)
        self.assertRegex(str(caught[0].message), "taken over by process 1")
        self.assertEqual(files.read_json(path), other)

    def test_an_error_in_the_block_is_not_hidden_by_a_broken_lock(self):
        folder = "ram://locks/error"
        with self.assertRaises(ZeroDivisionError), locks.hold(folder):
            files.write_text(f"{folder}/{locks.NAME}", '{"id": "x"}')
            raise ZeroDivisionError


if __name__ == "__main__":
    absltest.main()
