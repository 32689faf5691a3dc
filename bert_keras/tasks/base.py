"""The task interface: preprocessing, targets, heads, loss, answers, metrics.

The same methods run in training, evaluation and serving. A new task is one file
in this folder with one subclass; trainers, exporters and tests find it by the
file's name.
"""

import dataclasses
import json
import math
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bert_keras import (
    errors,
    former_names,
    keras_backend,
    options,
    registry,
)
from bert_keras.networks import base as networks
from bert_keras.tokenizers import base as tokenizers

keras_backend.require_tensorflow()  # it may have been set after `bert_keras`

Tensors = dict[str, tf.Tensor]
Targets = dict[str, tuple[tf.Tensor, tf.Tensor]]
Heads = Mapping[str, keras.layers.Layer]
Example = Mapping[str, str]
Answers = Sequence[Mapping[str, Any]]

knob = former_names.knob  # which users' tasks may still use
MAX_TOKENS = 1 << 20  # per row; a larger number must be an error
_RESERVED = {"name", "task", "wrapper", "wrappers"}
TOKENS = "tokens"  # marks a feature (W, S) with one value per token
# Marks a feature (W, T) with one value per token of the row's target.
TARGET_TOKENS = "target_tokens"
PROGRESS = "progress"  # a feature, see `Task.reads_progress`


def as_tensors(examples: Sequence[Example], columns: Iterable[str]) -> Tensors:
    """Converts columns of T examples to string tensors (T,)."""
    dtype = None if examples else tf.string
    return {
        name: tf.constant([example[name] for example in examples], dtype)
        for name in columns
    }


