"""A fact per token goes through everything, whatever the tokenizer is."""

import os

import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import checkpoint, predictor
from bert_keras import model as model_lib
from bert_keras.data import batches, records
from bert_keras.networks import bert
from bert_keras.serving import saved_model
from bert_keras.tokenizers import wordpiece
from bert_keras.training import input_pipeline, labelled_records
from tests import tiny
from tests.bert_keras.tasks import word_dropout
from tests.bert_keras.tokenizers import characters

ROWS = [
    {"text": "good films, a good story", "label": "good"},
    {"text": "dull actors", "label": "bad"},
    {"text": "很好", "label": "good"},
    {"text": "", "label": "bad"},
]
WORDS = [6, 2, 2, 0]


def tokenizers(folder):
    tokenizer = tiny.tokenizer()
    tokenizer.save(folder)
    yield wordpiece.Tokenizer.from_folder(folder, lowercase=True)
    tokenizer = characters.Characters("goadfilms,tryuc很好")
    tokenizer.save(folder)
    yield characters.Characters.from_folder(folder)


class WordDropoutTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        folder = self.create_tempdir().full_path
        self.tokenizers = list(tokenizers(folder))

    @parameterized.parameters(0, 1)
    def test_words_are_hidden_with_all_of_their_tokens(self, number):
        tokenizer = self.tokenizers[number]
        task = word_dropout.WordDropout(seq_length=40).adapt(ROWS, tokenizer)
        folder = self.create_tempdir().full_path
        encoded = list(labelled_records.encode(task, tokenizer, ROWS))
        shard = records.write_shard(
            os.path.join(folder, records.shard_name(0)),
            labelled_records.to_columns(task, tokenizer, encoded),
        )
        records.write_manifest(folder, [shard])
        records_read = records.Records(folder)
        sampler = batches.BatchSampler(records_read.lengths, 4, shuffle=False)
        dropped = set()
        for batch in input_pipeline.batches(
            tf.distribute.get_strategy(),
            task,
            records_read,
            sampler,
            stop_step=20,
        ):
            ids, word = (
                batch["inputs"][name].numpy() for name in ("token_ids", "word")
            )
            self.assertEqual(word.max(axis=1).tolist(), WORDS)
            for row in range(4):
                for each in range(1, WORDS[row] + 1):
                    tokens = ids[row][word[row] == each]
                    self.assertIn((tokens == tokenizer.mask_id).mean(), (0, 1))
                    if tokens[0] == tokenizer.mask_id:
                        dropped.add((row, each))
            self.assertNotIn(tokenizer.mask_id, ids[word == 0])
        self.assertLen(dropped, sum(WORDS))

    @parameterized.parameters(0, 1)
    def test_it_is_trained_saved_asked_and_served(self, number):
        tokenizer = self.tokenizers[number]
        folder = self.create_tempdir().full_path
        table = os.path.join(folder, "rows.tsv")
        with open(table, "w", encoding="utf-8") as file:
            file.write("text\tlabel\n")
            for row in ROWS[:3]:
                file.write(f"{row['text']}\t{row['label']}\n")
        encoder = bert.BertEncoder(tiny.bert(vocab_size=tokenizer.vocab_size))
        init, output = (os.path.join(folder, x) for x in ("init", "run"))
        checkpoint.save(
            init, model_lib.BertModel(encoder, None), tokenizer, step=1
        )
        bert_keras.finetune(
            init,
            table,
            table,
            task=word_dropout.WordDropout(seq_length=40),
            output=output,
            epochs=1,
            batch_size=2,
        )
        model = predictor.load(output)
        texts = [row["text"] for row in ROWS]
        answers = model.predict(texts)
        self.assertEqual([answer["words"] for answer in answers], WORDS)
        served = tf.saved_model.load(
            saved_model.export(model, os.path.join(folder, "served"))
        )
        got = served.signatures["serving_default"](text=tf.constant(texts))
        self.assertEqual(got["words"].numpy().tolist(), WORDS)


if __name__ == "__main__":
    absltest.main()
