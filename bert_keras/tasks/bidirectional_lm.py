"""Pretraining of ELMo: a language model in each direction."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from bert_keras import errors, options
from bert_keras import heads as heads_lib
from bert_keras.data import masking, packing
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

TERMS = ("forward", "backward")
_SAMPLED = "/sampled"  # suffix of outputs that are losses over sampled words
_IMPOSSIBLE = -1e9  # the logit of a sampled word that is the label


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class BidirectionalLM(base.Task):
    """Predicts each word from those before it, and from those after it.

    The loss is the sum of both directions' mean cross entropies (Peters et al.
    2018, section 3.1). A Predictor of this task predicts each word of a text
    from its left and from its right.
    """

    pipeline_tag = "feature-extraction"

    num_sampled: int = options.option(
        0,
        "While training, the number of words that each row samples to compare "
        "its words with; 0: the complete vocabulary, which is exact, and slow "
        "for a large one. Evaluations are always exact.",
        minimum=0,
        maximum=1 << 20,
    )
    vocab_size: int = 0  # set by `adapt`, from the tokenizer

    target_axes = dict.fromkeys(TERMS, base.TOKENS)
    metric_names = ("loss/both", "loss/forward", "loss/backward", "perplexity")
    list_padding = {
        "word": "",
        "from_left": "",
        "left_score": 0.0,
        "from_right": "",
        "right_score": 0.0,
    }

    @property
    def softmax_terms(self) -> tuple[str, ...]:
        return () if self.num_sampled else TERMS

    @property
    def head_signatures(self) -> dict[str, Any]:
        return {"word": self.vocab_size}

    @property
    def reads_targets(self) -> bool:
        return bool(self.num_sampled)

    def for_records(self, manifest: Mapping[str, Any]) -> base.Task:
        if manifest.get("objective", "none") != "none":
            raise errors.InputError(
                "bidirectional_lm predicts the next word, and rows of two "
                "segments are not in order; prepare the records with "
                "`packing`=sentences."
            )
        return super().for_records(manifest)

    def summarize(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Adds the mean of both losses, and its perplexity per word."""
        both = sum(metrics[f"loss/{term}"] for term in TERMS) / len(TERMS)
        return {
            **metrics,
            "loss/both": both,
            "perplexity": base.perplexity(both),
        }

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        del examples
        return self.with_settings(vocab_size=tokenizer.vocab_size)

    def make_example(self, raw: base.Example, label: Any) -> base.Example:
        """Returns the text alone: its words are the labels."""
        if label is not None:
            raise ValueError(f"expected no label, found {label!r}")
        return raw

    def preprocess(
        self, raw: base.Tensors, tokenizer: tokenizers.Tokenizer
    ) -> base.Tensors:
        return packing.pack(
            [tokenizer(raw["text"])],
            tokenizer.frame,
            seq_length=self.seq_length,
        )

    def make_targets(
        self,
        raw: base.Tensors,
        features: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Targets:
        if not self.vocab_size:
            raise errors.InputError(
                "expected the task of a vocabulary, "
                "BidirectionalLM().adapt([], tokenizer)."
            )
        ids = tf.RaggedTensor.from_tensor(features[tokenizer.feature])
        word_ids = tokenizer.word_ids(ids).to_tensor()
        return neighbours(word_ids, features["padding_mask"])

    def randomize(
        self, features: base.Tensors, targets: base.Targets, seeds: tf.Tensor
    ) -> tuple[base.Tensors, base.Targets]:
        """Samples words for each row; adds the targets of pretraining rows."""
        features = dict(features)
        word_ids = features.pop("word_ids", features.get("token_ids"))
        if TERMS[0] not in targets:
            labels = neighbours(word_ids, features["padding_mask"])
            targets = targets | labels
        if self.num_sampled:
            uniform = masking.uniform(seeds, self.num_sampled)
            features["sampled"] = log_uniform(uniform, self.vocab_size)
        return features, targets

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        if not hasattr(config, "projection_size"):
            raise errors.InputError(
                "bidirectional_lm needs a network whose directions are apart, "
                f"such as elmo_small; in the network {config.name} each token "
                "reads the one to predict."
            )
        return {"word": heads_lib.BidirectionalLMHead(config)}

    def forward(
        self,
        encoder: keras.Model,
        heads: base.Heads,
        features: base.Tensors,
        *,
        targets: base.Targets | None = None,
        training: bool | None = False,
    ) -> base.Tensors:
        """Returns `outputs`; of sampled words the losses instead."""
        if not (self.num_sampled and training and targets is not None):
            return super().forward(
                encoder, heads, features, targets=targets, training=training
            )
        encoded = networks.encode(encoder, features, training=training)
        return {
            term + _SAMPLED: self._sampled_losses(
                heads["word"], states, targets[term][0], features["sampled"]
            )
            for term, states in _directions(encoded).items()
        }

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: base.Heads,
        features: base.Tensors,
        *,
        training: bool | None,
    ) -> base.Tensors:
        """Returns logits {"forward", "backward": (B, S, V)}, float32.

        Those at a word are of the word after it, or of the one before it.
        """
        return {
            term: heads["word"](states)
            for term, states in _directions(encoded).items()
        }

    def _sampled_losses(self, head, states, labels, sampled):
        """Cross entropy of the labels, estimated from sampled words: (B, S).

        The softmax's sum over the vocabulary is the label's exponential and
        those of the other words in the sample, each divided by how often it is
        expected there (Bengio & Senecal 2003, importance sampling).
        """
        right, wrong = head.score_some(states, labels, sampled)
        probability = log_uniform_probability(sampled, self.vocab_size)
        expected_count = probability * self.num_sampled  # (B, K)
        wrong -= tf.math.log(expected_count)[:, tf.newaxis]
        is_label = labels[..., tf.newaxis] == sampled[:, tf.newaxis]
        wrong = tf.where(is_label, _IMPOSSIBLE, wrong)
        logits = tf.concat([right[..., tf.newaxis], wrong], axis=-1)
        return tf.reduce_logsumexp(logits, axis=-1) - right

    def loss(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> base.Tensors:
        terms = {}
        for term in TERMS:
            labels, weights = targets[term]
            if term in outputs:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels, outputs[term]
                )
            else:
                losses = outputs[term + _SAMPLED]
            terms[term] = tf.reduce_sum(losses * weights)
        return terms

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        """Returns the best word of each position and its probability.

        {"forward", "backward" (W, S) int32, "forward_score", "backward_score"
        (W, S)}, 0 at padding.
        """
        mask = tf.minimum(features["padding_mask"], 1)
        decoded = {}
        for term in TERMS:
            scores = tf.nn.softmax(outputs[term], axis=-1)
            best = tf.argmax(scores, axis=-1, output_type=tf.int32)
            score = tf.reduce_max(scores, axis=-1)
            decoded[term] = best * mask
            decoded[f"{term}_score"] = score * tf.cast(mask, tf.float32)
        return decoded

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns what each direction expects in the place of each word.

        {"word", "from_left", "from_right" (T, words) string, "left_score",
        "right_score" (T, words)}, padded with "" and 0.
        """
        frame, mask = tokenizer.frame, features["padding_mask"]
        first = len(frame.start)
        count = tf.reduce_sum(mask, axis=1) - first - len(frame.end)
        width = tf.shape(mask)[1] - first - len(frame.end)
        valid = tf.sequence_mask(count, width)
        vocabulary = tf.constant(tokenizer.vocabulary)

        def at(name, offset):
            begin = first + offset
            return decoded[name][:, begin : begin + width]

        ids = features[tokenizer.feature][:, first : first + width]
        words = tokenizer.token_texts(ids)
        answers = {
            "word": words,
            "from_left": tf.gather(vocabulary, at("forward", -1)),
            "left_score": at("forward_score", -1),
            "from_right": tf.gather(vocabulary, at("backward", 1)),
            "right_score": at("backward_score", 1),
        }
        return {
            name: tf.where(valid, value, self.list_padding[name])
            for name, value in answers.items()
        }

    def to_python(self, answer: dict[str, Any]) -> dict[str, Any]:
        count = sum(map(bool, answer["word"]))
        return answer | {
            name: answer[name][:count] for name in self.list_padding
        }


def neighbours(word_ids: tf.Tensor, padding_mask: tf.Tensor) -> base.Targets:
    """Returns the word after and the word before each, as targets.

    word_ids, padding_mask (B, S) -> {"forward", "backward": (labels (B, S)
    int32, weights (B, S) float32)}. A word at the end of a text, or at its
    start, has weight 0.
    """
    same = tf.logical_and(
        padding_mask[:, 1:] == padding_mask[:, :-1], padding_mask[:, 1:] > 0
    )
    same = tf.cast(same, tf.float32)
    after, before = [[0, 0], [0, 1]], [[0, 0], [1, 0]]
    return {
        "forward": (tf.pad(word_ids[:, 1:], after), tf.pad(same, after)),
        "backward": (tf.pad(word_ids[:, :-1], before), tf.pad(same, before)),
    }


def log_uniform(uniform: tf.Tensor, vocab_size: int) -> tf.Tensor:
    """Returns word ids with log-uniform probabilities, from numbers in [0, 1).

    Word k has the probability log((k + 2) / (k + 1)) / log(V + 1), which is
    near Zipf's law if words are sorted by frequency.
    """
    ids = tf.exp(uniform * math.log(vocab_size + 1)) - 1.0
    return tf.clip_by_value(tf.cast(ids, tf.int32), 0, vocab_size - 1)


def log_uniform_probability(word_ids: tf.Tensor, vocab_size: int) -> tf.Tensor:
    """Returns the probability of each word in `log_uniform`, float32."""
    number = tf.cast(word_ids, tf.float32)
    return tf.math.log1p(1.0 / (number + 1.0)) / math.log(vocab_size + 1)


def _directions(encoded: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """Returns each direction's states (B, S, H / 2), by loss term."""
    forward, backward = tf.split(encoded["hidden"][-1], 2, axis=-1)
    return {"forward": forward, "backward": backward}
