"""Entities of a corpus that a tagger finds, from its text to the records."""

import collections
import os
import tempfile

from absl.testing import absltest

import bert_keras
from bert_keras import checkpoint, errors
from bert_keras import model as model_lib
from bert_keras.data import records
from bert_keras.tasks import classification, tagging
from bert_keras.training import found_entities, prepare
from tests import sharp, tiny
from tests.trainers import mains


class FoundEntitiesTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.mkdtemp()
        cls.corpus = mains.write(f"{cls.folder}/corpus.txt", mains.CORPUS)
        cls.vocab = mains.write(
            f"{cls.folder}/vocab.txt", "\n".join(tiny.VOCABULARY)
        )
        cls.tagger = cls.save(tagging.Tagging(types=("A", "B"), seq_length=24))
        cls.names = cls.prepare("names", entity_tagger=cls.tagger)

    @classmethod
    def save(cls, task, seed=1):
        """Saves a tiny model with random weights, whose answers vary."""
        folder = f"{cls.folder}/{task.name}-{seed}"
        model = model_lib.BertModel(tiny.bert().build_encoder(), task)
        sharp.spread(model, seed)
        checkpoint.save(folder, model, tiny.tokenizer(), step=1)
        return folder

    @classmethod
    def prepare(cls, name, **settings):
        """Returns the path of a file of the records."""
        prepare.prepare(
            cls.corpus,
            output=f"{cls.folder}/{name}",
            **{
                "vocab": cls.vocab,
                "seq_length": 32,
                "dev_fraction": 0.1,
                "word_boundaries": "tokenizer",
            }
            | settings,
        )
        return f"{cls.folder}/{name}"

    def test_names_are_what_the_tagger_marks_twice_or_more(self):
        texts = [line for line in mains.CORPUS.splitlines() if line]
        counts = collections.Counter(
            name
            for answer in bert_keras.load(self.tagger).predict(texts)
            for name in answer["text"]
        )
        with open(os.path.join(self.names, "entities.txt")) as file:
            names = file.read().splitlines()
        expected = [name for name, n in counts.items() if n >= 2]
        self.assertCountEqual(names, expected)
        self.assertNotEmpty(names)
        self.assertIn(1, counts.values())  # some are left out
        frequencies = [counts[name] for name in names]
        self.assertEqual(frequencies, sorted(frequencies, reverse=True))

    def test_the_records_are_those_of_the_list(self):
        path = os.path.join(self.names, "entities.txt")
        listed = self.prepare("listed", entities=path)
        for split in ("train", "dev"):
            both = [
                records.Records(os.path.join(folder, split)).manifest
                for folder in (self.names, listed)
            ]
            self.assertEqual(both[0]["units"], ["words", "entities"])
            self.assertEqual(both[0]["shards"], both[1]["shards"])

    def test_a_complete_preparation_needs_no_second_look(self):
        path = os.path.join(self.names, "entities.txt")
        before = os.stat(path).st_mtime_ns
        self.prepare("names", entity_tagger=self.tagger)
        self.assertEqual(os.stat(path).st_mtime_ns, before)

    def test_another_tagger_is_another_preparation(self):
        task = tagging.Tagging(types=("A", "B"), seq_length=24)
        with self.assertRaisesRegex(errors.InputError, "of entity_tagger"):
            self.prepare("names", entity_tagger=self.save(task, seed=2))

    def test_what_it_refuses(self):
        classifier = self.save(
            classification.Classification(labels=("a", "b"), seq_length=24)
        )
        for settings, message in (
            ({"entities": self.vocab}, "expected one list of names"),
            ({"word_boundaries": "none"}, "has no effect without"),
            ({"entity_tagger": classifier}, "of tagging, found one of classif"),
        ):
            with self.assertRaisesRegex(errors.InputError, message):
                self.prepare(
                    "refused", **{"entity_tagger": self.tagger} | settings
                )

    def test_without_a_name_there_is_no_list(self):
        model = found_entities.load_tagger(self.tagger)
        with self.assertRaisesRegex(errors.InputError, "none among 0 names"):
            found_entities.write(self.folder, model, iter([]))


if __name__ == "__main__":
    absltest.main()
