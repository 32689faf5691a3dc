"""Early exits: which layer answers, and what the classifiers learn."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import checkpoint, errors, exits, predictor
from bert_keras import model as model_lib
from bert_keras.networks import bert
from bert_keras.tasks import classification, matching
from bert_keras.wrappers import distillation, early_exit, mix
from tests import sharp, tiny
from tests.trainers import mains

LABELS = ("bad", "fine", "good")
TEXTS = [
    "a good film",
    "the plot is very bad and old",
    "",
    "dull",
    "很 好 电影",
    "a film is a film is a film !",
]


def tearDownModule():
    mains.close()


def wrapped(**settings):
    task = classification.Classification(labels=LABELS, seq_length=16)
    return early_exit.EarlyExit(task, **settings)


def made(speed=0.5, **changes):
    """A predictor whose exits are unsure, each in its own way."""
    changes = {"num_layers": 4, "dropout": 0.0} | changes
    model = model_lib.BertModel(
        bert.BertEncoder(tiny.bert(**changes)), wrapped(speed=speed)
    )
    sharp.spread(model, 1)
    for head in model.head.exits.heads:
        head.score.kernel.assign(head.score.kernel * 0.1)
    return predictor.Predictor(model, tiny.tokenizer())


def with_speed(asked, speed):
    asked.model.task = asked.task.with_settings(speed=speed)
    return predictor.Predictor(asked.model, tiny.tokenizer())


def of_layers(asked, texts=TEXTS):
    """The distributions (T, L, C) of all layers, and their uncertainty."""
    raw = {"text": tf.constant(texts)}
    features = asked.task.preprocess(raw, tiny.tokenizer())
    outputs = asked.model(features, training=False)
    logits = np.concatenate(
        [outputs["exits"], outputs["label"][:, np.newaxis]], axis=1
    )
    shares = np.float64(tf.nn.softmax(logits))
    entropy = -(shares * np.log(shares)).sum(-1) / np.log(len(LABELS))
    return shares, entropy


class ExitsTest(parameterized.TestCase):
    @parameterized.parameters({}, {"norm_first": True}, {"num_segments": 1})
    def test_the_first_sure_layer_answers(self, **changes):
        asked = made(**changes)
        shares, entropy = of_layers(asked)
        speed = float(np.median(entropy[:, :-1]))
        is_sure = entropy < speed
        is_sure[:, -1] = True
        expected = is_sure.argmax(1)
        self.assertGreater(len({*expected}), 1)
        answers = with_speed(asked, speed).predict(TEXTS)
        self.assertEqual(
            [answer["exit_layer"] for answer in answers],
            (expected + 1).tolist(),
        )
        np.testing.assert_allclose(
            [answer["scores"] for answer in answers],
            shares[np.arange(len(TEXTS)), expected],
            atol=1e-5,
        )

    def test_at_0_the_answers_are_the_complete_networks(self):
        asked = made(speed=0.0)
        plain = predictor.Predictor(
            model_lib.BertModel(asked.model.encoder, asked.task.task),
            tiny.tokenizer(),
        )
        for one, other in zip(
            plain.model.head.label.weights,
            asked.model.head.label.weights,
            strict=True,
        ):
            one.assign(other)
        for one, other in zip(
            asked.predict(TEXTS), plain.predict(TEXTS), strict=True
        ):
            self.assertEqual(one["exit_layer"], 4)
            self.assertEqual(one["label"], other["label"])
            np.testing.assert_allclose(
                one["scores"], other["scores"], atol=1e-6
            )

    def test_an_exit_does_not_depend_on_the_batch(self):
        asked = made()
        _, entropy = of_layers(asked)
        asked = with_speed(asked, float(np.median(entropy[:, :-1])))
        together = asked.predict(TEXTS * 3)
        for text, answer in zip(TEXTS * 3, together, strict=True):
            (alone,) = asked.predict([text])
            self.assertEqual(alone["exit_layer"], answer["exit_layer"])
            np.testing.assert_allclose(
                alone["scores"], answer["scores"], atol=1e-6
            )

    def test_layers_above_compute_the_remaining_rows_only(self):
        asked = made()
        _, entropy = of_layers(asked)
        speed = float(np.median(entropy[:, :-1]))
        rows = []
        for block in asked.model.encoder.blocks:
            call = block.call

            def counting(x, *arguments, call=call, **more):
                rows.append(int(x.shape[0]))
                return call(x, *arguments, **more)

            block.call = counting
        raw = {"text": tf.constant(TEXTS)}
        task = asked.task.with_settings(speed=speed)
        features = task.preprocess(raw, tiny.tokenizer())
        outputs = task.infer(asked.model, features)
        layers = outputs["exit_layer"].numpy()
        self.assertEqual(
            rows, [int((layers >= layer).sum()) for layer in (1, 2, 3, 4)]
        )

    def test_a_head_of_so_many_tokens_gets_no_more(self):
        task = classification.Classification(
            labels=LABELS, seq_length=20, pooling="concat"
        )
        model = model_lib.BertModel(
            bert.BertEncoder(tiny.bert(num_layers=4, dropout=0.0)),
            early_exit.EarlyExit(task, speed=0.0),
        )
        sharp.spread(model, 1)
        texts = [*TEXTS, "a film " * 20]
        asked = predictor.Predictor(model, tiny.tokenizer())
        shares, _ = of_layers(asked, texts)
        np.testing.assert_allclose(
            [answer["scores"] for answer in asked.predict(texts)],
            shares[:, -1],
            atol=1e-5,
        )

    def test_none_is_sure_at_0_and_all_are_at_1(self):
        logits = tf.constant([[1000.0, 0, 0], [0, 0, 0]])
        for speed, expected in ((0.0, False), (1.0, True)):
            self.assertEqual(
                exits.is_sure(logits, tf.fill([2], speed)).numpy().tolist(),
                [expected] * 2,
            )

    def test_each_row_may_have_a_speed_of_its_own(self):
        asked = made()
        raw = {"text": tf.constant(["a good film"] * 3)}
        features = asked.task.preprocess(raw, tiny.tokenizer())
        inputs = {n: features[n] for n in asked.model.encoder.config.inputs}
        decoded = asked.tokens(**inputs, speed=tf.constant([0.0, 1.0, 0.0]))
        np.testing.assert_array_equal(decoded["exit_layer"], [4, 1, 4])

    def test_uncertainty_is_a_share_of_the_largest(self):
        logits = tf.constant([[0.0, 0, 0], [100, 0, 0], [0, 0, -1e9]])
        np.testing.assert_allclose(
            exits.uncertainty(logits),
            [1, 0, np.log(2) / np.log(3)],
            atol=1e-6,
        )


class TrainingTest(absltest.TestCase):
    def outputs(self):
        asked = made()
        features = tiny.inputs()
        targets = {
            "label": (tf.constant([0, 1, 2, 0]), tf.constant([1.0, 2, 0, 0.5]))
        }
        features, targets = asked.task.randomize(features, targets, None)
        return asked.model, features, targets

    def test_exits_learn_what_the_last_layer_answers(self):
        model, features, targets = self.outputs()
        outputs = model(features, targets=targets, training=True)
        losses = model.task.loss(outputs, features, targets)
        gold = np.float64(tf.nn.softmax(outputs["label"]))[:, np.newaxis]
        own = np.float64(tf.nn.softmax(outputs["exits"]))
        divergence = (gold * (np.log(gold) - np.log(own))).sum(-1).mean(-1)
        weights = targets["label"][1].numpy()
        np.testing.assert_allclose(
            losses["exits"], (divergence * weights).sum(), rtol=1e-4
        )

    def test_no_gradient_of_exits_reaches_the_network(self):
        model, features, targets = self.outputs()
        with tf.GradientTape(persistent=True) as tape:
            outputs = model(features, targets=targets, training=True)
            losses = model.task.loss(outputs, features, targets)
        others = [
            v.value for v in model.trainable_variables if "exits" not in v.path
        ]
        found = tape.gradient(losses["exits"], others)
        self.assertEqual(found, [None] * len(others))
        own = [v.value for v in model.head.exits.trainable_variables]
        self.assertNotIn(None, tape.gradient(losses["exits"], own))

    def test_what_reads_other_layers_or_rows_is_refused(self):
        for settings, text in (
            ({"pooling": "layers"}, "reads several layers"),
            ({"pair_order": "both", "pair": True}, "read twice"),
            ({"negatives": 1}, "without negatives"),
        ):
            task = classification.Classification(
                labels=LABELS, seq_length=16, **settings
            )
            with self.assertRaisesRegex(errors.InputError, text):
                early_exit.EarlyExit(task)

    def test_other_wrappers_are_refused(self):
        task = classification.Classification(labels=LABELS)
        exits_of = early_exit.EarlyExit
        for make, text in (
            (lambda: exits_of(mix.Mix(task)), "cannot be combined"),
            (lambda: mix.Mix(exits_of(task)), "cannot be combined"),
            (
                lambda: exits_of(distillation.Distillation(task, teacher="t")),
                "Train with distillation first",
            ),
            (
                lambda: distillation.Distillation(exits_of(task), teacher="t"),
                "Train with distillation first",
            ),
        ):
            with self.assertRaisesRegex(errors.InputError, text):
                make()

    def test_other_tasks_and_networks_are_refused(self):
        with self.assertRaisesRegex(errors.InputError, "one softmax over"):
            early_exit.EarlyExit(
                classification.Classification(problem_type="regression")
            )
        with self.assertRaisesRegex(errors.InputError, "one softmax over"):
            early_exit.EarlyExit(matching.Matching()).build_heads(tiny.bert())
        with self.assertRaisesRegex(errors.InputError, "2 or more layers"):
            wrapped().build_heads(tiny.bert(num_layers=1))
        with self.assertRaisesRegex(errors.InputError, "found rnn"):
            wrapped().build_heads(tiny.rnn())


def answers_of(*texts):
    """Answers with logits by layer, given as the share of the first class."""
    return [
        {
            "label": "of the last layer",
            "exit_layer": 3,
            "exit_logits": np.log(
                [[p, (1 - p) * 0.99, (1 - p) * 0.01] for p in layers]
            ).astype(np.float32),
        }
        for layers in texts
    ]


class ChosenSpeedTest(parameterized.TestCase):
    # In all layers but the first of the third text "bad" is the first class.
    ANSWERS = answers_of(
        (0.9, 0.97, 0.999),
        (0.97, 0.999, 0.999),
        (0.1, 0.9, 0.97),
        (0.5, 0.6, 0.97),
    )
    EXAMPLES = ({"text": "", "label": "bad"},) * 4

    @parameterized.parameters(
        # The uncertainty of the third text's first layer is 0.343.
        ({"keep": 1.0}, 0.34, [1, 1, 2, 3]),
        ({"keep": 0.75}, 1.0, [1, 1, 1, 1]),
        ({"mean_layer": 2.0}, 0.31, [1, 1, 2, 3]),
        ({"mean_layer": 1.75}, 0.31, [1, 1, 2, 3]),
        ({"mean_layer": 2.25}, 0.13, [2, 1, 3, 3]),
        ({"mean_layer": 1.0}, 0.66, [1, 1, 1, 1]),
    )
    def test_of_the_dev_rows(self, wanted, speed, layers):
        task = wrapped(**wanted)
        metrics = task.metrics(self.ANSWERS, self.EXAMPLES)
        self.assertEqual(metrics["exit_speed"], speed)
        self.assertEqual(metrics["mean_exit_layer"], np.mean(layers))
        # The third text's first layer is wrong.
        self.assertEqual(metrics["accuracy"], 0.75 + 0.25 * (layers[2] > 1))
        saved = task.calibrated(metrics)
        self.assertEqual(saved, wrapped(speed=speed))

    def test_what_is_served_chooses_none(self):
        self.assertEqual(
            wrapped(keep=0.9, speed=0.4).for_serving(), wrapped(speed=0.4)
        )

    def test_before_the_first_layer_there_is_none(self):
        with self.assertRaisesRegex(errors.InputError, "expected 1, the first"):
            wrapped(mean_layer=0.5)

    def test_of_one_wish(self):
        with self.assertRaisesRegex(errors.InputError, "give one of them"):
            wrapped(keep=0.9, mean_layer=2)

    def test_of_answers_with_a_label(self):
        with self.assertRaisesRegex(errors.InputError, "with a `label`"):
            wrapped(keep=0.9).metrics([{"words": ""}], [{}])


class RunTest(absltest.TestCase):
    def trained(self, dev=True, **settings):
        """A run, whose log it returns, too."""
        folder = self.create_tempdir().full_path
        path = mains.write(
            os.path.join(folder, "train.tsv"),
            "text\tlabel\n"
            + "".join(
                f"the {word} film is {word}\t{word}\n"
                for word in ("good", "bad", "old") * 16
            ),
        )
        start = os.path.join(folder, "start")
        network = bert.BertEncoder(tiny.bert(num_layers=3))
        checkpoint.save(
            start, model_lib.BertModel(network, None), tiny.tokenizer(), step=0
        )
        bert_keras.finetune(
            start,
            path,
            path if dev else None,
            task="classification",
            output=os.path.join(folder, "run"),
            seq_length=12,
            epochs=12,
            batch_size=16,
            learning_rate=1e-2,
            report_to="",
            log_every=6,
            wrappers="early_exit",
            **settings,
        )
        run = os.path.join(folder, "run")
        with open(os.path.join(run, "log.jsonl"), encoding="utf-8") as file:
            return run, [json.loads(line) for line in file]

    def test_it_trains_its_exits_and_answers_with_them(self):
        _, log = self.trained(early_exit_speed=0.9)
        # What is easy needs no last layer.
        layers = [
            line["dev/mean_exit_layer"]
            for line in log
            if "dev/mean_exit_layer" in line
        ]
        self.assertLess(layers[-1], 3)

    def test_without_dev_rows_no_speed_is_chosen(self):
        with self.assertRaisesRegex(
            errors.InputError, "early_exit_keep needs dev rows"
        ):
            self.trained(dev=False, early_exit_keep=0.9)

    def test_it_saves_the_speed_that_keeps_the_metric(self):
        run, log = self.trained(early_exit_keep=1.0)
        task = bert_keras.load(run).task
        self.assertEqual(task.keep, 0)
        found = [line for line in log if "dev/exit_speed" in line]
        self.assertIn(task.speed, [line["dev/exit_speed"] for line in found])
        words = ("good", "bad", "old")
        answers = bert_keras.load(run).predict(
            [f"the {word} film is {word}" for word in words]
        )
        best = max(line["dev/accuracy"] for line in found)
        self.assertEqual(
            np.mean(
                [a["label"] == w for a, w in zip(answers, words, strict=True)]
            ),
            best,
        )
        self.assertNotIn("exit_logits", answers[0])


class ExportTest(absltest.TestCase):
    def saved(self):
        folder = self.create_tempdir().full_path
        asked = made()
        _, entropy = of_layers(asked)
        speed = round(float(np.median(entropy[:, :-1])), 4)
        asked = with_speed(asked, speed)
        path = os.path.join(folder, "run")
        checkpoint.save(path, asked.model, tiny.tokenizer(), step=0)
        return path, folder

    def test_the_checkpoint_answers_and_takes_another_speed(self):
        path, _ = self.saved()
        layers = [a["exit_layer"] for a in bert_keras.load(path).predict(TEXTS)]
        self.assertGreater(len({*layers}), 1)
        slow = bert_keras.load(path, settings={"speed": 0.0})
        self.assertEqual(
            {answer["exit_layer"] for answer in slow.predict(TEXTS)}, {4}
        )

    @pytest.mark.slow
    def test_the_served_model_leaves_where_the_checkpoint_does(self):
        path, folder = self.saved()
        output = os.path.join(folder, "served")
        code, _, error = mains.call(
            "export.saved_model", checkpoint=path, output=output
        )
        self.assertEqual((code, error), (0, ""))
        served = tf.saved_model.load(os.path.join(output, "1"))
        answers = served.signatures["serving_default"](text=tf.constant(TEXTS))
        expected = bert_keras.load(path).predict(TEXTS)
        np.testing.assert_array_equal(
            answers["exit_layer"], [a["exit_layer"] for a in expected]
        )
        np.testing.assert_allclose(
            answers["scores"], [a["scores"] for a in expected], atol=1e-5
        )
        chosen = served.signatures["with_settings"](
            text=tf.constant(TEXTS[:2]), speed=tf.constant([0.0, 1.0])
        )
        np.testing.assert_array_equal(chosen["exit_layer"], [4, 1])


if __name__ == "__main__":
    absltest.main()
