"""The command `compress` on tiny models: what it makes, measures, resumes."""

import contextlib
import functools
import json
import os
import shutil
import tempfile
import time
from unittest import mock

import keras
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bert_keras import (
    checkpoint,
    errors,
    predictor,
    verification,
    vocabulary_surgery,
)
from bert_keras import model as model_lib
from bert_keras.compression import artifacts, checkpoints, ladder, search
from bert_keras.tasks import classification
from bert_keras.training import finetune
from bert_keras.wrappers import early_exit
from tests import tiny
from tests.trainers import mains
from tests.trainers.mains import call, write

# Words of the first and of the second list of rows.
TRAIN = "the a film is was good bad fine dull".split()
DEV = TRAIN + "not very old new story actor plot".split()
SEQ_LENGTH = 16


def tearDownModule():
    mains.close()


def rows(words, count, seed, *, pairs=False):
    """Lines of random words with random labels."""
    random = np.random.default_rng(seed)
    lines = ["text\ttext_pair\tlabel" if pairs else "text\tlabel"]
    for _ in range(count):
        texts = [
            " ".join(random.choice(words, random.integers(2, 9)))
            for _ in range(1 + pairs)
        ]
        lines.append("\t".join([*texts, random.choice(["bad", "good"])]))
    return "\n".join(lines) + "\n"


def save(path, task=None, *, num_layers=3, **fields):
    """Saves a classifier whose random weights give answers of both labels."""
    keras.utils.set_random_seed(3)
    task = task or classification.Classification(
        seq_length=SEQ_LENGTH, labels=("bad", "good"), **fields
    )
    config = tiny.bert(num_layers=num_layers, initializer_range=0.4)
    model = model_lib.BertModel(config.build_encoder(), task)
    checkpoint.save(path, model, tiny.tokenizer(), step=0)
    return path


