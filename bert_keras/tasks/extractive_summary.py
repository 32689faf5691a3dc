"""Extractive summarization: the sentences of a text that summarize it."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, options
from bert_keras import heads as heads_lib
from bert_keras.data import (
    graph_splitter,
    labelled_files,
    sentence_choice,
    sentence_rows,
    summary_files,
)
from bert_keras.metrics import generation, oracle
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

POSITIONS = "sentence_positions"  # the derived feature, (B, P) int32


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class ExtractiveSummary(base.Task):
    """Chooses the sentences of a text that are its summary.

    BERTSum (Liu and Lapata 2019): each sentence has its own [CLS] and [SEP],
    segments alternate, and the state of each [CLS] is scored by one linear
    layer and a sigmoid. The best `num_sentences` are the summary, in the order
    of the text.

    A text is a string, which is split into sentences in the graph
    (`graph_splitter`), so that a server gets raw text and Python and the server
    have the same sentences. Sentences that are known are separated by U+001E;
    in Python and JSON they are a list.

    The summaries of the training data become labels of sentences: those that
    `metrics.oracle` chooses, among the ones that fit into a row. A file may
    have labels instead. The loss is the mean cross entropy over all sentences.

    The first metric, which selects the best checkpoint, is ROUGE-L.
    """

    pipeline_tag = "summarization"

    seq_length: int = options.option(
        512,
        "Maximum row length in tokens, [CLS] and [SEP] of each sentence "
        "included. Sentences that do not fit are not read.",
        minimum=4,
        maximum=base.MAX_TOKENS,
    )
    num_sentences: int = options.option(
        3,
        "Number of sentences of a summary.",
        minimum=1,
        maximum=64,
    )
    max_sentences: int = options.option(
        64,
        "Maximum number of sentences of a text that are read.",
        minimum=1,
        maximum=1024,
    )
    no_repeat_ngram_size: int = options.option(
        0,
        "If n > 0, leave out a sentence that has n consecutive words of a "
        "better one; 3 is trigram blocking. A Chinese character is a word. "
        "0: keep all.",
        minimum=0,
        maximum=100,
    )
    pooling: str = options.option(
        "first",
        "Token of a sentence that is scored: first = [CLS] (BERTSum); last = "
        "[SEP], which causal networks need.",
        choices=("first", "last"),
    )
    columns: str = options.option(
        "",
        "Columns of the files to read, as text=NAME,summary=NAME,labels=NAME; "
        "for a file without a header, column indices from 0. Empty: common "
        "names are recognised.",
    )
    metric_names = ("rouge_l", "rouge_1", "rouge_2")
    head_signatures = {"sentence": "whether a sentence is in the summary"}
    target_axes = {"sentence": base.TOKENS}
    list_padding = {"sentences": -1, "scores": -1.0}

    # Set by `adapt`, from the tokenizer: the ids of the scored token, and the
    # feature that has them.
    token: tuple[int, ...] = ()
    feature: str = "token_ids"

    def __post_init__(self) -> None:
        columns = labelled_files.format_columns(self.columns)
        object.__setattr__(self, "columns", columns)

    @property
    def list_width(self) -> int:
        return self.max_sentences

    # Examples.

    def read_examples(self, path: str) -> Iterator[base.Example]:
        return summary_files.read(path, columns=self.columns)

    def read_texts(self, path: str) -> Iterator[base.Example]:
        return summary_files.read_texts(path, columns=self.columns)

    def text_row(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns {"text": ...}; the row may have a list of sentences."""
        return summary_files.text_row(row)

    def make_example(self, raw: base.Example, label: Any) -> base.Example:
        """Returns an example.

        label: a summary, a list of summaries of which each is right, or a list
          with a 0 or 1 for each sentence, if the text is a list of sentences.
        """
        is_list = isinstance(label, (list, tuple))
        if is_list and not any(isinstance(each, str) for each in label):
            return summary_files.example(raw, {"labels": label})
        return summary_files.example(raw, {"summary": label})

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        del examples
        frame = tokenizer.frame
        if not (frame.start and frame.end):
            raise errors.InputError(
                "extractive_summary needs a vocabulary with special tokens "
                "around a text, such as [CLS] and [SEP], and this one of "
                f"{tokenizer.vocab_size:,} entries lacks them."
            )
        token = frame.start[0] if self.pooling == "first" else frame.end[-1]
        return self.with_settings(
            token=tuple(np.ravel(token).tolist()), feature=frame.feature
        )

    # Texts to features.

    def preprocess(
        self, raw: base.Tensors, tokenizer: tokenizers.Tokenizer
    ) -> base.Tensors:
        """Packs the sentences of each text into a row (`sentence_rows`).

        Also returns features that stay on the host: "sentence" (T, P) string,
        those in the row, padded with "", P = max_sentences; "num_read" (T,)
        int32, their number; and "unread" (T,) int32, the number of sentences
        that do not fit. A text without words has none, and the row of a blank
        sentence.
        """
        sentences = graph_splitter.split(raw["text"])
        count = sentences.row_lengths()
        is_blank = count == 0
        blank = tf.RaggedTensor.from_row_lengths(
            tf.fill([tf.math.count_nonzero(is_blank)], ""),
            tf.cast(is_blank, tf.int64),
        )
        rows = tf.concat([sentences, blank], axis=1)
        features = sentence_rows.pack(
            tokenizer(rows.flat_values),
            rows.row_lengths(),
            tokenizer.frame,
            seq_length=self.seq_length,
            max_sentences=self.max_sentences,
        )
        num_read = tf.where(is_blank, 0, features["num_read"])
        is_read = tf.sequence_mask(num_read, self.max_sentences)
        texts = sentences.to_tensor("", shape=(None, self.max_sentences))
        return features | {
            "num_read": num_read,
            "unread": tf.cast(count, tf.int32) - num_read,
            "sentence": tf.where(is_read, texts, ""),
        }

    def make_targets(
        self,
        raw: base.Tensors,
        features: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Targets:
        """Returns {"sentence": (labels (T, S), weights (T, S))}, float32.

        Not in a graph. Labels are at the scored token of each sentence, where
        the weight is 1.
        """
        del tokenizer
        positions = self.add_derived_features(features)[POSITIONS].numpy()
        shape = features["padding_mask"].shape
        labels, weights = np.zeros(shape), np.zeros(shape)
        for row, count in enumerate(features["num_read"].numpy().tolist()):
            places = positions[row, :count]
            texts = features["sentence"][row, :count].numpy()
            weights[row, places] = 1
            given = raw["labels"][row].numpy().decode().split()
            if given:
                labels[row, places] = np.array(given, np.float64)[:count]
                continue
            chosen = oracle.greedy(
                [text.decode() for text in texts],
                json.loads(raw["summary"][row].numpy()),
                self.num_sentences,
            )
            labels[row, places[chosen]] = 1
        return {
            "sentence": (
                tf.constant(labels, tf.float32),
                tf.constant(weights, tf.float32),
            )
        }

    # The model.

    def add_derived_features(self, features: base.Tensors) -> base.Tensors:
        """Adds the position of each sentence's scored token; -1: padding."""
        if not self.token:
            raise errors.InputError(
                "the task does not know the tokenizer; call its `adapt` first."
            )
        positions = sentence_rows.positions(
            features[self.feature], self.token, self.max_sentences
        )
        return features | {POSITIONS: positions}

    def positions_read(self, features: base.Tensors) -> tf.Tensor | None:
        length = features["padding_mask"].shape[1]
        if length is not None and length <= self.max_sentences:
            return None
        return tf.maximum(features[POSITIONS], 0)

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        if self.pooling == "first" and getattr(config, "causal", False):
            raise errors.InputError(
                "pooling=first scores the token before a sentence, which in a "
                "causal network does not attend to it; use pooling=last.",
                argument="pooling",
            )
        return {"sentence": heads_lib.SentenceHead(config)}

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: base.Heads,
        features: base.Tensors,
        *,
        training: bool | None,
    ) -> base.Tensors:
        """Returns {"sentence": logits (B, P)}, float32."""
        has_all_positions = "positions_read" not in encoded
        positions = tf.maximum(features[POSITIONS], 0)
        logits = heads["sentence"](
            encoded["hidden"][-1],
            positions if has_all_positions else None,
            training=training,
        )
        return {"sentence": logits}

    def loss(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> base.Tensors:
        positions = features[POSITIONS]
        labels, weights = (
            tf.gather(values, tf.maximum(positions, 0), batch_dims=1)
            for values in targets["sentence"]
        )
        weights *= tf.cast(positions >= 0, tf.float32)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(
            labels, outputs["sentence"]
        )
        return {"sentence": tf.reduce_sum(losses * weights)}

    # Answers.

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        """Returns {"score" (W, P)}: the probability of each sentence, or 0."""
        # Not >=: no runtime was tried with TFLite's GREATER_EQUAL.
        is_sentence = tf.cast(features[POSITIONS] > -1, tf.float32)
        return {"score": tf.sigmoid(outputs["sentence"]) * is_sentence}

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns the summaries (T, ...).

        "text" (T,) string: the chosen sentences, one a line, in the order of
        the text; "sentences" (T, P) int32: their indices in the text, from 0,
        padded with -1; "scores" (T, P): the probability of each sentence that
        was read, 0 for an empty one, padded with -1; "unread" (T,) int32: how
        many sentences after them were not read.
        """
        del raw, tokenizer
        is_read = tf.sequence_mask(features["num_read"], self.max_sentences)
        is_sentence = features["sentence"] != ""
        is_chosen = sentence_choice.choose(
            decoded["score"],
            is_sentence,
            features["sentence"],
            count=self.num_sentences,
            ngram_size=self.no_repeat_ngram_size,
        )
        chosen = tf.ragged.boolean_mask(features["sentence"], is_chosen)
        index = tf.range(self.max_sentences)
        last = self.max_sentences
        index = tf.sort(tf.where(is_chosen, index, last), axis=1)
        return {
            "text": tf.strings.reduce_join(chosen, axis=-1, separator="\n"),
            "sentences": tf.where(index < last, index, -1),
            "scores": tf.where(
                is_sentence, decoded["score"], tf.where(is_read, 0.0, -1.0)
            ),
            "unread": features["unread"],
        }

    def to_python(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer | {
            name: [value for value in answer[name] if value >= 0]
            for name in ("sentences", "scores")
        }

    def metrics(
        self, predictions: base.Answers, examples: Sequence[base.Example]
    ) -> dict[str, float]:
        """Computes ROUGE, each 0 to 100; see `metrics.generation.rouge`."""
        return self._rouge([answer["text"] for answer in predictions], examples)

    def baselines(self, examples: Sequence[base.Example]) -> dict[str, float]:
        """Returns ROUGE of the first sentences, and of the oracle's.

        The oracle chooses among all sentences of a text, also those that are
        not read.
        """
        texts = tf.constant([example["text"] for example in examples])
        split = [
            [sentence.decode() for sentence in sentences]
            for sentences in graph_splitter.split(texts).to_list()
        ]
        summaries = {
            f"lead-{count}": [sentences[:count] for sentences in split]
            for count in sorted({1, 3, self.num_sentences})
        }
        summaries["the oracle"] = [
            [
                sentences[index]
                for index in oracle.greedy(
                    sentences,
                    json.loads(example["summary"]),
                    self.num_sentences,
                )
            ]
            for sentences, example in zip(split, examples, strict=True)
        ]
        return {
            f"{metric} of {name}": value
            for name, chosen in summaries.items()
            for metric, value in self._rouge(
                ["\n".join(each) for each in chosen], examples
            ).items()
        }

    def _rouge(
        self, texts: Sequence[str], examples: Sequence[base.Example]
    ) -> dict[str, float]:
        references = [json.loads(example["summary"]) for example in examples]
        metrics = generation.rouge(texts, references)
        return {name: metrics[name] for name in self.metric_names}
