"""Matching: whether two texts belong together, read side by side."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, options
from bert_keras import heads as heads_lib
from bert_keras.data import labelled_files, labels, other_texts, packing
from bert_keras.metrics import ranking
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

_HEAD = "match"  # logits (B, 2): class 1 belongs together
_parse = functools.partial(
    labels.parse_binary, meaning="the texts belong together"
)


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class Matching(base.Task):
    """The probability that two texts belong together: a question, its answer.

    Both texts are in one row and attend to each other (Nogueira & Cho 2019).
    That is slower than `Embedding`, which finds candidates among many, and
    more exact, so it puts these in order.

    It learns from pairs that belong together. `negatives` adds to each of them
    its first text with second texts of other rows of the same split. Matches
    and others count alike in the loss, whatever their number.

    >>> task = bert_keras.tasks.Matching(negatives=2)
    >>> rows = [{"text": "1 + 1", "text_pair": "2"},
    ...         {"text": "2 + 2", "text_pair": "4"}]
    >>> [row["label"] for row in task.expand(rows)]
    ['1', '0', '1', '0']
    """

    pipeline_tag = "text-classification"
    scores_negatives = True
    text_columns = ("text", "text_pair")
    metric_names = ("balanced_accuracy", "mrr")
    softmax_terms = (_HEAD,)

    columns: str = options.option(
        "",
        "Columns of the files to read, as "
        "text=NAME,text_pair=NAME,label=NAME; for a file without a header, "
        "column indices from 0. Empty: common names are recognised.",
    )
    negatives: int = options.option(
        1,
        "The number of rows that are added to each pair: its first text with "
        "second texts of other rows, drawn once; fewer if there are fewer. 0: "
        "the rows of the file, some of which have the label 0.",
        minimum=0,
        maximum=1000,
    )
    pooling: str = options.option(
        "first",
        "Pooling of the hidden states to one vector, as in classification.",
        choices=heads_lib.POOLINGS,
    )
    # Set by `adapt`, from the training data.
    share: float = 0.0  # of the rows that belong together; 0: 1 / (1 + k)

    def __post_init__(self) -> None:
        columns = labelled_files.format_columns(self.columns)
        object.__setattr__(self, "columns", columns)

    @property
    def head_signatures(self) -> dict[str, Any]:
        return {_HEAD: self.pooling}

    @property
    def head_length(self) -> int | None:
        return self.seq_length if self.pooling == "concat" else None

    def read_examples(self, path: str) -> Iterator[base.Example]:
        """Yields pairs; those with the label 0 or false do not belong together.

        A file without labels has pairs that do.
        """
        examples = labelled_files.read(
            path,
            columns=labelled_files.parse_columns(
                self.columns, labelled_files.COMMON_COLUMNS
            ),
            needed=self.text_columns,
            label=_parse,
        )
        # With dev_fraction, all rows of a first text are in one split: a
        # negative of one row may not be a match of the other split.
        return examples.mapped(
            lambda example: _labelled(example) | {"group": example["text"]}
        )

    def make_example(self, raw: base.Example, label: Any) -> base.Example:
        """Returns an example; label: 1 or None if the texts belong together.

        0 if they do not.
        """
        binary = "1" if label is None else _parse(label)
        return {**raw, "label": binary}

    def expand(
        self, examples: Iterable[base.Example]
    ) -> Iterator[base.Example]:
        """Yields the examples, each match followed by its negatives.

        They are in memory meanwhile, as any of them may be a negative. Raises
        InputError if all of them belong together, or none.
        """
        rows: Iterable[base.Example] = map(_labelled, examples)
        if self.negatives:
            rows = other_texts.add(
                list(map(_labelled, examples)), self.negatives
            )
        labels_seen = set()
        for row in rows:
            labels_seen.add(row["label"])
            yield row
        if labels_seen == {"0"}:
            raise errors.InputError(
                "expected pairs that belong together, found the label 0 alone."
            )
        if labels_seen == {"1"}:
            raise errors.InputError(
                "expected pairs that do not belong together as well, found "
                f"none (negatives={self.negatives}); give rows the label 0, or "
                "set `negatives`, which draws the second texts of other rows.",
                argument="negatives",
            )

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        """Returns the task with the share of matches in the training rows.

        examples: those of `expand`, or without negatives.
        """
        del tokenizer
        counts = {"0": 0, "1": 0}
        for example in examples:
            counts[_labelled(example)["label"]] += 1
        share = counts["1"] / max(sum(counts.values()), 1)
        # Not expanded: each has its negatives.
        return self.with_settings(share=share if 0 < share < 1 else 0.0)

    def preprocess(
        self, raw: base.Tensors, tokenizer: tokenizers.Tokenizer
    ) -> base.Tensors:
        return packing.pack(
            [tokenizer(raw[name]) for name in self.text_columns],
            tokenizer.frame,
            seq_length=self.seq_length,
        )

    def make_targets(
        self,
        raw: base.Tensors,
        features: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Targets:
        """Returns {"match": (labels, weights)}, (T,): the mean weight is 1."""
        del features, tokenizer
        is_match = raw["label"] == "1"
        share = self.share or 1 / (1 + max(self.negatives, 1))
        weights = tf.where(is_match, 0.5 / share, 0.5 / (1 - share))
        return {_HEAD: (tf.cast(is_match, tf.int32), weights)}

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        head = heads_lib.ClassificationHead(
            config, 2, self.pooling, seq_length=self.head_length
        )
        return {_HEAD: head}

    def positions_read(self, features: base.Tensors) -> tf.Tensor | None:
        mask = features["padding_mask"]
        return heads_lib.positions_pooled(self.pooling, mask)

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: base.Heads,
        features: base.Tensors,
        *,
        training: bool | None,
    ) -> base.Tensors:
        """Returns {"match": (B, 2)} float32 logits; class 1 is a match."""
        mask = features["padding_mask"]
        return {_HEAD: heads[_HEAD](encoded, mask, training=training)}

    def loss(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> base.Tensors:
        is_match, weights = targets[_HEAD]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            is_match, outputs[_HEAD]
        )
        return {_HEAD: tf.reduce_sum(losses * weights)}

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        return {"score": tf.nn.softmax(outputs[_HEAD])[:, 1]}

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns {"matches" (T,) bool, "score" (T,)}: its probability."""
        del features, raw, tokenizer
        return {"matches": decoded["score"] > 0.5, "score": decoded["score"]}

    def metrics(
        self, predictions: base.Answers, examples: Sequence[base.Example]
    ) -> dict[str, float]:
        """Computes the balanced accuracy and the mean reciprocal rank.

        The former is the mean of the shares of the matches and of the others
        that are recognised, so that negatives= changes neither it nor what one
        answer for all scores, 0.5. The rank is that of a match, by its score,
        among the rows with its first text, without other matches; matches whose
        text has no other rows have none.
        """
        gold = np.array([example["label"] == "1" for example in examples])
        matches = np.array([answer["matches"] for answer in predictions])
        ranks = ranking.grouped_ranks(
            [example["text"] for example in examples],
            [answer["score"] for answer in predictions],
            gold.tolist(),
        )
        recalls = [np.mean(matches[gold == s] == s) for s in (True, False)]
        return {
            "balanced_accuracy": float(np.mean(recalls)),
            "mrr": ranking.retrieval(ranks)["mrr"],
        }

    def baselines(self, examples: Sequence[base.Example]) -> dict[str, float]:
        del examples
        return {"balanced accuracy of one answer for all": 0.5}


def _labelled(example: base.Example) -> dict[str, str]:
    return {"label": "1", **example}
