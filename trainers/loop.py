"""The training step and the loop around it.

One call of a train step is one global update: N replicas, each with k
accumulation steps, give what one replica with the whole batch would give.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from bert_keras import model as model_lib
from bert_keras import optimization
from bert_keras.tasks import base

Batch = Mapping[str, Any]
Metrics = dict[str, tf.Tensor]


class LossScale:
    """Dynamic loss scale for float16 (Micikevicius et al. 2018, section 3.2).

    Halved when a gradient is not finite, doubled after `growth_steps` finite
    ones. With scale 1 and no growth it is the identity, for other types.
    Construct it under the strategy's scope.
    """

    def __init__(self, initial: float = 2.0**15, growth_steps: int = 2000):
        self.growth_steps = growth_steps
        self.scale = tf.Variable(initial, trainable=False)
        self.finite_steps = tf.Variable(0, trainable=False)

    def update(self, finite: tf.Tensor) -> None:
        """Inside a replica, the same `finite` on all."""
        if not self.growth_steps:
            return
        steps = tf.where(finite, self.finite_steps + 1, 0)
        grow = steps >= self.growth_steps
        factor = tf.where(finite, tf.where(grow, 2.0, 1.0), 0.5)
        self.scale.assign(tf.maximum(self.scale * factor, 1.0))
        self.finite_steps.assign(tf.where(grow, 0, steps))


def no_loss_scale() -> LossScale:
    return LossScale(initial=1.0, growth_steps=0)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainStep:
    """One global update; made by `make_train_step`."""

    model: model_lib.BertModel
    task: base.Task
    optimizer: optimization.Optimizer
    loss_scale: LossScale
    seed: int
    accumulation_steps: int
    clip_norm: float
    # Which variables the losses depend on; filled in by the first trace.
    used: list[bool] = dataclasses.field(default_factory=list)

    def replica(self, batch: Batch) -> Metrics:
        """What each replica runs on its part of the batch."""
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        step, targets = batch["step"], batch["targets"]
        # The loss weights come from the targets, so they are global before
        # the backward pass, and each term's mean is made once.
        terms = sorted(targets)
        weight = tf.stack([tf.reduce_sum(targets[t][1]) for t in terms])
        weight = _sum_over_replicas(context, weight)
        factors = [
            tf.math.divide_no_nan(self.task.coefficients.get(t, 1.0), w)
            for t, w in zip(terms, tf.unstack(weight), strict=True)
        ]
        place = replicas_place(context) * self.accumulation_steps
        gradients, sums = self._accumulate(batch, terms, factors, place)
        *gradients, sums = _packed_sum(context, [*gradients, sums], replicas)

        # Norm, check and clip see the reduced gradient: Keras clips and
        # checks each replica's share, which is a different number.
        norm = tf.linalg.global_norm(gradients) / self.loss_scale.scale
        finite = tf.math.is_finite(norm)
        factor = 1.0 / self.loss_scale.scale
        if self.clip_norm:
            factor *= tf.minimum(
                1.0, tf.math.divide_no_nan(self.clip_norm, norm)
            )

        def update():
            self.optimizer.apply(
                [g * factor for g in gradients], step, used=self.used
            )
            return 0

        skipped = tf.cond(finite, update, lambda: 1)
        scale = tf.identity(self.loss_scale.scale)
        self.loss_scale.update(finite)

        *losses, tokens = tf.unstack(sums)
        means = [
            tf.math.divide_no_nan(loss, w)
            for loss, w in zip(losses, tf.unstack(weight), strict=True)
        ]
        total = tf.add_n(
            [
                self.task.coefficients.get(t, 1.0) * mean
                for t, mean in zip(terms, means, strict=True)
            ]
        )
        return {
            "loss": total,
            **{f"loss/{t}": m for t, m in zip(terms, means, strict=True)},
            "learning_rate": self.optimizer.schedule(step),
            "gradient_norm": norm,
            "loss_scale": scale,
            "skipped": skipped,
            "tokens": tokens,
        }

    def _accumulate(self, batch, terms, factors, place):
        """Sums of gradients, and of losses and tokens, over the parts."""
        count = self.accumulation_steps
        if count == 1:
            return self._gradients(batch, terms, factors, place)
        parts = tf.nest.map_structure(
            lambda x: tf.reshape(
                x, tf.concat([[count, -1], tf.shape(x)[1:]], axis=0)
            ),
            {key: batch[key] for key in ("inputs", "targets")},
        )

        def body(index, *totals):
            part = tf.nest.map_structure(lambda x: x[index], parts)
            part["step"] = batch["step"]
            gradients, sums = self._gradients(
                part, terms, factors, place + index
            )
            added = [
                a + b for a, b in zip(totals, [*gradients, sums], strict=True)
            ]
            return index + 1, *added

        zeros = [tf.zeros(v.shape) for v in self.optimizer.variables]
        zeros.append(tf.zeros(len(terms) + 1))
        _, *gradients, sums = tf.while_loop(
            lambda index, *_: index < count, body, (0, *zeros)
        )
        return gradients, sums

    def _gradients(self, batch, terms, factors, place):
        """Gradient of the scaled loss; sums of the losses and of tokens."""
        self._seed_dropout(batch["step"], place)
        inputs, targets = batch["inputs"], batch["targets"]
        variables = [v.value for v in self.optimizer.variables]
        with tf.GradientTape() as tape:
            outputs = self.model(inputs, training=True)
            losses = self.task.loss(outputs, inputs, targets)
            losses = [losses[term] for term in terms]
            total = tf.add_n(
                [f * loss for f, loss in zip(factors, losses, strict=True)]
            )
            total *= self.loss_scale.scale
        gradients = tape.gradient(total, variables)
        # Known while the graph is made: a pooler that no term reads must not
        # decay to nothing.
        self.used[:] = [gradient is not None for gradient in gradients]
        tokens = tf.reduce_sum(tf.cast(inputs["padding_mask"] > 0, tf.float32))
        return (
            [
                # Lengths vary from batch to batch, shapes of weights do not.
                tf.zeros(v.shape)
                if g is None
                else tf.ensure_shape(tf.convert_to_tensor(g), v.shape)
                for g, v in zip(gradients, variables, strict=True)
            ],
            tf.stack([*losses, tokens]),
        )

    def _seed_dropout(self, step, place):
        """Dropout from (seed, step, layer, replica, accumulation step).

        Assigned here, inside the replica: done outside, all replicas would
        draw the same masks.
        """
        states = [
            variable
            for variable in self.model.non_trainable_variables
            if variable.path.endswith("seed_generator_state")
        ]
        step = tf.cast(step, tf.int32)
        for layer, state in enumerate(states):
            seed = tf.random.experimental.stateless_fold_in(
                tf.stack([self.seed, step]), place * len(states) + layer
            )
            state.assign(tf.cast(seed, state.dtype))


def make_train_step(
    model: model_lib.BertModel,
    task: base.Task,
    optimizer: optimization.Optimizer,
    *,
    strategy: tf.distribute.Strategy,
    seed: int,
    gradient_accumulation_steps: int = 1,
    clip_norm: float = 1.0,
    loss_scale: LossScale | None = None,
    xla: bool = False,
) -> Callable[[Batch], Metrics]:
    """A function of one global batch that makes one update.

    Returns {"loss", "loss/TERM", "learning_rate", "gradient_norm",
    "loss_scale", "skipped", "tokens"}, scalars of the whole batch.
    """
    with strategy.scope():
        step = TrainStep(
            model=model,
            task=task,
            optimizer=optimizer,
            loss_scale=loss_scale or no_loss_scale(),
            seed=seed,
            accumulation_steps=gradient_accumulation_steps,
            clip_norm=clip_norm,
        )

    # Without XLA one graph serves every padded length.
    @tf.function(jit_compile=xla, reduce_retracing=not xla, autograph=False)
    def train_step(batch):
        metrics = strategy.run(step.replica, args=(batch,))
        return tf.nest.map_structure(
            lambda value: strategy.experimental_local_results(value)[0],
            metrics,
        )

    return train_step


def make_evaluate_step(
    model: model_lib.BertModel,
    task: base.Task,
    *,
    strategy: tf.distribute.Strategy,
    xla: bool = False,
) -> Callable[[Batch], dict[str, tf.Tensor]]:
    """A function of a global batch -> {score: (2,) sum and weight}.

    Scores are the loss terms and the task's own.
    """

    def replica(batch):
        inputs, targets = batch["inputs"], batch["targets"]
        outputs = model(inputs, training=False)
        sums = {
            f"loss/{term}": (loss, tf.reduce_sum(targets[term][1]))
            for term, loss in task.loss(outputs, inputs, targets).items()
        }
        sums |= task.sums(outputs, inputs, targets)
        context = tf.distribute.get_replica_context()
        return {
            name: _sum_over_replicas(context, tf.stack(pair))
            for name, pair in sums.items()
        }

    @tf.function(jit_compile=xla, reduce_retracing=not xla, autograph=False)
    def evaluate_step(batch):
        sums = strategy.run(replica, args=(batch,))
        return tf.nest.map_structure(
            lambda value: strategy.experimental_local_results(value)[0], sums
        )

    return evaluate_step


def evaluate(evaluate_step, batches: Iterable[Batch]) -> dict[str, float]:
    """Means over all batches: sums and weights travel, means come last."""
    totals: dict[str, Any] = {}
    for batch in batches:
        for name, pair in evaluate_step(batch).items():
            totals[name] = totals.get(name, 0.0) + pair.numpy()
    return {
        name: float(total / weight) if weight else 0.0
        for name, (total, weight) in totals.items()
    }


@dataclasses.dataclass(frozen=True)
class every:  # noqa: N801 (reads as a phrase: every(100, save))
    """An action at steps count, 2 count, ... and after the last step.

    Steps are counted from 1; count 0 means after the last step only.
    """

    count: int
    action: Callable[[int, Metrics], None]


def train(
    train_step: Callable[[Batch], Metrics],
    batches: Iterable[Batch],
    *,
    start: int,
    stop: int,
    actions: Sequence[every] = (),
) -> None:
    """Runs steps start..stop - 1.

    After each, the actions that are due see the number of steps done and the
    metrics, which stay on the device until an action reads them.
    """
    for done, batch in zip(range(start + 1, stop + 1), batches, strict=False):
        metrics = train_step(batch)
        for each in actions:
            if done == stop or (each.count and done % each.count == 0):
                each.action(done, metrics)


def distribute(
    strategy: tf.distribute.Strategy,
    make_stream: Callable[..., tf.data.Dataset],
) -> Iterable[Batch]:
    """Batches of a stream, each replica getting its own part of each step.

    make_stream(parts=, own=) makes the stream of some parts of every batch.
    """
    parts = strategy.num_replicas_in_sync
    if parts == 1:
        return make_stream(parts=1, own=range(1)).prefetch(2)

    def own_parts(context):
        local = parts // context.num_input_pipelines
        first = context.input_pipeline_id * local
        own = range(first, first + local)
        return make_stream(parts=parts, own=own).prefetch(2 * local)

    return strategy.distribute_datasets_from_function(own_parts)


def replicas_place(context) -> tf.Tensor:
    return tf.cast(context.replica_id_in_sync_group, tf.int32)


def _sum_over_replicas(context, value):
    if context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def _packed_sum(context, tensors, replicas):
    """One all-reduce for all tensors: many small ones wait on each other."""
    if replicas == 1:
        return tensors
    packed = tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)
    packed = context.all_reduce(tf.distribute.ReduceOp.SUM, packed)
    parts = tf.split(packed, [t.shape.num_elements() for t in tensors])
    return [
        tf.reshape(part, t.shape)
        for part, t in zip(parts, tensors, strict=True)
    ]
