import dataclasses
import os

import numpy as np
import safetensors.numpy
from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras.data import batches as batches_lib
from bert_keras.data import records as records_lib

ROWS = 103


PER_TARGET_TOKEN = (
    "inputs/previous",
    "targets/next/labels",
    "targets/next/weights",
)


def row(number, *, targets=False):
    """A row of 3 to 19 tokens, perhaps with a target of 0 to 11."""
    length = 3 + number % 17
    record = {
        "inputs/token_ids": np.full(length, number, np.uint16),
        "inputs/segment_ids": np.arange(length, dtype=np.uint8) % 2,
        "targets/label/labels": np.int32(number),
        "targets/label/weights": np.float32(1),
    }
    if targets:
        tokens = np.arange(number * 5 % 12)
        record |= {
            "inputs/previous": (number - tokens).astype(np.int32),
            "targets/next/labels": np.stack([number + tokens, tokens], axis=1),
            "targets/next/weights": (1 / (1 + tokens)).astype(np.float32),
        }
    return record


def columns(numbers, *, targets=False):
    return records_lib.columns_of(
        [row(number, targets=targets) for number in numbers],
        per_token=records_lib.PER_TOKEN,
        per_target_token=PER_TARGET_TOKEN,
    )


def write(folder, rows=ROWS, shards=3, *, targets=False):
    entries = []
    for number, part in enumerate(np.array_split(np.arange(rows), shards)):
        path = os.path.join(folder, records_lib.shard_name(number))
        part = columns(part, targets=targets)
        entries.append(records_lib.write_shard(path, part))
    records_lib.write_manifest(folder, entries, seq_length=20)


def flat(batch):
    """{name: array} of a batch."""
    return {
        **{name: x.numpy() for name, x in batch["inputs"].items()},
        **{
            f"{term}/{index}": x.numpy()
            for term, pair in batch["targets"].items()
            for index, x in enumerate(pair)
        },
        "seeds": batch["seeds"].numpy(),
    }


def labels(dataset):
    return [batch["targets"]["label"][0].numpy().tolist() for batch in dataset]


