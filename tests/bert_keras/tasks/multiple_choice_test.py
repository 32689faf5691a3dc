"""Multiple choice: one softmax over texts that do not see each other."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import errors, evaluation, predictor
from bert_keras import model as model_lib
from bert_keras.networks import bert
from bert_keras.tasks import multiple_choice
from tests import sharp, tiny

TASK = multiple_choice.MultipleChoice(seq_length=16, num_choices=4)
ROWS = (
    {
        "context": "a good film .",
        "question": "was it",
        "choices": ["good", "bad", "not very dull", "an old story"],
    },
    {"context": "very bad " * 9, "question": "", "choices": ["a", "the plot"]},
    {"question": "film ?", "choices": ["good", "bad", "old"]},
)


def make(task=TASK, **network):
    keras.utils.set_random_seed(1)
    model = model_lib.BertModel(bert.BertEncoder(tiny.bert(**network)), task)
    sharp.spread(model, 1)
    return predictor.Predictor(model, tiny.tokenizer())


def served(model):
    """The same weights, as they are loaded from a checkpoint."""
    task = model.task.for_serving()
    copy = model_lib.BertModel(model.model.encoder, task)
    copy.head.set_weights(model.model.head.get_weights())
    return predictor.Predictor(copy, model.tokenizer)


class AnswersTest(parameterized.TestCase):
    @parameterized.named_parameters(
        ("bert", {}),
        ("gpt", {"causal": True, "num_segments": 1, "pooler": False}),
    )
    def test_a_row_per_choice_answers_as_a_row_of_all_choices(self, network):
        self.check_choices(network)

    @parameterized.named_parameters(
        ("causal", {"causal": True}),
        ("one_segment", {"num_segments": 1}),
        ("sinusoidal", {"position": "sinusoidal"}),
    )
    @pytest.mark.slow
    def test_a_row_per_choice_answers_alike_in_other_networks(self, network):
        self.check_choices(network)

    def check_choices(self, network):
        model = make(**network)
        alone = served(model)
        for one, two in zip(
            model.predict(ROWS), alone.predict(ROWS), strict=True
        ):
            np.testing.assert_allclose(one["scores"], two["scores"], atol=1e-6)
            for name in ("index", "label", "choice", "truncated"):
                self.assertEqual(one[name], two[name])

    def test_permuted_choices_permute_the_answers(self):
        model = served(make())
        row, order = ROWS[0], [2, 0, 3, 1]
        other = row | {"choices": [row["choices"][i] for i in order]}
        one, two = model.predict([row, other])
        np.testing.assert_allclose(
            two["scores"], np.array(one["scores"])[order], atol=1e-6
        )
        self.assertEqual(one["choice"], two["choice"])
        self.assertEqual(order[two["index"]], one["index"])
        # The weights tell the choices apart.
        self.assertGreater(max(one["scores"]) - min(one["scores"]), 1e-3)

    def test_absent_choices_get_no_probability_and_change_nothing(self):
        model = served(make())
        row = {"context": "a film", "question": "", "choices": ["good", "bad"]}
        spread = row | {"choices": ["", "good", "", "bad"]}
        two, four = model.predict([row, spread])
        self.assertEqual(two["scores"][2:], [0.0, 0.0])
        np.testing.assert_allclose(
            four["scores"],
            [0, two["scores"][0], 0, two["scores"][1]],
            atol=1e-6,
        )
        self.assertEqual(four["label"], "BD"[two["index"]])

    def test_white_space_is_an_absent_choice_in_the_graph_as_well(self):
        model = served(make())
        texts = {"context": "a film", "question": "", "choice_a": "good"}
        texts |= {
            "choice_b": "bad",
            "choice_c": " \u3000\ufeff",
            "choice_d": "",
        }
        raw = {name: tf.constant([text]) for name, text in texts.items()}
        scores = model.serve_text(**raw)["scores"].numpy()[0]
        self.assertEqual(scores[2:].tolist(), [0.0, 0.0])
        self.assertAlmostEqual(scores[:2].sum(), 1.0, places=6)

    def test_a_choice_is_scored_as_a_pair_of_texts(self):
        """A classifier with the same weights scores one choice."""
        model = served(make())
        (answer,) = model.predict([ROWS[0]])
        task = bert_keras.tasks.Classification(
            seq_length=16, problem_type="regression", pair=True
        )
        copy = model_lib.BertModel(model.model.encoder, task)
        copy.head.set_weights(model.model.head.get_weights())
        scores = predictor.Predictor(copy, model.tokenizer).predict(
            [
                (ROWS[0]["context"], f"{ROWS[0]['question']} {choice}")
                for choice in ROWS[0]["choices"]
            ]
        )
        logits = np.array([score["value"] for score in scores], np.float64)
        expected = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(answer["scores"], expected, atol=1e-6)

    def test_rows_are_columns_or_lists(self):
        model = served(make())
        row = ROWS[0]
        columns = {
            "context": row["context"],
            "question": row["question"],
            **{
                f"choice_{letter}": text
                for letter, text in zip("abcd", row["choices"], strict=True)
            },
        }
        array = row | {"choices": np.array(row["choices"])}
        one, two, three = model.predict([row, columns, array])
        for other in (two, three):
            self.assertEqual(one["choice"], other["choice"])
            np.testing.assert_allclose(
                one["scores"], other["scores"], atol=1e-6
            )
        for choices, message in (
            (["a"] * 5, "example 0: expected at most 4 choices"),
            ("ab", "a list of choices"),
            (["a", 1], "expected text, found 1"),
            (["a"] * 27, "at most 26"),
        ):
            with self.assertRaisesRegex(errors.InputError, message):
                model.predict([{"choices": choices}])


class PackingTest(absltest.TestCase):
    def ids(self, row, **fields):
        task = TASK.with_settings(**fields).for_serving()
        raw = {k: tf.constant([v]) for k, v in task.text_row(row).items()}
        features = task.preprocess(raw, tiny.tokenizer())
        rows = zip(
            features["token_ids"].numpy(),
            features["padding_mask"].numpy(),
            strict=True,
        )
        tokens = [
            " ".join(tiny.tokenizer().tokens(ids[mask > 0]))
            for ids, mask in rows
        ]
        return tokens, features["truncated"].numpy().tolist()

    def test_the_question_is_beside_the_choice_or_the_context(self):
        row = {
            "context": "a film",
            "question": "good",
            "choices": ["not", "bad"],
        }
        for fields, expected in (
            ({}, "[CLS] a film [SEP] good not [SEP]"),
            ({"question_with": "context"}, "[CLS] a film good [SEP] not [SEP]"),
        ):
            tokens, _ = self.ids(row, **fields)
            self.assertEqual(tokens[0], expected)
        tokens, _ = self.ids(row | {"context": ""})
        self.assertEqual(tokens[1], "[CLS] good [SEP] bad [SEP]")

    def test_the_context_is_truncated_before_question_and_choice(self):
        row = {
            "context": "a the film is was good",
            "question": "old ? !",
            "choices": ["not very bad .", "dull"],
        }
        for fields in ({}, {"question_with": "context"}):
            tokens, truncated = self.ids(row, seq_length=13, **fields)
            kept = tokens[0].replace(" [SEP]", "").split()[1:]
            self.assertEqual(
                kept, "a the film old ? ! not very bad .".split(), fields
            )
            self.assertEqual(truncated, [True, False])
        tokens, _ = self.ids(row, seq_length=8)
        self.assertEqual(tokens[0], "[CLS] old [SEP] not very bad . [SEP]")


class LearningTest(absltest.TestCase):
    def test_the_largest_number_of_choices_is_adapted(self):
        rows = [
            TASK.with_settings(num_choices=0).make_example(row, label)
            for row, label in zip(ROWS, ("b", 1, "old"), strict=True)
        ]
        task = multiple_choice.MultipleChoice().adapt(rows, None)
        self.assertEqual(task.num_choices, 4)
        self.assertEqual([row["label"] for row in rows], ["1", "1", "2"])
        self.assertEqual(
            task.with_settings(joined=False).adapt(rows, None), task
        )

    def test_the_loss_is_the_softmax_over_the_present_choices(self):
        model = make()
        examples = [
            TASK.make_example(row, label)
            for row, label in zip(ROWS, (3, 0, 2), strict=True)
        ]
        raw = {n: tf.constant([e[n] for e in examples]) for n in examples[0]}
        features = TASK.preprocess(raw, tiny.tokenizer())
        targets = TASK.make_targets(raw, features, tiny.tokenizer())
        features = TASK.add_derived_features(features)
        outputs = model.model(features)
        loss = TASK.loss(outputs, features, targets)["label"]
        answers = served(model).predict(ROWS)
        expected = -sum(
            np.log(answer["scores"][label])
            for answer, label in zip(answers, (3, 0, 2), strict=True)
        )
        np.testing.assert_allclose(loss, expected, rtol=1e-5)

    def test_a_task_as_it_is_served_is_not_trained(self):
        task = TASK.for_serving()
        with self.assertRaisesRegex(errors.InputError, "joined=True"):
            task.make_targets({"label": tf.constant(["0"])}, {}, None)
        with self.assertRaisesRegex(errors.InputError, "call its `adapt`"):
            multiple_choice.MultipleChoice().preprocess(
                {"context": tf.constant(["a"])}, tiny.tokenizer()
            )

    def test_trivial_answers_are_measured(self):
        examples = [
            TASK.make_example(row, label)
            for row, label in zip(ROWS, (1, 1, 2), strict=True)
        ]
        baseline = evaluation.baseline(TASK, examples)
        self.assertEqual(
            list(baseline), ["accuracy of always 'B'", "accuracy of chance"]
        )
        np.testing.assert_allclose(
            list(baseline.values()), [2 / 3, (1 / 4 + 1 / 2 + 1 / 3) / 3]
        )

    @pytest.mark.slow
    def test_keras_fit_trains_it(self):
        model = make(dropout=0.0, attention_dropout=0.0)
        data = bert_keras.to_dataset(
            list(ROWS), [1, 0, 2], TASK, model.tokenizer, batch_size=3
        )
        model.model.compile(optimizer=keras.optimizers.Adam(1e-2))
        losses = model.model.fit(data, epochs=12, verbose=0).history["loss"]
        self.assertLess(losses[-1], 0.5 * losses[0])


if __name__ == "__main__":
    absltest.main()
