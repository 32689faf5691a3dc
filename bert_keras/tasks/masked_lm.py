"""Pretraining: masked language model, optionally with a sentence objective."""

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, mask_filling, options
from bert_keras import heads as heads_lib
from bert_keras.data import hiding, masking, packing, word_boundaries
from bert_keras.networks import base as networks
from bert_keras.sentence_objectives import base as objectives
from bert_keras.tasks import base, next_sentence
from bert_keras.tokenizers import base as tokenizers

# Maximum number of [MASK]s that are predicted in a text; a constant keeps
# shapes static on every device.
MAX_PREDICTED_MASKS = 20
_AT = 5  # of the accuracy of the best k words
# How masks are drawn; settings leave the later ones out if they have their
# default.
_OF_MASKS = (
    *("masked_lm_prob", "masked_lm_prob_end", "masked_unit", "masked_group"),
    *("mask_token_prob", "random_token_prob", "random_tokens", "mask_alike"),
)
_LATER = (*_OF_MASKS[1:], "token_counts", "packed", "sentence_classes")


@keras.saving.register_keras_serializable("bert_keras")
@options.with_former_names
@dataclasses.dataclass(frozen=True)
class MaskedLM(base.Task):
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

    masked_lm_prob: float = options.option(
        0.15,
        "Fraction of the tokens that are masked.",
        minimum=0.01,
        maximum=0.9,
        formerly=("masked_share",),
    )
    masked_lm_prob_end: float = options.option(
        0.0,
        "Fraction that `masked_lm_prob` becomes at the last step, linearly; 0: "
        "it stays.",
        minimum=0.0,
        maximum=0.9,
    )
    masked_unit: str = options.option(
        "tokens",
        "What is masked completely or not at all: tokens, words, phrases or "
        "entities. The last three need records with `word_boundaries`. With "
        "commas between, stages of equal length, as in words,phrases,entities.",
    )
    masked_group: str = options.option(
        "one",
        "Units that are masked together: one; ngrams = n in sequence up to 3, "
        "with probability 1/n; spans = a geometric number up to 10, 3.8 on "
        "average.",
        choices=tuple(hiding.GROUPS),
    )
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
    # How masks are filled. They are no options of training, so that they are no
    # flags of it.
    top_k: int | None = None
    candidates: str | None = None
    # Set from the records' manifest.
    objective: str = "nsp"  # the sentence objective
    # The names of its classes; () for nsp and sop, which have two, and none.
    sentence_classes: tuple[str, ...] = ()
    packed: bool = False  # whether rows have several texts
    # Set by `adapt`, from the tokenizer.
    vocab_size: int = 0
    mask_id: int = 0
    special_ids: tuple[int, ...] = ()
    # Set by `read_records`, if random tokens are drawn by frequency.
    token_counts: tuple[int, ...] = ()

    ranked_outputs = ("token_id", "tokens")

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise errors.InputError(
                f"top_k={self.top_k}: expected 1 or more.", argument="top_k"
            )
        for unit in self._stages:
            if unit not in hiding.LEVELS:
                raise errors.InputError(
                    f"masked_unit={self.masked_unit}: expected one of "
                    f"{', '.join(hiding.LEVELS)}, or several with commas "
                    "between.",
                    argument="masked_unit",
                )
        stages = self._stages
        if any(one == two for one, two in itertools.pairwise(stages)):
            raise errors.InputError(
                f"masked_unit={self.masked_unit}: expected stages that differ "
                "from the one before.",
                argument="masked_unit",
            )
        last = self.masked_lm_prob_end
        if last and (last < 0.01 or last == self.masked_lm_prob):
            raise errors.InputError(
                f"masked_lm_prob_end={last:g}: expected 0, which leaves "
                "masked_lm_prob as it is, or another share from 0.01.",
                argument="masked_lm_prob_end",
            )
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
        if self.mask_alike and not self._has_groups:
            raise errors.InputError(
                "mask_alike has no effect on single tokens; leave it out, or "
                "give masked_unit=words or masked_group.",
                argument="mask_alike",
            )

    @property
    def _stages(self) -> list[str]:
        """The units that are masked, one after the other."""
        return self.masked_unit.split(",")

    @property
    def _has_groups(self) -> bool:
        return (self.masked_unit, self.masked_group) != ("tokens", "one")

    @property
    def _reads_boundaries(self) -> bool:
        return any(hiding.LEVELS[unit] for unit in self._stages)

    @property
    def reads_progress(self) -> bool:
        return len(self._stages) > 1 or self.masked_lm_prob_end > 0

    @property
    def softmax_terms(self) -> tuple[str, ...]:
        return tuple(self.head_signatures)

    @property
    def head_signatures(self) -> dict[str, Any]:
        signatures: dict[str, Any] = {"masked_lm": self.vocab_size}
        if self.objective != "none":
            signatures[next_sentence.HEAD] = next_sentence.signature(
                self.objective, self.sentence_classes
            )
        return signatures

    @property
    def metric_names(self) -> tuple[str, ...]:
        return (
            *(f"{term}_accuracy" for term in self.head_signatures),
            *(f"loss/{term}" for term in self.head_signatures),
        )

    def for_records(self, manifest: Mapping[str, Any]) -> base.Task:
        missing = {*self._stages} - {
            "tokens",
            *manifest.get(word_boundaries.UNITS, ()),
        }
        if missing:
            raise errors.InputError(
                f"masked_unit={self.masked_unit}: expected records that say "
                f"where {' and '.join(sorted(missing))} begin; prepare them "
                f"with {word_boundaries.how_to_store(missing)}.",
                argument="masked_unit",
            )
        return self.with_settings(
            seq_length=manifest["seq_length"],
            objective=manifest["objective"],
            sentence_classes=tuple(manifest.get(objectives.CLASSES, ())),
            packed=manifest.get("packing") == "documents",
        )

    def check_features(self, features: Collection[str]) -> None:
        if "inputs/positions" not in features:
            return
        for field in dataclasses.fields(self):
            chosen = getattr(self, field.name)
            if field.name in _OF_MASKS and chosen != field.default:
                raise errors.InputError(
                    f"{field.name}={chosen} has no effect: the records are of "
                    "TFRecord files, which are masked already. Leave it out, "
                    "or prepare records from text.",
                    argument=field.name,
                )

    def read_records(self, count_tokens: Callable[[], np.ndarray]) -> base.Task:
        if self.random_tokens != "frequency":
            return self
        counts = count_tokens()
        counts[list(self.special_ids)] = 0
        return self.with_settings(token_counts=tuple(counts.tolist()))

    def to_dict(self) -> dict[str, Any]:
        # Leave out defaults: runs that are older than these options must have
        # equal settings to be resumed.
        values = super().to_dict()
        for field in dataclasses.fields(self):
            if field.name in _LATER and values[field.name] == field.default:
                del values[field.name]
        return values

    def for_serving(self) -> base.Task:
        """Returns the task of one text a row, which is not masked here."""
        return self.with_settings(token_counts=(), packed=False)

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        del examples
        if tokenizer.mask_id is None:
            raise errors.InputError(
                "masked LM needs a vocabulary with an entry [MASK], and this "
                f"one of {tokenizer.vocab_size:,} entries has none."
            )
        return self.with_settings(
            vocab_size=tokenizer.vocab_size,
            mask_id=tokenizer.mask_id,
            special_ids=tokenizer.special_ids,
        )

    def make_example(self, raw: base.Example, label: Any) -> base.Example:
        """Returns the text alone, without a label: `randomize` masks it."""
        if label is not None:
            raise ValueError(f"expected no label, found {label!r}")
        return raw

    def make_targets(
        self,
        raw: base.Tensors,
        features: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Targets:
        """Returns none for texts alone; `randomize` adds those of the masks."""
        if self.objective != "none" or not self.vocab_size:
            raise errors.InputError(
                "expected the task of texts alone, "
                'MaskedLM(objective="none").adapt([], tokenizer); pairs of '
                "sentences are learned from the records of trainers.prepare."
            )
        if self._reads_boundaries or self.random_tokens == "frequency":
            raise errors.InputError(
                "masked_unit and random_tokens: expected records, which know "
                "where words begin and how often tokens occur, found texts; "
                "leave both out.",
                argument="masked_unit",
            )
        return {}

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        heads = {"masked_lm": heads_lib.MaskedLMHead(config)}
        if self.objective != "none":
            heads[next_sentence.HEAD] = heads_lib.NextSentenceHead(
                config, len(self.sentence_classes) or 2
            )
        return heads

    def positions_read(self, features: base.Tensors) -> tf.Tensor | None:
        return features["positions"]

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: base.Heads,
        features: base.Tensors,
        *,
        training: bool | None,
    ) -> base.Tensors:
        """Returns logits {"masked_lm": (B, P, V), "next_sentence": (B, C)}.

        Both are float32.
        """
        has_all_positions = "positions_read" not in encoded
        outputs = {
            "masked_lm": heads["masked_lm"](
                encoded["hidden"][-1],
                features["positions"] if has_all_positions else None,
                encoded["token_table"],
            )
        }
        if "next_sentence" in heads:
            outputs["next_sentence"] = heads["next_sentence"](encoded["pooled"])
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
        features = dict(features)
        facts = features.pop(word_boundaries.FEATURE, None)
        progress = features.pop(base.PROGRESS, 1.0)
        if "positions" in features:  # the records are masked already
            return features, targets
        share, most = self._share(progress, tf.shape(features["token_ids"])[1])
        token_ids, positions, labels, weights = masking.mask_tokens(
            features["token_ids"],
            features["padding_mask"],
            seeds,
            share=share,
            mask_id=self.mask_id,
            special_ids=self.special_ids,
            vocab_size=self.vocab_size,
            num_masks=most,
            units=self._units(features["token_ids"], facts, progress),
            replacements=masking.Replacements(
                self.mask_token_prob,
                self.random_token_prob,
                self.token_counts,
                self.mask_alike,
            ),
        )
        masked = {"token_ids": token_ids, "positions": positions}
        return features | masked, targets | {"masked_lm": (labels, weights)}

    def _share(self, progress, length):
        """Returns the share that is masked, and the most masks of a row."""
        first, last = self.masked_lm_prob, self.masked_lm_prob_end
        if not last:
            return first, None
        share = first + (last - first) * progress
        return share, masking.most_masks(max(first, last), length)

    def _units(self, token_ids, facts, progress):
        """Returns the units of this stage; None: single tokens."""
        if not self._has_groups:
            return None
        levels = [hiding.LEVELS[unit] for unit in self._stages]
        stage = tf.cast(progress * len(levels), tf.int32)
        level = tf.gather(levels, tf.minimum(stage, len(levels) - 1))
        if not self._reads_boundaries:
            facts = tf.zeros_like(token_ids)
        return hiding.of_level(facts, level, hiding.GROUPS[self.masked_group])

    def add_derived_features(self, features: base.Tensors) -> base.Tensors:
        if self.packed:
            positions = packing.restarting_positions(features["padding_mask"])
            features = features | {"position_ids": positions}
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
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, outputs[term]
            )
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