class StreamTest(parameterized.TestCase):
    TARGETS = False  # whether the rows have them, too

    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        write(self.folder, targets=self.TARGETS)
        self.records = records_lib.Records(self.folder)

    def sampler(self, **options):
        options = {"seed": 5, "buckets": (8, 16, 24)} | options
        if self.TARGETS:
            lengths = self.records.target_lengths
            targets = {"target_lengths": lengths, "target_buckets": (4, 8, 12)}
            options = targets | options
        return batches_lib.BatchSampler(self.records.lengths, 10, **options)

    def test_rows_come_back_padded(self):
        target_length = 16 if self.TARGETS else None
        batch = self.records.read(np.array([40, -1]), 24, target_length)
        self.assertEqual(
            batch["inputs/padding_mask"].sum(axis=1).tolist(), [9, 0]
        )
        self.assertEqual(set(batch["inputs/token_ids"][0, :9]), {40})
        self.assertEqual(batch["targets/label/weights"].tolist(), [1, 0])
        self.assertEqual(batch["inputs/token_ids"].dtype, np.int32)

    def test_a_length_is_known_before_if_all_batches_have_it(self):
        def shape(**options):
            sampler = self.sampler(**options)
            spec = batches_lib.stream(self.records, sampler).element_spec
            return spec["inputs"]["token_ids"].shape.as_list()

        self.assertEqual(shape(), [10, None])
        self.assertEqual(shape(buckets=(19, 24)), [10, 19])
        # The shortest row has 3 tokens: some batch may need the first bucket.
        self.assertEqual(shape(buckets=(3, 24)), [10, None])
        self.assertEqual(shape(buckets=()), [10, 19])
        if self.TARGETS:
            spec = batches_lib.stream(
                self.records, self.sampler(target_buckets=(12,))
            ).element_spec
            labels, _ = spec["targets"]["next"]
            self.assertEqual(labels.shape.as_list(), [10, 12, 2])
            self.assertEqual(shape(target_buckets=(12,)), [10, None])

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
            self.assertEqual(int(one["step"]), int(two["step"]))
            arrays = flat(two)
            for name, value in flat(one).items():
                np.testing.assert_array_equal(value, arrays[name], name)

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
            pieces = [flat(piece) for piece in pieces]
            for name, value in flat(batch).items():
                parts = [piece[name] for piece in pieces]
                np.testing.assert_array_equal(
                    np.concatenate(parts), value, name
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


class TargetsTest(StreamTest):
    """The same of rows that have targets, too; and more."""

    TARGETS = True

    def test_rows_of_two_axes_come_back_as_written(self):
        numbers = np.random.default_rng(0).permutation(np.arange(-1, ROWS))
        in_memory = records_lib.Rows.of_columns(
            columns(range(ROWS), targets=True)
        )
        for rows in (self.records, in_memory):
            batch = rows.read(numbers, 20, 13)
            self.assertEqual(batch["targets/next/labels"].shape[1:], (13, 2))
            for index, number in enumerate(numbers):
                written = row(number, targets=True) if number >= 0 else {}
                for name, value in batch.items():
                    if name == "inputs/padding_mask":
                        continue
                    expected = np.zeros_like(value[index])
                    if written and expected.ndim:
                        expected[: len(written[name])] = written[name]
                    elif written:
                        expected = written[name]
                    np.testing.assert_array_equal(value[index], expected, name)

    def test_targets_are_stored_without_padding(self):
        tokens = [number * 5 % 12 for number in range(ROWS)]
        manifest = self.records.manifest
        self.assertEqual(manifest["format"], "bert_keras.records.3")
        self.assertEqual(manifest["target_tokens"], sum(tokens))
        self.assertEqual(manifest["longest_target"], 11)
        self.assertEqual(self.records.target_lengths.tolist(), tokens)
        stored = 0
        for number, entry in enumerate(manifest["shards"]):
            path = os.path.join(self.folder, records_lib.shard_name(number))
            shard = safetensors.numpy.load_file(path)
            labels = shard["target_token:targets/next/labels"]
            splits = shard["row_splits:target_tokens"]
            self.assertLen(splits, entry["rows"] + 1)
            self.assertLen(labels, entry["target_tokens"])
            self.assertEqual(np.diff(splits).max(), entry["longest_target"])
            stored += len(labels)
        self.assertEqual(stored, sum(tokens))

    def test_records_without_targets_have_the_former_format(self):
        folder = self.create_tempdir().full_path
        write(folder)
        records = records_lib.Records(folder)
        self.assertIsNone(records.target_lengths)
        self.assertEqual(records.manifest["format"], "bert_keras.records.1")
        for values in (records.manifest, *records.manifest["shards"]):
            self.assertNoCommonElements(
                values, ("target_tokens", "longest_target")
            )

    def test_targets_are_padded_to_a_bucket_of_the_global_batch(self):
        sampler = self.sampler()
        lengths = set()
        for step in range(2 * sampler.steps_per_epoch):
            rows = sampler.rows(step)
            longest = max(sampler.target_lengths[rows[rows >= 0]])
            expected = next(b for b in (4, 8, 12) if b >= longest)
            parts = batches_lib.stream(
                self.records,
                sampler,
                start_step=step,
                stop_step=step + 1,
                num_shards=5,
                own_shards=range(5),
            )
            shapes = [
                [x.shape[1] for x in batch["targets"]["next"]]
                + [batch["inputs"]["previous"].shape[1]]
                for batch in parts
            ]
            self.assertEqual(shapes, [[expected] * 3] * 5)
            lengths.add(expected)
        self.assertLen(lengths, 3)

    def test_with_one_bucket_all_targets_have_the_maximum_length(self):
        sampler = self.sampler(buckets=(24,), target_buckets=(32,))
        for batch in batches_lib.stream(self.records, sampler, stop_step=22):
            self.assertEqual(batch["targets"]["next"][0].shape, (10, 32, 2))
            self.assertEqual(batch["inputs"]["token_ids"].shape, (10, 24))
        one = [sampler.rows(step).tolist() for step in range(11)]
        plain = batches_lib.BatchSampler(
            self.records.lengths, 10, seed=5, buckets=(24,)
        )
        self.assertEqual(one, [plain.rows(step).tolist() for step in range(11)])

    def test_batches_hold_targets_of_similar_length(self):
        # Of independent lengths; 128 batches.
        random = np.random.default_rng(0)
        lengths, target_lengths = random.integers(3, 60, (2, 1280))
        buckets = batches_lib.buckets(64)

        def padding(lengths_of, padded_length, sampler):
            used = padded = 0
            for step in range(sampler.steps_per_epoch):
                rows = sampler.rows(step)
                used += lengths_of[rows].sum()
                padded += len(rows) * padded_length(rows)
            return 1 - used / padded

        both = batches_lib.BatchSampler(
            lengths,
            10,
            buckets=buckets,
            target_lengths=target_lengths,
            target_buckets=buckets,
        )
        one = batches_lib.BatchSampler(lengths, 10, buckets=buckets)
        of_rows = [padding(lengths, s.length, s) for s in (both, one)]
        of_targets = [
            padding(target_lengths, both.target_length, s) for s in (both, one)
        ]
        # The rows' own padding is as before, that of targets is a third less.
        self.assertLess(of_rows[0], of_rows[1] + 0.02)
        self.assertLess(of_targets[0], 0.67 * of_targets[1])
        # Also if all rows have one padded length.
        targets_only = dataclasses.replace(both, buckets=(64,))
        self.assertLess(
            padding(target_lengths, both.target_length, targets_only),
            of_targets[0],
        )

    def test_an_epoch_without_empty_rows_has_every_target(self):
        dataset = batches_lib.epochs(self.records, self.sampler())
        sums = 0
        for batch in dataset:
            ids, _ = batch["targets"]["label"]
            labels, weights = batch["targets"]["next"]
            self.assertLen(weights, len(ids))
            np.testing.assert_array_equal(
                (weights.numpy() > 0).sum(axis=1), 5 * ids.numpy() % 12
            )
            sums += labels.numpy()[..., 1].sum()
        expected = [np.arange(number * 5 % 12).sum() for number in range(ROWS)]
        self.assertEqual(sums, sum(expected))

    def test_rows_may_have_targets_without_tokens_only(self):
        rows = records_lib.Rows.of_columns(columns([0, 12, 24], targets=True))
        self.assertEqual(rows.target_lengths.tolist(), [0, 0, 0])
        sampler = batches_lib.BatchSampler(
            rows.lengths, 3, target_lengths=rows.target_lengths
        )
        (batch,) = batches_lib.stream(rows, sampler, stop_step=1)
        weights = batch["targets"]["next"][1].numpy()
        self.assertEqual(weights.tolist(), [[0], [0], [0]])

    def test_a_sampler_without_the_targets_lengths_is_refused(self):
        sampler = batches_lib.BatchSampler(self.records.lengths, 10)
        with self.assertRaisesRegex(errors.InputError, "target_lengths"):
            batches_lib.stream(self.records, sampler)


if __name__ == "__main__":
    absltest.main()
