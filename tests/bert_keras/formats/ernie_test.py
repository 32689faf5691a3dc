"""Hugging Face folders of ERNIE: read, written, refused, and transformers'.

`EXPECTED` was computed by transformers 5.24 beforehand; the other comparisons
with it run where it and torch are installed.
"""

import importlib.util
import os

import numpy as np
import safetensors.numpy
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, files, formats
from bert_keras import model as model_lib
from bert_keras.formats import hugging_face
from bert_keras.tasks import classification, masked_lm
from tests import tiny

CONFIG = {
    "model_type": "ernie",
    "architectures": ["ErnieModel"],
    "vocab_size": len(tiny.VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "type_vocab_size": 4,
    "use_task_id": True,
    "task_type_vocab_size": 3,
}
# Tensors of ErnieModel: (out, in) of a dense layer, whose bias is (out,), or
# the shape of a table or a LayerNorm.
TABLES = {
    "word_embeddings": (len(tiny.VOCABULARY), 16),
    "position_embeddings": (64, 16),
    "token_type_embeddings": (4, 16),
    "task_type_embeddings": (3, 16),
}
LAYER = {
    "attention.self.query": (16, 16),
    "attention.self.key": (16, 16),
    "attention.self.value": (16, 16),
    "attention.output.dense": (16, 16),
    "attention.output.LayerNorm": (16,),
    "intermediate.dense": (32, 16),
    "output.dense": (16, 32),
    "output.LayerNorm": (16,),
}
SEGMENTS = [0, 1, 2, 3] * 3
# Of `published` and tiny.inputs with SEGMENTS: first values of the last hidden
# states at position 5 of row 1, and of the pooled vector.
EXPECTED = {
    "hidden": (-1.0973487, 0.3491084, -0.9602644, -0.2393134),
    "pooled": (0.7573515, 0.7062752, -0.9773524, -0.8968644),
}


def published():
    """Random tensors with the names of ErnieModel."""
    shapes = {f"embeddings.{k}.weight": shape for k, shape in TABLES.items()}
    layers = {f"encoder.layer.0.{k}": shape for k, shape in LAYER.items()}
    for name, shape in {
        "embeddings.LayerNorm": (16,),
        **layers,
        "pooler.dense": (16, 16),
    }.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    random = np.random.default_rng(0)
    return {
        name: random.normal(0, 0.5, shape).astype("float32")
        for name, shape in shapes.items()
    }


def write(folder, **changes):
    """Writes `published` as a folder of ErnieModel."""
    values = {k: v for k, v in (CONFIG | changes).items() if v is not None}
    files.write_json(os.path.join(folder, "config.json"), values)
    tiny.tokenizer().save_vocabulary(os.path.join(folder, "vocab.txt"))
    safetensors.numpy.save_file(
        published(), os.path.join(folder, "model.safetensors")
    )
    return folder


def inputs():
    features = tiny.inputs()
    return features | {"segment_ids": np.array([SEGMENTS] * 4, "int32")}


def load(folder):
    source = formats.read(folder)
    encoder = source.config.build_encoder()
    source.load_encoder(encoder)
    return encoder


TASKS = {
    "ErnieModel": lambda: None,
    "ErnieForMaskedLM": lambda: masked_lm.MaskedLM(objective="none").adapt(
        [], tiny.tokenizer()
    ),
    "ErnieForPreTraining": lambda: masked_lm.MaskedLM(objective="nsp").adapt(
        [], tiny.tokenizer()
    ),
    "ErnieForSequenceClassification": lambda: classification.Classification(
        labels=("bad", "good", "dull")
    ),
}


# Outputs here that transformers has under other names.
OUTPUTS = {
    "hidden": "last_hidden_state",
    "pooled": "pooler_output",
    "label": "logits",
    "next_sentence": "seq_relationship_logits",
}


def make(name="ErnieModel", **changes):
    """A model with random weights."""
    fields = {"num_segments": 4, "num_task_types": 3} | changes
    encoder = tiny.bert(**fields).build_encoder()
    model = model_lib.BertModel(encoder, TASKS[name]())
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0, 0.2, variable.shape))
    return model


def values_of(model):
    values = checkpoint.weight_values(model.encoder)
    return values | (checkpoint.weight_values(model.head) if model.task else {})


def transformers_or_skip(test):
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            test.skipTest(f"needs {name}, which the project does not use")
    import transformers

    return transformers


def outputs_of(network):
    """What a network of transformers computes of `inputs`."""
    import torch

    ids, segments, mask = (
        torch.tensor(np.asarray(value), dtype=torch.long)
        for value in inputs().values()
    )
    with torch.no_grad():
        outputs = network.eval()(
            input_ids=ids, token_type_ids=segments, attention_mask=mask
        )
    return {name: value.numpy() for name, value in outputs.items()}


