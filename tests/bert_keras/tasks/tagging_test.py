import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors, predictor
from bert_keras import model as model_lib
from bert_keras.data import conll, tag_schemes
from bert_keras.networks import bert
from bert_keras.tasks import tagging
from bert_keras.tokenizers import wordpiece
from tests import tiny

# File -> vocabulary, and how many entities are not found exactly: "E12" of
# "E12http" and the like, and one that ends in a dropped U+FEFF.
FILES = {
    "wnut17/train.conll": ("bert_cased_en", 0),
    "wnut17/dev.conll": ("bert_uncased_en", 1),
    "wikigold/train.conll": ("bert_uncased_en", 0),
    "weibo_ner/train.conll": ("bert_chinese", 2),
    "weibo_ner/dev.conll": ("bert_chinese", 2),
    "msra_ner/train.conll": ("bert_chinese", 0),
    "msra_ner/dev.conll": ("bert_chinese", 0),
    "resume_ner/train.bmes": ("bert_chinese", 0),
    "resume_ner/dev.bmes": ("bert_chinese", 0),
}

ROWS = [
    {
        "text": "the actor is very good",
        "words": "0-3 4-9 10-12 13-17 18-22",
        "tags": "O B-PER O B-ADJ I-ADJ",
    },
    {"text": "电影 bad", "words": "0-2 3-6", "tags": "B-FILM B-ADJ"},
    {"text": "a plot", "words": "0-1 2-6", "tags": "O O"},
]


def right(task, inputs, targets):
    """What a model decodes that knows the answers, and is sure."""
    labels, weights = targets["tag"]
    del inputs
    return {"tag": labels, "score": weights}


def answers(task, rows, tokenizer):
    """Predictions from the targets of labelled rows, as Predictor gives."""
    raw = {name: tf.constant([row[name] for row in rows]) for name in rows[0]}
    inputs = task.preprocess(raw, tokenizer)
    decoded = right(
        task, inputs, task.make_targets(raw, inputs, tiny.tokenizer())
    )
    batch = task.postprocess(decoded, inputs, raw, tokenizer)
    batch = {name: value.numpy() for name, value in batch.items()}
    return [
        {
            name: [x.decode() if isinstance(x, bytes) else x for x in value[n]]
            for name, value in batch.items()
        }
        for n in range(len(rows))
    ]


class TaggingTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        keras.utils.set_random_seed(1)
        self.tokenizer = tiny.tokenizer()
        self.task = tagging.Tagging(seq_length=32).adapt(ROWS, self.tokenizer)

    def predictor(self, task=None):
        network = bert.BertEncoder(tiny.bert())
        model = model_lib.BertModel(network, task or self.task)
        return predictor.Predictor(model, self.tokenizer)

    def test_learns_types_and_scheme(self):
        self.assertEqual(self.task.types, ("ADJ", "FILM", "PER"))
        self.assertEqual(
            self.task.labels,
            ("O", "B-ADJ", "I-ADJ", "B-FILM", "I-FILM", "B-PER", "I-PER"),
        )
        learn = tagging.Tagging().adapt
        self.assertEqual(learn([{"tags": "B-X M-X E-X"}], None).scheme, "BMES")
        self.assertEqual(learn([{"tags": "I-X I-X O"}], None).scheme, "BIO")
        self.assertLen(learn([{"tags": "S-X"}], None).labels, 5)

    def test_no_entity_is_not_enough(self):
        with self.assertRaisesRegex(errors.InputError, "expected entities"):
            tagging.Tagging().adapt([{"tags": "O O"}], None)

    def test_an_unknown_type_is_named(self):
        rows = [ROWS[0] | {"tags": "O B-DOG O O O"}]
        with self.assertRaisesRegex(errors.InputError, "'DOG'"):
            answers(self.task, rows, self.tokenizer)

    def test_only_first_pieces_of_words_count(self):
        raw = {"text": tf.constant(["films, is good"])}
        raw |= {"words": ["0-6 7-9 10-14"], "tags": ["B-FILM O B-ADJ"]}
        raw = {name: tf.convert_to_tensor(value) for name, value in raw.items()}
        inputs = self.task.preprocess(raw, self.tokenizer)
        # [CLS] film ##s , is good [SEP]
        self.assertEqual(
            inputs["start"].numpy()[0].tolist(), [-1, 0, -1, 5, 7, 10, -1]
        )
        self.assertEqual(
            inputs["end"].numpy()[0].tolist(), [-1, 5, -1, 6, 9, 14, -1]
        )
        labels, weights = self.task.make_targets(raw, inputs, tiny.tokenizer())[
            "tag"
        ]
        self.assertEqual(weights.numpy()[0].tolist(), [0, 1, 0, 1, 1, 1, 0])
        self.assertEqual(
            [self.task.labels[label] for label in labels.numpy()[0]],
            ["O", "B-FILM", "O", "I-FILM", "O", "B-ADJ", "O"],
        )

    def test_answers_are_places_in_the_text(self):
        rows = [
            ROWS[0],
            {"text": "", "words": "", "tags": ""},
            {
                "text": "😀 filḿs\u200b .",
                "words": "0-1 2-9 10-11",
                "tags": "O B-FILM O",
            },
            *ROWS[1:],
        ]
        predictions = answers(self.task, rows, self.tokenizer)
        self.assertEqual(predictions[0]["type"], ["PER", "ADJ"])
        self.assertEqual(predictions[0]["text"], ["actor", "very good"])
        self.assertEqual(predictions[0]["start"], [4, 13])
        self.assertEqual(predictions[0]["end"], [9, 22])
        self.assertEqual(predictions[0]["score"], [1, 1])
        self.assertEqual(predictions[1]["start"], [-1, -1])
        self.assertEqual(predictions[2]["text"], ["filḿs", ""])
        self.assertEqual(predictions[3]["text"], ["电影", "bad"])
        self.assertEqual(predictions[4]["type"], ["", ""])
        self.assertEqual(
            self.task.to_python(predictions[2])["text"],
            predictions[2]["text"][:1],
        )
        self.assertEqual(self.task.to_python(predictions[4])["score"], [])
        self.assertEqual(self.task.metrics(predictions, rows)["f1"], 1.0)
        table = self.task.tables(predictions[:3], rows[:3])["types"]
        self.assertEqual(tuple(table.rows), self.task.types)
        by_type = dict(zip(table.rows, table.values.tolist(), strict=True))
        self.assertEqual(by_type["ADJ"], [1, 1, 1, 1, 1])
        wrong = self.task.tables(predictions[:2], [rows[1], rows[0]])["types"]
        self.assertEqual(wrong.values[:, :3].max(), 0)
        # The places of one text mean nothing in another, here an empty one.
        self.assertEqual(wrong.values[:, 3:].sum(axis=0).tolist(), [2, 0])

    def test_the_score_of_an_entity_is_the_mean_of_its_words(self):
        rows = [
            {
                "text": "actor films very good plot",
                "words": "0-5 6-11 12-16 17-21 22-26",
                "tags": "B-PER O B-ADJ I-ADJ I-ADJ",
            }
        ]
        raw = {name: tf.constant([value]) for name, value in rows[0].items()}
        inputs = self.task.preprocess(raw, self.tokenizer)
        labels, _ = self.task.make_targets(raw, inputs, tiny.tokenizer())["tag"]
        # [CLS] actor film ##s very good plot [SEP]; 0.125 is the score of a
        # token that does not start a word.
        scores = [[0.125, 0.75, 1.0, 0.125, 0.5, 0.25, 0.9, 0.125]]
        decoded = {"tag": labels, "score": tf.constant(scores)}
        batch = self.task.postprocess(decoded, inputs, raw, self.tokenizer)
        self.assertEqual(batch["type"].numpy().tolist(), [[b"PER", b"ADJ"]])
        np.testing.assert_allclose(batch["score"], [[0.75, 0.55]], rtol=1e-6)

    @parameterized.parameters(1, 3, 5, 30)
    def test_windows_are_merged_to_the_answer_of_one_row(self, stride):
        short = dataclasses.replace(self.task, seq_length=8, stride=stride)
        rows = [
            {
                "text": " ".join(["very", "good", "films", "actor"] * n),
                "tags": " ".join(["B-ADJ I-ADJ O B-PER"] * n),
            }
            for n in (0, 1, 2, 5)
        ]
        rows = [row | {"words": _offsets(row["text"])} for row in rows]
        whole = dataclasses.replace(self.task, seq_length=64)
        self.assertEqual(
            answers(short, rows, self.tokenizer),
            answers(whole, rows, self.tokenizer),
        )
        raw = {name: tf.constant([r[name] for r in rows]) for name in rows[0]}
        inputs = short.preprocess(raw, self.tokenizer)
        self.assertGreater(len(inputs["example_index"]), len(rows))
        _, weights = short.make_targets(raw, inputs, tiny.tokenizer())["tag"]
        words = sum(len(row["text"].split()) for row in rows)
        self.assertEqual(int(tf.reduce_sum(weights)), words)

    def test_a_tiny_set_is_learnt_to_f1_1(self):
        model = self.predictor()
        raw = {name: tf.constant([r[name] for r in ROWS]) for name in ROWS[0]}
        inputs = self.task.preprocess(raw, self.tokenizer)
        targets = self.task.make_targets(raw, inputs, tiny.tokenizer())
        optimizer = keras.optimizers.Adam(1e-2)

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                outputs = model.model(inputs)
                loss = self.task.loss(outputs, inputs, targets)["tag"]
            variables = [
                v
                for v in model.model.trainable_variables
                if "pooler" not in v.path
            ]
            gradients = tape.gradient(loss, variables)
            optimizer.apply_gradients(zip(gradients, variables, strict=True))

        for _ in range(60):
            step()
        self.assertEqual(
            self.task.metrics(model.predict(ROWS), ROWS),
            {"precision": 1.0, "recall": 1.0, "f1": 1.0},
        )

    def test_any_bytes_are_answered(self):
        texts = ["", " ", "😀", b"\xff\xfea\xc3", "\x00", "\u0301", "很" * 99]
        batch = self.predictor().serve_text(text=tf.constant(texts))
        self.assertEqual(batch.pop("truncated").shape, (len(texts),))
        for value in batch.values():
            self.assertEqual(value.shape, batch["type"].shape)
        for text, starts, ends, parts in zip(
            texts,
            batch["start"].numpy(),
            batch["end"].numpy(),
            batch["text"].numpy(),
            strict=True,
        ):
            if isinstance(text, bytes):
                text = text.decode("utf-8", "ignore")
            for start, end, part in zip(starts, ends, parts, strict=True):
                part = part.decode()
                self.assertEqual(part, text[start:end] if start >= 0 else "")

    @parameterized.parameters(*FILES)
    @pytest.mark.slow_after(2)
    def test_every_entity_of_a_real_file_is_a_place(self, name):
        path = f"{tiny.SHARED_DATA}/{name}"
        if not tf.io.gfile.exists(path):
            self.skipTest(f"real data is absent: {path}")
        vocabulary, exceptions = FILES[name]
        tokenizer = wordpiece.Tokenizer.from_file(
            f"{tiny.SHARED_DATA}/vocab/{vocabulary}_vocab.txt"
        )
        rows = list(conll.examples(path))
        task = tagging.Tagging(seq_length=64, stride=32).adapt(rows, None)
        predictions = answers(task, rows, tokenizer)
        missing = 0
        for row, answer in zip(rows, predictions, strict=True):
            offsets, text = conll.word_offsets(row["words"]), row["text"]
            expected = {
                (entity_type, offsets[first][0], offsets[last - 1][1])
                for entity_type, first, last in tag_schemes.spans(
                    row["tags"].split()
                )
            }
            got = set(
                zip(answer["type"], answer["start"], answer["end"], strict=True)
            ) - {("", -1, -1)}
            missing += len(expected - got)
            for start, end, part in zip(
                answer["start"], answer["end"], answer["text"], strict=True
            ):
                self.assertEqual(part, text[start:end] if start >= 0 else "")
        self.assertEqual(missing, exceptions)
        self.assertGreater(task.metrics(predictions, rows)["f1"], 0.99)


def _offsets(text):
    offsets, start = [], 0
    for word in text.split():
        offsets.append(f"{start}-{start + len(word)}")
        start += len(word) + 1
    return " ".join(offsets)


if __name__ == "__main__":
    absltest.main()
