"""The training step and the evaluation step.

One call of a train step is one global update: several replicas, each with
several accumulation steps, produce the same update as one replica with the
whole batch.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from bert_keras import errors, optimizers
from bert_keras import model as model_lib
from bert_keras.tasks import base

Batch = dict[str, Any]  # inputs, targets, step; perhaps stop_requested
Metrics = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Batches:
    """The global batches of a run, from `make`, whenever they are iterated.

    element_spec: their structure; a size that differs between batches is None.
    """

    make: Callable[[], Iterator[Batch]]
    element_spec: Batch

    def __iter__(self) -> Iterator[Batch]:
        return self.make()


class Step:
    """A step of global batches: batch -> {metric: tensor}.

    Without XLA one graph serves every padded length; XLA needs static shapes,
    so one graph per length.
    """

    def __init__(self, function: Callable[[Batch], Metrics], compiled: str):
        """compiled: see `_compiled_part`."""
        self._makes_one_graph = not compiled
        self._function = tf.function(
            function,
            jit_compile=compiled == "step",
            reduce_retracing=not compiled,
            autograph=False,
        )

    def __call__(self, batch: Batch) -> Metrics:
        return self._function(batch)

    @property
    def num_graphs(self) -> int:
        return self._function.experimental_get_tracing_count()

    def trace(self, element_spec: Batch) -> None:
        """Makes the graph that serves all batches of a `Batches.element_spec`.

        Otherwise the first batches would decide which lengths get graphs of
        their own. These may round in another way, and a resumed run, whose
        first batch is another one, would not be the run that never stopped.
        """
        if self._makes_one_graph:
            self._function.get_concrete_function(element_spec)


class LossScale:
    """Loss scale for float16 (Micikevicius et al. 2018, section 3.2).

    It is halved when a gradient is not finite and doubled after `growth_steps`
    finite ones; with growth_steps=0 it is fixed. Construct it under the
    strategy's scope.
    """

    def __init__(self, initial: float = 2.0**15, growth_steps: int = 2000):
        self.growth_steps = growth_steps
        self.scale = tf.Variable(initial, trainable=False)
        self.good_steps = tf.Variable(0, trainable=False)

    def update(self, finite: tf.Tensor) -> None:
        """Updates the scale; called on every replica with the same `finite`."""
        if not self.growth_steps:
            return
        steps = tf.where(finite, self.good_steps + 1, 0)
        grow = steps >= self.growth_steps
        factor = tf.where(finite, tf.where(grow, 2.0, 1.0), 0.5)
        self.scale.assign(tf.maximum(self.scale * factor, 1.0))
        self.good_steps.assign(tf.where(grow, 0, steps))


def fixed_loss_scale(scale: float = 1.0) -> LossScale:
    """Makes a constant loss scale; 1 (no scaling) is for float32, bfloat16."""
    return LossScale(initial=scale, growth_steps=0)


@dataclasses.dataclass(eq=False)
class TrainStep:
    """One global update; made by `make_train_step`."""

    model: model_lib.BertModel
    task: base.Task
    optimizer: optimizers.Optimizer
    loss_scale: LossScale
    seed: int
    accumulation_steps: int
    clip_norm: float
    # Whether XLA compiles the gradients only: outside TPUs it cannot compile
    # an all-reduce between replicas.
    compile_gradients: bool = False
    # Which variables the losses depend on; recorded when the step is traced.
    has_gradient: list[bool] = dataclasses.field(default_factory=list)

    def replica(self, batch: Batch, stop_requested: tf.Tensor) -> Metrics:
        """Runs the step on one replica's shard of the batch.

        stop_requested () float32: not 0 if this worker was asked to stop.
        """
        context = tf.distribute.get_replica_context()
        step, targets = batch["step"], batch["targets"]
        # The sample weights are in the targets, so their global sums are known
        # before the backward pass.
        terms = sorted(targets)
        weight_sums = self._weight_sums(context, targets, terms)
        term_factors = [
            tf.math.divide_no_nan(self.task.loss_weights.get(t, 1.0), w)
            for t, w in zip(terms, tf.unstack(weight_sums), strict=True)
        ]
        first_micro_batch = replica_id(context) * self.accumulation_steps

        def compute(batch, term_factors, first_micro_batch):
            return self._accumulate(
                batch, terms, term_factors, first_micro_batch
            )

        if self.compile_gradients:
            compute = tf.function(compute, jit_compile=True, autograph=False)
        gradients, sums = compute(batch, term_factors, first_micro_batch)
        *gradients, sums, stop_requested = self._reduce(
            context, [*gradients, sums, stop_requested]
        )

        # Compute the norm, the finite check and clipping from the reduced
        # gradient. Keras uses each replica's part, whose norm is different.
        norm = self._norm(gradients) / self.loss_scale.scale
        finite = tf.math.is_finite(norm)
        gradient_factor = 1.0 / self.loss_scale.scale
        if self.clip_norm:
            gradient_factor *= tf.minimum(
                1.0, tf.math.divide_no_nan(self.clip_norm, norm)
            )

        def update():
            self.optimizer.apply(
                gradients,
                step,
                factor=gradient_factor,
                has_gradient=self.has_gradient,
            )
            return 0

        skipped = tf.cond(finite, update, lambda: 1)
        scale = tf.identity(self.loss_scale.scale)
        self.loss_scale.update(finite)

        return self._metrics(terms, sums, weight_sums) | {
            **self.optimizer.learning_rates(step),
            "gradient_norm": norm,
            "loss_scale": scale,
            "skipped": skipped,
            "stop_requested": stop_requested,
        }

    def _weight_sums(self, context, targets, terms):
        """Returns the sum of each term's weights, over all replicas."""
        sums = tf.stack([tf.reduce_sum(targets[t][1]) for t in terms])
        return _sum_over_replicas(context, sums)

    def _reduce(self, context, tensors):
        """Sums all tensors over replicas in one all-reduce.

        Many small all-reduces would wait for each other.
        """
        if context.num_replicas_in_sync == 1:
            return tensors
        packed, unpack = pack(tensors)
        return unpack(context.all_reduce(tf.distribute.ReduceOp.SUM, packed))

    def _metrics(
        self, terms: Sequence[str], sums: tf.Tensor, weight_sums: tf.Tensor
    ) -> Metrics:
        """Returns the loss means and the number of tokens of the whole batch.

        sums: the sum of each term's losses, then the number of tokens.
        weight_sums: the sum of each term's weights.
        """
        *losses, tokens = tf.unstack(sums)
        means = [
            tf.math.divide_no_nan(loss, w)
            for loss, w in zip(losses, tf.unstack(weight_sums), strict=True)
        ]
        total = tf.add_n(
            [
                self.task.loss_weights.get(t, 1.0) * mean
                for t, mean in zip(terms, means, strict=True)
            ]
        )
        return {
            "loss": total,
            **{f"loss/{t}": m for t, m in zip(terms, means, strict=True)},
            "tokens": tokens,
        }

    def _accumulate(self, batch, terms, term_factors, first_micro_batch):
        """Sums gradients, losses and tokens over micro-batches."""
        count = self.accumulation_steps
        if count == 1:
            return self._gradients(
                batch, terms, term_factors, first_micro_batch
            )
        micro_batches = self._micro_batches(batch)

        def body(index, *totals):
            micro_batch = tf.nest.map_structure(
                lambda x: x[index], micro_batches
            )
            micro_batch["step"] = batch["step"]
            gradients, sums = self._gradients(
                micro_batch, terms, term_factors, first_micro_batch + index
            )
            added = [
                a + b for a, b in zip(totals, [*gradients, sums], strict=True)
            ]
            return index + 1, *added

        zeros = [tf.zeros(v.shape) for v in self.optimizer.variables]
        zeros.append(tf.zeros(len(terms) + 1))
        _, *gradients, sums = tf.while_loop(
            lambda index, *_: index < count,
            body,
            (0, *zeros),
            # One at a time: each micro-batch assigns the dropout seeds.
            parallel_iterations=1,
        )
        return gradients, sums

    def _micro_batches(self, batch):
        """Returns inputs and targets as (micro-batches, rows of one, ...)."""
        count = self.accumulation_steps
        return tf.nest.map_structure(
            lambda x: tf.reshape(
                x, tf.concat([[count, -1], tf.shape(x)[1:]], axis=0)
            ),
            {key: batch[key] for key in ("inputs", "targets")},
        )

    def _gradients(self, batch, terms, term_factors, micro_batch_index):
        """Returns gradients of the scaled loss, and sums of losses, tokens."""
        self._seed_dropout(batch["step"], micro_batch_index)
        variables = [v.value for v in self.optimizer.variables]
        with tf.GradientTape() as tape:
            total, sums = self._losses(batch, terms, term_factors)
        gradients = tape.gradient(total, variables)
        # Recorded at trace time: a variable without a gradient, such as a
        # pooler that no term reads, is not updated, or weight decay would
        # shrink it to 0.
        self.has_gradient[:] = [gradient is not None for gradient in gradients]
        return [
            tf.zeros(variables[index].shape)
            if gradient is None
            else self._dense(gradient, index)
            for index, gradient in enumerate(gradients)
        ], sums

    def _losses(self, batch, terms, term_factors, encoder=None):
        """Returns the scaled loss, and the sums of losses and tokens.

        encoder: see `BertModel.call`.
        """
        inputs, targets = batch["inputs"], batch["targets"]
        outputs = self.model(inputs, targets, training=True, encoder=encoder)
        self._check_variables()
        losses = self.task.loss(outputs, inputs, targets)
        losses = [losses[term] for term in terms]
        total = tf.add_n(
            [f * loss for f, loss in zip(term_factors, losses, strict=True)]
        )
        tokens = tf.reduce_sum(tf.cast(inputs["padding_mask"] > 0, tf.float32))
        return total * self.loss_scale.scale, tf.stack([*losses, tokens])

    def _dense(self, gradient, index):
        """Returns the gradient of a variable as a tensor of its shape."""
        # ensure_shape: the batch's length is unknown when tracing, and
        # gradients may lose their static shape with it.
        shape = self.optimizer.variables[index].shape
        return tf.ensure_shape(tf.convert_to_tensor(gradient), shape)

    def _norm(self, gradients):
        """Returns the global norm; each square on its variable's device."""
        squares = []
        for index, gradient in enumerate(gradients):
            with self.optimizer.on_device_of(index):
                squares.append(tf.nn.l2_loss(gradient))
        return tf.sqrt(2.0 * tf.reduce_sum(tf.stack(squares)))

    def _check_variables(self):
        """Raises InputError if the first call created weights."""
        optimized = {id(variable) for variable in self.optimizer.variables}
        late = [
            variable.path
            for variable in self.model.trainable_variables
            if id(variable) not in optimized
        ]
        if late:
            raise errors.InputError(
                f"a head of {self.task.name} made weights when it was called, "
                f"which nothing would train: {', '.join(late)}. Build every "
                "layer in the head's `build`."
            )

    def _seed_dropout(self, step, micro_batch_index):
        """Seeds dropout from (seed, step, layer, replica, micro-batch).

        Seeds are assigned in replica context: otherwise all replicas would
        have the same dropout masks.
        """
        states = [
            variable
            for variable in self.model.non_trainable_variables
            if variable.path.endswith("seed_generator_state")
        ]
        step = tf.cast(step, tf.int32)
        for index, state in enumerate(states):
            seed = tf.random.experimental.stateless_fold_in(
                tf.stack([self.seed, step]),
                micro_batch_index * len(states) + index,
            )
            state.assign(tf.cast(seed, state.dtype))


