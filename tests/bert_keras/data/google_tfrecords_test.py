import os

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.data import batches, google_tfrecords, masking
from bert_keras.data import records as records_lib
from bert_keras.tokenizers import wordpiece
from tests import tiny
from tests.trainers import runs

SAMPLE = os.path.join(
    tiny.SHARED_DATA,
    "reference",
    "google_bert",
    "sample_text_pretraining.tfrecord",
)
VOCABULARY = os.path.join(
    tiny.SHARED_DATA, "vocab", "bert_uncased_en_vocab.txt"
)
CLS, SEP, MASK = 2, 3, 4
SEQ_LENGTH, PREDICTIONS = 24, 3


def random_columns(rows, seq_length=SEQ_LENGTH, predictions=PREDICTIONS):
    random = np.random.default_rng(0)
    tokens, masks = (rows, seq_length), (rows, predictions)
    return {
        "input_ids": random.integers(0, 1 << 30, tokens),
        "input_mask": np.ones(tokens, np.int32),
        "segment_ids": random.integers(0, 2, tokens),
        "masked_lm_positions": random.integers(0, seq_length, masks),
        "masked_lm_ids": random.integers(0, 1 << 30, masks),
        "masked_lm_weights": random.random(masks).astype(np.float32),
        "next_sentence_labels": random.integers(0, 2, (rows, 1)),
    }


def made_rows(count, pairs=True):
    """Rows of 3 to 24 tokens, as prepare makes them."""
    random = np.random.default_rng(1)
    rows = []
    for number in range(count):
        length = 3 + number % (SEQ_LENGTH - 2)
        token_ids = random.integers(5, len(tiny.VOCABULARY), length)
        token_ids[0], token_ids[-1] = CLS, SEP
        row = {
            "inputs/token_ids": token_ids.astype(np.uint16),
            "inputs/segment_ids": (np.arange(length) > 5).astype(np.uint8),
        }
        if pairs:
            row["targets/next_sentence/labels"] = np.int32(number % 2)
            row["targets/next_sentence/weights"] = np.float32(1)
        rows.append(row)
    return rows


def write(path, rows, **changes):
    options = {
        "seq_length": SEQ_LENGTH,
        "max_predictions": PREDICTIONS,
        "share": 0.15,
        "seed": 1,
        "number": 0,
        "tokenizer": tiny.tokenizer(),
    }
    columns = records_lib.columns_of(rows, per_token=records_lib.PER_TOKEN)
    return google_tfrecords.write(path, columns, **(options | changes))


def bytes_of(path):
    with open(path, "rb") as file:
        return file.read()


class SerializeTest(absltest.TestCase):
    def test_every_byte_is_that_of_protobuf(self):
        columns = random_columns(50)
        # Numbers of one to ten bytes.
        columns["wide"] = 1 << np.arange(50 * 64).reshape(50, 64) % 64
        for example, *values in zip(
            google_tfrecords.serialize(columns), *columns.values(), strict=True
        ):
            expected = tf.train.Example.FromString(example)
            features = expected.features.feature
            self.assertEqual(set(features), set(columns))
            for name, value in zip(columns, values, strict=True):
                value_list = features[name].WhichOneof("kind")
                parsed = getattr(features[name], value_list).value
                self.assertEqual(list(parsed), value.tolist())
            self.assertLen(example, expected.ByteSize())

    def test_tensorflow_reads_it_back(self):
        columns = random_columns(50)
        parsed = tf.io.parse_example(
            google_tfrecords.serialize(columns),
            {
                name: tf.io.FixedLenFeature(
                    columns[name].shape[1:], google_tfrecords.FEATURES[name]
                )
                for name in columns
            },
        )
        for name, value in columns.items():
            np.testing.assert_array_equal(parsed[name], value, name)


class WriteTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        folder = self.create_tempdir().full_path
        self.path = os.path.join(folder, "examples.tfrecord")

    def read(self):
        return list(google_tfrecords.read([self.path]))

    def test_what_is_written_is_what_mask_tokens_draws(self):
        # Blocks do not affect the rows; positions up to a maximum above the
        # length are padding.
        for rows, most in ((google_tfrecords.BLOCK + 40, 3), (40, 30)):
            rows = made_rows(rows)
            entry = write(self.path, rows, max_predictions=most)
            back = self.read()
            self.assertLen(back, len(rows))
            self.assertEqual(entry["rows"], len(rows))
            for before, after in zip(rows, back, strict=True):
                token_ids = before["inputs/token_ids"]
                length = len(token_ids)
                positions, labels, weights = (
                    after[name]
                    for name in (
                        "inputs/positions",
                        "targets/masked_lm/labels",
                        "targets/masked_lm/weights",
                    )
                )
                self.assertEqual(weights.shape, (most,))
                wanted = min(most, max(1, round(length * 0.15)), length - 2)
                self.assertEqual(weights.sum(), wanted)
                chosen = positions[weights > 0]
                np.testing.assert_array_equal(
                    labels[weights > 0], token_ids[chosen]
                )
                self.assertFalse(labels[weights == 0].any())
                same = after["inputs/token_ids"] == token_ids
                self.assertTrue(np.delete(same, chosen).all())
                for name in before.keys() - {"inputs/token_ids"}:
                    np.testing.assert_array_equal(before[name], after[name])

    def test_masks_are_a_function_of_seed_number_and_row(self):
        rows = made_rows(1200)
        entry = write(self.path, rows)
        again = write(self.path, rows)
        self.assertEqual(entry, again)
        for change in ({"seed": 2}, {"number": 1}):
            other = write(self.path, rows, **change)
            self.assertNotEqual(entry["sha256"], other["sha256"])
        write(self.path, rows)
        back = self.read()
        write(self.path, rows[:1030])
        for one, two in zip(back, self.read(), strict=False):
            for name, value in one.items():
                np.testing.assert_array_equal(value, two[name])

    def test_entry_is_that_of_record_shards(self):
        rows = made_rows(40)
        entry = write(self.path, rows)
        shard = self.create_tempfile().full_path
        columns = records_lib.columns_of(rows, per_token=records_lib.PER_TOKEN)
        expected = records_lib.write_shard(shard, columns)
        self.assertEqual(entry.keys(), expected.keys())
        for name in ("rows", "tokens", "longest"):
            self.assertEqual(entry[name], expected[name])
        self.assertEqual(
            os.listdir(os.path.dirname(self.path)), [entry["name"]]
        )

    def test_rows_without_pairs_are_labelled_0(self):
        write(self.path, made_rows(5, pairs=False))
        for row in self.read():
            self.assertEqual(row["targets/next_sentence/labels"], 0)


class ReadTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.path = self.create_tempfile("examples.tfrecord").full_path

    def write(self, *parts):
        with tf.io.TFRecordWriter(self.path) as file:
            for columns in parts:
                for example in google_tfrecords.serialize(columns):
                    file.write(example)

    def assert_refused(self, words, **options):
        with self.assertRaisesRegex(errors.InputError, words) as caught:
            list(google_tfrecords.read([self.path], **options))
        self.assertIn(self.path, str(caught.exception))

    def test_any_cut_is_told(self):
        write(self.path, made_rows(40))
        whole = bytes_of(self.path)
        head = 16 + int.from_bytes(whole[:8], "little")  # the first record
        cuts = [*range(0, 20), head - 1, head + 1, head + 12, len(whole) - 1]
        for cut in cuts:
            with open(self.path, "wb") as file:
                file.write(whole[:cut])
            self.assert_refused("truncated after row [01]" if cut < 999 else "")

    def test_a_changed_bit_is_told(self):
        write(self.path, made_rows(40))
        data = bytearray(bytes_of(self.path))
        data[len(data) // 2] ^= 1
        with open(self.path, "wb") as file:
            file.write(data)
        self.assert_refused("damaged")

    @parameterized.parameters(b"hi", b"some text\n" * 100, b"\x1f\x8b" * 50)
    def test_other_files_are_refused(self, data):
        with open(self.path, "wb") as file:
            file.write(data)
        self.assert_refused("not a TFRecord file")

    def test_other_records_are_refused(self):
        for record in (b"", b"\xff\xfe text", random_columns(1)):
            with tf.io.TFRecordWriter(self.path) as file:
                if isinstance(record, dict):
                    record.pop("masked_lm_ids")
                    record = google_tfrecords.serialize(record)[0]
                file.write(record)
            self.assert_refused("expected tf.train.Example with .*_lm_ids")

    def test_a_missing_file_is_told(self):
        os.remove(self.path)
        self.assert_refused("is not a file")

    def test_other_lengths_are_refused(self):
        self.write(random_columns(5), random_columns(5, predictions=4))
        self.assert_refused("the row after row 0 has other features")
        whole = self.create_tempfile().full_path
        write(whole, made_rows(5))
        write(self.path, made_rows(5), max_predictions=5)
        with self.assertRaisesRegex(errors.InputError, "24 .* 5 .* 24 and 3"):
            list(google_tfrecords.read([whole, self.path]))

    @parameterized.parameters(
        ("input_mask", 0, "ones and then zeros"),
        ("masked_lm_positions", SEQ_LENGTH, "within the row"),
        ("masked_lm_positions", -1, "within the row"),
        ("next_sentence_labels", 2, "not 0 or 1"),
        ("masked_lm_ids", -1, "ids are not 0 to"),
        ("input_ids", 1 << 40, "ids are not 0 to"),
    )
    def test_values_that_cannot_be_are_refused(self, name, value, words):
        columns = random_columns(5)
        columns[name][3, 0] = value
        self.write(columns)
        self.assert_refused(f"row 3 from 0: .*{words}")

    def test_ids_of_another_vocabulary_are_refused(self):
        write(self.path, made_rows(40))
        size = len(tiny.VOCABULARY)
        self.assertLen(
            list(google_tfrecords.read([self.path], vocab_size=size)), 40
        )
        self.assert_refused("ids are not 0 to 9", vocab_size=10)


class StaticRecordsTest(absltest.TestCase):
    def test_one_step_trains_on_them_as_they_are(self):
        run = runs.Run("masked_lm")
        folder = self.create_tempdir().full_path
        path = os.path.join(folder, "examples.tfrecord")
        write(path, made_rows(16))
        shard = os.path.join(folder, records_lib.shard_name(0))
        columns = records_lib.columns_of(
            list(google_tfrecords.read([path])),
            per_token=records_lib.PER_TOKEN,
        )
        entry = records_lib.write_shard(shard, columns)
        records_lib.write_manifest(folder, [entry])
        records = records_lib.Records(folder)
        sampler = batches.BatchSampler(records.lengths, runs.BATCH)

        def randomize(batch):
            inputs, targets = run.task.randomize(
                batch["inputs"], batch["targets"], batch.pop("seeds")
            )
            return batch | {"inputs": inputs, "targets": targets}

        stream = batches.stream(records, sampler, stop_step=1)
        batch = next(iter(stream.map(randomize)))
        stored = records.read(sampler.rows(0), sampler.length(sampler.rows(0)))
        for name in ("token_ids", "positions", "padding_mask"):
            np.testing.assert_array_equal(
                batch["inputs"][name], stored[f"inputs/{name}"]
            )
        self.assertEqual(
            batch["inputs"]["positions"].shape, (runs.BATCH, PREDICTIONS)
        )
        before = run.weights()
        metrics = run.step(batch)
        self.assertTrue(np.isfinite(metrics["loss"]))
        self.assertEqual(metrics["skipped"], 0)
        after = run.weights()
        self.assertTrue(all((after[n] != before[n]).any() for n in before))


class GoogleSampleTest(absltest.TestCase):
    def test_googles_own_file_is_read(self):
        for path in (SAMPLE, VOCABULARY):
            if not os.path.exists(path):
                self.skipTest(f"shared data is absent: {path}")
        tokenizer = wordpiece.Tokenizer.from_file(VOCABULARY)
        rows = list(
            google_tfrecords.read([SAMPLE], vocab_size=tokenizer.vocab_size)
        )
        lengths = np.array([len(row["inputs/token_ids"]) for row in rows])
        counts, ids, labels = [], [], []
        for row in rows:
            chosen = row["targets/masked_lm/weights"] > 0
            counts.append(chosen.sum())
            masked_positions = row["inputs/positions"][chosen]
            ids.append(row["inputs/token_ids"][masked_positions])
            labels.append(row["targets/masked_lm/labels"][chosen])
        # The rule by which `write` counts is the one Google's file shows.
        np.testing.assert_array_equal(
            counts, [min(20, max(1, round(n * 0.15))) for n in lengths]
        )
        ids, labels = np.concatenate(ids), np.concatenate(labels)
        masked = (ids == tokenizer.mask_id).mean()
        kept = (ids == labels).mean()
        next_labels = [row["targets/next_sentence/labels"] for row in rows]
        print(
            f"{len(rows)} rows of {lengths.mean():.1f} tokens ({lengths.min()} "
            f"to {lengths.max()}), {np.mean(counts):.1f} predictions in a row "
            f"({min(counts)} to {max(counts)}, {len(ids)} in all): "
            f"{masked:.1%} [MASK], {1 - masked - kept:.1%} random, {kept:.1%} "
            f"kept; next_sentence 1: {np.mean(next_labels):.1%}"
        )
        self.assertAlmostEqual(masked, masking.MASK_SHARE, delta=0.05)
        self.assertTrue(
            all(row["inputs/token_ids"][0] == tokenizer.cls_id for row in rows)
        )


if __name__ == "__main__":
    absltest.main()
