"""Joint intent classification and slot filling."""

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from bert_keras import errors, options
from bert_keras import heads as heads_lib
from bert_keras.data import conll, labels, tag_schemes, text_lines
from bert_keras.networks import base as networks
from bert_keras.tasks import base, tagging
from bert_keras.tokenizers import base as tokenizers


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class IntentSlots(tagging.Tagging):
    """Predicts a class (intent) for the text and a tag (slot) for every word.

    One encoder has two heads and two loss terms (Chen et al. 2019, "BERT for
    joint intent classification and slot filling").
    """

    metric_names = (
        "frame_accuracy",
        "intent_accuracy",
        *tagging.Tagging.metric_names,
    )
    softmax_terms = (*tagging.Tagging.softmax_terms, "intent")

    # Set by `adapt`, from the training data.
    intents: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        options.require_distinct("intents", self.intents)

    @property
    def head_signatures(self) -> dict[str, Any]:
        return super().head_signatures | {"intent": self.intents}

    def read_examples(self, path: str) -> Iterator[base.Example]:
        """Reads a folder with seq.in, seq.out and label: one text per line."""
        if self.tag_column != conll.LAST:
            raise errors.InputError(
                f"tag_column={self.tag_column}: expected no value, because the "
                "tags are in their own file, seq.out."
            )
        names = ("seq.in", "seq.out", "label")
        files = [os.path.join(path, name) for name in names]
        missing = [name for name in files if not tf.io.gfile.exists(name)]
        if missing:
            raise errors.InputError(
                f"{path}: expected a folder with {', '.join(names)}, one text "
                f"per line; missing: {', '.join(missing)}."
            )
        lines: list[list[Any]] = [
            list(map(_words, _lines(name))) for name in files[:2]
        ]
        lines.append([labels.strip(line) for line in _lines(files[2])])
        if len(set(map(len, lines))) > 1:
            counts = [
                f"{len(n)} in {f}" for n, f in zip(lines, files, strict=True)
            ]
            raise errors.InputError(
                "expected the same number of lines in each file, found "
                f"{', '.join(counts)}."
            )
        if not lines[0]:
            raise errors.InputError(
                f"{path}: expected one text per line of {', '.join(names)}; "
                "the files are empty."
            )
        for number, (words, tags, label) in enumerate(
            zip(*lines, strict=True), 1
        ):
            if len(words) != len(tags) or len(label.split()) != 1:
                raise errors.InputError(
                    f"{path}, line {number}: expected a tag for each word and "
                    f"one label, found {len(words)} words, {len(tags)} tags "
                    f"and {len(label.split())} labels."
                )
            for tag in tags:
                if not tag_schemes.is_tag(tag):
                    raise errors.InputError(
                        f"{files[1]}, line {number}: expected a tag such as O "
                        f"or B-city, found {tag!r}."
                    )
            tags = list(map(tag_schemes.normal, tags))
            try:
                label = labels.parse_label(label)
            except ValueError as problem:
                raise errors.InputError(
                    f"{files[2]}, line {number}: {problem}."
                ) from None
            yield conll.example(words, tags, " ") | {"label": label}

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        intents = set()

        def with_intents_added():
            for example in examples:
                intents.add(labels.strip(example["label"]))
                yield example

        task = super().adapt(with_intents_added(), tokenizer)
        return task.with_settings(intents=tuple(sorted(intents)))

    def make_example(self, raw: base.Example, label: Any) -> base.Example:
        """Returns an example; label: the intent, and the tags of the words.

        For example ("play", "O B-artist I-artist"); the tags as in Tagging.
        """
        if not isinstance(label, (list, tuple)) or len(label) != 2:
            raise ValueError(
                f"expected a pair of an intent and tags, found {label!r}"
            )
        intent, tags = label
        example = super().make_example(raw, tags)
        return {**example, "label": labels.parse_label(intent)}

    def make_targets(
        self,
        raw: base.Tensors,
        features: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Targets:
        """Also returns {"intent": (labels (W,) int32, weights (W,))}.

        The weight is 1 for the first row of each text and 0 for others.
        """
        intent_index = {
            intent: index for index, intent in enumerate(self.intents)
        }
        names = [labels.strip(label.decode()) for label in raw["label"].numpy()]
        for name in names:
            if name not in intent_index:
                raise errors.InputError(
                    f"intent {name!r} does not occur in the training file, "
                    f"whose intents are {errors.listed(self.intents)}."
                )
        intents = tf.constant([intent_index[name] for name in names], tf.int32)
        example_index = features["example_index"]
        is_first = tf.concat(
            [[True], example_index[1:] != example_index[:-1]], axis=0
        )
        weights = tf.cast(is_first[: tf.size(example_index)], tf.float32)
        return super().make_targets(raw, features, tokenizer) | {
            "intent": (tf.gather(intents, example_index), weights)
        }

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        base.require_labels("intents", self.intents)
        count = len(self.intents)
        return super().build_heads(config) | {
            "intent": heads_lib.ClassificationHead(config, count)
        }

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: base.Heads,
        features: base.Tensors,
        *,
        training: bool | None,
    ) -> base.Tensors:
        """Also returns {"intent": (B, C) float32 logits}, from "pooled"."""
        mask = features["padding_mask"]
        return super().outputs(encoded, heads, features, training=training) | {
            "intent": heads["intent"](encoded, mask, training=training)
        }

    def loss(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> base.Tensors:
        intents, weights = targets["intent"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            intents, outputs["intent"]
        )
        return super().loss(outputs, features, targets) | {
            "intent": tf.reduce_sum(losses * weights)
        }

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        """Also returns {"intents" (W, C)}, the probabilities."""
        return super().decode(outputs, features) | {
            "intents": tf.nn.softmax(outputs["intent"], axis=-1)
        }

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Also returns {"intent" (T,) string, "intent_score" (T,)}."""
        text_index = tf.range(tf.size(raw["text"]))
        first_row = tf.searchsorted(features["example_index"], text_index)
        scores = tf.gather(decoded["intents"], first_row)
        best = tf.argmax(scores, axis=-1, output_type=tf.int32)
        return super().postprocess(decoded, features, raw, tokenizer) | {
            "intent": tf.gather(tf.constant(self.intents), best),
            "intent_score": tf.reduce_max(scores, axis=-1),
        }

    def metrics(
        self, predictions: base.Answers, examples: Sequence[base.Example]
    ) -> dict[str, float]:
        """Adds the accuracy of intents, and of intent and slots (frame)."""
        pairs = list(zip(predictions, examples, strict=True))
        correct_intents = [
            answer["intent"] == labels.strip(example["label"])
            for answer, example in pairs
        ]
        correct_slots = [
            sorted(predicted) == sorted(gold)
            for predicted, gold in zip(
                *self._spans(predictions, examples), strict=True
            )
        ]
        count = max(1, len(pairs))
        correct_frames = [
            intent and slots
            for intent, slots in zip(
                correct_intents, correct_slots, strict=True
            )
        ]
        return super().metrics(predictions, examples) | {
            "intent_accuracy": sum(correct_intents) / count,
            "frame_accuracy": sum(correct_frames) / count,
        }

    def unseen(self, example: base.Example) -> Sequence[str]:
        intent = labels.strip(example["label"])
        return [
            *[intent] * (intent not in self.intents),
            *super().unseen(example),
        ]


def _lines(path: str) -> Iterator[str]:
    for number, line in enumerate(text_lines.read(path), 1):
        try:
            yield text_lines.decode(line)
        except ValueError as problem:
            raise errors.InputError(
                f"{path}, line {number}: {problem}. "
                f"{text_lines.how_to_convert(path)}"
            ) from None


def _words(line: str) -> list[str]:
    """Splits at spaces and tabs; a no-break space is part of a word."""
    return [word for word in re.split("[ \t\r]+", line) if word]
