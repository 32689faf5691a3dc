import importlib.util
import os
import warnings

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, files, formats
from bert_keras import model as model_lib
from bert_keras.data import packing
from bert_keras.formats import albert, hugging_face
from bert_keras.tasks import (
    classification,
    masked_lm,
    question_answering,
    tagging,
)
from bert_keras.tokenizers import bpe
from bert_keras.tokenizers import sentencepiece as sentencepiece_lib
from tests import tiny

LINES = (
    "A fine film, isn't it? In 1999, ``naïve'' films were fine.",
    "The plot of the old film is not very good: dull actors.",
)


def tokenizer():
    return sentencepiece_lib.SentencePieceTokenizer.learn(
        LINES * 3, 40, lowercase=True
    )


def masked(objective):
    return masked_lm.MaskedLM(objective=objective).adapt([], tokenizer())


TASKS = {
    "AlbertModel": lambda: None,
    "AlbertForMaskedLM": lambda: masked("none"),
    "AlbertForPreTraining": lambda: masked("sop"),
    "AlbertForSequenceClassification": lambda: classification.Classification(
        labels=("bad", "good", "dull")
    ),
    "AlbertForTokenClassification": lambda: tagging.Tagging(types=("LOC",)),
    "AlbertForQuestionAnswering": question_answering.QuestionAnswering,
}
# Our outputs that theirs hold under other names.
OUTPUTS = {
    "label": "logits",
    "tag": "logits",
    "start": "start_logits",
    "end": "end_logits",
    "next_sentence": "sop_logits",
}


def make(name="AlbertModel", **changes):
    sizes = {
        "vocab_size": 40,
        "embedding_size": 8,
        "num_hidden_groups": 2,
        "num_layers": 4,
        "activation": "gelu_tanh",
    }
    model = model_lib.BertModel(
        tiny.bert(**sizes | changes).build_encoder(), TASKS[name]()
    )
    random = np.random.default_rng(0)
    for part in (model.encoder, model.head) if model.task else (model.encoder,):
        for path, variable in checkpoint.weights(part).items():
            value = random.normal(0, 0.2, variable.shape)
            variable.assign(value + path.endswith("gamma"))
    return model


def parts(model):
    return model if model.task else model.encoder


def weights(model):
    values = dict(checkpoint.weight_values(model.encoder))
    if model.task:
        values |= checkpoint.weight_values(model.head)
    return values


