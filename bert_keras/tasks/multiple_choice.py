"""Multiple choice: which of 2 to K texts fits a context and a question."""

import dataclasses
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, options
from bert_keras import heads as heads_lib
from bert_keras.data import (
    choice_files,
    labelled_files,
    numbered_texts,
    packing,
)
from bert_keras.data import labels as labels_lib
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

LETTERS = string.ascii_uppercase


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class MultipleChoice(base.Task):
    """Scores each choice with its context; one softmax over the choices.

    The score of a choice is a linear function of the text's vector (Devlin et
    al. 2019, section 4.4: a dot product with the pooled [CLS]; Radford et al.
    2018, section 3.3: of the last token). So a model can answer examples with
    any number of choices. A choice is absent if its text is empty or white
    space; it gets the probability 0.

    In training, the choices of an example are one row of the records
    (`numbered_texts`): shuffling, replicas and accumulation keep them
    together, and the network still reads each choice alone. A model that is
    served reads a row per choice, so that `seq_length` is the same number in
    both: the tokens of a choice with its context.
    """

    pipeline_tag = "multiple-choice"

    seq_length: int = options.option(
        128,
        "Maximum length of a choice with its context and question, in tokens, "
        "special ones included. The context is truncated first.",
        minimum=6,
        maximum=base.MAX_TOKENS,
    )
    columns: str = options.option(
        "",
        "Columns of the files to read, as context=NAME,question=NAME,"
        "choices=NAME,label=NAME, with a column per choice as "
        "choice_a=NAME,choice_b=NAME; for a file without a header, column "
        "indices from 0. Empty: common names are recognised.",
    )
    label_format: str = options.option(
        "any",
        "How labels are written: index = number of the choice, from 0; letter "
        "= A for the first one; text = the choice itself; any = each of these.",
        choices=("any", "index", "letter", "text"),
    )
    question_with: str = options.option(
        "choice",
        "Segment of the question: choice = before the choice (BERT); context "
        "= after the context (GPT).",
        choices=("choice", "context"),
    )
    num_choices: int = options.option(
        0,
        "Maximum number of choices of an example; 0: that of the training "
        "data.",
        minimum=0,
        maximum=choice_files.MAX_CHOICES,
    )
    metric_names = ("accuracy",)
    softmax_terms = ("label",)
    head_signatures = {"choice": "score of a text as a choice"}

    # Whether a row has all choices of an example, as training needs it.
    joined: bool = True

    def __post_init__(self) -> None:
        columns = labelled_files.format_columns(self.columns)
        object.__setattr__(self, "columns", columns)

    @property
    def choice_columns(self) -> tuple[str, ...]:
        return choice_files.CHOICES[: self.num_choices]

    @property
    def text_columns(self) -> tuple[str, ...]:
        return ("context", "question", *self.choice_columns)

    @property
    def stored_features(self) -> dict[str, str | None]:
        return {"padding_mask": base.TOKENS} if self.joined else {}

    @property
    def max_row_length(self) -> int:
        count = max(self.num_choices, 1) if self.joined else 1
        return self.seq_length * count

    # Examples.

    def read_examples(self, path: str) -> Iterator[base.Example]:
        return choice_files.read(
            path,
            columns=self.columns,
            label_format=self.label_format,
            num_choices=self.num_choices,
        )

    def read_texts(self, path: str) -> Iterator[base.Example]:
        return choice_files.read_texts(
            path, columns=self.columns, num_choices=self.num_choices
        )

    def text_row(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the text columns; the row may have a list of `choices`."""
        return choice_files.padded(choice_files.text_row(row), self.num_choices)

    def make_example(self, raw: base.Example, label: Any) -> base.Example:
        """Returns an example; label: an index, a letter or a choice's text."""
        example = choice_files.example(raw, label, self.label_format)
        return choice_files.padded(example, self.num_choices)

    def vocabulary_texts(self, example: base.Example) -> Iterable[str]:
        names = ("context", "question", *choice_files.CHOICES)
        return [example[name] for name in names if name in example]

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        del tokenizer
        largest = max(
            (
                sum(name in example for name in choice_files.CHOICES)
                for example in examples
            ),
            default=2,
        )
        return self.with_settings(
            num_choices=self.num_choices or largest, joined=True
        )

    def for_serving(self) -> base.Task:
        """Returns the task with a row per choice; it answers the same."""
        return self.with_settings(joined=False)

    def for_device(self) -> base.Task:
        """Returns the task whose rows have one choice, to be called for each.

        The app takes the choice with the largest logit.
        """
        return self.for_serving()

    # Texts to features.

    def preprocess(
        self, raw: base.Tensors, tokenizer: tokenizers.Tokenizer
    ) -> base.Tensors:
        """Packs each choice with its context and question.

        The first segment is the context, or the question if there is no
        context; the second is the question and the choice.

        Also returns "choice_index" (W,), which stays on the host, unless
        `joined`.
        """
        pairs = self._present(raw)
        example_index, choice_index = tf.unstack(pairs, axis=1)
        choices = tf.stack([raw[name] for name in self.choice_columns], axis=1)
        segments, truncated = self._segments(
            tf.gather(tokenizer(raw["context"]), example_index),
            tf.gather(tokenizer(raw["question"]), example_index),
            tokenizer(tf.gather_nd(choices, pairs)),
            tokenizer.frame.capacity(self.seq_length, segments=2),
        )
        rows = packing.pack(
            segments, tokenizer.frame, seq_length=self.seq_length
        )
        rows |= {"example_index": example_index, "truncated": truncated}
        if not self.joined:
            return rows | {"choice_index": choice_index}
        return numbered_texts.join(
            rows,
            choice_index + 1,
            feature=tokenizer.feature,
            num_examples=tf.size(raw["context"]),
        )

    def _segments(
        self,
        context: tf.RaggedTensor,
        question: tf.RaggedTensor,
        choice: tf.RaggedTensor,
        capacity: int,
    ) -> tuple[list[tf.RaggedTensor], tf.Tensor]:
        """Returns the two segments of W texts, and which are truncated (W,).

        The choice is kept as far as it fits, then the question, then the
        context: without its end, a choice could equal another one.
        """
        room, kept = tf.cast(capacity, tf.int64), []
        for ids in (choice, question, context):
            count = tf.minimum(ids.row_lengths(), room)
            kept.append(packing.first_tokens(ids, count))
            room -= count
        length = tf.add_n(
            [ids.row_lengths() for ids in (choice, question, context)]
        )
        choice, question, context = kept
        before = context.row_lengths() == 0
        if self.question_with == "context":
            before = tf.ones_like(before)
        size = question.row_lengths()
        none = tf.zeros_like(size)
        first = packing.first_tokens(question, tf.where(before, size, none))
        second = packing.first_tokens(question, tf.where(before, none, size))
        segments = [
            tf.concat([context, first], axis=1),
            tf.concat([second, choice], axis=1),
        ]
        return segments, length > capacity

    def _present(self, raw: base.Tensors) -> tf.Tensor:
        """Returns (example, choice) of the choices with a text: (W, 2) int32.

        An example without any has its first choice, so that it has a row.
        """
        texts = [raw[name] for name in self.choice_columns]
        if not texts:
            raise errors.InputError(
                "the task has no choices; call its `adapt` with training "
                "examples first, or set num_choices.",
                argument="num_choices",
            )
        is_present = tf.stack(
            [~tf.strings.regex_full_match(t, labels_lib.BLANK) for t in texts],
            axis=1,
        )
        has_none = ~tf.reduce_any(is_present, axis=1, keepdims=True)
        rest = tf.zeros_like(is_present[:, 1:])
        is_present |= tf.concat([has_none, rest], axis=1)
        return tf.cast(tf.where(is_present), tf.int32)

    def make_targets(
        self,
        raw: base.Tensors,
        features: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Targets:
        """Returns {"label": the index of the right choice (T,) int32}."""
        del features, tokenizer
        if not self.joined:
            raise errors.InputError(
                f"{self.name}: this task has a row per choice, as it is "
                "served; call its `adapt`, or with_settings(joined=True), to "
                "train it."
            )
        labels = tf.strings.to_number(raw["label"], tf.int32)
        return {"label": (labels, tf.ones(tf.shape(labels)))}

    # The model.

    @property
    def separates_texts(self) -> bool:
        return self.joined

    def add_derived_features(self, features: base.Tensors) -> base.Tensors:
        """Adds the index of each choice's tokens, if they are in one row."""
        if not self.joined:
            return features
        index = numbered_texts.text_index(
            features["padding_mask"],
            num_texts=self.num_choices,
            max_length=self.seq_length,
        )
        return features | {numbered_texts.INDEX: index}

    def encoder_rows(
        self, features: base.Tensors, inputs: Iterable[str]
    ) -> base.Tensors:
        if not self.joined:
            return features
        return numbered_texts.separate(features, inputs)

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        return {"choice": heads_lib.ClassificationHead(config, 1)}

    def positions_read(self, features: base.Tensors) -> tf.Tensor | None:
        mask = features["padding_mask"]
        return heads_lib.positions_pooled("first", mask)

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: base.Heads,
        features: base.Tensors,
        *,
        training: bool | None,
    ) -> base.Tensors:
        """Returns {"label": logits}: (B, K), or (B, 1) for a choice a row.

        Absent choices have the logit ABSENT_SCORE.
        """
        mask = features["padding_mask"]
        logits = heads["choice"](encoded, mask, training=training)
        if not self.joined:
            return {"label": logits}
        shape = (-1, self.num_choices)
        is_present = tf.reshape(tf.reduce_any(mask > 0, axis=1), shape)
        logits = tf.reshape(logits, shape)
        return {"label": tf.where(is_present, logits, heads_lib.ABSENT_SCORE)}

    def loss(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> base.Tensors:
        labels, weights = targets["label"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels, outputs["label"]
        )
        return {"label": tf.reduce_sum(losses * weights)}

    # Answers.

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        return {"logits": outputs["label"]}

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns the answers (T, ...).

        "index" (T,) int32, the number of the choice, from 0; "label" (T,)
        string, its letter; "choice" (T,) string, its text; "score" (T,), its
        probability; "scores" (T, K), that of each choice, 0 if absent.
        """
        logits = decoded["logits"]
        if not self.joined:
            size = tf.size(raw["context"])
            pairs = tf.stack(
                [features["example_index"], features["choice_index"]], axis=1
            )
            logits = tf.tensor_scatter_nd_update(
                tf.fill([size, self.num_choices], heads_lib.ABSENT_SCORE),
                pairs,
                logits[:, 0],
            )
        scores = tf.nn.softmax(logits, axis=-1)
        index = tf.argmax(logits, axis=-1, output_type=tf.int32)
        choices = tf.stack([raw[name] for name in self.choice_columns], axis=1)
        return {
            "index": index,
            "label": tf.gather(tf.constant(list(LETTERS)), index),
            "choice": tf.gather(choices, index, batch_dims=1),
            "score": tf.reduce_max(scores, axis=-1),
            "scores": tf.ensure_shape(scores, (None, self.num_choices)),
        }

    def metrics(
        self, predictions: base.Answers, examples: Sequence[base.Example]
    ) -> dict[str, float]:
        is_right = [
            answer["index"] == int(example["label"])
            for answer, example in zip(predictions, examples, strict=True)
        ]
        return {"accuracy": float(np.mean(is_right))}

    def baselines(self, examples: Sequence[base.Example]) -> dict[str, float]:
        """Returns the accuracy of the most frequent letter and of chance."""
        counts = np.bincount(
            [int(example["label"]) for example in examples],
            minlength=self.num_choices,
        )
        chances = [
            1 / max(1, sum(bool(example[n]) for n in self.choice_columns))
            for example in examples
        ]
        letter = LETTERS[int(counts.argmax())]
        return {
            f"accuracy of always {letter!r}": counts.max() / len(examples),
            "accuracy of chance": float(np.mean(chances)),
        }
