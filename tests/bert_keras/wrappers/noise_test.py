"""Noise of labelled rows: its shares, and labels that move with tokens."""

import functools
import os
import re

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import errors
from bert_keras.data import noise as noise_lib
from bert_keras.data import packing
from bert_keras.tasks import (
    base,
    classification,
    intent_slots,
    masked_lm,
    question_answering,
    tagging,
)
from bert_keras.wrappers import noise, r_drop
from tests import tiny
from tests.trainers.mains import write

TOKENIZER = tiny.tokenizer()
SENTENCES = ("the plot .", "a new actor ! !", "old")
ENDS = (".", "!", "?")


def row(text, label):
    """A row of any task: a class, and a tag for each word."""
    words = [match.span() for match in re.finditer(r"\S+", text)]
    return {
        "text": text,
        "label": label,
        "words": " ".join(f"{start}-{end}" for start, end in words),
        "tags": " ".join(["B-A", *["O"] * (len(words) - 1)]),
    }


ROWS = [
    row("the film is very good", "good"),
    row("很 好 电影 ! the plots", "good"),
    row("a dull old story .", "bad"),
    row("bad", "bad"),
]


def one_by_one(is_token, ordinary, uniform, swap, delete, insert):
    """`noise.edit` of one row, token by token."""
    length = len(is_token)
    moved, deleted, inserted = np.split(uniform[:-1], 3)
    order = list(range(length))
    for place in range(int(uniform[-1] < 0.5), length - 1, 2):
        if moved[place] < swap and ordinary[place] and ordinary[place + 1]:
            order[place : place + 2] = place + 1, place
    kept = [
        place
        for place in order
        if is_token[place] and not (ordinary[place] and deleted[place] < delete)
    ]
    room = length - len(kept)
    result = []
    for place in kept:
        if ordinary[place] and inserted[place] < insert and room:
            result.append((place, True))
            room -= 1
        result.append((place, False))
    padding = [(length, False)] * (length - len(result))
    return result + padding


class EditTest(parameterized.TestCase):
    @parameterized.parameters(
        (0.3, 0.0, 0.0), (0.0, 0.4, 0.0), (0.0, 0.0, 0.9), (0.5, 0.3, 0.5)
    )
    def test_it_is_the_edit_of_one_token_after_the_other(self, *shares):
        rows, length = 200, 12
        random = np.random.default_rng(0)
        sizes = random.integers(0, length + 1, (rows, 1))
        is_token = np.arange(length) < sizes
        ordinary = is_token & (random.random((rows, length)) < 0.8)
        uniform = random.random((rows, 3 * length + 1)).astype(np.float32)
        names = ("swap_share", "delete_share", "insert_share")
        source, is_new = noise_lib.edit(
            *map(tf.constant, (is_token, ordinary, uniform)),
            **dict(zip(names, shares, strict=True)),
        )
        for index in range(rows):
            expected = one_by_one(
                is_token[index], ordinary[index], uniform[index], *shares
            )
            found = zip(
                source[index].numpy().tolist(),
                is_new[index].numpy().tolist(),
                strict=True,
            )
            self.assertEqual(list(found), expected)

    def test_the_example_of_the_docstring(self):
        ordinary = tf.constant([[False, True, True, False, False]])
        is_token = tf.constant([[True] * 4 + [False]])
        moved, inserted = np.ones((2, 5), np.float32)
        moved[1] = inserted[2] = 0
        uniform = np.concatenate([moved, np.ones(5), inserted, [0]])[np.newaxis]
        source, is_new = noise_lib.edit(
            is_token,
            ordinary,
            tf.constant(uniform, tf.float32),
            swap_share=0.1,
            delete_share=0.1,
            insert_share=0.1,
        )
        self.assertEqual(source.numpy().tolist(), [[0, 2, 2, 1, 3]])
        self.assertEqual(is_new.numpy().tolist(), [[0, 1, 0, 0, 0]])


def packed(count, length):
    """Rows of two texts, then of one, all of up to 24 tokens, and seeds."""
    random = np.random.default_rng(3)
    words = [*tiny.VOCABULARY[5:22], *ENDS * 2]
    first, second = (
        TOKENIZER(
            [
                " ".join(random.choice(words, random.integers(1, 9)))
                for _ in range(count)
            ]
        )
        for _ in range(2)
    )
    half = count // 2
    parts = [
        packing.pack(segments, TOKENIZER.frame, seq_length=length)
        for segments in ([first[:half], second[:half]], [first[half:]])
    ]
    names = ("token_ids", "segment_ids", "padding_mask")
    padded = {
        name: tf.concat(
            [
                tf.pad(x[name], [[0, 0], [0, length - x[name].shape[1]]])
                for x in parts
            ],
            axis=0,
        )
        for name in names
    }
    seeds = tf.stack([tf.fill([count], 7), tf.range(count)], axis=1)
    return padded, seeds


