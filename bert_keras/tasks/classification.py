"""One class for a text or a pair of texts."""

import dataclasses

import keras
import tensorflow as tf

from bert_keras import errors, heads
from bert_keras.data import packing, rows
from bert_keras.tasks import base


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class Classification(base.Task):
    """Sentiment, topic, paraphrase, entailment: pooled [CLS] -> C classes."""

    columns: str = base.knob(
        "",
        "Which columns of the files to read, as "
        "text=NAME,text_pair=NAME,label=NAME; a number is a position in a "
        "file without a header. Empty: common names are recognised.",
    )
    # Told by the training rows.
    labels: tuple[str, ...] = ()
    pair: bool = False

    @property
    def texts(self):
        return ("text", "text_pair") if self.pair else ("text",)

    @property
    def answers(self):
        return {"label": self.labels}

    @property
    def scores(self):
        return ("accuracy",)

    def examples(self, path):
        for row in rows.read(path, columns=rows.parse_columns(self.columns)):
            missing = {*self.texts, "label"} - set(row)
            if missing:
                raise errors.InputError(
                    f"{path}: expected the columns {', '.join(self.texts)} and "
                    f"label, found {', '.join(row)}. Name the columns with "
                    "--columns=text=...,label=..."
                )
            yield row

    def learn(self, rows, tokenizer):
        del tokenizer
        labels, pair = set(), False
        for row in rows:
            labels.add(row["label"])
            pair = pair or "text_pair" in row
        if len(labels) < 2:
            raise errors.InputError(
                "classification needs at least two labels in the training "
                f"file; found {sorted(labels)}. Check --columns."
            )
        return dataclasses.replace(
            self, labels=tuple(sorted(labels)), pair=pair
        )

    def inputs(self, raw, tokenizer):
        return packing.pack(
            [tokenizer(raw[name]) for name in self.texts],
            cls_id=tokenizer.cls_id,
            sep_id=tokenizer.sep_id,
            seq_length=self.seq_length,
        )

    def targets(self, raw, inputs):
        del inputs
        same = tf.expand_dims(raw["label"], 1) == tf.constant(self.labels)
        known = tf.reduce_any(same, axis=1)
        if not tf.reduce_all(known):
            label = raw["label"][int(tf.argmin(tf.cast(known, tf.int32)))]
            raise errors.InputError(
                f"label {label.numpy().decode()!r} does not occur in the "
                f"training file, whose labels are {list(self.labels)}."
            )
        labels = tf.argmax(same, axis=1, output_type=tf.int32)
        return {"label": (labels, tf.ones_like(labels, tf.float32))}

    def head(self, config):
        return LabelHead(config, len(self.labels), name="head")

    def loss(self, outputs, inputs, targets):
        labels, weights = targets["label"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels, outputs["label"]
        )
        return {"label": tf.reduce_sum(losses * weights)}

    def sums(self, outputs, inputs, targets):
        labels, weights = targets["label"]
        guess = tf.argmax(outputs["label"], axis=-1, output_type=tf.int32)
        right = tf.cast(guess == labels, tf.float32)
        return {
            "accuracy": (tf.reduce_sum(right * weights), tf.reduce_sum(weights))
        }

    def decode(self, outputs, inputs):
        return {"scores": tf.nn.softmax(outputs["label"], axis=-1)}

    def predict(self, decoded, inputs, raw, tokenizer):
        """{"label" (T,) string, "score" (T,), "scores" (T, C)}.

        `score` is the probability of `label`; `scores` stand in the order
        of the task's labels.
        """
        del inputs, raw, tokenizer
        scores = decoded["scores"]
        best = tf.argmax(scores, axis=-1, output_type=tf.int32)
        return {
            "label": tf.gather(tf.constant(self.labels), best),
            "score": tf.reduce_max(scores, axis=-1),
            "scores": scores,
        }

    def metrics(self, predictions, rows):
        right = sum(
            answer["label"] == row["label"]
            for answer, row in zip(predictions, rows, strict=True)
        )
        return {"accuracy": right / len(rows)}


class LabelHead(keras.layers.Layer):
    """{"label": (B, C)} float32 logits, from the pooled [CLS]."""

    def __init__(self, config, num_classes: int, **kwargs):
        super().__init__(**kwargs)
        self.label = heads.ClassificationHead(config, num_classes, name="label")

    def build(self, input_shape=None):
        self.label.build()
        self.built = True

    def call(self, encoded, inputs, table, training=None):
        del inputs, table
        return {"label": self.label(encoded["pooled"], training=training)}
