"""Distillation: a student learns from the outputs and layers of a teacher."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, heads, options, recorded_encoder
from bert_keras import layers as layers_lib
from bert_keras.networks import base as networks
from bert_keras.tasks import base as tasks
from bert_keras.tokenizers import base as tokenizers
from bert_keras.wrappers import base

# Terms of states, and the head that makes their widths equal.
COSINE, HIDDEN, ATTENTION = "cosine", "hidden", "attention"
HEAD = "distillation"
_CLASSES = ("labels", "types", "intents")  # fields of tasks
_ROWS = 64  # that a teacher answers at a time, for `store`


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class Distillation(base.Wrapper):
    """Trains on the labels and on what a trained model answers.

    For each softmax term of the task the loss is hard L + soft T^2 KL(p || q),
    where p and q are the distributions of the teacher and of the student at
    temperature T (Hinton et al. 2015, section 2); p is the mean of several
    teachers'. To this are added, per token of the batch,

      cosine * (1 - cos(s, t)) of the last hidden states (Sanh et al. 2019,
        section 3),
      hidden * the mean squared difference of the hidden states of layers, and
        of the embeddings (Jiao et al. 2020, equations 8 and 9), where a learned
        projection without bias makes the student's as wide as the teacher's,
      attention * that of the attention scores before the softmax (equation 7).

    A score counts without the mean over the tokens that it is compared with,
    which no softmax sees. Terms that the teacher does not answer count hard
    times. What is saved and served is the task alone.
    """

    teacher: str = options.option(
        "",
        "The trained model to learn from, of any format; several, with commas "
        "between, are averaged.",
        identity=False,  # the weights identify it
    )
    temperature: float = options.option(
        2.0, "Temperature of the soft targets.", minimum=0.01
    )
    hard: float = options.option(
        1.0, "Weight of the task's own loss.", minimum=0.0
    )
    soft: float = options.option(
        1.0, "Weight of the teacher's answers.", minimum=0.0
    )
    cosine: float = options.option(
        0.0, "Weight of the angle of the last hidden states.", minimum=0.0
    )
    hidden: float = options.option(
        0.0, "Weight of the hidden states of the layers.", minimum=0.0
    )
    attention: float = options.option(
        0.0, "Weight of the attention scores of the layers.", minimum=0.0
    )
    layers: str = options.option(
        "",
        "For `distillation_hidden` and `distillation_attention` the teacher's "
        "layer of each layer, such as 2,4,6; empty: evenly spaced.",
    )
    store: bool = options.option(
        False,
        "Ask the teacher once, before the first step, and store its answers "
        "with the rows; not for states, and not in pretraining, whose masks "
        "are drawn anew.",
    )
    # Set by `bind`; neither saved nor compared.
    teachers: tuple[Any, ...] = dataclasses.field(
        default=(), repr=False, compare=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = (self.soft, self.cosine, self.hidden, self.attention)
        if not any(weights):
            raise errors.InputError(
                "distillation: expected a weight above 0 of soft, cosine, "
                "hidden or attention; give one, or leave the wrapper out.",
                argument="wrappers",
            )
        if self.soft:
            base.require_softmax_terms(self)
        if self.unwrapped.reads_targets:
            raise errors.InputError(
                f"distillation: {self.unwrapped.name} reads what it predicts, "
                "which a teacher does not get; leave the wrapper out.",
                argument="wrappers",
            )
        if self.store and (self._state_weights or not self.soft):
            raise errors.InputError(
                "distillation_store keeps the teacher's answers, and it is to "
                "teach its states as well; leave one of them out.",
                argument="distillation_store",
            )
        if self.layers and not (self.hidden or self.attention):
            raise errors.InputError(
                f"distillation_layers={self.layers} has no effect without "
                "distillation_hidden and distillation_attention; leave it out.",
                argument="distillation_layers",
            )

    def settings(self) -> dict[str, Any]:
        return {k: v for k, v in super().settings().items() if k != "teachers"}

    @property
    def needs_unchanged_rows(self) -> bool:  # type: ignore[override]
        return self.store

    @property
    def _soft_terms(self) -> dict[str, str]:
        """The softmax terms of the task -> those of the teacher's answers."""
        terms = self.task.softmax_terms if self.soft else ()
        answered = self.task.for_serving().softmax_terms
        return {term: f"soft_{term}" for term in terms if term in answered}

    @property
    def _state_weights(self) -> dict[str, float]:
        weights = {
            COSINE: self.cosine,
            HIDDEN: self.hidden,
            ATTENTION: self.attention,
        }
        return {name: weight for name, weight in weights.items() if weight}

    # The loss is not the inner task's alone.
    softmax_terms = ()

    @property
    def loss_weights(  # type: ignore[override]  # of the inner task and more
        self,
    ) -> Mapping[str, float]:
        inner = self.task.loss_weights
        weights = {
            term: self.hard * inner.get(term, 1.0)
            for term in self.task.softmax_terms
        }
        for term, soft in self._soft_terms.items():
            factor = inner.get(term, 1.0) * self.temperature**2
            weights[soft] = self.soft * factor
        return {**inner, **weights, **self._state_weights}

    def bind(self, load: Callable[[str], Any]) -> tasks.Task:
        """Loads the teachers: `load(path)` has `model` and `tokenizer`."""
        paths = [path.strip() for path in self.teacher.split(",")]
        if not all(paths):
            raise errors.InputError(
                f"distillation_teacher={self.teacher!r}: expected a trained "
                "model, or several with commas between.",
                argument="distillation_teacher",
            )
        if len(paths) > 1 and self._state_weights:
            raise errors.InputError(
                f"distillation_teacher={self.teacher}: the states of one "
                "teacher are learned, and the answers of several; give one, or "
                "distillation_soft alone.",
                argument="distillation_teacher",
            )
        loaded = tuple(map(load, paths))
        own = self.task
        if self.soft and loaded[0].model.task:
            own = _with_classes_of(own, loaded[0].model.task)
        for path, teacher in zip(paths, loaded, strict=True):
            self.with_task(own)._check_teacher(path, teacher.model.task)
        return dataclasses.replace(
            self,
            task=own.bind(load),
            teachers=tuple(teacher.model for teacher in loaded),
        )

    def _check_teacher(self, path, task):
        """Raises InputError for a teacher that answers something else."""
        if not self.soft:
            return
        wanted = self.task.for_serving().unwrapped
        found = task.unwrapped if task else None
        if type(found) is not type(wanted):
            same = False
        elif wanted.class_names:
            same = (wanted.class_names, wanted.text_columns) == (
                found.class_names,
                found.text_columns,
            )
        else:
            same = all(
                found.head_signatures.get(head) == meaning
                for head, meaning in wanted.head_signatures.items()
            )
        if (
            not same
            or found is None
            # It may answer more, as a BERT with next sentences does.
            or not {*wanted.softmax_terms} <= {*found.softmax_terms}
        ):
            raise errors.InputError(
                f"distillation_teacher={path}: expected a model of "
                f"{wanted.name} with the same answers, {_shown(wanted)}; found "
                f"{found.name if found else 'an encoder without a task'}"
                f"{', ' + _shown(found) if found else ''}.",
                argument="distillation_teacher",
            )

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        built = self.task.build_heads(config)
        if not (self.teachers and self._state_weights):
            return built
        teacher = self.teachers[0].encoder.config
        self._check_network(config, teacher)
        if self.hidden:
            built[HEAD] = heads.StateProjections(config, teacher.hidden_size)
        return built

    def _check_network(self, config, teacher):
        if self.cosine and config.hidden_size != teacher.hidden_size:
            raise errors.InputError(
                f"distillation_cosine={self.cosine:g} compares hidden states "
                f"of equal width; the network has {config.hidden_size} and "
                f"the teacher {teacher.hidden_size}. Give "
                "distillation_hidden, which projects them.",
                argument="distillation_cosine",
            )
        heads_of = [getattr(each, "num_heads", 0) for each in (config, teacher)]
        if self.attention and not heads_of[0] == heads_of[1] > 0:
            raise errors.InputError(
                f"distillation_attention={self.attention:g} compares as many "
                f"heads; the network has {heads_of[0]} and the teacher "
                f"{heads_of[1]}. Leave it out, or take a network with as many.",
                argument="distillation_attention",
            )
        if self.attention and _is_causal(config) != _is_causal(teacher):
            raise errors.InputError(
                f"distillation_attention={self.attention:g} compares attention "
                "to the same tokens, and one of the network and the teacher is "
                "causal. Leave it out.",
                argument="distillation_attention",
            )
        layer_map(self.layers, config.num_layers, teacher.num_layers)

    @property
    def head_signatures(self) -> Mapping[str, Any]:  # type: ignore[override]
        own = {HEAD: "projected states"} if self.hidden else {}
        return {**self.task.head_signatures, **own}

    @property
    def target_axes(  # type: ignore[override]  # of the inner task and more
        self,
    ) -> Mapping[str, str | None]:
        axes = self.task.softmax_axes
        stored = {soft: axes[term] for term, soft in self._stored.items()}
        return {**self.task.target_axes, **stored}

    @property
    def _stored(self) -> dict[str, str]:
        return self._soft_terms if self.store else {}

    def make_targets(
        self,
        raw: tasks.Tensors,
        features: tasks.Tensors,
        tokenizer: tokenizers.Tokenizer,
    ) -> tasks.Targets:
        """Adds the teachers' distributions (W, ..., C), if they are stored."""
        targets = dict(self.task.make_targets(raw, features, tokenizer))
        if not self.store:
            return targets
        on_tokens = [tokenizer.feature, "segment_ids", "padding_mask"]
        stored = self.task.stored_features.items()
        on_tokens += [name for name, axis in stored if axis == tasks.TOKENS]
        shares = self._shares_of_rows(
            self.task.add_derived_features(features),
            [name for name in on_tokens if name in features],
        )
        for term, soft in self._stored.items():
            _, weights = targets[term]
            if self._of_tokens(term):
                # Records have the same axes for both; see `randomize`.
                tokens = tf.ones_like(shares[soft])
                weights = weights[:, tf.newaxis] * tokens
            targets[soft] = shares[soft], weights
        return targets

    def _of_tokens(self, term):
        """Whether the classes are the tokens of a row, which has one weight."""
        return self.task.softmax_axes[term] != self.task.target_axes.get(term)

    def _shares_of_rows(self, features, on_tokens):
        """Returns the distributions of all rows, some rows at a time.

        Rows of similar length are answered together, without the padding that
        all of them have; on_tokens: the features (B, S, ...) that have it.
        """
        mask = features["padding_mask"].numpy()
        # Columns up to the last token, wherever padding is.
        columns = np.arange(1, mask.shape[1] + 1)
        lengths = np.max((mask > 0) * columns, axis=1, initial=1)
        order = np.argsort(lengths, kind="stable")
        answered: dict[str, list[tf.Tensor]] = {
            soft: [] for soft in self._stored.values()
        }
        for start in range(0, len(order), _ROWS):
            chosen = order[start : start + _ROWS]
            rows = {
                name: tf.gather(value, chosen)
                for name, value in features.items()
            }
            longest = lengths[chosen[-1]]
            rows |= {name: rows[name][:, :longest] for name in on_tokens}
            answers = [
                self._answer(each, each.encoder, rows) for each in self.teachers
            ]
            shares = self._shares(answers, rows)
            for term, soft in self._stored.items():
                is_of_tokens = self.task.softmax_axes[term] == tasks.TOKENS
                width = mask.shape[1] if is_of_tokens else None
                answered[soft].append(_as_wide(shares[soft], width))
        back = np.argsort(order)
        return {
            soft: tf.gather(tf.concat(parts, axis=0), back)
            for soft, parts in answered.items()
        }

    def _shares(self, answers, features):
        """Returns the teachers' distributions (B, ..., C) by soft term."""
        return {
            soft: mean_distribution(
                [
                    self.task.softmax_logits(answer, features, term)
                    for answer in answers
                ],
                self.temperature,
            )
            for term, soft in self._soft_terms.items()
        }

    def randomize(
        self, features: tasks.Tensors, targets: tasks.Targets, seeds: tf.Tensor
    ) -> tuple[tasks.Tensors, tasks.Targets]:
        """Adds the weights of the teacher's terms; their labels are unused.

        InputError if the rows lack answers that should be stored.
        """
        missing = [
            soft for soft in self._stored.values() if soft not in targets
        ]
        if missing:
            raise errors.InputError(
                "distillation_store: the records have no answers of a teacher, "
                "which are stored when labelled rows are tokenized. Leave it "
                "out.",
                argument="distillation_store",
            )
        features, targets = self.task.randomize(features, targets, seeds)
        targets = dict(targets)
        for term, soft in self._soft_terms.items():
            if not self.store and term in targets:
                targets[soft] = targets[term]
            elif self.store and self._of_tokens(term):
                shares, weights = targets[soft]
                targets[soft] = shares, weights[:, 0]
        is_token = tf.cast(features["padding_mask"] > 0, tf.float32)
        tokens = tf.reduce_sum(is_token, axis=1)
        for name in self._state_weights:
            targets[name] = tf.zeros_like(tokens, tf.int32), tokens
        return features, targets

    # All states may be compared.
    def positions_read(self, features: tasks.Tensors) -> tf.Tensor | None:
        if self._state_weights:
            return None
        return self.task.positions_read(features)

    def forward(
        self,
        encoder: keras.Model,
        heads: tasks.Heads,
        features: tasks.Tensors,
        *,
        targets: tasks.Targets | None = None,
        training: bool | None = False,
    ) -> tasks.Tensors:
        """Adds the teacher's answers and the losses of states, in training."""
        if targets is None or not training or self.store:
            return self.task.forward(
                encoder, heads, features, targets=targets, training=training
            )
        reads_states = bool(self._state_weights)
        student, teachers = encoder, [each.encoder for each in self.teachers]
        if reads_states:
            student, *teachers = (
                recorded_encoder.RecordedEncoder(
                    each, attentions=bool(self.attention)
                )
                for each in (encoder, *teachers)
            )
        outputs = self.task.forward(
            student, heads, features, targets=targets, training=True
        )
        answers = [
            self._answer(model, recorded, features)
            for model, recorded in zip(self.teachers, teachers, strict=True)
        ]
        outputs = dict(outputs)
        if self.soft:
            outputs |= self._shares(answers, features)
        if reads_states:
            outputs |= self._state_losses(
                student.calls, teachers[0].calls, heads.get(HEAD)
            )
        return outputs

    def _answer(self, teacher, encoder, features):
        """Runs a teacher; without soft targets its encoder alone."""
        if self.soft:
            return teacher.task.forward(
                encoder, teacher.head.by_name(), features, training=False
            )
        # It may be of another task, whose features there are not.
        rows = self.task.encoder_rows(features, encoder.config.inputs)
        return networks.encode(encoder, rows)

    def _state_losses(self, calls, teacher_calls, projections):
        """Returns the summed losses of each row's states, (B,), by term."""
        (inputs, own), (_, teacher) = calls[0], teacher_calls[0]
        is_token = tf.cast(inputs["padding_mask"] > 0, tf.float32)
        chosen = layer_map(
            self.layers, len(own["hidden"]) - 1, len(teacher["hidden"]) - 1
        )
        losses = {}
        if self.cosine:
            angles = 1 - cosine(own["hidden"][-1], teacher["hidden"][-1])
            losses[COSINE] = tf.reduce_sum(angles * is_token, axis=1)
        if self.hidden:
            matched = [teacher["hidden"][layer] for layer in (0, *chosen)]
            differences = [
                mean_square(state, tf.stop_gradient(target))
                for state, target in zip(
                    projections(own["hidden"]), matched, strict=True
                )
            ]
            mean = tf.add_n(differences) / len(differences)
            losses[HIDDEN] = tf.reduce_sum(mean * is_token, axis=1)
        if self.attention:
            mask = layers_lib.attention_mask(
                inputs["padding_mask"],
                causal=_is_causal(self.teachers[0].encoder.config),
            )
            differences = [
                score_difference(one, teacher["attentions"][layer - 1], mask)
                for one, layer in zip(own["attentions"], chosen, strict=True)
            ]
            mean = tf.add_n(differences) / len(differences)
            losses[ATTENTION] = tf.reduce_sum(mean * is_token, axis=1)
        return losses

    def loss(
        self,
        outputs: tasks.Tensors,
        features: tasks.Tensors,
        targets: tasks.Targets,
    ) -> tasks.Tensors:
        terms = {
            term: loss if term in self.task.softmax_terms else self.hard * loss
            for term, loss in self.task.loss(outputs, features, targets).items()
        }
        for term, soft in self._soft_terms.items():
            if soft in (targets if self.store else outputs):
                stored, weights = targets[soft]
                shares = stored if self.store else outputs[soft]
                logits = self.task.softmax_logits(outputs, features, term)
                divergence = divergence_from(shares, logits / self.temperature)
                terms[soft] = tf.reduce_sum(divergence * weights)
        for name in self._state_weights:
            if name in outputs:
                terms[name] = tf.reduce_sum(outputs[name])
        return terms


