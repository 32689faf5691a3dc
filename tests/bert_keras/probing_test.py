import itertools

import numpy as np
from absl.testing import absltest, parameterized

from bert_keras import errors, predictor, probing, token_vectors
from bert_keras import model as model_lib
from bert_keras.tasks import classification, embedding, tagging
from tests import sharp, tiny
from tests.trainers.mains import write

WORDS = "the a film is was good bad fine dull not very old new story".split()
SECOND = WORDS[::2]  # words whose neighbour has the tag B-X


def make(task=None):
    """A model whose first layer adds the mean of the text to each token.

    Its embeddings are of the words, and not of positions.
    """
    config = tiny.bert(hidden_size=64, num_layers=2)
    model = model_lib.BertModel(
        config.build_encoder(), task or token_vectors.TokenVectors(layers="0,1")
    )
    sharp.spread(model, 1)
    encoder = model.encoder
    positions = encoder.embeddings.position_table
    positions.assign(0 * positions)
    block = encoder.blocks[0]
    qkv = block.attention.qkv.kernel
    qkv.assign(np.where(np.arange(192) < 128, 0, qkv))
    outer = block.feed_forward.outer.kernel
    outer.assign(0 * outer)
    return predictor.Predictor(model, tiny.tokenizer())


def neighbours(path, pairs):
    """Texts of two words: the tag of each is that of the other word."""
    lines = []
    for one, other in pairs:
        tags = ["B-X" if each in SECOND else "O" for each in (other, one)]
        lines.append(f"{one}\t{tags[0]}\n{other}\t{tags[1]}\n")
    return write(path, "\n".join(lines))


class ProbeTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        pairs = list(itertools.product(WORDS, WORDS))
        np.random.default_rng(1).shuffle(pairs)
        self.train = neighbours(f"{self.folder}/train.conll", pairs[:150])
        self.dev = neighbours(f"{self.folder}/dev.conll", pairs[150:])

    def test_the_layer_that_has_the_label_is_found(self):
        model = make()
        # Only attention can bring in a neighbour, and the last layer's output
        # is the same for all words.
        norm = model.model.encoder.blocks[1].feed_forward_norm
        norm.gamma.assign(0 * norm.gamma)
        probes = probing.probe(
            model, self.train, self.dev, task=tagging.Tagging(seq_length=16)
        )
        embeddings, attended, constant = probes.layers
        self.assertLess(embeddings.accuracy, 0.65)
        self.assertGreater(attended.accuracy, 0.95)
        self.assertEqual(constant.accuracy, probes.majority)
        # A word's own identity, which the control task needs, is known at once.
        self.assertGreater(embeddings.control, 0.95)
        self.assertLess(constant.control, 0.75)
        self.assertEqual(
            attended.selectivity, attended.accuracy - attended.control
        )
        self.assertEqual(probes.num_train, 300)
        self.assertEqual(probes.num_dev, 2 * (len(WORDS) ** 2 - 150))

    def test_random_labels_of_new_texts_are_not_learned(self):
        paths = []
        random = np.random.default_rng(2)
        for count in (300, 200):
            rows = [
                f"{' '.join(words)}\t{'yes' if 'a' in words else 'no'}\n"
                for words in random.choice(WORDS[:6], (count, 5))
            ]
            paths.append(
                write(
                    f"{self.folder}/{count}.tsv",
                    "text\tlabel\n" + "".join(rows),
                )
            )
        probes = probing.probe(
            make(), *paths, task=classification.Classification(seq_length=16)
        )
        self.assertGreater(probes.layers[0].accuracy, 0.9)
        for each in probes.layers:
            # One label is right for 0.6; three standard errors of 200 rows.
            self.assertBetween(each.control, 0.3, 0.7)

    def test_the_same_call_gives_the_same_figures(self):
        first, second = (
            probing.probe(
                make(),
                self.train,
                self.dev,
                task=tagging.Tagging(seq_length=16),
            )
            for _ in range(2)
        )
        self.assertEqual(first, second)

    def test_a_label_of_dev_alone_counts_as_a_mistake(self):
        dev = write(
            f"{self.folder}/other.conll", "film\tB-Y\nfilm\tO\n\na\tO\n"
        )
        probes = probing.probe(
            make(), self.train, dev, task=tagging.Tagging(seq_length=16)
        )
        self.assertIn("B-Y", probes.labels)
        for each in probes.layers:
            self.assertLessEqual(each.accuracy, 2 / 3)

    def test_damaged_weights_are_refused(self):
        model = make()
        norm = model.model.encoder.blocks[0].feed_forward_norm
        norm.beta.assign(np.nan + norm.beta)
        with self.assertRaisesRegex(errors.InputError, "weights are damaged"):
            probing.probe(
                model, self.train, self.dev, task=tagging.Tagging(seq_length=16)
            )

    @parameterized.parameters(
        "masked_lm",
        classification.Classification(problem_type="regression"),
        classification.Classification(pair_order="both"),
    )
    def test_other_tasks_are_refused(self, task):
        with self.assertRaisesRegex(errors.InputError, "expected one of tag"):
            probing.probe(make(), self.train, self.dev, task=task)

    def test_batches_have_texts(self):
        with self.assertRaisesRegex(errors.InputError, "batch_size"):
            probing.probe("run", "a", "b", task="tagging", batch_size=0)

    def test_rows_longer_than_the_network_are_refused(self):
        task = tagging.Tagging(seq_length=65)
        with self.assertRaisesRegex(errors.InputError, "64 positions"):
            probing.probe(make(), self.train, self.dev, task=task)

    def test_a_file_of_one_text_is_refused(self):
        one = write(f"{self.folder}/one.conll", "film\tB-X\n")
        with self.assertRaisesRegex(errors.InputError, "at least two"):
            probing.probe(
                make(), one, self.dev, task=tagging.Tagging(seq_length=16)
            )