def make_train_step(
    model: model_lib.BertModel,
    task: base.Task,
    optimizer: optimizers.Optimizer,
    *,
    strategy: tf.distribute.Strategy,
    seed: int,
    gradient_accumulation_steps: int = 1,
    clip_norm: float = 1.0,
    loss_scale: LossScale | None = None,
    xla: bool = False,
    make: Callable[..., TrainStep] = TrainStep,
) -> Step:
    """Returns a step that makes one update with one global batch.

    make: TrainStep, or a subclass.

    A batch may contain "stop_requested" () float32, not 0 if this worker was
    asked to stop. It is summed in the all-reduce, so all workers see it.

    The step returns {"loss", "loss/TERM", "learning_rate", "gradient_norm",
    "loss_scale", "skipped", "tokens", "stop_requested"}, scalars of the whole
    batch, and "head_learning_rate" if the heads have their own schedule.
    """
    compiled_part = _compiled_part(strategy, xla)
    with strategy.scope():
        step = make(
            model=model,
            task=task,
            optimizer=optimizer,
            loss_scale=loss_scale or fixed_loss_scale(),
            seed=seed,
            accumulation_steps=gradient_accumulation_steps,
            clip_norm=clip_norm,
            compile_gradients=compiled_part == "replica",
        )

    def train_step(batch):
        stop_requested = batch.get("stop_requested", tf.constant(0.0))
        return strategy.run(step.replica, args=(batch, stop_requested))

    return _global_step(train_step, strategy, compiled_part)


