"""Tagging: finds entities in a text by a tag for every word."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, options
from bert_keras import heads as heads_lib
from bert_keras.data import conll, packing, tag_schemes
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class Tagging(base.Task):
    """Classifies the first wordpiece of each word as one of C tags.

    For example named entities or slots. Words are the tokenizer's: they end at
    white space, and punctuation marks and Chinese characters are words of their
    own. So they are the same in training and serving, however a file splits its
    text. An entity that ends within a word, as "iPho" in "iPhone", is extended
    to the complete word.
    """

    pipeline_tag = "token-classification"

    seq_length: int = options.option(
        128,
        "Maximum row length in tokens, [CLS] and [SEP] included; longer texts "
        "are split into several rows.",
        minimum=4,
        maximum=base.MAX_TOKENS,
    )
    stride: int = options.option(
        64,
        "Stride of the windows of a long text: tokens between the starts of "
        "consecutive windows (not their overlap).",
        minimum=1,
        maximum=base.MAX_TOKENS,
    )
    tag_column: int = options.option(
        conll.LAST,
        "Index of the tag column, from 0; -1: the last.",
        minimum=conll.LAST,
    )
    metric_names: ClassVar[tuple[str, ...]] = ("f1", "precision", "recall")
    softmax_terms: ClassVar[tuple[str, ...]] = ("tag",)
    target_axes = {"tag": base.TOKENS}
    list_padding = {
        "type": "",
        "text": "",
        "start": -1,
        "end": -1,
        "score": 0.0,
    }

    # Set by `adapt`, from the training data.
    types: tuple[str, ...] = ()
    scheme: str = "BIO"

    def __post_init__(self) -> None:
        if self.scheme not in tag_schemes.PREFIXES:
            raise errors.InputError(
                f"scheme is {self.scheme!r}; expected one of "
                f"{', '.join(tag_schemes.PREFIXES)}."
            )
        options.require_distinct("types", self.types)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the C classes; "O" is the first."""
        prefixes = dict.fromkeys(tag_schemes.PREFIXES[self.scheme])
        return ("O", *(f"{p}-{t}" for t in self.types for p in prefixes))

    @property
    def head_signatures(self) -> dict[str, Any]:
        return {"tag": self.labels}

    def read_examples(self, path: str) -> Iterator[base.Example]:
        return conll.examples(path, self.tag_column)

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        del tokenizer
        types: set[str] = set()

        def sequences():
            for example in examples:
                tags = conll.tags(example["tags"])
                types.update(tag[2:] for tag in tags if tag != "O")
                yield tags

        scheme = tag_schemes.scheme(sequences())
        if not types:
            raise errors.InputError(
                "expected entities in the training file; every word has the "
                "tag O."
            )
        return self.with_settings(
            types=tuple(sorted(types)),
            # In IOB1 a first word's tag depends on the entity before it, which
            # is hard to learn.
            scheme="BIO" if scheme == "IOB1" else scheme,
        )

    def make_example(self, raw: base.Example, label: Any) -> base.Example:
        """Returns an example; label: the tags of its words, in order.

        They are a list, or a string with blanks between: "EU acts" has the tags
        "B-ORG O". Words end at white space. If there are as many tags as
        characters, each character is a word (Chinese).
        """
        words, blank = raw["text"].split(), " "
        tags = label.split() if isinstance(label, str) else label
        if not isinstance(tags, list):
            raise ValueError(f"expected tags, found {tags!r}")
        characters = list("".join(words))
        if len(tags) != len(words) and len(tags) == len(characters):
            words, blank = characters, ""
        if len(tags) != len(words) or not words:
            raise ValueError(
                f"expected a tag for each of {len(words)} words (or "
                f"{len(characters)} characters), found {len(tags)} tags"
            )
        for tag in tags:
            if not isinstance(tag, str) or not tag_schemes.is_tag(tag):
                raise ValueError(
                    f"expected a tag such as O or B-PER, found {tag!r}"
                )
        return conll.example(words, list(map(tag_schemes.normal, tags)), blank)

    def preprocess(
        self, raw: base.Tensors, tokenizer: tokenizers.Tokenizer
    ) -> base.Tensors:
        """Packs windows of the text; also returns the offsets of words.

        "start" and "end" (W, S) int32 are in code points, at the first
        wordpiece of each word and in only one of the windows that have it; -1
        elsewhere. "Ada Lovelace met" with seq_length 5 and stride 2:

            row 0   [CLS]  Ada     Love  ##lace  [SEP]
            start     -1     0        4      -1     -1
            end       -1     3       12      -1     -1
            row 1   [CLS]  ##lace   met  [SEP]
            start     -1      -1     13     -1      -1
            end       -1      -1     16     -1      -1
        """
        ids, starts, ends = tokenizer.with_offsets(raw["text"])
        # Not tf.size: a token may be several ids.
        num_tokens, example_index = tf.shape(ids.values)[0], ids.value_rowids()
        starts_word = tokenizer.word_starts(ids).values
        word_index = tf.cumsum(tf.cast(starts_word, tf.int32)) - 1
        word_ends = tf.math.unsorted_segment_max(
            ends.values, word_index, num_tokens
        )

        windows = packing.windows(
            ids.with_values(tf.range(num_tokens)),
            tokenizer.frame.capacity(self.seq_length),
            self.stride,
        )
        token, row = windows.values.values, windows.values.value_rowids()
        position = token - tf.cast(
            tf.gather(ids.row_starts(), tf.gather(example_index, token)),
            tf.int32,
        )
        is_counted = (
            tf.gather(starts_word, token)
            & (position >= tf.gather(windows.own_start, row))
            & (position < tf.gather(windows.own_stop, row))
        )

        def at_word_starts(values):
            values = tf.where(is_counted, tf.gather(values, token), -1)
            return [windows.values.with_values(values)]

        return packing.pack(
            [windows.values.with_values(tf.gather(ids.values, token))],
            tokenizer.frame,
            seq_length=self.seq_length,
            per_token={
                "start": at_word_starts(starts.values),
                "end": at_word_starts(tf.gather(word_ends, word_index)),
            },
            padding_value=-1,
        ) | {"example_index": windows.example_index}

    def make_targets(
        self,
        raw: base.Tensors,
        features: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Targets:
        """Returns {"tag": (labels (W, S) int32, weights (W, S))}.

        Not in a graph. A word belongs to an entity if its first character does.
        The weight is 1 where "start" is not -1.
        """
        tag_ids = {tag: index for index, tag in enumerate(self.labels)}
        start, example_index = (
            features["start"].numpy(),
            features["example_index"].numpy(),
        )
        labels = np.zeros(start.shape, np.int32)
        splits = np.searchsorted(example_index, np.arange(len(raw["text"]) + 1))
        for index, (words, tags) in enumerate(_words_and_tags(raw)):
            rows = slice(splits[index], splits[index + 1])
            is_counted = start[rows] >= 0
            word_starts = start[rows][is_counted]
            entities = []
            for entity_type, first, last in tag_schemes.spans(tags):
                if entity_type not in self.types:
                    raise errors.InputError(
                        f"entities of type {entity_type!r} do not occur in the "
                        f"training file, whose types are "
                        f"{errors.listed(self.types)}."
                    )
                # Convert offsets in the text to indices of tokenizer words.
                offsets = words[first][0], words[last - 1][1]
                entities.append(
                    (entity_type, *np.searchsorted(word_starts, offsets))
                )
            tags = tag_schemes.tags(
                [entity for entity in entities if entity[1] < entity[2]],
                len(word_starts),
                self.scheme,
            )
            labels[rows][is_counted] = [tag_ids[tag] for tag in tags]
        weights = tf.constant(start >= 0, tf.float32)
        return {"tag": (tf.constant(labels), weights)}

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        base.require_labels("types", self.types)
        count = len(self.labels)
        return {"tag": heads_lib.TokenClassificationHead(config, count)}

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: base.Heads,
        features: base.Tensors,
        *,
        training: bool | None,
    ) -> base.Tensors:
        """Returns {"tag": (B, S, C) float32 logits}."""
        return {"tag": heads["tag"](encoded["hidden"][-1], training=training)}

    def loss(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> base.Tensors:
        labels, weights = targets["tag"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels, outputs["tag"]
        )
        return {"tag": tf.reduce_sum(losses * weights)}

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        """Returns {"tag" (W, S) int32, "score" (W, S)}, 0 at padding."""
        scores = tf.nn.softmax(outputs["tag"], axis=-1)
        tag = tf.argmax(scores, axis=-1, output_type=tf.int32)
        mask = tf.minimum(features["padding_mask"], 1)
        return {
            "tag": tag * mask,
            "score": tf.reduce_max(scores, axis=-1) * tf.cast(mask, tf.float32),
        }

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns the entities of each text, in their order.

        {"type", "text" string, "start", "end" int32, "score" float32}, each
        (T, entities), padded with "", -1 and 0. "start" and "end" are offsets
        in code points, in the text without invalid UTF-8. "score" is the mean
        probability of the tags of the entity's words.
        """
        del tokenizer
        # Row and position of all words, in order: each one has a start in one
        # row only.
        words = tf.where(features["start"] >= 0)
        example_index = tf.gather(features["example_index"], words[:, 0])
        tag = tf.gather_nd(decoded["tag"], words)
        is_first, entity = self._entities(example_index, tag)
        first = tf.where(is_first)[:, 0]
        count = tf.size(first)

        def at_entity_words(values):
            return tf.boolean_mask(tf.gather_nd(values, words), tag > 0)

        start = tf.gather(tf.gather_nd(features["start"], words), first)
        end = tf.math.unsorted_segment_max(
            at_entity_words(features["end"]), entity, count
        )
        score = tf.math.unsorted_segment_mean(
            at_entity_words(decoded["score"]), entity, count
        )
        example_index = tf.gather(example_index, first)
        types = tf.constant([tag[2:] for tag in self.labels])
        values = {
            "type": tf.gather(types, tf.gather(tag, first)),
            "text": _substrings(raw["text"], example_index, start, end),
            "start": start,
            "end": end,
            "score": score,
        }
        return {
            name: tf.RaggedTensor.from_value_rowids(
                value,
                tf.cast(example_index, tf.int64),
                nrows=tf.size(raw["text"], tf.int64),
                validate=False,
            ).to_tensor(Tagging.list_padding[name])
            for name, value in values.items()
        }

    def _entities(self, example_index, tag):
        """Groups the words into entities.

        example_index, tag (words,): of all words, in order. Returns `is_first`
        (words,) bool: whether a word is the first of an entity; and `entity`
        int32: the index of the entity, for each word whose tag is not O.

            word     Ada    Byron  met  Ada    |  Byron  slept
            tag      B-PER  I-PER  O    B-PER  |  I-PER  O
            is_first yes    no     no   yes    |  yes    no
            entity   0      0           1      |  2

        After the bar is another text: its first word continues no entity.
        """
        same_text = tf.equal(example_index[1:], example_index[:-1])
        before = tf.pad(tf.where(same_text, tag[:-1], 0), [[1, 0]])
        before = before[: tf.size(tag)]  # an empty batch
        continues = tf.gather_nd(
            tf.constant(self._continuation_table()),
            tf.stack([before, tag], axis=1),
        )
        is_first = tf.logical_and(tag > 0, tf.logical_not(continues))
        number = tf.cumsum(tf.cast(is_first, tf.int32)) - 1
        return is_first, tf.boolean_mask(number, tag > 0)

    def to_python(self, answer: dict[str, Any]) -> dict[str, Any]:
        count = sum(map(bool, answer["type"]))
        return answer | {
            name: answer[name][:count]
            for name in ("type", "text", "start", "end", "score")
        }

    def metrics(
        self, predictions: base.Answers, examples: Sequence[base.Example]
    ) -> dict[str, float]:
        """Computes precision, recall and F1 of entities.

        Entities are compared by the file's words: a predicted entity consists
        of the words that begin in it.
        """
        return tag_schemes.entity_metrics(*self._spans(predictions, examples))

    def tables(
        self, predictions: base.Answers, examples: Sequence[base.Example]
    ) -> dict[str, base.Table]:
        """Returns `metrics` per type, with gold and predicted counts."""
        predicted, gold = self._spans(predictions, examples)
        values = []
        for entity_type in self.types:
            predicted_of_type, gold_of_type = (
                [
                    [span for span in spans if span[0] == entity_type]
                    for spans in texts
                ]
                for texts in (predicted, gold)
            )
            values.append(
                [
                    *tag_schemes.entity_metrics(
                        predicted_of_type, gold_of_type
                    ).values(),
                    sum(map(len, gold_of_type)),
                    sum(map(len, predicted_of_type)),
                ]
            )
        columns = ("precision", "recall", "f1", "gold", "predicted")
        return {"types": base.Table(self.types, columns, np.array(values))}

    def _spans(self, predictions, examples):
        """Returns the entities of each answer and those of each example."""
        pairs = list(zip(predictions, examples, strict=True))
        return (
            [self.spans(answer, example) for answer, example in pairs],
            [
                tag_schemes.spans(conll.tags(example["tags"]))
                for _, example in pairs
            ],
        )

    def unseen(self, example: base.Example) -> Sequence[str]:
        entities = tag_schemes.spans(conll.tags(example["tags"]))
        return [
            entity_type
            for entity_type, _, _ in entities
            if entity_type not in self.types
        ]

    def spans(
        self, answer: Mapping[str, Any], example: base.Example
    ) -> list[tag_schemes.Entity]:
        """Returns an answer's entities, as indices of its example's words."""
        starts = [start for start, _ in conll.word_offsets(example["words"])]
        spans = (
            (entity_type, *np.searchsorted(starts, (start, end)).tolist())
            for entity_type, start, end in zip(
                answer["type"], answer["start"], answer["end"], strict=True
            )
        )
        return [span for span in spans if span[1] < span[2]]

    def to_dict(self) -> dict[str, Any]:
        # Leave out the default: runs that are older than this option must have
        # equal settings to be resumed.
        values = super().to_dict()
        if self.tag_column == conll.LAST:
            del values["tag_column"]
        return values

    def _continuation_table(self) -> list[list[bool]]:
        """Returns (C, C): whether tag j continues the entity of tag i."""
        return [
            [tag_schemes.continues(before, tag) for tag in self.labels]
            for before in self.labels
        ]


def _substrings(texts, index, start, end):
    """Returns texts[index][start:end], in code points.

    texts (T,); index, start, end and the result: one value per entity. It does
    not use tf.strings.substr, which would scan the whole text for each.
    """
    chars = tf.strings.unicode_split(texts, "UTF-8", errors="ignore")
    origin = tf.cast(tf.gather(chars.row_starts(), index), tf.int32)
    spans = tf.ragged.range(origin + start, origin + end)
    spans = spans.with_values(tf.gather(chars.values, spans.values))
    return tf.strings.reduce_join(spans, axis=-1)


def _words_and_tags(raw):
    """Yields the words' offsets and the tags of each row."""
    for words, tags in zip(
        raw["words"].numpy(), raw["tags"].numpy(), strict=True
    ):
        yield conll.word_offsets(words.decode()), conll.tags(tags.decode())
