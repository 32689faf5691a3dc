"""Bad input ends in one clear line, exit code 1 and nothing half-written."""

import json
import os
import tempfile

from absl.testing import absltest, parameterized

from bert_keras.data import records
from tests import tiny
from tests.trainers import mains
from tests.trainers.mains import call, write


def tearDownModule():
    mains.close()


class BadInputTest(mains.Case):
    @parameterized.named_parameters(
        ("missing_corpus", "prepare", {"input": "nowhere.txt"}, "nowhere.txt"),
        ("empty_corpus", "prepare", {"input": "EMPTY"}, "empty"),
        ("not_utf8", "prepare", {"input": "LATIN"}, "UTF-8"),
        ("vocab_twice", "prepare", {"vocab_size": 50}, "one of --vocab"),
        ("vocab_is_no_vocab", "prepare", {"vocab": "CORPUS"}, r"\[PAD\]"),
        ("no_records", "pretrain", {"records": "FOLDER"}, "manifest.json"),
        ("unknown_size", "pretrain", {"model": "huge"}, "tiny, mini"),
        ("zero_batch", "pretrain", {"batch_size": 0}, "batch_size=0"),
        ("negative_clip", "pretrain", {"clip_norm": -1}, "clip_norm=-1"),
        ("huge_seed", "pretrain", {"seed": 2**32}, "seed=4294967296"),
        ("seed_of_prepare", "prepare", {"seed": 2**31}, "seed=2147483648"),
        ("nan_rate", "finetune", {"learning_rate": "nan"}, "rate is nan"),
        ("infinite_clip", "pretrain", {"clip_norm": "inf"}, "clip_norm is inf"),
        ("no_epochs", "finetune", {"epochs": 0}, "epochs=0"),
        ("short_rows", "finetune", {"seq_length": 1}, "seq_length=1"),
        ("all_held_out", "prepare", {"dev_fraction": 1.5}, "dev_fraction=1.5"),
        ("one_document", "prepare", {"input": "ONE"}, "only one"),
        ("no_label_column", "finetune", {"train": "UNLABELLED"}, "label"),
        ("no_labels_read", "finetune", {"task": "masked_lm"}, "no labelled"),
        (
            "diverged",
            "pretrain",
            {"learning_rate": 1e30, "max_skipped": 2},
            "finite in the 2 steps",
        ),
        (
            "no_cluster",
            "pretrain",
            {"strategy": "multi_worker_mirrored"},
            "TF_",
        ),
        (
            "no_tpu",
            "pretrain",
            {"strategy": "tpu", "tpu": "nowhere"},
            "--tpu=nowhere: no TPU answers there",
        ),
        (
            "unknown_score",
            "finetune",
            {"best_metric": "f1"},
            "best_metric=f1: expected one of accuracy",
        ),
        (
            "odd_parts",
            "pretrain",
            {"gradient_accumulation_steps": 3},
            "batch_size=8 must be a multiple of 3",
        ),
        (
            "pipeline_of_replicas",
            "pretrain",
            {"pipeline_stages": 2, "strategy": "mirrored"},
            "cannot be combined with --strategy=mirrored",
        ),
        (
            "pipeline_with_xla",
            "finetune",
            {"pipeline_stages": 2, "xla": True},
            "cannot be combined with --xla=true",
        ),
        (
            "pipeline_on_a_tpu",
            "finetune",
            {"pipeline_stages": 2, "tpu": "local"},
            "cannot be combined with --tpu=local",
        ),
        (
            "micro_batches_without_stages",
            "pretrain",
            {"micro_batches": 2},
            "has no effect without --pipeline_stages",
        ),
        (
            "two_numbers_of_micro_batches",
            "pretrain",
            {
                "pipeline_stages": 2,
                "micro_batches": 4,
                "gradient_accumulation_steps": 2,
            },
            "they are the same; give one of them",
        ),
        (
            "odd_shards",
            "pretrain",
            {"elastic_shards": 6},
            "expected two powers of two",
        ),
        (
            "shards_and_accumulation",
            "finetune",
            {"elastic_shards": 4, "gradient_accumulation_steps": 2},
            "cannot be combined with --gradient_accumulation_steps=2",
        ),
        (
            "more_gpus_than_there_are",
            "pretrain",
            {"num_gpus": 99},
            "num_gpus=99: expected at most the number of GPUs here",
        ),
        (
            "unknown_field",
            "pretrain",
            {"model": "OTHER"},
            "unknown here: \\['heads'\\]",
        ),
        ("short_positions", "pretrain", {"model": "SHORT"}, "8 positions"),
        ("no_init", "finetune", {"init": ""}, "--init is missing"),
        ("no_checkpoint", "finetune", {"init": "FOLDER"}, "not a checkpoint"),
        ("missing_train", "finetune", {"train": "nowhere.tsv"}, "nowhere.tsv"),
        ("empty_train", "finetune", {"train": "EMPTY"}, "found none"),
        (
            "empty_intents",
            "finetune",
            {"train": "INTENTS", "task": "intent_slots"},
            "expected one text per line of .* are empty",
        ),
        ("no_input", "prepare", {"input": ""}, "--input is missing"),
        ("table", "prepare", {"input": "COLUMNS"}, "tsv: .*found a table"),
        ("wrong_columns", "finetune", {"train": "COLUMNS"}, "text.*label"),
        ("wrong_name", "finetune", {"columns": "text=a,label=b"}, "'?a'?"),
        ("unknown_label", "finetune", {"dev": "LABEL"}, "'strange'"),
        ("ragged_line", "finetune", {"train": "RAGGED"}, "RAGGED.tsv.*3"),
        ("too_long", "finetune", {"seq_length": 65}, "64 positions"),
        ("unknown_task", "finetune", {"task": "classify"}, "classification"),
        ("unknown_flag", "finetune", {"epoch": 3}, "epoch"),
        ("no_number", "finetune", {"epochs": "many"}, "epochs"),
    )
    def test_bad_input_is_one_line(self, name, changes, message):
        self.bad_files()
        folder = os.path.join(tempfile.mkdtemp(dir=self.folder), "out")
        changes = {
            flag: getattr(self, value, value)
            if isinstance(value, str) and value.isupper()
            else value
            for flag, value in changes.items()
        }
        flags = {
            "prepare": {"input": self.corpus, "vocab": self.vocab},
            "pretrain": self.pretrain_flags(),
            "finetune": self.finetune_flags(),
        }[name]
        code, _, error = call(
            f"trainers.{name}", **(flags | {"output": folder} | changes)
        )
        self.assertEqual(code, 1, error)
        self.assertRegex(error, f"^error: .*{message}")
        self.assertNotIn("\n", error)
        if "diverged" not in self.id():  # that run has saved good steps
            self.assertFalse(os.path.exists(os.path.join(folder, "latest")))
        self.assertFalse(records.is_complete(os.path.join(folder, "train")))

    def test_records_of_another_vocabulary_are_refused(self):
        other = self.path("other-records")
        words = [*tiny.VOCABULARY, "more"]
        code, _, error = call(
            "trainers.prepare",
            input=self.corpus,
            output=other,
            vocab=write(self.path("other.txt"), "\n".join(words)),
            dev_fraction=0.1,
        )
        self.assertEqual((code, error), (0, ""))
        code, _, error = call(
            "trainers.evaluate",
            checkpoint=self.base,
            data=os.path.join(other, "dev"),
        )
        self.assertEqual(code, 1)
        self.assertRegex(error, "^error: .*another vocabulary")
        code, _, error = call(
            "trainers.pretrain",
            **self.pretrain_flags(
                records=other, init=self.base, output=self.path("refused")
            ),
        )
        self.assertEqual(code, 1)
        self.assertRegex(error, "^error: .*another vocabulary")

    def bad_files(self):
        bert = tiny.bert().to_dict()
        self.CORPUS = self.corpus
        self.FOLDER = tempfile.mkdtemp(dir=self.folder)
        self.EMPTY = write(self.path("EMPTY.tsv"), "")
        self.COLUMNS = write(self.path("COLUMNS.tsv"), "x\ty\na\tb\n")
        self.LABEL = write(
            self.path("LABEL.tsv"), "text\tlabel\na film\tstrange\n"
        )
        self.RAGGED = write(
            self.path("RAGGED.tsv"), "text\tlabel\na\tgood\nb\n"
        )
        self.INTENTS = tempfile.mkdtemp(dir=self.folder)
        for name in ("seq.in", "seq.out", "label"):
            write(os.path.join(self.INTENTS, name), "")
        self.OTHER = write(self.path("OTHER.json"), json.dumps({"heads": 3}))
        self.SHORT = write(
            self.path("SHORT.json"),
            json.dumps(bert | {"max_position_embeddings": 8}),
        )
        self.ONE = write(self.path("ONE.txt"), "A film. A plot.\n" * 20)
        self.UNLABELLED = write(self.path("UNLABELLED.tsv"), "text\nx\n")
        self.LATIN = self.path("LATIN.txt")
        with open(self.LATIN, "wb") as file:
            file.write("caf\u00e9 au lait\n".encode("latin-1") * 5)

    @parameterized.parameters(
        ("evaluate", {"data": "nowhere.tsv"}, "nowhere.tsv"),
        ("predict", {"input": "nowhere.txt"}, "nowhere.txt"),
        ("predict", {"checkpoint": "nowhere"}, "not a checkpoint"),
        ("describe", {"checkpoint": "", "model": ""}, "one of --model"),
    )
    def test_bad_use_is_one_line(self, name, changes, message):
        flags = {"checkpoint": self.tuned} | changes
        code, _, error = call(f"trainers.{name}", **flags)
        self.assertEqual(code, 1, error)
        self.assertRegex(error, f"^error: .*{message}")


if __name__ == "__main__":
    absltest.main()