class InsertSpanTest(absltest.TestCase):
    def test_the_examples_of_the_docstrings(self):
        # [CLS] a . b . [SEP] and padding.
        is_special = tf.constant([[1, 0, 0, 0, 0, 1, 0]]) > 0
        ordinary = tf.constant([[0, 1, 1, 1, 1, 0, 0]]) > 0
        is_end = tf.constant([[0, 0, 1, 0, 1, 0, 0]]) > 0
        borders = noise_lib.sentence_borders(ordinary, is_special, is_end)
        self.assertEqual(
            borders.numpy().astype(int).tolist(), [[0, 1, 0, 1, 0, 1, 0]]
        )
        source, span, offset = noise_lib.insert_span(
            tf.constant([[True] * 3 + [False] * 2]),
            tf.constant([[False, True, False, False, False]]),
            tf.zeros((1, 3)),
            share=1.0,
            lengths=tf.constant([2]),
        )
        self.assertEqual(source.numpy().tolist(), [[0, 1, 1, 1, 2]])
        self.assertEqual(span.numpy().tolist(), [[0]])
        self.assertEqual(offset.numpy().tolist(), [[-1, 0, 1, -1, -1]])


class FirstRow(classification.Classification):
    """Adapts to the first row alone."""

    def adapt(self, examples, tokenizer):
        next(examples)
        return self