class RowsTest(absltest.TestCase):
    def test_the_vector_of_a_word_is_that_of_its_first_token(self):
        task = tagging.Tagging(seq_length=16, types=("X",))
        # "acted" is not in the vocabulary: [UNK]; "plots" has two tokens.
        words = [
            ["plots", "is", "good"],
            ["a", "filmed", "story", "acted", "."],
        ]
        examples = [
            task.make_example({"text": " ".join(each)}, ["O"] * len(each))
            for each in words
        ]
        model = make(token_vectors.TokenVectors(layers="0,1,2"))
        rows = probing.rows(model, task, examples, batch_size=2)
        answers = model.predict([" ".join(each) for each in words])
        first = [0, 2, 3], [0, 1, 3, 4, 5]
        self.assertEqual(answers[1]["token"][2], "##ed")
        for layer, vectors in enumerate(rows.vectors):
            expected = [
                answer[f"layer_{layer}"][token]
                for answer, tokens in zip(answers, first, strict=True)
                for token in tokens
            ]
            np.testing.assert_allclose(vectors, expected, atol=1e-5)
        self.assertEqual(rows.text.tolist(), [0] * 3 + [1] * 5)
        self.assertLen(set(rows.types), 8)

    def test_equal_words_have_equal_types(self):
        task = tagging.Tagging(seq_length=8, stride=4, types=("X",))
        text = "Film good films film GOOD good very old films ."
        example = task.make_example({"text": text}, ["O"] * 10)
        rows = probing.rows(make(), task, [example])
        self.assertLen(rows.types, 10)
        names = dict(zip(rows.types, text.lower().split(), strict=True))
        self.assertEqual(
            [names[each] for each in rows.types], text.lower().split()
        )
        self.assertLen(names, len(set(text.lower().split())))

    def test_the_vector_of_a_text_is_the_mean_of_its_tokens(self):
        texts = ["a good film", "the old story was very dull and not new ."]
        task = classification.Classification(labels=("no", "yes"))
        examples = [{"text": text, "label": "yes"} for text in texts]
        rows = probing.rows(make(), task, examples)
        for layer, vectors in enumerate(rows.vectors):
            model = make(
                embedding.Embedding(layers=str(layer), normalize=False)
            )
            expected = [each["embedding"] for each in model.predict(texts)]
            np.testing.assert_allclose(vectors, expected, atol=1e-5)
        self.assertEqual(rows.labels.tolist(), [1, 1])
        self.assertEqual(rows.truncated, 0)

    def test_truncated_texts_are_counted(self):
        task = classification.Classification(labels=("no", "yes"), seq_length=5)
        examples = [
            {"text": text, "label": "no"}
            for text in ("a film", "a good film .")
        ]
        self.assertEqual(probing.rows(make(), task, examples).truncated, 1)


class ControlLabelsTest(absltest.TestCase):
    def test_they_have_the_frequencies_of_the_labels(self):
        types = [str(number).encode() for number in range(10_000)]
        frequencies = np.array([0.7, 0.0, 0.2, 0.1])
        labels = probing.control_labels(types, frequencies, 1)
        found = np.bincount(labels, minlength=4) / len(types)
        np.testing.assert_allclose(found, frequencies, atol=0.015)
        self.assertEqual(found[1], 0)

    def test_equal_types_have_equal_labels_in_any_order(self):
        types = [str(number % 50).encode() for number in range(200)]
        frequencies = np.full(4, 0.25)
        labels = probing.control_labels(types, frequencies, 1)
        np.testing.assert_array_equal(labels[:50], labels[150:])
        backwards = probing.control_labels(types[::-1], frequencies, 1)
        np.testing.assert_array_equal(labels, backwards[::-1])
        other = probing.control_labels(types, frequencies, 2)
        self.assertLess(np.mean(labels == other), 0.6)


if __name__ == "__main__":
    absltest.main()
