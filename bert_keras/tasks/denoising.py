"""Pretraining of encoder-decoders: a damaged text is rebuilt."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from bert_keras import encoder_decoder, errors, options
from bert_keras.data import masking, noise, packing, records
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

TERM = encoder_decoder.TERM
NOISES = ("mask", "delete", "swap", "spans")


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class Denoising(encoder_decoder.EncoderDecoder):
    """Rebuilds texts whose tokens are masked, deleted or swapped.

    Lewis et al. 2020 (BART). The encoder reads the damaged text, the decoder
    generates the original; the loss is the mean cross entropy of all its
    tokens. Each epoch damages a text in another way. A Predictor of this task
    rebuilds texts: [MASK] in a text stands for one or more tokens.
    """

    metric_names = (f"loss/{TERM}", f"{TERM}_accuracy", "perplexity")
    target_axes = {TERM: base.TOKENS}

    noise: str = options.option(
        "spans",
        "What is done to a text: mask = tokens become [MASK]; delete = they "
        "are left out; swap = neighbours change places; spans = one [MASK] in "
        "place of several tokens; all = one of these for each text.",
        choices=(*NOISES, "all"),
    )
    noise_prob: float = options.option(
        0.3,
        "Fraction of the tokens that are masked, deleted or in spans.",
        minimum=0.01,
        maximum=0.9,
    )
    # Set by `adapt`, from the tokenizer.
    mask_id: int = -1
    special_ids: tuple[int, ...] = ()

    @property
    def longest_target(self) -> int:
        return self.seq_length

    def for_records(self, manifest: Mapping[str, Any]) -> base.Task:
        if manifest["objective"] != "none":
            raise errors.InputError(
                "objective=denoising, and the records have pairs of sentences "
                f"(sentence_objective={manifest['objective']}); prepare them "
                "with packing=sentences, or with sentence_objective=none."
            )
        if manifest.get("packing") == "full":
            raise errors.InputError(
                "objective=denoising, and the rows of the records have no "
                "start and end (packing=full); prepare them with "
                "packing=sentences, or with sentence_objective=none."
            )
        if manifest.get("format") == records.GOOGLE:
            raise errors.InputError(
                "objective=denoising, and the records have masks already "
                "(format=google); prepare them as records."
            )
        return super().for_records(manifest)

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        if self.noise == "swap":
            self._refuse_unread(
                "noise=swap, which moves all tokens", "noise_prob"
            )
        masks = self.noise in ("mask", "spans", "all")
        if masks and tokenizer.mask_id is None:
            raise errors.InputError(
                f"noise={self.noise} needs a vocabulary with an entry [MASK], "
                f"and this one of {tokenizer.vocab_size:,} entries has none; "
                "take noise=delete or noise=swap.",
                argument="noise",
            )
        task = super().adapt(examples, tokenizer)
        return task.with_settings(
            mask_id=-1 if tokenizer.mask_id is None else tokenizer.mask_id,
            special_ids=tokenizer.special_ids,
        )

    def make_example(self, raw: base.Example, label: Any) -> base.Example:
        """Returns the text alone: it is its own target."""
        if label is not None:
            raise ValueError(f"expected no label, found {label!r}")
        return raw

    def summarize(self, metrics: Mapping[str, float]) -> dict[str, float]:
        return {
            **metrics,
            "perplexity": base.perplexity(metrics[f"loss/{TERM}"]),
        }

    def preprocess(
        self, raw: base.Tensors, tokenizer: tokenizers.Tokenizer
    ) -> base.Tensors:
        return packing.pack(
            [tokenizer(raw["text"], special_tokens=True)],
            tokenizer.frame,
            seq_length=self.seq_length,
        )

    def make_targets(
        self,
        raw: base.Tensors,
        features: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Targets:
        """Returns none: `randomize` adds the text itself."""
        self.require_adapted()
        return {}

    def randomize(
        self, features: base.Tensors, targets: base.Targets, seeds: tf.Tensor
    ) -> tuple[base.Tensors, base.Targets]:
        """Adds the targets, the tokens after the start, and damages the text.

        The rows keep their width; the damaged text may be shorter.
        """
        ids, padding = features["token_ids"], features["padding_mask"]
        after = [[0, 0], [0, 1]]
        labels = tf.pad(ids[:, 1:], after)
        weights = tf.cast(tf.pad(padding[:, 1:], after) > 0, tf.float32)
        ids, padding = self._damaged(ids, padding > 0, seeds)
        features = features | {"token_ids": ids, "padding_mask": padding}
        if "segment_ids" in features:
            features["segment_ids"] *= padding
        return features, targets | {TERM: (labels, weights)}

    def _damaged(self, ids, is_token, seeds):
        """Returns damaged ids and their padding mask, (B, S) int32."""
        length = tf.shape(ids)[1]
        uniform = masking.uniform(seeds, 2 * length + 1)
        first, second = uniform[:, :length], uniform[:, length:-1]
        ordinary = is_token
        for special in self.special_ids:
            ordinary &= ids != special
        share, mask_id = self.noise_prob, self.mask_id
        same = tf.cast(is_token, tf.int32)
        damaged = {
            "mask": lambda: (
                noise.mask(ids, ordinary, first, share=share, mask_id=mask_id),
                same,
            ),
            "delete": lambda: noise.delete(
                ids, is_token, ordinary & (first < share)
            ),
            "swap": lambda: (noise.swap(ids, ordinary, first), same),
            "spans": lambda: noise.spans(
                ids,
                is_token,
                ordinary,
                first,
                second,
                share=share,
                mask_id=mask_id,
            ),
        }
        if self.noise != "all":
            return damaged[self.noise]()
        choice = tf.cast(uniform[:, -1:] * len(NOISES), tf.int32)
        ids, padding = zip(*(damaged[name]() for name in NOISES), strict=True)
        chosen = choice == tf.range(len(NOISES))  # (B, 4)
        chosen = tf.cast(chosen, tf.int32)[:, :, tf.newaxis]
        return (
            tf.reduce_sum(tf.stack(ids, axis=1) * chosen, axis=1),
            tf.reduce_sum(tf.stack(padding, axis=1) * chosen, axis=1),
        )
