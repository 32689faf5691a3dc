"""What masked LM hides, from the text to the records to the training."""

import functools
import json
import os
import tempfile

import numpy as np
import pytest
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import errors
from bert_keras.data import batches as batches_lib
from bert_keras.data import records as records_lib
from bert_keras.tasks import base, masked_lm
from bert_keras.training import input_pipeline, pretrain, shown_rows
from bert_keras.wrappers import r_drop
from tests import tiny
from tests.trainers import mains
from tests.trainers.prepare_test import corpus

PHRASES = "the actor\ngood film\nvery old plots\n"


def tearDownModule():
    mains.close()


@functools.cache
def prepared():
    """A folder with records with and without facts, and the lexicons."""
    folder = tempfile.TemporaryDirectory()
    path = functools.partial(os.path.join, folder.name)
    flags = {
        # Words of several tokens; none of another language.
        "input": mains.write(
            path("corpus.txt"), corpus(200).replace("plot", "plots")
        ),
        "vocab": mains.write(path("vocab.txt"), "\n".join(tiny.VOCABULARY)),
        "seq_length": 32,
        "dev_fraction": 0.1,
        "workers": 1,
    }
    with_facts = {
        "word_boundaries": "tokenizer",
        "phrases": mains.write(path("phrases.txt"), PHRASES + "龥\n"),
        "entities": mains.write(path("entities.txt"), "the film\n"),
    }
    said = {}
    for name, more in (("facts", with_facts), ("plain", {})):
        code, _, error, said[name] = mains.call_and_listen(
            "trainers.prepare", output=path(name), **flags, **more
        )
        assert not code, error
    return folder, said


def folder(name):
    return os.path.join(prepared()[0].name, name)


def batch(task, records="facts", **arguments):
    """A batch as `task` masks it, the ids before, and the facts."""
    train = records_lib.Records(os.path.join(folder(records), "train"))
    task = pretrain.adapted(task, train, train.tokenizer())
    size = arguments.pop("size", 200)
    sampler = batches_lib.BatchSampler(train.lengths, size, shuffle=False)
    step = arguments.pop("step", 0)
    stream = batches_lib.stream(train, sampler, start_step=step)
    masked = next(iter(input_pipeline.completed(task, stream, **arguments)))
    before = next(iter(stream))["inputs"]
    return task, masked, {name: x.numpy() for name, x in before.items()}


def hidden(masked):
    """Which tokens are hidden, (B, S) bool."""
    _, weights = masked["targets"]["masked_lm"]
    shape = masked["inputs"]["token_ids"].shape
    result = np.zeros(shape, bool)
    rows, places = np.nonzero(weights.numpy())
    result[rows, masked["inputs"]["positions"].numpy()[rows, places]] = True
    return result


