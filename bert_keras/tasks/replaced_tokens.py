"""Pretraining: which tokens a small generator replaced (ELECTRA)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from bert_keras import heads as heads_lib
from bert_keras import mask_generator, masked_rows, options
from bert_keras.data import masking, packing
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

TERM = "replaced"
GENERATOR = "generator"
_DRAWS = "generator_draws"  # a feature, (B, P) int32 from 0 to 2^24 - 1
_SEED = 0xE1EC  # so that masks and the generator's draws are independent


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class ReplacedTokens(masked_rows.MaskedRows):
    """Tells the tokens of a text from those that a generator put there.

    A small masked language model fills masks with tokens that it draws from its
    own distribution, and the network predicts of every token whether it is
    another one than it was (Clark et al. 2020, section 2). It learns from all
    tokens of a row and not from the masked ones alone. The loss is the
    generator's mean cross entropy over the masks plus `replaced_weight` times
    the mean binary cross entropy over all tokens; no gradient passes through
    the draws.

    The generator uses the network's embeddings and is saved with it, so that a
    checkpoint can be evaluated and trained further. A Predictor of this task
    says how probable it is that each token of a text is a wrong one.

    >>> model = bert_keras.load("runs/electra")  # doctest: +SKIP
    >>> model.predict(["the cat sat on the mad"])  # doctest: +SKIP
    [{'token': ['the', ...], 'score': [0.02, ...], 'truncated': False}]
    """

    pipeline_tag = "token-classification"
    list_padding = {"token": "", "replaced": 0.0}
    target_axes = {TERM: base.TOKENS}
    metric_names = (
        *("replaced_f1", "replaced_precision", "replaced_recall"),
        *("replaced_accuracy", "generator_accuracy"),
        *(f"loss/{TERM}", f"loss/{GENERATOR}"),
    )

    generator_fraction: float = options.option(
        0.25,
        "Width of the generator's layers, as a fraction of the network's.",
        minimum=0.01,
        maximum=1.0,
    )
    replaced_weight: float = options.option(
        50.0,
        "Weight of the loss over all tokens, beside the generator's.",
        minimum=0.0,
    )

    @property
    def head_signatures(self) -> dict[str, Any]:
        return {
            TERM: "whether a token was replaced",
            GENERATOR: [self.vocab_size, self.generator_fraction],
        }

    @property
    def loss_weights(self) -> Mapping[str, float]:
        return {TERM: self.replaced_weight}

    @property
    def softmax_terms(self) -> tuple[str, ...]:
        return (GENERATOR,)

    def for_records(self, manifest: Mapping[str, Any]) -> base.Task:
        self.require_texts(manifest)
        return super().for_records(manifest)

    def for_serving(self) -> base.Task:
        return self.with_settings(packed=False)

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        return {
            TERM: heads_lib.TokenDetectionHead(config),
            GENERATOR: mask_generator.MaskGenerator(
                config, self.generator_fraction
            ),
        }

    def randomize(
        self, features: base.Tensors, targets: base.Targets, seeds: tf.Tensor
    ) -> tuple[base.Tensors, base.Targets]:
        """Masks tokens, and adds the numbers that the generator draws with."""
        is_token = tf.cast(features["padding_mask"] > 0, tf.float32)
        all_masked = masking.Replacements(mask_share=1.0, random_share=0.0)
        features, masks = self.mask(features, seeds, all_masked)
        count = tf.shape(features["positions"])[1]
        draws = masking.uniform(seeds + [[0, _SEED]], count)
        # Integers: Keras casts float inputs under a mixed dtype policy.
        features[_DRAWS] = tf.cast(draws * 2.0**24, tf.int32)
        labels = tf.zeros_like(features["token_ids"])  # known after the draws
        return features, targets | {
            GENERATOR: masks,
            TERM: (labels, is_token),
        }

    def forward(
        self,
        encoder: keras.Model,
        heads: base.Heads,
        features: base.Tensors,
        *,
        targets: base.Targets | None = None,
        training: bool | None = False,
    ) -> base.Tensors:
        """Returns "replaced" (B, S), logits that each token was replaced.

        With targets also "generator" (B, P, V), its logits, and "is_replaced"
        (B, S) float32.
        """
        outputs = {}
        if targets is not None:
            features, outputs = self._filled(
                encoder, heads[GENERATOR], features, targets, training
            )
        encoded = networks.encode(encoder, features, training=training)
        return outputs | {TERM: heads[TERM](encoded["hidden"][-1])}

    def _filled(self, encoder, generator, features, targets, training):
        """Fills the masks; returns the features and the first outputs."""
        inputs = {name: features[name] for name in encoder.config.inputs}
        embeddings, mask = encoder.start(
            **inputs,
            position_ids=features.get("position_ids"),
            training=training,
        )
        positions = features["positions"]
        logits = generator(
            embeddings, mask, positions, encoder.token_table, training=training
        )
        draws = tf.cast(features[_DRAWS], tf.float32) * 2.0**-24
        drawn = mask_generator.sample(tf.stop_gradient(logits), draws)
        labels, weights = targets[GENERATOR]
        length = tf.shape(features["token_ids"])[1]
        is_new = masking.is_chosen(
            positions, tf.where(drawn != labels, weights, 0.0), length
        )
        ids = masking.with_tokens(
            features["token_ids"], positions, drawn, weights
        )
        return features | {"token_ids": ids}, {
            GENERATOR: logits,
            "is_replaced": tf.cast(is_new, tf.float32),
        }

    def loss(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> base.Tensors:
        labels, weights = targets[GENERATOR]
        generator = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels, outputs[GENERATOR]
        )
        _, is_token = targets[TERM]
        replaced = tf.nn.sigmoid_cross_entropy_with_logits(
            outputs["is_replaced"], outputs[TERM]
        )
        return {
            GENERATOR: tf.reduce_sum(generator * weights),
            TERM: tf.reduce_sum(replaced * is_token),
        }

    def metric_sums(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        labels, weights = targets[GENERATOR]
        best = tf.argmax(outputs[GENERATOR], axis=-1, output_type=tf.int32)
        right = tf.cast(best == labels, tf.float32)
        _, is_token = targets[TERM]
        said = tf.cast(outputs[TERM] > 0, tf.float32) * is_token
        gold = outputs["is_replaced"] * is_token
        both = tf.reduce_sum(said * gold)
        same = tf.cast(said == gold, tf.float32) * is_token
        return {
            "generator_accuracy": (
                tf.reduce_sum(right * weights),
                tf.reduce_sum(weights),
            ),
            "replaced_accuracy": (
                tf.reduce_sum(same),
                tf.reduce_sum(is_token),
            ),
            "replaced_precision": (both, tf.reduce_sum(said)),
            "replaced_recall": (both, tf.reduce_sum(gold)),
        }

    def summarize(self, metrics: Mapping[str, float]) -> dict[str, float]:
        precision = metrics["replaced_precision"]
        recall = metrics["replaced_recall"]
        total = precision + recall
        f1 = 2 * precision * recall / total if total > 0 else 0.0
        return {**metrics, "replaced_f1": f1}

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        is_token = tf.cast(features["padding_mask"] > 0, tf.float32)
        return {"replaced": tf.sigmoid(outputs[TERM]) * is_token}

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns {"token" (T, N) string, "replaced" (T, N)}: probabilities.

        Padding is "" and 0.
        """
        del raw
        ids, values, valid = packing.without_frame(
            features, tokenizer.frame, decoded
        )
        tokens = tf.gather(tf.constant(tokenizer.vocabulary), ids)
        return {
            "token": tf.where(valid, tokens, ""),
            "replaced": tf.where(valid, values["replaced"], 0.0),
        }

    def to_python(self, answer: dict[str, Any]) -> dict[str, Any]:
        count = sum(map(bool, answer["token"]))
        return answer | {
            name: answer[name][:count] for name in self.list_padding
        }
