"""The last layer computes what heads read, and every number stays the same."""

import contextlib
import itertools
import os
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import layers, predictor, signatures
from bert_keras import model as model_lib
from bert_keras.data import packing
from bert_keras.device import tflite_converter, tflite_runner
from bert_keras.networks import bert
from bert_keras.tasks import base, classification, masked_lm
from bert_keras.wrappers import r_drop
from tests import devices, tiny  # noqa: F401 (devices: two CPUs)
from tests.examples import length_too, mean_network
from tests.trainers import runs

LENGTH = 12
TEXTS = ("the [MASK] is [MASK] old .", "a film", "", "good " * 30)
NETWORKS = {
    "post_norm": {},
    "norm_first": {"norm_first": True},
    "albert": {"num_hidden_groups": 1, "embedding_size": 8},
    "shared_query_key": {"shared_query_key": True},
    "shared_attention": {
        "num_hidden_groups": 1,
        "shared_sublayers": "attention",
    },
    "gpt": {"causal": True, "embedding_norm": False},
    "causal": {"causal": True, "norm_first": True, "position": "sinusoidal"},
    "one_layer": {"num_layers": 1},
}


def pools(task_name, network):
    """Whether the network can have the task: some read its first token."""
    reads_first = task_name in ("layers", "extractive_summary")
    return not (reads_first and NETWORKS[network].get("causal"))


def classifier(pooling):
    return classification.Classification(
        labels=("bad", "good"), pooling=pooling
    )


def no_sentences():
    task = masked_lm.MaskedLM(objective="none")
    return task.adapt([], tiny.tokenizer())


# Decoders read all positions.
DECODERS = ("denoising", "recurrent_decoder", "sequence_to_sequence")
TASKS = {
    name: make
    for name, make in runs.TASKS.items()
    if name not in (*runs.ELMO, *runs.RNN, *DECODERS)
} | {
    "no_sentences": no_sentences,
    "layers": lambda: classifier("layers"),
    "last": lambda: classifier("last"),
    "r_drop": lambda: r_drop.RDrop(classifier("first")),
}
# Rows of the last layer, the pooled one counted; all others need every row.
ROWS = {
    "masked_lm": 3,
    "no_sentences": 3,
    "classification": 1,
    "drawn_labels": 1,
    "matching": 1,
    "layers": 2,
    "r_drop": 1,
    "extractive_summary": 4,  # one of each sentence
    "multiple_choice": 3,  # one of each choice
}
# Rows of all positions, where they are not LENGTH.
ALL_ROWS = {"multiple_choice": 24}  # each choice is a row of the encoder


def network_of(task_name):
    """The name of a network that the task can learn with."""
    return "gpt" if task_name == "causal_lm" else "post_norm"


class ReadsMean(classification.Classification):
    """A user's task that reads all tokens and declares nothing."""

    def outputs(self, encoded, heads, features, *, training):
        mean = tf.reduce_mean(encoded["hidden"][-1], axis=1)
        outputs = super().outputs(encoded, heads, features, training=training)
        return {"label": outputs["label"] + mean[:, :2]}


class MeanToo(length_too.LengthToo):
    """A user's wrapper that reads all tokens and declares nothing."""

    def outputs(self, encoded, heads, features, *, training):
        mean = tf.reduce_mean(encoded["hidden"][-1], axis=1)
        return {
            **self.task.outputs(encoded, heads, features, training=training),
            "length": heads["length"].score(mean),
        }


class FormerEncoder(bert.BertEncoder):
    """A user's encoder that does not know of positions to read."""

    def call(
        self,
        *,
        token_ids,
        padding_mask,
        segment_ids,
        position_ids=None,
        training=None,
    ):
        return super().call(
            token_ids=token_ids,
            padding_mask=padding_mask,
            segment_ids=segment_ids,
            position_ids=position_ids,
            training=training,
        )


class PoolsMean(bert.BertEncoder):
    """A user's encoder whose pooler reads more than one state."""

    def pool(self, hidden, padding_mask):
        return self.pooler(tf.reduce_mean(hidden, axis=1))


def reading_all(task):
    """A context in which the heads of the task read every position."""
    while hasattr(task, "task"):
        task = task.task
    return mock.patch.object(
        type(task), "positions_read", base.Task.positions_read
    )


def spread(model, scale=0.3):
    """The model with random weights, biases included."""
    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0, scale, variable.shape))
    return model