def _with_classes_of(task: tasks.Task, teacher: tasks.Task) -> tasks.Task:
    """Returns the task with all classes of a teacher that has its own.

    A teacher may know classes that the rows do not have, such as texts that it
    has labelled itself.
    """
    changes = {}
    for name in _CLASSES:
        own = getattr(task.unwrapped, name, None)
        known = getattr(teacher.unwrapped, name, None)
        if own and known and own != known and {*own} <= {*known}:
            changes[name] = known
    if any(getattr(task.unwrapped, name, ()) for name in ("weights", "counts")):
        return task  # those are of its own classes
    return task.with_settings(**changes) if changes else task


def _as_wide(values: tf.Tensor, width: int | None) -> tf.Tensor:
    """Pads (B, S, ...) with zeros to `width` columns, if it is given."""
    if width is None:
        return values
    more = [[0, 0]] * len(values.shape)
    more[1] = [0, width - values.shape[1]]
    return tf.pad(values, more)


def _is_causal(config: networks.NetworkConfig) -> bool:
    return getattr(config, "causal", False)


def _shown(task: tasks.Task) -> str:
    if task.class_names:
        columns = " and ".join(task.text_columns)
        return f"{errors.listed(task.class_names)} for {columns}"
    signatures = task.head_signatures.items()
    return ", ".join(f"{k}: {str(v)[:60]}" for k, v in signatures)


