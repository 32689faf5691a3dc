"""A task of a user: is the first of two texts the longer one, in tokens?"""

import dataclasses

import tensorflow as tf

from bert_keras import heads as heads_lib
from bert_keras.data import labelled_files, packing
from bert_keras.tasks import base


@dataclasses.dataclass(frozen=True)
class LongerText(base.Task):
    text_columns = ("text", "text_pair")
    head_signatures = {"longer": "the first of two texts"}
    metric_names = ("accuracy",)

    def read_examples(self, path):
        return labelled_files.read(path, needed=(*self.text_columns, "label"))

    def preprocess(self, raw, tokenizer):
        return packing.pack(
            [tokenizer(raw[name]) for name in self.text_columns],
            tokenizer.frame,
            seq_length=self.seq_length,
        )

    def make_targets(self, raw, features, tokenizer):
        labels = tf.cast(raw["label"] == "yes", tf.float32)
        return {"longer": (labels, tf.ones_like(labels))}

    def build_heads(self, config):
        return {"longer": heads_lib.ClassificationHead(config, 1, "mean")}

    def outputs(self, encoded, heads, features, *, training):
        mask = features["padding_mask"]
        logits = heads["longer"](encoded, mask, training=training)
        return {"logit": logits[:, 0]}

    def loss(self, outputs, features, targets):
        labels, weights = targets["longer"]
        losses = tf.nn.sigmoid_cross_entropy_with_logits(
            labels, outputs["logit"]
        )
        return {"longer": tf.reduce_sum(losses * weights)}

    def decode(self, outputs, features):
        return {"probability": tf.sigmoid(outputs["logit"])}

    def postprocess(self, decoded, features, raw, tokenizer):
        longer = tf.where(decoded["probability"] > 0.5, "yes", "no")
        return decoded | {"longer": longer}

    def metrics(self, predictions, examples):
        pairs = zip(predictions, examples, strict=True)
        right = [answer["longer"] == row["label"] for answer, row in pairs]
        return {"accuracy": sum(right) / len(right)}
