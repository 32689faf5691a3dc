"""Tiny real objects that many tests share."""

import os

import numpy as np
import tensorflow as tf

from bert_keras import model as model_lib
from bert_keras.networks import bert as bert_lib
from bert_keras.networks import elmo as elmo_lib
from bert_keras.networks import rnn as rnn_lib
from bert_keras.tasks import classification, masked_lm
from bert_keras.tokenizers import characters as characters_lib
from bert_keras.tokenizers import wordpiece

WORDS = (
    "the a film is was good bad fine dull and not very old new story actor "
    "plot ##s ##ed ##ing 一 二 电 影 好 坏 很 . , ! ?"
).split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]

SHARED_DATA = os.path.join(
    os.path.dirname(__file__), "..", "..", "shared", "data"
)


def bert(**changes) -> bert_lib.BertConfig:
    sizes = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
    }
    return bert_lib.BertConfig(**(sizes | changes))


def bert_for(task_name: str, **changes) -> bert_lib.BertConfig:
    """A network that the task can learn with."""
    if task_name == "causal_lm":
        changes = {"causal": True} | changes
    return bert(**changes)


def tokenizer() -> wordpiece.Tokenizer:
    return wordpiece.Tokenizer(VOCABULARY, lowercase=True)


def elmo(**changes) -> elmo_lib.ElmoConfig:
    sizes = {
        "vocab_size": len(characters().vocabulary),
        "projection_size": 8,
        "lstm_size": 12,
        "character_size": 4,
        "filter_widths": (1, 2, 3),
        "filter_counts": (4, 4, 6),
        "num_highways": 1,
    }
    return elmo_lib.ElmoConfig(**(sizes | changes))


def rnn(**changes) -> rnn_lib.RnnConfig:
    sizes = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 16,
        "num_layers": 2,
    }
    return rnn_lib.RnnConfig(**(sizes | changes))


def characters() -> characters_lib.Characters:
    words = [word for word in WORDS if not word.startswith("##")]
    return characters_lib.Characters((*characters_lib.SPECIAL_WORDS, *words))


def elmo_inputs(rows: int = 4, length: int = 12, seed: int = 0):
    """Random words; row r has r trailing padding words."""
    random = np.random.default_rng(seed)
    mask = np.arange(length) < length - np.arange(rows)[:, None] % length
    words = random.choice(WORDS, (rows, length))
    ids = characters_lib.encode(tf.constant(words.ravel())).numpy()
    values = {
        "characters": ids.reshape(rows, length, -1) * mask[..., None],
        "padding_mask": mask,
    }
    return {name: tf.constant(v, tf.int32) for name, v in values.items()}


def classifier(**changes) -> model_lib.BertModel:
    task = classification.Classification(seq_length=32, labels=("bad", "good"))
    return model_lib.BertModel(bert_lib.BertEncoder(bert(**changes)), task)


def masked_lm_model(**changes) -> model_lib.BertModel:
    task = masked_lm.MaskedLM(seq_length=32).adapt([], tokenizer())
    return model_lib.BertModel(bert_lib.BertEncoder(bert(**changes)), task)


def inputs(rows: int = 4, length: int = 12, seed: int = 0):
    """Random ids; row r has r trailing padding tokens."""
    random = np.random.default_rng(seed)
    token_ids = random.integers(5, len(VOCABULARY), (rows, length))
    mask = np.arange(length) < length - np.arange(rows)[:, None] % length
    values = {
        "token_ids": token_ids * mask,
        "segment_ids": random.integers(0, 2, (rows, length)) * mask,
        "padding_mask": mask,
    }
    return {name: tf.constant(v, tf.int32) for name, v in values.items()}
