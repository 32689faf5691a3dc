"""Pretraining: masked language model, optionally with a sentence objective."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, mask_filling, masked_rows, options
from bert_keras import heads as heads_lib
from bert_keras.data import masking, packing
from bert_keras.networks import base as networks
from bert_keras.sentence_objectives import base as objectives
from bert_keras.tasks import base, next_sentence
from bert_keras.tokenizers import base as tokenizers

# Maximum number of [MASK]s that are predicted in a text; a constant keeps
# shapes static on every device.
MAX_PREDICTED_MASKS = 20
_AT = 5  # of the accuracy of the best k words
# The terms that only training asks, whose heads are not saved for serving.
_AUXILIARY = ("span_boundary", "is_chosen")


@keras.saving.register_keras_serializable("bert_keras")
@options.with_former_names
@dataclasses.dataclass(frozen=True)
class MaskedLM(masked_rows.MaskedRows):
    """Predicts masked tokens, and the objective of the segment pair, if any.

    The loss is the sum of two means, over the masked positions and over the
    pairs of the global batch (Devlin et al. 2019, section 3.1). A Predictor of
    this task predicts each [MASK] in a text: the most probable token, with
    `top_k` that many, or the best of the words `candidates`.

    >>> model = bert_keras.load("runs/base", settings={"top_k": 5})
    >>> (answer,) = model.predict(["The film is [MASK]."])
    >>> len(answer["tokens"][0]), answer["tokens"][0][0] == answer["token"][0]
    (5, True)
    """

    pipeline_tag = "fill-mask"

    mask_token_prob: float = options.option(
        masking.MASK_SHARE,
        "Fraction of the masked tokens that become [MASK].",
        minimum=0.0,
        maximum=1.0,
    )
    random_token_prob: float = options.option(
        masking.RANDOM_SHARE,
        "Fraction of them that become a random token; the rest is unchanged.",
        minimum=0.0,
        maximum=1.0,
    )
    random_tokens: str = options.option(
        "uniform",
        "Random tokens: uniform = all entries alike; frequency = as often as "
        "they occur in the records.",
        choices=("uniform", "frequency"),
    )
    mask_alike: bool = options.option(
        False,
        "All tokens of a masked unit become [MASK], or random, or stay; false: "
        "each draws for itself.",
    )
    span_boundary: bool = options.option(
        False,
        "Also predict each masked token from the two tokens around its span.",
    )
    detect_masked: bool = options.option(
        False,
        "Also predict of each token whether it was chosen, so that [MASK] and "
        "random and unchanged tokens have to be told from others.",
    )
    # How masks are filled. They are no options of training, so that they are no
    # flags of it.
    top_k: int | None = None
    candidates: str | None = None
    # Set from the records' manifest.
    objective: str = "nsp"  # the sentence objective
    # The names of its classes; () for nsp and sop, which have two, and none.
    sentence_classes: tuple[str, ...] = ()
    # Set by `read_records`, if random tokens are drawn by frequency.
    token_counts: tuple[int, ...] = ()

    ranked_outputs = ("token_id", "tokens")
    mask_options = (
        *masked_rows.CHOICE,
        *("mask_token_prob", "random_token_prob", "random_tokens"),
        *("mask_alike", "span_boundary", "detect_masked"),
    )
    later_fields = (
        *mask_options[1:],
        *("token_counts", "packed", "sentence_classes"),
    )

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise errors.InputError(
                f"top_k={self.top_k}: expected 1 or more.", argument="top_k"
            )
        super().__post_init__()
        if self.random_tokens == "frequency" and not self.random_token_prob:
            raise errors.InputError(
                "random_tokens=frequency has no effect with "
                "random_token_prob=0; leave one out.",
                argument="random_tokens",
            )
        if self.mask_token_prob + self.random_token_prob > 1 + 1e-9:
            raise errors.InputError(
                f"mask_token_prob={self.mask_token_prob:g} and "
                f"random_token_prob={self.random_token_prob:g}: expected "
                "fractions of the masked tokens, at most 1 together.",
                argument="mask_token_prob",
            )
        if self.mask_alike and not self.has_groups:
            raise errors.InputError(
                "mask_alike has no effect on single tokens; leave it out, or "
                "give masked_unit=words or masked_group.",
                argument="mask_alike",
            )

    @property
    def softmax_terms(self) -> tuple[str, ...]:
        return tuple(t for t in self.head_signatures if t != "is_chosen")

    @property
    def head_signatures(self) -> dict[str, Any]:
        signatures: dict[str, Any] = {"masked_lm": self.vocab_size}
        if self.objective != "none":
            signatures[next_sentence.HEAD] = next_sentence.signature(
                self.objective, self.sentence_classes
            )
        if self.span_boundary:
            signatures["span_boundary"] = self.vocab_size
        if self.detect_masked:
            signatures["is_chosen"] = "whether a token was chosen"
        return signatures

    @property
    def metric_names(self) -> tuple[str, ...]:
        terms = [t for t in self.head_signatures if t not in _AUXILIARY]
        return (
            *(f"{term}_accuracy" for term in terms),
            *(f"loss/{term}" for term in terms),
        )

    def for_records(self, manifest: Mapping[str, Any]) -> base.Task:
        task = super().for_records(manifest)
        return task.with_settings(
            objective=manifest["objective"],
            sentence_classes=tuple(manifest.get(objectives.CLASSES, ())),
        )

    def read_records(self, count_tokens: Callable[[], np.ndarray]) -> base.Task:
        if self.random_tokens != "frequency":
            return self
        counts = count_tokens()
        counts[list(self.special_ids)] = 0
        return self.with_settings(token_counts=tuple(counts.tolist()))

    def for_serving(self) -> base.Task:
        """Returns the task of one text a row, which is not masked here."""
        return self.with_settings(
            token_counts=(),
            packed=False,
            span_boundary=False,
            detect_masked=False,
        )

    def make_targets(
        self,
        raw: base.Tensors,
        features: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Targets:
        if self.objective != "none":
            raise errors.InputError(
                "expected the task of texts alone, "
                'MaskedLM(objective="none").adapt([], tokenizer); pairs of '
                "sentences are learned from the records of trainers.prepare."
            )
        if self.random_tokens == "frequency":
            raise errors.InputError(
                "random_tokens=frequency: expected records, which know how "
                "often tokens occur, found texts; leave it out.",
                argument="random_tokens",
            )
        return super().make_targets(raw, features, tokenizer)

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        heads = {"masked_lm": heads_lib.MaskedLMHead(config)}
        if self.objective != "none":
            heads[next_sentence.HEAD] = heads_lib.NextSentenceHead(
                config, len(self.sentence_classes) or 2
            )
        if self.span_boundary:
            heads["span_boundary"] = heads_lib.SpanBoundaryHead(config)
        if self.detect_masked:
            heads["is_chosen"] = heads_lib.TokenDetectionHead(config)
        return heads

    def positions_read(self, features: base.Tensors) -> tf.Tensor | None:
        reads_all = self.span_boundary or self.detect_masked
        return None if reads_all else features["positions"]

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: base.Heads,
        features: base.Tensors,
        *,
        training: bool | None,
    ) -> base.Tensors:
        """Returns logits {"masked_lm": (B, P, V), "next_sentence": (B, C)}.

        With span_boundary also (B, P, V), and "is_chosen" (B, S) with
        detect_masked. All are float32.
        """
        hidden, table = encoded["hidden"][-1], encoded["token_table"]
        has_all_positions = "positions_read" not in encoded
        outputs = {
            "masked_lm": heads["masked_lm"](
                hidden,
                features["positions"] if has_all_positions else None,
                table,
            )
        }
        if "next_sentence" in heads:
            outputs["next_sentence"] = heads["next_sentence"](encoded["pooled"])
        if "span_boundary" in heads:
            outputs["span_boundary"] = heads["span_boundary"](
                hidden, features["positions"], table
            )
        if "is_chosen" in heads:
            outputs["is_chosen"] = heads["is_chosen"](hidden)
        return outputs

    def preprocess(
        self, raw: base.Tensors, tokenizer: tokenizers.Tokenizer
    ) -> base.Tensors:
        ids = tokenizer(raw["text"], special_tokens=True)
        if self.candidates is None:
            return packing.pack(
                [ids], tokenizer.frame, seq_length=self.seq_length
            )
        candidates = mask_filling.Candidates(self.candidates, tokenizer)
        count = len(candidates.counts)
        rows = packing.pack(
            [candidates.expand(ids, self.mask_id)],
            tokenizer.frame,
            seq_length=self.seq_length,
        )
        return rows | {"example_index": rows["example_index"] // count}

    def randomize(
        self, features: base.Tensors, targets: base.Targets, seeds: tf.Tensor
    ) -> tuple[base.Tensors, base.Targets]:
        if "positions" in features:  # the records are masked already
            return features, targets
        is_text = self.is_ordinary(features)
        features, masks = self.mask(
            features,
            seeds,
            masking.Replacements(
                self.mask_token_prob,
                self.random_token_prob,
                self.token_counts,
                self.mask_alike,
            ),
        )
        return features, targets | self._targets_of(masks, features, is_text)

    def _targets_of(self, masks, features, is_text):
        """Returns the targets of the masks; is_text (B, S) bool."""
        targets = {"masked_lm": masks}
        if self.span_boundary:
            targets["span_boundary"] = masks
        if self.detect_masked:
            is_chosen = masking.is_chosen(
                features["positions"], masks[1], tf.shape(is_text)[1]
            )
            targets["is_chosen"] = (
                tf.cast(is_chosen, tf.int32),
                tf.cast(is_text, tf.float32),
            )
        return targets

    def add_derived_features(self, features: base.Tensors) -> base.Tensors:
        features = super().add_derived_features(features)
        if "positions" in features:
            return features
        positions, _ = masking.mask_positions(
            features["token_ids"], self.mask_id, MAX_PREDICTED_MASKS
        )
        return features | {"positions": positions}

    def _own_targets(self, targets):
        """Selects the targets of this task's heads; wrappers may add others."""
        return {k: v for k, v in targets.items() if k in self.head_signatures}

    def loss(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> base.Tensors:
        terms = {}
        for term, (labels, weights) in self._own_targets(targets).items():
            losses = _losses(term, labels, outputs[term])
            terms[term] = tf.reduce_sum(losses * weights)
        return terms

    def metric_sums(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        sums = {}
        for term, (labels, weights) in self._own_targets(targets).items():
            predicted = tf.argmax(outputs[term], axis=-1, output_type=tf.int32)
            correct = tf.cast(predicted == labels, tf.float32)
            total = tf.reduce_sum(weights)
            sums[f"{term}_accuracy"] = tf.reduce_sum(correct * weights), total
            if term == "masked_lm":
                among = _is_among_best(labels, outputs[term])
                sums[f"{term}_accuracy_at_{_AT}"] = (
                    tf.reduce_sum(among * weights),
                    total,
                )
        return sums

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        logits = outputs["masked_lm"]
        if self.candidates is not None:
            return {"log_prob": tf.nn.log_softmax(logits, axis=-1)}
        scores = tf.nn.softmax(logits, axis=-1)
        if self.top_k is not None:
            count = min(self.top_k, self.vocab_size)
            scores, ids = tf.math.top_k(scores, count)
            return {"token_id": ids, "score": scores}
        return {
            # Not ops.argmax: to handle -0.0 it uses an op that TFLite lacks.
            "token_id": tf.argmax(scores, axis=-1, output_type=tf.int32),
            "score": tf.reduce_max(scores, axis=-1),
        }

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns {"token" (T, P) string, "score" (T, P)}, T texts, P masks.

        With `top_k` or `candidates` also "tokens" and "scores" (T, P, K), the
        best first. They are padded with "" and 0.
        """
        del raw
        _, valid = masking.mask_positions(
            features["token_ids"], self.mask_id, MAX_PREDICTED_MASKS
        )
        if self.candidates is not None:
            candidates = mask_filling.Candidates(self.candidates, tokenizer)
            return self._best_candidates(candidates, decoded, valid)
        tokens = tf.gather(
            tf.constant(tokenizer.vocabulary), decoded["token_id"]
        )
        if self.top_k is not None:
            return _best(tokens, decoded["score"], valid)
        return {
            "token": tf.where(valid, tokens, ""),
            "score": tf.where(valid, decoded["score"], 0.0),
        }

    def _best_candidates(self, candidates, decoded, valid):
        """Returns the answers for given words; valid (T L, P)."""
        valid = candidates.answered(valid)
        scores = candidates.score(decoded["log_prob"])
        count = min(self.top_k or len(candidates.words), scores.shape[2])
        scores, best = tf.math.top_k(scores, count)
        words = tf.gather(tf.constant(candidates.words), best)
        return _best(words, scores, valid)

    def to_python(self, answer: dict[str, Any]) -> dict[str, Any]:
        count = sum(map(bool, answer["token"]))
        names = ("token", "score", "tokens", "scores")
        return answer | {
            name: answer[name][:count] for name in names if name in answer
        }

    def for_device(self) -> base.Task:
        if self.candidates is not None:
            raise errors.InputError(
                "candidates: a TFLite file reads one row of token ids, and "
                "words of several tokens need several; leave them out.",
                argument="candidates",
            )
        return self


def _losses(term: str, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    if term == "is_chosen":
        return tf.nn.sigmoid_cross_entropy_with_logits(
            tf.cast(labels, tf.float32), logits
        )
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def _is_among_best(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns 1 where the label has one of the _AT highest logits, else 0."""
    own = tf.gather(logits, labels, batch_dims=2)
    better = tf.math.count_nonzero(
        logits > own[..., tf.newaxis], axis=-1, dtype=tf.int32
    )
    return tf.cast(better < _AT, tf.float32)


def _best(
    tokens: tf.Tensor, scores: tf.Tensor, valid: tf.Tensor
) -> base.Tensors:
    """Returns the answers for lists of words, the best first; see above."""
    tokens = tf.where(valid[:, :, tf.newaxis], tokens, "")
    scores = tf.where(valid[:, :, tf.newaxis], scores, 0.0)
    return {
        "token": tokens[:, :, 0],
        "score": scores[:, :, 0],
        "tokens": tokens,
        "scores": scores,
    }
