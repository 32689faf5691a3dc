"""Early exit: texts that are easy leave the network at a lower layer."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, exits, options, recorded_encoder
from bert_keras.networks import base as networks
from bert_keras.networks import bert
from bert_keras.tasks import base as tasks
from bert_keras.wrappers import base
from bert_keras.wrappers.distillation import divergence_from

HEAD = "exits"
LAYER = "exit_layer"  # of the answers
LAYERS = "exit_logits"  # of all layers, while the speed is chosen
# Metrics.
MEAN = "mean_exit_layer"
SPEED = "exit_speed"
# Those that are tried, 0 to 1.
SPEEDS = tuple(number / 100 for number in range(101))


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class EarlyExit(base.Wrapper):
    """Puts a classifier on every layer, which learns from the last one.

    Each learns the distribution that the task's own head has on the last layer
    (Liu et al. 2020, FastBERT, section 3.3: self-distillation); no gradient of
    theirs reaches the network, which is trained as without them. A text is
    answered by the first layer whose entropy, as a share of the largest
    possible, is below `speed`, and the layers above do not compute it. With 0
    the answers are those of the task alone. Each answer has its `exit_layer`.

    With `keep` or `mean_layer` the speed is chosen on the dev rows, and saved:
    their evaluation computes all layers.
    """

    speed: float = options.option(
        0.5,
        "A text leaves at the first layer that is surer than this, from 0, the "
        "last layer, to 1, the first one. It can be changed later.",
        minimum=0.0,
        maximum=1.0,
    )

    keep: float = options.option(
        0.0,
        "Choose the speed on the dev rows: the largest one that keeps this "
        "share of the complete network's metric, such as 0.99; 0: take "
        "`early_exit_speed`.",
        minimum=0.0,
        maximum=1.0,
    )
    mean_layer: float = options.option(
        0.0,
        "Choose the speed on the dev rows: the smallest one with which their "
        "mean exit layer is at most this; 0: take `early_exit_speed`.",
        minimum=0.0,
    )

    # Set by `for_device`: the exit is a branch, of a batch of one row.
    one_row: bool = dataclasses.field(default=False, repr=False, compare=False)

    leaves_no_trace = False
    request_settings = {"speed": "float32"}
    # The exits' loss is a divergence.
    softmax_terms = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.task.softmax_terms) != 1:
            self._refuse()
        pooling = getattr(self.unwrapped, "pooling", "first")
        if pooling == "layers":
            raise errors.InputError(
                "early_exit: pooling=layers reads several layers at once, and "
                "a text may leave before them; choose another pooling.",
                argument="pooling",
            )
        if getattr(self.unwrapped, "reads_both_orders", False):
            raise errors.InputError(
                "early_exit: with pair_order=both a row is read twice, and "
                "each time it may leave at another layer; leave it out.",
                argument="pair_order",
            )
        if 0 < self.mean_layer < 1:
            raise errors.InputError(
                f"early_exit_mean_layer={self.mean_layer:g}: expected 1, the "
                "first layer, or more.",
                argument="early_exit_mean_layer",
            )
        if self.keep and self.mean_layer:
            raise errors.InputError(
                f"early_exit_keep={self.keep:g} and early_exit_mean_layer="
                f"{self.mean_layer:g} choose the same speed; give one of them.",
                argument="early_exit_keep",
            )

    def _refuse(self):
        if isinstance(self.task, base.Wrapper):
            name = self.task.name
            raise errors.InputError(
                f"early_exit cannot be combined with {name}, whose loss is "
                f"none of classes alone. Train with {name} first, and then "
                "with early_exit from that checkpoint.",
                argument="wrappers",
            )
        raise errors.InputError(
            "early_exit needs a task with one softmax over classes for each "
            "text, such as classification with problem_type=single_label "
            f"and without negatives; found {self.task.name}.",
            argument="wrappers",
        )

    def settings(self) -> dict[str, Any]:
        return {k: v for k, v in super().settings().items() if k != "one_row"}

    def for_device(self) -> tasks.Task:
        inner = self.task.for_device()
        return dataclasses.replace(self, task=inner, one_row=True)

    def for_serving(self) -> tasks.Task:
        """Returns the task with its speed, and without what chooses one."""
        inner = self.task.for_serving()
        return dataclasses.replace(self, task=inner, keep=0.0, mean_layer=0.0)

    @property
    def needs_dev_rows(self) -> str:
        for name in ("keep", "mean_layer"):
            if getattr(self, name):
                return f"early_exit_{name}"
        return ""

    @property
    def _term(self) -> str:
        (term,) = self.task.softmax_terms
        return term

    @property
    def notes(self) -> tuple[str, ...]:
        own = (
            "A text is answered by the first layer whose entropy, as a share "
            f"of the largest possible, is below {self.speed:g}: its "
            "`exit_layer`. Another `speed` may be given.",
        )
        return (*self.task.notes, *own)

    @property
    def _chooses(self) -> bool:
        return bool(self.keep or self.mean_layer)

    @property
    def head_signatures(self) -> Mapping[str, Any]:  # type: ignore[override]
        inner = self.task.head_signatures
        return {**inner, HEAD: list(self.unwrapped.class_names)}

    def build_heads(
        self, config: networks.NetworkConfig
    ) -> dict[str, keras.layers.Layer]:
        if not isinstance(config, bert.BertConfig) or config.num_layers < 2:
            raise errors.InputError(
                "wrappers=early_exit: expected a Transformer network of 2 or "
                f"more layers, found {config.name} with {config.num_layers}.",
                argument="wrappers",
            )
        count = len(self.unwrapped.class_names)
        if not count:
            self._refuse()
        return {
            **self.task.build_heads(config),
            HEAD: exits.ExitHeads(config, count),
        }

    def randomize(
        self, features: tasks.Tensors, targets: tasks.Targets, seeds: tf.Tensor
    ) -> tuple[tasks.Tensors, tasks.Targets]:
        features, targets = self.task.randomize(features, targets, seeds)
        return features, {**targets, HEAD: targets[self._term]}

    def positions_read(self, features: tasks.Tensors) -> tf.Tensor | None:
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
        """Adds "exits", logits (B, L - 1, C) of the layers before the last."""
        recorder = recorded_encoder.RecordedEncoder(encoder)
        outputs = self.task.forward(
            recorder,
            {name: head for name, head in heads.items() if name != HEAD},
            features,
            targets=targets,
            training=training,
        )
        ((inputs, encoded),) = recorder.calls
        hidden = [tf.stop_gradient(x) for x in encoded["hidden"][1:-1]]
        logits = heads[HEAD](hidden, inputs["padding_mask"], training=training)
        return outputs | {HEAD: logits}

    def loss(
        self,
        outputs: tasks.Tensors,
        features: tasks.Tensors,
        targets: tasks.Targets,
    ) -> tasks.Tensors:
        terms = self.task.loss(outputs, features, targets)
        last = self.task.softmax_logits(outputs, features, self._term)
        shares = tf.stop_gradient(tf.nn.softmax(last))[:, tf.newaxis]
        divergence = divergence_from(shares, outputs[HEAD])  # (B, L - 1)
        _, weights = targets[HEAD]
        mean = tf.reduce_mean(divergence, axis=1)
        return {**terms, HEAD: tf.reduce_sum(mean * weights)}

    def infer(self, model: Any, features: tasks.Tensors) -> tasks.Tensors:
        """Runs each row up to its exit: {TERM: (B, C), "exit_layer": (B,)}.

        If the speed is to be chosen it runs all layers, as "layers" (B, L, C).
        """
        if self._chooses:
            return self._all_layers(model, features)
        encoder = model.encoder
        inputs = {name: features[name] for name in encoder.config.inputs}
        x, mask = encoder.start(
            **inputs,
            position_ids=features.get("position_ids"),
            training=False,
        )
        speed = features.get("speed")
        if speed is None:
            speed = tf.fill(tf.shape(x)[:1], float(self.speed))
        rows = {
            "x": x,
            "mask": mask,
            "padding_mask": features["padding_mask"],
            "speed": speed,
        }
        if not self._has_one_row(rows):
            rows = exits.shortened(rows, self.unwrapped.head_length)
        logits, layer = self._run(model, rows, 1)
        return {self._term: logits, LAYER: layer}

    def _has_one_row(self, rows):
        return self.one_row and rows["x"].shape[0] == 1

    def _run(self, model, rows, layer):
        """Runs rows from a layer on: logits (R, C), their exits (R,) int32."""
        rows = dict(rows)
        logits, leaves = self._layer(model, rows, layer)
        exit_layer = tf.fill(tf.shape(leaves), layer)
        if layer == len(model.encoder.blocks):
            return logits, exit_layer

        def go_on():
            if self._has_one_row(rows):
                return self._run(model, rows, layer + 1)
            at = tf.where(tf.logical_not(leaves))
            length = self.unwrapped.head_length
            remaining = exits.selected(rows, at[:, 0], length)
            return tuple(
                tf.tensor_scatter_nd_update(own, at, above)
                for own, above in zip(
                    (logits, exit_layer),
                    self._run(model, remaining, layer + 1),
                    strict=True,
                )
            )

        return tf.cond(
            tf.reduce_all(leaves), lambda: (logits, exit_layer), go_on
        )

    def _all_layers(self, model, features):
        outputs = self.forward(model.encoder, model.head.by_name(), features)
        last = outputs[self._term]
        every = tf.concat([outputs[HEAD], last[:, tf.newaxis]], axis=1)
        layer = tf.fill(tf.shape(last)[:1], tf.shape(every)[1])
        return {self._term: last, LAYER: layer, LAYERS: every}

    def _layer(self, model, rows, layer):
        """Computes a layer, as "x" of the rows.

        Returns its logits (R, C), and whether each row leaves (R,) bool: all
        leave the last one.
        """
        encoder, heads = model.encoder, model.head.by_name()
        x, mask, padding_mask = (
            rows[name] for name in ("x", "mask", "padding_mask")
        )
        if layer < len(encoder.blocks):
            rows["x"] = encoder.blocks[layer - 1](x, mask, training=False)
            head = heads[HEAD].heads[layer - 1]
            logits = head(rows["x"], padding_mask, training=False)
            return logits, exits.is_sure(logits, rows["speed"])
        features = {"padding_mask": padding_mask}
        encoded, _ = encoder.run_last(
            [x], mask, padding_mask, self.positions_read(features)
        )
        encoded["token_table"] = encoder.token_table
        outputs = self.task.outputs(encoded, heads, features, training=False)
        return outputs[self._term], tf.ones_like(rows["speed"], tf.bool)

    def decode(
        self, outputs: tasks.Tensors, features: tasks.Tensors
    ) -> tasks.Tensors:
        decoded = self.task.decode(outputs, features)
        return {**decoded, **_of_exits(outputs)}

    def postprocess(
        self,
        decoded: tasks.Tensors,
        features: tasks.Tensors,
        raw: tasks.Tensors,
        tokenizer: Any,
    ) -> tasks.Tensors:
        """Returns the task's answers and "exit_layer" (T,) int32, from 1."""
        answers = self.task.postprocess(decoded, features, raw, tokenizer)
        return {**answers, **_of_exits(decoded)}

    def metrics(
        self, predictions: tasks.Answers, examples: Sequence[tasks.Example]
    ) -> dict[str, float]:
        """Adds the mean exit layer, and the speed if it is chosen."""
        if not self._chooses:
            return self._metrics(predictions, examples)
        speed, answers = self._chosen(predictions, examples)
        return {**self._metrics(answers, examples), SPEED: speed}

    def tables(
        self, predictions: tasks.Answers, examples: Sequence[tasks.Example]
    ) -> dict[str, tasks.Table]:
        if self._chooses:
            _, predictions = self._chosen(predictions, examples)
        return self.task.tables(predictions, examples)

    def calibrated(self, metrics: Mapping[str, float]) -> tasks.Task:
        """Returns the task with the chosen speed, which chooses none."""
        task = super().calibrated(metrics)
        if not self._chooses or SPEED not in metrics:
            return task
        return task.with_settings(
            speed=metrics[SPEED], keep=0.0, mean_layer=0.0
        )

    def _metrics(self, answers, examples):
        found = self.task.metrics(answers, examples)
        layers = [answer[LAYER] for answer in answers]
        return {**found, MEAN: float(np.mean(layers))}

    def _chosen(self, predictions, examples):
        """Returns the wanted speed of `SPEEDS`, and the answers with it."""
        if predictions and "label" not in predictions[0]:
            raise errors.InputError(
                "early_exit_keep and early_exit_mean_layer need answers with a "
                f"`label`; those of {self.task.name} have none. Give "
                "early_exit_speed.",
                argument="early_exit_keep",
            )
        tried = [(speed, self._at(speed, predictions)) for speed in SPEEDS]
        scores = [self._metrics(answers, examples) for _, answers in tried]
        if self.keep:
            (name, *_), complete = self.task.metric_names, scores[0]
            wanted = self.keep * complete[name]
            return [
                each
                for each, score in zip(tried, scores, strict=True)
                if score[name] >= wanted
            ][-1]
        return next(
            (
                each
                for each, score in zip(tried, scores, strict=True)
                if score[MEAN] <= self.mean_layer
            ),
            tried[-1],
        )

    def _at(self, speed, predictions):
        """Returns the answers of the first layer that is surer than `speed`."""
        logits = np.array([each[LAYERS] for each in predictions], np.float32)
        is_sure = exits.is_sure(logits, speed).numpy()
        is_sure[:, -1] = True
        layers = is_sure.argmax(axis=1)
        classes = logits[np.arange(len(layers)), layers].argmax(axis=1)
        names = self.unwrapped.class_names
        return [
            {**answer, "label": names[number], LAYER: int(layer) + 1}
            for answer, number, layer in zip(
                predictions, classes, layers, strict=True
            )
        ]


def _of_exits(outputs: tasks.Tensors) -> tasks.Tensors:
    return {name: outputs[name] for name in (LAYER, LAYERS) if name in outputs}
