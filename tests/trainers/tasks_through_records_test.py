"""Every task trained as the trainers train it: examples, records, stream."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, loading, optimizers
from bert_keras import model as model_lib
from bert_keras.data import batches
from bert_keras.data import records as records_lib
from bert_keras.networks import bert
from bert_keras.tasks import base, classification, embedding
from bert_keras.training import input_pipeline as inputs
from bert_keras.training import labelled_records
from bert_keras.training import step as step_lib
from tests import tiny
from tests.bert_keras.tasks import tasks_test

ROWS = tasks_test.ROWS
PRETRAINING = ("causal_lm", "masked_lm")  # tasks that learn from texts alone
LABELLED = [name for name in ROWS if name not in PRETRAINING]
# A softmax over positions or choices does not change when all its logits do.
WITHOUT_GRADIENT = ("span/score/bias", "choice/score/bias")


def written(task, rows, folder):
    """The rows as the records of fine-tuning."""
    encoded = list(labelled_records.encode(task, tiny.tokenizer(), rows))
    columns = labelled_records.to_columns(task, tiny.tokenizer(), encoded)
    return write(folder, columns)


def write(folder, columns):
    name = records_lib.shard_name(0)
    entry = records_lib.write_shard(os.path.join(folder, name), columns)
    records_lib.write_manifest(folder, [entry])
    return records_lib.Records(folder)


def pretraining_rows(task):
    """Rows of ids as prepare writes them, for masked LM with sentences."""
    raw = {"text": tf.constant(["a good film . the old plot", "很 好 电影"])}
    features = task.preprocess(raw, tiny.tokenizer())
    lengths = features["padding_mask"].numpy().sum(axis=1)
    for row, length in enumerate(lengths):
        targets = {
            "targets/next_sentence/labels": np.int32(row % 2),
            "targets/next_sentence/weights": np.float32(1),
        }
        yield {
            "inputs/token_ids": features["token_ids"].numpy()[row, :length],
            "inputs/segment_ids": features["segment_ids"].numpy()[row, :length],
            **(targets if task.name == "masked_lm" else {}),
        }


class RecordsTest(parameterized.TestCase):
    @parameterized.parameters(*(n for n in tasks_test.NAMES if n in LABELLED))
    @pytest.mark.slow_after(3)
    def test_the_stream_gives_back_what_inputs_and_targets_gave(self, name):
        task = tasks_test.make(name).task
        rows = ROWS[task.name]
        raw = {
            name: tf.constant([row[name] for row in rows]) for name in rows[0]
        }
        features = task.preprocess(raw, tiny.tokenizer())
        targets = task.make_targets(raw, features, tiny.tokenizer())
        records = written(task, rows, self.create_tempdir().full_path)
        count, length = features["token_ids"].shape
        sampler = batches.BatchSampler(
            records.lengths,
            count,
            shuffle=False,
            buckets=(length,),
            target_lengths=records.target_lengths,
        )
        (batch,) = batches.stream(records, sampler, stop_step=1)
        for name, value in batch["inputs"].items():
            np.testing.assert_array_equal(value, features[name], name)
        self.assertContainsSubset(
            ("token_ids", "segment_ids", "padding_mask"),
            batch["inputs"],
        )
        self.assertEqual(set(batch["targets"]), set(targets))
        for term, pair in targets.items():
            for got, want in zip(batch["targets"][term], pair, strict=True):
                self.assertEqual(got.dtype, want.dtype)
                np.testing.assert_array_equal(got, want, term)

    @parameterized.parameters(*tasks_test.NAMES)
    @pytest.mark.slow_after(3)
    def test_three_steps_move_the_whole_head_and_lower_the_loss(self, name):
        task = tasks_test.make(name).task
        folder = self.create_tempdir().full_path
        if task.name in LABELLED:
            records = written(task, ROWS[task.name], folder)
        else:
            columns = records_lib.columns_of(
                list(pretraining_rows(task)),
                per_token=records_lib.PER_TOKEN,
            )
            records = write(folder, columns)
        keras.utils.set_random_seed(1)
        model = model_lib.BertModel(
            bert.BertEncoder(
                tiny.bert_for(
                    task.name,
                    dropout=0.0,
                    attention_dropout=0.0,
                    initializer_range=0.3,
                )
            ),
            task,
        )
        before = {
            path: variable.numpy()
            for path, variable in checkpoint.weights(model.head).items()
        }
        table = model.encoder.token_table.numpy()
        strategy = tf.distribute.get_strategy()
        train_step = step_lib.make_train_step(
            model,
            task,
            optimizers.Optimizer(
                model.trainable_variables,
                rule=optimizers.AdamW(),
                schedule=optimizers.Schedule(5e-3, 0, 1000),
            ),
            strategy=strategy,
            seed=1,
        )
        # Always the same rows, so that losses can be compared.
        sampler = batches.BatchSampler(
            records.lengths,
            len(records),
            target_lengths=records.target_lengths,
        )
        (batch,) = inputs.batches(strategy, task, records, sampler, stop_step=1)
        metrics = [train_step(batch) for _ in range(4)]
        self.assertLess(metrics[3]["loss"], 0.98 * metrics[0]["loss"])
        for each in metrics:
            self.assertGreater(each["gradient_norm"], 1e-3)
        after = checkpoint.weights(model.head)
        for path, value in before.items():
            if path in WITHOUT_GRADIENT:
                continue
            moved = np.abs(after[path].numpy() - value).max()
            self.assertGreater(moved, 1e-4, path)
        self.assertGreater(
            np.abs(model.encoder.token_table.numpy() - table).max(),
            1e-4,
        )

    def test_what_records_would_lose_is_refused(self):
        class Undeclared(embedding.Embedding):
            stored_features = {}

        class Left(classification.Classification):
            def preprocess(self, raw, tokenizer):
                features = super().preprocess(raw, tokenizer)
                return features | {
                    "padding_mask": features["padding_mask"][:, ::-1]
                }

        class Wide(classification.Classification):
            def make_targets(self, raw, features, tokenizer):
                targets = super().make_targets(raw, features, tokenizer)
                labels, weights = targets["label"]
                return {"label": (tf.cast(labels, tf.int64) + 2**40, weights)}

        class Flags(classification.Classification):
            def make_targets(self, raw, features, tokenizer):
                targets = super().make_targets(raw, features, tokenizer)
                labels, weights = targets["label"]
                return {"label": (labels > 0, weights)}

        for task_class, message in (
            (Undeclared, "stored_features"),
            (Left, "padding at the end"),
            (Wide, "targets/label/labels has type int64"),
            (Flags, "targets/label/labels has type bool"),
        ):
            name = task_class.__bases__[0].__module__.rpartition(".")[2]
            task = task_class(seq_length=32).adapt(ROWS[name], tiny.tokenizer())
            with self.assertRaisesRegex(errors.InputError, message):
                list(
                    labelled_records.encode(task, tiny.tokenizer(), ROWS[name])
                )

    def test_another_per_token_feature_is_kept_where_it_is_declared(self):
        class WithStarts(base.find("tagging")):
            stored_features = {"start": base.TOKENS}

        task = WithStarts(seq_length=32).adapt(ROWS["tagging"], None)
        rows = ROWS["tagging"]
        raw = {"text": tf.constant([row["text"] for row in rows])}
        starts = task.preprocess(raw, tiny.tokenizer())["start"].numpy()
        encoded = list(labelled_records.encode(task, tiny.tokenizer(), rows))
        for row, start in zip(encoded, starts, strict=True):
            np.testing.assert_array_equal(
                row["inputs/start"], start[: len(row["inputs/token_ids"])]
            )

    def test_positions_are_those_of_the_longest_text_not_of_the_row(self):
        pair = embedding.Embedding(seq_length=32, pair=True)
        loading.check_length(pair, tiny.bert(max_position_embeddings=16))
        with self.assertRaisesRegex(errors.InputError, "texts of 16 tokens"):
            loading.check_length(pair, tiny.bert(max_position_embeddings=15))
        alone = pair.with_settings(pair=False)
        with self.assertRaisesRegex(errors.InputError, "texts of 32 tokens"):
            loading.check_length(alone, tiny.bert(max_position_embeddings=31))
        self.assertEqual(pair.for_device().seq_length, 16)


if __name__ == "__main__":
    absltest.main()