def _compiled_part(strategy: tf.distribute.Strategy, xla: bool) -> str:
    """Returns what XLA compiles: "tpu", "step", "replica", or "" for nothing.

    step: the whole step. replica: each replica's part, without the all-reduce.
    """
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return "tpu"  # strategy.run always compiles, even if xla is false
    if not xla:
        return ""
    return "step" if strategy.num_replicas_in_sync == 1 else "replica"


def _global_step(
    function: Callable[[Batch], Any],
    strategy: tf.distribute.Strategy,
    compiled_part: str,
) -> Step:
    """Makes a step that returns one local replica's result."""

    def global_step(batch):
        return tf.nest.map_structure(
            lambda value: strategy.experimental_local_results(value)[0],
            function(batch),
        )

    return Step(global_step, compiled_part)


def make_evaluate_step(
    model: model_lib.BertModel,
    task: base.Task,
    *,
    strategy: tf.distribute.Strategy,
    xla: bool = False,
) -> Step:
    """Returns a step: global batch -> {metric: (2,) sum and weight}.

    Metrics are the loss terms and those of task.metric_sums.
    """

    compiled_part = _compiled_part(strategy, xla)

    def compute(inputs, targets):
        outputs = model(inputs, targets, training=False)
        sums = {
            f"loss/{term}": (loss, tf.reduce_sum(targets[term][1]))
            for term, loss in task.loss(outputs, inputs, targets).items()
        }
        sums |= task.metric_sums(outputs, inputs, targets)
        return {name: tf.stack(pair) for name, pair in sums.items()}

    if compiled_part == "replica":
        compute = tf.function(compute, jit_compile=True, autograph=False)

    def replica(batch):
        context = tf.distribute.get_replica_context()
        sums = compute(batch["inputs"], batch["targets"])
        total = _sum_over_replicas(context, tf.stack(list(sums.values())))
        return dict(zip(sums, tf.unstack(total), strict=True))

    def evaluate_step(batch):
        return strategy.run(replica, args=(batch,))

    return _global_step(evaluate_step, strategy, compiled_part)


def replica_id(context: tf.distribute.ReplicaContext) -> tf.Tensor:
    return tf.cast(context.replica_id_in_sync_group, tf.int32)


def _sum_over_replicas(context, value):
    if context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def pack(
    tensors: Sequence[tf.Tensor],
) -> tuple[tf.Tensor, Callable[[tf.Tensor], list[tf.Tensor]]]:
    """Returns all tensors as one vector, and what makes them of such a one."""

    def unpack(packed):
        parts = tf.split(packed, [t.shape.num_elements() for t in tensors])
        return [
            tf.reshape(value, t.shape)
            for value, t in zip(parts, tensors, strict=True)
        ]

    return tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0), unpack
