"""Sequence to sequence: rows and targets, the loss, what is generated."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors, predictor
from bert_keras import model as model_lib
from bert_keras.networks import bert
from bert_keras.tasks import base, sequence_to_sequence
from bert_keras.tokenizers import pair, wordpiece
from tests import sharp, tiny

GERMAN = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] der film ist gut schlecht alt neu"
).split()
TEXTS = ["the film is good", "a very bad old plot .", "", "很 好 电影 !"]
# name: settings of the task.
VARIANTS = {
    "transformer": {},
    "lstm": {"decoder": "lstm"},
    "gru_without_attention": {"decoder": "gru", "attention": "none"},
    "dot": {"decoder": "gru", "attention": "dot", "first_state": "zeros"},
    "windows": {"truncation": "windows", "num_windows": 3},
    "own_vocabulary": {},
}
NAMED = [(name, name) for name in VARIANTS]
SOME = [(name, name) for name in ("transformer", "dot", "windows")]


def tokenizer(name="transformer"):
    if name != "own_vocabulary":
        return tiny.tokenizer()
    german = wordpiece.Tokenizer(GERMAN, lowercase=False)
    return pair.PairTokenizer(tiny.tokenizer(), german)


def make(name="transformer", config=None, weights=3, **settings):
    keras.utils.set_random_seed(1)
    fields = {"seq_length": 16, "max_target_length": 8}
    task = sequence_to_sequence.SequenceToSequence(
        **fields | VARIANTS[name] | settings
    ).adapt([], tokenizer(name))
    model = model_lib.BertModel(config or tiny.bert(), task)
    sharp.spread(model, weights)
    return predictor.Predictor(model, tokenizer(name))


def batch(model, texts, targets):
    """Features and targets of a batch, as training sees them."""
    raw = {"text": tf.constant(texts), "target": tf.constant(targets)}
    features = model.task.preprocess(raw, model.tokenizer)
    labels = model.task.make_targets(raw, features, model.tokenizer)
    features = {
        name: features[name] for name in model.model.encoder.config.inputs
    }
    return model.task.add_derived_features(features), labels


class TargetsTest(parameterized.TestCase):
    def test_targets_are_tokens_and_their_end(self):
        model = make()
        _, targets = batch(model, ["a"] * 3, ["the film", "dull " * 20, "a"])
        labels, weights = targets["text"]
        vocabulary = tiny.VOCABULARY
        self.assertEqual(
            [vocabulary[i] for i in labels[0, :3]], ["the", "film", "[SEP]"]
        )
        np.testing.assert_array_equal(
            weights, [[1, 1, 1, 0, 0, 0, 0, 0], [1] * 8, [1, 1] + [0] * 6]
        )
        # Without the end: the model must not learn that the text ends here.
        self.assertEqual({vocabulary[i] for i in labels[1]}, {"dull"})
        self.assertEqual(model.task.num_truncated(targets), 1)

    def test_an_own_vocabulary_is_of_the_targets_alone(self):
        model = make("own_vocabulary")
        features, targets = batch(model, ["the film"], ["der film ist gut"])
        self.assertEqual(
            model.tokenizer.target.tokens(targets["text"][0][0]),
            ["der", "film", "ist", "gut", "[SEP]"],
        )
        self.assertEqual(
            model.tokenizer.tokens(features["token_ids"][0]),
            ["[CLS]", "the", "film", "[SEP]"],
        )
        logits = model.model(features, targets=targets)["text"]
        self.assertEqual(logits.shape, (1, 5, len(GERMAN)))

    def test_the_task_has_to_be_adapted(self):
        task = sequence_to_sequence.SequenceToSequence()
        with self.assertRaisesRegex(errors.InputError, "adapt"):
            task.make_targets({"target": tf.constant(["a"])}, {}, None)


class TruncationTest(parameterized.TestCase):
    LONG = " ".join(tiny.WORDS[:14])  # of 14 tokens; a row of 8 has 6

    def rows(self, text, **settings):
        settings = {"seq_length": 8} | settings
        if settings["truncation"] == "windows":
            settings = {"num_windows": 3} | settings
        model = make(**settings)
        raw = {"text": tf.constant([text])}
        features = model.task.preprocess(raw, model.tokenizer)
        tokens = model.tokenizer.tokens(features["token_ids"][0])
        return tokens, features

    @parameterized.parameters(
        ("head", list(range(6))),
        ("head_tail", [0, 1, 2, 11, 12, 13]),
    )
    def test_what_is_kept(self, truncation, kept):
        tokens, features = self.rows(self.LONG, truncation=truncation)
        self.assertEqual(tokens[1:-1], [tiny.WORDS[i] for i in kept])
        self.assertTrue(features["truncated"][0])
        short = " ".join(tiny.WORDS[:6])
        tokens, features = self.rows(short, truncation=truncation)
        self.assertEqual(tokens[1:-1], tiny.WORDS[:6])
        self.assertFalse(features["truncated"][0])

    def test_windows_have_all_tokens_in_order(self):
        tokens, features = self.rows(self.LONG, truncation="windows")
        numbers = features["padding_mask"][0].numpy()
        self.assertEqual(np.bincount(numbers).tolist(), [0, 8, 8, 4])
        words = [t for t in tokens if t not in ("[CLS]", "[SEP]")]
        self.assertEqual(words, tiny.WORDS[:14])
        self.assertFalse(features["truncated"][0])

    def test_tokens_after_the_last_window_are_counted(self):
        tokens, features = self.rows(
            self.LONG, truncation="windows", num_windows=2
        )
        self.assertTrue(features["truncated"][0])
        words = [t for t in tokens if t not in ("[CLS]", "[SEP]")]
        self.assertEqual(words, tiny.WORDS[:12])

    def test_the_decoder_reads_all_windows(self):
        model = make("windows", seq_length=8, weights=5)
        words = tiny.WORDS[:14]
        changed = [*words[:13], "很"]
        scores = [
            model.predict([" ".join(each)])[0]["score"]
            for each in (words, changed)
        ]
        self.assertNotEqual(*scores)

    @pytest.mark.slow
    def test_one_window_is_a_text_alone(self):
        windows, alone = make("windows"), make()
        windows.model.set_weights(alone.model.get_weights())
        for one, two in zip(
            windows.predict(TEXTS), alone.predict(TEXTS), strict=True
        ):
            self.assertEqual(one["text"], two["text"])
            self.assertAlmostEqual(one["score"], two["score"], places=4)


class LossTest(parameterized.TestCase):
    @parameterized.named_parameters(*NAMED)
    def test_it_is_that_of_the_probabilities_step_by_step(self, name):
        model = make(name)
        texts, words = TEXTS[:3], ["film", "film " * 20, "gut film"]
        features, targets = batch(model, texts, words)
        outputs = model.model(features, targets=targets)
        loss = float(model.task.loss(outputs, features, targets)["text"])
        decoder = model.model.head.by_name()["decoder"]
        source = model.task.read_source(
            model.model.encoder, features, training=False
        )
        memory = decoder.read_source(source)
        state = decoder.first_state(source, 8)
        ids = tf.fill([3], model.task.start_id)
        expected, (labels, weights) = 0.0, targets["text"]
        for position in range(labels.shape[1]):
            logits, state = decoder.step(
                ids, state, memory, model.model.encoder.token_table
            )
            logits = logits.numpy().astype(np.float64)
            ids = labels[:, position]
            chosen = logits[np.arange(3), ids.numpy()]
            total = np.log(np.exp(logits).sum(axis=1))
            expected += ((total - chosen) * weights[:, position]).numpy().sum()
        np.testing.assert_allclose(loss, expected, rtol=1e-5)

    def test_accuracy_counts_target_tokens_alone(self):
        model = make()
        features, targets = batch(model, TEXTS[:2], ["a film", "dull"])
        labels, weights = targets["text"]
        outputs = {"text": 9 * tf.one_hot(labels, len(tiny.VOCABULARY))}
        sums = model.task.metric_sums(outputs, features, targets)
        self.assertEqual([float(x) for x in sums["text_accuracy"]], [5, 5])

    @parameterized.named_parameters(*NAMED)
    def test_all_that_is_trained_gets_a_gradient(self, name):
        model = make(name)
        features, targets = batch(model, TEXTS, ["film gut"] * 4)
        variables = model.model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = model.model(features, targets=targets, training=True)
            loss = model.task.loss(outputs, features, targets)["text"]
        gradients = tape.gradient(loss, [v.value for v in variables])
        without = {
            variable.path
            for variable, gradient in zip(variables, gradients, strict=True)
            if gradient is None
        }
        # The pooler, of which only a recurrent decoder reads the vector.
        self.assertTrue(all("pooler" in path for path in without), without)


class GenerationTest(parameterized.TestCase):
    @parameterized.named_parameters(*SOME)
    def test_each_token_is_the_most_probable_one(self, name):
        model = make(name, weights=4)
        answers = model.predict(TEXTS)
        self.assertGreater(len({answer["text"] for answer in answers}), 1)
        target = model.tokenizer.target
        for text, answer in zip(TEXTS, answers, strict=True):
            features, _ = batch(model, [text], [""])
            ids, total = [], 0.0
            while len(ids) < 8 and model.task.end_id not in ids:
                labels = tf.constant([[*ids, 0]])
                logits = model.model(
                    features, targets={"text": (labels, labels)}
                )
                logits = logits["text"][0, -1].numpy().astype(np.float64)
                ids.append(int(logits.argmax()))
                total += logits.max() - np.log(np.exp(logits).sum())
            penalty = (5 + len(ids)) / 6
            self.assertAlmostEqual(answer["score"], total / penalty, places=3)
            expected = target.detokenize(tf.ragged.constant([ids]))
            self.assertEqual(answer["text"], expected[0].numpy().decode())

    @parameterized.named_parameters(*SOME)
    def test_a_beam_search_finds_better_texts(self, name):
        model = make(name, weights=2)
        one = model.predict(TEXTS)
        task = model.task.with_settings(num_beams=4, num_return_sequences=3)
        search = model_lib.BertModel(model.model.encoder, task)
        search.head.set_weights(model.model.head.get_weights())
        beams = predictor.Predictor(search, model.tokenizer).predict(TEXTS)
        for greedy, best in zip(one, beams, strict=True):
            self.assertGreaterEqual(best["score"], greedy["score"] - 1e-5)
            self.assertLen(best["texts"], 3)
            self.assertEqual(best["texts"][0], best["text"])
            self.assertEqual(best["scores"], sorted(best["scores"])[::-1])

    def test_a_row_is_the_same_alone_and_in_a_batch(self):
        for settings in (
            {},
            {"num_beams": 3},
            {"temperature": 1.0, "seed": 3},
        ):
            model = make(weights=2, **settings)
            together = model.predict(TEXTS * 2)
            alone = [model.predict([text])[0] for text in TEXTS] * 2
            for one, two in zip(together, alone, strict=True):
                self.assertEqual(one["text"], two["text"])
                self.assertAlmostEqual(one["score"], two["score"], places=4)

    @pytest.mark.slow
    def test_samples_differ_by_seed_and_have_their_score(self):
        first, second = (
            make(weights=1, seed=seed, temperature=2.0).predict(TEXTS)
            for seed in (1, 2)
        )
        self.assertNotEqual(
            [answer["text"] for answer in first],
            [answer["text"] for answer in second],
        )
        greedy = make(weights=1, temperature=0.0).predict(TEXTS)
        expected = make(weights=1).predict(TEXTS)
        for one, two in zip(greedy, expected, strict=True):
            self.assertEqual(one["text"], two["text"])
            self.assertAlmostEqual(one["score"], two["score"], places=4)

    def test_limits_of_the_length(self):
        for answer in make(max_new_tokens=2, weights=4).predict(TEXTS):
            self.assertLessEqual(len(answer["text"].split()), 2)
        with self.assertRaisesRegex(errors.InputError, "at most the 8"):
            make(max_new_tokens=9)

        with self.assertRaisesRegex(
            errors.InputError, "min_new.*at most the 8"
        ):
            make(min_new_tokens=9)

    def test_a_search_may_find_fewer_texts_than_requested(self):
        count = len(tiny.VOCABULARY)  # of texts of one token
        model = make(
            max_new_tokens=1, num_beams=50, num_return_sequences=count + 5
        )
        (answer,) = model.predict(["a"])
        self.assertLen(answer["texts"], count)
        self.assertLen(answer["scores"], count)
        self.assertTrue(np.isfinite(answer["scores"]).all())
        # As a server answers them: JSON has no infinity.
        features, _ = batch(model, ["a"], [""])
        served = model.tokens(**features)
        self.assertEqual(served["score"].shape, (1, count + 5))
        self.assertTrue(np.isfinite(served["score"]).all())

    def test_more_targets_than_positions_are_refused(self):
        with self.assertRaisesRegex(errors.InputError, "64.*max_target_length"):
            make(max_target_length=65)


class SettingsTest(parameterized.TestCase):
    def test_saved_and_read(self):
        task = make("lstm", num_beams=2).task
        again = base.from_dict(json.loads(json.dumps(task.to_dict())))
        self.assertEqual(again, task)

    def test_a_decoder_is_known_by_what_it_is_made_of(self):
        one, two = make().task, make("lstm").task
        self.assertNotEqual(one.head_signatures, two.head_signatures)
        self.assertEqual(
            one.head_signatures, make(num_beams=3).task.head_signatures
        )

    def test_characters_cannot_be_generated(self):
        task = sequence_to_sequence.SequenceToSequence()
        with self.assertRaisesRegex(errors.InputError, "target_tokenizer"):
            task.adapt([], tiny.characters())

    @parameterized.parameters(
        ({"attention": "dot"}, "attention=dot has no effect with decoder=tr"),
        ({"first_state": "zeros"}, "first_state=zeros has no effect"),
        ({"num_windows": 2}, "num_windows=2 has no effect with truncation=h"),
        (
            {"target_vocab_size": 9},
            "target_vocab_size=9 needs target_tokenizer",
        ),
        ({"target_lowercase": True}, "target_lowercase=True needs"),
        ({"target_tokenizer": "pair"}, "target_tokenizer=pair: expected one"),
        ({"target_tokenizer": "word"}, "target_tokenizer=word: expected one"),
    )
    def test_what_has_no_effect_is_refused(self, settings, message):
        task = sequence_to_sequence.SequenceToSequence(**settings)
        with self.assertRaisesRegex(errors.InputError, message):
            task.adapt([], task.extend_tokenizer(tiny.tokenizer(), list))

    def test_a_device_reads_one_row(self):
        with self.assertRaisesRegex(errors.InputError, "truncation=windows"):
            make("windows").task.for_device()

    def test_without_attention_nothing_is_covered(self):
        with self.assertRaisesRegex(
            errors.InputError, "coverage_penalty=0.2 h"
        ):
            make("gru_without_attention", num_beams=2, coverage_penalty=0.2)

    def test_the_encoders_blocks_start_the_decoder(self):
        model = make(decoder_init="encoder").model
        copied = model.task.initialize_heads(
            model.encoder, model.head.by_name()
        )
        self.assertNotEmpty(copied)
        np.testing.assert_array_equal(
            model.head.by_name()["decoder"].blocks[1].attention.qkv.kernel,
            model.encoder.blocks[1].attention.qkv.kernel,
        )
        self.assertEqual(make().task.initialize_heads(model.encoder, {}), ())

    def test_a_target_vocabulary_is_learned_from_the_targets(self):
        task = sequence_to_sequence.SequenceToSequence(
            target_tokenizer="wordpiece", target_vocab_size=36
        )
        rows = [{"text": "zebra", "target": "der Film ist gut"}] * 5
        tokenizer = task.extend_tokenizer(tiny.tokenizer(), lambda: rows)
        self.assertIn("Film", tokenizer.target.vocabulary)
        self.assertNotIn("zebra", tokenizer.target.vocabulary)
        adapted = task.adapt(rows, tokenizer)
        self.assertEqual(adapted.vocab_size, tokenizer.target.vocab_size)

    def test_metrics_and_baselines(self):
        task = make().task
        rows = [
            {"text": "a b. c", "target": "x y"},
            {"text": "d", "target": "d"},
        ]
        metrics = task.metrics([{"text": "x y"}, {"text": "q"}], rows)
        self.assertEqual(metrics["exact_match"], 50)
        self.assertEqual(set(metrics), set(task.metric_names))
        baselines = task.baselines(rows)
        self.assertEqual(baselines["rouge_l of copying the source"], 50)
        self.assertIn("rouge_l of its first sentence", baselines)


class BidirectionalEncoderTest(absltest.TestCase):
    def test_elmo_reads_characters_and_writes_words(self):
        german = wordpiece.Tokenizer(GERMAN, lowercase=False)
        tokenizer = pair.PairTokenizer(tiny.characters(), german)
        task = sequence_to_sequence.SequenceToSequence(
            seq_length=16, max_target_length=8
        ).adapt([], tokenizer)
        model = model_lib.BertModel(tiny.elmo(), task)
        answers = predictor.Predictor(model, tokenizer).predict(TEXTS)
        self.assertLen(answers, len(TEXTS))

    @pytest.mark.slow
    def test_gpt_reads_from_left_to_right(self):
        model = make(config=tiny.bert(**bert.GPT))
        self.assertLen(model.predict(TEXTS), len(TEXTS))


if __name__ == "__main__":
    absltest.main()