class Case(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.path = functools.partial(os.path.join, folder.name)
        cls.teacher = save(cls.path("teacher"))
        cls.train = write(cls.path("train.tsv"), rows(TRAIN, 16, 0))
        cls.dev = write(cls.path("dev.tsv"), rows(DEV, 12, 1))

    def settings(self, name, candidates="original", **changes):
        return search.CompressSettings(
            **{
                "checkpoint": self.teacher,
                "train": self.train,
                "dev": self.dev,
                "output": self.path(name),
                "target": "1x",
                "candidates": candidates,
                "epochs": 1,
                "batch_size": 8,
            }
            | changes
        )

    def compress(self, *arguments, **changes):
        return search.compress(self.settings(*arguments, **changes))


def lines(folder):
    path = os.path.join(folder, search.RESULTS)
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def by_name(report):
    return {each.name: each for each in report.results}


class Quick:
    """Writes and measures artifacts in no time; real ones take seconds."""

    def __init__(self):
        self.names = []
        self.stop_at = self.failing = ""

    def write(self, candidate, path, model, folder, **options):
        if os.path.exists(folder):
            raise AssertionError(f"{folder} is left from a stopped call.")
        os.makedirs(folder)
        return write(os.path.join(folder, "artifact"), "x" * 1000)

    def measure(self, candidate, path, model, examples, **options):
        self.names.append(candidate.name)
        if candidate.name == self.stop_at:
            raise KeyboardInterrupt
        if candidate.name == self.failing:
            raise verification.ExportError("no op\nfor it")
        return artifacts.Measured({"accuracy": 0.5}, 2.0)


@contextlib.contextmanager
def quick():
    fake = Quick()
    with (
        mock.patch.object(artifacts, "write", fake.write),
        mock.patch.object(artifacts, "measure", fake.measure),
    ):
        yield fake


class MeasureTest(Case):
    """An artifact answers as the model that it was made from."""

    def measured(self, candidate, path, dev, **options):
        model = predictor.load(path)
        examples = list(model.task.read_examples(dev))
        artifact = artifacts.write(
            candidate,
            path,
            model,
            self.create_tempdir().full_path,
            rows=artifacts.Rows(examples, examples),
            seq_length=SEQ_LENGTH,
        )
        return artifacts.measure(
            candidate, artifact, model, examples, **{"threads": 1} | options
        )

    @parameterized.parameters(
        ("original", False),
        ("original-tflite", False),
        ("original-tflite", True),
    )
    def test_metrics_are_those_of_the_predictor(self, name, pairs):
        path, dev = self.teacher, self.dev
        if pairs:
            path = save(self.path("pairs"), pair=True)
            dev = write(self.path("pairs.tsv"), rows(DEV, 12, 2, pairs=True))
        (candidate,) = (c for c in ladder.ladder(3) if c.name == name)
        measured = self.measured(candidate, path, dev)
        expected = predictor.load(path).evaluate(dev)
        self.assertEqual(measured.metrics, expected)
        self.assertBetween(measured.metrics["accuracy"], 0.1, 0.9)
        self.assertEqual(next(iter(measured.metrics)), "accuracy")
        self.assertGreater(measured.milliseconds, 0)

    def test_a_speed_is_that_of_the_artifact(self):
        inner = classification.Classification(
            seq_length=SEQ_LENGTH, labels=("bad", "good")
        )
        path = save(self.path("exits"), early_exit.EarlyExit(inner, speed=0.5))
        every = {c.name: c for c in ladder.ladder(3)}
        found = {}
        for speed in (0.3, 0.7):
            candidate = every[f"exits-{speed}"]
            model = artifacts.load(path, candidate)
            self.assertEqual(model.task.speed, speed)
            found[speed] = model.evaluate(self.dev)["mean_exit_layer"]
        self.assertGreater(found[0.3], found[0.7])

    def answering(self, answer, threads=1, count=3):
        """Measures an artifact that calls `answer` for each text."""
        model = predictor.load(self.teacher)
        examples = [{"text": "a film", "label": "good"}] * count
        candidate = ladder.Candidate("fake", ladder.Recipe(), ladder.TFLITE)
        with mock.patch.object(
            artifacts, "tflite_answer", lambda *arguments: answer
        ):
            return artifacts.measure(
                candidate, "", model, examples, threads=threads
            )

    def test_time_is_the_median_of_a_text_in_milliseconds(self):
        calls = []

        def answer(texts):
            calls.append(texts)
            # The first ones are not timed, and one that is slow is no median.
            slow = len(calls) <= 3 or len(calls) == 5
            time.sleep(0.5 if slow else 0.05)
            return {"label": [b"good"], "score": [1.0], "scores": [[0.0, 1.0]]}

        measured = self.answering(answer, threads=2)
        self.assertLen(calls, 6)
        self.assertBetween(measured.milliseconds, 50, 200)
        self.assertEqual(measured.metrics["accuracy"], 1.0)
        self.assertEqual(calls[0]["text"].tolist(), [b"a film"])

    def test_one_thread_is_measured_by_the_time_of_the_processor(self):
        def answer(texts):
            time.sleep(0.05)  # as if another process had the processor
            return {"label": [b"bad"], "score": [1.0], "scores": [[1.0, 0.0]]}

        self.assertLess(self.answering(answer).milliseconds, 25)

    def test_all_threads_share_the_processors_that_are_measured_on(self):
        before = os.sched_getaffinity(0)
        moved = []
        with (
            mock.patch.object(os, "sched_getaffinity", lambda _: {4, 0, 7}),
            mock.patch.object(
                os, "sched_setaffinity", lambda *each: moved.append(each)
            ),
        ):
            with artifacts.on_processors(2):
                threads = {int(each) for each in os.listdir("/proc/self/task")}
                self.assertEqual({thread for thread, _ in moved}, threads)
                self.assertEqual([m for _, m in moved], [{4, 7}] * len(moved))
                moved.clear()
        self.assertIn((os.getpid(), {0, 4, 7}), moved)
        self.assertEqual(os.sched_getaffinity(0), before)

    def test_answers_that_are_no_numbers_are_an_error(self):
        nan = float("nan")
        answer = {"label": [b"bad"], "score": [nan], "scores": [[nan, nan]]}
        with self.assertRaisesRegex(verification.ExportError, "contain NaN"):
            self.answering(lambda texts: answer)


class CheckpointsTest(Case):
    def made(self, name):
        model = predictor.load(self.teacher)
        return checkpoints.Checkpoints(
            folder=self.path(name),
            path=self.teacher,
            original=model,
            task=model.task,
            train=list(model.task.read_examples(self.train)),
            training=search._training(self.settings(name)),
        )

    def test_a_student_starts_from_evenly_spaced_layers(self):
        made = self.made("students")
        values = checkpoint.read(self.teacher).encoder_values()
        for count, layers in ((2, [0, 1]), (1, [0])):
            path = made._start(ladder.Recipe(count))
            student = checkpoint.read(path).encoder_values()
            blocks = {name.split("/")[0] for name in student} - {
                "embeddings",
                "pooler",
            }
            self.assertLen(blocks, count)
            for number, layer in enumerate(layers):
                for name, value in student.items():
                    if name.startswith(f"block_{number}/"):
                        source = name.replace(
                            f"block_{number}/", f"block_{layer}/"
                        )
                        np.testing.assert_array_equal(value, values[source])

    def test_layers_of_a_deep_network(self):
        made = self.made("deep")
        made.path = save(self.path("six"), num_layers=6)
        made.original = predictor.load(made.path)
        kept = []
        with mock.patch.object(
            checkpoints.layer_surgery,
            "keep_layers",
            lambda model, layers: kept.append(layers) or model,
        ):
            made._start(ladder.Recipe(3))
            made._start(ladder.Recipe(2))
        self.assertEqual(kept, [[0, 2, 4], [0, 3]])

    def test_trimming_keeps_the_tokens_of_the_training_file_alone(self):
        path = self.made("trimming").get(ladder.Recipe(trimmed=True))
        trimmed, original = map(predictor.load, (path, self.teacher))
        words = set(trimmed.tokenizer.vocabulary)
        self.assertContainsSubset(TRAIN, words)
        self.assertEmpty((set(DEV) - set(TRAIN)) & words)
        texts = [each["text"] for each in self.made("again").train]
        for got, expected in zip(
            trimmed.predict(texts), original.predict(texts), strict=True
        ):
            self.assertEqual(got["label"], expected["label"])
            self.assertAlmostEqual(got["score"], expected["score"], places=5)

    def test_a_student_learns_from_the_original_and_is_trimmed_last(self):
        made = self.made("both")
        with mock.patch.object(
            checkpoints.finetune, "run", wraps=finetune.run
        ) as run:
            path = made.get(ladder.Recipe(1, trimmed=True))
            made.get(ladder.Recipe(1))
        (((settings, task), _),) = run.call_args_list
        self.assertEqual(task.teacher, self.teacher)
        self.assertEndsWith(settings.init, "layers-1-start")
        model = predictor.load(path)
        self.assertEqual(model.model.encoder.config.num_layers, 1)
        self.assertLess(model.tokenizer.vocab_size, len(tiny.VOCABULARY))
        trained = checkpoint.read(made.get(ladder.Recipe(1))).encoder_values()
        name = "block_0/attention/qkv/kernel"
        np.testing.assert_array_equal(
            checkpoint.read(path).encoder_values()[name], trained[name]
        )
        start = checkpoint.read(settings.init).encoder_values()
        self.assertFalse(np.array_equal(start[name], trained[name]))


class SearchTest(Case):
    def test_a_stopped_one_continues_without_repeating(self):
        names = "original-dynamic,trimmed,layers-1"
        with (
            quick() as measured,
            mock.patch.object(
                checkpoints.finetune, "run", wraps=finetune.run
            ) as run,
            mock.patch.object(
                checkpoints.vocabulary_surgery,
                "prune_tokens",
                wraps=vocabulary_surgery.prune_tokens,
            ) as prune_tokens,
        ):
            measured.stop_at = "trimmed"
            with self.assertRaises(KeyboardInterrupt):
                self.compress("stopped", names)
            stored = self.stored("stopped")
            self.assertEqual(list(stored), ["original", "original-dynamic"])
            self.assertNotIn("results.jsonl", os.listdir(self.path("stopped")))
            measured.stop_at = "layers-1"
            with self.assertRaises(KeyboardInterrupt):
                self.compress("stopped", names)
            measured.stop_at = ""
            report = self.compress("stopped", names)
            again = self.compress("stopped", names)
            self.assertEqual(again, report)
            other = self.compress("other", names)
        self.assertEqual(
            measured.names,
            [
                *("original", "original-dynamic", "trimmed"),
                *("trimmed", "layers-1"),
                "layers-1",
                *("original", "original-dynamic", "trimmed", "layers-1"),
            ],
        )
        self.assertEqual(other, report)
        now = self.stored("stopped")
        self.assertEqual(stored, {name: now[name] for name in stored})
        # Once for the stopped search, once to continue it (which returns at
        # once), and once for the other one.
        self.assertEqual(run.call_count, 3)
        self.assertEqual(prune_tokens.call_count, 2)

    @pytest.mark.slow
    def test_a_stopped_search_finds_what_another_one_does(self):
        names = "trimmed-dynamic,layers-1-dynamic"
        run = finetune.run

        def stopped(*arguments):
            run(*arguments)
            raise KeyboardInterrupt

        with mock.patch.object(checkpoints.finetune, "run", stopped):
            with self.assertRaises(KeyboardInterrupt):
                self.compress("real", names)
        report = self.compress("real", names)
        other = self.compress("real-other", names)
        # Times differ between two searches, and nothing else does.
        for one, same in zip(report.results, other.results, strict=True):
            self.assertEqual(one.metrics, same.metrics, one.name)
            self.assertEqual(one.parameters, same.parameters)
            self.assertAlmostEqual(one.megabytes, same.megabytes, delta=0.01)

    def stored(self, name):
        """The results in a folder, and when they were written."""
        return {
            each: os.stat(path).st_mtime_ns
            for each in sorted(os.listdir(self.path(name)))
            if os.path.exists(path := self.path(name, each, "result.json"))
        }

    def test_what_is_measured_and_written(self):
        report = self.compress(
            "written", "trimmed,original-dynamic", target="0.001MB"
        )
        found = by_name(report)
        self.assertEqual(
            list(found), ["original", "original-dynamic", "trimmed"]
        )
        self.assertEqual(report.metric, "accuracy")
        self.assertFalse(report.choice.is_reached)
        self.assertEqual(report.choice.result.name, "original-dynamic")
        teacher = predictor.load(self.teacher)
        self.assertEqual(found["original"].metrics, teacher.evaluate(self.dev))
        self.assertEqual(
            found["original"].parameters, teacher.model.count_params()
        )
        self.assertLess(
            found["trimmed"].parameters, found["original"].parameters
        )
        file = self.path("written", found["original-dynamic"].artifact)
        self.assertEqual(
            found["original-dynamic"].megabytes, os.path.getsize(file) / 1e6
        )
        folder = self.path("written", found["original"].artifact)
        self.assertIn("saved_model.pb", os.listdir(folder))
        for each, line in zip(
            report.results, lines(self.path("written")), strict=True
        ):
            expected = each.row()
            expected["recommended"] = each.name == "original-dynamic"
            self.assertEqual(line, expected)
        with open(self.path("written", "compression.png"), "rb") as file:
            self.assertEqual(file.read(4), b"\x89PNG")
        # Another target needs no new measurement.
        with mock.patch.object(artifacts, "measure") as measured:
            report = self.compress("written", "trimmed", target="1x")
        measured.assert_not_called()
        self.assertTrue(report.choice.is_reached)

    def test_a_failure_ends_one_candidate_and_is_tried_again(self):
        names = "original-int8,trimmed"
        with quick() as measured:
            measured.failing = "original-int8"
            report = self.compress("failing", names)
            found = by_name(report)
            self.assertEqual(found["original-int8"].error, "no op for it")
            self.assertEqual(found["trimmed"].error, "")
            line = lines(self.path("failing"))[1]
            self.assertEqual(line["error"], "no op for it")
            self.assertEqual(line["name"], "original-int8")
            measured.failing = ""
            measured.names.clear()
            report = self.compress("failing", names)
        self.assertEqual(measured.names, ["original-int8"])
        self.assertEqual(by_name(report)["original-int8"].error, "")

    def test_a_cpu_without_bfloat16_fails_as_it_is_slow(self):
        candidate = ladder.ladder(3)[1]
        self.assertEqual(candidate.precision, "bfloat16")
        with (
            mock.patch.object(artifacts, "cpu_flags", set),
            self.assertRaisesRegex(errors.InputError, "neither AVX512_BF16"),
        ):
            artifacts.write(
                candidate,
                self.teacher,
                predictor.load(self.teacher),
                self.path("bfloat16"),
                rows=artifacts.Rows([], []),
                seq_length=8,
            )

    @pytest.mark.slow
    def test_the_complete_ladder(self):
        with (
            mock.patch.object(artifacts, "cpu_flags", lambda: {"amx_bf16"}),
            mock.patch.object(
                checkpoints.finetune, "run", wraps=finetune.run
            ) as run,
        ):
            report = self.compress("complete", "")
        # Two students, and one training for all speeds of early exit.
        self.assertEqual(run.call_count, 3)
        found = by_name(report)
        self.assertEqual(list(found), [c.name for c in ladder.ladder(3)])
        self.assertEqual([each.error for each in report.results], [""] * 15)
        for speed in ladder.SPEEDS:
            model = predictor.load(
                self.path("complete", "checkpoints", "exits"),
                settings={"speed": speed},
            )
            self.assertEqual(
                found[f"exits-{speed}"].metrics, model.evaluate(self.dev)
            )
        student = predictor.load(self.path("complete/checkpoints/layers-2"))
        self.assertEqual(found["layers-2"].metrics, student.evaluate(self.dev))

    def test_int8_is_calibrated_on_training_rows(self):
        model = predictor.load(self.teacher)
        candidate = ladder.Candidate(
            "int8", ladder.Recipe(), ladder.TFLITE, "int8"
        )
        with mock.patch.object(artifacts.tflite, "export") as export:
            artifacts.write(
                candidate,
                self.teacher,
                model,
                "folder",
                rows=artifacts.Rows(["train"], ["dev"]),
                seq_length=8,
            )
        options = export.call_args.kwargs
        self.assertEqual(options["data"], ["train"])
        self.assertEqual(options["seq_length"], 8)
        self.assertEqual(options["quantization"], "int8")

    def test_a_folder_of_another_compression_is_refused(self):
        self.enter_context(quick())
        self.compress("mine")
        more = write(self.path("more.tsv"), rows(TRAIN, 17, 0))
        another = shutil.copytree(self.teacher, self.path("another"))
        model = predictor.load(another)
        weight = model.model.trainable_variables[0]
        weight.assign(weight + 1)
        shutil.rmtree(another)
        model.save(another)
        for changes, expected in (
            ({"epochs": 2}, "epochs=1 before, 2 now"),
            ({"seed": 2}, "seed=1 before, 2 now"),
            ({"threads": 2}, "threads=1 before, 2 now"),
            ({"seq_length": 8}, "seq_length=0 before, 8 now"),
            ({"train": more}, "other contents of train"),
            ({"dev": more}, "other contents of dev"),
            ({"checkpoint": another}, "other contents of checkpoint"),
        ):
            with self.assertRaisesRegex(errors.InputError, expected):
                self.compress("mine", **changes)
        # The same under other names is the same.
        same = shutil.copytree(self.teacher, self.path("same"))
        self.compress("mine", checkpoint=same)
        os.makedirs(self.path("foreign", "trimmed"))
        with self.assertRaisesRegex(errors.InputError, "contains trimmed"):
            self.compress("foreign")

    def test_a_broken_original_ends_the_search(self):
        with (
            mock.patch.object(
                artifacts,
                "write",
                side_effect=verification.ExportError("no op"),
            ),
            self.assertRaisesRegex(verification.ExportError, "no op"),
        ):
            self.compress("broken")


class RefusalsTest(Case):
    @parameterized.parameters(
        ({"target": ""}, "target"),
        ({"target": "fast"}, "target=fast: expected a positive number"),
        ({"candidates": "tiny"}, "candidates=tiny: expected some of original"),
        ({"train": ""}, "train"),
        ({"threads": 0}, "threads=0: expected 1 to 1024"),
        ({"output": "gs://bucket/a"}, "expected a folder on a local disk"),
        ({"columns": "text=words"}, "words"),
    )
    def test_settings(self, changes, expected):
        with self.assertRaisesRegex(errors.InputError, expected):
            self.compress("refused", **changes)

    def test_more_tokens_than_positions(self):
        with self.assertRaisesRegex(
            errors.InputError, "seq_length=65: the network has 64"
        ):
            self.compress("longer", "original-dynamic", seq_length=65)

    def test_a_row_that_is_too_short_is_an_error_of_its_candidate(self):
        with mock.patch.object(artifacts.saved_model, "export") as export:
            export.return_value = self.teacher
            with mock.patch.object(artifacts, "measure", Quick().measure):
                report = self.compress(
                    "short", "original-dynamic", seq_length=3
                )
        self.assertIn("seq_length=3: expected 4 to 64", report.results[1].error)

    @parameterized.named_parameters(
        (
            "labels",
            "text\tlabel\na film\tgood\nbad\tother\n",
            "expected the labels of the checkpoint, .*'bad', 'good'.*'other'",
        ),
        (
            "pairs",
            "text\ttext_pair\tlabel\na\tfilm\tgood\na\tplot\tbad\n",
            "expected the columns of the checkpoint, .*text_pair",
        ),
    )
    def test_training_rows(self, text, expected):
        train = write(self.path("wrong.tsv"), text)
        with self.assertRaisesRegex(errors.InputError, expected):
            self.compress("wrong", train=train)

    @parameterized.named_parameters(
        (
            "several_labels",
            lambda: classification.Classification(
                labels=("bad", "good"),
                seq_length=16,
                problem_type="multi_label",
            ),
            "classification with problem_type=multi_label",
        ),
        (
            "early_exit",
            lambda: early_exit.EarlyExit(
                classification.Classification(
                    labels=("bad", "good"), seq_length=16
                )
            ),
            "found one of early_exit",
        ),
        ("masked_lm", lambda: tiny.masked_lm_model().task, "masked_lm"),
    )
    def test_other_tasks(self, make, expected):
        path = self.create_tempdir().full_path
        save(path, make())
        with self.assertRaisesRegex(
            errors.InputError, f"one label for each text.*{expected}.*by hand"
        ):
            self.compress("task", checkpoint=path)

    def test_an_input_in_the_output(self):
        with self.assertRaisesRegex(errors.InputError, "is in output="):
            self.compress("", output=self.path())


class CommandTest(Case):
    def test_its_table_and_what_is_next(self):
        flags = vars(self.settings("command", "original-dynamic"))
        code, out, error = call("trainers.compress", **flags)
        self.assertEqual((code, error), (0, ""))
        self.assertRegex(out, r"original-dynamic +│ +0\.\d{4}")
        for column in ("accuracy", "ms", "speed-up", "MB", "parameters"):
            self.assertIn(column, out)
        self.assertRegex(out, r"Recommended for 1x: original\S*: accuracy 0\.")
        last = out.splitlines()[-1]
        self.assertStartsWith(last, f"next: {flags['output']}/original")
        path, readme = last.removeprefix("next: ").split(", see ")
        self.assertTrue(os.path.exists(path))
        self.assertTrue(os.path.exists(readme))
        code, out, error = call(
            "trainers.compress", **flags | {"target": "0.0001MB"}
        )
        self.assertEqual((code, error), (0, ""))
        self.assertIn("No candidate reaches 0.0001MB. The nearest is orig", out)
        self.assertIn("next: ", out)
        code, out, error = call("trainers.compress", **flags | {"epochs": 7})
        self.assertEqual((code, out), (1, ""))
        self.assertIn("error: ", error)
        self.assertIn("epochs=1 before, 7 now", error)
        self.assertNotIn("\n", error)


if __name__ == "__main__":
    absltest.main()