class NoiseTest(parameterized.TestCase):
    def adapted(self, task=None, **shares):
        task = task or classification.Classification(seq_length=16)
        return noise.Noise(task, **shares).adapt(iter(ROWS), TOKENIZER)

    def features(self, rows=500, length=16):
        inputs = tiny.inputs(rows=rows, length=length)
        seeds = tf.stack([tf.fill([rows], 7), tf.range(rows)], axis=1)
        return inputs, seeds

    def ordinary(self, inputs):
        ids, mask = (
            inputs[name].numpy() for name in ("token_ids", "padding_mask")
        )
        return (mask > 0) & ~np.isin(ids, TOKENIZER.special_ids)

    def test_the_counts_are_those_of_the_training_texts(self):
        task = self.adapted(replace=0.1)
        ids = TOKENIZER([row["text"] for row in ROWS]).values.numpy()
        counts = np.bincount(ids, minlength=TOKENIZER.vocab_size)
        counts[list(TOKENIZER.special_ids)] = 0
        self.assertEqual(task.token_counts, tuple(counts))
        self.assertEqual(task.task.labels, ("bad", "good"))
        # The inner task may leave rows unread.
        again = self.adapted(FirstRow(), replace=0.1)
        self.assertEqual(again.token_counts, tuple(counts))

    def test_replaced_and_blanked_tokens_have_their_shares(self):
        inputs, seeds = self.features()
        ordinary = self.ordinary(inputs)
        before = inputs["token_ids"].numpy()
        task = self.adapted(replace=0.3)
        after, _ = task.randomize(inputs, {}, seeds)
        after = after["token_ids"].numpy()
        np.testing.assert_array_equal(after[~ordinary], before[~ordinary])
        counts = np.array(task.token_counts)
        changed = (after != before)[ordinary].mean()
        same = (counts / counts.sum())[before[ordinary]].mean()
        self.assertAlmostEqual(changed, 0.3 * (1 - same), delta=0.02)
        drawn = np.bincount(
            after[ordinary & (after != before)], minlength=len(counts)
        )
        self.assertEqual(drawn[counts == 0].sum(), 0)
        self.assertGreater(np.corrcoef(drawn, counts)[0, 1], 0.9)

        blanks, _ = self.adapted(blank=0.2).randomize(inputs, {}, seeds)
        is_blank = blanks["token_ids"].numpy() == TOKENIZER.mask_id
        self.assertAlmostEqual(is_blank[ordinary].mean(), 0.2, delta=0.02)
        self.assertFalse(is_blank[~ordinary].any())

    @parameterized.parameters(0.2, 0.6, 1.0)
    def test_neighbours_change_places_as_often_as_said(self, share):
        rows, length = 400, 21
        ones = tf.ones((rows, length), tf.bool)
        uniform = np.random.default_rng(1).random((rows, 3 * length + 1))
        source, _ = noise_lib.edit(
            ones,
            ones,
            tf.constant(uniform, tf.float32),
            swap_share=share,
            delete_share=0.0,
            insert_share=0.0,
        )
        moved = (source.numpy() != np.arange(length))[:, 1:-1].mean()
        self.assertAlmostEqual(moved, share, delta=0.02)

    def test_inserted_tokens_are_draws_of_their_own(self):
        inputs, seeds = self.features()
        task = self.adapted(replace=0.5, insert=0.5)
        after, _ = task.randomize(inputs, {}, seeds)
        ids = after["token_ids"].numpy()
        # If an inserted token had the draw of a replaced one, it would be
        # equal to it far more often than to the next but one.
        ordinary = self.ordinary(after)
        near = (ids[:, :-1] == ids[:, 1:])[ordinary[:, :-1] & ordinary[:, 1:]]
        far = (ids[:, :-2] == ids[:, 2:])[ordinary[:, :-2] & ordinary[:, 2:]]
        self.assertAlmostEqual(near.mean(), far.mean(), delta=0.03)

    def test_what_is_no_value_of_a_token_stays(self):
        class Numbered(classification.Classification):
            stored_features = {"row": None, "word": base.TOKENS}

        task = self.adapted(Numbered(seq_length=16), delete=0.5)
        inputs, seeds = self.features(20)
        row = tf.tile(tf.range(16)[tf.newaxis], (20, 1))
        after, _ = task.randomize(
            inputs | {"row": row, "word": inputs["token_ids"]}, {}, seeds
        )
        np.testing.assert_array_equal(after["row"], row)
        np.testing.assert_array_equal(after["word"], after["token_ids"])

    @parameterized.parameters("swap", "delete", "insert")
    def test_labels_and_segments_move_with_their_tokens(self, name):
        inner = tagging.Tagging(seq_length=16, types=("A", "B"))
        task = self.adapted(inner, **{name: 0.4})
        inputs, seeds = self.features()
        ordinary = self.ordinary(inputs)
        # Labels and weights that tell the token and its segment.
        labels = inputs["token_ids"] * 10 + inputs["segment_ids"]
        weights = tf.cast(ordinary, tf.float32)
        after, targets = task.randomize(
            inputs, {"tag": (labels, weights)}, seeds
        )
        moved, kept = (x.numpy() for x in targets["tag"])
        ids = after["token_ids"].numpy()
        own = ids * 10 + after["segment_ids"].numpy()
        np.testing.assert_array_equal(moved[kept > 0], own[kept > 0])
        size = kept.sum() / weights.numpy().sum()
        tokens = self.ordinary(after).sum() / ordinary.sum()
        if name == "delete":
            self.assertAlmostEqual(size, 0.6, delta=0.03)
            self.assertAlmostEqual(tokens, 0.6, delta=0.03)
        else:
            self.assertEqual(size, 1)
        if name == "insert":
            self.assertBetween(tokens, 1.1, 1.4)  # as there is room
        if name == "swap":
            self.assertEqual(tokens, 1)
            self.assertGreater((ids != inputs["token_ids"]).numpy().mean(), 0.1)
        # Special tokens stay, in their order, and padding is at the end.
        for index in range(50):
            specials = [
                [t for t in x[index].tolist() if t in TOKENIZER.special_ids]
                for x in (
                    ids * (after["padding_mask"].numpy() > 0),
                    inputs["token_ids"].numpy(),
                )
            ]
            specials = [[t for t in x if t] for x in specials]
            self.assertEqual(*specials)
            mask = after["padding_mask"][index].numpy() > 0
            self.assertTrue((np.diff(mask.astype(int)) <= 0).all())

    def with_sentences(self, task=None, share=1.0, sentences=SENTENCES):
        path = os.path.join(self.create_tempdir().full_path, "neutral.txt")
        write(path, "\n".join(sentences))
        return self.adapted(task, sentence=share, sentences_file=path)

    def test_sentences_are_inserted_at_borders_with_their_labels(self):
        """Without the inserted tokens, the row is what it was."""
        inner = tagging.Tagging(seq_length=16, types=("A", "B"))
        task = self.with_sentences(inner)
        ids = TOKENIZER(SENTENCES).to_list()
        inputs, seeds = packed(400, 16)
        before = inputs["token_ids"].numpy()
        labels = inputs["token_ids"] * 10 + inputs["segment_ids"]
        weights = tf.cast(self.ordinary(inputs), tf.float32)
        features, targets = task.randomize(
            inputs, {"tag": (labels, weights)}, seeds
        )
        counts = {"none": 0, "start": 0, "between": 0, "end": 0}
        for index in range(len(before)):
            length, after = (
                int(x["padding_mask"][index].numpy().sum())
                for x in (inputs, features)
            )
            row = features["token_ids"][index].numpy().tolist()
            old = before[index].tolist()
            kept = targets["tag"][1][index].numpy()
            if after == length:
                counts["none"] += 1
                self.assertEqual(row, old)
                continue
            begin = next(
                place
                for place in range(after)
                if row[place : place + after - length] in ids
                and row[:place] + row[place + after - length :]
                == old[:place] + old[place : 16 - (after - length)]
                and not kept[place : place + after - length].any()
            )
            new = slice(begin, begin + after - length)
            where = self.border(old, begin)
            counts[where] += 1
            for name, values, original in (
                ("segments", features["segment_ids"], inputs["segment_ids"]),
                ("labels", targets["tag"][0], labels),
                ("weights", targets["tag"][1], weights),
            ):
                left = np.delete(values[index].numpy(), new)[:length]
                np.testing.assert_array_equal(
                    left, original[index].numpy()[:length], name
                )
            segments = features["segment_ids"][index].numpy()
            self.assertEqual(set(segments[new]), {segments[new.stop]})
        for where, count in counts.items():
            self.assertGreater(count, 5, where)

    def border(self, row, place):
        """The kind of border before a token of a row."""
        before, token = row[place - 1], row[place]
        if token in TOKENIZER.special_ids:
            return "end"
        if before in TOKENIZER.special_ids:
            return "start"
        words = TOKENIZER.tokens([before, token])
        self.assertIn(words[0], ENDS)
        self.assertNotIn(words[1], ENDS)
        return "between"

    @parameterized.parameters(
        (["the film", "\u200b"], "expected sentences of 1 to 14 tokens.*of 0"),
        (["the film " * 8, "the film is " * 8], "of 1 to 14 tokens.*of 16"),
    )
    def test_sentences_that_are_never_inserted_are_refused(self, texts, text):
        inner = tagging.Tagging(seq_length=16, types=("A", "B"))
        with self.assertRaisesRegex(errors.InputError, text):
            self.with_sentences(inner, sentences=texts)

    def test_sentences_have_their_share_and_all_occur(self):
        inputs, seeds = packed(2000, 40)
        task = self.with_sentences(share=0.3)
        features, _ = task.randomize(inputs, {}, seeds)
        sizes, added = (
            (x["padding_mask"].numpy() > 0).sum(axis=1)
            for x in (inputs, features)
        )
        added -= sizes
        self.assertAlmostEqual((added > 0).mean(), 0.3, delta=0.03)
        lengths = [len(ids) for ids in TOKENIZER(SENTENCES).to_list()]
        shares = [(added == length).sum() for length in lengths]
        shares = np.array(shares) / (added > 0).sum()
        np.testing.assert_allclose(shares, 1 / 3, atol=0.07)

    def test_sentences_change_no_other_draws(self):
        inputs, seeds = packed(30, 16)
        words = ["film " * 14]  # for which no row has room
        path = os.path.join(self.create_tempdir().full_path, "long.txt")
        write(path, "\n".join(words))
        alone, _ = self.adapted(replace=0.3, delete=0.2).randomize(
            inputs, {}, seeds
        )
        both, _ = self.adapted(
            replace=0.3, delete=0.2, sentence=1.0, sentences_file=path
        ).randomize(inputs, {}, seeds)
        for name, values in alone.items():
            np.testing.assert_array_equal(values, both[name])

    def test_the_contents_of_the_file_identify_a_run(self):
        folder = self.create_tempdir().full_path
        path = functools.partial(os.path.join, folder)
        train = write(
            path("train.tsv"),
            "text\tlabel\n"
            + "".join(f"{r['text']}\t{r['label']}\n" for r in ROWS),
        )
        settings = {
            "train": train,
            "task": "classification",
            "model": "tiny",
            "vocab_size": 29,
            "seq_length": 16,
            "epochs": 1,
            "batch_size": 4,
            "report_to": "",
            "output": path("run"),
            "wrappers": "noise",
            "noise_sentence": 0.5,
        }
        file = write(path("neutral.txt"), "\n".join(SENTENCES))
        for _ in range(2):  # the second call finds it complete
            bert_keras.finetune(noise_sentences_file=file, **settings)
        write(file, "other")
        with self.assertRaisesRegex(errors.InputError, "noise_sentences_file"):
            bert_keras.finetune(noise_sentences_file=file, **settings)

    def test_values_of_rows_stay(self):
        task = self.adapted(
            intent_slots.IntentSlots(
                seq_length=16, types=("A",), intents=("x", "y")
            ),
            delete=0.5,
        )
        inputs, seeds = self.features(20)
        targets = {
            "tag": (inputs["token_ids"], tf.ones([20, 16])),
            "intent": (tf.range(20), tf.ones(20)),
        }
        _, after = task.randomize(inputs, targets, seeds)
        self.assertEqual(after["intent"][0].numpy().tolist(), list(range(20)))
        self.assertNotEqual(
            after["tag"][0].numpy().tolist(),
            inputs["token_ids"].numpy().tolist(),
        )

    def test_a_row_depends_on_its_seed_alone(self):
        task = self.adapted(replace=0.2, swap=0.2, delete=0.2, insert=0.2)
        inputs, seeds = self.features(30)
        whole, _ = task.randomize(inputs, {}, seeds)
        part, _ = task.randomize(
            {name: x[10:20] for name, x in inputs.items()}, {}, seeds[10:20]
        )
        other, _ = task.randomize(inputs, {}, seeds + [[1, 0]])
        for name, values in whole.items():
            np.testing.assert_array_equal(values[10:20], part[name])
        self.assertFalse(np.array_equal(whole["token_ids"], other["token_ids"]))

    def test_a_run_learns_and_leaves_no_trace(self):
        folder = self.create_tempdir().full_path
        train = write(
            os.path.join(folder, "train.tsv"),
            "text\tlabel\n"
            + "".join(f"{r['text']}\t{r['label']}\n" for r in ROWS),
        )
        settings = {
            "train": train,
            "task": "classification",
            "model": "tiny",
            "vocab_size": 29,
            "seq_length": 16,
            "epochs": 2,
            "batch_size": 4,
            "report_to": "",
        }
        run = os.path.join(folder, "run")
        for _ in range(2):  # the second call finds it complete
            model = bert_keras.finetune(
                output=run, wrappers="noise", noise_replace=0.3, **settings
            )
        self.assertEqual(type(model.task), classification.Classification)
        with self.assertRaisesRegex(errors.InputError, "noise_replace"):
            bert_keras.finetune(
                output=run, wrappers="noise", noise_replace=0.4, **settings
            )

    def test_it_is_saved_without_what_the_data_tell(self):
        task = self.adapted(replace=0.1, swap=0.2)
        values = task.to_dict()
        self.assertNotIn("token_counts", values)
        again = base.from_dict(values)
        self.assertEqual((again.replace, again.swap), (0.1, 0.2))
        self.assertEqual(again.task, task.task)
        outer = r_drop.RDrop(task)
        self.assertEqual(outer.task.token_counts, task.token_counts)

    def test_what_it_refuses(self):
        with self.assertRaisesRegex(errors.InputError, "a share above 0"):
            noise.Noise(classification.Classification())
        for task in (question_answering.QuestionAnswering, masked_lm.MaskedLM):
            with self.assertRaisesRegex(errors.InputError, "labelled texts"):
                noise.Noise(task(), swap=0.1)
        for half in ({"sentence": 0.1}, {"sentences_file": "some.txt"}):
            with self.assertRaisesRegex(errors.InputError, "together|above 0"):
                noise.Noise(classification.Classification(), swap=0.1, **half)
        pairs = [row | {"text_pair": row["text"]} for row in ROWS]
        both = classification.Classification(pair_order="both")
        with self.assertRaisesRegex(errors.InputError, "noise_insert=0.1"):
            noise.Noise(both, insert=0.1).adapt(iter(pairs), TOKENIZER)
        with self.assertRaisesRegex(errors.InputError, "noise_sentence=0.1"):
            noise.Noise(both, sentence=0.1, sentences_file="some.txt").adapt(
                iter(pairs), TOKENIZER
            )
        with self.assertRaisesRegex(errors.InputError, "tokens are ids"):
            noise.Noise(classification.Classification(), swap=0.1).adapt(
                iter(ROWS), tiny.characters()
            )


if __name__ == "__main__":
    absltest.main()
