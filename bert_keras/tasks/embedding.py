"""Text embeddings: unit vectors whose cosine is the similarity of the texts."""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, options
from bert_keras import heads as heads_lib
from bert_keras.data import labelled_files, labels, packing
from bert_keras.data import negatives as negatives_lib
from bert_keras.metrics import classification, ranking
from bert_keras.networks import base as networks
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers

_COMPARED = "compared"  # feature (B, B): the negatives that a row has drawn
# Options that settings leave out if they have their default.
_LATER = ("layers", "pooling", "normalize", "negatives", "temperature")


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class Embedding(base.Task):
    """A vector of each text: by default the mean of its last hidden states.

    `layers` and `pooling` choose other states, and `normalize` scales the
    vector to length 1. It needs no head, so any encoder answers without
    training.

    It is trained on pairs of texts with a similarity label: the target of the
    cosine is the label divided by the highest label (Reimers & Gurevych 2019,
    section 3, regression objective). Both texts of a pair are packed into one
    row, so that shuffling keeps them together. They do not attend to each
    other, so each has the same embedding as alone.

    With `negatives` it is trained to search: on pairs that belong together, of
    which the second text has to be found among those of other rows. These are
    drawn from the batch, so that each text is encoded once.
    """

    pipeline_tag = "sentence-similarity"
    scores_negatives = True

    seq_length: int = options.option(
        128,
        "Maximum row length in tokens; each text of a pair gets half of it, "
        "and longer texts are truncated.",
        minimum=6,
        maximum=base.MAX_TOKENS,
    )
    columns: str = options.option(
        "",
        "Columns of the files to read, as "
        "text=NAME,text_pair=NAME,label=NAME; for a file without a header, "
        "column indices from 0. Empty: common names are recognised.",
    )
    layers: str = options.option(
        "-1",
        "Indices of the layers whose mean is taken, with commas between; 0 is "
        "the embeddings, -1 the last one.",
    )
    pooling: str = options.option(
        "mean",
        "How the states of a text's tokens become one vector: mean, max, or "
        "first, that of [CLS].",
        choices=("mean", "max", "first"),
    )
    normalize: bool = options.option(
        True, "Scale vectors to length 1; their product is the cosine then."
    )
    negatives: int = options.option(
        0,
        "Learn to find the second text of a pair: the number of other rows' "
        "second texts that each row draws from its batch to compare its own "
        "with, all if there are fewer. 0: learn labels as cosines.",
        minimum=0,
        maximum=1 << 20,
    )
    temperature: float = options.option(
        0.05,
        "Divisor of the cosines in the softmax over the second texts.",
        minimum=1e-3,
        maximum=1e3,
    )

    # Set by `adapt`, from the training data.
    pair: bool = False  # whether a second text is read
    highest: float = 1.0  # the highest label

    def __post_init__(self) -> None:
        columns = labelled_files.format_columns(self.columns)
        object.__setattr__(self, "columns", columns)
        if self.pooling not in _POOLS:
            raise errors.InputError(
                f"pooling={self.pooling}: expected {', '.join(_POOLS)}.",
                argument="pooling",
            )
        if self.temperature != type(self).temperature and not self.negatives:
            raise errors.InputError(
                f"temperature={self.temperature:g} has no effect without "
                "`negatives`; leave it out or give both.",
                argument="temperature",
            )
        if not re.fullmatch(r"-?\d+(,-?\d+)*", self.layers):
            raise errors.InputError(
                f"layers={self.layers!r}: expected indices with commas "
                "between, such as -1 or 0,1,2.",
                argument="layers",
            )

    @property
    def metric_names(self) -> tuple[str, ...]:
        if self.negatives:
            return ("mrr", "accuracy_at_1")
        return ("spearman", "pearson")

    @property
    def reads_batch(self) -> bool:
        return self.negatives > 0

    @property
    def reads_targets(self) -> bool:
        return self.negatives > 0  # `randomize` draws by the targets

    @property
    def indices(self) -> list[int]:
        """The indices of `layers`."""
        return [int(part) for part in self.layers.split(",")]

    @property
    def text_columns(self) -> tuple[str, ...]:
        return ("text", "text_pair") if self.pair else ("text",)

    @property
    def stored_features(self) -> dict[str, str | None]:
        # Stored, because the two packed texts of a row have different values.
        return {"padding_mask": base.TOKENS} if self.pair else {}

    @property
    def num_positions(self) -> int:
        return self.seq_length // len(self.text_columns)

    def to_dict(self) -> dict[str, Any]:
        return options.without_defaults(super().to_dict(), self, _LATER)

    def read_examples(self, path: str) -> Iterator[base.Example]:
        return labelled_files.read(
            path,
            columns=labelled_files.parse_columns(
                self.columns, labelled_files.COMMON_COLUMNS
            ),
            needed=("text", "text_pair") + ("label",) * (not self.negatives),
            label=labels.parse_number,
        )

    def vocabulary_texts(self, example: base.Example) -> Iterable[str]:
        names = ("text", "text_pair")
        return [example[name] for name in names if name in example]

    def adapt(
        self, examples: Iterable[base.Example], tokenizer: tokenizers.Tokenizer
    ) -> base.Task:
        del tokenizer
        if self.negatives:
            _require_matches(examples)
            return self.with_settings(pair=True)
        highest, (lowest, row) = -np.inf, (np.inf, 0)
        for index, example in enumerate(examples):
            label = _parse_label(example, index)
            highest = max(highest, label)
            lowest, row = min((lowest, row), (label, index))
        if highest == -np.inf:
            return self.with_settings(pair=True)
        if highest < np.finfo(np.float32).tiny:
            raise errors.InputError(
                "expected labels from 0, for unrelated texts, to a positive "
                f"maximum; the highest label is {highest}."
            )
        if lowest < -highest:
            raise errors.InputError(
                f"row {row}: expected a label from {-highest:g} to "
                f"{highest:g}, because a label divided by the highest one is "
                f"the target of a cosine; found {lowest:g}."
            )
        return self.with_settings(pair=True, highest=highest)

    def make_example(self, raw: base.Example, label: Any) -> base.Example:
        """Returns an example; label: the similarity of its pair, a number.

        With `negatives` the pair belongs together, and has no label: None.
        """
        if self.negatives:
            if label is not None:
                raise ValueError(f"expected no label, found {label!r}")
            return raw
        return {**raw, "label": labels.parse_number(label)}

    def for_device(self) -> base.Task:
        """Returns the task of embedding one text of at most half a row.

        The caller compares the embeddings.
        """
        return self.with_settings(pair=False, seq_length=self.num_positions)

    def preprocess(
        self, raw: base.Tensors, tokenizer: tokenizers.Tokenizer
    ) -> base.Tensors:
        """Packs the texts into one row; padding_mask is 1 and 2 on them."""
        return packing.pack_separately(
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
        del features, tokenizer
        if self.negatives:
            # Numbers by which `randomize` knows equal texts.
            texts = tf.stack([raw["text"], raw["text_pair"]], axis=1)
            numbers = tf.strings.to_hash_bucket_fast(texts, 2**31 - 1)
            numbers = tf.cast(numbers, tf.int32)
            return {"search": (numbers, tf.ones(tf.shape(numbers)[:1]))}
        cosines = labels.parse_numbers(raw["label"]) / self.highest
        return {"similarity": (cosines, tf.ones_like(cosines))}

    def randomize(
        self, features: base.Tensors, targets: base.Targets, seeds: tf.Tensor
    ) -> tuple[base.Tensors, base.Targets]:
        """Draws the rows whose second texts each row's own is compared with.

        Not those with an equal first or second text, which may be right.
        """
        if not self.negatives:
            return features, targets
        numbers, weights = targets["search"]  # (B, 2), (B,)
        differs = numbers[:, tf.newaxis] != numbers[tf.newaxis]  # (B, B, 2)
        is_negative = tf.reduce_all(differs, axis=-1) & (weights > 0)
        drawn = negatives_lib.other_rows(is_negative, seeds, self.negatives)
        return features | {_COMPARED: tf.cast(drawn, tf.int32)}, targets

    def add_derived_features(self, features: base.Tensors) -> base.Tensors:
        """Adds position_ids (B, S), which start at 0 in each text of a row."""
        positions = packing.position_ids(
            features["padding_mask"], len(self.text_columns)
        )
        return features | {"position_ids": positions}

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        count = config.num_layers + 1
        if not all(-count <= index < count for index in self.indices):
            raise errors.InputError(
                f"layers={self.layers}: the network has the layers 0 to "
                f"{count - 1}.",
                argument="layers",
            )
        return {}

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: base.Heads,
        features: base.Tensors,
        *,
        training: bool | None,
    ) -> base.Tensors:
        """Returns {"embedding": (B, H)}; for pairs also "embedding_pair"."""
        mask = features["padding_mask"]
        states = [
            tf.cast(encoded["hidden"][index], tf.float32)
            for index in self.indices
        ]
        hidden = tf.add_n(states) / len(states) if states[1:] else states[0]
        pool = _POOLS[self.pooling]
        scale = _unit if self.normalize else tf.identity
        return {
            name.replace("text", "embedding"): scale(pool(hidden, mask, number))
            for number, name in enumerate(self.text_columns, 1)
        }

    def loss(
        self,
        outputs: base.Tensors,
        features: base.Tensors,
        targets: base.Targets,
    ) -> base.Tensors:
        if self.negatives:
            _, weights = targets["search"]
            losses = self._search_losses(outputs, features[_COMPARED])
            return {"search": tf.reduce_sum(losses * weights)}
        cosines, weights = targets["similarity"]
        losses = tf.square(_cosine(outputs) - cosines)
        return {"similarity": tf.reduce_sum(losses * weights)}

    def _search_losses(self, outputs, compared):
        """Cross entropy of the own second text among the compared ones: (B,).

        One softmax over 1 + K cosines. The draws are not corrected by their
        expected counts: the texts of a batch are a sample of all texts in any
        case, and a constant changes nothing.
        """
        first, second = outputs["embedding"], outputs["embedding_pair"]
        scores = tf.matmul(_unit(first), _unit(second), transpose_b=True)
        scores /= self.temperature  # (B, B)
        own = tf.linalg.diag_part(scores)
        is_candidate = tf.linalg.set_diag(
            compared > 0, tf.ones(tf.shape(own), tf.bool)
        )
        scores = tf.where(is_candidate, scores, heads_lib.ABSENT_SCORE)
        return tf.reduce_logsumexp(scores, axis=-1) - own

    def decode(
        self, outputs: base.Tensors, features: base.Tensors
    ) -> base.Tensors:
        if not self.pair:
            return dict(outputs)
        return outputs | {"similarity": _cosine(outputs)}

    def postprocess(
        self,
        decoded: base.Tensors,
        features: base.Tensors,
        raw: base.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> base.Tensors:
        """Returns {"embedding" (T, H)}.

        For pairs also "embedding_pair" (T, H) and "similarity" (T,), the cosine
        of the two.
        """
        del features, raw, tokenizer
        return decoded

    def metrics(
        self, predictions: base.Answers, examples: Sequence[base.Example]
    ) -> dict[str, float]:
        """Computes the correlations of cosines and labels.

        With `negatives` those of a search for each row's second text among
        all different second texts of the examples, by the cosine.
        """
        if self.negatives:
            return _search_metrics(predictions, examples)
        gold = [
            _parse_label(example, index)
            for index, example in enumerate(examples)
        ]
        cosines = [answer["similarity"] for answer in predictions]
        return classification.correlations(gold, cosines)


def _search_metrics(
    predictions: base.Answers, examples: Sequence[base.Example]
) -> dict[str, float]:
    index_of: dict[str, int] = {}
    vectors: list[Sequence[float]] = []
    own = []
    right: dict[str, set[int]] = {}
    for answer, example in zip(predictions, examples, strict=True):
        index = index_of.setdefault(example["text_pair"], len(index_of))
        if index == len(vectors):
            vectors.append(answer["embedding_pair"])
        own.append(index)
        right.setdefault(example["text"], set()).add(index)
    ranks = ranking.ranks(
        np.array([answer["embedding"] for answer in predictions]),
        np.array(vectors),
        own,
        [right[example["text"]] for example in examples],
    )
    return ranking.retrieval(ranks)


def _require_matches(examples: Iterable[base.Example]) -> None:
    """Raises InputError for labels by which not all pairs belong together.

    Also if all pairs have the same first or second text, so that no row has
    another one to be compared with.
    """
    expected = None
    constant: dict[str, str] = {}
    for index, example in enumerate(examples):
        texts = {name: example[name] for name in ("text", "text_pair")}
        constant = dict(constant.items() & texts.items()) if index else texts
        if "label" not in example:
            continue
        label = _parse_label(example, index)
        expected = label if expected is None else expected
        if label != expected or label <= 0:
            raise errors.InputError(
                f"row {index}: expected a pair that belongs together, because "
                "`negatives` draws those that do not, and so no label or the "
                f"same one in all rows, found {label:g}; remove the rows of "
                "other pairs, or leave `negatives` out to learn the labels.",
                argument="negatives",
            )
    for name, text in constant.items():
        raise errors.InputError(
            f"negatives: expected rows that differ in {name}, found "
            f"{text[:40]!r} in all of them: no row has another one to be "
            "compared with.",
            argument="negatives",
        )


def _max(hidden, mask, number):
    """Returns the maximum over a text's tokens; 0 in rows without the text."""
    is_text = (mask == number)[:, :, tf.newaxis]
    most = tf.reduce_max(tf.where(is_text, hidden, hidden.dtype.min), axis=1)
    return tf.where(tf.reduce_any(is_text, axis=1), most, 0.0)


def _first(hidden, mask, number):
    """Returns the state of a text's first token; 0 in rows without the text."""
    is_text = mask == number
    is_first = is_text & (
        tf.cumsum(tf.cast(is_text, tf.int32), axis=1, exclusive=True) == 0
    )
    return tf.reduce_sum(
        tf.where(is_first[:, :, tf.newaxis], hidden, 0.0), axis=1
    )


_POOLS = {"mean": heads_lib.pool, "max": _max, "first": _first}


def _unit(vectors):
    """Scales vectors (B, H) to length 1; zeros, of padding rows, stay zeros.

    Keras' normalize has no finite gradient at zero under XLA.
    """
    squares = keras.ops.sum(vectors * vectors, axis=-1, keepdims=True)
    return vectors * keras.ops.rsqrt(keras.ops.maximum(squares, 1e-12))


def _cosine(outputs):
    first, second = outputs["embedding"], outputs["embedding_pair"]
    return tf.reduce_sum(_unit(first) * _unit(second), -1)


def _parse_label(example: base.Example, index: int) -> float:
    try:
        return float(labels.parse_number(example["label"]))
    except ValueError as problem:
        raise errors.InputError(f"row {index}: {problem}.") from None