def make_model(task, encoder=None, **network):
    network = {"dropout": 0.0, "attention_dropout": 0.0} | network
    encoder = encoder or bert.BertEncoder(tiny.bert(**network))
    return spread(model_lib.BertModel(encoder, task))


def make_batch(task, *, packed=False):
    """(features, targets) of rows of several lengths, or of two texts."""
    while hasattr(task, "task"):
        task = task.task
    batch = next(runs.batches(task, 1))
    features, targets = batch["inputs"], batch["targets"]
    if packed:
        mask = features["padding_mask"]
        mask *= 1 + tf.cast(tf.range(LENGTH) >= 5, tf.int32)
        position_ids = packing.position_ids(mask, 2)
        features |= {"padding_mask": mask, "position_ids": position_ids}
    class_targets = {
        k: v for k, v in targets.items() if k in task.softmax_terms
    }
    return features, class_targets or targets


def learn(model, features, targets):
    """Outputs, losses, and gradients by path, all in one dictionary."""
    variables = {v.path: v.value for v in model.trainable_variables}
    with tf.GradientTape() as tape:
        outputs = model(features, targets, training=True)
        losses = model.task.loss(outputs, features, targets)
        total = tf.add_n(list(losses.values()))
    gradients = tape.gradient(total, variables)
    results = outputs | {f"loss/{k}": v for k, v in losses.items()} | gradients
    return {
        name: tf.cast(tf.convert_to_tensor(value), tf.float32).numpy()
        for name, value in results.items()
        if value is not None
    }