class HiddenUnitsTest(parameterized.TestCase):
    def test_the_records_name_their_units_and_say_what_is_never_found(self):
        for split in ("train", "dev"):
            path = os.path.join(folder("facts"), split, "manifest.json")
            with open(path, encoding="utf-8") as file:
                manifest = json.load(file)
            self.assertEqual(
                manifest["units"], ["words", "phrases", "entities"]
            )
        self.assertIn("1 of 4 phrases have tokens", prepared()[1]["facts"])
        plain = records_lib.Records(os.path.join(folder("plain"), "train"))
        facts = records_lib.Records(os.path.join(folder("facts"), "train"))
        self.assertNotIn("inputs/unit_starts", plain.features)
        self.assertNotIn("units", plain.manifest)
        # Besides the facts the records are equal.
        rows = np.arange(50)
        one, two = (each.read(rows, 32) for each in (plain, facts))
        self.assertEqual({*two} - {*one}, {"inputs/unit_starts"})
        for name, value in one.items():
            np.testing.assert_array_equal(value, two[name])

    @parameterized.product(
        unit=("words", "phrases", "entities"), group=("one", "ngrams", "spans")
    )
    def test_units_are_hidden_completely(self, unit, group):
        task = masked_lm.MaskedLM(masked_unit=unit, masked_group=group)
        task, masked, before = batch(task)
        chosen = hidden(masked)
        self.assertNotIn("unit_starts", masked["inputs"])
        level = ("words", "phrases", "entities").index(unit)
        starts = before["unit_starts"] >> 2 * level & 1
        cut = before["unit_starts"] >> 2 * level + 1 & 1
        special = np.isin(before["token_ids"], task.special_ids)
        self.assertFalse((chosen & (special | (cut > 0))).any())
        continues = (starts == 0) & (before["padding_mask"] > 0) & (cut == 0)
        rows, places = np.nonzero(continues)
        self.assertGreater(len(rows), 100)
        np.testing.assert_array_equal(
            chosen[rows, places], chosen[rows, places - 1]
        )
        # About 15 %, and not more.
        tokens = (before["padding_mask"] > 0).sum(axis=1)
        most = np.maximum(np.round(0.15 * tokens), 1)
        counts = chosen.sum(axis=1)
        self.assertGreater((counts <= most).mean(), 0.9)  # or the shortest
        self.assertGreater((counts > 0).mean(), 0.97)
        self.assertGreater(chosen.sum(), 0.8 * most.sum())

    def test_phrases_are_units_of_their_level_alone(self):
        tokenizer = tiny.tokenizer()
        _, _, before = batch(masked_lm.MaskedLM())
        ids, facts = before["token_ids"], before["unit_starts"]
        for level, phrase in ((1, "good film"), (2, "the film")):
            first, second = tokenizer([phrase]).to_list()[0]
            at = (ids[:, :-1] == first) & (ids[:, 1:] == second)
            rows, places = np.nonzero(at)
            self.assertGreater(len(rows), 5)
            for other in (0, 1, 2):
                is_start = facts[rows, places + 1] >> 2 * other & 1
                self.assertEqual({*is_start.tolist()}, {int(other != level)})

    def test_stages_and_shares_follow_the_progress(self):
        task = masked_lm.MaskedLM(
            masked_unit="tokens,words",
            masked_lm_prob=0.1,
            masked_lm_prob_end=0.5,
        )
        shares, splits = [], []
        for step, steps in ((0, 1000), (499, 1000), (501, 1000), (0, 0)):
            # Every epoch reads all rows; here a step is one.
            count = records_lib.Records(
                os.path.join(folder("facts"), "train")
            ).lengths
            epoch = -(-len(count) // 200)
            _, masked, before = batch(
                task, step=step * epoch, steps=steps * epoch
            )
            chosen = hidden(masked)
            tokens = (before["padding_mask"] > 0).sum()
            shares.append(chosen.sum() / tokens)
            starts = before["unit_starts"] & 1
            rows, places = np.nonzero(
                (starts == 0)
                & (before["unit_starts"] & 2 == 0)
                & (before["padding_mask"] > 0)
            )
            splits.append(
                (chosen[rows, places] != chosen[rows, places - 1]).any()
            )
        np.testing.assert_allclose(shares, [0.1, 0.3, 0.3, 0.5], atol=0.03)
        self.assertEqual(splits, [True, True, False, False])

    def test_a_step_is_the_same_whenever_it_is_read(self):
        task = masked_lm.MaskedLM(
            masked_unit="words,entities",
            masked_group="spans",
            masked_lm_prob_end=0.3,
        )
        train = records_lib.Records(os.path.join(folder("facts"), "train"))
        task = pretrain.adapted(task, train, train.tokenizer())
        sampler = batches_lib.BatchSampler(train.lengths, 8, seed=3)

        def read(start):
            stream = batches_lib.stream(
                train, sampler, start_step=start, stop_step=9
            )
            return list(input_pipeline.completed(task, stream, 9))

        for one, two in zip(read(0)[4:], read(4), strict=True):
            for name, value in one["inputs"].items():
                np.testing.assert_array_equal(value, two["inputs"][name])

    def test_two_replicas_mask_as_one(self):
        task = masked_lm.MaskedLM(
            masked_unit="words,phrases",
            masked_group="ngrams",
            mask_alike=True,
            random_tokens="frequency",
            masked_lm_prob_end=0.3,
        )
        train = records_lib.Records(os.path.join(folder("facts"), "train"))
        task = pretrain.adapted(task, train, train.tokenizer())
        sampler = batches_lib.BatchSampler(train.lengths, 8, seed=3)

        def read(**shards):
            stream = batches_lib.stream(train, sampler, stop_step=4, **shards)
            return list(input_pipeline.completed(task, stream, 4))

        whole = read()
        halves = read(num_shards=2, own_shards=range(2))
        for step, batch_of_all in enumerate(whole):
            for name, value in batch_of_all["inputs"].items():
                parts = [
                    half["inputs"][name] for half in halves[2 * step :][:2]
                ]
                np.testing.assert_array_equal(value, np.concatenate(parts))

    def test_random_tokens_are_drawn_as_often_as_they_occur(self):
        task = masked_lm.MaskedLM(
            random_tokens="frequency",
            mask_token_prob=0.0,
            random_token_prob=1.0,
            masked_lm_prob=0.5,
        )
        for wrapped in (task, r_drop.RDrop(task)):
            adapted, masked, before = batch(wrapped)
            counts = np.array(adapted.token_counts)
            drawn = masked["inputs"]["token_ids"].numpy()[hidden(masked)]
            shares = np.bincount(drawn, minlength=len(counts)) / len(drawn)
            np.testing.assert_allclose(shares, counts / counts.sum(), atol=0.02)
        train = records_lib.Records(os.path.join(folder("facts"), "train"))
        ids = np.concatenate(list(train.token_values("inputs/token_ids")))
        self.assertEqual(
            counts[tiny.VOCABULARY.index("film")],
            sum(ids == tiny.VOCABULARY.index("film")),
        )
        self.assertEqual(counts[list(adapted.special_ids)].sum(), 0)
        self.assertEmpty(adapted.for_serving().token_counts)

    def test_settings_of_before_are_stored_as_before(self):
        values = masked_lm.MaskedLM().to_dict()
        self.assertEqual(
            {*values},
            {
                *("name", "seq_length", "masked_lm_prob", "objective"),
                *("top_k", "candidates", "vocab_size", "mask_id"),
                "special_ids",
            },
        )
        task = masked_lm.MaskedLM(masked_unit="words", mask_alike=True)
        self.assertEqual(base.from_dict(task.to_dict()), task)

    @parameterized.parameters(
        ({"masked_unit": "word"}, "masked_unit", "expected one of tokens"),
        ({"masked_unit": "words,"}, "masked_unit", "expected one of tokens"),
        ({"mask_alike": True}, "mask_alike", "no effect on single tokens"),
        ({"masked_unit": "words,words"}, "masked_unit", "stages that differ"),
        ({"masked_lm_prob_end": 0.15}, "masked_lm_prob_end", "another share"),
        ({"masked_lm_prob_end": 0.005}, "masked_lm_prob_end", "from 0.01"),
        (
            {"random_tokens": "frequency", "random_token_prob": 0.0},
            *("random_tokens", "no effect with"),
        ),
        ({"random_token_prob": 0.3}, "mask_token_prob", "at most 1 together"),
    )
    def test_settings_without_sense_are_refused(self, fields, argument, text):
        with self.assertRaisesRegex(errors.InputError, text) as raised:
            masked_lm.MaskedLM(**fields)
        self.assertEqual(raised.exception.argument, argument)

    def test_masks_that_are_there_already_take_no_settings(self):
        stored = ("inputs/token_ids", "inputs/positions")
        masked_lm.MaskedLM().check_features(stored)
        for settings in (
            {"masked_lm_prob": 0.3},
            {"masked_group": "spans"},
            {"mask_token_prob": 0.5},
            {"masked_lm_prob_end": 0.5},
            {"span_boundary": True},
            {"detect_masked": True},
        ):
            task = masked_lm.MaskedLM(**settings)
            task.check_features(stored[:1])
            with self.assertRaisesRegex(errors.InputError, "masked already"):
                task.check_features(stored)
            # An evaluation has no such settings, and reads the masks.
            features = {"token_ids": 1, "positions": 2}
            self.assertEqual(task.randomize(features, {}, None), (features, {}))

    def test_a_share_that_falls(self):
        task = masked_lm.MaskedLM(masked_lm_prob=0.5, masked_lm_prob_end=0.1)
        shares = []
        for step, steps in ((0, 1000), (500, 1000), (0, 0)):
            _, masked, before = batch(task, step=5 * step, steps=5 * steps)
            tokens = (before["padding_mask"] > 0).sum()
            shares.append(hidden(masked).sum() / tokens)
        np.testing.assert_allclose(shares, [0.5, 0.3, 0.1], atol=0.03)

    def test_tokens_of_a_word_share_their_draw_if_asked(self):
        alike = []
        for asked in (True, False):
            task = masked_lm.MaskedLM(
                masked_unit="words",
                mask_alike=asked,
                mask_token_prob=0.5,
                random_token_prob=0.0,
            )
            _, masked, before = batch(task, size=1000)
            chosen = hidden(masked)
            rows, places = np.nonzero(chosen & (before["unit_starts"] & 1 == 0))
            is_mask = masked["inputs"]["token_ids"].numpy() == (
                tiny.tokenizer().mask_id
            )
            same = is_mask[rows, places] == is_mask[rows, places - 1]
            self.assertGreater(len(same), 50)
            alike.append(same.mean())
        self.assertEqual(alike[0], 1.0)
        self.assertLess(alike[1], 0.8)

    def test_records_without_the_facts_are_refused(self):
        with self.assertRaisesRegex(
            errors.InputError, "where phrases and words begin.*`phrases` and"
        ):
            batch(masked_lm.MaskedLM(masked_unit="words,phrases"), "plain")
        task = masked_lm.MaskedLM(masked_unit="words", objective="none")
        with self.assertRaisesRegex(errors.InputError, "expected records"):
            task.with_settings(vocab_size=9).make_targets({}, {}, None)
        # Spans of tokens need none.
        batch(masked_lm.MaskedLM(masked_group="spans"), "plain")

    @parameterized.parameters(
        ({"phrases": "x.txt"}, "has no effect without --word_boundaries"),
        (
            {"word_boundaries": "tokenizer", "packing": "full"},
            "expected --packing=segments",
        ),
        (
            {"word_boundaries": "tokenizer", "format": "google"},
            "expected --format=records",
        ),
    )
    def test_facts_that_would_not_be_stored_are_refused(self, flags, text):
        code, _, error = mains.call(
            "trainers.prepare",
            input=os.path.join(prepared()[0].name, "corpus.txt"),
            vocab=os.path.join(prepared()[0].name, "vocab.txt"),
            output=os.path.join(self.create_tempdir().full_path, "records"),
            **flags,
        )
        self.assertEqual(code, 1)
        self.assertIn(text, error)

    def test_describe_shows_rows_as_the_task_reads_them(self):
        code, out, error = mains.call(
            "trainers.describe",
            records=folder("facts"),
            rows=2,
            masked_unit="phrases",
            mask_token_prob=1.0,
            random_token_prob=0.0,
        )
        self.assertEqual((code, error), (0, ""))
        task = masked_lm.MaskedLM(
            masked_unit="phrases", mask_token_prob=1.0, random_token_prob=0.0
        )
        shown = shown_rows.read(folder("facts"), task, count=2)
        self.assertLen(shown.rows, 2)
        for row in shown.rows:
            self.assertIn(f"Input:   {row.input}\n", out)
            tokens = row.input.split(" ")
            self.assertEqual(tokens[0], "[CLS]")
            places = row.targets["masked_lm"].split(", ")
            self.assertLen(places, tokens.count("[MASK]"))
            for place in places:
                self.assertEqual(tokens[int(place.split()[0])], "[MASK]")
            self.assertIn(
                row.targets["next_sentence"],
                ("next sentence", "random sentence"),
            )
        _, masked, before = batch(task, size=1000)
        chosen = hidden(masked)
        texts = before["padding_mask"] > 0
        texts &= ~np.isin(before["token_ids"], tiny.tokenizer().special_ids)
        self.assertAlmostEqual(
            shown.statistics["tokens hidden"],
            chosen.sum() / texts.sum(),
            places=2,
        )
        self.assertIn("of them [MASK]: 1.000", out)
        self.assertIn("of them as they were: 0.000", out)
        self.assertIn("special tokens hidden: 0\n", out)
        count = (before["padding_mask"] > 0).any(axis=1).sum()
        self.assertIn(f"rows: {count}\n", out)

    @parameterized.parameters(
        ({"model": "tiny", "masked_unit": "words"}, "--masked_unit has no"),
        ({"model": "tiny", "rows": 2}, "--rows has no effect"),
        ({"records": "facts", "vocab_size": 99}, "--vocab_size has no"),
        ({"records": "facts", "seq_length": 64}, "--seq_length has no"),
    )
    def test_describe_refuses_flags_of_another_table(self, flags, text):
        if "records" in flags:
            flags = flags | {"records": folder(flags["records"])}
        code, _, error = mains.call("trainers.describe", **flags)
        self.assertEqual(code, 1)
        self.assertIn(text, error)

    def test_an_evaluation_masks_as_the_training_did(self):
        output = os.path.join(self.create_tempdir().full_path, "run")
        flags = {
            "records": folder("facts"),
            "output": output,
            "model": "tiny",
            "steps": 2,
            "batch_size": 16,
            "report_to": "",
            "evaluate_batches": 1000,
        }
        code, _, error = mains.call(
            "trainers.pretrain",
            **flags,
            masked_unit="words",
            masked_group="spans",
            mask_token_prob=0.5,
        )
        self.assertEqual((code, error), (0, ""))
        metrics = bert_keras.evaluate(
            output, os.path.join(folder("facts"), "dev"), batch_size=16
        )
        with open(os.path.join(output, "log.jsonl"), encoding="utf-8") as file:
            *_, last = (json.loads(line) for line in file)
        for name, value in metrics.items():
            self.assertAlmostEqual(last[f"dev/{name}"], value, places=5)
        with self.assertRaisesRegex(errors.InputError, "where words begin"):
            bert_keras.evaluate(output, os.path.join(folder("plain"), "dev"))

    @parameterized.parameters((3, 3), (9, 1))
    def test_a_step_after_the_last_is_refused(self, step, steps):
        with self.assertRaisesRegex(errors.InputError, "before the last of"):
            shown_rows.read(
                folder("facts"),
                masked_lm.MaskedLM(),
                count=1,
                step=step,
                steps=steps,
            )

    def test_describe_needs_one_thing_to_describe(self):
        code, _, error = mains.call(
            "trainers.describe", records=folder("facts"), model="tiny"
        )
        self.assertEqual(code, 1)
        self.assertIn("--model, --checkpoint and --records", error)

    @pytest.mark.slow
    def test_a_run_learns_with_all_of_it(self):
        output = os.path.join(self.create_tempdir().full_path, "run")
        code, _, error = mains.call(
            "trainers.pretrain",
            records=folder("facts"),
            output=output,
            model="tiny",
            steps=30,
            batch_size=16,
            learning_rate=5e-3,
            masked_unit="words,phrases,entities",
            masked_group="ngrams",
            mask_alike=True,
            random_tokens="frequency",
            masked_lm_prob_end=0.3,
            report_to="",
        )
        self.assertEqual((code, error), (0, ""))
        with open(os.path.join(output, "log.jsonl"), encoding="utf-8") as file:
            log = [json.loads(line) for line in file]
        losses = [line["loss"] for line in log if "loss" in line]
        self.assertLess(losses[-1], losses[0])


if __name__ == "__main__":
    absltest.main()
