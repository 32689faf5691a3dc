"""Classification of a text or a pair: one class, several, or a number."""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, options
from bert_keras import heads as heads_lib
from bert_keras.data import (
    labelled_files,
    negatives,
    numbered_texts,
    packing,
)
from bert_keras.data import labels as labels_lib
from bert_keras.metrics import classification
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

_CANDIDATES = "candidates"  # feature (B, 1 + K): the own class, then K others
_SAMPLED = "label/sampled"  # the output of a step with these
# Options that settings leave out if they have their default.
_LATER = ("pair_order", "negatives", "negatives_distribution", "counts")
# With more labels, tables have those that occur, and none is a matrix of them.
_MAX_TABLE = 1000


def _problem_type_of_kind(kind: str) -> dict[str, str]:
    """Translates the former option `kind`: single, multi or number."""
    names = {each.name: name for name, each in PROBLEM_TYPES.items()}
    known = isinstance(kind, str) and kind in names
    return {"problem_type": names[kind] if known else kind}


@keras.saving.register_keras_serializable("bert_keras")
@options.with_former_names
@dataclasses.dataclass(frozen=True)
class Classification(base.Task):
    """Classification or regression of a pooled text or pair of texts.

    For example sentiment, topic, paraphrase, entailment or similarity. The
    label is one of C classes, any number of C classes, or a number.
    """

    pipeline_tag = "text-classification"

    columns: str = options.option(
        "",
        "Columns of the files to read, as "
        "text=NAME,text_pair=NAME,label=NAME; for a file without a header, "
        "column indices from 0. Empty: common names are recognised.",
    )
    on_bad_row: str = options.option(
        "fail",
        "What to do with a malformed row: fail stops; skip leaves it out and "
        "counts it.",
        choices=("fail", "skip"),
    )
    skip_labels: str = options.option(
        "",
        "Comma-separated labels whose rows are left out; with "
        "problem_type=multi_label, each row that has one of them.",
    )
    problem_type: str = options.option(
        "single_label",
        "Type of the labels: single_label = one class; multi_label = any "
        "number of classes, separated by commas; regression = a number.",
        choices=("single_label", "multi_label", "regression"),
        formerly=("kind",),
        translate=_problem_type_of_kind,
    )
    class_weights: bool = options.option(
        False,
        "Weight rows by the inverse frequency of their class, for imbalanced "
        "labels.",
    )
    pooling: str = options.option(
        "first",
        "Pooling of the hidden states to one vector: the [CLS] through the "
        "pooler, the last token, mean or max of the tokens, the [CLS] of the "
        "last four layers, two LSTMs, or all tokens side by side with zeros up "
        "to seq_length (concat).",
        choices=heads_lib.POOLINGS,
    )
    pair_order: str = options.option(
        "one",
        "Orders in which a pair is read: one = as given; both = also "
        "exchanged, and the two vectors are added, so that the order does not "
        "change the answer (for similarity). Takes twice as long.",
        choices=("one", "both"),
    )
    negatives: int = options.option(
        0,
        "While training, the number of other labels that each row draws to "
        "compare its own with; 0: all labels, which is exact, and slow for "
        "very many. Evaluations are always exact.",
        minimum=0,
        maximum=1 << 20,
    )
    negatives_distribution: str = options.option(
        "uniform",
        "How these labels are drawn: uniform = all alike; frequency = as often "
        "as they occur in the training file.",
        choices=("uniform", "frequency"),
    )
    # Set by `adapt`, from the training data.
    labels: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()  # rows per class, if draws need them
    weights: tuple[float, ...] = ()  # per class; empty: all are 1
    pair: bool = False  # whether there is a second text

    def __post_init__(self) -> None:
        columns = labelled_files.format_columns(self.columns)
        object.__setattr__(self, "columns", columns)
        options.require_distinct("labels", self.labels)
        if self.weights and len(self.weights) != len(self.labels):
            raise errors.InputError(
                f"expected a weight for each of {len(self.labels)} labels, "
                f"found {len(self.weights)}."
            )
        if self.negatives and self.problem_type != "single_label":
            raise errors.InputError(
                f"negatives={self.negatives}: expected "
                "problem_type=single_label, whose loss is one softmax over the "
                f"labels, found {self.problem_type}; leave `negatives` out.",
                argument="negatives",
            )
        if self.draws_by_frequency and not self.negatives:
            raise errors.InputError(
                "negatives_distribution=frequency has no effect without "
                "`negatives`; leave one out or give both.",
                argument="negatives_distribution",
            )
        needs_counts = self.draws_labels and self.draws_by_frequency
        if needs_counts and len(self.counts) != len(self.labels):
            raise errors.InputError(
                "negatives_distribution=frequency: expected the number of rows "
                f"of each of {len(self.labels)} labels in `counts`, found "
                f"{len(self.counts)}; call the task's `adapt` with the "
                "training examples.",
                argument="negatives_distribution",
            )

    @property
    def draws_labels(self) -> bool:
        """Whether a training step draws labels: not if it would draw all."""
        return 0 < self.negatives < len(self.labels) - 1

    @property
    def draws_by_frequency(self) -> bool:
        return self.negatives_distribution == "frequency"

    @property
    def reads_targets(self) -> bool:
        return self.draws_labels

    @property
    def text_columns(self) -> tuple[str, ...]:
        return ("text", "text_pair") if self.pair else ("text",)

    @property
    def softmax_terms(self) -> tuple[str, ...]:
        if self.negatives:
            return ()
        return ("label",) if self.problem_type == "single_label" else ()

    @property
    def head_signatures(self) -> dict[str, Any]:
        signature = [list(self.labels), self._problem_type.name, self.pooling]
        if self.reads_both_orders:
            signature.append("both orders")
        return {"label": signature}

    @property
    def reads_both_orders(self) -> bool:
        return self.pair and self.pair_order == "both"

    @property
    def stored_features(self) -> dict[str, str | None]:
        # Stored, because the two packed texts of a row have different values.
        return {"padding_mask": base.TOKENS} if self.reads_both_orders else {}

    @property
    def max_row_length(self) -> int:
        return self.seq_length * (2 if self.reads_both_orders else 1)

    @property
    def head_length(self) -> int | None:
        return self.seq_length if self.pooling == "concat" else None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.labels  # () for regression

    @property
    def metric_names(self) -> tuple[str, ...]:
        return self._problem_type.metric_names

    @property
    def _problem_type(self) -> "ProblemType":
        return PROBLEM_TYPES[self.problem_type]

    def to_dict(self) -> dict[str, Any]:
        return options.without_defaults(super().to_dict(), self, _LATER)

    def former_dict(self) -> dict[str, Any] | None:
        def renamed(name, value):
            if name != "problem_type":
                return name, value
            return "kind", self._problem_type.name

        return dict(renamed(*item) for item in self.to_dict().items())

    def for_serving(self) -> base.Task:
        """Returns the task without draws, which only training has."""
        return self.with_settings(
            negatives=0, negatives_distribution="uniform", counts=()
        )

    def read_examples(self, path: str) -> Iterator[base.Example]:
        labels = labels_lib.Skipped(
            self.skip_labels,
            key=self._problem_type.key,
            names_of=self._problem_type.label_names,
            classes_of=lambda example: self._problem_type.split(
                example["label"]
            ),
        )
        return labelled_files.read(
            path,
            columns=labelled_files.parse_columns(
                self.columns, labelled_files.COMMON_COLUMNS
            ),
            needed=(*self.text_columns, "label"),
            on_bad_row=self.on_bad_row,
            label=self._problem_type.read,
        ).where(labels.keeps, labels.warning)

    def vocabulary_texts(self, example: base.Example) -> Iterable[str]:
        names = ("text", "text_pair")
        return [example[name] for name in names if name in example]

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        del tokenizer
        counts: dict[str, int] = {}
        pair = False
        for number, example in enumerate(examples):
            try:
                names = self._problem_type.split(example["label"])
            except ValueError as problem:
                raise errors.InputError(f"row {number}: {problem}.") from None
            for label in names:
                counts[label] = counts.get(label, 0) + 1
            pair = pair or "text_pair" in example
        labels = tuple(sorted(counts))
        self._problem_type.check(labels)
        if self.pair_order == "both" and not pair:
            raise errors.InputError(
                "pair_order=both: expected pairs of texts in the training "
                "file, found single texts; leave it out, or name the second "
                "column as text_pair in `columns`.",
                argument="pair_order",
            )
        weights = ()
        if self.class_weights and self.problem_type == "single_label":
            # The mean weight over the rows is 1, as without class weights.
            total = sum(counts.values())
            weights = tuple(
                total / (len(labels) * counts[label]) for label in labels
            )
        rows: tuple[int, ...] = ()
        if self.negatives and self.draws_by_frequency:
            rows = tuple(counts[label] for label in labels)
        return self.with_settings(
            labels=labels, counts=rows, weights=weights, pair=pair
        )

    def make_example(self, raw: base.Example, label: Any) -> base.Example:
        """Returns an example; label: as in a JSON lines file.

        A string; for multi_label a list of strings, for regression a number.
        """
        return {**raw, "label": self._problem_type.read(label)}

    def preprocess(
        self, raw: base.Tensors, tokenizer: tokenizers.Tokenizer
    ) -> base.Tensors:
        pack = packing.pack
        if self.reads_both_orders:
            pack = numbered_texts.both_orders
        return pack(
            [tokenizer(raw[name]) for name in self.text_columns],
            tokenizer.frame,
            seq_length=self.seq_length,
        )

    def for_device(self) -> base.Task:
        if self.reads_both_orders:
            raise errors.InputError(
                "pair_order=both: a TFLite file reads one text per row, and "
                "this model two; export it as a SavedModel, or train with "
                "pair_order=one."
            )
        return self

    def make_targets(
        self,
        raw: base.Tensors,
        features: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Targets:
        del features, tokenizer
        labels = self._problem_type.labels(raw["label"], self.labels)
        weights = tf.ones(tf.shape(labels)[:1])
        if self.weights:
            weights = tf.gather(tf.constant(self.weights), labels)
        return {"label": (labels, weights)}

    def randomize(
        self, features: base.Tensors, targets: base.Targets, seeds: tf.Tensor
    ) -> tuple[base.Tensors, base.Targets]:
        """Draws the other labels of each row, if a step reads only some."""
        if not self.draws_labels:
            return features, targets
        own, _ = targets["label"]
        drawn = negatives.other_classes(
            own, seeds, self.negatives, self._frequencies()
        )
        candidates = tf.concat([own[:, tf.newaxis], drawn], axis=1)
        return features | {_CANDIDATES: candidates}, targets

    def _frequencies(self) -> Sequence[int] | np.ndarray:
        if self.draws_by_frequency:
            return self.counts
        return np.ones(len(self.labels), np.int64)

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        size = self._problem_type.size(self.labels)
        if not size:
            base.require_labels("labels", self.labels)
        head = heads_lib.ClassificationHead(
            config,
            size,
            self.pooling,
            num_texts=2 if self.reads_both_orders else 1,
            seq_length=self.head_length,
        )
        return {"label": head}

    @property
    def separates_texts(self) -> bool:
        return self.reads_both_orders

    def add_derived_features(self, features: base.Tensors) -> base.Tensors:
        """Adds the index of each text's tokens, if a row has both orders."""
        if not self.reads_both_orders:
            return features
        index = numbered_texts.text_index(
            features["padding_mask"], num_texts=2, max_length=self.seq_length
        )
        return features | {numbered_texts.INDEX: index}

    def encoder_rows(
        self, features: base.Tensors, inputs: Iterable[str]
    ) -> base.Tensors:
        if not self.reads_both_orders:
            return features
        return numbered_texts.separate(features, inputs)

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
        """Returns {"label": (B, C) float32 logits}.

        In a training step that draws labels {"label/sampled": (B, 1 + K)}: of
        the row's own label and of K others.
        """
        mask = features["padding_mask"]
        if training and _CANDIDATES in features:
            classes = features[_CANDIDATES]
            logits = heads["label"](
                encoded, mask, classes=classes, training=training
            )
            return {_SAMPLED: logits}
        return {"label": heads["label"](encoded, mask, training=training)}

    def loss(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> base.Tensors:
        labels, weights = targets["label"]
        if _SAMPLED in outputs:
            losses = self._sampled_losses(
                outputs[_SAMPLED], features[_CANDIDATES]
            )
        else:
            losses = self._problem_type.losses(outputs["label"], labels)
        return {"label": tf.reduce_sum(losses * weights)}

    def _sampled_losses(self, logits, candidates):
        """Cross entropy of the own labels, estimated from drawn ones: (B,).

        The softmax's sum over all labels is the own label's exponential and
        those of the drawn ones, each divided by how often it is expected in
        the draws (Bengio & Senecal 2008, importance sampling; Jean et al.
        2015, section 3.1).
        """
        expected = negatives.log_expected_counts(
            candidates, self._frequencies()
        )
        logits -= expected
        return tf.reduce_logsumexp(logits, axis=-1) - logits[:, 0]

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        return {"scores": self._problem_type.decode(outputs["label"])}

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns the answers, by problem type.

        single_label, multi_label: {"label" (T,) string, "score" (T,), "scores"
          (T, C)}; regression: {"value" (T,)}.

        The columns of "scores" are the task's labels, in their order. For
        single_label, "score" is the probability of the class. For multi_label,
        "label" joins the classes by commas and "score" is the probability of
        the least probable of them; if there is none, that of having none.
        """
        del features, raw, tokenizer
        return self._problem_type.predict(decoded["scores"], self.labels)

    def metrics(
        self, predictions: base.Answers, examples: Sequence[base.Example]
    ) -> dict[str, float]:
        return self._problem_type.metrics(predictions, examples, self.labels)

    def tables(
        self, predictions: base.Answers, examples: Sequence[base.Example]
    ) -> dict[str, base.Table]:
        return self._problem_type.tables(predictions, examples, self.labels)

    def unseen(self, example: base.Example) -> Sequence[str]:
        names = self._problem_type.split(example["label"])
        return [label for label in names if label not in self.labels]


class SingleLabel:
    """The problem type of exactly one class per row: softmax cross entropy."""

    name = "single"  # in the head_signatures of checkpoints
    metric_names = ("accuracy", "f1_macro", "mcc")
    read = staticmethod(labels_lib.parse_label)  # parses the label column

    key = staticmethod(str)  # maps a label to what labels are compared by

    def split(self, label: str) -> list[str]:
        return [labels_lib.parse_label(label)]

    def label_names(self, example: base.Example) -> list[str]:
        return self.split(example["label"])

    def check(self, labels: Collection[str]) -> None:
        if len(labels) < 2:
            raise errors.InputError(
                "classification needs at least two labels in the training "
                f"file; found {sorted(labels)}. Check `columns`."
            )

    def size(self, labels: Sequence[str]) -> int:
        return len(labels)

    def labels(self, label: tf.Tensor, labels: Sequence[str]) -> tf.Tensor:
        """Converts labels (T,) string -> (T,) int32; not in a graph."""
        class_index = {name: index for index, name in enumerate(labels)}
        classes = [names[0] for names in _split_labels(self, label)]
        _check_known(classes, class_index)
        return tf.constant([class_index[name] for name in classes], tf.int32)

    def losses(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)

    def decode(self, logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(logits, axis=-1)

    def predict(self, scores: tf.Tensor, labels: Sequence[str]) -> base.Tensors:
        best = tf.argmax(scores, axis=-1, output_type=tf.int32)
        return {
            "label": tf.gather(tf.constant(labels), best),
            "score": tf.reduce_max(scores, axis=-1),
            "scores": scores,
        }

    def _compared(self, predictions, examples, labels):
        """Returns the gold and the predicted labels, and all there are."""
        gold = [self.split(example["label"])[0] for example in examples]
        predicted = [answer["label"] for answer in predictions]
        if len(labels) > _MAX_TABLE:
            return gold, predicted, sorted({*predicted, *gold})
        # An evaluated row may have a class that training data did not have.
        return gold, predicted, sorted({*labels, *gold})

    def metrics(
        self,
        predictions: base.Answers,
        examples: Sequence[base.Example],
        labels: Sequence[str],
    ) -> dict[str, float]:
        return classification.single_label(
            classification.class_counts(
                *self._compared(predictions, examples, labels)
            )
        )

    def tables(
        self,
        predictions: base.Answers,
        examples: Sequence[base.Example],
        labels: Sequence[str],
    ) -> dict[str, base.Table]:
        compared = self._compared(predictions, examples, labels)
        classes = classification.per_class(
            classification.class_counts(*compared)
        )
        tables = {
            "classes": base.Table(compared[2], classification.COLUMNS, classes)
        }
        if len(labels) <= _MAX_TABLE:
            counts = classification.confusion(*compared)
            tables["confusion"] = base.Table(compared[2], compared[2], counts)
        return tables


class MultiLabel:
    """The problem type of any number of classes per row: a sigmoid each.

    The label joins the classes by commas.
    """

    name = "multi"
    metric_names = ("f1_micro", "f1_macro", "accuracy")
    read = staticmethod(labels_lib.parse_labels)

    key = staticmethod(str)

    def split(self, label: str) -> list[str]:
        return [
            name for name in labels_lib.parse_labels(label).split(",") if name
        ]

    def label_names(self, example: base.Example) -> list[str]:
        return self.split(example["label"])

    def check(self, labels: Collection[str]) -> None:
        if not labels:
            raise errors.InputError(
                "expected rows with labels in the training file, found none."
            )

    def size(self, labels: Sequence[str]) -> int:
        return len(labels)

    def labels(self, label: tf.Tensor, labels: Sequence[str]) -> tf.Tensor:
        """Converts labels (T,) string -> (T, C) float32; not in a graph.

        1 for the classes of the row, 0 for others.
        """
        classes = _split_labels(self, label)
        _check_known([name for names in classes for name in names], labels)
        targets = [
            [name in names for name in labels] for names in map(set, classes)
        ]
        return tf.constant(
            np.array(targets, np.float32).reshape(-1, len(labels))
        )

    def losses(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
        return tf.reduce_mean(losses, axis=-1)

    def decode(self, logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.sigmoid(logits)

    def predict(self, scores: tf.Tensor, labels: Sequence[str]) -> base.Tensors:
        is_predicted = scores > 0.5
        # Put a comma before each name; the first comma is removed below.
        names = tf.where(
            is_predicted, tf.constant([f",{name}" for name in labels]), ""
        )
        joined = tf.strings.reduce_join(names, axis=-1)
        lowest = tf.reduce_min(tf.where(is_predicted, scores, 1.0), axis=-1)
        none_score = 1.0 - tf.reduce_max(scores, axis=-1)
        return {
            "label": tf.strings.regex_replace(joined, "^,", ""),
            "score": tf.where(
                tf.reduce_any(is_predicted, axis=-1), lowest, none_score
            ),
            "scores": scores,
        }

    def _sets(self, examples):
        return [set(self.split(example["label"])) for example in examples]

    def metrics(
        self,
        predictions: base.Answers,
        examples: Sequence[base.Example],
        labels: Sequence[str],
    ) -> dict[str, float]:
        return classification.multi_label(
            self._sets(examples), self._sets(predictions), labels
        )

    def tables(
        self,
        predictions: base.Answers,
        examples: Sequence[base.Example],
        labels: Sequence[str],
    ) -> dict[str, base.Table]:
        values = classification.per_class_multi_label(
            self._sets(examples), self._sets(predictions), labels
        )
        table = base.Table(labels, classification.COLUMNS, values)
        return {"classes": table}


class Regression:
    """The problem type of a number per row (STS-B): squared error."""

    name = "number"
    metric_names = ("spearman", "pearson", "mean_squared_error")
    read = staticmethod(labels_lib.parse_number)

    def key(self, label: str) -> float:
        return float(labels_lib.parse_number(label))

    def split(self, label: str) -> list[str]:
        labels_lib.parse_number(label)
        return []

    def label_names(self, example: base.Example) -> list[str]:
        return [example["label"]]

    def check(self, labels: Collection[str]) -> None:
        pass

    def size(self, labels: Sequence[str]) -> int:
        return 1

    def labels(self, label: tf.Tensor, labels: Sequence[str]) -> tf.Tensor:
        """Converts labels (T,) string -> (T,) float32; not in a graph."""
        return labels_lib.parse_numbers(label)

    def losses(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return tf.square(logits[:, 0] - labels)

    def decode(self, logits: tf.Tensor) -> tf.Tensor:
        return logits

    def predict(self, scores: tf.Tensor, labels: Sequence[str]) -> base.Tensors:
        return {"value": scores[:, 0]}

    def metrics(
        self,
        predictions: base.Answers,
        examples: Sequence[base.Example],
        labels: Sequence[str],
    ) -> dict[str, float]:
        gold = [
            float(labels_lib.parse_number(example["label"]))
            for example in examples
        ]
        values = [answer["value"] for answer in predictions]
        return classification.regression(gold, values)

    def tables(
        self,
        predictions: base.Answers,
        examples: Sequence[base.Example],
        labels: Sequence[str],
    ) -> dict[str, base.Table]:
        return {}


ProblemType = SingleLabel | MultiLabel | Regression

PROBLEM_TYPES: Mapping[str, ProblemType] = {
    "single_label": SingleLabel(),
    "multi_label": MultiLabel(),
    "regression": Regression(),
}


def _split_labels(
    problem_type: ProblemType, label: tf.Tensor
) -> list[list[str]]:
    """Splits labels (T,) string into the classes of each row."""
    classes = []
    for number, text in enumerate(label.numpy()):
        try:
            classes.append(problem_type.split(text.decode()))
        except ValueError as problem:
            raise errors.InputError(f"row {number}: {problem}.") from None
    return classes


def _check_known(names, labels):
    """Raises InputError for a label that the training file does not have."""
    for label in names:
        if label not in labels:
            raise errors.InputError(
                f"label {label!r} does not occur in the training file, whose "
                f"labels are {errors.listed(labels)}."
            )
