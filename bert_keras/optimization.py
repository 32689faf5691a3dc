"""The update: rules, schedule, and what is decayed.

Keras' optimizers reduce and clip where it suits one replica (keras#20582);
here the trainer reduces and clips, and a rule only changes one variable.
"""

import dataclasses
import re
from collections.abc import Sequence

import keras
import tensorflow as tf

# BERT, appendix A.2 and Google's code: biases and LayerNorm do not decay.
NO_DECAY = r"(bias|beta|gamma)$"


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, alg. 2).

    epsilon 1e-6 as in BERT. Without `bias_correction` it is the update of
    Google's BERT; with it, small data sets fine-tune more stably (Mosbach et
    al. 2021).
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    bias_correction: bool = True

    slots = ("m", "v")

    def update(self, variable, slots, gradient, *, rate, decay, step):
        if decay:
            variable.assign_sub(variable * (rate * decay))
        powers = [0.0, 0.0]
        if self.bias_correction:
            count = tf.cast(step + 1, tf.float32)
            powers = [self.beta_1**count, self.beta_2**count]
        m, v = slots
        # One pass over memory; inside a replica the handle is the replica's.
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=m.handle,
            v=v.handle,
            beta1_power=powers[0],
            beta2_power=powers[1],
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


@dataclasses.dataclass(frozen=True)
class Lamb:
    """Layer-wise adapted AdamW for large batches (You et al. 2020, alg. 2).

    Variables that do not decay are not adapted either, as in the paper's
    own code.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6

    slots = ("m", "v")

    def update(self, variable, slots, gradient, *, rate, decay, step):
        m, v = slots
        m.assign(self.beta_1 * m + (1 - self.beta_1) * gradient)
        v.assign(self.beta_2 * v + (1 - self.beta_2) * tf.square(gradient))
        count = tf.cast(step + 1, tf.float32)
        mean = m / (1 - self.beta_1**count)
        square = v / (1 - self.beta_2**count)
        change = mean / (tf.sqrt(square) + self.epsilon)
        if decay:
            change += decay * variable
            size, length = tf.norm(variable), tf.norm(change)
            both = tf.logical_and(size > 0, length > 0)
            change *= tf.where(both, tf.math.divide_no_nan(size, length), 1.0)
        variable.assign_sub(rate * change)


@dataclasses.dataclass(frozen=True)
class Sgd:
    """Gradient descent with decoupled weight decay."""

    slots = ()

    def update(self, variable, slots, gradient, *, rate, decay, step):
        if decay:
            variable.assign_sub(variable * (rate * decay))
        variable.assign_sub(rate * gradient)


RULES = {"adamw": AdamW, "adam": AdamW, "lamb": Lamb, "sgd": Sgd}


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `peak`, then linear decay to 0 (BERT, A.2).

    Step s (counted from 0) has rate peak * (s + 1) / warmup_steps while
    warming up, and peak * (total - s) / (total - warmup) after it.
    """

    peak: float
    warmup_steps: int
    total_steps: int

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        warm = (step + 1.0) / max(1, self.warmup_steps)
        left = (self.total_steps - step) / max(
            1, self.total_steps - self.warmup_steps
        )
        return self.peak * tf.clip_by_value(tf.minimum(warm, left), 0.0, 1.0)


class Optimizer:
    """A rule with its slots for the trainable variables of a model.

    Construct it under the strategy's scope. `apply` runs inside a replica
    and expects reduced, clipped gradients, the same on all replicas.
    """

    def __init__(
        self,
        variables: Sequence[keras.Variable],
        *,
        rule: AdamW | Lamb | Sgd,
        schedule: Schedule,
        weight_decay: float = 0.01,
    ):
        self.variables = list(variables)
        self.rule = rule
        self.schedule = schedule
        self.decays = [
            0.0 if re.search(NO_DECAY, variable.path) else weight_decay
            for variable in self.variables
        ]
        self.slots = [
            [
                tf.Variable(
                    tf.zeros(variable.shape), trainable=False, name=slot
                )
                for slot in rule.slots
            ]
            for variable in self.variables
        ]

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        step: tf.Tensor,
        *,
        used: Sequence[bool],
    ) -> None:
        """One update of the variables that are `used`; others stay."""
        rate = self.schedule(step)
        for variable, slots, gradient, decay, is_used in zip(
            self.variables,
            self.slots,
            gradients,
            self.decays,
            used,
            strict=True,
        ):
            if not is_used:
                continue
            self.rule.update(
                variable.value,
                slots,
                gradient,
                rate=rate,
                decay=decay,
                step=step,
            )

    def state(self) -> dict[str, tf.Variable]:
        """Every slot under the path of its variable."""
        return {
            f"{variable.path}/{name}": slot
            for variable, slots in zip(self.variables, self.slots, strict=True)
            for name, slot in zip(self.rule.slots, slots, strict=True)
        }
