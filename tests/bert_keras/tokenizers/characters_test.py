"""A tokenizer of one file, which holds a table, goes through everything."""

import functools
import os

import numpy as np
import tensorflow as tf
from absl.testing import absltest

import bert_keras
from bert_keras import checkpoint, errors, predictor, vocabulary_surgery
from bert_keras import model as model_lib
from bert_keras.data import corpus, corpus_chunks, pretraining_records, records
from bert_keras.device import tflite_sidecars
from bert_keras.formats import google, hugging_face, keras_hub
from bert_keras.networks import bert
from bert_keras.serving import saved_model
from bert_keras.training import parallel_map
from tests import tiny
from tests.bert_keras.tokenizers import characters

KNOWN = "abcdefghilmnoprstuvwy.,!电影很好"
TEXTS = ["a good film!", "dull, very dull.", "电影 good", "", " Q q "]


class CharactersTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        folder = self.folder()
        characters.Characters(KNOWN).save(folder)
        self.tokenizer = characters.Characters.from_folder(folder)

    def folder(self):
        return self.create_tempdir().full_path

    def test_words_and_text_can_be_told_from_ids(self):
        ids, starts, ends = self.tokenizer.with_offsets(TEXTS)
        words = tf.reduce_sum(
            tf.cast(self.tokenizer.word_starts(ids), tf.int32), axis=1
        )
        self.assertEqual(words.numpy().tolist(), [4, 5, 3, 0, 2])
        text = self.tokenizer.detokenize(ids).numpy()
        self.assertEqual(text[0].decode(), "a good film !")
        self.assertEqual(self.tokenizer(text[:2]).to_list(), ids[:2].to_list())
        for row, text in enumerate(TEXTS):
            for token, start, end in zip(
                self.tokenizer.tokens(ids[row].numpy()),
                *(x[row].numpy() for x in (starts, ends)),
                strict=True,
            ):
                self.assertIn(
                    token, (f"▁{text[start:end]}", text[start:end], "[UNK]")
                )

    def test_processes_that_write_records_build_their_own(self):
        path = os.path.join(self.folder(), "corpus.txt")
        with open(path, "w", encoding="utf-8") as file:
            for number in range(12):
                file.write(f"A good film.\nVery {'dull ' * number}.\n\n")
        shards = []
        for processes in (1, 2):
            settings = pretraining_records.ShardSettings(
                folder=self.folder(),
                tokenizer=self.tokenizer,
                seq_length=32,
                objective="none",
            )
            partition = corpus_chunks.Partition(
                corpus.scan([path]),
                held_out=0.0,
                deduplicate=True,
                chunk_bytes=100,
            )
            make = functools.partial(
                pretraining_records.write_shards, settings=settings
            )
            results = list(parallel_map.in_order(make, partition, processes))
            self.assertGreater(len(results), 1)
            shards.append([each["shards"] for each in results])
        self.assertEqual(*shards)
        folder = os.path.join(settings.folder, "train")
        self.tokenizer.save(folder)
        records.write_manifest(
            folder,
            [entry for entries in shards[0] for entry in entries],
            **records.tokenizer_metadata(self.tokenizer),
        )
        records_read = records.Records(folder)
        self.assertEqual(
            records_read.tokenizer().fingerprint, self.tokenizer.fingerprint
        )
        ids = records_read.read(np.arange(1), 32)["inputs/token_ids"]
        self.assertEqual(
            self.tokenizer.detokenize(tf.constant(ids)).numpy()[0][:4], b"[UNK"
        )

    def test_what_is_made_for_wordpieces_refuses_it(self):
        model = tiny.masked_lm_model(vocab_size=self.tokenizer.vocab_size)
        folder = self.folder()
        for refuse in (
            lambda: google.write(folder, model, self.tokenizer),
            lambda: hugging_face.write(folder, model, self.tokenizer),
            lambda: keras_hub.write(folder, model, self.tokenizer),
            lambda: vocabulary_surgery.add_tokens(model, self.tokenizer, ["x"]),
            lambda: vocabulary_surgery.prune_tokens(
                model, self.tokenizer, ["x"]
            ),
        ):
            with self.assertRaisesRegex(
                errors.InputError, "WordPiece .* this model is Characters"
            ):
                refuse()
        self.assertEmpty(os.listdir(folder))

    def test_its_files_are_beside_a_tflite_file(self):
        model = tiny.masked_lm_model(vocab_size=self.tokenizer.vocab_size)
        answers = predictor.Predictor(model, self.tokenizer)
        folder = self.folder()
        names = tflite_sidecars.write(answers, folder, folder)
        self.assertEqual(names, ["characters.txt"])
        self.assertEqual(os.listdir(folder), names)

    def test_it_fine_tunes_predicts_and_is_served(self):
        table = os.path.join(self.folder(), "rows.tsv")
        with open(table, "w", encoding="utf-8") as file:
            file.write("text\tlabel\n")
            for _ in range(4):
                file.write("a good film\tgood\nvery, very dull\tbad\n")
        init, output = self.folder(), os.path.join(self.folder(), "run")
        encoder = bert.BertEncoder(
            tiny.bert(vocab_size=self.tokenizer.vocab_size)
        )
        checkpoint.save(
            init, model_lib.BertModel(encoder, None), self.tokenizer, step=1
        )
        model = bert_keras.finetune(
            init,
            table,
            table,
            task="classification",
            output=output,
            seq_length=16,
            epochs=2,
            batch_size=4,
            max_checkpoints_to_keep=1,
        )
        self.assertIn(
            "characters.txt", os.listdir(os.path.join(output, "records"))
        )
        self.assertIsInstance(model.tokenizer, characters.Characters)
        again = predictor.load(output)
        self.assertEqual(again.predict(TEXTS), model.predict(TEXTS))
        served = tf.saved_model.load(
            saved_model.export(model, os.path.join(self.folder(), "served"))
        )
        answers = served.signatures["serving_default"](text=tf.constant(TEXTS))
        self.assertEqual(
            [label.decode() for label in answers["label"].numpy()],
            [answer["label"] for answer in model.predict(TEXTS)],
        )


if __name__ == "__main__":
    absltest.main()
