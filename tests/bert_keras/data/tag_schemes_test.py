import os
import random
import sys
import types
import unittest

from absl.testing import absltest, parameterized

from bert_keras.data import conll, tag_schemes
from tests import tiny

try:
    import sklearn.exceptions  # noqa: F401 (seqeval wants one warning of it)
except ImportError:
    module = types.ModuleType("sklearn.exceptions")
    module.UndefinedMetricWarning = UserWarning
    sys.modules["sklearn"] = types.ModuleType("sklearn")
    sys.modules["sklearn.exceptions"] = module
try:
    import seqeval.metrics
    import seqeval.scheme
except ImportError:
    seqeval = None

ALPHABETS = {"BIO": "BI", "IOB1": "BI", "BIOES": "BIES", "BMES": "BMES"}
FILES = (
    ("wnut17/train.conll", "BIO"),
    ("wnut17/dev.conll", "BIO"),
    ("wikigold/train.conll", "IOB1"),
    ("weibo_ner/train.conll", "BIO"),
    ("msra_ner/dev.conll", "BIO"),
    ("resume_ner/dev.bmes", "BMES"),
    ("resume_ner/train.bmes", "BMES"),
)


def random_tags(generator, alphabet):
    tags = [f"{p}-{t}" for p in alphabet for t in ("X", "Y-z")] + ["O"]
    return generator.choices(tags, k=generator.randint(0, 12))


def random_entities(generator):
    entities, end = [], 0
    for _ in range(generator.randint(0, 4)):
        start = end + generator.randint(0, 2)
        end = start + generator.randint(1, 4)
        entities.append((generator.choice("XY"), start, end))
    return entities, end + generator.randint(0, 2)


class SpansTest(parameterized.TestCase):
    @parameterized.parameters(*tag_schemes.PREFIXES)
    def test_entities_come_back_from_their_tags(self, scheme):
        generator = random.Random(3)
        for _ in range(500):
            entities, length = random_entities(generator)
            tags = tag_schemes.tags(entities, length, scheme)
            self.assertLen(tags, length)
            self.assertEqual(tag_schemes.spans(tags), entities)
            self.assertEqual(tag_schemes.spans(tags, scheme), entities)

    @parameterized.parameters(*tag_schemes.PREFIXES)
    def test_the_scheme_is_told_from_tags(self, scheme):
        generator = random.Random(4)
        sequences = [
            tag_schemes.tags(*random_entities(generator), scheme)
            for _ in range(200)
        ]
        self.assertEqual(tag_schemes.scheme(sequences), scheme)
        self.assertEqual(tag_schemes.scheme([]), "BIO")

    def test_an_ill_formed_entity_counts_unless_a_scheme_is_given(self):
        tags = ["O", "I-X", "I-Y", "B-Y"]
        whole = [("X", 1, 2), ("Y", 2, 3), ("Y", 3, 4)]
        self.assertEqual(tag_schemes.spans(tags), whole)
        self.assertEqual(tag_schemes.spans(tags, "BIO"), whole[2:])

    @parameterized.parameters("O", "B-X", "S-a-b", "M-X")
    def test_knows_a_tag(self, tag):
        self.assertTrue(tag_schemes.is_tag(tag))

    @parameterized.parameters("", "B", "B-", "o", "X-PER", "PER")
    def test_knows_what_is_no_tag(self, text):
        self.assertFalse(tag_schemes.is_tag(text))

    def test_scores_of_nothing_are_0(self):
        self.assertEqual(
            tag_schemes.entity_metrics([[]], [[]]),
            {"precision": 0.0, "recall": 0.0, "f1": 0.0},
        )


@unittest.skipIf(seqeval is None, "seqeval is absent: pip install seqeval")
class SeqevalTest(parameterized.TestCase):
    """M and I mean the same; seqeval knows I only."""

    def assert_equal(self, right, predicted, scheme=None):
        actual = tag_schemes.entity_metrics(
            *(
                [tag_schemes.spans(tags, scheme) for tags in sequences]
                for sequences in (predicted, right)
            )
        )
        strict = {}
        if scheme:
            name = "IOB2" if scheme == "BIO" else "IOBES"
            strict = {
                "mode": "strict",
                "scheme": getattr(seqeval.scheme, name),
            }
        right, predicted = (
            [[tag.replace("M-", "I-") for tag in tags] for tags in sequences]
            for sequences in (right, predicted)
        )
        for name in ("precision", "recall", "f1"):
            expected = getattr(seqeval.metrics, f"{name}_score")(
                right, predicted, zero_division=0, **strict
            )
            self.assertEqual(actual[name], expected)

    @parameterized.product(scheme=tuple(ALPHABETS), size=(1, 50))
    def test_random_tags_score_as_in_seqeval(self, scheme, size):
        generator = random.Random(5)
        for _ in range(1000 // size):
            right = [
                random_tags(generator, ALPHABETS[scheme]) for _ in range(size)
            ]
            predicted = [
                [
                    tag
                    if generator.random() < 0.7
                    else f"{generator.choice(ALPHABETS[scheme])}-X"
                    for tag in tags
                ]
                for tags in right
            ]
            self.assert_equal(right, predicted)
            if scheme != "IOB1":
                self.assert_equal(right, predicted, scheme)

    @parameterized.parameters(*FILES)
    def test_real_files_score_as_in_seqeval(self, name, scheme):
        right = read(self, name)
        generator = random.Random(6)
        predicted = [
            [tag if generator.random() < 0.9 else "O" for tag in tags]
            for tags in right
        ]
        self.assert_equal(right, predicted)
        if scheme != "IOB1":
            self.assert_equal(right, predicted, scheme)


class RealFilesTest(parameterized.TestCase):
    @parameterized.parameters(*FILES)
    def test_the_scheme_of_a_file_is_told(self, name, scheme):
        self.assertEqual(tag_schemes.scheme(read(self, name)), scheme)

    @parameterized.parameters(*FILES)
    def test_other_schemes_say_the_same(self, name, scheme):
        for tags in read(self, name):
            entities = tag_schemes.spans(tags)
            for other in tag_schemes.PREFIXES:
                again = tag_schemes.tags(entities, len(tags), other)
                self.assertEqual(tag_schemes.spans(again), entities)
            if entities == tag_schemes.spans(tags, scheme) and scheme != "IOB1":
                self.assertEqual(
                    tag_schemes.tags(entities, len(tags), scheme), tags
                )


def read(test, name):
    path = f"{tiny.SHARED_DATA}/{name}"
    if not os.path.exists(path):
        test.skipTest(f"real data is absent: {path}")
    return [sentence.tags for sentence in conll.read(path)]


if __name__ == "__main__":
    absltest.main()