def layer_map(layers: str, own: int, teachers: int) -> tuple[int, ...]:
    """Returns the teacher's layer of each of the student's, from 1.

    layers: numbers with commas between; empty: evenly spaced, the last one is
      the teacher's last. For 2 of 6: 3, 6.
    """
    if not layers:
        return tuple(
            max(1, round(number * teachers / own))
            for number in range(1, own + 1)
        )
    try:
        chosen = tuple(int(number) for number in layers.split(","))
    except ValueError:
        chosen = ()
    if len(chosen) != own or not all(1 <= n <= teachers for n in chosen):
        raise errors.InputError(
            f"distillation_layers={layers}: expected a layer of the teacher, "
            f"from 1 to {teachers}, for each of the network's {own} layers, "
            "such as 2,4,6.",
            argument="distillation_layers",
        )
    return chosen


def mean_distribution(
    logits: Sequence[tf.Tensor], temperature: float
) -> tf.Tensor:
    """Averages softmax(logits / T) of several teachers, (..., C) each."""
    shares = [tf.nn.softmax(each / temperature) for each in logits]
    return tf.stop_gradient(tf.add_n(shares) / len(shares))


def divergence_from(shares: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns KL(p || softmax(logits)), p and logits (..., C) -> (...)."""
    known = tf.math.xlogy(shares, shares)
    found = shares * tf.nn.log_softmax(logits)
    return tf.reduce_sum(known - found, axis=-1)


def cosine(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns the cosine of vectors (..., H), float32 (...)."""
    one, other = (
        tf.math.l2_normalize(tf.cast(each, tf.float32), axis=-1)
        for each in (one, tf.stop_gradient(other))
    )
    return tf.reduce_sum(one * other, axis=-1)


def mean_square(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns the mean squared difference of vectors (..., H), float32."""
    difference = tf.cast(one, tf.float32) - tf.cast(other, tf.float32)
    return tf.reduce_mean(tf.square(difference), axis=-1)


def score_difference(
    own: tf.Tensor, teachers: tf.Tensor, mask: tf.Tensor
) -> tf.Tensor:
    """Compares attention scores, each without its mean over the keys.

    Distributions (B, N, S, S), mask (B, S, S) bool: the keys that each query
    attends to -> the mean squared difference over heads and these, (B, S).
    """
    mask = tf.cast(mask, tf.float32)[:, tf.newaxis]  # (B, 1, S, S)
    count = tf.maximum(tf.reduce_sum(mask, axis=-1, keepdims=True), 1.0)

    def scores(distribution):
        # The log of a softmax is the score less a constant of the query.
        score = tf.math.log(tf.maximum(distribution, 1e-30)) * mask
        mean = tf.reduce_sum(score, axis=-1, keepdims=True) / count
        return (score - mean) * mask

    difference = scores(own) - tf.stop_gradient(scores(teachers))
    squares = tf.reduce_sum(tf.square(difference), axis=-1) / count[..., 0]
    return tf.reduce_mean(squares, axis=1)
