"""What commit 217d871 wrote and answered is opened and answered equally.

tests/fixtures/make.py made the files, and says what they are. Other machines
round sums in another order: numbers may differ by 1e-5, texts may not. The
mains are called as a user calls them, so that the tests outlive the modules.
"""

import functools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from absl.testing import absltest, parameterized

from bert_keras.data import records as records_lib
from tests.fixtures import asking, inputs, make
from tests.trainers import mains

ATOL, RTOL = 1e-5, 1e-6
# Gradients are sums over many rows and tokens.
GRADIENT_RTOL = 1e-3
PRETRAINING, FINETUNING = tuple(make.NETWORKS), tuple(make.TASKS)
NAMES = (*PRETRAINING, *FINETUNING)
# Flags of the stored commands that have another name now: {then: now}.
RENAMED: dict[str, str] = {}
# Continued in `make test`: two tasks, two networks, two optimizers.
QUICK = ("masked_lm_sop", "embedding")


@functools.cache
def expected(name):
    with open(f"{asking.FIXTURES}/{name}.json", encoding="utf-8") as file:
        return json.load(file)


@functools.cache
def runner():
    """A process that runs mains in the folder of the unpacked fixtures."""
    folder = tempfile.mkdtemp()
    for name in NAMES:
        with zipfile.ZipFile(f"{asking.FIXTURES}/{name}.zip") as archive:
            archive.extractall(folder)
    path = os.pathsep.join(filter(None, [asking.ROOT, *sys.path]))
    process = subprocess.Popen(
        [sys.executable, "-c", mains.RUNNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
    )
    return folder, process


def tearDownModule():  # noqa: N802 (absltest's name)
    if runner.cache_info().currsize:
        folder, process = runner()
        process.stdin.close()
        process.wait()
        process.stdout.close()
        shutil.rmtree(folder)
        runner.cache_clear()


def call(command, *, read_all=False, **flags):
    """Runs a stored command with more flags; returns its standard output.

    read_all: with all of the last layer computed, as it was then.
    """
    module, *arguments = [*command, *asking.command("", **flags)[1:]]
    for number, argument in enumerate(arguments):
        name, _, value = argument.removeprefix("--").partition("=")
        arguments[number] = f"--{RENAMED.get(name, name)}={value}"
    command = ["tests.fixtures.read_all"] * read_all + [module, *arguments]
    process = runner()[1]
    process.stdin.write(json.dumps(command) + "\n")
    process.stdin.flush()
    failed, output, error, _ = json.loads(process.stdout.readline())
    if failed:
        raise AssertionError(f"{' '.join(command)}: {error}")
    return output


def path(*parts):
    """A path among the unpacked fixtures."""
    return os.path.join(runner()[0], *parts)


def stored_answers(name):
    """Returns the stored answers, without the padding that masks had then."""
    answers = expected(name)["answers"]
    for number, answer in enumerate(answers):
        if "token" in answer:
            count = sum(map(bool, answer["token"]))
            masks = {key: answer[key][:count] for key in ("token", "score")}
            answers[number] = answer | masks
    return answers


def _without_noise(name, values):
    """Returns the stored values that do not depend on how a matmul rounds.

    The texts of the embedding fixture have cosines from 1 - 4e-7 to 1, five
    float32 values: their correlation with the labels is that of rounding
    errors. Embeddings and losses of the fixture are compared all the same.
    """
    if name != "embedding":
        return values
    return {
        key: value
        for key, value in values.items()
        if not key.endswith(("spearman", "pearson"))
    }


class FixturesTest(parameterized.TestCase):
    def assert_equal(self, actual, wanted, where="", *, rtol=RTOL):
        """Every value of `wanted` is there, with numbers near each other.

        What is found may have more names: later versions may tell more.
        """
        if isinstance(wanted, dict):
            self.assertIsInstance(actual, dict, where)
            self.assertContainsSubset(wanted, actual, where)
            for name, value in wanted.items():
                is_gradient = name == "gradient_norm"
                self.assert_equal(
                    actual[name],
                    value,
                    f"{where}/{name}",
                    rtol=GRADIENT_RTOL if is_gradient else rtol,
                )
        elif isinstance(wanted, list):
            self.assertIsInstance(actual, list, where)
            self.assertLen(actual, len(wanted), where)
            for number, value in enumerate(wanted):
                self.assert_equal(
                    actual[number], value, f"{where}/{number}", rtol=rtol
                )
        elif isinstance(wanted, float):
            self.assertTrue(
                math.isclose(actual, wanted, abs_tol=ATOL, rel_tol=rtol),
                f"{where}: {actual} is not {wanted}",
            )
        else:
            self.assertEqual(actual, wanted, where)

    # The finished checkpoint.

    @parameterized.parameters(*NAMES)
    def test_a_checkpoint_gives_the_stored_answers(self, name):
        call(expected(name)["predict"], output="answers.jsonl")
        answers = asking.read_json_lines(path("answers.jsonl"))
        self.assert_equal(answers, stored_answers(name))

    @parameterized.parameters(*NAMES)
    def test_a_checkpoint_has_the_stored_metrics(self, name):
        output = call(expected(name)["evaluate"], output="answers.jsonl")
        self.assert_equal(
            asking.read_table(output),
            _without_noise(name, expected(name)["metrics"]),
        )
        if wanted := expected(name)["evaluated"]:
            answers = asking.read_json_lines(path("answers.jsonl"))
            self.assert_equal(answers, wanted)

    # Runs. They have dropout, whose random numbers depend on how many positions
    # the last layer is computed for: all, as then.

    def continue_run(self, name, *, without=()):
        """Continues a copy of the half-finished run; compares its log."""
        run = f"{name}/continued{len(without)}"
        shutil.copytree(path(name, "half"), path(run))
        for file in without:
            os.remove(path(run, file))
        call(expected(name)["train"], output=run, read_all=True)
        self.assert_equal(
            asking.read_log(path(run)),
            [_without_noise(name, line) for line in expected(name)["log"]],
        )
        self.assert_equal_run(run, name)

    def assert_equal_run(self, run, name):
        """The last checkpoint of a run answers as the finished one does."""
        command = asking.command(
            "trainers.predict",
            checkpoint=self.last_step(run),
            input=f"{name}/texts.jsonl",
        )
        call(command, output="answers.jsonl")
        answers = asking.read_json_lines(path("answers.jsonl"))
        self.assert_equal(answers, stored_answers(name))

    def last_step(self, run):
        with open(path(run, "latest")) as file:
            return f"{run}/step-{int(file.read()):08d}"

    @parameterized.parameters(*QUICK)
    @pytest.mark.slow_after(1)
    def test_half_a_run_continues_with_the_stored_losses(self, name):
        self.continue_run(name)

    @parameterized.parameters(*(n for n in NAMES if n not in QUICK))
    @pytest.mark.slow
    def test_every_other_run_continues_with_the_stored_losses(self, name):
        self.continue_run(name)

    @parameterized.parameters(*NAMES)
    @pytest.mark.slow
    def test_a_run_that_only_has_flags_txt_continues(self, name):
        self.continue_run(name, without=("settings.json",))

    @parameterized.parameters(*NAMES)
    @pytest.mark.slow
    def test_a_run_from_scratch_has_the_stored_losses(self, name):
        run = f"{name}/again"
        command = expected(name)["train"]
        then = {}  # defaults of then
        if command[0] == "trainers.pretrain":
            then["warmup_ratio"] = 0.01
        call(command, output=run, read_all=True, **then)
        self.assert_equal(
            asking.read_log(path(run)),
            [_without_noise(name, line) for line in expected(name)["log"]],
        )
        self.assert_equal_run(run, name)

    def test_other_flags_than_a_run_had_are_refused(self):
        run = "classification_single/half"
        command = expected("classification_single")["train"]
        with self.assertRaisesRegex(AssertionError, "seed=1 before, 2 now"):
            call(command, output=run, seed=2)

    # Records.

    @parameterized.parameters(*NAMES)
    def test_records_hold_the_stored_arrays(self, name):
        for folder, arrays in expected(name)["records"].items():
            self.assertEqual(asking.arrays(path(folder)), arrays, folder)
            file = path(folder, "shard-00000.safetensors")
            shard = safetensors.numpy.load_file(file)
            records = records_lib.Records(path(folder))
            rows = np.arange(len(shard["row_splits"]) - 1)
            self.assertLen(records, len(rows))
            batch = records.read(rows, int(records.lengths.max()))
            real = batch["inputs/padding_mask"] > 0
            for key, value in shard.items():
                layout, _, feature = key.partition(":")
                if layout == "token":
                    np.testing.assert_array_equal(batch[feature][real], value)
                elif layout == "row":
                    np.testing.assert_array_equal(batch[feature], value)

    @parameterized.parameters(*PRETRAINING)
    def test_the_same_text_gives_the_same_records(self, name):
        call(expected(name)["prepare"], output=f"{name}/records-again")
        for folder, arrays in expected(name)["records"].items():
            again = folder.replace("/records/", "/records-again/")
            self.assertEqual(asking.arrays(path(again)), arrays, folder)
            self.assertEqual(
                records_lib.Records(path(again)).fingerprint,
                records_lib.Records(path(folder)).fingerprint,
            )

    @parameterized.parameters(*PRETRAINING)
    def test_records_have_the_fingerprints_that_runs_noted(self, name):
        with open(path(name, "half", "settings.json")) as file:
            reads = json.load(file)["reads"]
        for key, part in (("records", "train"), ("dev records", "dev")):
            records = records_lib.Records(path(name, "records", part))
            self.assertEqual(records.fingerprint, reads[key])

    # Exports.

    @parameterized.parameters(*NAMES)
    def test_a_saved_model_gives_the_stored_answers(self, name):
        length = expected(name)["seq_length"]
        answers = asking.ask_saved_model(
            path(name, "saved_model", "1"),
            inputs.texts(name),
            asking.token_rows(length, pair=name == "embedding"),
        )
        self.assert_equal(answers, expected(name)["saved_model"])

    @parameterized.parameters(*NAMES)
    def test_a_tflite_file_gives_the_stored_answers(self, name):
        tokens = asking.token_rows(expected(name)["seq_length"], pair=False)
        file = path(name, "tflite", "model_float32.tflite")
        answers = asking.ask_tflite(file, tokens)
        self.assert_equal(answers, expected(name)["tflite"])

    @parameterized.parameters(*NAMES)
    @pytest.mark.slow
    def test_a_tflite_file_answers_texts(self, name):
        output = asking.call(
            expected(name)["run_tflite"],
            folder=path(),
            stdin=expected(name)["tflite_stdin"],
        )
        answers = list(map(json.loads, output.splitlines()))
        self.assert_equal(answers, expected(name)["tflite_answers"])

    @parameterized.parameters(*NAMES)
    @pytest.mark.slow
    def test_new_exports_give_the_stored_answers(self, name):
        length = expected(name)["seq_length"]
        finished = f"{name}/finished"
        served, mobile = f"{name}/served-again", f"{name}/tflite-again"
        command = asking.command("export.saved_model", checkpoint=finished)
        call(command, output=served)
        answers = asking.ask_saved_model(
            path(served, "1"),
            inputs.texts(name),
            asking.token_rows(length, pair=name == "embedding"),
        )
        self.assert_equal(answers, expected(name)["saved_model"])
        command = asking.command("export.tflite", checkpoint=finished)
        call(command, output=mobile, seq_length=length)
        answers = asking.ask_tflite(
            path(mobile, "model_float32.tflite"),
            asking.token_rows(length, pair=False),
        )
        self.assert_equal(answers, expected(name)["tflite"])

    # What is stored.

    def test_fixtures_stay_small(self):
        sizes = {
            file.name: file.stat().st_size
            for file in os.scandir(asking.FIXTURES)
            if file.is_file()
        }
        self.assertLess(max(sizes.values()), 300_000)
        self.assertLess(sum(sizes.values()), 3_000_000)


if __name__ == "__main__":
    absltest.main()
