"""Records come out the same, however they are made."""

import functools
import glob
import gzip
import hashlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile

import pytest
import zstandard
from absl.testing import absltest, parameterized

from bert_keras.data import records
from tests import tiny
from tests.trainers import mains


def tearDownModule():
    mains.close()


def corpus(count):
    """Documents of 1 to 9 sentences, all different."""
    numbers = random.Random(1)
    lines = []
    for number in range(count):
        for _ in range(numbers.randint(1, 9)):
            words = numbers.choices(tiny.WORDS[:20], k=numbers.randint(3, 20))
            lines.append(" ".join(words) + f" {number} .")
        lines.append("")
    return "\n".join(lines)


def bytes_of(folder):
    """{file: checksum} of all that training reads."""
    digests = {}
    for where, _, names in os.walk(folder):
        for name in names:
            if name.endswith((".safetensors", "manifest.json", ".txt")):
                path = os.path.join(where, name)
                with open(path, "rb") as file:
                    digest = hashlib.sha256(file.read()).hexdigest()
                digests[os.path.relpath(path, folder)] = digest
    digests.pop("flags.txt", None)
    return digests


def count(folder):
    """Chunks that are done."""
    return len(glob.glob(os.path.join(folder, "*", "chunk-*.json")))


class PrepareTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.mkdtemp()
        cls.path = functools.partial(os.path.join, cls.folder)
        cls.input = mains.write(cls.path("corpus.txt"), corpus(600))
        cls.flags = {
            "input": cls.input,
            "vocab": mains.write(
                cls.path("vocab.txt"), "\n".join(tiny.VOCABULARY)
            ),
            "seq_length": 32,
            "dev_fraction": 0.1,
            "shard_mb": 0.01,
            "dupe_factor": 2,
        }
        cls.whole = cls.path("whole")
        code, cls.out, error = mains.call(
            "trainers.prepare", output=cls.whole, workers=1, **cls.flags
        )
        assert not code, error

    def test_two_processes_make_the_same_bytes(self):
        folder = self.path("two")
        code, _, error = mains.call(
            "trainers.prepare", output=folder, workers=2, **self.flags
        )
        self.assertEqual((code, error), (0, ""))
        self.assertEqual(bytes_of(folder), bytes_of(self.whole))
        self.assertGreater(len(bytes_of(folder)), 30)
        # Notes for a second start are gone once all is done.
        self.assertEqual((count(folder), count(self.whole)), (0, 0))

    def test_a_beam_pipeline_makes_the_same_bytes(self):
        if importlib.util.find_spec("apache_beam") is None:
            code, _, error = mains.call(
                "trainers.prepare",
                output=self.path("no-beam"),
                runner="DirectRunner",
                **self.flags,
            )
            self.assertEqual(code, 1)
            self.assertRegex(error, "^error: --runner=.*needs Apache Beam")
            self.skipTest("needs apache-beam")
        folder = self.path("beam")
        code, _, error = mains.call(
            "trainers.prepare",
            output=folder,
            runner="DirectRunner",
            **self.flags,
        )
        self.assertEqual((code, error), (0, ""))
        self.assertEqual(bytes_of(folder), bytes_of(self.whole))

    @parameterized.parameters("full", "sentences")
    def test_rows_of_one_segment(self, packing):
        folder = self.path(packing)
        code, out, error = mains.call(
            "trainers.prepare", output=folder, packing=packing, **self.flags
        )
        self.assertEqual((code, error), (0, ""))
        read = records.Records(os.path.join(folder, "train"))
        self.assertEqual(read.manifest["packing"], packing)
        self.assertEqual(read.manifest["objective"], "none")
        full = (read.lengths == 32).mean()
        self.assertBetween(full, *((0.8, 1) if packing == "full" else (0, 0.3)))
        self.assertIn("--objective=causal_lm", out)

    @parameterized.parameters(
        ({"sentence_objective": "sop"}, "leave out --sentence_objective"),
        ({"sentence_objective": "nsp_sop"}, "leave out --sentence_objective"),
        ({"format": "google"}, "leave out .* and --format"),
    )
    def test_rows_of_one_segment_have_no_pairs_and_no_masks(self, more, words):
        code, _, error = mains.call(
            "trainers.prepare",
            output=self.path("refused"),
            packing="full",
            **(self.flags | more),
        )
        self.assertEqual(code, 1)
        self.assertRegex(error, words)

    def test_three_classes_have_names(self):
        folders = self.path("three-1"), self.path("three-2")
        for workers, folder in enumerate(folders, 1):
            code, _, error = mains.call(
                "trainers.prepare",
                output=folder,
                workers=workers,
                sentence_objective="nsp_sop",
                **self.flags,
            )
            self.assertEqual((code, error), (0, ""))
        self.assertEqual(bytes_of(folders[0]), bytes_of(folders[1]))
        read = records.Records(os.path.join(folders[0], "train"))
        self.assertEqual(read.manifest["objective"], "nsp_sop")
        classes = read.manifest["sentence_classes"]
        self.assertEqual(
            classes, ["next sentence", "previous sentence", "random sentence"]
        )
        rows = read.read(range(len(read)), 32)
        labels = rows["targets/next_sentence/labels"].tolist()
        counts = [labels.count(label) for label in range(3)]
        self.assertEqual(read.manifest["report"]["labels"], counts)
        with open(os.path.join(folders[0], "report.json")) as file:
            shares = json.load(file)["pairs"]
        for name, count in zip(classes, counts, strict=True):
            self.assertIn(f"{count / len(read):.1%} {name}", shares)
            self.assertAlmostEqual(count / len(read), 1 / 3, delta=0.05)
        code, out, error = mains.call(
            "trainers.describe", records=folders[0], rows=len(classes)
        )
        self.assertEqual((code, error), (0, ""))
        for label in labels[:3]:
            self.assertIn(f"Targets: next_sentence: {classes[label]}", out)

    def test_google_files_have_two_classes(self):
        code, _, error = mains.call(
            "trainers.prepare",
            output=self.path("refused"),
            format="google",
            sentence_objective="nsp_sop",
            **self.flags,
        )
        self.assertEqual(code, 1)
        self.assertRegex(
            error,
            "--sentence_objective=nsp_sop: expected one of nsp, sop, none",
        )
        path = mains.write(self.path("some.tfrecord"), "")
        code, _, error = mains.call(
            "trainers.prepare",
            output=self.path("refused"),
            sentence_objective="nsp_sop",
            **(self.flags | {"input": path}),
        )
        self.assertEqual(code, 1)
        self.assertRegex(error, "expected one of nsp, sop, none.*reads")

    def test_an_unknown_sentence_objective_lists_the_known_ones(self):
        for name in ("guess", "no.such_module"):
            code, _, error = mains.call(
                "trainers.prepare",
                output=self.path("unknown"),
                sentence_objective=name,
                **self.flags,
            )
            self.assertEqual(code, 1)
            self.assertIn(
                f"--sentence_objective={name}: expected one of none, nsp, "
                "nsp_sop, sop, or the dotted name",
                error,
            )

    def test_an_unknown_tokenizer_or_objective_lists_the_known_ones(self):
        code, _, error = mains.call(
            "trainers.prepare",
            output=self.path("unknown"),
            tokenizer="words",
            **self.flags,
        )
        self.assertEqual(code, 1)
        self.assertRegex(
            error, "--tokenizer=words: expected one of .*wordpiece"
        )
        code, _, error = mains.call(
            "trainers.pretrain",
            output=self.path("unknown"),
            records=self.whole,
            objective="guess",
        )
        self.assertEqual(code, 1)
        self.assertRegex(error, "guess: expected one of .*masked_lm")

    @parameterized.parameters(
        ("corpus.txt.gz", gzip.compress),
        ("corpus.txt.zst", zstandard.ZstdCompressor().compress),
    )
    def test_packed_text_gives_the_same_rows(self, name, pack):
        with open(self.input, "rb") as file:
            packed = pack(file.read())
        path, folder = self.path(name), self.path(f"out-{name}")
        with open(path, "wb") as file:
            file.write(packed)
        code, _, error = mains.call(
            "trainers.prepare", output=folder, **(self.flags | {"input": path})
        )
        self.assertEqual((code, error), (0, ""))
        shards = [
            {
                name: digest
                for name, digest in bytes_of(where).items()
                if "shard" in name
            }
            for where in (folder, self.whole)
        ]
        self.assertEqual(*shards)

    def test_each_pass_draws_other_pairs_of_the_same_text(self):
        train = records.Records(os.path.join(self.whole, "train"))
        sizes = [shard["rows"] for shard in train.manifest["shards"]]
        one, two = (
            train.read(range(sum(sizes[:n]), sum(sizes[: n + 1])), 32)
            for n in range(2)
        )
        self.assertFalse(
            one["inputs/token_ids"].tolist() == two["inputs/token_ids"].tolist()
        )
        # Nearly every token is used once a pass, and in random partners.
        self.assertAlmostEqual(sizes[0], sizes[1], delta=0.2 * sizes[0])

    def test_the_report_counts_the_text(self):
        train = records.Records(os.path.join(self.whole, "train"))
        report = train.manifest["report"]
        self.assertEqual(sum(report["lengths"]), len(train))
        self.assertEqual(report["documents"], 540)
        self.assertLen(report["examples"], 3)
        with open(os.path.join(self.whole, "lengths.png"), "rb") as file:
            self.assertEqual(file.read(4), b"\x89PNG")
        self.assertIn("wordpieces per word", self.out)

    @pytest.mark.slow
    def test_google_files_go_out_and_come_back(self):
        google, back = self.path("google"), self.path("back")
        flags = self.flags | {"format": "google", "max_predictions_per_seq": 5}
        code, _, error = mains.call("trainers.prepare", output=google, **flags)
        self.assertEqual((code, error), (0, ""))
        code, _, error = mains.call(
            "trainers.pretrain", records=google, output=self.path("no-run")
        )
        self.assertEqual(code, 1)
        self.assertRegex(error, "^error: .*Google's TFRecord.*--input=")
        files = {
            "input": os.path.join(google, "train", "*.tfrecord"),
            "vocab": os.path.join(google, "vocab.txt"),
        }
        code, _, error = mains.call(
            "trainers.prepare", output=back, dev_fraction=0.1, **files
        )
        self.assertEqual((code, error), (0, ""))
        whole = records.Records(os.path.join(self.whole, "train"))
        rows = [
            len(records.Records(os.path.join(back, split)))
            for split in ("train", "dev")
        ]
        self.assertEqual(sum(rows), len(whole))
        # One training step from each form.
        model = mains.write(
            self.path("model.json"), json.dumps(tiny.bert().to_dict())
        )
        for name, folder in (("static", back), ("dynamic", self.whole)):
            code, out, error = mains.call(
                "trainers.pretrain",
                records=folder,
                output=self.path(f"run-{name}"),
                model=model,
                steps=1,
                batch_size=8,
            )
            self.assertEqual((code, error), (0, ""))
            self.assertIn("masked_lm_accuracy", out)

    def test_repeated_documents_are_left_out(self):
        twice = mains.write(
            self.path("twice.txt"), corpus(600) + "\n" + corpus(600)
        )
        code, out, error = mains.call(
            "trainers.prepare",
            output=self.path("twice"),
            **(self.flags | {"input": twice}),
        )
        self.assertEqual((code, error), (0, ""))
        self.assertRegex(out, "duplicate documents left out +│ 600")

    @pytest.mark.slow
    def test_killed_at_any_moment_it_ends_with_the_same_bytes(self):
        moment = random.Random(5)
        folder = self.path("killed")
        arguments = self.flags | {"output": folder, "workers": 2}
        for _ in range(3):
            process = subprocess.Popen(
                [sys.executable, "-m", "trainers.prepare"]
                + [f"--{name}={value}" for name, value in arguments.items()],
                cwd=mains.ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            aim = count(folder) + moment.randint(1, 12)
            while count(folder) < aim and process.poll() is None:
                os.sched_yield()
            process.send_signal(signal.SIGKILL)
            process.wait()
        code, _, error = mains.call("trainers.prepare", **arguments)
        self.assertEqual((code, error), (0, ""))
        self.assertEqual(bytes_of(folder), bytes_of(self.whole))


if __name__ == "__main__":
    absltest.main()
