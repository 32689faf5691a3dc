"""Hugging Face folders of GPT: read, written, refused, and transformers'.

The comparisons with transformers run where it and torch are installed.
"""

import importlib.util
import json
import os
import warnings

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import errors, loading, predictor
from bert_keras import model as model_lib
from bert_keras.formats import hugging_face
from bert_keras.networks import bert
from bert_keras.tasks import causal_lm
from bert_keras.tokenizers import bpe
from tests import sharp, tiny

LETTERS = [*"abcdefgh", *(f"{letter}</w>" for letter in "abcdefgh")]
MERGES = [("a", "b"), ("ab", "c</w>"), ("d", "e</w>"), ("f", "g")]


def byte_pairs():
    words = ["<unk>", *LETTERS, *("".join(pair) for pair in MERGES)]
    return bpe.BytePairTokenizer(words, MERGES, lowercase=True)


def make(tokenizer=None, *, with_task=True, **changes):
    tokenizer = tokenizer or byte_pairs()
    sizes = {"vocab_size": tokenizer.vocab_size, "intermediate_size": 64}
    config = tiny.bert(**bert.GPT | sizes | changes)
    task = causal_lm.CausalLM(seq_length=32, max_new_tokens=6)
    task = task.adapt([], tokenizer) if with_task else None
    model = model_lib.BertModel(config, task)
    sharp.spread(model, 3)
    return model


def logits(model, ids):
    inputs = {
        "token_ids": tf.constant(ids),
        "padding_mask": tf.ones_like(ids),
    }
    return model(inputs)["causal_lm"].numpy()


IDS = np.random.default_rng(0).integers(0, 20, (3, 12)).astype(np.int32)


class FolderTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = os.path.join(self.create_tempdir().full_path, "gpt")

    def edit(self, **changes):
        path = os.path.join(self.folder, "config.json")
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(values | changes, file)

    def test_only_another_dropout_of_the_embeddings_is_mentioned(self):
        hugging_face.write(self.folder, make(), byte_pairs())
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            bert_keras.load(self.folder)
        self.edit(embd_pdrop=0.2)
        with self.assertWarnsRegex(UserWarning, "embd_pdrop is 0.2"):
            bert_keras.load(self.folder)

    @parameterized.parameters(byte_pairs, tiny.tokenizer)
    @pytest.mark.slow_after(1)
    def test_what_is_written_is_read_and_continues_alike(self, make_tokenizer):
        tokenizer = make_tokenizer()
        model = make(tokenizer)
        hugging_face.write(self.folder, model, tokenizer)
        with open(os.path.join(self.folder, "config.json")) as file:
            # By which transformers ends a text.
            self.assertEqual(json.load(file)["eos_token_id"], tokenizer.end_id)
        again = bert_keras.load(self.folder)
        self.assertEqual(again.model.encoder.config, model.encoder.config)
        self.assertEqual(again.task, model.task)
        self.assertEqual(again.tokenizer.vocabulary, tokenizer.vocabulary)
        np.testing.assert_allclose(
            logits(again.model, IDS), logits(model, IDS), atol=1e-5
        )
        texts = ["abc de", "a film", ""]
        self.assertEqual(
            again.predict(texts),
            predictor.Predictor(model, tokenizer).predict(texts),
        )

    def test_an_encoder_alone_has_no_prefix_and_no_task(self):
        model = make(with_task=False)
        hugging_face.write(self.folder, model, byte_pairs())
        names = safetensors.numpy.load_file(
            os.path.join(self.folder, "model.safetensors")
        )
        self.assertIn("h.1.mlp.c_fc.weight", names)
        self.assertIsNone(hugging_face.read(self.folder).task)

    def test_another_task_can_start_from_it(self):
        hugging_face.write(self.folder, make(), byte_pairs())
        task = bert_keras.tasks.Classification(
            labels=("no", "yes"), seq_length=32
        )
        model = loading.load_model(hugging_face.read(self.folder), task)
        self.assertEqual(model.task, task)

    def test_tied_copies_and_masks_are_read(self):
        hugging_face.write(self.folder, make(), byte_pairs())
        path = os.path.join(self.folder, "model.safetensors")
        tensors = dict(safetensors.numpy.load_file(path))
        table = tensors["transformer.tokens_embed.weight"]
        tensors["lm_head.weight"] = table
        tensors["transformer.h.0.attn.bias"] = np.ones((1, 1, 4, 4), np.float32)
        safetensors.numpy.save_file(tensors, path)
        np.testing.assert_array_equal(
            bert_keras.load(self.folder).model.encoder.token_table, table
        )
        tensors["lm_head.weight"] = table + 1
        safetensors.numpy.save_file(tensors, path)
        with self.assertRaisesRegex(errors.InputError, "lm_head.*differ"):
            hugging_face.read(self.folder)

    def test_a_tokenizer_json_alone_is_enough(self):
        tokenizer = byte_pairs()
        hugging_face.write(self.folder, make(), tokenizer)
        values = {
            "model": {
                "type": "BPE",
                "end_of_word_suffix": "</w>",
                "vocab": {t: i for i, t in enumerate(tokenizer.vocabulary)},
                "merges": [" ".join(pair) for pair in MERGES],
            }
        }
        for name in ("vocab.json", "merges.txt"):
            os.remove(os.path.join(self.folder, name))
        path = os.path.join(self.folder, "tokenizer.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(values, file)
        read = hugging_face.read(self.folder).tokenizer()
        self.assertEqual(read.vocabulary, tokenizer.vocabulary)
        self.assertEqual(read.merges, tokenizer.merges)
        values["model"]["end_of_word_suffix"] = None
        with open(path, "w", encoding="utf-8") as file:
            json.dump(values, file)
        with self.assertRaisesRegex(errors.InputError, "end_of_word_suffix"):
            hugging_face.read(self.folder)

    @parameterized.parameters(
        ({"afn": "swish"}, "afn"),
        ({"n_head": 0}, "n_head"),
        ({"n_head": 3}, "num_heads"),
        ({"n_layer": 3}, r"h\.2"),
        ({"vocab_size": 22}, "tokens_embed"),
    )
    def test_a_wrong_config_is_refused_by_name(self, changes, words):
        hugging_face.write(self.folder, make(), byte_pairs())
        self.edit(**changes)
        with self.assertRaisesRegex(errors.InputError, words):
            hugging_face.read(self.folder)

    @parameterized.parameters(
        {"norm_first": True},
        {"intermediate_size": 32},
        {"num_segments": 2},
        {"embedding_norm": True},
        {"activation": "gelu"},
    )
    def test_what_a_gpt_cannot_be_is_not_written(self, **changes):
        model = make(**changes)
        with self.assertRaisesRegex(errors.InputError, next(iter(changes))):
            hugging_face.write(self.folder, model, byte_pairs())


class AgainstTransformersTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        for name in ("torch", "transformers"):
            if importlib.util.find_spec(name) is None:
                self.skipTest(f"{name} is not installed")
        self.folder = os.path.join(self.create_tempdir().full_path, "gpt")

    def test_logits_of_what_transformers_wrote(self):
        import torch
        import transformers

        config = transformers.OpenAIGPTConfig(
            vocab_size=29,
            n_positions=32,
            n_embd=48,
            n_layer=3,
            n_head=4,
            initializer_range=0.2,
        )
        theirs = transformers.OpenAIGPTLMHeadModel(config).eval()
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter.normal_(std=0.2)
            expected = theirs(torch.tensor(IDS, dtype=torch.long)).logits
        theirs.save_pretrained(self.folder)
        tokenizer = byte_pairs()
        tokenizer.save(self.folder)
        with self.assertWarnsRegex(UserWarning, "unused_row"):
            ours = bert_keras.load(self.folder)
        difference = np.abs(logits(ours.model, IDS) - expected.numpy()).max()
        print(f"read: {difference:.1e}")
        self.assertLess(difference, 1e-5)
        prompt = torch.tensor(IDS[:1], dtype=torch.long)
        want = theirs.generate(
            prompt, max_new_tokens=8, do_sample=False, pad_token_id=0
        )
        task = ours.task.with_settings(max_new_tokens=8, end_id=None)
        model = model_lib.BertModel(ours.model.encoder, task)
        got = predictor.Predictor(model, tokenizer).tokens(
            token_ids=tf.constant(IDS[:1]), padding_mask=tf.ones_like(IDS[:1])
        )
        np.testing.assert_array_equal(got["ids"], want[:, IDS.shape[1] :])

    def test_logits_of_what_transformers_reads(self):
        import torch
        import transformers

        model = make()
        # A segment row that is not 0 is added to the positions.
        hugging_face.write(self.folder, model, byte_pairs())
        theirs, info = transformers.OpenAIGPTLMHeadModel.from_pretrained(
            self.folder, output_loading_info=True
        )
        self.assertEmpty(info["unexpected_keys"])
        with torch.no_grad():
            got = theirs.eval()(torch.tensor(IDS, dtype=torch.long)).logits
        difference = np.abs(logits(model, IDS) - got.numpy()).max()
        print(f"written: {difference:.1e}")
        self.assertLess(difference, 1e-5)
        words = transformers.AutoTokenizer.from_pretrained(self.folder)
        texts = ["abc de", "fg a B", "ab"]
        self.assertEqual(
            [words(text)["input_ids"] for text in texts],
            byte_pairs()(tf.constant(texts)).to_list(),
        )


if __name__ == "__main__":
    absltest.main()
