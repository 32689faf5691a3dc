"""Language modelling beside a task (Radford et al. 2018, section 3.2)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from bert_keras import errors, options, recorded_encoder
from bert_keras.networks import base as networks
from bert_keras.tasks import base as tasks
from bert_keras.tokenizers import base as tokenizers
from bert_keras.wrappers import base

TERM = "auxiliary_lm"


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class AuxiliaryLM(base.Wrapper):
    """Adds the loss of predicting each next token of the labelled texts.

    The total is L3 = L2 + weight * L1 (equation 5), where L2 is the inner
    task's loss. L1 is the mean negative log probability of the tokens of a
    text, special tokens included, averaged over the texts. (The equation sums
    over tokens; the authors' program takes these means.) The next token is
    scored by the token embeddings, as in pretraining, so that there are no new
    weights.

    The network must be causal: another one would read the token that it
    predicts. Evaluation and the served model are those of the inner task.
    """

    weight: float = options.option(
        0.5, "Weight of the language model's loss.", minimum=0.0
    )

    @property
    def loss_weights(  # type: ignore[override]  # of the inner task and more
        self,
    ) -> Mapping[str, float]:
        return {**self.task.loss_weights, TERM: self.weight}

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        if not getattr(config, "causal", False):
            raise errors.InputError(
                f"wrappers={self.name} needs a causal network, such as GPT: "
                f"this {config.name} reads the tokens that it would predict. "
                "Leave the wrapper out.",
                argument="wrappers",
            )
        if config.embedding_width != config.hidden_size:
            raise errors.InputError(
                f"wrappers={self.name}: the token embeddings have "
                f"{config.embedding_width} dimensions and the hidden states "
                f"{config.hidden_size}; expected as many. Leave the wrapper "
                "out.",
                argument="wrappers",
            )
        return self.task.build_heads(config)

    def for_records(self, manifest: Mapping[str, Any]) -> tasks.Task:
        raise errors.InputError(
            f"wrappers={self.name} is for tasks with labelled texts; "
            f"{self.unwrapped.name} learns from records. Leave the wrapper "
            "out.",
            argument="wrappers",
        )

    def make_targets(
        self,
        raw: tasks.Tensors,
        features: tasks.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> tasks.Targets:
        """Adds the weight of each row; the labels are the row's own tokens."""
        rows = tf.shape(features["padding_mask"])[:1]
        targets = self.task.make_targets(raw, features, tokenizer)
        return targets | {TERM: (tf.zeros(rows, tf.int32), tf.ones(rows))}

    # The tokens of all positions are predicted.
    def positions_read(self, features: tasks.Tensors) -> None:
        return None

    def forward(
        self,
        encoder: keras.Model,
        heads: tasks.Heads,
        features: tasks.Tensors,
        *,
        targets: tasks.Targets | None = None,
        training: bool | None = False,
    ) -> tasks.Tensors:
        """Adds the losses of each row (B,), if there are targets."""
        if targets is None:
            return self.task.forward(
                encoder, heads, features, training=training
            )
        recorder = recorded_encoder.RecordedEncoder(encoder)
        outputs = self.task.forward(
            recorder, heads, features, targets=targets, training=training
        )
        count = tf.shape(features["padding_mask"])[0]
        losses = [
            _row_losses(
                _token_losses(
                    encoded["hidden"][-1],
                    encoder.token_table,
                    inputs["token_ids"],
                    inputs["padding_mask"],
                ),
                inputs["padding_mask"],
                count,
            )
            for inputs, encoded in recorder.calls
        ]
        return outputs | {TERM: tf.add_n(losses) / len(losses)}

    def loss(
        self,
        outputs: tasks.Tensors,
        features: tasks.Tensors,
        targets: tasks.Targets,
    ) -> tasks.Tensors:
        terms = self.task.loss(outputs, features, targets)
        if TERM not in outputs:
            return terms
        _, weights = targets[TERM]
        return terms | {TERM: tf.reduce_sum(outputs[TERM] * weights)}


def _token_losses(
    hidden: tf.Tensor, table: tf.Tensor, token_ids: tf.Tensor, mask: tf.Tensor
) -> tf.Tensor:
    """Returns -log p of each next token, (B, S, H) -> (B, S - 1) float32.

    0 where the next token is padding or of another text of the row.
    """
    width = hidden.shape[-1]
    flat = tf.reshape(hidden[:, :-1], (-1, width))
    table = tf.cast(table, hidden.dtype)
    logits = tf.matmul(flat, table, transpose_b=True)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.reshape(token_ids[:, 1:], [-1]), tf.cast(logits, tf.float32)
    )
    losses = tf.reshape(losses, tf.shape(mask[:, 1:]))
    return losses * _is_predicted(mask)


def _is_predicted(mask: tf.Tensor) -> tf.Tensor:
    same_text = (mask[:, 1:] == mask[:, :-1]) & (mask[:, 1:] > 0)
    return tf.cast(same_text, tf.float32)


def _row_losses(
    losses: tf.Tensor, mask: tf.Tensor, count: tf.Tensor
) -> tf.Tensor:
    """Returns the mean loss of each row of the batch, (count,).

    losses: (B, S - 1). If B is a multiple of `count`, a row has several texts,
      and its loss is the mean of those with a token to predict.
    """
    predicted = tf.reduce_sum(_is_predicted(mask), axis=1)
    means = tf.math.divide_no_nan(tf.reduce_sum(losses, axis=1), predicted)
    # The size of the second axis: -1 would be undefined for an empty batch.
    shape = (count, tf.shape(means)[0] // tf.maximum(count, 1))
    has_tokens = tf.reshape(tf.cast(predicted > 0, tf.float32), shape)
    return tf.math.divide_no_nan(
        tf.reduce_sum(tf.reshape(means, shape), axis=1),
        tf.reduce_sum(has_tokens, axis=1),
    )
