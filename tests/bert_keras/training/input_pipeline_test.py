import os
import types
from unittest import mock

import numpy as np
from absl.testing import absltest

import bert_keras
from bert_keras import checkpoint, console, errors, optimizers
from bert_keras.data import records
from bert_keras.tasks import base
from bert_keras.training import input_pipeline, labelled_records
from tests import devices, tiny  # noqa: F401 (devices: two CPUs)
from tests.bert_keras.data import batches_test
from tests.bert_keras.tasks import second_text
from tests.trainers import runs


class InputPipelineTest(absltest.TestCase):
    def printed(self, function, *arguments):
        with console.console.capture() as captured:
            function(*arguments)
        return captured.get()

    def test_what_a_native_start_ignores_is_reported(self):
        run = self.create_tempdir().full_path
        checkpoint.save(run, tiny.classifier(), tiny.tokenizer(), step=1)
        for settings, names in (
            ({"lowercase": None, "allow_missing": ""}, []),
            ({"lowercase": False, "allow_missing": ""}, ["lowercase"]),
            (
                {"lowercase": True, "allow_missing": "pooler"},
                ["lowercase", "allow_missing"],
            ),
        ):
            printed = self.printed(
                input_pipeline.read_init,
                types.SimpleNamespace(**settings),
                run,
            )
            for name in ("lowercase", "allow_missing"):
                self.assertEqual(name in printed, name in names, printed)


class StopError(Exception):
    """Ends a run where its first step would begin."""


class SettingsTest(absltest.TestCase):
    def path(self, *parts):
        if not hasattr(self, "folder"):
            self.folder = self.create_tempdir().full_path
        return os.path.join(self.folder, *parts)

    def sampler_options(self, function, *arguments, **settings):
        """What a run passes to `input_pipeline.sampler` in training."""
        with (
            mock.patch.object(
                input_pipeline, "sampler", side_effect=StopError
            ) as sampler,
            self.assertRaises(StopError),
        ):
            output = self.path(function.__name__)
            function(*arguments, output=output, **settings)
        return sampler.call_args.kwargs

    def test_the_batches_of_a_run_are_those_of_its_settings(self):
        tokenizer = tiny.tokenizer()
        checkpoint.save(
            self.path("init"), tiny.masked_lm_model(), tokenizer, step=1
        )
        train = self.path("records", "train")
        entry = records.write_shard(
            os.path.join(train, records.shard_name(0)),
            batches_test.columns(range(3)),
        )
        tokenizer.save(train)
        records.write_manifest(
            train,
            [entry],
            seq_length=16,
            objective="none",
            **records.tokenizer_metadata(tokenizer),
        )
        with open(self.path("rows.tsv"), "w", encoding="utf-8") as file:
            file.write("text\tlabel\na film\tgood\na plot\tbad\n")
        settings = {"batch_size": 2, "seed": 5, "bucket_lengths": False}
        pretraining = self.sampler_options(
            bert_keras.pretrain,
            self.path("records"),
            init=self.path("init"),
            steps=1,
            **settings,
        )
        self.assertEqual(
            pretraining, settings | {"row_length": 16, "shuffle": True}
        )
        finetuning = self.sampler_options(
            bert_keras.finetune,
            self.path("init"),
            self.path("rows.tsv"),
            task="classification",
            seq_length=24,
            **settings,
        )
        self.assertEqual(finetuning, settings | {"row_length": 24})


class TargetsTest(absltest.TestCase):
    """Batches of a task whose targets have a length of their own."""

    TASK = second_text.SecondText(seq_length=32, max_target_length=20)
    STEPS = 4  # more than the three of an epoch, one of which has empty rows

    def rows(self):
        tokenizer = tiny.tokenizer()
        encoded = labelled_records.encode(
            self.TASK, tokenizer, second_text.rows(21, longest=24)
        )
        return records.Rows.of_columns(
            labelled_records.to_columns(self.TASK, tokenizer, list(encoded))
        )

    def sampler(self, rows, **options):
        options = {"row_length": 32, "batch_size": 8, "seed": 3} | options
        return input_pipeline.sampler(self.TASK, rows, **options)

    def trained(self, rows, strategy, micro_batches):
        """{"losses": (STEPS,), path of a variable: its value}."""
        with mock.patch.dict(runs.TASKS, second_text=lambda: self.TASK):
            run = runs.Run(
                "second_text",
                strategy,
                micro_batches,
                rule=optimizers.Sgd(),  # its updates have the gradients' size
                peak=1.0,
            )
        batches = input_pipeline.batches(
            run.strategy,
            run.task,
            rows,
            self.sampler(rows),
            stop_step=self.STEPS,
        )
        run.step.trace(batches.element_spec)
        losses = [float(run.step(batch)["loss"]) for batch in batches]
        # However long their rows are: a resumed run has the same graph.
        self.assertEqual(run.step.num_graphs, 1)
        return {"losses": np.array(losses), **run.weights()}

    def test_replicas_and_accumulation_give_the_update_of_one(self):
        rows = self.rows()
        sampler = self.sampler(rows)
        taken = [sampler.rows(step) for step in range(self.STEPS)]
        self.assertGreater(len(set(map(sampler.length, taken))), 1)
        alone = self.trained(rows, "one_device", 1)
        for shape in (("one_device", 4), ("mirrored", 1), ("mirrored", 2)):
            values = self.trained(rows, *shape)
            for name, value in alone.items():
                np.testing.assert_allclose(
                    values[name], value, atol=1e-6, err_msg=f"{shape} {name}"
                )

    def test_the_maximum_length_is_that_of_the_task(self):
        rows = self.rows()
        sampler = self.sampler(rows)
        self.assertEqual(sampler.target_buckets, (8, 16, 20))
        self.assertEqual(sampler.buckets, (8, 16, 24, 32))
        np.testing.assert_array_equal(
            sampler.target_lengths, rows.target_lengths
        )
        sampler = self.sampler(rows, bucket_lengths=False)
        self.assertEqual(sampler.buckets, (32,))
        self.assertEqual(sampler.target_buckets, (20,))

    def test_records_with_longer_targets_than_the_tasks_are_refused(self):
        rows = self.rows()
        longest = int(rows.target_lengths.max())
        for task, maximum in (
            (base.Task(), 0),
            (self.TASK.with_settings(max_target_length=3), 3),
        ):
            with self.assertRaisesRegex(
                errors.InputError, f"most {maximum} tokens .*one of {longest}"
            ):
                input_pipeline.sampler(
                    task, rows, row_length=32, batch_size=8, seed=3
                )


if __name__ == "__main__":
    absltest.main()
