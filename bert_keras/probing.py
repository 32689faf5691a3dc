"""What the layers of a frozen encoder know: a linear probe of each.

A probe is logistic regression on the hidden states of one layer. A control task
(Hewitt and Liang 2019, section 2) measures how much of its accuracy the probe
learned by itself: its labels are drawn at random, but are equal for equal words
(tagging) or texts (classification).
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bert_keras import (
    console,
    errors,
    evaluation,
    heads,
    labelled_examples,
    length_batching,
    loading,
    logistic_regression,
    options,
    predictor,
    token_vectors,
)
from bert_keras.data import labelled_files
from bert_keras.metrics import classification as classification_metrics
from bert_keras.networks import base as networks
from bert_keras.tasks import base, classification, tagging
from bert_keras.types import StrPath

TASKS = ("tagging", "classification")
# Strengths of L2, of which the best one on held-out rows is taken.
L2 = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)
_HELD_OUT = 10  # every tenth text
_MAX_TEXTS = 64  # of a batch: all layers of it are in memory twice


@dataclasses.dataclass(frozen=True)
class LayerProbe:
    """The probe of one layer, on rows that it was not fitted to.

    layer: 0 is the embeddings. control: the accuracy on the control task.
    """

    layer: int
    accuracy: float
    f1_macro: float
    control: float
    l2: float

    @property
    def selectivity(self) -> float:
        """accuracy - control."""
        return self.accuracy - self.control


@dataclasses.dataclass(frozen=True)
class Probes:
    """The probes of all layers.

    majority: the accuracy of always `majority_label`, the most frequent label
      of the training rows.
    num_train, num_dev: rows of the probes: words, or texts.
    """

    layers: tuple[LayerProbe, ...]
    labels: tuple[str, ...]
    majority: float
    majority_label: str
    num_train: int
    num_dev: int

    def rows(self) -> list[dict[str, Any]]:
        """Returns a dict for each layer, as probe.jsonl has them."""
        return [
            {
                "layer": each.layer,
                "accuracy": each.accuracy,
                "f1_macro": each.f1_macro,
                "control": each.control,
                "selectivity": each.selectivity,
                "l2": each.l2,
                "majority": self.majority,
            }
            for each in self.layers
        ]


class Rows(NamedTuple):
    """What a probe reads: n words or texts.

    vectors: for each of the L + 1 layers (n, H) float32.
    labels (n,) int32: indices of the task's labels.
    types: bytes, equal for equal words or texts, as the tokenizer reads them.
    text (n,) int32: the index of the text that the row is of.
    truncated: how many texts were truncated.
    """

    vectors: list[np.ndarray]
    labels: np.ndarray
    types: list[bytes]
    text: np.ndarray
    truncated: int


def probe(
    checkpoint: StrPath | predictor.Predictor,
    train: StrPath,
    dev: StrPath,
    *,
    task: base.Task | str,
    columns: labelled_files.Columns = "",
    batch_size: int = 32,
    seed: int = 1,
) -> Probes:
    """Fits a linear probe to each layer of a checkpoint; returns all of them.

    The encoder is frozen. Its hidden states are computed once and kept in
    memory: 4 bytes x rows x width x (layers + 1). For tagging a row is a word,
    with the hidden states of its first token; for classification a text or a
    pair, with their mean over the tokens.

    Args:
      checkpoint: a run or a folder of another format, or a Predictor.
      train, dev: labelled files as for fine-tuning, to fit and to measure on.
      task: "tagging" or "classification", or such a task with its settings.
      columns: the columns of the files, for classification.
      batch_size: texts that the encoder reads together, at most 64.
      seed: of the labels of the control task.

    Raises InputError for another task, for a file without rows, and for
    weights that give NaN.

    >>> from bert_keras import probing
    >>> probes = probing.probe(
    ...     "runs/base", "train.tsv", "dev.tsv", task="classification")
    >>> [each.layer for each in probes.layers]
    [0, 1, 2]
    """
    options.require_whole(batch_size=batch_size, seed=seed)
    task = _task(task)
    model = checkpoint
    if not isinstance(model, predictor.Predictor):
        reader = token_vectors.TokenVectors(seq_length=task.seq_length)
        model = predictor.load(model, task=reader)
    loading.check_length(task, model.model.encoder.config)
    examples = [
        labelled_examples.from_file(task, path, columns=columns)[0]
        for path in (train, dev)
    ]
    for path, each in zip((train, dev), examples, strict=True):
        if len(each) < 2:
            raise errors.InputError(
                f"{path}: expected at least two labelled texts, found "
                f"{len(each)}."
            )
    evaluation.unseen_labels(
        task.adapt(examples[0], model.tokenizer), examples[1], str(dev)
    )
    # Also dev's labels: a word that has one of them is a mistake.
    task = task.adapt([*examples[0], *examples[1]], model.tokenizer)
    fitted, measured = (
        rows(model, task, each, batch_size=batch_size) for each in examples
    )
    return _probes(fitted, measured, _labels(task), seed)


def rows(
    model: predictor.Predictor,
    task: base.Task,
    examples: Sequence[base.Example],
    *,
    batch_size: int = 32,
) -> Rows:
    """Runs the encoder on labelled texts, and returns all layers' vectors.

    task: Tagging or Classification, adapted to the examples.

    Raises InputError if the vectors are not finite.
    """
    encode = tf.function(
        functools.partial(_hidden, model.model.encoder), reduce_retracing=True
    )
    size = min(int(batch_size), _MAX_TEXTS)
    parts = []
    with console.Progress(
        "encoding", total=len(examples), unit="texts", lines=False, shown=True
    ) as bar:
        for start in range(0, len(examples), size):
            batch = examples[start : start + size]
            part = _batch(model, task, encode, batch)
            parts.append(part._replace(text=part.text + start))
            bar.update(start + len(batch))
    vectors, labels, types, text, truncated = zip(*parts, strict=True)
    if sum(truncated):
        console.say(
            f"{sum(truncated):,} of {len(examples):,} texts are longer than "
            f"seq_length={task.seq_length} and were truncated"
        )
    layers = [np.concatenate(each) for each in zip(*vectors, strict=True)]
    if not all(np.isfinite(each).all() for each in layers):
        raise errors.InputError(
            "the hidden states hold NaN or infinity: the weights are damaged."
        )
    return Rows(
        layers,
        np.concatenate(labels),
        sum(types, []),
        np.concatenate(text),
        sum(truncated),
    )


def control_labels(
    types: Sequence[bytes], frequencies: np.ndarray, seed: int
) -> np.ndarray:
    """Draws a label for each type, equal for equal types: n -> (n,) int64.

    frequencies (C,): how often each label is drawn; they add up to 1.
    """
    limits = np.cumsum(frequencies)
    drawn = {each: _uniform(each, seed) for each in set(types)}
    values = np.array([drawn[each] for each in types])
    # Rounding may leave the last limit below 1.
    last = np.flatnonzero(frequencies)[-1]
    return np.minimum(np.searchsorted(limits, values, side="right"), last)


def _uniform(key: bytes, seed: int) -> float:
    """Returns a number from 0 to 1, a function of the seed and the key."""
    digest = hashlib.sha256(f"{seed} ".encode() + key).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _task(task: base.Task | str) -> base.Task:
    """Returns the task of `probe`, or raises InputError."""
    if task == "tagging":
        return tagging.Tagging()
    if task == "classification":
        return classification.Classification()
    if isinstance(task, tagging.Tagging):
        return task
    if (
        isinstance(task, classification.Classification)
        and task.problem_type == "single_label"
        and task.pair_order == "one"
    ):
        return task
    name = task if isinstance(task, str) else task.name
    raise errors.InputError(
        f"task={name}: expected one of {', '.join(TASKS)}, with one label for "
        "each word or text, and pairs read in one order.",
        argument="task",
    )


def _labels(task: Any) -> tuple[str, ...]:
    return tuple(task.labels)


def _hidden(encoder: Any, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
    hidden = networks.encode(encoder, inputs, training=False)["hidden"]
    return {
        f"layer_{number:04}": tf.cast(each, tf.float32)
        for number, each in enumerate(hidden)
    }


def _batch(
    model: predictor.Predictor,
    task: base.Task,
    encode: Any,
    examples: Sequence[base.Example],
) -> Rows:
    """Returns the rows of a few texts."""
    raw = base.as_tensors(examples, examples[0])
    features = task.preprocess(raw, model.tokenizer)
    ((labels, _),) = task.make_targets(raw, features, model.tokenizer).values()
    hidden = length_batching.in_length_batches(
        encode,
        {name: features[name] for name in model.model.encoder.config.inputs},
    )
    layers = [hidden[name] for name in sorted(hidden)]
    if isinstance(task, tagging.Tagging):
        where = tf.where(features["start"] >= 0)
        text = tf.gather(features["example_index"], where[:, 0]).numpy()
        return Rows(
            [tf.gather_nd(layer, where).numpy() for layer in layers],
            tf.gather_nd(labels, where).numpy(),
            list(_word_types(model, raw["text"])),
            text,
            truncated=0,  # long texts have several windows
        )
    mask = features["padding_mask"]
    ids = features[model.tokenizer.feature].numpy()
    return Rows(
        [np.asarray(heads.pool(layer, mask)) for layer in layers],
        labels.numpy(),
        [
            row[:length].tobytes()
            for row, length in zip(
                ids, np.count_nonzero(mask, axis=1), strict=True
            )
        ],
        np.arange(len(examples), dtype=np.int32),
        int(np.count_nonzero(features["truncated"])),
    )


def _word_types(model: predictor.Predictor, text: tf.Tensor) -> Iterator[bytes]:
    """Yields the ids of each word of the texts, in order."""
    ids, _, _ = model.tokenizer.with_offsets(text)
    is_start = model.tokenizer.word_starts(ids).values.numpy()
    values = ids.values
    if isinstance(values, tf.RaggedTensor):
        values = values.to_tensor()
    starts = np.flatnonzero(is_start)
    for start, end in zip(starts, [*starts[1:], len(is_start)], strict=True):
        yield values[start:end].numpy().tobytes()


def _probes(
    train: Rows, dev: Rows, labels: tuple[str, ...], seed: int
) -> Probes:
    """Fits the probes of all layers."""
    counts = np.bincount(train.labels, minlength=len(labels))
    control_train, control_dev = (
        control_labels(each.types, counts / counts.sum(), seed)
        for each in (train, dev)
    )
    held_out = _held_out(train.text)
    probes = []
    for layer, (vectors, dev_vectors) in enumerate(
        zip(train.vectors, dev.vectors, strict=True)
    ):
        l2 = _best_l2(vectors, train.labels, held_out, len(labels))
        problem = logistic_regression.Problem(vectors)
        predicted, control = (
            problem.fit(each, len(labels), l2=l2).predict(dev_vectors)
            for each in (train.labels, control_train)
        )
        scores = classification_metrics.single_label(
            classification_metrics.confusion(
                [labels[each] for each in dev.labels],
                [labels[each] for each in predicted],
                labels,
            )
        )
        probes.append(
            LayerProbe(
                layer,
                scores["accuracy"],
                scores["f1_macro"],
                float(np.mean(control == control_dev)),
                l2,
            )
        )
    most_frequent = int(counts.argmax())
    return Probes(
        tuple(probes),
        labels,
        float(np.mean(dev.labels == most_frequent)),
        labels[most_frequent],
        len(train.labels),
        len(dev.labels),
    )


def _held_out(text: np.ndarray) -> np.ndarray:
    """Returns which rows L2 is chosen on: every tenth text, or the last one."""
    count = int(text[-1]) + 1
    return text % _HELD_OUT == min(_HELD_OUT, count) - 1


def _best_l2(
    vectors: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    num_classes: int,
) -> float:
    """Returns the L2 with the best accuracy; the strongest of equal ones."""
    problem = logistic_regression.Problem(vectors[~held_out])
    best, chosen, classifier = -1.0, L2[0], None
    for l2 in L2:
        classifier = problem.fit(
            labels[~held_out], num_classes, l2=l2, start=classifier
        )
        right = classifier.predict(vectors[held_out]) == labels[held_out]
        if (accuracy := float(right.mean())) > best:
            best, chosen = accuracy, l2
    return chosen
