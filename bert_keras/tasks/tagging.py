"""Entities in a text: a tag for every word."""

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
    """Names of people and places, slots: each word's first piece -> C tags.

    A word is what the tokenizer looks up as one: it ends at white space, and
    punctuation marks and Chinese characters are words of their own. So words
    are the same in training and serving, whatever a file calls a word; of an
    entity that ends within one, as "iPho" in "iPhone", the whole is found.
    """

    seq_length: int = options.option(
        128,
        "Longest row in tokens, [CLS] and [SEP] included; a longer text is "
        "several rows.",
        least=4,
        most=base.MOST_TOKENS,
    )
    stride: int = options.option(
        64,
        "Tokens from the begin of one row of a long text to the next; the "
        "lower, the more they overlap.",
        least=1,
        most=base.MOST_TOKENS,
    )
    tag_column: int = options.option(
        conll.LAST,
        "Column of the tags in a file of several, counted from 0; -1 is the "
        "last.",
        least=conll.LAST,
    )
    metric_names: ClassVar[tuple[str, ...]] = ("f1", "precision", "recall")
    softmax_terms: ClassVar[tuple[str, ...]] = ("tag",)
    target_axes = {"tag": base.TOKENS}
    lists = {"type": "", "text": "", "start": -1, "end": -1, "score": 0.0}

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
                "tagging needs entities in the training file; every word of "
                "it has the tag O."
            )
        return self.with_settings(
            types=tuple(sorted(types)),
            # A first word that depends on the entity before is hard to learn.
            scheme="BIO" if scheme == "IOB1" else scheme,
        )

    def preprocess(
        self, raw: base.Tensors, tokenizer: tokenizers.Tokenizer
    ) -> base.Tensors:
        """Also "start" and "end" (W, S) int32: offsets of words in the text.

        In code points, at the first piece of each word, in the one row where
        the word counts; -1 elsewhere.
        """
        ids, starts, ends = tokenizer.with_offsets(raw["text"])
        size, example_index = tf.size(ids.values), ids.value_rowids()
        starts_word = tokenizer.word_starts(ids).values
        word = tf.cumsum(tf.cast(starts_word, tf.int32)) - 1
        word_ends = tf.math.unsorted_segment_max(ends.values, word, size)

        windows = packing.windows(
            ids.with_values(tf.range(size)),
            tokenizer.frame.room(self.seq_length),
            self.stride,
        )
        token, row = windows.ids.values, windows.ids.value_rowids()
        position = token - tf.cast(
            tf.gather(ids.row_starts(), tf.gather(example_index, token)),
            tf.int32,
        )
        counts = (
            tf.gather(starts_word, token)
            & (position >= tf.gather(windows.first, row))
            & (position < tf.gather(windows.last, row))
        )

        def at_word_starts(values):
            values = tf.where(counts, tf.gather(values, token), -1)
            return [windows.ids.with_values(values)]

        return packing.pack(
            [windows.ids.with_values(tf.gather(ids.values, token))],
            tokenizer.frame,
            seq_length=self.seq_length,
            facts={
                "start": at_word_starts(starts.values),
                "end": at_word_starts(tf.gather(word_ends, word)),
            },
            filler=-1,
        ) | {"example_index": windows.example_index}

    def make_targets(
        self,
        raw: base.Tensors,
        features: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Targets:
        """{"tag": (labels (W, S) int32, weights (W, S))}; not in a graph.

        A word is in an entity when it begins there.
        """
        tag_ids = {tag: number for number, tag in enumerate(self.labels)}
        start, example_index = (
            features["start"].numpy(),
            features["example_index"].numpy(),
        )
        labels = np.zeros(start.shape, np.int32)
        splits = np.searchsorted(example_index, np.arange(len(raw["text"]) + 1))
        for number, (words, tags) in enumerate(_columns(raw)):
            rows = slice(splits[number], splits[number + 1])
            counts = start[rows] >= 0
            begins = start[rows][counts]
            entities = []
            for entity_type, first, last in tag_schemes.spans(tags):
                if entity_type not in self.types:
                    raise errors.InputError(
                        f"entities of type {entity_type!r} do not occur in the "
                        f"training file, whose types are {list(self.types)}."
                    )
                ends = words[first][0], words[last - 1][1]
                entities.append((entity_type, *np.searchsorted(begins, ends)))
            tags = tag_schemes.tags(
                [entity for entity in entities if entity[1] < entity[2]],
                len(begins),
                self.scheme,
            )
            labels[rows][counts] = [tag_ids[tag] for tag in tags]
        weights = tf.constant(start >= 0, tf.float32)
        return {"tag": (tf.constant(labels), weights)}

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
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
        """{"tag": (B, S, C) float32 logits}."""
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
        """{"tag" (W, S) int32, "score" (W, S)}: 0 at padding."""
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
        """{"type", "text" (T, M) string, "start", "end" (T, M), "score"}.

        The entities of each text, of at most M, in order; past the last "",
        -1 and 0. text[start:end] in code points, of the text without bytes
        that are not UTF-8. `score` is the mean probability of its words' tags.
        """
        del tokenizer
        # In order of texts and of words: each word counts in one row.
        word = tf.where(features["start"] >= 0)
        example_index = tf.gather(features["example_index"], word[:, 0])
        tag = tf.gather_nd(decoded["tag"], word)
        opens, entity = self._entities(example_index, tag)
        first = tf.where(opens)[:, 0]
        count = tf.size(first)

        def of_words(name, values):
            return tf.boolean_mask(tf.gather_nd(values[name], word), tag > 0)

        start = tf.gather(tf.gather_nd(features["start"], word), first)
        end = tf.math.unsorted_segment_max(
            of_words("end", features), entity, count
        )
        score = tf.math.unsorted_segment_mean(
            of_words("score", decoded), entity, count
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
            ).to_tensor(Tagging.lists[name])
            for name, value in values.items()
        }

    def _entities(self, example_index, tag):
        """The words that open an entity, and the entity of each word in one.

        example_index, tag (N,): of all words, in order -> (N,) bool and (M,)
        int32, of the M words whose tag is not O.

            word     Ada    Byron  met  Ada    |  Byron  slept
            tag      B-PER  I-PER  O    B-PER  |  I-PER  O
            opens    yes    no     no   yes    |  yes    no
            entity   0      0           1      |  2

        After the bar is another text: what opens there continues nothing.
        """
        same_text = tf.equal(example_index[1:], example_index[:-1])
        before = tf.pad(tf.where(same_text, tag[:-1], 0), [[1, 0]])
        before = before[: tf.size(tag)]  # without words there is none before
        continues = tf.gather_nd(
            tf.constant(self._continues()), tf.stack([before, tag], axis=1)
        )
        opens = tf.logical_and(tag > 0, tf.logical_not(continues))
        number = tf.cumsum(tf.cast(opens, tf.int32)) - 1
        return opens, tf.boolean_mask(number, tag > 0)

    def to_python(self, answer: dict[str, Any]) -> dict[str, Any]:
        count = sum(map(bool, answer["type"]))
        return answer | {
            name: answer[name][:count]
            for name in ("type", "text", "start", "end", "score")
        }

    def metrics(
        self, predictions: base.Answers, examples: Sequence[base.Example]
    ) -> dict[str, float]:
        """Over entities, whose ends are counted in the words of the file.

        An entity that was found holds the words that begin in it.
        """
        return tag_schemes.entity_metrics(*self._spans(predictions, examples))

    def tables(
        self, predictions: base.Answers, examples: Sequence[base.Example]
    ) -> dict[str, base.Table]:
        """The same of each type alone; how many there are, and were given."""
        predicted, gold = self._spans(predictions, examples)
        values = []
        for entity_type in self.types:
            predicted_of_type, gold_of_type = (
                [
                    [span for span in spans if span[0] == entity_type]
                    for spans in side
                ]
                for side in (predicted, gold)
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
        columns = ("precision", "recall", "f1", "entities", "answers")
        return {"types": base.Table(self.types, columns, np.array(values))}

    def _spans(self, predictions, examples):
        """The entities of each answer, and those of each row."""
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
        """The entities of an answer, counted in the words of its row."""
        starts = [start for start, _ in conll.word_offsets(example["words"])]
        spans = (
            (entity_type, *np.searchsorted(starts, (start, end)).tolist())
            for entity_type, start, end in zip(
                answer["type"], answer["start"], answer["end"], strict=True
            )
        )
        return [span for span in spans if span[1] < span[2]]

    def to_dict(self) -> dict[str, Any]:
        # An earlier run continues: its records are known by these settings.
        values = super().to_dict()
        if self.tag_column == conll.LAST:
            del values["tag_column"]
        return values

    def _continues(self) -> list[list[bool]]:
        """(C, C): whether a word of the second tag goes on with the first."""
        return [
            [tag_schemes.continues(before, tag) for tag in self.labels]
            for before in self.labels
        ]


def _substrings(texts, index, start, end):
    """texts (T,); index, start, end (N,) -> texts[index][start:end] (N,).

    In code points. Not substr, which would read and copy the text each time.
    """
    chars = tf.strings.unicode_split(texts, "UTF-8", errors="ignore")
    origin = tf.cast(tf.gather(chars.row_starts(), index), tf.int32)
    spans = tf.ragged.range(origin + start, origin + end)
    spans = spans.with_values(tf.gather(chars.values, spans.values))
    return tf.strings.reduce_join(spans, axis=-1)


def _columns(raw):
    """The places of the words and the tags of each row."""
    for words, tags in zip(
        raw["words"].numpy(), raw["tags"].numpy(), strict=True
    ):
        yield conll.word_offsets(words.decode()), conll.tags(tags.decode())
