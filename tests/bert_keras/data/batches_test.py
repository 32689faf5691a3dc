import os

import numpy as np
from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.data import batches as batches_lib
from bert_keras.data import records as records_lib

ROWS = 103


def row(number):
    length = 3 + number % 17
    return {
        "inputs/token_ids": np.full(length, number, np.uint16),
        "inputs/segment_ids": np.arange(length, dtype=np.uint8) % 2,
        "targets/label/labels": np.int32(number),
        "targets/label/weights": np.float32(1),
    }


def write(folder, rows=ROWS, shards=3):
    entries = []
    for number, part in enumerate(np.array_split(np.arange(rows), shards)):
        path = os.path.join(folder, records_lib.shard_name(number))
        entries.append(
            records_lib.write_shard(
                path,
                records_lib.columns_of(
                    [row(n) for n in part], per_token=records_lib.PER_TOKEN
                ),
            )
        )
    records_lib.write_manifest(folder, entries, seq_length=20)


def labels(dataset):
    return [batch["targets"]["label"][0].numpy().tolist() for batch in dataset]


class StreamTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        write(self.folder)
        self.records = records_lib.Records(self.folder)

    def sampler(self, **options):
        options = {"seed": 5, "buckets": (8, 16, 24)} | options
        return batches_lib.BatchSampler(self.records.lengths, 10, **options)

    def test_rows_come_back_padded(self):
        batch = self.records.read(np.array([40, -1]), 24)
        self.assertEqual(
            batch["inputs/padding_mask"].sum(axis=1).tolist(), [9, 0]
        )
        self.assertEqual(set(batch["inputs/token_ids"][0, :9]), {40})
        self.assertEqual(batch["targets/label/weights"].tolist(), [1, 0])
        self.assertEqual(batch["inputs/token_ids"].dtype, np.int32)

    def test_an_epoch_visits_every_row_once(self):
        sampler = self.sampler()
        for epoch in range(2):
            start = epoch * sampler.steps_per_epoch
            visited = []
            for batch in batches_lib.stream(
                self.records,
                sampler,
                start_step=start,
                stop_step=start + sampler.steps_per_epoch,
            ):
                ids, weights = batch["targets"]["label"]
                visited += ids.numpy()[weights.numpy() > 0].tolist()
            self.assertEqual(sorted(visited), list(range(ROWS)))

    def test_epochs_and_seeds_differ_and_repeat(self):
        def rows(seed, epoch):
            sampler = self.sampler(seed=seed)
            return [
                sampler.rows(epoch * sampler.steps_per_epoch + i).tolist()
                for i in range(sampler.steps_per_epoch)
            ]

        self.assertEqual(rows(5, 1), rows(5, 1))
        self.assertNotEqual(rows(5, 0), rows(5, 1))
        self.assertNotEqual(rows(5, 0), rows(6, 0))

    def test_rows_can_meet_by_chance(self):
        spread = {}
        for buckets in ((8, 16, 24), (24,)):
            sampler = self.sampler(buckets=buckets)
            rows = [sampler.rows(i) for i in range(sampler.steps_per_epoch)]
            visited = np.concatenate(rows)
            self.assertEqual(sorted(visited[visited >= 0]), list(range(ROWS)))
            spread[len(buckets)] = np.mean(
                [np.std(sampler.lengths[r[r >= 0]]) for r in rows]
            )
        self.assertLess(2 * spread[3], spread[1])

    def test_starting_late_gives_the_rest_of_the_same_stream(self):
        whole = list(
            batches_lib.stream(self.records, self.sampler(), stop_step=25)
        )
        rest = batches_lib.stream(
            self.records, self.sampler(), start_step=14, stop_step=25
        )
        self.assertLen(whole, 25)
        for one, two in zip(whole[14:], rest, strict=True):
            np.testing.assert_array_equal(one["seeds"], two["seeds"])
            np.testing.assert_array_equal(
                one["inputs"]["token_ids"], two["inputs"]["token_ids"]
            )
            self.assertEqual(int(one["step"]), int(two["step"]))

    def test_parts_make_up_the_whole_batch(self):
        sampler = self.sampler()
        whole = list(batches_lib.stream(self.records, sampler, stop_step=15))
        # Two workers with one and four replicas' shards each way.
        shards = [
            list(
                batches_lib.stream(
                    self.records,
                    sampler,
                    stop_step=15,
                    num_shards=5,
                    own_shards=own,
                )
            )
            for own in (range(0, 2), range(2, 5))
        ]
        for step, batch in enumerate(whole):
            pieces = shards[0][2 * step : 2 * step + 2]
            pieces += shards[1][3 * step : 3 * step + 3]
            for key in ("token_ids", "padding_mask"):
                np.testing.assert_array_equal(
                    np.concatenate([p["inputs"][key] for p in pieces]),
                    batch["inputs"][key],
                )
            np.testing.assert_array_equal(
                np.concatenate([p["seeds"] for p in pieces]), batch["seeds"]
            )

    def test_seeds_differ_between_rows_and_steps(self):
        seeds = [
            tuple(seed)
            for batch in batches_lib.stream(
                self.records, self.sampler(), stop_step=200
            )
            for seed in batch["seeds"].numpy()
        ]
        self.assertLen(set(seeds), len(seeds))

    def test_runs_of_other_seeds_share_no_row_seed(self):
        drawn = []
        for seed in (5, 6):
            batches = batches_lib.stream(
                self.records, self.sampler(seed=seed), stop_step=20
            )
            drawn.append(
                {
                    tuple(row)
                    for batch in batches
                    for row in batch["seeds"].numpy()
                }
            )
        self.assertLen(drawn[0] | drawn[1], 2 * 20 * 10)

    def test_batches_do_not_come_in_order_of_length(self):
        # Of 121 batches; windows of 50 are sorted to make them.
        lengths = np.random.default_rng(0).integers(3, 24, 1207)
        sampler = batches_lib.BatchSampler(
            lengths, 10, seed=5, buckets=(8, 16, 24)
        )
        for epoch in range(3):
            rows = [sampler.rows(121 * epoch + step) for step in range(121)]
            visited = np.concatenate(rows)
            self.assertEqual(sorted(visited[visited >= 0]), list(range(1207)))
            # Each of them is of rows of like length.
            self.assertLess(max(lengths[r[r >= 0]].std() for r in rows), 2)
            means = [lengths[r[r >= 0]].mean() for r in rows]
            for first in range(0, 100, 50):
                window = means[first : first + 50]
                order = np.corrcoef(np.arange(50), window)[0, 1]
                self.assertLess(abs(order), 0.5)
            # The empty rows that fill the last batch are in no fixed step.
            self.assertEqual(sum((r < 0).sum() for r in rows), 3)

    def test_batches_hold_rows_of_similar_length(self):
        sampler = self.sampler()
        used = padded = 0
        for step in range(sampler.steps_per_epoch):
            rows = sampler.rows(step)
            used += sampler.lengths[rows[rows >= 0]].sum()
            padded += sampler.length(rows) * (rows >= 0).sum()
        # Unsorted, nearly every batch would be 24 long: a share of 0.46.
        self.assertGreater(used / padded, 0.7)

    def test_without_shuffling_rows_stand_in_order(self):
        sampler = self.sampler(shuffle=False)
        batches = labels(batches_lib.stream(self.records, sampler, stop_step=2))
        self.assertEqual(batches, [list(range(10)), list(range(10, 20))])

    def test_buckets_are_few_and_close(self):
        self.assertLen(batches_lib.buckets(128), 12)
        self.assertLen(batches_lib.buckets(512), 20)
        self.assertEqual(batches_lib.buckets(20), (8, 16, 20))
        for length in (5, 8, 20, 100, 128, 512):
            lengths = np.array(batches_lib.buckets(length))
            self.assertEqual(lengths[-1], length)
            steps = np.diff(lengths)
            self.assertTrue((steps > 0).all())
            self.assertTrue(
                (steps <= np.maximum(8, lengths[:-1] / 4)).all(), lengths
            )

    def test_a_batch_must_divide_among_the_replicas(self):
        with self.assertRaisesRegex(errors.InputError, "multiple of the 3"):
            batches_lib.stream(
                self.records, self.sampler(), num_shards=3, own_shards=range(3)
            )

    def test_a_folder_without_manifest_is_named(self):
        with self.assertRaisesRegex(errors.InputError, "no manifest.json"):
            records_lib.Records(self.create_tempdir().full_path)

    @parameterized.parameters(0, 4, 300)
    def test_a_shard_cut_short_is_named(self, size):
        path = os.path.join(self.folder, records_lib.shard_name(1))
        with open(path, "r+b") as file:
            file.truncate(size)
        with self.assertRaisesRegex(errors.InputError, "shard-00001"):
            records_lib.Records(self.folder)


if __name__ == "__main__":
    absltest.main()
