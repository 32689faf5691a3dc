"""The base of tasks that learn from rows some of whose tokens are hidden."""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

import tensorflow as tf

from bert_keras import errors, options
from bert_keras.data import hiding, masking, packing, records, word_boundaries
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

# The options that say which tokens are chosen.
CHOICE = ("masked_lm_prob", "masked_lm_prob_end", "masked_unit", "masked_group")


@dataclasses.dataclass(frozen=True)
class MaskedRows(base.Task):
    """Chooses tokens of each row of records, in each epoch others.

    A subclass says in its `randomize` what becomes of them, with `mask`, and in
    its heads what is predicted.
    """

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
    # Set from the records' manifest.
    packed: bool = False  # whether rows have several texts
    # Set by `adapt`, from the tokenizer.
    vocab_size: int = 0
    mask_id: int = 0
    special_ids: tuple[int, ...] = ()

    #: The options of masking, which have no effect on rows that are masked.
    mask_options: ClassVar[tuple[str, ...]] = CHOICE
    #: Fields that `to_dict` leaves out if they have their default: runs that
    #: are older than these must have equal settings to be resumed.
    later_fields: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
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

    @property
    def _stages(self) -> list[str]:
        """The units that are masked, one after the other."""
        return self.masked_unit.split(",")

    @property
    def has_groups(self) -> bool:
        """Whether more than single tokens are chosen."""
        return (self.masked_unit, self.masked_group) != ("tokens", "one")

    @property
    def reads_boundaries(self) -> bool:
        """Whether records have to say where units begin."""
        return any(hiding.LEVELS[unit] for unit in self._stages)

    @property
    def reads_progress(self) -> bool:
        return len(self._stages) > 1 or self.masked_lm_prob_end > 0

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
            packed=manifest.get("packing") == "documents",
        )

    def require_texts(self, manifest: Mapping[str, Any]) -> None:
        """Raises InputError for records of pairs, or masked already."""
        if manifest["objective"] != "none":
            raise errors.InputError(
                f"objective={self.name}, and the records have pairs of "
                f"sentences (sentence_objective={manifest['objective']}); "
                "prepare them with sentence_objective=none."
            )
        if manifest.get("format") == records.GOOGLE:
            raise errors.InputError(
                f"objective={self.name}, and the records have masks already "
                "(format=google); prepare them as records."
            )

    def check_features(self, features: Collection[str]) -> None:
        if "inputs/positions" not in features:
            return
        for field in dataclasses.fields(self):
            chosen = getattr(self, field.name)
            if field.name in self.mask_options and chosen != field.default:
                raise errors.InputError(
                    f"{field.name}={chosen} has no effect: the records are of "
                    "TFRecord files, which are masked already. Leave it out, "
                    "or prepare records from text.",
                    argument=field.name,
                )

    def to_dict(self) -> dict[str, Any]:
        return options.without_defaults(
            super().to_dict(), self, self.later_fields
        )

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        del examples
        if tokenizer.mask_id is None:
            raise errors.InputError(
                f"{self.name} needs a vocabulary with an entry [MASK], and "
                f"this one of {tokenizer.vocab_size:,} entries has none."
            )
        return self.with_settings(
            vocab_size=tokenizer.vocab_size,
            mask_id=tokenizer.mask_id,
            special_ids=tokenizer.special_ids,
        )

    def make_example(self, raw: base.Example, label: Any) -> base.Example:
        """Returns the text alone, without a label: `randomize` makes it."""
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
        """Returns none for texts alone; `randomize` adds the targets."""
        if not self.vocab_size:
            raise errors.InputError(
                f"{self.name}: the task has no vocabulary; call its "
                "`adapt([], tokenizer)` first."
            )
        if self.reads_boundaries:
            raise errors.InputError(
                f"masked_unit={self.masked_unit}: expected records, which know "
                "where words begin, found texts; leave it out.",
                argument="masked_unit",
            )
        return {}

    def mask(
        self,
        features: base.Tensors,
        seeds: tf.Tensor,
        replacements: masking.Replacements,
    ) -> tuple[base.Tensors, tuple[tf.Tensor, tf.Tensor]]:
        """Returns features with chosen tokens replaced, and what these were.

        Removes the records' word boundaries and PROGRESS, and adds "positions"
        (B, P) int32. The labels (B, P) are the chosen tokens, the weights
        (B, P) float32 1, and 0 at padding; see `masking.mask_tokens`.
        """
        features = dict(features)
        facts = features.pop(word_boundaries.FEATURE, None)
        progress = features.pop(base.PROGRESS, 1.0)
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
            replacements=replacements,
        )
        masked = {"token_ids": token_ids, "positions": positions}
        return features | masked, (labels, weights)

    def _share(self, progress, length):
        """Returns the share that is masked, and the most masks of a row."""
        first, last = self.masked_lm_prob, self.masked_lm_prob_end
        if not last:
            return first, None
        share = first + (last - first) * progress
        return share, masking.most_masks(max(first, last), length)

    def _units(self, token_ids, facts, progress):
        """Returns the units of this stage; None: single tokens."""
        if not self.has_groups:
            return None
        levels = [hiding.LEVELS[unit] for unit in self._stages]
        stage = tf.cast(progress * len(levels), tf.int32)
        level = tf.gather(levels, tf.minimum(stage, len(levels) - 1))
        if not self.reads_boundaries:
            facts = tf.zeros_like(token_ids)
        return hiding.of_level(facts, level, hiding.GROUPS[self.masked_group])

    def is_ordinary(self, features: base.Tensors) -> tf.Tensor:
        """Returns where tokens of the text are, not special ones: (B, S)."""
        ordinary = features["padding_mask"] > 0
        for special in self.special_ids:
            ordinary &= features["token_ids"] != special
        return ordinary

    def add_derived_features(self, features: base.Tensors) -> base.Tensors:
        if not self.packed:
            return features
        positions = packing.restarting_positions(features["padding_mask"])
        return features | {"position_ids": positions}
