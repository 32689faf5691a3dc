"""A new fact per token in one file: the word that the token is part of."""

import dataclasses

import keras
import tensorflow as tf

from bert_keras import options
from bert_keras.data import masking, packing
from bert_keras.tasks import base, classification


@keras.saving.register_keras_serializable("tests")
@dataclasses.dataclass(frozen=True)
class WordDropout(classification.Classification):
    """Hides whole words while training, and counts words in its answers."""

    word_dropout: float = options.option(
        0.5, "Share of the words that is hidden.", minimum=0.0, maximum=1.0
    )
    mask_id: int = 0  # of the tokenizer

    stored_features = {"word": base.TOKENS}

    def adapt(self, examples, tokenizer):
        task = super().adapt(examples, tokenizer)
        return task.with_settings(mask_id=tokenizer.mask_id)

    def preprocess(self, raw, tokenizer):
        """Also "word" (W, S) int32: its number in the text from 1, or 0."""
        ids = tokenizer(raw["text"])
        starts = tf.cast(tokenizer.word_starts(ids), tf.int32).to_tensor()
        word = tf.RaggedTensor.from_tensor(
            tf.cumsum(starts, axis=1), ids.row_lengths()
        )
        return packing.pack(
            [ids],
            tokenizer.frame,
            seq_length=self.seq_length,
            per_token={"word": [word]},
        )

    def randomize(self, features, targets, seeds):
        word = features["word"]
        drawn = masking.uniform(seeds, tf.shape(word)[1])  # by word
        dropped = tf.gather(drawn < self.word_dropout, word, batch_dims=1)
        token_ids = tf.where(
            dropped & (word > 0), self.mask_id, features["token_ids"]
        )
        return features | {"token_ids": token_ids}, targets

    def postprocess(self, decoded, features, raw, tokenizer):
        answers = super().postprocess(decoded, features, raw, tokenizer)
        return answers | {"words": tf.reduce_max(features["word"], axis=1)}