def last_rows(model, features):
    """How many rows of each text the last feed-forward computes."""
    count = features["token_ids"].shape[0]
    lengths, call = [], layers.FeedForward.call

    def noted(self, x, training=None):
        lengths.append(x.shape[0] // count)
        return call(self, x, training=training)

    with mock.patch.object(layers.FeedForward, "call", noted):
        model(features, training=False)
    return lengths[-1]


class Case(parameterized.TestCase):
    def assert_near(self, actual, expected, tolerance=1e-6):
        """Equal names, and numbers to `tolerance` of the largest."""
        self.assertEqual(set(actual), set(expected))
        for name, value in expected.items():
            scale = max(1.0, np.abs(value).max(initial=0))
            np.testing.assert_allclose(
                actual[name],
                value,
                atol=tolerance * scale,
                rtol=0,
                err_msg=name,
            )


class TrainingTest(Case):
    @parameterized.parameters(
        *(each for each in itertools.product(ROWS, NETWORKS) if pools(*each)),
        *((kind, network_of(kind)) for kind in TASKS if kind not in ROWS),
    )
    @pytest.mark.slow_after(20)
    def test_losses_and_gradients_are_those_of_all_positions(
        self, task_name, network
    ):
        model = make_model(TASKS[task_name](), **NETWORKS[network])
        batch = make_batch(model.task)
        actual = learn(model, *batch)
        with reading_all(model.task):
            expected = learn(model, *batch)
            all_rows = ALL_ROWS.get(task_name, LENGTH)
            self.assertEqual(last_rows(model, batch[0]), all_rows)
        self.assert_near(actual, expected)
        rows = ROWS.get(task_name, LENGTH)
        self.assertEqual(last_rows(model, batch[0]), rows)

    @parameterized.parameters(
        *itertools.product(("masked_lm", "classification"), (False, True)),
        ("layers", False),
    )
    def test_several_texts_in_a_row(self, task_name, causal):
        model = make_model(TASKS[task_name](), causal=causal)
        batch = make_batch(model.task, packed=True)
        actual = learn(model, *batch)
        with reading_all(model.task):
            self.assert_near(actual, learn(model, *batch))

    def test_positions_past_the_last_mask_are_harmless(self):
        model = make_model(TASKS["masked_lm"]())
        features, targets = make_batch(model.task)
        _, weights = targets["masked_lm"]
        self.assertEqual(set(np.ravel(weights)), {0.0, 1.0})
        other = tf.where(weights > 0, features["positions"], 7)
        one, two = (
            learn(model, features | {"positions": positions}, targets)
            for positions in (features["positions"], other)
        )
        for actual in (one, two):
            del actual["masked_lm"]  # whose logits at padding nobody reads
        self.assert_near(one, two)

    @parameterized.parameters(
        ("masked_lm", "one_device", 4, False),
        ("masked_lm", "one_device", 2, True),
        ("masked_lm", "mirrored", 1, False),
        ("classification", "mirrored", 2, False),
    )
    @pytest.mark.slow_after(1)
    def test_runs_end_with_the_same_weights(
        self, task_name, strategy, micro_batches, xla
    ):
        weights, losses = [], []
        for context in (
            contextlib.nullcontext(),
            reading_all(TASKS[task_name]()),
        ):
            with context:
                run = runs.Run(task_name, strategy, micro_batches, xla=xla)
                losses.append(run.train(stop=4))
                weights.append(run.weights())
        np.testing.assert_allclose(*losses, rtol=0, atol=1e-6)
        self.assert_near(*weights)

    @parameterized.parameters("masked_lm", "classification", "layers")
    def test_16_bits_differ_by_their_rounding(self, task_name):
        keras.config.set_dtype_policy("mixed_bfloat16")
        self.addCleanup(keras.config.set_dtype_policy, "float32")
        model = make_model(TASKS[task_name](), norm_first=True)
        batch = make_batch(model.task)
        actual = learn(model, *batch)
        with reading_all(model.task):
            self.assert_near(actual, learn(model, *batch), 2.0**-7)

    def test_each_dropout_draws_as_often_as_before(self):
        states = []
        for context in (
            contextlib.nullcontext(),
            reading_all(TASKS["masked_lm"]()),
        ):
            with context:
                keras.utils.set_random_seed(1)
                rates = {"dropout": 0.1, "attention_dropout": 0.1}
                model = make_model(TASKS["masked_lm"](), **rates)
                learn(model, *make_batch(model.task))
            states.append(
                [v.numpy() for v in model.variables if "seed" in v.path]
            )
        self.assertLen(states[0], 5)
        np.testing.assert_array_equal(*states)


class AnswersTest(Case):
    @parameterized.parameters(*TASKS)
    def test_python_answers(self, task_name):
        task = TASKS[task_name]()
        rows = tiny.inputs(rows=6)
        ids = rows["token_ids"].numpy()
        ids[:3, 2:4] = tiny.VOCABULARY.index("[MASK]")
        ids[:, [0, 5]] = tiny.VOCABULARY.index("[CLS]")
        rows["token_ids"] = tf.constant(ids)
        answers = []
        for context in (contextlib.nullcontext(), reading_all(task)):
            with context:
                network = NETWORKS[network_of(task_name)]
                model = predictor.Predictor(
                    make_model(task, **network), tiny.tokenizer()
                )
                answers.append(model.tokens(**rows))
        for name, value in answers[0].items():
            np.testing.assert_allclose(value, answers[1][name], atol=1e-6)

    @parameterized.parameters("masked_lm", "classification", "layers")
    @pytest.mark.slow_after(1)
    def test_texts_are_answered_in_batches_of_one_length(self, task_name):
        model = make_model(TASKS[task_name]())
        texts = {"text": tf.constant([*TEXTS, "very " * 50])}
        answers = []
        for context in (contextlib.nullcontext(), reading_all(model.task)):
            with context:
                asked = predictor.Predictor(model, tiny.tokenizer())
                answers.append(asked._answer(**texts))
        for name, value in answers[0].items():
            if value.dtype != tf.float32:
                np.testing.assert_array_equal(value, answers[1][name])
            else:
                np.testing.assert_allclose(value, answers[1][name], atol=1e-6)

    @parameterized.parameters(
        *itertools.product(
            ("masked_lm", "classification"), ("post_norm", "causal")
        ),
        ("layers", "post_norm"),
    )
    @pytest.mark.slow_after(2)
    def test_exports_answer_as_python_with_all_positions(
        self, task_name, network
    ):
        model = make_model(TASKS[task_name](), **NETWORKS[network])
        model = predictor.Predictor(model, tiny.tokenizer())
        folder = os.path.join(self.create_tempdir().full_path, "served")
        length, config = 16, model.model.encoder.config
        specs = signatures.token_specs(config, None, length)
        signatures.save(model, folder, {"tokens": (model.tokens, specs)})
        served = tf.saved_model.load(folder).signatures["tokens"]
        path = self.create_tempfile("model.tflite").full_path
        with open(path, "wb") as file:
            file.write(
                tflite_converter.convert(
                    model, tflite_converter.QUANTIZATIONS["float32"], [length]
                )
            )
        file = tflite_runner.File(path, model)
        inputs = file.inputs({"text": tf.constant(TEXTS)})
        rows = {name: tf.constant(inputs[name]) for name in config.inputs}
        with reading_all(model.task):
            again = predictor.Predictor(model.model, model.tokenizer)
            expected = again.tokens(**rows)
        for name, value in served(**rows).items():
            np.testing.assert_allclose(value, expected[name], atol=1e-6)
        for number in range(len(TEXTS)):
            answers = file.call(file.row(inputs, number))
            for name, value in answers.items():
                np.testing.assert_allclose(
                    value[0], expected[name][number], atol=1e-6
                )


class EncoderTest(Case):
    @parameterized.product(network=tuple(NETWORKS), count=(2, 3))
    def test_the_rows_read_are_those_of_all(self, network, count):
        encoder = spread(bert.BertEncoder(tiny.bert(**NETWORKS[network])))
        inputs = tiny.inputs(rows=3)
        # In any order, twice, and at padding; with what is pooled as many
        # positions as rows, or one more.
        positions = tf.constant([[11, 0, 3], [5, 5, 10], [1, 11, 0]])[:, :count]
        every = encoder(**inputs, attentions=True)
        some = encoder(**inputs, attentions=True, positions_read=positions)
        self.assertNotIn("positions_read", every)
        self.assertEqual(every["hidden"][-1].shape, (3, LENGTH, 16))
        self.assert_near(
            {"pooled": some["pooled"], "read": some["hidden"][-1]},
            {
                "pooled": every["pooled"],
                "read": tf.gather(every["hidden"][-1], positions, batch_dims=1),
            },
        )
        np.testing.assert_allclose(
            some["attentions"][-1],
            tf.gather(every["attentions"][-1], positions, batch_dims=1, axis=2),
            atol=1e-6,
        )
        for name in ("hidden", "attentions"):
            pairs = zip(every[name][:-1], some[name][:-1], strict=True)
            for one, two in pairs:
                np.testing.assert_array_equal(one, two)

    def test_a_pooler_of_a_users_gets_all_states(self):
        encoder = spread(PoolsMean(tiny.bert()))
        inputs = tiny.inputs(rows=3)
        read = encoder(**inputs, positions_read=tf.zeros((3, 1), tf.int32))
        self.assertNotIn("positions_read", read)
        np.testing.assert_array_equal(
            read["pooled"], encoder(**inputs)["pooled"]
        )

    def test_what_else_a_user_overrides_gets_all_states(self):
        class Finishes(bert.BertEncoder):
            def finish(self, hidden, padding_mask):
                return super().finish(hidden, padding_mask)

        patched = spread(bert.BertEncoder(tiny.bert()))
        patched.pool = lambda hidden, mask: tf.reduce_mean(hidden, axis=1)
        for encoder in (spread(Finishes(tiny.bert())), patched):
            inputs = tiny.inputs(rows=3)
            read = encoder(**inputs, positions_read=tf.zeros((3, 1), tf.int32))
            self.assertNotIn("positions_read", read)

    @parameterized.parameters("int8", "int4")
    @pytest.mark.slow_after(1)
    def test_a_quantized_network_differs_by_its_rounding(self, mode):
        self.check_quantized(mode)

    @parameterized.product(network=tuple(NETWORKS), mode=("int8", "int4"))
    @pytest.mark.slow
    def test_every_quantized_network_differs_by_its_rounding(
        self, network, mode
    ):
        self.check_quantized(mode, **NETWORKS[network])

    def check_quantized(self, mode, **fields):
        encoder = spread(bert.BertEncoder(tiny.bert(**fields)))
        encoder.quantize(mode)
        inputs = tiny.inputs(rows=3)
        every = encoder(**inputs)["hidden"][-1].numpy()
        positions = tf.constant([[0, 5], [2, 3], [1, 1]])
        read = encoder(**inputs, positions_read=positions)["hidden"][-1]
        expected = np.take_along_axis(every, positions.numpy()[..., None], 1)
        # Inputs are quantized by row, so that they are the same numbers.
        np.testing.assert_allclose(read, expected, atol=1e-5)

    @parameterized.parameters(False, True)
    def test_no_rows_are_answered_without_a_graph(self, causal):
        encoder = spread(bert.BertEncoder(tiny.bert(causal=causal)))
        inputs = {k: v[:0] for k, v in tiny.inputs().items()}
        read = encoder(**inputs, positions_read=tf.zeros((0, 1), tf.int32))
        self.assertEqual(read["pooled"].shape, (0, 16))

    def test_a_causal_network_pools_the_very_last_token(self):
        encoder = spread(bert.BertEncoder(tiny.bert(causal=True)))
        inputs = tiny.inputs(rows=1)
        inputs["padding_mask"] = tf.constant([[1, 1, 0, 0, 1, 1] + [0] * 6])
        every = encoder(**inputs)
        read = encoder(**inputs, positions_read=tf.zeros((1, 1), tf.int32))
        last = encoder.pooler(every["hidden"][-1][:, 5])
        for pooled in (every["pooled"], read["pooled"]):
            np.testing.assert_allclose(pooled, last, atol=1e-6)

    def test_a_row_of_padding_is_pooled_alike(self):
        encoder = spread(bert.BertEncoder(tiny.bert(causal=True)))
        inputs = {k: tf.zeros_like(v) for k, v in tiny.inputs().items()}
        positions = tf.zeros((4, 1), tf.int32)
        self.assert_near(
            {"pooled": encoder(**inputs, positions_read=positions)["pooled"]},
            {"pooled": encoder(**inputs)["pooled"]},
        )

    def test_a_step_has_fewer_flops(self):
        def flops(model, features):
            function = tf.function(lambda: model(features, training=True))
            graph = function.get_concrete_function().graph
            return sum(
                # No input is transposed in a forward pass.
                2 * np.prod(matmul.outputs[0].shape) * matmul.inputs[0].shape[1]
                for matmul in graph.get_operations()
                if matmul.type == "MatMul"
            )

        model = make_model(TASKS["masked_lm"](), intermediate_size=64)
        features, _ = make_batch(model.task)
        actual = flops(model, features)
        with reading_all(model.task):
            expected = flops(model, features)
        # Of queries and attention's output, and of the feed-forward.
        row = 2 * (2 * 16 * 16 + 2 * 16 * 64)
        spared = runs.BATCH * (LENGTH - ROWS["masked_lm"]) * row
        self.assertEqual(expected - actual, spared)


class UsersTest(Case):
    """What was written before a task could say which positions it reads."""

    def test_other_outputs_read_all(self):
        for task in (
            ReadsMean(labels=("bad", "good")),
            MeanToo(no_sentences()),
        ):
            model = make_model(task)
            features, _ = make_batch(task)
            self.assertEqual(last_rows(model, features), LENGTH)
            self.assertIsNone(task.positions_read(features))
            actual = model(features)
            with reading_all(task):
                self.assert_near(actual, model(features))

    def test_other_heads_read_all(self):
        class OtherHead(masked_lm.MaskedLM):
            def build_heads(self, config):
                return super().build_heads(config)

        class Outputs:
            outputs = classification.Classification.outputs

        class Mixed(Outputs, classification.Classification):
            pass

        class Declared(Mixed):
            positions_read = classification.Classification.positions_read

        class Inherited(Declared):
            labels: tuple = ("other", "field")

        features, _ = make_batch(TASKS["masked_lm"]())
        self.assertIsNone(OtherHead().positions_read(features))
        self.assertIsNone(Mixed().positions_read(features))
        for task in (Declared, Inherited, classification.Classification):
            self.assertIsNotNone(task().positions_read(features))

    def test_an_encoder_without_the_argument_computes_all(self):
        mean = mean_network.MeanConfig(len(tiny.VOCABULARY)).build_encoder()
        former = FormerEncoder(tiny.bert())
        for encoder in (mean, former):
            for task_name in ("masked_lm", "classification"):
                model = make_model(TASKS[task_name](), encoder)
                features, _ = make_batch(model.task)
                actual = model(features)
                with reading_all(model.task):
                    self.assert_near(actual, model(features))
        self.assertEqual(last_rows(model, features), LENGTH)

    def test_an_encoder_may_be_any_function(self):
        encoder = bert.BertEncoder(tiny.bert())

        class Proxy:
            config = encoder.config

            def __call__(self, **inputs):
                return encoder(**inputs)

        encoded = base.networks.encode(
            Proxy(), tiny.inputs(), positions_read=None, training=False
        )
        self.assertLen(encoded["hidden"], 3)

    def test_what_wraps_a_task_reads_what_it_does(self):
        task = r_drop.RDrop(no_sentences())
        features, _ = make_batch(task)
        self.assertIs(task.positions_read(features), features["positions"])


if __name__ == "__main__":
    absltest.main()