class Table(NamedTuple):
    """A table of numbers; `training.plots.OF_TABLES` plots some, by name."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray  # (rows, columns)


@dataclasses.dataclass(frozen=True)
class Task:
    """The interface of a task; its dataclass fields are its saved settings.

    T texts become W >= T rows (windows) of at most `seq_length` tokens. Strings
    stay on the host. No texts (T = 0) are valid and give no answers. A complete
    task, with the 11 members that an author writes:

        @dataclasses.dataclass(frozen=True)
        class Question(base.Task):
            head_signatures = {"question": "whether the text asks"}
            metric_names = ("accuracy",)
            def read_examples(self, path):
                return labelled_files.read(path, needed=("text", "label"))
            def preprocess(self, raw, tokenizer):
                ids, frame = tokenizer(raw["text"]), tokenizer.frame
                return packing.pack([ids], frame, seq_length=self.seq_length)
            def make_targets(self, raw, features, tokenizer):
                labels = tf.cast(raw["label"] == "yes", tf.float32)
                return {"question": (labels, tf.ones_like(labels))}
            def build_heads(self, config):
                return {"question": heads_lib.ClassificationHead(config, 1)}
            def outputs(self, encoded, heads, features, *, training):
                head, mask = heads["question"], features["padding_mask"]
                return {"score": head(encoded, mask, training=training)[:, 0]}
            def loss(self, outputs, features, targets):
                labels, weights = targets["question"]
                losses = tf.square(outputs["score"] - labels)
                return {"question": tf.reduce_sum(losses * weights)}
            def decode(self, outputs, features):
                return {"score": outputs["score"]}
            def postprocess(self, decoded, features, raw, tokenizer):
                return {"question": decoded["score"] > 0.5}
            def metrics(self, predictions, examples):
                answers = [prediction["question"] for prediction in predictions]
                gold = [example["label"] == "yes" for example in examples]
                return {"accuracy": float(np.mean(np.equal(answers, gold)))}

    A task is an object of such a class, and `adapt` reads its labels from rows:

    >>> task = bert_keras.tasks.Classification(seq_length=32)
    >>> rows = task.read_examples("train.tsv")
    >>> task = task.adapt(rows, bert_keras.Tokenizer.from_file("vocab.txt"))
    >>> task.labels
    ('negative', 'positive')
    """

    seq_length: int = options.option(
        128,
        "Maximum row length in tokens, [CLS] and [SEP] included; longer texts "
        "are truncated.",
        minimum=4,
        maximum=MAX_TOKENS,
    )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        former_names.refuse_members(cls)
        _reset_positions_read(cls)

    # What an author writes. Attributes that depend on fields are properties.

    #: Head name, as in `build_heads` -> the meaning of the head's outputs, as
    #: JSON values. Another task whose head has the same name and meaning reuses
    #: the trained head.
    head_signatures: ClassVar[Mapping[str, Any]] = {}
    #: Metrics of the evaluations during training; the first one selects the
    #: best checkpoint. They are keys of `metrics`; in pretraining, which
    #: evaluates on records, keys of `metric_sums` and "loss/TERM".
    metric_names: ClassVar[tuple[str, ...]] = ()

    def read_examples(self, path: str) -> Iterator[Example]:
        """Yields the rows of a labelled file, with all columns the task needs.

        If the iterator has a string `warning`, trainers print it after the last
        row. With dev_fraction, rows with equal "group" columns stay in one
        split.
        """
        raise errors.InputError(
            f"the task {self.name} reads no labelled files; it learns from "
            "prepared records."
        )

    def make_example(self, raw: Example, label: Any) -> Example:
        """Returns a labelled example from Python, as `read_examples` yields it.

        raw: the text columns.
        label: the label as its caller writes it: a string or a number.

        >>> task = bert_keras.tasks.Tagging(types=("ORG",))
        >>> task.make_example({"text": "EU acts"}, ["B-ORG", "O"])
        {'text': 'EU acts', 'words': '0-2 3-7', 'tags': 'B-ORG O'}

        Raises ValueError, with a phrase as message, for an invalid label.
        """
        if label is None:
            raise ValueError("expected a label, found None")
        return {**raw, "label": str(label)}

    def preprocess(
        self, raw: Tensors, tokenizer: tokenizers.Tokenizer
    ) -> Tensors:
        """Converts text columns (T,) to the features of W rows; in a graph.

        Returns the network's `inputs` (W, S, ...) int32, with padding_mask,
        where S is the length of the longest row; "example_index" (W,) int32:
        the index of each row's text, ascending; and "truncated" (W,) bool:
        whether tokens of the text were dropped. If the first of two texts needs
        two windows, example_index is [0, 0, 1].

        It may add features for `make_targets` and `postprocess`; these stay on
        the host unless they are in `stored_features`.
        """
        raise NotImplementedError

    def make_targets(
        self, raw: Tensors, features: Tensors, tokenizer: tokenizers.Tokenizer
    ) -> Targets:
        """Returns labels and weights for each loss term; not in a graph.

        raw: all columns of the examples, (T,).
        features: those of `preprocess`.
        Returns {term: (labels (W, ...), weights (W, ...) float32)}.
        """
        raise NotImplementedError(f"{self.name} learns from records only")

    def num_truncated(self, targets: Targets) -> int:
        """Returns how many of the targets of `make_targets` were truncated."""
        del targets
        return 0

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        """Returns the task's layers with weights, by name.

        Each layer is named by its key, and the paths of its weights begin with
        it. Its `build` creates all weights and needs no input shape.
        """
        raise NotImplementedError

    def outputs(
        self,
        encoded: dict[str, Any],
        heads: Heads,
        features: Tensors,
        *,
        training: bool | None,
    ) -> Tensors:
        """Computes the outputs that `loss` and `decode` read: {name: (B, ...)}.

        encoded: {"hidden": L + 1 of (B, S, H), "pooled": (B, H)}, and the
          encoder's "token_table" (V, E), which some heads share. If it has
          "positions_read", the last of "hidden" is (B, P, H).
        features: the network's inputs, `stored_features` and derived features.
          Here and in the methods below, shapes are static and no feature is a
          string.
        """
        raise NotImplementedError

    def loss(
        self, outputs: Tensors, features: Tensors, targets: Targets
    ) -> Tensors:
        """Returns {term: weighted sum of losses ()}.

        The trainer divides by the sum of weights over all replicas.
        """
        raise NotImplementedError

    def decode(self, outputs: Tensors, features: Tensors) -> Tensors:
        """Reduces the outputs to small tensors (W, ...) on the device.

        It must compile under XLA. Values of tokens, (W, S, ...), are 0 at
        padding, which served models do not compute.
        """
        raise NotImplementedError

    def postprocess(
        self,
        decoded: Tensors,
        features: Tensors,
        raw: Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> Tensors:
        """Returns the answers, dense (T, ...); in a graph, on the host.

        decoded: the outputs of `decode` (W, ...).
        features: those of `preprocess` (W, ...).
        It merges the windows of each text.
        """
        raise NotImplementedError

    def metrics(
        self, predictions: Answers, examples: Sequence[Example]
    ) -> dict[str, float]:
        """Computes the official metrics of answers to labelled examples."""
        raise NotImplementedError(f"{self.name} has no labelled rows")

    # What an author declares if the default does not fit.

    #: The Hugging Face hub's name for this type of task, for model cards.
    pipeline_tag: ClassVar[str] = ""

    #: Columns that `preprocess` reads: the arguments of the served signature.
    text_columns: ClassVar[tuple[str, ...]] = ("text",)
    #: Factor of each loss term in the total; default: 1.
    loss_weights: ClassVar[Mapping[str, float]] = {}
    #: Loss terms that are a softmax cross entropy with logits (..., C), those
    #: of `softmax_logits`, and labels (...) int32. Wrappers such as label
    #: smoothing change these terms.
    softmax_terms: ClassVar[tuple[str, ...]] = ()
    #: Names of the columns of `postprocess`'s "scores" (T, C), if it has them.
    class_names: ClassVar[tuple[str, ...]] = ()
    #: Features of `preprocess` that records store besides the tokens' ids and
    #: segment_ids: TOKENS for one value per token (W, S), None for a fixed
    #: shape per row. Heads and `loss` can read only these, and what `randomize`
    #: and `add_derived_features` add. List padding_mask if a row has several
    #: texts; otherwise it is 1 on every token.
    stored_features: ClassVar[Mapping[str, str | None]] = {}
    #: The same for labels and weights, by loss term; default: None.
    #: TARGET_TOKENS is for targets with a length of their own, (W, T), such as
    #: a translation: the weights of each such term are > 0 at the t_w <= T
    #: tokens of row w and 0 at the padding after them. A stored feature may
    #: have this axis, too; then t_w is its length.
    target_axes: ClassVar[Mapping[str, str | None]] = {}
    #: Outputs of `decode` and `postprocess` sorted by score, one list per row
    #: or text. Rounding may swap neighbours, so exporters compare only the
    #: first.
    ranked_outputs: ClassVar[tuple[str, ...]] = ()
    #: Outputs of `postprocess` that are one list per text, and their padding
    #: value. list_width: the fixed length of the lists; None: the length of
    #: the longest.
    list_padding: ClassVar[Mapping[str, Any]] = {}
    list_width: ClassVar[int | None] = None
    #: Whether rows have the special tokens of the tokenizer's frame. If so, a
    #: checkpoint whose tokenizer lacks them gets them before fine-tuning.
    reads_frame: ClassVar[bool] = True
    #: Settings that a request to a served model may give for each text: name ->
    #: dtype. `infer` finds them among the features, (W,).
    request_settings: ClassVar[Mapping[str, str]] = {}

    @property
    def unwrapped(self) -> "Task":
        """This task; for a wrapper, the innermost task."""
        return self

    @property
    def reads_targets(self) -> bool:
        """Whether `forward` may read targets: whether a class overrides it."""
        return type(self).forward is not Task.forward

    #: Whether `negatives` changes what an evaluation compares, so that
    #: `evaluate` takes it.
    scores_negatives: ClassVar[bool] = False

    @property
    def reads_progress(self) -> bool:
        """Whether `randomize` reads the feature PROGRESS, and removes it.

        It is the share of the training steps that is done, () float32; without
        the feature, all are.
        """
        return False

    @property
    def reads_batch(self) -> bool:
        """Whether the loss of a row depends on the other rows of its batch.

        Such a batch is not divided: a run has one replica and no accumulation.
        """
        return False

    @property
    def separates_texts(self) -> bool:
        """Whether the network gets each text of a row as a row of its own.

        Its width is then that of the longest text of the rows at hand.
        """
        return False

    @property
    def num_positions(self) -> int:
        """The number of positions of the longest text in a row.

        It is less than `seq_length` if a row has several texts, as each of them
        counts its positions from 0.
        """
        return self.seq_length

    @property
    def max_row_length(self) -> int:
        """The maximum number of tokens in a row of `preprocess`.

        It is more than `seq_length` if that is the length of one text and a
        row has several, and less if `infer` adds tokens to the row.
        """
        return self.seq_length

    @property
    def head_length(self) -> int | None:
        """The number of tokens that a head has weights for; None: any number.

        If it is a number, a trained head is reused only with the same one, and
        exports have no longer rows.
        """
        return None

    @property
    def max_target_length(self) -> int | None:
        """The maximum T of features with the axis TARGET_TOKENS.

        None: neither `target_axes` nor `stored_features` has that axis. It may
        be a field, which is an option of training then.
        """
        return None

    @property
    def steps_per_answer(self) -> int:
        """How many times `infer` runs the network, at most."""
        return 1

    @property
    def copies_per_row(self) -> int:
        """How many copies of a row `infer` has in memory, such as beams."""
        return 1

    # Methods that run on the host.

    def read_texts(self, path: str) -> Iterator[Example] | None:
        """Yields the text columns of a file without labels.

        None: the columns of the file are the text columns, as usual.
        """
        del path
        return None

    def data_files(self, path: str) -> Sequence[str]:
        """Returns the paths that `read_examples(path)` reads.

        A run is known by the contents of all of them.
        """
        return [path]

    def text_row(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Converts a row from Python or JSON to a row of text columns.

        A task whose callers write rows in another way overrides this. Raises
        ValueError, with a phrase as message, for an invalid row.
        """
        return row

    def for_records(self, manifest: Mapping[str, Any]) -> "Task":
        """Returns this task with the fields that records determine.

        manifest: that of prepared records, with "seq_length", "objective" (the
          sentence objective) and "packing" (absent: segments). Raises
          InputError for records that the task cannot learn from.
        """
        self.require_single_texts(manifest)
        return self.with_settings(seq_length=manifest["seq_length"])

    def require_single_texts(self, manifest: Mapping[str, Any]) -> None:
        """Raises InputError for records whose rows have several texts."""
        if manifest.get("packing") == "documents":
            raise errors.InputError(
                f"{self.name} reads a text or a pair a row, and the rows of "
                "the records have several texts (packing=documents); prepare "
                "them with another `packing`."
            )

    def read_records(self, count_tokens: Callable[[], np.ndarray]) -> "Task":
        """Returns this task with what the training records tell it.

        Called after `adapt`, when pretraining starts. Such fields are no part
        of the run's settings: the records determine them.

        count_tokens: returns how often each token id occurs, (V,) int64.
        """
        del count_tokens
        return self

    def check_features(self, features: Collection[str]) -> None:
        """Raises InputError for settings without effect on training records.

        features: the names of what the records store, such as inputs/token_ids.
        """
        del features

    def summarize(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Adds metrics that are functions of means, such as perplexity.

        metrics: the means of the losses and of `metric_sums` over all records.
        """
        return dict(metrics)

    def expand(self, examples: Iterable[Example]) -> Iterator[Example]:
        """Yields the examples, and those that the task makes of them.

        examples: those of one split: the training rows, or the evaluated ones.
        """
        return iter(examples)

    def vocabulary_texts(self, example: Example) -> Iterable[str]:
        """Returns the texts of a training row to learn a vocabulary from.

        Called before `adapt`. A task overrides it if its `text_columns` are
        known only after that.
        """
        return [example[name] for name in self.text_columns]

    def extend_tokenizer(
        self,
        tokenizer: tokenizers.Tokenizer,
        examples: Callable[[], Iterable[Example]],
    ) -> tokenizers.Tokenizer:
        """Returns the tokenizer with what the task's targets need.

        Fine-tuning calls it once, before `adapt`; a run that is resumed keeps
        the result. A task that generates texts with a vocabulary of their own
        learns it and returns a tokenizers.pair.PairTokenizer.

        tokenizer: that of the checkpoint to start from; a pair already, if the
          checkpoint is one of such a task.
        examples: returns the training data, anew each time.
        """
        del examples
        return tokenizer

    def adapt(
        self, examples: Iterable[Example], tokenizer: tokenizers.Tokenizer
    ) -> "Task":
        """Returns this task with its data-dependent fields set.

        examples: the training data.
        """
        del examples, tokenizer
        return self

    def for_checkpoint(self, trained: "Task | None") -> "Task":
        """Returns this task as it asks a model that was trained for another.

        trained: the checkpoint's task; None: it is an encoder without a head.
        A task without a training of its own, which reads the head of another,
        takes what describes it from there. Raises InputError if it is not such
        a checkpoint.
        """
        del trained
        return self

    def bind(self, load: Callable[[str], Any]) -> "Task":
        """Returns this task with the models that it needs, such as a teacher.

        load: loads the model of a checkpoint path, in the strategy's scope.
        """
        del load
        return self

    def calibrated(self, metrics: Mapping[str, float]) -> "Task":
        """Returns this task with fields chosen from the dev set's metrics."""
        del metrics
        return self

    def with_settings(self, **fields: Any) -> "Task":
        """Returns this task with other values for some fields."""
        own = {field.name: field for field in dataclasses.fields(self)}
        return dataclasses.replace(
            self, **options.current_keywords(fields, own)
        )

    def for_serving(self) -> "Task":
        """Returns the task that checkpoints save and load.

        It has all or some of this task's heads. The others are only needed to
        resume the run and are saved with the optimizer's state.
        """
        return self

    def for_device(self) -> "Task":
        """Returns the task to export for TFLite, with the same weights."""
        return self

    def to_python(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Converts an answer of `postprocess` for Python: drops its padding."""
        return answer

    @property
    def softmax_axes(self) -> Mapping[str, str | None]:
        """The axis of the logits of each of `softmax_terms`, see target_axes.

        That of the labels, unless the classes are the tokens of the row.
        """
        return {term: self.target_axes.get(term) for term in self.softmax_terms}

    @property
    def needs_dev_rows(self) -> str:
        """The name of a setting that needs dev rows, or ""."""
        return ""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on the answers, for the model card."""
        return ()

    def tables(
        self, predictions: Answers, examples: Sequence[Example]
    ) -> "dict[str, Table]":
        """Returns tables for reports, such as metrics per class, by name."""
        del predictions, examples
        return {}

    def baselines(self, examples: Sequence[Example]) -> dict[str, float]:
        """Returns metrics of trivial answers, to judge the model's by.

        For display: {description: value}.
        """
        del examples
        return {}

    def unseen(self, example: Example) -> Sequence[str]:
        """Returns an example's labels that were not in the training data.

        The model cannot predict them, so these rows are always wrong.
        """
        del example
        return ()

    # Methods that run in a graph on the host.

    def randomize(
        self, features: Tensors, targets: Targets, seeds: tf.Tensor
    ) -> tuple[Tensors, Targets]:
        """Applies randomness that differs in each epoch, such as masking.

        seeds (W, 2) int32: one per row, from the run's seed, the step and the
          row's index in the global batch.
        Returns features and targets; the default returns them unchanged.
        """
        del seeds
        return features, targets

    # Methods that run in a graph on the device.

    def add_derived_features(self, features: Tensors) -> Tensors:
        """Adds features that can be computed from the network's inputs.

        They are added after `randomize` and by the Predictor; they are neither
        stored in records nor inputs of the served model.
        """
        return features

    def encoder_rows(self, features: Tensors, inputs: Iterable[str]) -> Tensors:
        """Returns the rows that the encoder reads, and `outputs` gets.

        A task whose rows have several texts may give the encoder each text as
        a row of its own, (B K, S). inputs: the names of the network's inputs.
        """
        del inputs
        return features

    @property
    def head_start(self) -> str:
        """The setting with which `initialize_heads` sets weights, or "".

        Such as "decoder_init=encoder". A run with it is refused if there are no
        trained weights of an encoder, or no new heads.
        """
        return ""

    def initialize_heads(
        self, encoder: keras.Model, heads: Heads
    ) -> Sequence[str]:
        """Sets weights of new heads from the encoder's, if the task does so.

        It is called once, before training, if no trained head is reused.
        Returns the paths of the weights that were set, for a message.
        """
        del encoder, heads
        return ()

    def positions_read(self, features: Tensors) -> tf.Tensor | None:
        """Returns the positions of the last layer that heads read.

        (B, P) int32, or None: all. A network may compute only these: `outputs`
        then gets the hidden states at the P positions, in their order. "pooled"
        is always computed and does not count. A class that overrides
        `outputs` or `build_heads` must override this too; otherwise all
        positions are computed.
        """
        del features
        return None

    def forward(
        self,
        encoder: keras.Model,
        heads: Heads,
        features: Tensors,
        *,
        targets: Targets | None = None,
        training: bool | None = False,
    ) -> Tensors:
        """Runs the encoder and the heads: features (B, ...) -> `outputs`.

        targets: the batch's if a loss is computed, in training and in
          evaluation on records; None for prediction.
        training: turns dropout on and changes nothing else.

        A task that needs more than the encoder's outputs overrides this. With a
        mixed dtype policy Keras casts float arguments, so `forward` should
        read only integer features.
        """
        del targets
        features = self.encoder_rows(features, encoder.config.inputs)
        encoded = networks.encode(
            encoder,
            features,
            positions_read=self.positions_read(features),
            training=training,
        )
        encoded["token_table"] = encoder.token_table
        return self.outputs(encoded, heads, features, training=training)

    def infer(self, model: Any, features: Tensors) -> Tensors:
        """Computes the outputs that `decode` reads, for prediction.

        model: the BertModel. A task that generates tokens runs the network in a
        loop instead of once.
        """
        return model(features, training=False)

    def softmax_logits(
        self, outputs: Tensors, features: Tensors, term: str
    ) -> tf.Tensor:
        """Returns the logits (..., C) of one of `softmax_terms`.

        heads.ABSENT_SCORE is that of a class which the row does not have.
        """
        del features
        return outputs[term]

    def metric_sums(
        self, outputs: Tensors, features: Tensors, targets: Targets
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """Returns {metric: (sum (), weight ())} for evaluation on records."""
        del outputs, features, targets
        return {}

    # Saving.

    @property
    def name(self) -> str:
        """The value of `--task`: the file's name, or a user's module."""
        return registry.name_of(_PACKAGE, type(self))

    def to_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint stores.

        Raises InputError if the class could not be found again when loading.
        """
        values = dataclasses.asdict(self)
        require_free_names(self, values)
        require_findable(type(self))
        values = {"name": self.name} | values
        require_json(self, [values, dict(self.head_signatures)])
        return values

    def former_dict(self) -> dict[str, Any] | None:
        """Returns what `to_dict` returned in version 0.1, if it is another one.

        By that the records of a run of then are known.
        """
        return None

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Task":
        return options.construct(cls, config)


def _reset_positions_read(cls: type[Task]) -> None:
    """Resets an inherited `positions_read` if a class overrides the heads."""
    if cls.positions_read is Task.positions_read:
        return
    names = {"positions_read", "outputs", "build_heads"}
    nearest = next(each for each in cls.__mro__ if names & vars(each).keys())
    if "positions_read" not in vars(nearest):
        cls.positions_read = Task.positions_read  # type: ignore[method-assign]


_PACKAGE = "bert_keras.tasks"
_MAX_WRAPPERS = 20
_WRAPPERS = "bert_keras.wrappers"  # not imported here: it imports this module


def find(name: str) -> type[Task]:
    """Imports and returns the task of a file of the package or of a user's."""
    return registry.import_class(_PACKAGE, name, Task)


def require_findable(cls: type[Task]) -> None:
    """Raises InputError if `find` with the class's name would not return it."""
    registry.require_findable(_PACKAGE, cls, Task)


def classes() -> list[type[Task]]:
    """Returns the classes of all tasks and wrappers of the package."""
    return [
        registry.import_class(package, name, Task)
        for package in (_PACKAGE, _WRAPPERS)
        for name in registry.names(package)
    ]


def require_free_names(task: Task, fields: Iterable[str]) -> None:
    """Raises InputError for a field whose name is reserved in checkpoints."""
    for name in _RESERVED.intersection(fields):
        raise errors.InputError(
            f"{type(task).__name__} has a field {name}, which is a reserved "
            "name in checkpoints; rename the field."
        )


def require_json(task: Task, values: Any) -> None:
    """Raises InputError if the values cannot be saved as JSON."""
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise errors.InputError(
            f"the settings of {type(task).__name__} and its `head_signatures` "
            f"are saved as JSON, which cannot represent one of them: {error}."
        ) from None


def names() -> list[str]:
    """Returns the names of the package's tasks."""
    return registry.names(_PACKAGE)


def _check_nesting(values: Any) -> None:
    """Raises InputError if values are not a task or have too many wrappers."""
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(values, Mapping):
            raise errors.InputError(
                f"expected a task, an object with its name, found "
                f"{str(values)[:40]!r}."
            )
        if "wrapper" not in values:
            return
        values = values.get("task")
    raise errors.InputError(
        f"expected at most {_MAX_WRAPPERS} wrappers around a task."
    )


def from_dict(values: Any) -> Task:
    """Constructs the task that `to_dict` wrote.

    It imports only modules of the package; see registry.class_from_data.
    """
    _check_nesting(values)
    values = dict(values)
    if "wrapper" in values:
        wrapper = values.pop("wrapper")
        return registry.class_from_data(_WRAPPERS, wrapper, Task).from_config(
            values
        )
    name = values.pop("name", None)
    return registry.class_from_data(_PACKAGE, name, Task).from_config(values)


def require_task(task: object) -> None:
    """Raises InputError unless `task` is a task: not its name or its class."""
    if not isinstance(task, Task):
        raise errors.InputError(
            f"task={task!r}: expected an object, such as "
            'bert_keras.tasks.Classification(labels=("bad", "good")).',
            argument="task",
        )


def perplexity(loss: float) -> float:
    """Returns exp of a mean loss; infinity if that is too large a number."""
    return math.exp(loss) if loss < 700 else math.inf


def require_labels(name: str, labels: Sequence[str]) -> None:
    """Raises InputError if a head would have no labels."""
    if not labels:
        raise errors.InputError(
            f"the task has no {name}; call its `adapt` with training examples "
            "first.",
            argument=name,
        )
