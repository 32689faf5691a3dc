"""Folders of runs: nothing of others is touched, no run becomes another."""

import dataclasses
import hashlib
import json
import math
import os
import shutil
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, loading, locks
from bert_keras.tasks import classification, masked_lm
from bert_keras.training import (
    evaluate,
    finetune,
    labelled_records,
    prepare,
    pretrain,
    run_folder,
)
from bert_keras.training import settings as settings_lib
from tests import tiny
from tests.trainers import mains
from tests.trainers.mains import call, write


def tearDownModule():
    mains.close()


def tree(folder):
    """{file: checksum} of all files below a folder."""
    digests = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            with open(path, "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            digests[os.path.relpath(path, folder)] = digest
    return digests


class RunFolderTest(mains.Case):
    def setUp(self):
        super().setUp()
        self.output = os.path.join(self.create_tempdir().full_path, "out")
        os.makedirs(self.output)

    def tearDown(self):
        keras.config.set_dtype_policy("float32")
        super().tearDown()

    def put(self, *names):
        """Files of somebody else in the output folder."""
        for name in names:
            path = os.path.join(self.output, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write(path, f"not a run's: {name}")

    def flags_of(self, name):
        return {
            "prepare": {
                "input": self.corpus,
                "vocab": self.vocab,
                "seq_length": 32,
                "dev_fraction": 0.1,
            },
            "pretrain": self.pretrain_flags(steps=1),
            "finetune": self.finetune_flags(epochs=1),
        }[name] | {"output": self.output}

    @parameterized.parameters(
        ("prepare", "train/shard-00007.safetensors"),
        ("prepare", "train/chunk-00000.json"),
        ("prepare", "dev/shard-notes.md"),
        ("prepare", "vocab.txt"),
        ("prepare", "report.json"),
        ("prepare", "flags.txt"),
        ("prepare", "plan/a.txt"),
        ("pretrain", "tensorboard/events.out.tfevents.1.host"),
        ("pretrain", "step-00000001/weights.bin"),
        ("pretrain", "best"),
        ("finetune", "records/mine.parquet"),
        ("finetune", "records/shard-00000.safetensors"),
        ("finetune", "tensorboard/notes.txt"),
        ("finetune", "log.jsonl"),
        ("finetune", "profile/trace"),
        ("finetune", "settings.json"),
    )
    def test_what_others_wrote_is_left_alone(self, name, path):
        self.put(path)
        before = tree(self.output)
        code, _, error = call(f"trainers.{name}", **self.flags_of(name))
        self.assertEqual(code, 1)
        self.assertRegex(error, "^error: .*(--output|settings.json)")
        self.assertEqual(tree(self.output), before)

    @parameterized.parameters("prepare", "pretrain", "finetune")
    def test_other_files_beside_a_run_stay(self, name):
        self.put("README.md", "notes/a.txt", "data.csv")
        before = tree(self.output)
        for _ in range(2):
            code, _, error = call(f"trainers.{name}", **self.flags_of(name))
            self.assertEqual((code, error), (0, ""))
            after = tree(self.output)
            self.assertEqual(before, {name: after[name] for name in before})

    def test_files_that_others_put_into_a_run_stay_when_it_continues(self):
        flags = self.flags_of("finetune") | {
            "save_every": 1,
            "max_checkpoints_to_keep": 1,
        }
        self.assertEqual(call("trainers.finetune", **flags)[0], 0)
        first = checkpoint.step_folder(self.output, 1)
        others = (
            "tensorboard/events.out.tfevents.1.other",
            "tensorboard/mine/notes.txt",
            f"{os.path.basename(first)}/mine.txt",
        )
        self.put(*others)
        with open(os.path.join(self.output, "log.jsonl"), "a") as file:
            file.write('{"loss": 1}\n[]\n{"step": "x"}\nhalf\n{"step": 1')
        lines = len(self.log_lines())
        os.remove(
            os.path.join(
                checkpoint.step_folder(self.output, 2), checkpoint.CONFIG
            )
        )
        os.remove(os.path.join(self.output, "best"))
        code, _, error, said = mains.call_and_listen(
            "trainers.finetune", **flags
        )
        self.assertEqual((code, error), (0, ""), said)
        for name in others:
            self.assertTrue(os.path.exists(os.path.join(self.output, name)))
        unread = os.path.join(self.output, "log.jsonl.unread")
        with open(unread) as file:
            self.assertEqual(
                file.read(), '{"loss": 1}\n[]\n{"step": "x"}\nhalf\n'
            )
        self.assertIn("moved 4 invalid lines", " ".join(said.split()))
        self.assertLess(len(self.log_lines()), lines)
        steps = [line["step"] for line in self.log(self.output)]
        self.assertEqual(steps, sorted(steps))

    def log_lines(self):
        with open(os.path.join(self.output, "log.jsonl")) as file:
            return file.readlines()

    def test_records_in_a_run_are_cleared_of_its_own_files_only(self):
        records = os.path.join(self.output, "records")
        self.put("records/manifest.json", "records/shard-00003.safetensors")
        labelled_records._clear(records, tiny.tokenizer().files)
        self.assertEqual(os.listdir(records), [])
        self.put("records/manifest.json", "records/mine")
        with self.assertRaisesRegex(errors.InputError, "holds mine"):
            labelled_records._clear(records, tiny.tokenizer().files)
        self.assertLen(os.listdir(records), 2)

    @parameterized.parameters(
        ("prepare", "input", "corpus.txt", mains.CORPUS),
        ("prepare", "vocab", "v.txt", "\n".join(tiny.VOCABULARY)),
        ("finetune", "train", "t.tsv", "text\tlabel\n" + mains.ROWS),
        ("finetune", "dev", "d.tsv", "text\tlabel\n" + mains.ROWS),
    )
    def test_inputs_in_the_output_are_refused(self, name, flag, file, text):
        os.makedirs(os.path.join(self.output, "data"))
        path = write(os.path.join(self.output, "data", file), text)
        link = os.path.join(self.create_tempdir().full_path, file)
        os.symlink(path, link)
        before = tree(self.output)
        for each in (path, link):
            code, _, error = call(
                f"trainers.{name}", **self.flags_of(name) | {flag: each}
            )
            self.assertEqual(code, 1)
            self.assertRegex(error, f"--{flag}=.* is in --output")
        self.assertEqual(tree(self.output), before)

    def test_a_run_does_not_start_from_itself(self):
        shutil.copytree(self.tuned, self.output, dirs_exist_ok=True)
        code, _, error = call(
            "trainers.finetune",
            **self.flags_of("finetune") | {"init": self.output},
        )
        self.assertEqual(code, 1)
        self.assertRegex(error, "--init=.* is in --output")

    @parameterized.parameters("prepare", "pretrain", "finetune")
    def test_a_second_writer_is_refused(self, name):
        with locks.hold(self.output):
            code, _, error = call(f"trainers.{name}", **self.flags_of(name))
            self.assertEqual(code, 1)
            self.assertRegex(error, f"being written by process {os.getpid()}")
            self.assertEqual(os.listdir(self.output), [locks.NAME])

    def test_a_folder_of_another_command_is_refused(self):
        shutil.copytree(self.records, self.output, dirs_exist_ok=True)
        before = tree(self.output)
        for older in (False, True):
            if older:
                os.remove(os.path.join(self.output, "settings.json"))
                del before["settings.json"]
            code, _, error = call(
                "trainers.finetune", **self.flags_of("finetune")
            )
            self.assertEqual(code, 1)
            self.assertRegex(
                error, "contains the output of `prepare`, not of `finetune`"
            )
            self.assertNotRegex(error, "settings|flagfile")
            self.assertEqual(tree(self.output), before)

    def test_prepared_with_other_flags_is_refused_and_kept(self):
        flags = self.flags_of("prepare")
        self.assertEqual(call("trainers.prepare", **flags)[0], 0)
        before = tree(self.output)
        code, _, error = call("trainers.prepare", **flags | {"seq_length": 16})
        self.assertEqual(code, 1)
        self.assertRegex(error, "--seq_length=32 before, 16 now")
        # As if it had been killed before it was complete.
        os.remove(os.path.join(self.output, "train", "manifest.json"))
        del before["train/manifest.json"]
        code, _, error = call("trainers.prepare", **flags | {"seq_length": 16})
        self.assertEqual(code, 1)
        self.assertEqual(tree(self.output), before)
        more = write(self.path("more.txt"), mains.CORPUS + "the film .\n")
        code, _, error = call("trainers.prepare", **flags | {"input": more})
        self.assertEqual(code, 1)
        self.assertRegex(error, "other contents of input")
        self.assertEqual(tree(self.output), before)
        self.assertEqual(call("trainers.prepare", **flags)[0], 0)

    # From Python there are no flags: a run is known by what it was given.

    def finetuned(self, **changes):
        task = changes.pop("task", {})
        settings = settings_lib.FinetuneSettings(
            **{
                "init": self.base,
                "train": self.rows,
                "dev": self.rows,
                "output": self.output,
                "epochs": 1,
                "batch_size": 8,
                **changes,
            }
        )
        return finetune.run(
            settings,
            classification.Classification(**{"seq_length": 16, **task}),
        )

    @pytest.mark.slow
    def test_python_continues_a_run_only_as_it_was(self):
        self.finetuned()
        steps = checkpoint.steps(self.output)
        before = tree(self.output)
        other = write(self.path("other.tsv"), "text\tlabel\n" + mains.ROWS * 2)
        base = os.path.join(self.create_tempdir().full_path, "base")
        shutil.copytree(self.base, base)
        for changes, message in (
            ({"learning_rate": 1e-3}, "learning_rate=5e-05 before, 0.001 now"),
            ({"seed": 2}, "seed=1 before, 2 now"),
            ({"task": {"pooling": "mean"}}, "pooling=first before, mean now"),
            ({"task": {"seq_length": 8}}, "seq_length=16 before, 8 now"),
            ({"train": other}, "other contents of train"),
            ({"dev": other}, "other contents of dev"),
            ({"dev": ""}, "other contents of dev"),
            ({"init": self.tuned}, "other contents of init"),
        ):
            with self.assertRaisesRegex(errors.InputError, message):
                self.finetuned(**changes)
            now = tree(self.output)
            self.assertEqual(now, before)
        # Where the same contents are does not count, nor how much is said.
        moved = shutil.copy(self.rows, self.path("moved.tsv"))
        self.finetuned(
            train=moved,
            dev=moved,
            init=base,
            log_every=3,
            max_checkpoints_to_keep=5,
        )
        self.assertEqual(checkpoint.steps(self.output), steps)

    @pytest.mark.slow
    def test_a_metric_that_is_no_number_is_null_and_never_the_best(self):
        values = iter([math.nan, 0.25, math.inf, 0.125])

        def metrics(*_):
            return {"accuracy": next(values), "f1_macro": 0.5, "mcc": -math.inf}

        with mock.patch.object(
            classification.Classification, "metrics", metrics
        ):
            last = self.finetuned(epochs=4)
        self.assertEqual(
            last, {"accuracy": 0.125, "f1_macro": 0.5, "mcc": None}
        )
        accuracies = [
            line["dev/accuracy"]
            for line in self.log(self.output)
            if "dev/accuracy" in line
        ]
        self.assertEqual(accuracies, [None, 0.25, None, 0.125])
        best = checkpoint.read(self.output)
        self.assertEqual(best.step, 4)
        self.assertEqual(best.metadata["best"], [0.25, 4])
        self.assertIsNone(best.metadata["scores"]["mcc"])
        self.finetuned(epochs=4)  # at its end already

    def test_answers_of_nan_are_no_score(self):
        # Weights that overflow: the first class is right by chance.
        self.finetuned(
            epochs=2, learning_rate=3e38, warmup_ratio=0.0, max_skipped=99
        )
        line = self.log(self.output)[-1]
        self.assertIsNone(line["dev/accuracy"])
        self.assertFalse(os.path.exists(os.path.join(self.output, "best")))
        answers = os.path.join(self.create_tempdir().full_path, "a.jsonl")
        metrics = evaluate.run(
            evaluate.EvaluateSettings(
                checkpoint=self.output, data=self.rows, output=answers
            )
        )
        self.assertTrue(math.isnan(metrics["accuracy"]))
        with open(answers) as file:
            text = file.read()
        self.assertNotIn("NaN", text)
        self.assertIn('"score": null', text)

    @parameterized.parameters(
        (lambda *_: {"accuracy": np.float32(0.5)}, 0.5),
        (lambda *_: {"accuracy": tf.constant(0.25)}, 0.25),
        (lambda *_: None, None),
        (lambda *_: {"accuracy": "good"}, None),
    )
    @pytest.mark.slow_after(1)
    def test_metrics_are_numbers_of_any_kind(self, metrics, expected):
        with mock.patch.object(
            classification.Classification, "metrics", metrics
        ):
            if expected is None:
                with self.assertRaisesRegex(errors.InputError, "the metrics"):
                    self.finetuned()
            else:
                self.assertEqual(self.finetuned()["accuracy"], expected)

    @pytest.mark.slow
    def test_the_head_of_the_start_counts_where_it_is_taken_over(self):
        start = os.path.join(self.create_tempdir().full_path, "start")
        shutil.copytree(self.tuned, start)
        self.finetuned(init=start)
        loaded = checkpoint.read(start)
        model = loading.load_model(loaded)
        model.head.label.score.bias.assign([1.0, -1.0])
        other = self.create_tempdir().full_path
        checkpoint.save(other, model, loaded.tokenizer(), step=1)
        with self.assertRaisesRegex(errors.InputError, "contents of init"):
            self.finetuned(init=other)

    def test_flags_of_others_make_no_older_run(self):
        names = ("records/shard-00007.safetensors", "log.jsonl")
        self.put(*names)
        write(
            os.path.join(self.output, "flags.txt"),
            "# my notes\n--train=x.tsv\n--output=y\n--seed=1\n",
        )
        before = tree(self.output)
        with self.assertRaisesRegex(
            errors.InputError, "contains flags.txt, log"
        ):
            self.finetuned()
        self.assertEqual(tree(self.output), before)

    def test_an_output_named_as_a_url_is_checked_alike(self):
        corpus = write(os.path.join(self.output, "corpus.txt"), mains.CORPUS)
        with self.assertRaisesRegex(errors.InputError, "is in output="):
            prepare.run(
                settings_lib.PrepareSettings(
                    input=corpus,
                    output=f"file://{self.output}",
                    vocab=self.vocab,
                )
            )
        self.assertEqual(os.listdir(self.output), ["corpus.txt"])

    @pytest.mark.slow
    def test_a_picture_of_others_is_not_drawn_over(self):
        answers = os.path.join(self.output, "a.jsonl")
        settings = evaluate.EvaluateSettings(
            checkpoint=self.tuned, data=self.rows, output=answers
        )
        self.put("a-confusion.png")
        with self.assertRaisesRegex(errors.InputError, "a-confusion.png"):
            evaluate.run(settings)
        self.assertFalse(os.path.exists(answers))
        os.remove(os.path.join(self.output, "a-confusion.png"))
        for _ in range(2):  # one of its own
            evaluate.run(settings)
        with self.assertRaisesRegex(errors.InputError, "batch_size=0"):
            evaluate.run(dataclasses.replace(settings, batch_size=0))

    @pytest.mark.slow
    def test_a_run_without_any_number_still_ends(self):
        def metrics(*_):
            return dict.fromkeys(("accuracy", "f1_macro", "mcc"), math.nan)

        with mock.patch.object(
            classification.Classification, "metrics", metrics
        ):
            last = self.finetuned(epochs=5, early_stopping=2)
        self.assertEqual(set(last.values()), {None})
        self.assertFalse(os.path.exists(os.path.join(self.output, "best")))
        self.assertEqual(checkpoint.read(self.output).step, 4)

    def test_a_task_that_no_load_would_find_is_refused_before_the_run(self):
        class Local(classification.Classification):
            pass

        with self.assertRaisesRegex(errors.InputError, "be loaded again"):
            finetune.run(
                settings_lib.FinetuneSettings(
                    init=self.base, train=self.rows, output=self.output
                ),
                Local(),
            )
        self.assertEqual(os.listdir(self.output), [])

    def test_settings_are_checked_from_python_too(self):
        for changes, message in (
            ({"learning_rate": math.nan}, "learning_rate is nan"),
            (
                {"learning_rate": -1.0},
                "learning_rate=-1.0: expected at least 0.0",
            ),
            ({"seed": 2**31}, "seed=2147483648: expected 0 to 2147483647"),
            ({"batch_size": "8"}, "batch_size is '8'; expected a whole"),
            ({"optimizer": "adan"}, "optimizer=adan: expected one of adamw"),
            ({"dev_fraction": 0.7}, "dev_fraction=0.7: expected 0.0 to 0.5"),
            (
                {"task": {"kind": "both"}},
                "problem_type=both: expected one of single",
            ),
            ({"task": {"seq_length": 0}}, "seq_length=0: expected 4 to"),
        ):
            with self.assertRaisesRegex(errors.InputError, message):
                self.finetuned(**changes)
        self.assertEqual(os.listdir(self.output), [])

    @parameterized.parameters(
        ("predict", "input"), ("evaluate", "data"), ("predict", "link")
    )
    def test_answers_are_not_written_over_what_is_answered(self, name, flag):
        rows = shutil.copy(self.rows, os.path.join(self.output, "rows.tsv"))
        output = rows
        if flag == "link":
            flag, output = "input", os.path.join(self.output, "link")
            os.symlink(rows, output)
        before = tree(self.output)
        code, _, error = call(
            f"trainers.{name}",
            checkpoint=self.tuned,
            output=output,
            **{flag: rows},
        )
        self.assertEqual(code, 1)
        self.assertRegex(error, f"is --{flag} or in it, and would be written")
        self.assertEqual(tree(self.output), before)

    @parameterized.parameters("bert_keras", "hugging_face")
    def test_convert_has_one_writer_too(self, form):
        flags = {"checkpoint": self.base, "output": f"{self.output}/new"}
        with locks.hold(flags["output"]):
            code, _, error = call("trainers.convert", **flags, format=form)
            self.assertEqual(code, 1)
            self.assertRegex(error, "being written by|not empty")
        code, _, error = call("trainers.convert", **flags, format=form)
        self.assertEqual((code, error), (0, ""))
        self.assertNotIn(locks.NAME, os.listdir(flags["output"]))

    @pytest.mark.slow
    def test_pretraining_continues_only_with_its_records_and_network(self):
        settings = settings_lib.PretrainSettings(
            records=self.records,
            output=self.output,
            model=self.model,
            steps=1,
            batch_size=8,
        )
        task = masked_lm.MaskedLM()
        pretrain.run(settings, task)
        before = tree(self.output)
        records = self.path("other-records")
        if not os.path.exists(records):
            prepare.run(
                settings_lib.PrepareSettings(
                    input=self.corpus,
                    output=records,
                    vocab=self.vocab,
                    seq_length=32,
                    dev_fraction=0.1,
                    seed=5,
                )
            )
        model = write(
            self.path("deeper.json"),
            json.dumps(tiny.bert(num_layers=3).to_dict()),
        )
        dropout = write(
            self.path("dropout.json"),
            json.dumps(tiny.bert(dropout=0.5).to_dict()),
        )
        for changes, message in (
            ({"records": records}, "other contents of records"),
            ({"model": model}, "other contents of network"),
            ({"model": dropout}, "other contents of network"),
            ({"init": self.base}, "other contents of init"),
        ):
            with self.assertRaisesRegex(errors.InputError, message):
                pretrain.run(dataclasses.replace(settings, **changes), task)
            self.assertEqual(tree(self.output), before)
        with self.assertRaisesRegex(errors.InputError, "masked_lm_prob=0.15"):
            pretrain.run(settings, masked_lm.MaskedLM(masked_lm_prob=0.3))
        moved = os.path.join(self.create_tempdir().full_path, "records")
        shutil.copytree(self.records, moved)
        pretrain.run(dataclasses.replace(settings, records=moved), task)

    @pytest.mark.slow
    def test_a_setting_of_a_later_version_is_refused_by_name(self):
        self.finetuned()
        path = os.path.join(self.output, "settings.json")
        with open(path) as file:
            values = json.load(file)
        values["settings"]["sharpness"] = 3
        write(path, json.dumps(values))
        with self.assertRaisesRegex(
            errors.InputError, "sharpness=3 before, unknown now"
        ):
            self.finetuned()
        del values["settings"]["sharpness"], values["settings"]["clip_norm"]
        write(path, json.dumps(values))
        self.finetuned()  # before there was --clip_norm it was the default
        del values["settings"]["xla"]
        write(path, json.dumps(values))
        with self.assertRaisesRegex(errors.InputError, "xla=False before"):
            self.finetuned(xla=True)

    def test_a_settings_file_without_a_command_is_not_a_run_s(self):
        identity = run_folder.Identity("pretrain", (), {})
        for command in ({}, {"command": None}, {"command": 3}):
            values = {"settings": {}, "reads": {}} | command
            path = os.path.join(self.output, "settings.json")
            write(path, json.dumps(values))
            with self.assertRaisesRegex(
                errors.InputError, "expected the fields command, settings and"
            ):
                run_folder.check(
                    self.output, identity, names=(), has_results=True
                )

    def test_a_flag_whose_name_starts_with_no_is_not_a_negation(self):
        text = "--norm_first\n--nonorm_last\n--nocausal\n--xla\n--seed=1\n"
        self.assertEqual(
            run_folder.parse_flagfile(
                text, names={"norm_first", "norm_last", "causal", "xla", "seed"}
            ),
            {
                "norm_first": "True",
                "norm_last": "False",
                "causal": "False",
                "xla": "True",
                "seed": "1",
            },
        )

    def test_a_run_of_before_has_the_defaults_of_newer_fields(self):
        """Networks had no name; a field that was not there changed nothing."""

        def begun(**fields):
            folder = self.create_tempdir().full_path
            network = tiny.bert().to_dict() | fields
            del network["name"], network["embedding_norm"]
            values = {"command": "pretrain", "settings": {}}
            values["reads"] = {"network": network}
            write(os.path.join(folder, "settings.json"), json.dumps(values))
            return folder

        identity = run_folder.Identity(
            "pretrain", (), {"network": tiny.bert().to_dict()}
        )
        options = {"names": (), "has_results": True}
        self.assertTrue(run_folder.check(begun(), identity, **options))
        with self.assertRaisesRegex(errors.InputError, "contents of network"):
            run_folder.check(begun(dropout=0.2), identity, **options)
        other = run_folder.Identity(
            "pretrain",
            (),
            {"network": tiny.bert(embedding_norm=False).to_dict()},
        )
        with self.assertRaisesRegex(errors.InputError, "contents of network"):
            run_folder.check(begun(), other, **options)


if __name__ == "__main__":
    absltest.main()