class ErnieTest(parameterized.TestCase):
    def assert_close(self, actual, expected, name):
        difference = np.abs(np.asarray(actual) - expected)
        real = inputs()["padding_mask"].numpy() > 0
        if difference.shape[:2] == real.shape:  # padding means nothing
            difference = difference[real]
        print(f"{name}: {difference.max():.1e}")
        self.assertLess(difference.max(), 1e-5)

    def test_the_numbers_are_those_of_transformers(self):
        encoder = load(write(self.create_tempdir().full_path))
        self.assertEqual(encoder.config.num_task_types, 3)
        encoded = encoder(**inputs())
        hidden = encoded["hidden"][-1][1, 5].numpy()
        pooled = encoded["pooled"][1].numpy()
        for name, value in (("hidden", hidden), ("pooled", pooled)):
            np.testing.assert_allclose(value[:4], EXPECTED[name], atol=1e-5)

    @parameterized.parameters(True, False)
    def test_what_transformers_writes_is_read(self, use_task_id):
        transformers = transformers_or_skip(self)
        values = CONFIG | {"use_task_id": use_task_id, "num_hidden_layers": 3}
        network = transformers.ErnieModel(transformers.ErnieConfig(**values))
        folder = self.create_tempdir().full_path
        network.save_pretrained(folder)
        tiny.tokenizer().save_vocabulary(os.path.join(folder, "vocab.txt"))
        encoder = load(folder)
        self.assertEqual(encoder.config.num_task_types, 3 * use_task_id)
        encoded, expected = encoder(**inputs()), outputs_of(network)
        self.assert_close(
            encoded["hidden"][-1], expected["last_hidden_state"], "hidden"
        )
        self.assert_close(
            encoded["pooled"], expected["pooler_output"], "pooled"
        )

    @parameterized.parameters(*TASKS)
    def test_transformers_answers_alike(self, name):
        transformers = transformers_or_skip(self)
        model, folder = make(name), self.create_tempdir().full_path
        hugging_face.write(folder, model, tiny.tokenizer())
        network, report = getattr(transformers, name).from_pretrained(
            folder, output_loading_info=True
        )
        self.assertFalse(report["missing_keys"] or report["mismatched_keys"])
        expected = outputs_of(network)
        every = np.tile(np.arange(12, dtype="int32"), (4, 1))
        reads = isinstance(model.task, masked_lm.MaskedLM)
        features = {"positions": every} if reads else {}
        masked = "logits" if "logits" in expected else "prediction_logits"
        for part, value in model(inputs() | features).items():
            output = (OUTPUTS | {"masked_lm": masked})[part]
            value = value[-1] if part == "hidden" else value
            self.assert_close(value, expected[output], f"{name} {output}")

    @parameterized.parameters(*TASKS)
    def test_a_folder_is_read_as_it_was_written(self, name):
        model, folder = make(name), self.create_tempdir().full_path
        hugging_face.write(folder, model, tiny.tokenizer())
        values = files.read_json(os.path.join(folder, "config.json"))
        self.assertEqual(values["model_type"], "ernie")
        self.assertEqual(values["architectures"], [name])
        source = formats.read(folder)
        self.assertEqual(source.config, model.encoder.config)
        self.assertEqual(source.task is None, name == "ErnieModel")
        again = model_lib.BertModel(source.config.build_encoder(), source.task)
        source.load_encoder(again.encoder)
        if source.task:
            source.load_head(again.head, None)
        actual, expected = values_of(again), values_of(model)
        self.assertEqual(set(actual), set(expected))
        for path, value in actual.items():
            if name != "ErnieForMaskedLM" or not path.startswith("pooler/"):
                np.testing.assert_array_equal(value, expected[path], path)

    @parameterized.parameters(
        ({"use_task_id": "yes"}, "true or false for use_task_id"),
        ({"use_task_id": False}, "task_type_embeddings"),
        ({"task_type_vocab_size": 0}, "task_type_vocab_size, got 0"),
        ({"task_type_vocab_size": 5}, r"task_type_embeddings.* \(3, 16\)"),
        ({"model_type": "ernie_m"}, "model_type 'bert'"),
    )
    def test_other_values_are_refused(self, changes, message):
        folder = write(self.create_tempdir().full_path, **changes)
        with self.assertRaisesRegex(errors.InputError, message):
            formats.read(folder)

    def test_a_missing_number_of_task_types_is_that_of_transformers(self):
        folder = write(
            self.create_tempdir().full_path, task_type_vocab_size=None
        )
        self.assertEqual(formats.read(folder).config.num_task_types, 3)

    def test_another_task_type_than_the_first_is_not_written(self):
        model = make(task_type=1)
        with self.assertRaisesRegex(
            errors.InputError, "ERNIE has no task_type"
        ):
            hugging_face.write(
                self.create_tempdir().full_path, model, tiny.tokenizer()
            )


if __name__ == "__main__":
    absltest.main()
