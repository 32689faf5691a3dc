"""Pretraining: where each token of a shuffled text belongs (PERT)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from bert_keras import heads as heads_lib
from bert_keras import masked_rows
from bert_keras.data import masking, packing
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

TERM = "token_order"
_SEED = 0x04DE  # so that what is chosen and how it is shuffled are independent


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class TokenOrder(masked_rows.MaskedRows):
    """Predicts positions: of a token, which place has the one that was there.

    Some tokens of a row change places with each other; the others, and all
    positions, stay (Cui et al. 2022, section 3). For each of these places the
    network selects, among all positions of the row, the one that has its token
    now. No [MASK] is read, so that pretraining and fine-tuning read texts
    alike.

    A Predictor of this task restores the order of a text: for each place the
    token that belongs there.

    >>> model = bert_keras.load("runs/order")  # doctest: +SKIP
    >>> model.predict(["the sat cat on a mat"])  # doctest: +SKIP
    [{'token': ['the', 'cat', 'sat', ...], 'place': [0, 2, 1, ...], ...}]
    """

    pipeline_tag = "token-classification"
    list_padding = {"token": "", "place": -1, "score": 0.0}
    softmax_terms = (TERM,)
    metric_names = (f"{TERM}_accuracy", f"loss/{TERM}")

    head_signatures = {TERM: "the position of the token of each place"}

    def for_records(self, manifest: Mapping[str, Any]) -> base.Task:
        self.require_texts(manifest)
        self.require_single_texts(manifest)
        return super().for_records(manifest)

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        return {TERM: heads_lib.PositionHead(config)}

    def randomize(
        self, features: base.Tensors, targets: base.Targets, seeds: tf.Tensor
    ) -> tuple[base.Tensors, base.Targets]:
        unchanged = masking.Replacements(mask_share=0.0, random_share=0.0)
        features, (tokens, weights) = self.mask(features, seeds, unchanged)
        positions = features["positions"]
        draws = masking.uniform(seeds + [[0, _SEED]], tf.shape(positions)[1])
        # Padding, at the end of each row, stays there.
        order = tf.argsort(tf.where(weights > 0, draws, 2.0), stable=True)
        shuffled = tf.gather(tokens, order, batch_dims=1)
        features["token_ids"] = masking.with_tokens(
            features["token_ids"], positions, shuffled, weights
        )
        now_at = tf.gather(positions, tf.argsort(order), batch_dims=1)
        return features, targets | {TERM: (now_at, weights)}

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: base.Heads,
        features: base.Tensors,
        *,
        training: bool | None,
    ) -> base.Tensors:
        """Returns logits {"token_order": (B, P, S)}; P = S without targets."""
        return {
            TERM: heads[TERM](
                encoded["hidden"][-1],
                features.get("positions"),
                features["padding_mask"],
            )
        }

    def loss(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> base.Tensors:
        labels, weights = targets[TERM]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels, outputs[TERM]
        )
        return {TERM: tf.reduce_sum(losses * weights)}

    def metric_sums(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """Returns the accuracy, and that of answering that nothing moved."""
        labels, weights = targets[TERM]
        total = tf.reduce_sum(weights)

        def accuracy(answers):
            right = tf.cast(answers == labels, tf.float32) * weights
            return tf.reduce_sum(right), total

        best = tf.argmax(outputs[TERM], axis=-1, output_type=tf.int32)
        return {
            f"{TERM}_accuracy": accuracy(best),
            "unmoved": accuracy(features["positions"]),
        }

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        scores = tf.nn.softmax(outputs[TERM], axis=-1)
        is_token = features["padding_mask"] > 0
        best = tf.argmax(scores, axis=-1, output_type=tf.int32)
        return {
            "place": tf.where(is_token, best, 0),
            "score": tf.where(is_token, tf.reduce_max(scores, axis=-1), 0.0),
        }

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns "token" (T, N) string, "place" (T, N) and "score" (T, N).

        token: the one that belongs at each place. place: where the text has
        it, counted from 0 without special tokens, -1 at padding.
        """
        del raw
        ids = features[tokenizer.feature]
        restored = tf.gather(ids, decoded["place"], batch_dims=1)
        _, values, valid = packing.without_frame(
            features, tokenizer.frame, decoded | {"id": restored}
        )
        tokens = tf.gather(tf.constant(tokenizer.vocabulary), values["id"])
        return {
            "token": tf.where(valid, tokens, ""),
            "place": tf.where(
                valid, values["place"] - len(tokenizer.frame.start), -1
            ),
            "score": tf.where(valid, values["score"], 0.0),
        }

    def to_python(self, answer: dict[str, Any]) -> dict[str, Any]:
        count = sum(map(bool, answer["token"]))
        return answer | {
            name: answer[name][:count] for name in self.list_padding
        }