class AlbertTest(parameterized.TestCase):
    @parameterized.product(name=tuple(TASKS), groups=(1, 2, 4))
    def test_a_folder_is_read_as_it_was_written(self, name, groups):
        model = make(name, num_hidden_groups=groups)
        folder = self.create_tempdir().full_path
        hugging_face.write(folder, parts(model), tokenizer())
        values = files.read_json(os.path.join(folder, "config.json"))
        self.assertEqual(values["model_type"], "albert")
        self.assertEqual(values["architectures"], [name])
        source = formats.read(folder)
        self.assertEqual(source.config, model.encoder.config)
        self.assertEqual(
            source.tokenizer().fingerprint, tokenizer().fingerprint
        )
        self.assertEqual(source.task is None, model.task is None)
        encoder = source.config.build_encoder()
        again = model_lib.BertModel(encoder, source.task)
        source.load_encoder(encoder)
        if source.task:
            source.load_head(again.head, None)
        expected = weights(model)
        for path, value in weights(again).items():
            if not path.startswith("pooler/"):
                np.testing.assert_array_equal(value, expected[path], path)

    def test_pretraining_reads_the_order_of_sentences(self):
        model, folder = make("AlbertForPreTraining"), self.create_tempdir()
        hugging_face.write(folder.full_path, model, tokenizer())
        path = os.path.join(folder.full_path, "config.json")
        values = files.read_json(path)
        del values[hugging_face.TASK]
        files.write_json(path, values)
        self.assertEqual(formats.read(folder.full_path).task.objective, "sop")

    @parameterized.parameters(*TASKS)
    def test_transformers_gives_the_same_outputs(self, name):
        missing = [
            each
            for each in ("transformers", "torch")
            if importlib.util.find_spec(each) is None
        ]
        if missing:
            self.skipTest(f"needs {' and '.join(missing)}")
        import torch
        import transformers

        model, words = make(name), tokenizer()
        folder = self.create_tempdir().full_path
        hugging_face.write(folder, parts(model), words)
        ids = transformers.AutoTokenizer.from_pretrained(folder)(list(LINES))
        packed = packing.pack([words(LINES)], words.frame, seq_length=64)
        self.assertEqual(
            ids["input_ids"],
            tf.ragged.boolean_mask(
                packed["token_ids"], packed["padding_mask"] > 0
            ).to_list(),
        )
        features = {n: packed[n] for n in model.encoder.config.inputs}
        peer = getattr(transformers, name).from_pretrained(folder).eval()
        with torch.no_grad():
            expected = peer(
                input_ids=torch.tensor(features["token_ids"].numpy()),
                attention_mask=torch.tensor(features["padding_mask"].numpy()),
                token_type_ids=torch.tensor(features["segment_ids"].numpy()),
                output_hidden_states=True,
            )
        if model.task is None:
            encoded = model.encoder(**features)
            outputs = {"last_hidden_state": encoded["hidden"][-1]}
            outputs["pooler_output"] = encoded["pooled"]
        else:
            length = features["token_ids"].shape[1]
            features["positions"] = tf.tile(
                tf.range(length)[tf.newaxis], [2, 1]
            )
            if not isinstance(model.task, masked_lm.MaskedLM):
                del features["positions"]
            outputs = model.task.forward(
                model.encoder, model.head.by_name(), features, training=False
            )
            # transformers has other names for the prediction of masks.
            names = OUTPUTS | {
                "masked_lm": "logits"
                if "logits" in expected
                else "prediction_logits"
            }
            outputs = {names[k]: v for k, v in outputs.items()}
        real = packed["padding_mask"].numpy() > 0
        for output, value in outputs.items():
            difference = np.abs(value.numpy() - expected[output].numpy())
            if difference.shape[:2] == real.shape:
                difference = difference[real]
            self.assertLess(difference.max(), 1e-5, output)

    def test_chinese_folders_have_a_vocab_txt(self):
        model = make(vocab_size=tiny.tokenizer().vocab_size)
        folder = self.create_tempdir().full_path
        hugging_face.write(folder, model.encoder, tiny.tokenizer())
        source = formats.read(folder)
        self.assertEqual(source.config, model.encoder.config)
        self.assertEqual(
            source.tokenizer().fingerprint, tiny.tokenizer().fingerprint
        )

    def test_a_larger_table_keeps_its_rows(self):
        model = make(vocab_size=44)
        folder = self.create_tempdir().full_path
        hugging_face.write(folder, model.encoder, tokenizer())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            words = formats.read(folder).tokenizer()
        self.assertIn("44 rows", str(caught[-1].message))
        self.assertEqual(words.vocab_size, 44)
        self.assertEqual(words(LINES).to_list(), tokenizer()(LINES).to_list())

    @parameterized.parameters(
        ({"tokenizer_class": "XLNetTokenizer"}, "is a XLNetTokenizer"),
        ({"keep_accents": True}, "do_lower_case is True and keep_accents True"),
        ({"remove_space": False}, "expected remove_space True"),
        ({"mask_token": {"content": "<m>"}}, "expected mask_token"),
        ({"auto_map": {"AutoTokenizer": "x.Y"}}, "never executed"),
    )
    def test_other_tokenizers_are_refused(self, changes, message):
        folder = self.create_tempdir().full_path
        hugging_face.write(folder, make().encoder, tokenizer())
        path = os.path.join(folder, "tokenizer_config.json")
        files.write_json(path, files.read_json(path) | changes)
        with self.assertRaisesRegex(errors.InputError, message):
            formats.read(folder)

    @parameterized.parameters(
        ({"inner_group_num": 2}, "inner_group_num 1"),
        ({"embedding_size": 16}, "embedding_size and hidden_size are both 16"),
        ({"num_hidden_groups": 0}, "num_hidden_groups"),
        ({"num_hidden_groups": 3}, "lacks|does not fit"),
    )
    def test_other_networks_are_refused(self, changes, message):
        folder = self.create_tempdir().full_path
        hugging_face.write(folder, make().encoder, tokenizer())
        path = os.path.join(folder, "config.json")
        files.write_json(path, files.read_json(path) | changes)
        with self.assertRaisesRegex(errors.InputError, message):
            formats.read(folder)

    def test_what_albert_cannot_be_is_not_written(self):
        folder = self.create_tempdir().full_path
        words = bpe.BytePairTokenizer(["<unk>", "a</w>"], [], lowercase=True)
        for model, vocabulary, message in (
            (make(embedding_size=None), tokenizer(), "projects the embeddings"),
            (make(norm_first=True), tokenizer(), "ALBERT has no norm_first"),
            (make(), words, "ALBERT takes WordPiece"),
        ):
            with self.assertRaisesRegex(errors.InputError, message):
                hugging_face.write(folder, model.encoder, vocabulary)
        for module in (formats.google, formats.keras_hub):
            with self.assertRaisesRegex(errors.InputError, "WordPiece"):
                module.write(folder, make().encoder, tokenizer())

    def test_names_of_tensors_differ_from_each_other(self):
        names = [
            name
            for mapping in hugging_face.weights.map_encoder(
                make().encoder.config
            )
            for name in mapping.source_names
        ]
        self.assertLen(set(map(albert.tensor_name, names)), len(names))


if __name__ == "__main__":
    absltest.main()
