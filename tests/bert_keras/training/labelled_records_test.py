"""Tasks whose targets have a length of their own, through records."""

import os
import shutil
import types
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import absltest

import bert_keras
from bert_keras import checkpoint, errors
from bert_keras import model as model_lib
from bert_keras.data import records as records_lib
from bert_keras.networks import bert
from bert_keras.tasks import base
from bert_keras.training import labelled_records
from bert_keras.wrappers import label_smoothing
from tests import tiny
from tests.bert_keras.tasks import second_text

TASK = second_text.SecondText(seq_length=16, max_target_length=10)


def write_rows(path, rows):
    with open(path, "w", encoding="utf-8") as file:
        file.write("text\ttext_pair\n")
        for row in rows:
            file.write(f"{row['text']}\t{row['text_pair']}\n")
    return path


class TargetTokensTest(absltest.TestCase):
    def encode(self, task, rows):
        return list(labelled_records.encode(task, tiny.tokenizer(), rows))

    def path(self, *parts):
        if not hasattr(self, "folder"):
            self.folder = self.create_tempdir().full_path
        return os.path.join(self.folder, *parts)

    def test_records_have_the_targets_tokens_and_no_padding(self):
        rows = [*second_text.rows(40), {"text": "a film", "text_pair": ""}]
        with mock.patch.object(labelled_records, "ROWS_PER_BATCH", 30):
            records = self.encode(TASK, rows)
        texts = tf.constant([row["text_pair"] for row in rows])
        targets = [ids[:10] for ids in tiny.tokenizer()(texts).to_list()]
        self.assertContainsSubset({0, 1, 9, 10}, map(len, targets))
        for record, ids in zip(records, targets, strict=True):
            np.testing.assert_array_equal(record["targets/next/labels"], ids)
            np.testing.assert_array_equal(
                record["targets/next/weights"], np.ones(len(ids))
            )
            shifted = [second_text.START_ID, *ids][: len(ids)]
            np.testing.assert_array_equal(record["inputs/previous"], shifted)
        columns = labelled_records.to_columns(TASK, tiny.tokenizer(), records)
        self.assertEqual(
            np.diff(columns.target_splits).tolist(), list(map(len, targets))
        )
        self.assertEqual(
            set(columns.per_target_token),
            {"inputs/previous", "targets/next/labels", "targets/next/weights"},
        )
        self.assertEqual(columns.per_row, {})

    def test_a_column_that_only_some_rows_have_is_left_out(self):
        rows = second_text.rows(3)
        more = {"references": "[]"}
        plain = self.encode(TASK, rows)
        for mixed in (
            [rows[0] | more, *rows[1:]],
            [rows[0], rows[1] | more, rows[2]],
        ):
            for one, two in zip(plain, self.encode(TASK, mixed), strict=True):
                self.assertEqual(set(one), set(two))
                for name, value in one.items():
                    np.testing.assert_array_equal(value, two[name])

    def test_wrappers_have_the_targets_of_the_task_in_them(self):
        wrapped = label_smoothing.LabelSmoothing(TASK)
        self.assertEqual(wrapped.max_target_length, 10)
        rows = second_text.rows(3)
        for one, two in zip(
            self.encode(TASK, rows), self.encode(wrapped, rows), strict=True
        ):
            self.assertEqual(set(one), set(two))
            for name, value in one.items():
                np.testing.assert_array_equal(value, two[name], name)

    def test_a_task_whose_weights_have_holes_is_refused(self):
        class Holes(second_text.SecondText):
            def make_targets(self, raw, features, tokenizer):
                targets = super().make_targets(raw, features, tokenizer)
                labels, weights = targets["next"]
                unknown = tf.cast(labels == tokenizer.unk_id, tf.float32)
                return {"next": (labels, weights * (1 - unknown))}

        rows = [{"text": "a", "text_pair": "a zebra film"}]
        with self.assertRaisesRegex(
            errors.InputError, r"term next .* found \[1.0, 0.0, 1.0\]"
        ):
            self.encode(Holes(), rows)

    def test_records_of_another_axis_are_written_again(self):
        settings = types.SimpleNamespace(
            output=self.path(),
            train=write_rows(self.path("rows.tsv"), second_text.rows(5)),
            dev="dev.tsv",
            seed=1,
            dev_fraction=0.0,
        )
        written = []
        for axis in (base.TARGET_TOKENS, None):
            axes = {"previous": axis}
            with mock.patch.object(type(TASK), "stored_features", axes):
                for _ in range(2):
                    labelled_records.write(
                        settings, TASK, tiny.tokenizer(), origin=""
                    )
                    folder = self.path("records")
                    written.append(records_lib.Records(folder).features)
        self.assertEqual(written[0], written[1])
        self.assertEqual(written[2], written[3])
        self.assertIsNone(written[2]["inputs/previous"].row_splits)

    def test_a_resumed_run_has_the_same_weights(self):
        rows = write_rows(self.path("rows.tsv"), second_text.rows(21))
        encoder = bert.BertEncoder(tiny.bert())
        checkpoint.save(
            self.path("init"),
            model_lib.BertModel(encoder, None),
            tiny.tokenizer(),
            step=1,
        )

        def weights(run):
            bert_keras.finetune(
                self.path("init"),
                rows,
                task=TASK,
                output=run,
                epochs=2,
                batch_size=8,
                save_every=1,
                max_checkpoints_to_keep=9,
            )
            folder = checkpoint.step_folder(run, 6)
            return {
                path: variable.numpy()
                for path, variable in checkpoint.weights(
                    bert_keras.load(folder).model
                ).items()
            }

        complete = weights(self.path("run"))
        run = self.path("resumed")
        shutil.copytree(self.path("run"), run)
        for step in (3, 4, 5, 6):
            shutil.rmtree(checkpoint.step_folder(run, step))
        checkpoint.mark(run, "latest", 2)
        resumed = weights(run)
        self.assertGreater(len(complete), 10)
        for path, value in complete.items():
            np.testing.assert_array_equal(value, resumed[path], path)
        with open(self.path("run", "README.md"), encoding="utf-8") as file:
            card = file.read()
        tokens = sum(
            len(record["targets/next/labels"])
            for record in self.encode(TASK, second_text.rows(21))
        )
        self.assertIn(f"tokens in their targets: {tokens}", card)


if __name__ == "__main__":
    absltest.main()
