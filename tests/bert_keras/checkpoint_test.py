import json
import os

import numpy as np
from absl.testing import absltest, parameterized

from bert_keras import (
    checkpoint,
    errors,
    formats,
    heads,
    loading,
    model_card,
    optimizers,
    predictor,
    safetensors_mmap,
)
from bert_keras import model as model_lib
from bert_keras.networks import bert
from bert_keras.tasks import classification, masked_lm
from tests import tiny


def optimizer(model):
    return optimizers.Optimizer(
        model.trainable_variables,
        rule=optimizers.AdamW(),
        schedule=optimizers.Schedule(1e-3, 1, 10),
    )


class Coached(classification.Classification):
    """Has a second head, which nothing but the training needs."""

    @property
    def head_signatures(self):
        return super().head_signatures | {"coach": "of training"}

    def build_heads(self, config):
        coach = heads.ClassificationHead(config, 3)
        return super().build_heads(config) | {"coach": coach}

    def for_serving(self):
        return classification.Classification(**self.get_config())


class CheckpointTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.run_folder = self.create_tempdir().full_path
        self.model = tiny.classifier()
        self.tokenizer = tiny.tokenizer()

    def save(self, step, **options):
        return checkpoint.save(
            self.run_folder, self.model, self.tokenizer, step=step, **options
        )

    def test_what_was_saved_answers_alike(self):
        self.save(5)
        texts = ["a good film", "很 坏 的 电影", ""]
        expected = predictor.Predictor(self.model, self.tokenizer)
        self.assertEqual(
            predictor.load(self.run_folder).predict(texts),
            expected.predict(texts),
        )

    def test_optimizer_comes_back_bit_equal(self):
        slots = optimizer(self.model)
        random = np.random.default_rng(0)
        for slot in slots.state().values():
            slot.assign(random.normal(size=slot.shape))
        self.save(5, optimizer=slots.state())
        again = optimizer(self.model)
        checkpoint.read(self.run_folder).load_run(self.model, again.state())
        for name, slot in again.state().items():
            np.testing.assert_array_equal(slot, slots.state()[name])

    def test_a_head_that_is_only_trained_stays_with_the_optimizer(self):
        def coached():
            task = Coached(seq_length=32, labels=("bad", "good"))
            model = model_lib.BertModel(bert.BertEncoder(tiny.bert()), task)
            return model, optimizer(model)

        def state(model, slots):
            weights = {w.path: w for w in model.trainable_weights}
            return weights | slots.state()

        self.model, slots = coached()
        random = np.random.default_rng(0)
        for variable in state(self.model, slots).values():
            variable.assign(random.normal(size=variable.shape))
        folder = self.save(5, optimizer=slots.state())

        names_by_file = {
            name: set(safetensors_mmap.tensors(os.path.join(folder, name)))
            for name in (checkpoint.HEAD, checkpoint.OPTIMIZER)
        }
        self.assertEqual(
            names_by_file[checkpoint.HEAD],
            {"label/score/bias", "label/score/kernel"},
        )
        self.assertEqual(
            names_by_file[checkpoint.OPTIMIZER] - set(slots.state()),
            {"head/coach/score/bias", "head/coach/score/kernel"},
        )

        model, again = coached()
        checkpoint.read(self.run_folder).load_run(model, again.state())
        for path, value in state(self.model, slots).items():
            np.testing.assert_array_equal(
                state(model, again)[path].numpy(), value.numpy(), path
            )

        served = predictor.load(self.run_folder)
        self.assertIs(type(served.task), classification.Classification)
        saved = predictor.Predictor(self.model, self.tokenizer)
        np.testing.assert_allclose(
            served.predict(["a good film"])[0]["scores"],
            saved.predict(["a good film"])[0]["scores"],
            atol=1e-6,
        )
        with self.assertRaisesRegex(
            errors.InputError, "optimizer.safetensors .* not in the model head/"
        ):
            saved = checkpoint.read(self.run_folder)
            saved.load_run(served.model, optimizer(served.model).state())

    def test_a_task_is_served_with_heads_of_its_own(self):
        class Another(Coached):
            def for_serving(self):
                return masked_lm.MaskedLM()

        task = Another(seq_length=32, labels=("bad", "good"))
        self.model = model_lib.BertModel(self.model.encoder, task)
        with self.assertRaisesRegex(
            errors.InputError, "lacks: masked_lm, next"
        ):
            self.save(1)
        self.assertEmpty(os.listdir(self.run_folder))

    def test_a_run_stands_for_its_best_else_its_latest(self):
        for step in (1, 2, 3):
            self.save(step)
        self.assertEqual(checkpoint.read(self.run_folder).step, 3)
        checkpoint.mark(self.run_folder, "best", 2)
        self.assertEqual(checkpoint.read(self.run_folder).step, 2)

    def test_any_failed_write_is_an_os_error(self):
        path = self.create_tempfile().full_path
        with self.assertRaises(OSError):  # a run folder cannot be in a file
            checkpoint.save(
                os.path.join(path, "run"), self.model, self.tokenizer, step=1
            )
        for name in ("latest", "best"):  # nor a mark replace a folder
            os.makedirs(os.path.join(self.run_folder, name, "inside"))
            with self.assertRaises(OSError):
                checkpoint.mark(self.run_folder, name, 1)
        with self.assertRaises(OSError):
            self.save(1)
        # What is complete stays.
        self.assertEqual(checkpoint.steps(self.run_folder), [1])

    def test_keeps_none_but_the_best_and_the_latest(self):
        for step in (1, 2, 3, 4):
            self.save(step)
        checkpoint.mark(self.run_folder, "best", 2)
        checkpoint.prune(self.run_folder, 0, self.tokenizer)
        self.assertEqual(checkpoint.steps(self.run_folder), [2, 4])

    @parameterized.parameters(
        {"lowercase": True}, {"lowercase": False}, {"allow_missing": "pooler"}
    )
    def test_arguments_for_external_formats_are_refused(self, **options):
        folder = self.save(1)
        for path in (folder, self.run_folder):
            with self.assertRaisesRegex(
                errors.InputError, "is a native checkpoint"
            ) as caught:
                formats.read(path, **options)
            self.assertEqual([caught.exception.argument], list(options))

    def test_keeps_the_last_ones_and_the_best(self):
        for step in (1, 2, 3, 4, 5, 6):
            self.save(step)
        checkpoint.mark(self.run_folder, "best", 1)
        checkpoint.prune(self.run_folder, 2, self.tokenizer)
        self.assertEqual(checkpoint.steps(self.run_folder), [1, 5, 6])
        names = {"best", "latest", model_card.FILE}
        self.assertLen(os.listdir(self.run_folder), 3 + len(names))

    def test_encoder_loads_under_another_task(self):
        self.save(1)
        task = classification.Classification(
            labels=("x", "y", "z"), seq_length=32
        )
        model = loading.load_model(checkpoint.read(self.run_folder), task)
        np.testing.assert_array_equal(
            model.encoder.token_table, self.model.encoder.token_table
        )
        self.assertEqual(model(tiny.inputs())["label"].shape, (4, 3))

    def test_a_folder_without_config_is_not_complete(self):
        self.save(1)
        folder = self.save(2)
        os.remove(os.path.join(folder, checkpoint.CONFIG))
        self.assertEqual(checkpoint.steps(self.run_folder), [1])
        with self.assertRaisesRegex(errors.InputError, "cannot be read"):
            checkpoint.read(self.run_folder)

    @parameterized.parameters(checkpoint.ENCODER, checkpoint.HEAD, "vocab.txt")
    def test_one_flipped_bit_is_noticed(self, name):
        path = os.path.join(self.save(1), name)
        with open(path, "r+b") as file:
            file.seek(-3, os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-3, os.SEEK_END)
            file.write(bytes([byte ^ 1]))
        with self.assertRaisesRegex(errors.InputError, f"{name} is damaged"):
            predictor.load(self.run_folder)

    def test_another_shape_or_a_missing_layer_stops_the_load(self):
        path = os.path.join(self.save(1), checkpoint.CONFIG)
        with open(path) as file:
            config = json.load(file)
        del config["checksum"]
        for change, message in (
            ({"num_layers": 1}, "not in the model block_1/"),
            ({"num_layers": 3}, "missing block_2/"),
            ({"intermediate_size": 48}, r"\(16, 32\) there and \(16, 48\)"),
        ):
            with open(path, "w") as file:
                json.dump(
                    config | {"network": config["network"] | change}, file
                )
            with self.assertRaisesRegex(errors.InputError, message):
                predictor.load(self.run_folder)

    @parameterized.parameters(
        ("{", "expected JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"step": ' + "1" * 5000 + "}", "expected JSON"),
        (b"\xff\xfe{}", "expected JSON in UTF-8"),
        ("[1]", "expected a JSON object, found list"),
        ("{}", "has format None"),
        ({"network": None}, "'network' is 'None'"),
        ({"network": {}}, "missing:"),
        ({"network": {"name": "os.path"}}, "os.path', which .* 0 networks"),
        ({"network": {"name": ["bert"]}}, "expected the name of a module"),
        ({"step": "x"}, "'step' is 'x'"),
        ({"step": True}, "'step' is True"),
        ({"step": -3}, "'step' is -3"),
        ({"step": 10**30}, "'step' is 1000"),
        ({"sha256": []}, "'sha256' is"),
        ({"tokenizer": 1}, "'tokenizer' is '1'"),
        ({"tokenizer": {"name": "os"}}, "tokenizer is in the module 'os'"),
        ({"tokenizer": {"name": "wordpiece"}}, "has the settings"),
        ({"task": "classification"}, "'task' is 'classification'"),
    )
    def test_a_damaged_config_is_refused_in_one_line(self, content, message):
        path = os.path.join(self.save(1), checkpoint.CONFIG)
        if isinstance(content, dict):
            with open(path) as file:
                config = json.load(file)
            del config["checksum"]
            content = json.dumps(config | content)
        if isinstance(content, str):
            content = content.encode()
        with open(path, "wb") as file:
            file.write(content)
        with self.assertRaisesRegex(errors.InputError, message):
            predictor.load(self.run_folder)

    @parameterized.parameters("²", "1" * 5000, b"\xff\xfe1\x00", "", "-1")
    def test_a_pointer_that_is_no_number_is_named(self, content):
        self.save(1)
        path = os.path.join(self.run_folder, "latest")
        with open(path, "wb") as file:
            file.write(
                content if isinstance(content, bytes) else content.encode()
            )
        with self.assertRaisesRegex(errors.InputError, "latest: expected the"):
            predictor.load(self.run_folder)

    def test_a_folder_in_place_of_a_file_is_named(self):
        path = os.path.join(self.save(1), checkpoint.ENCODER)
        os.remove(path)
        os.makedirs(path)
        with self.assertRaisesRegex(errors.InputError, "is damaged"):
            predictor.load(self.run_folder)

    @parameterized.parameters(
        {"num_layers": 9_999},
        {"vocab_size": 10**9},
        {"hidden_size": 2**20},
    )
    def test_sizes_are_compared_before_anything_is_made(self, **change):
        path = os.path.join(self.save(1), checkpoint.CONFIG)
        with open(path) as file:
            config = json.load(file)
        del config["checksum"]
        with open(path, "w") as file:
            json.dump(config | {"network": config["network"] | change}, file)
        with self.assertRaisesRegex(errors.InputError, "does not fit the mod"):
            predictor.load(self.run_folder)

    @parameterized.parameters(
        "format", "step", "network", "task", "tokenizer", "sha256"
    )
    def test_a_config_without_a_field_is_refused(self, name):
        path = os.path.join(self.save(1), checkpoint.CONFIG)
        with open(path) as file:
            config = json.load(file)
        del config["checksum"], config[name]
        with open(path, "w") as file:
            json.dump(config, file)
        with self.assertRaisesRegex(errors.InputError, name):
            predictor.load(self.run_folder)

    def test_a_folder_of_format_1_opens(self):
        """There, network and tokenizer had no name, but "bert", "lowercase"."""
        path = os.path.join(self.save(1), checkpoint.CONFIG)
        with open(path) as file:
            config = json.load(file)
        self.assertEqual(config["format"], "bert_keras.checkpoint.2")
        self.assertEqual(config["network"]["name"], "bert")
        network = config.pop("network")
        del config["checksum"], network["name"], network["embedding_norm"]
        self.assertEqual(
            config.pop("tokenizer"), {"name": "wordpiece", "lowercase": True}
        )
        config |= {"format": "bert_keras.checkpoint.1", "bert": network}
        for lowercase in (False, True):
            with open(path, "w") as file:
                json.dump(config | {"lowercase": lowercase}, file)
            tokenizer = checkpoint.read(self.run_folder).tokenizer()
            self.assertEqual(tokenizer.vocabulary, self.tokenizer.vocabulary)
            self.assertEqual(tokenizer.lowercase, lowercase)
        again = loading.load_model(checkpoint.read(self.run_folder))
        self.assertEqual(again.encoder.config, self.model.encoder.config)
        np.testing.assert_array_equal(
            again(tiny.inputs())["label"], self.model(tiny.inputs())["label"]
        )

    def test_a_folder_that_is_none_is_named(self):
        with self.assertRaisesRegex(errors.InputError, "not a checkpoint"):
            checkpoint.read(self.run_folder)


if __name__ == "__main__":
    absltest.main()
