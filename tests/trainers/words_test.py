"""The command `bert-keras words`, on a tiny model."""

import json
import os
import tempfile
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from matplotlib import axes

from bert_keras import checkpoint, errors, word_vectors
from bert_keras import model as model_lib
from bert_keras.networks import bert
from tests import sharp, tiny
from trainers import words

SENTENCES = ["a good film", "no such", "film film is very bad"]
TEXT = ["the plot is good", "a dull plot and a new story", "old film"]


class WordsTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        keras.utils.set_random_seed(1)
        model = model_lib.BertModel(bert.BertEncoder(tiny.bert()), None)
        sharp.spread(model, 1)
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        checkpoint.save(cls.path("run"), model, tiny.tokenizer(), step=1)
        for name, lines in (("in.txt", SENTENCES), ("text.txt", TEXT)):
            with open(cls.path(name), "w", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
        cls.model = word_vectors.ContextualVectors(cls.path("run"))

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    def settings(self, **changes):
        paths = {
            "checkpoint": self.path("run"),
            "input": self.path("in.txt"),
            "text": self.path("text.txt"),
        }
        return words.Settings(
            **{"word": "Film", "candidates": "plot,story,Bad"} | paths | changes
        )

    def lines(self, **changes):
        settings = self.settings(**changes)
        words._check(settings)
        lines = words.compare(self.model, settings)
        # As they are written.
        return [json.loads(json.dumps(line)) for line in lines]

    def test_a_static_vector_is_the_same_in_each_sentence(self):
        vectors = self.path("glove.txt")
        with open(vectors, "w") as file:
            file.write("film 1 0\nplot 0.6 0.8\nstory 0 1\n")
        contextual, mean, table, file = self.lines(vectors=vectors)
        self.assertEqual(
            [line["vectors"] for line in (contextual, mean, table, file)],
            ["contextual", "mean of contextual", "token table", vectors],
        )
        for line in (mean, table, file):
            np.testing.assert_allclose(line["cosines"], np.ones((3, 3)))
            one, two, three = line["neighbours"]
            self.assertEqual(one, two)
            self.assertEqual(one, three)
        self.assertEqual(file["neighbours"][0], [["plot", 0.6], ["story", 0.0]])
        self.assertEqual(file["missing"], ["bad"])
        self.assertEqual(mean["missing"], ["bad"])
        self.assertEqual(
            mean["occurrences"], {"plot": 2, "story": 1, "film": 1}
        )
        self.assertEqual(table["missing"], [])

    def test_a_contextual_vector_is_not(self):
        line = self.lines()[0]
        contexts = [(each["text"], each["start"]) for each in line["contexts"]]
        self.assertEqual(
            contexts, [(SENTENCES[0], 7), (SENTENCES[2], 0), (SENTENCES[2], 5)]
        )
        cosines = np.array(line["cosines"])
        np.testing.assert_allclose(np.diag(cosines), 1)
        self.assertLess(cosines[0, 1], 0.999)
        self.assertNotEqual(*line["neighbours"][:2])

    def test_candidates_have_commas_of_both_scripts(self):
        one, two = (
            self.lines(candidates=each)[0]
            for each in ("plot,story", "plot， story，")
        )
        self.assertEqual(two["neighbours"], one["neighbours"])
        self.assertEqual(two["missing"], [])

    def test_it_draws_a_point_for_each_occurrence(self):
        picture = self.path("film.png")
        with mock.patch.object(axes.Axes, "annotate") as annotate:
            self.lines(plot=picture, candidates="", text="")
        labels = [call.args[0] for call in annotate.mock_calls]
        self.assertEqual(labels, ["good film", "film film", "film film is ve"])
        with open(picture, "rb") as file:
            self.assertEqual(tf.image.decode_png(file.read()).shape[2], 4)

    @parameterized.parameters(
        ({"word": " "}, "word"),
        ({"word": "story"}, "found it in none of 3"),
        ({"candidates": " ，"}, "expected words with commas between"),
        ({"text": ""}, "candidates=plot,story,Bad: expected `text`"),
        ({"text": "", "candidates": "", "word2vec": True}, "word2vec=True"),
        ({"word": "bad", "plot": "x.png"}, "3 or more vectors"),
    )
    def test_what_cannot_be_is_refused(self, changes, message):
        with self.assertRaisesRegex(errors.InputError, message):
            self.lines(**changes)


if __name__ == "__main__":
    absltest.main()
