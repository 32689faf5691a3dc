"""Predictor: runs the whole inference pipeline, from text to answers.

`predict`, the trainers and the exporters call the same two functions,
`serve_text` and `tokens`, so the served model computes what was evaluated.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import (
    checkpoint,
    commands,
    console,
    errors,
    evaluation,
    files,
    formats,
    generation,
    labelled_examples,
    length_batching,
    loading,
    model_card,
    options,
)
from bert_keras import model as model_lib
from bert_keras.data import labelled_files, python_texts
from bert_keras.data.python_texts import Example
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers
from bert_keras.types import StrPath

# Texts are sorted by length within this many batches.
SORTED_BATCHES = 50
# Short texts may share a batch of up to this factor times `batch_size`. More do
# not help: on two cores throughput stops growing at about 1,000 tokens per
# batch, and the answers of some tasks are large per row.
MAX_ROWS_FACTOR = 2
# From this number of texts on, `predict` shows a progress bar.
PROGRESS_FROM = 1000


class Predictor:
    """A model with its tokenizer and its task, to predict from raw text.

    >>> predictor = bert_keras.load("runs/sst2")
    >>> answers = predictor.predict(["a fine film", "a dull one"])
    >>> [answer["label"] for answer in answers]
    ['positive', 'negative']
    >>> predictor.evaluate("dev.tsv")["accuracy"]
    1.0
    >>> predictor.save("runs/copy")
    """

    def __init__(
        self,
        model: model_lib.BertModel,
        tokenizer: tokenizers.Tokenizer,
        *,
        card: model_card.Card | None = None,
    ):
        self._card = card
        self.model = model
        self.task = model.task
        self.tokenizer = tokenizer
        graph = functools.partial(
            tf.function, reduce_retracing=True, autograph=False
        )
        self._answer = graph(self.serve_text)
        self._decode = graph(self.tokens)
        self._measure_graph = graph(self._measure)

    @property
    def card(self) -> model_card.Card | None:
        """The checkpoint's model card, if it has one, for copies of the model.

        Metrics are left out if the model is compiled: Keras' `fit` may have
        changed its weights.
        """
        if self._card is None or not self.model.compiled:
            return self._card
        return model_card.without_results(
            self._card,
            "These are the checkpoint's, before the model was trained further.",
        )

    def serve_text(self, **raw: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answers texts: strings (T,) by text column -> answers (T, ...).

        raw may also have the task's `request_settings`, (T,) each.

        Returns the outputs of `Task.postprocess` and "truncated" (T,) bool:
        whether part of the text was too long for the model.
        """
        features = self.task.preprocess(raw, self.tokenizer)
        settings = {
            name: tf.gather(raw[name], features["example_index"])
            for name in self.task.request_settings
            if name in raw
        }
        decoded = length_batching.in_length_batches(
            self._decode,
            {name: features[name] for name in self.model.encoder.config.inputs},
            per_row=settings,
            steps=self.task.steps_per_answer,
            copies=self.task.copies_per_row,
        )
        answers = self.task.postprocess(decoded, features, raw, self.tokenizer)
        truncated = tf.math.unsorted_segment_max(
            tf.cast(features["truncated"], tf.int32),
            features["example_index"],
            tf.size(next(iter(raw.values()))),
        )
        return answers | {"truncated": truncated > 0}

    def tokens(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Runs the model on token ids: (W, S, ...) -> `Task.decode`'s (W, ...).

        inputs: {name: int32} as in `NetworkConfig.inputs`, and any of the
          task's `request_settings`, (W,).
        """
        features = self.task.add_derived_features(inputs)
        return self.task.decode(self.task.infer(self.model, features), features)

    def _measure(self, **raw):
        """Measures texts (T,): number of windows, length of the longest (T,).

        For two texts of which the first has windows of 8 and 5 tokens and the
        second one window of 3 tokens: [2, 1] and [8, 3].
        """
        features = self.task.preprocess(raw, self.tokenizer)
        real = tf.cast(features["padding_mask"] > 0, tf.int32)
        lengths = tf.reduce_sum(real, axis=1)
        example_index = features["example_index"]
        num_texts = tf.size(next(iter(raw.values())))
        return (
            tf.math.unsorted_segment_sum(
                tf.ones_like(lengths), example_index, num_texts
            ),
            tf.math.unsorted_segment_max(lengths, example_index, num_texts),
        )

    def predict(
        self,
        examples: Example | Iterable[Example],
        *,
        batch_size: int = 32,
        progress: bool | None = None,
    ) -> list[dict[str, Any]]:
        """Returns one answer per example, in order, as plain Python values.

        examples: one text, one row as a dict, or an iterable of examples.
          Arrays and tensors of strings count as lists, a data frame as a list
          of rows. For a task that reads pairs, [("a", "b")] is one pair;
          ["a", "b"] is refused. Raises InputError with the index of an example
          that has no text (None, NaN, a number, a list).
        batch_size: a batch has at most batch_size * seq_length tokens, padding
          included, and 2 * batch_size texts. A text with more tokens than that,
          in several windows, is a batch of its own.
        progress: whether a terminal or a notebook shows a progress bar; None:
          for 1,000 texts or more.

        >>> bert_keras.load("runs/sst2").predict("a fine film")
        [{'label': 'positive', 'score': ..., 'truncated': False}]
        """
        options.require_whole(batch_size=batch_size)
        items: Any = python_texts.items_of(examples)
        count = len(items) if hasattr(items, "__len__") else 0
        if progress is None:
            progress = count >= PROGRESS_FROM
        bar = console.Progress(
            "predicting",
            total=count,
            unit="texts",
            lines=False,
            shown=progress and count > 0,
        )
        with bar:
            return list(
                self._stream(items, int(batch_size), SORTED_BATCHES, bar)
            )

    def stream(
        self,
        examples: Example | Iterable[Example],
        *,
        batch_size: int = 32,
        ahead: int = SORTED_BATCHES,
    ) -> Iterator[dict[str, Any]]:
        """Yields the answers of `predict` one by one.

        ahead: `ahead` times `batch_size` examples are read before the first
          answer, to batch them by length.
        """
        options.require_whole(batch_size=batch_size, ahead=ahead)
        items = python_texts.items_of(examples)
        return self._stream(items, int(batch_size), int(ahead))

    def evaluate(
        self,
        data: StrPath | Iterable[Example],
        labels: Iterable[Any] | None = None,
        *,
        columns: labelled_files.Columns = "",
        batch_size: int = 32,
        progress: bool | None = None,
    ) -> dict[str, float]:
        """Returns the metrics of the answers to labelled examples.

        They are those of `bert_keras.evaluate`, which also evaluates a
        pretrained model on records.

        Args:
          data: the path of a labelled file, or texts as in `predict`.
          labels: the label of each text, as in `Task.make_example`.
          columns: columns of the file, if they differ from the training file's:
            {"text": "review", "label": "stars"}, or text=review,label=stars.
          batch_size, progress: as in `predict`.

        >>> predictor = bert_keras.load("runs/sst2")
        >>> texts = ["a fine film", "a dull one"]
        >>> predictor.evaluate(texts, ["positive", "negative"])
        {'accuracy': 1.0, 'f1_macro': 1.0, 'mcc': 1.0}
        """
        examples = labelled_examples.read(
            self.task, data, labels, columns=columns
        )
        if not examples:
            raise errors.InputError("expected examples to score, found none.")
        is_file = isinstance(data, (str, os.PathLike))
        source = str(data) if is_file else "the labels"
        evaluation.unseen_labels(self.task, examples, source)
        answers = self.predict(
            examples, batch_size=batch_size, progress=progress
        )
        metrics, _ = evaluation.score(self.task, answers, examples)
        return metrics

    def save(self, folder: StrPath) -> None:
        """Writes a checkpoint, which `load` and every command reads.

        Its weights are bit-equal to the model's. Of a wrapped task, the inner
        task is saved, without its wrappers. Raises InputError if the folder has
        files.

        >>> bert_keras.load("runs/sst2").save("runs/mine")
        >>> bert_keras.load("runs/mine").predict("a dull film")[0]["label"]
        'negative'
        """
        folder = os.fspath(folder)
        files.check_empty_folder(folder)
        narrow = {
            variable.dtype
            for variable in self.model.trainable_variables
            if variable.dtype != "float32"
        }
        if narrow:
            raise errors.InputError(
                f"expected float32 weights to save, found {', '.join(narrow)}; "
                "load the model without `precision`."
            )
        described = model_card.describe(
            self.model,
            self.tokenizer,
            name=os.path.basename(os.path.abspath(folder)),
        )
        card = model_card.for_copy(self.card, described)
        checkpoint.save(folder, self.model, self.tokenizer, step=0, card=card)

    def _stream(
        self,
        examples: Iterable[Any],
        batch_size: int,
        ahead: int,
        progress: console.Progress | None = None,
    ) -> Iterator[dict[str, Any]]:
        block = []
        done = 0
        for number, example in enumerate(examples):
            block.append(
                python_texts.columns_of(
                    example,
                    self.task.text_columns,
                    number,
                    reader=self.task.name,
                    text_row=self.task.text_row,
                )
            )
            if len(block) == ahead * batch_size:
                yield from self._answer_block(block, batch_size, done, progress)
                done += len(block)
                block = []
        yield from self._answer_block(block, batch_size, done, progress)

    def _answer_block(
        self,
        examples: list[dict[str, str]],
        batch_size: int,
        done: int,
        progress: console.Progress | None,
    ) -> Iterator[dict[str, Any]]:
        """Yields the answers in order; batches have texts of similar length.

        done: the number of examples before these, for the progress.
        """
        answers: list[Any] = [None] * len(examples)
        for indices in self._batches(examples, batch_size):
            raw = self._raw([examples[index] for index in indices])
            batch = rows_of(self.task, self._answers(raw))
            for index, answer in zip(indices, batch, strict=True):
                answers[index] = answer
            done += len(indices)
            if progress:
                progress.update(done)
        yield from answers

    def _answers(self, raw: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        with generation.checked():
            return self._answer(**raw)

    def _batches(
        self, examples: list[dict[str, str]], batch_size: int
    ) -> Sequence[Sequence[int]]:
        """Returns batches of indices, of examples of similar length.

        With seq_length 128 and batch_size 2 a batch may have 256 tokens. Texts
        whose windows are [1, 2, 1] and whose longest window is [20, 128, 90]
        make the batches [0, 2] (2 windows of up to 90 tokens) and [1] (2
        windows of 128).
        """
        if len(examples) < 2:
            return [range(len(examples))] if examples else []
        measured = [
            self._measure_graph(
                **self._raw(examples[start : start + batch_size])
            )
            for start in range(0, len(examples), batch_size)
        ]
        windows, longest = np.concatenate(measured, axis=1)
        most = batch_size * self.task.max_row_length
        batches: list[list[int]] = [[]]
        count = 0
        for index in np.argsort(longest, kind="stable"):
            count += windows[index]
            full = len(batches[-1]) == MAX_ROWS_FACTOR * batch_size
            if full or (batches[-1] and count * longest[index] > most):
                batches.append([])
                count = windows[index]
            batches[-1].append(index)
        return batches

    def _raw(self, examples: list[dict[str, str]]) -> dict[str, tf.Tensor]:
        return base.as_tensors(examples, self.task.text_columns)


def load(
    path: StrPath,
    *,
    task: base.Task | str | None = None,
    lowercase: bool | None = None,
    precision: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Predictor:
    """Loads a Predictor from a run, a step folder, or another format's folder.

    task: another task than the checkpoint's, whose new heads are initialised
      randomly: what to train, for example with Keras' `fit`. Or the name of a
      task to answer with, such as "next_sentence", all of whose heads the
      checkpoint has: InputError if it lacks one.
    lowercase: whether text is lower-cased, for another format's folder that
      does not specify it.
    precision: a Keras dtype policy; None: the current one. "bfloat16" stores
      kernels and computes matmuls in bfloat16, everything else in float32.
    settings: other values for fields of the checkpoint's task, such as
      {"top_p": 0.9, "seed": 1} for one that continues texts.

    >>> bert_keras.load("runs/sst2").predict(["a fine film"])[0]["label"]
    'positive'
    """
    # First, as the checkpoint's own task may be that of a user's module.
    asked = base.find(task) if isinstance(task, str) else None
    source = formats.read(os.fspath(path), lowercase=lowercase)
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(precision or before)
        if asked:
            task = _asked(asked, source)
        elif task is not None:
            assert not isinstance(task, str)
            base.require_task(task)
            task = task.for_checkpoint(source.task)
        if settings:
            task = _with_settings(task or source.task, settings, source.folder)
        source = loading.with_frame(source, task)
        say_new_tokens(source)
        model = loading.load_model(source, task)
        card = source.card()
        if task is not None and not settings and not asked:
            card = model_card.for_training(card, source.name)
        return Predictor(model, source.tokenizer(), card=card)
    finally:
        keras.config.set_dtype_policy(before)


def adapted(model: Predictor, examples: Iterable[base.Example]) -> Predictor:
    """Returns a predictor whose task is adapted to labelled examples.

    A task without heads may learn from them what it reads, such as pairs of
    texts. One that has heads is what it was trained for, and is returned.
    """
    if model.task.head_signatures:
        return model
    return with_task(model, model.task.adapt(examples, model.tokenizer))


def with_task(model: Predictor, task: base.Task) -> Predictor:
    """Returns a predictor of the same encoder with a task without heads."""
    network = model_lib.BertModel(model.model.encoder, task)
    return Predictor(network, model.tokenizer, card=model.card)


def _asked(
    cls: type[base.Task], source: checkpoint.Checkpoint
) -> base.Task | None:
    """Returns a task of the class; None: that of the checkpoint itself.

    Raises InputError if the checkpoint lacks one of its heads.
    """
    trained = source.task
    if trained is not None and type(trained.unwrapped) is cls:
        return None
    longest = source.config.max_length or base.MAX_TOKENS
    length = trained.seq_length if trained else min(cls.seq_length, longest)
    task = cls(seq_length=length).for_checkpoint(trained)
    heads = source.matching_heads(task)
    missing = set(task.head_signatures) - (heads or set())
    if heads is not None and missing:
        raise errors.InputError(
            f"{source.folder}: expected a checkpoint with the head "
            f"{', '.join(sorted(missing))} for task={task.name}, found one of "
            f"{trained.name if trained else 'an encoder without a head'}; "
            f"fine-tune it with `{commands.command_line('finetune')} "
            f"--task={task.name}`.",
            argument="task",
        )
    return task


def _with_settings(
    task: base.Task | None, settings: Mapping[str, Any], folder: str
) -> base.Task:
    """Returns the task with other values for some of its fields.

    Raises InputError if it lacks one of them.
    """
    fields = {field.name for field in dataclasses.fields(task)} if task else ()
    for name in settings:
        if name not in fields:
            reader = task.name if task else "an encoder without a head"
            raise errors.InputError(
                f"`{name}` is no setting of {folder} ({reader}); leave it out.",
                argument=name,
            )
    assert task is not None
    return task.with_settings(**settings)


def say_new_tokens(source: checkpoint.Checkpoint) -> None:
    """Prints which tokens were added for a task, if any."""
    if tokens := loading.new_tokens(source):
        console.say(
            f"{source.name}: the vocabulary gets {', '.join(tokens)}, whose "
            "embeddings are new: they are drawn from N(0, 0.02)"
        )


def as_json(answer: Mapping[str, Any]) -> str:
    """Formats an answer as a line of JSON; NaN and infinity become null."""

    def nan_to_none(value):
        if isinstance(value, Mapping):
            return {name: nan_to_none(each) for name, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [nan_to_none(each) for each in value]
        return value if evaluation.is_finite(value) else None

    if not evaluation.is_finite(answer):
        answer = nan_to_none(answer)
    return json.dumps(answer, ensure_ascii=False)


def rows_of(
    task: base.Task, answers: Mapping[str, tf.Tensor]
) -> list[dict[str, Any]]:
    """Splits the outputs of `Task.postprocess` (T, ...) into T answers."""
    columns = {name: value.numpy() for name, value in answers.items()}
    return [
        task.to_python(
            {
                name: _decode_bytes(value)
                for name, value in zip(columns, row, strict=True)
            }
        )
        for row in zip(*columns.values(), strict=True)
    ]


def _decode_bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        # Numbers in long lists, such as vectors, are not looked at one by one.
        if value and isinstance(value[0], (bytes, list)):
            return [_decode_bytes(each) for each in value]
        return value
    return value.item() if isinstance(value, np.generic) else value
