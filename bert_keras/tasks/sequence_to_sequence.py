"""Sequence to sequence: a text is generated from another one."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from bert_keras import decoders, encoder_decoder, errors, options
from bert_keras.data import labelled_files, numbered_texts, packing, text_pairs
from bert_keras.metrics import generation as metrics_lib
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers
from bert_keras.tokenizers import pair

TERM = encoder_decoder.TERM
TARGET_VOCAB_SIZE = 8000


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class SequenceToSequence(encoder_decoder.EncoderDecoder):
    """Learns pairs of texts: translation, summaries, answers.

    With truncation "windows" the encoder reads a long source in parts, and the
    decoder attends to the states of all of them.
    """

    metric_names = (
        *("bleu", "chrf", "rouge_1", "rouge_2", "rouge_l", "exact_match"),
    )

    seq_length: int = options.option(
        128,
        "Maximum length of a source, in tokens, special ones included; see "
        "`truncation` for longer ones.",
        minimum=4,
        maximum=base.MAX_TOKENS,
    )
    max_target_length: int = options.option(
        64,
        "Maximum length of a target, in tokens, its end included. Longer "
        "targets are truncated in training.",
        minimum=2,
        maximum=base.MAX_TOKENS,
    )
    columns: str = options.option(
        "",
        "Columns of the files to read, as text=NAME,target=NAME; for a file "
        "without a header, column indices from 0. Empty: common names are "
        "recognised.",
    )
    target_suffix: str = options.option(
        "",
        "For parallel files: with `de`, line n of train.de is the target of "
        "line n of train.en, which is the file to name. Tables and JSON lines "
        "are read without it.",
    )
    truncation: str = options.option(
        "head",
        "What is read of a source that is too long: head = its first tokens; "
        "head_tail = the first and the last half; windows = up to "
        "`num_windows` windows of seq_length, which the encoder reads one by "
        "one and the decoder all together.",
        choices=("head", "head_tail", "windows"),
    )
    num_windows: int = options.option(
        4, "Maximum number of windows of a source.", minimum=2, maximum=1000
    )
    target_tokenizer: str = options.option(
        "",
        "The tokenizer of targets: wordpiece, bpe or sentencepiece, with a "
        "vocabulary of its own. Empty: that of the sources, with shared "
        "embeddings.",
    )
    target_vocab: str = options.option(
        "",
        "Its vocabulary, as prepare's `vocab`; empty: learned from the "
        "training targets.",
        reads=True,
    )
    target_vocab_size: int = options.option(
        0,
        "Entries of a learned target vocabulary; 0: "
        f"{TARGET_VOCAB_SIZE:,}, or fewer if the targets give fewer.",
        minimum=0,
    )
    target_lowercase: bool = options.option(
        False, "Fold case and drop accents of a learned target vocabulary."
    )

    def __post_init__(self) -> None:
        columns = labelled_files.format_columns(self.columns)
        object.__setattr__(self, "columns", columns)
        super().__post_init__()

    @property
    def longest_target(self) -> int:
        return self.max_target_length

    # Examples.

    def read_examples(self, path: str) -> Iterator[base.Example]:
        return text_pairs.read(
            path, columns=self.columns, target_suffix=self.target_suffix
        )

    def data_files(self, path: str) -> Sequence[str]:
        return text_pairs.data_files(path, self.target_suffix)

    def read_texts(self, path: str) -> Iterator[base.Example] | None:
        if not text_pairs.is_table(path):
            return None
        return text_pairs.read_texts(path, columns=self.columns)

    def make_example(self, raw: base.Example, label: Any) -> base.Example:
        """Returns an example; label: the target, or a list of several."""
        return text_pairs.example(raw["text"], label)

    def text_row(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        return text_pairs.text_row(row)

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        if not self.is_windowed:
            self._refuse_unread(
                f"truncation={self.truncation}; it is for windows",
                "num_windows",
            )
        return super().adapt(examples, tokenizer)

    def extend_tokenizer(
        self,
        tokenizer: tokenizers.Tokenizer,
        examples: Callable[[], Iterable[base.Example]],
    ) -> tokenizers.Tokenizer:
        """Returns the tokenizer with that of the targets, if it is another."""
        if not self.target_tokenizer:
            for name in (
                "target_vocab",
                "target_vocab_size",
                "target_lowercase",
            ):
                if value := getattr(self, name):
                    raise errors.InputError(
                        f"{name}={value} needs target_tokenizer, the kind of "
                        "vocabulary: wordpiece, bpe or sentencepiece.",
                        argument=name,
                    )
            return tokenizer
        if self.target_vocab:
            self._refuse_unread(
                f"target_vocab={self.target_vocab}, whose size is known",
                "target_vocab_size",
            )
        cls = tokenizers.find(
            self.target_tokenizer, argument="target_tokenizer"
        )
        if self.target_vocab:
            lowercase = self.target_lowercase or None
            target = cls.from_vocab(self.target_vocab, lowercase=lowercase)
        else:
            target = self._learned(cls, examples)
        source = getattr(tokenizer, "source", tokenizer)
        return pair.PairTokenizer(source, target.with_frame())

    def _learned(self, cls, examples):
        """Learns a target vocabulary with the tokenizer `cls`."""

        def texts():
            return (example["target"] for example in examples())

        lowercase = self.target_lowercase
        if self.target_vocab_size:
            return cls.learn(
                texts(), self.target_vocab_size, lowercase=lowercase
            )
        return cls.learn_up_to(texts, TARGET_VOCAB_SIZE, lowercase=lowercase)

    def vocabulary_texts(self, example: base.Example) -> Iterable[str]:
        """Returns the source, and the target if it shares the vocabulary."""
        texts = [example["text"]]
        return texts if self.target_tokenizer else [*texts, example["target"]]

    def for_device(self) -> base.Task:
        if self.is_windowed:
            raise errors.InputError(
                "truncation=windows reads several rows of a text, and a file "
                "for a device has one; export a copy that reads the first: "
                'load(..., settings={"truncation": "head"}).save(...).',
                argument="truncation",
            )
        return super().for_device()

    # Texts to features.

    @property
    def is_windowed(self) -> bool:
        return self.truncation == "windows"

    @property
    def stored_features(self) -> dict[str, str | None]:
        return {"padding_mask": base.TOKENS} if self.is_windowed else {}

    @property
    def max_row_length(self) -> int:
        return self.seq_length * (self.num_windows if self.is_windowed else 1)

    def preprocess(
        self, raw: base.Tensors, tokenizer: tokenizers.Tokenizer
    ) -> base.Tensors:
        """Packs each source into a row, as `truncation` says.

        Rows of several windows number them by padding_mask.
        """
        ids = tokenizer(raw["text"])
        capacity = tokenizer.frame.capacity(self.seq_length)
        if self.is_windowed:
            return self._windows(ids, capacity, tokenizer)
        truncated = ids.row_lengths() > capacity
        if self.truncation == "head_tail":
            ids = _head_and_tail(ids, capacity)
        rows = packing.pack([ids], tokenizer.frame, seq_length=self.seq_length)
        return rows | {"truncated": truncated}

    def _windows(self, ids, capacity, tokenizer):
        length = ids.row_lengths()
        counts = tf.clip_by_value(
            (length + capacity - 1) // capacity, 1, self.num_windows
        )
        example_index = tf.repeat(tf.range(tf.size(length)), counts)
        number = tf.ragged.range(counts).values
        begin = ids.row_starts() + 0
        begin = tf.gather(begin, example_index) + number * capacity
        end = tf.gather(ids.row_limits(), example_index)
        stop = tf.minimum(begin + capacity, end)
        windows = tf.gather(ids.values, tf.ragged.range(begin, stop))
        rows = packing.pack(
            [windows], tokenizer.frame, seq_length=self.seq_length
        )
        joined = numbered_texts.join(
            rows | {"example_index": example_index},
            tf.cast(number, tf.int32) + 1,
            feature=tokenizer.feature,
            num_examples=tf.size(length),
        )
        return joined | {"truncated": length > capacity * self.num_windows}

    def make_targets(
        self,
        raw: base.Tensors,
        features: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Targets:
        """Returns the tokens of the targets and their end, (T, G).

        A target that is too long is truncated and has no end.
        """
        self.require_adapted()
        ids = tokenizer.target(raw["target"])
        count = ids.nrows()
        ends = tf.fill([count, 1], tf.constant(self.end_id, ids.dtype))
        ids = tf.concat([ids, ends], axis=1)[:, : self.max_target_length]
        weights = tf.ones_like(ids.values, tf.float32)
        return {TERM: (ids.to_tensor(), ids.with_values(weights).to_tensor())}

    def num_truncated(self, targets: base.Targets) -> int:
        """Returns how many targets are truncated: those without an end."""
        labels, _ = targets[TERM]
        return int(tf.reduce_sum(1 - _has(labels, self.end_id)))

    @property
    def separates_texts(self) -> bool:
        return self.is_windowed

    def add_derived_features(self, features: base.Tensors) -> base.Tensors:
        if not self.is_windowed:
            return features
        index = numbered_texts.text_index(
            features["padding_mask"],
            num_texts=self.num_windows,
            max_length=self.seq_length,
        )
        return features | {numbered_texts.INDEX: index}

    def encoder_rows(
        self, features: base.Tensors, inputs: Iterable[str]
    ) -> base.Tensors:
        if not self.is_windowed:
            return features
        return numbered_texts.separate(features, inputs)

    def read_source(
        self,
        encoder: keras.Model,
        features: base.Tensors,
        training: bool | None,
    ) -> decoders.Source:
        """Runs the encoder; windows of a text become one sequence of states."""
        rows = self.encoder_rows(features, encoder.config.inputs)
        encoded = networks.encode(encoder, rows, training=training)
        states, mask = encoded["hidden"][-1], rows["padding_mask"] > 0
        vector = encoded["pooled"]
        if self.is_windowed:
            width = encoder.config.hidden_size
            is_window = tf.cast(tf.reduce_any(mask, axis=1), vector.dtype)
            length = self.num_windows * tf.shape(mask)[1]
            states = tf.reshape(states, (-1, length, width))
            mask = tf.reshape(mask, (-1, length))
            shape = (-1, self.num_windows, width)
            total = tf.reduce_sum(
                tf.reshape(vector * is_window[:, tf.newaxis], shape), axis=1
            )
            count = tf.reshape(is_window, shape[:2])
            vector = total / tf.maximum(
                tf.reduce_sum(count, axis=1, keepdims=True), 1.0
            )
        return decoders.Source(states, mask, vector)

    def metrics(
        self, predictions: base.Answers, examples: Sequence[base.Example]
    ) -> dict[str, float]:
        return metrics_lib.score(
            [answer["text"] for answer in predictions],
            [text_pairs.references(example) for example in examples],
        )

    def tables(
        self, predictions: base.Answers, examples: Sequence[base.Example]
    ) -> dict[str, base.Table]:
        """Returns the metrics by the length of the source."""
        names, values = metrics_lib.by_length(
            [example["text"] for example in examples],
            [answer["text"] for answer in predictions],
            [text_pairs.references(example) for example in examples],
        )
        columns = metrics_lib.LENGTH_COLUMNS
        return {"source_length": base.Table(names, columns, values)}

    def baselines(self, examples: Sequence[base.Example]) -> dict[str, float]:
        """Returns BLEU, chrF and ROUGE-L of copying, and of the first sentence.

        One that hardly any model is below, and one that is hard to beat for
        summaries of news.
        """
        references = [text_pairs.references(example) for example in examples]
        texts = [example["text"] for example in examples]
        answers = {
            "copying the source": texts,
            "its first sentence": [metrics_lib.lead(text, 1) for text in texts],
        }
        if answers["its first sentence"] == texts:
            del answers["its first sentence"]
        return {
            f"{name} of {what}": value
            for what, texts in answers.items()
            for name, value in metrics_lib.score(texts, references).items()
            if name in ("bleu", "chrf", "rouge_l")
        }


def _head_and_tail(ids: tf.RaggedTensor, capacity: int) -> tf.RaggedTensor:
    """Keeps the first and the last half of longer rows; (T, None) int32."""
    length = ids.row_lengths()
    is_long = length > capacity
    head = tf.where(is_long, (capacity + 1) // 2, length)
    tail = tf.where(is_long, capacity // 2, tf.zeros_like(length))
    last = tf.gather(
        ids.values, tf.ragged.range(ids.row_limits() - tail, ids.row_limits())
    )
    return tf.concat([packing.first_tokens(ids, head), last], axis=1)


def _has(labels: tf.Tensor, token_id: int) -> tf.Tensor:
    """Returns 1 for each row (T, G) with the token, else 0: (T,) int32."""
    return tf.cast(tf.reduce_any(labels == token_id, axis=1), tf.int32)
