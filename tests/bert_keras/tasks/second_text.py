"""Targets with a length of their own in one file: the tokens of a text."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from bert_keras import heads as heads_lib
from bert_keras import options
from bert_keras.data import labelled_files, packing
from bert_keras.tasks import base
from tests import tiny

START_ID = 1


def rows(count, *, longest=12, seed=0):
    """Rows of two texts whose numbers of words are independent."""
    random = np.random.default_rng(seed)
    words = [word for word in tiny.WORDS if not word.startswith("##")]

    def text():
        return " ".join(random.choice(words, random.integers(1, longest + 1)))

    return [{"text": text(), "text_pair": text()} for _ in range(count)]


@keras.saving.register_keras_serializable("tests")
@dataclasses.dataclass(frozen=True)
class SecondText(base.Task):
    """Predicts each token of text_pair from the one before it and from text.

    It learns only: it answers nothing.
    """

    max_target_length: int = options.option(
        24, "Maximum number of target tokens.", minimum=1
    )

    text_columns = ("text", "text_pair")
    head_signatures = {"next": "tokens of the second text"}  # noqa: RUF012
    metric_names = ("loss/next",)
    softmax_terms = ("next",)
    target_axes = {"next": base.TARGET_TOKENS}  # noqa: RUF012
    stored_features = {"previous": base.TARGET_TOKENS}  # noqa: RUF012

    def read_examples(self, path):
        return labelled_files.read(path, needed=self.text_columns)

    def make_example(self, raw, label):
        del label
        return dict(raw)

    def preprocess(self, raw, tokenizer):
        features = packing.pack(
            [tokenizer(raw["text"])],
            tokenizer.frame,
            seq_length=self.seq_length,
        )
        ids = self.target_ids(raw, tokenizer)
        start = tf.fill([ids.nrows(), 1], START_ID)
        previous = tf.concat([start, ids], axis=1)[:, :-1]
        return features | {"previous": previous.to_tensor()}

    def target_ids(self, raw, tokenizer):
        return tokenizer(raw["text_pair"])[:, : self.max_target_length]

    def make_targets(self, raw, features, tokenizer):
        ids = self.target_ids(raw, tokenizer)
        weights = tf.ones_like(ids, tf.float32)
        return {"next": (ids.to_tensor(), weights.to_tensor())}

    def build_heads(self, config):
        head = heads_lib.TokenClassificationHead(config, config.vocab_size)
        return {"next": head}

    def outputs(self, encoded, heads, features, *, training):
        table = tf.convert_to_tensor(encoded["token_table"])
        states = tf.gather(table, features["previous"])  # (B, T, H)
        states += encoded["pooled"][:, tf.newaxis]
        return {"next": heads["next"](states, training=training)}

    def loss(self, outputs, features, targets):
        labels, weights = targets["next"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels, outputs["next"]
        )
        return {"next": tf.reduce_sum(losses * weights)}
