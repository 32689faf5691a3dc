"""A task with a target vocabulary of its own: the first word of a translation.

Its answers are tokens of the target, in which each answer is tokenized again.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from bert_keras import heads as heads_lib
from bert_keras import options
from bert_keras.data import labelled_files, packing
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers
from bert_keras.tokenizers import pair

learned = []  # the texts of each call of `extend_tokenizer` that learns


@keras.saving.register_keras_serializable("tests")
@dataclasses.dataclass(frozen=True)
class FirstWord(base.Task):
    target_tokenizer: str = options.option("wordpiece", "That of the answers.")
    target_size: int = options.option(12, "Its entries.", minimum=1)
    num_words: int = 0  # entries of the target

    metric_names = ("accuracy",)
    softmax_terms = ("first_word",)

    @property
    def head_signatures(self):
        return {"first_word": self.num_words}

    def read_examples(self, path):
        return labelled_files.read(path, needed=("text", "label"))

    def extend_tokenizer(self, tokenizer, examples):
        if tokenizer.target is not tokenizer:
            return tokenizer
        learned.append([example["label"] for example in examples()])
        target = tokenizers.find(self.target_tokenizer).learn(
            (example["label"] for example in examples()),
            self.target_size,
            lowercase=True,
        )
        return pair.PairTokenizer(tokenizer, target)

    def adapt(self, examples, tokenizer):
        return self.with_settings(num_words=tokenizer.target.vocab_size)

    def preprocess(self, raw, tokenizer):
        ids = tokenizer(raw["text"])
        return packing.pack([ids], tokenizer.frame, seq_length=self.seq_length)

    def make_targets(self, raw, features, tokenizer):
        words = tokenizer.target(raw["label"]).to_tensor(shape=(None, 1))
        return {"first_word": (words[:, 0], tf.ones_like(words[:, 0], "float"))}

    def build_heads(self, config):
        head = heads_lib.ClassificationHead(config, self.num_words, "mean")
        return {"first_word": head}

    def outputs(self, encoded, heads, features, *, training):
        mask = features["padding_mask"]
        head = heads["first_word"]
        return {"first_word": head(encoded, mask, training=training)}

    def loss(self, outputs, features, targets):
        labels, weights = targets["first_word"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels, outputs["first_word"]
        )
        return {"first_word": tf.reduce_sum(losses * weights)}

    def decode(self, outputs, features):
        return {"id": tf.argmax(outputs["first_word"], -1, tf.int32)}

    def postprocess(self, decoded, features, raw, tokenizer):
        ids = tf.RaggedTensor.from_row_lengths(
            decoded["id"], tf.ones_like(decoded["id"])
        )
        word = tokenizer.target.detokenize(ids)
        again = tokenizer.target(word).row_lengths()
        return decoded | {"word": word, "length": tf.cast(again, tf.int32)}

    def metrics(self, predictions, examples):
        right = [
            example["label"].startswith(answer["word"]) and answer["word"] != ""
            for answer, example in zip(predictions, examples, strict=True)
        ]
        return {"accuracy": float(np.mean(right))}
