"""Noise: other words, blanks, exchanged, missing and additional ones.

Complete sentences may be additional, too.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, options
from bert_keras.data import masking, word_boundaries
from bert_keras.data import noise as noise_lib
from bert_keras.tasks import base as tasks
from bert_keras.tokenizers import base as tokenizers
from bert_keras.wrappers import base

_TEXTS_PER_CALL = 1000
_SEED = 0x4E01  # so that the inner task draws other numbers
_SENTENCE_SEED = 0x4E02
_ENDS = re.compile("(##|▁)?[.!?。！？]+(</w>)?")  # tokens that end a sentence
# Fields that `adapt` sets.
_ADAPTED = (
    *("mask_id", "special_ids", "token_counts", "end_ids"),
    *("sentence_ids", "sentence_lengths"),
)
# Their labels are positions in the row, or they read prepared records.
_REFUSED = (
    *("question_answering", "extractive_summary", "sequence_to_sequence"),
    *("masked_lm", "causal_lm", "denoising", "bidirectional_lm"),
    *("replaced_tokens", "token_order"),
)


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class Noise(base.Wrapper):
    """Changes the tokens of labelled rows anew in each epoch.

    Each share is of the tokens, wordpieces for example; special tokens stay. A
    token's label moves with it. Replacing by frequency and by blanks is data
    noising as smoothing (Xie et al. 2017, section 3.1); exchanging, deleting
    and inserting is after Wei & Zou 2019. Evaluation and the served model are
    those of the inner task.
    """

    changes_rows = True

    replace: float = options.option(
        0.0,
        "Share of the tokens that become another one, drawn as often as it "
        "occurs in the training file.",
        minimum=0.0,
        maximum=1.0,
    )
    blank: float = options.option(
        0.0,
        "Share of the tokens that become [MASK].",
        minimum=0.0,
        maximum=1.0,
    )
    swap: float = options.option(
        0.0,
        "Share of the tokens that change places with a neighbour.",
        minimum=0.0,
        maximum=1.0,
    )
    delete: float = options.option(
        0.0, "Share of the tokens that are deleted.", minimum=0.0, maximum=1.0
    )
    insert: float = options.option(
        0.0,
        "Share of the tokens before which another one is inserted, drawn as "
        "for `noise_replace`, if the row has room.",
        minimum=0.0,
        maximum=1.0,
    )
    sentence: float = options.option(
        0.0,
        "Share of the rows into which a sentence of `noise_sentences_file` is "
        "inserted, before, between or after its own, if the row has room.",
        minimum=0.0,
        maximum=1.0,
    )
    sentences_file: str = options.option(
        "",
        "A file with a sentence a line, such as neutral ones, for "
        "`noise_sentence`.",
        reads=True,
    )
    # Set by `adapt`, from the tokenizer and the training data.
    mask_id: int | None = None
    special_ids: tuple[int, ...] = ()
    token_counts: tuple[int, ...] = ()  # (V,)
    end_ids: tuple[int, ...] = ()
    sentence_ids: tuple[int, ...] = ()  # of all sentences, concatenated
    sentence_lengths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = ("replace", "blank", "swap", "delete", "insert", "sentence")
        if not any(getattr(self, name) for name in shares):
            raise errors.InputError(
                "noise: expected a share above 0 of "
                f"{', '.join(shares)}; give one, or leave the wrapper out.",
                argument="wrappers",
            )
        if bool(self.sentence) != bool(self.sentences_file):
            raise errors.InputError(
                "noise: expected noise_sentence and noise_sentences_file "
                "together; give both, or leave both out.",
                argument="noise_sentence",
            )
        if self.unwrapped.name in _REFUSED:
            raise errors.InputError(
                "noise needs a task of labelled texts, whose labels are of the "
                "row or of each token (classification, tagging, intent_slots, "
                "matching, multiple_choice, embedding); found "
                f"{self.unwrapped.name}.",
                argument="wrappers",
            )

    def settings(self) -> dict[str, Any]:
        # What `adapt` sets is no setting: the training file determines it.
        return {
            name: value
            for name, value in super().settings().items()
            if name not in _ADAPTED
        }

    def adapt(
        self, examples: Iterable[tasks.Example], tokenizer: tokenizers.Tokenizer
    ) -> tasks.Task:
        if tokenizer.feature != "token_ids":
            raise errors.InputError(
                "noise needs a tokenizer whose tokens are ids, found "
                f"{tokenizer.feature}.",
                argument="wrappers",
            )
        if self.blank and tokenizer.mask_id is None:
            raise errors.InputError(
                f"noise_blank={self.blank:g}: expected a vocabulary with an "
                "entry [MASK], found none.",
                argument="noise_blank",
            )
        counts = np.zeros(tokenizer.vocab_size, np.int64)
        passing = _counting(examples, self.task, tokenizer, counts)
        task = self.task.adapt(passing, tokenizer)
        for name in ("insert", "sentence"):
            share = getattr(self, name)
            if share and "padding_mask" in task.stored_features:
                raise errors.InputError(
                    f"noise_{name}={share:g}: expected a task with a text or a "
                    "pair a row, as each text of a row has its own room; found "
                    f"{task.unwrapped.name} with several. Leave it out.",
                    argument=f"noise_{name}",
                )
        for _ in passing:  # what the inner task has not read
            pass
        counts[list(tokenizer.special_ids)] = 0
        return dataclasses.replace(
            self,
            task=task,
            mask_id=tokenizer.mask_id,
            special_ids=tokenizer.special_ids,
            token_counts=tuple(counts.tolist()),
            **self._sentences(tokenizer),
        )

    def _sentences(self, tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
        """Returns the fields of the sentences that are inserted."""
        if not self.sentences_file:
            return {}
        texts = word_boundaries.read_lexicon(self.sentences_file)
        ids = tokenizer(tf.constant(texts))
        lengths = ids.row_lengths().numpy()
        room = tokenizer.frame.capacity(self.seq_length, 1)
        shortest = int(np.argmin(lengths))
        if not 1 <= lengths[shortest] <= room:
            raise errors.InputError(
                f"{self.sentences_file}: expected sentences of 1 to {room} "
                f"tokens, found {texts[shortest][:40]!r} of "
                f"{lengths[shortest]}.",
                argument="noise_sentences_file",
            )
        ends = [
            number
            for number, token in enumerate(tokenizer.vocabulary)
            if _ENDS.fullmatch(token)
        ]
        return {
            "end_ids": tuple(ends),
            "sentence_ids": tuple(ids.values.numpy().tolist()),
            "sentence_lengths": tuple(lengths.tolist()),
        }

    def randomize(
        self, features: tasks.Tensors, targets: tasks.Targets, seeds: tf.Tensor
    ) -> tuple[tasks.Tensors, tasks.Targets]:
        if self.sentence:
            features, targets = self._lengthened(features, targets, seeds)
        features, targets = self._noised(features, targets, seeds)
        return self.task.randomize(features, targets, seeds)

    def _lengthened(self, features, targets, seeds):
        """Inserts sentences into some rows, before any other noise."""
        ids, is_token = features["token_ids"], features["padding_mask"] > 0
        ordinary = self._ordinary(ids, is_token)
        source, span, offset = noise_lib.insert_span(
            is_token,
            noise_lib.sentence_borders(
                ordinary,
                is_token & ~ordinary,
                ordinary & _is_among(ids, self.end_ids),
            ),
            masking.uniform(seeds + [[0, _SENTENCE_SEED]], 3),
            share=self.sentence,
            lengths=tf.constant(self.sentence_lengths),
        )
        starts = np.cumsum((0, *self.sentence_lengths[:-1]))
        first = tf.gather(tf.constant(starts, tf.int32), span)
        inserted = tf.gather(
            tf.constant(self.sentence_ids), first + tf.maximum(offset, 0)
        )
        return self._moved(features, targets, source, offset >= 0, inserted)

    def _ordinary(self, ids, is_token):
        """Returns which tokens are neither special nor padding, (B, S)."""
        return is_token & ~_is_among(ids, self.special_ids)

    def _noised(self, features, targets, seeds):
        ids, is_token = features["token_ids"], features["padding_mask"] > 0
        shape = tf.shape(ids)
        draws = masking.uniform(seeds + [[0, _SEED]], 7 * shape[1] + 1)
        changed, blanked, drawn, added, edits = tf.split(
            draws, [shape[1]] * 4 + [3 * shape[1] + 1], axis=1
        )
        ordinary = self._ordinary(ids, is_token)
        ids = tf.where(
            ordinary & (changed < self.replace), self._random(drawn), ids
        )
        ids = tf.where(
            ordinary & (blanked < self.blank), self.mask_id or 0, ids
        )
        features = features | {"token_ids": ids}
        if not (self.swap or self.delete or self.insert):
            return features, targets
        source, is_new = noise_lib.edit(
            is_token,
            ordinary,
            edits,
            swap_share=self.swap,
            delete_share=self.delete,
            insert_share=self.insert,
        )
        inserted = self._random(added)
        return self._moved(features, targets, source, is_new, inserted)

    def _moved(self, features, targets, source, is_new, inserted):
        """Moves values of tokens to where `source` puts them (B, S).

        inserted (B, S): the new tokens, which have weight 0.
        """

        def moved(values):
            padded = tf.pad(values, [[0, 0], [0, 1]])
            return tf.gather(padded, source, batch_dims=1)

        features = {
            name: moved(values) if self._is_of_tokens(name) else values
            for name, values in features.items()
        }
        features["token_ids"] = tf.where(
            is_new, inserted, features["token_ids"]
        )
        return features, {
            term: (moved(labels), tf.where(is_new, 0.0, moved(weights)))
            if self.task.target_axes.get(term) == tasks.TOKENS
            else (labels, weights)
            for term, (labels, weights) in targets.items()
        }

    def _is_of_tokens(self, name: str) -> bool:
        """Whether a feature of the records has a value for each token."""
        stored = self.task.stored_features
        return name not in stored or stored[name] == tasks.TOKENS

    def _random(self, uniform):
        """Returns tokens by frequency, uniform (B, S) -> (B, S) int32."""
        return masking.random_tokens(uniform, self.token_counts)


def _is_among(ids: tf.Tensor, some: Iterable[int]) -> tf.Tensor:
    """Returns which ids are among some, of the same shape."""
    result = tf.zeros_like(ids, tf.bool)
    for each in some:
        result |= ids == each
    return result


def _counting(
    examples: Iterable[tasks.Example],
    task: tasks.Task,
    tokenizer: tokenizers.Tokenizer,
    counts: np.ndarray,
) -> Iterator[tasks.Example]:
    """Yields the examples, and adds their tokens to the counts."""
    texts: list[str] = []

    def count():
        ids = tokenizer(tf.constant(texts, tf.string)).values.numpy()
        counts.__iadd__(np.bincount(ids, minlength=len(counts)))
        texts.clear()

    for example in examples:
        texts.extend(task.vocabulary_texts(example))
        if len(texts) >= _TEXTS_PER_CALL:
            count()
        yield example
    count()
