"""Heads come back as they were saved, all of them, or the load stops."""

import hashlib
import json
import os

import keras
import numpy as np
import safetensors.numpy
from absl.testing import absltest, parameterized

from bert_keras import (
    checkpoint,
    errors,
    heads,
    layers,
    loading,
    named_tensors,
    safetensors_mmap,
)
from bert_keras import model as model_lib
from bert_keras.networks import bert
from bert_keras.tasks import base, classification
from tests import tiny
from tests.bert_keras.tasks import tasks_test


class Head(heads.ClassificationHead):
    """Also a temperature () and a matrix without a row (0, 3)."""

    def build(self, input_shape=None):
        self.temperature = self.add_weight(name="temperature", shape=())
        self.empty = self.add_weight(name="empty", shape=(0, 3))
        super().build()


class Other(keras.layers.Layer):
    """Two layers of one name."""

    def __init__(self, config, num_classes, **kwargs):
        super().__init__(**kwargs)

    def build(self, input_shape=None):
        self.first = keras.layers.Dense(2, name="score")
        self.second = keras.layers.Dense(2, name="score")
        self.first.build((None, 16))
        self.second.build((None, 16))
        self.built = True


class Late(heads.ClassificationHead):
    """Makes a weight when it is called."""

    def __init__(self, config, num_classes, **kwargs):
        super().__init__(config, num_classes, **kwargs)
        self.more = keras.layers.Dense(2, name="more")

    def call(self, encoded, padding_mask, training=None):
        return self.more(super().call(encoded, padding_mask, training=training))


class Custom(classification.Classification):
    """Says which layers are its heads, and which of them it names."""

    layers = {"label": heads.ClassificationHead}
    named = ("label",)

    @property
    def head_signatures(self):
        return dict.fromkeys(self.named, self.labels)

    def build_heads(self, config):
        return {
            name: layer(config, len(self.labels))
            for name, layer in self.layers.items()
        }


def make(named=("label",), **heads_by_name):
    task_class = type(
        "Made", (Custom,), {"named": named, "layers": heads_by_name}
    )
    task = task_class(seq_length=32, labels=("bad", "good"))
    return model_lib.BertModel(bert.BertEncoder(tiny.bert()), task)


def fill(layer, seed=0):
    """Numbers that no initialiser gives."""
    random = np.random.default_rng(seed)
    for variable in layer.weights:
        if not variable.path.endswith("seed_generator_state"):
            variable.assign(random.normal(size=variable.shape))


class HeadsTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.run_folder = self.create_tempdir().full_path

    def save(self, model):
        return checkpoint.save(self.run_folder, model, tiny.tokenizer(), step=1)

    def test_every_task_loads_every_weight_that_it_saved(self):
        for model in map(tasks_test.make, tasks_test.NAMES):
            with self.subTest(model.task.name):
                run = self.create_tempdir().full_path
                fill(model.model)
                checkpoint.save(run, model.model, model.tokenizer, step=1)
                again = loading.load_model(checkpoint.read(run))
                for layer in ("encoder", "head"):
                    want = checkpoint.weights(getattr(model.model, layer))
                    got = checkpoint.weights(getattr(again, layer))
                    self.assertEqual(set(got), set(want))
                    for path, value in want.items():
                        np.testing.assert_array_equal(got[path], value, path)

    def test_weights_of_no_and_of_one_number_come_back(self):
        model = make(label=Head)
        fill(model.head)
        values = checkpoint.weights(model.head)
        self.assertEqual(values["label/temperature"].shape, ())
        folder = self.create_tempdir().full_path
        path = os.path.join(folder, "head.safetensors")
        named_tensors.write(path, values)
        read = safetensors_mmap.tensors(path)
        self.assertEqual(set(read), set(values))
        for name, value in values.items():
            self.assertEqual(read[name].shape, tuple(value.shape), name)
            np.testing.assert_array_equal(read[name], value)

    @parameterized.parameters(
        ((), ("label",), "builds the heads label, .* names none"),
        (("labels",), ("label",), "builds the heads label, .* names labels"),
        (("label",), ("label", "more"), "heads label, more, .* names label:"),
        (("label", "more"), ("label",), "heads label, .* names label, more:"),
        (("label",), (), "builds the heads none, .* names label:"),
    )
    def test_heads_and_signatures_have_the_same_names(
        self, named, built, message
    ):
        with self.assertRaisesRegex(errors.InputError, message):
            make(named, **dict.fromkeys(built, heads.ClassificationHead))

    @parameterized.parameters("build", "name", "trainable", "a/b", "")
    def test_a_head_has_a_name_of_its_own(self, name):
        with self.assertRaisesRegex(errors.InputError, "cannot have the name"):
            make((name,), **{name: heads.ClassificationHead})

    def test_two_weights_of_one_path_are_refused(self):
        with self.assertRaisesRegex(errors.InputError, "label/score/kernel"):
            checkpoint.weights(make(label=Other).head)

    def test_a_weight_made_later_is_refused_when_it_is_saved(self):
        model = make(label=Late)
        model(tiny.inputs())
        with self.assertRaisesRegex(errors.InputError, "would be saved and"):
            self.save(model)
        self.assertEqual(os.listdir(self.run_folder), [])

    @parameterized.parameters(
        (lambda head: head.pop("label/score/bias"), "missing label/score/bias"),
        (
            lambda head: head.update(other=np.zeros(3, np.float32)),
            "not in the model other",
        ),
        (
            lambda head: head.update({"label/more": np.zeros(3, np.float32)}),
            "not in the model label/more",
        ),
        (
            lambda head: head.update(
                {"label/score/bias": np.zeros(3, np.float32)}
            ),
            r"label/score/bias is \(3,\) there and \(2,\)",
        ),
    )
    def test_the_same_task_loads_all_or_stops(self, change, message):
        model = tiny.classifier()
        folder = self.save(model)
        path = os.path.join(folder, checkpoint.HEAD)
        head = safetensors.numpy.load_file(path)
        change(head)
        safetensors.numpy.save_file(head, path)
        config = os.path.join(folder, checkpoint.CONFIG)
        with open(config) as file:
            values = json.load(file)
        del values["checksum"]
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        values["sha256"][checkpoint.HEAD] = digest
        with open(config, "w") as file:
            json.dump(values, file)
        for task in (None, model.task):
            with self.assertRaisesRegex(errors.InputError, message):
                loading.load_model(checkpoint.read(folder), task)

    def test_weights_that_are_not_read_have_random_numbers(self):
        self.save(tiny.classifier())
        for labels in (("x", "y", "z"), ("bad", "good")):
            task = base.find("classification")(
                labels=labels,
                pooling="lstm" if len(labels) == 2 else "first",
                seq_length=32,
            )
            model = loading.load_model(checkpoint.read(self.run_folder), task)
            for path, value in checkpoint.weights(model.head).items():
                if path.endswith("kernel"):
                    self.assertGreater(np.abs(value.numpy()).max(), 0, path)

    def test_nothing_is_left_uninitialised_after_a_load(self):
        # `skip_init` makes zeros; all that a load gives must have been read.
        model = tiny.classifier()
        fill(model)
        self.save(model)
        with layers.skip_init():
            empty = tiny.classifier()
        zero = {
            path
            for path, value in checkpoint.weights(empty.head).items()
            if not np.any(value)
        }
        self.assertNotEmpty(zero)
        again = checkpoint.weights(
            loading.load_model(checkpoint.read(self.run_folder)).head
        )
        for path in zero:
            self.assertTrue(np.all(again[path]), path)


if __name__ == "__main__":
    absltest.main()
