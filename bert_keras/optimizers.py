"""Optimizers: update rules, learning-rate schedule, weight-decay exclusions.

Keras' optimizers clip each replica's gradients before the all-reduce, and fail
to accumulate gradients under MirroredStrategy (keras#20582). Here the trainer
accumulates, reduces and clips, and an update rule updates one variable at a
time.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager

import keras
import numpy as np
import tensorflow as tf

from bert_keras import errors, placement

# Biases and LayerNorm have no weight decay (BERT, appendix A.2 and Google's
# code) and are not adapted by LAMB (google-research/albert, lamb_optimizer.py).
NO_DECAY = r"(bias|beta|gamma)$"


# A rule's `update` changes one variable and its slots. `learning_rate` and
# `step`, which counts from 0, are scalar tensors; `decay` is the factor of the
# decoupled weight decay; `adapted` is whether a layer-wise rule scales the
# update of this variable. `decay` and `adapted` may be combined freely.


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, alg. 2).

    epsilon is 1e-6 as in BERT. Without `bias_correction` this is the update
    of Google's BERT code; with it, fine-tuning on small data sets is more
    stable (Mosbach et al. 2021).
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    bias_correction: bool = True

    slots = ("m", "v")

    def __post_init__(self) -> None:
        _check_betas(self)

    def update(
        self,
        variable: tf.Variable,
        slots: Sequence[tf.Variable],
        gradient: tf.Tensor,
        *,
        learning_rate: tf.Tensor,
        decay: float,
        adapted: bool,
        step: tf.Tensor,
    ) -> None:
        del adapted
        if decay:
            variable.assign_sub(variable * (learning_rate * decay))
        epsilon = self.epsilon
        if self.bias_correction:
            # Round the betas to float32, as the kernel does.
            correction_1 = _bias_correction(np.float32(self.beta_1), step)
            correction_2 = _bias_correction(np.float32(self.beta_2), step)
            # The update is m / correction_1 / (sqrt(v / correction_2) +
            # epsilon). Its numerator and denominator are multiplied by
            # sqrt(correction_2) here.
            # The kernel's own correction does not scale epsilon, which would be
            # 32 times too large at the first step.
            root = tf.sqrt(correction_2)
            learning_rate = learning_rate * root / correction_1
            epsilon = epsilon * root
        m, v = slots
        # One kernel, one pass over memory. In a replica, `handle` is the
        # replica's copy.
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=m.handle,
            v=v.handle,
            beta1_power=0.0,
            beta2_power=0.0,
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=epsilon,
            grad=gradient,
        )


@dataclasses.dataclass(frozen=True)
class Lamb:
    """Layer-wise adapted AdamW for large batches (You et al. 2020, alg. 2).

    Biases and LayerNorm are not adapted, as in the paper's code, even with
    weight decay 0. Without `bias_correction` this is ALBERT's update.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    bias_correction: bool = True

    slots = ("m", "v")

    def __post_init__(self) -> None:
        _check_betas(self)

    def update(
        self,
        variable: tf.Variable,
        slots: Sequence[tf.Variable],
        gradient: tf.Tensor,
        *,
        learning_rate: tf.Tensor,
        decay: float,
        adapted: bool,
        step: tf.Tensor,
    ) -> None:
        m, v = slots
        # Not beta * m + (1 - beta) * g: in float32, 0.999 and 1 - 0.999 do not
        # add up to 1.
        m.assign_add((gradient - m) * (1 - self.beta_1))
        v.assign_add((tf.square(gradient) - v) * (1 - self.beta_2))
        mean, square = m, v
        if self.bias_correction:
            mean = m / _bias_correction(self.beta_1, step)
            square = v / _bias_correction(self.beta_2, step)
        change = mean / (tf.sqrt(square) + self.epsilon)
        if decay:
            change += decay * variable
        if adapted:
            variable_norm, update_norm = tf.norm(variable), tf.norm(change)
            both = tf.logical_and(variable_norm > 0, update_norm > 0)
            change *= tf.where(
                both, tf.math.divide_no_nan(variable_norm, update_norm), 1.0
            )
        variable.assign_sub(learning_rate * change)


@dataclasses.dataclass(frozen=True)
class Sgd:
    """Gradient descent with decoupled weight decay."""

    slots = ()

    def update(
        self,
        variable: tf.Variable,
        slots: Sequence[tf.Variable],
        gradient: tf.Tensor,
        *,
        learning_rate: tf.Tensor,
        decay: float,
        adapted: bool,
        step: tf.Tensor,
    ) -> None:
        del adapted
        if decay:
            variable.assign_sub(variable * (learning_rate * decay))
        variable.assign_sub(learning_rate * gradient)


def _check_betas(rule: "AdamW | Lamb") -> None:
    for name in ("beta_1", "beta_2"):
        # The kernels compute in float32, which rounds 1 - 1e-8 to 1.
        if not 0 <= np.float32(getattr(rule, name)) < 1:
            raise errors.InputError(
                f"{name} is {getattr(rule, name)}; expected 0 <= {name} < 1, "
                "also in float32."
            )
    if not rule.epsilon > 0:
        raise errors.InputError(
            f"epsilon is {rule.epsilon}; expected more than 0."
        )


def _bias_correction(beta: float | np.floating, step: tf.Tensor) -> tf.Tensor:
    """Returns Adam's bias correction, 1 - beta^(step + 1), a () tensor.

    Computed by expm1: float32 rounds 0.999 with an error of up to 6e-8, so
    1 - 0.999 would have a relative error of 3e-5.
    """
    if not beta:
        return tf.constant(1.0)
    count = tf.cast(step + 1, tf.float32)
    return -tf.math.expm1(count * math.log(beta))


HEADS = "head/"  # begins the paths of the heads' variables in a BertModel

RULES = {"adamw": AdamW, "adam": AdamW, "lamb": Lamb, "sgd": Sgd}


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `peak`, then linear decay to 0 (BERT, A.2).

    At step s (from 0) the learning rate is peak * (s + 1) / warmup_steps during
    warm-up, then peak * (total_steps - s) / (total_steps - warmup_steps).
    """

    peak: float
    warmup_steps: int
    total_steps: int

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        warm = (step + 1.0) / max(1, self.warmup_steps)
        remaining = (self.total_steps - step) / max(
            1, self.total_steps - self.warmup_steps
        )
        return self.peak * tf.clip_by_value(
            tf.minimum(warm, remaining), 0.0, 1.0
        )


class Optimizer:
    """An update rule with its slots for the trainable variables of a model.

    Construct it under the strategy's scope. `apply` runs inside a replica and
    expects reduced and clipped gradients, equal on all replicas.

    head_schedule: that of the heads' variables (Liu & Lapata 2019, section
      4.2); None: `schedule`.
    devices: that of each variable, where its slots are and its update is
      computed; empty: TensorFlow decides.
    """

    def __init__(
        self,
        variables: Sequence[keras.Variable],
        *,
        rule: AdamW | Lamb | Sgd,
        schedule: Schedule,
        head_schedule: Schedule | None = None,
        weight_decay: float = 0.01,
        devices: Sequence[str] = (),
    ):
        self.variables = list(variables)
        self._devices = tuple(devices)
        self.rule = rule
        self.schedule = schedule
        self.head_schedule = head_schedule
        self.in_head = [
            variable.path.startswith(HEADS) for variable in self.variables
        ]
        # Whether a layer-wise rule such as LAMB adapts each variable.
        self.adapted = [
            not re.search(NO_DECAY, variable.path)
            for variable in self.variables
        ]
        self.decays = [
            weight_decay if adapted else 0.0 for adapted in self.adapted
        ]
        self.slots = []
        for index, variable in enumerate(self.variables):
            with self.on_device_of(index):
                self.slots.append(
                    [
                        tf.Variable(
                            tf.zeros(variable.shape), trainable=False, name=slot
                        )
                        for slot in rule.slots
                    ]
                )

    def on_device_of(self, index: int) -> AbstractContextManager[object]:
        """Returns the context of the device of a variable, by its index."""
        return placement.on(self._devices, index)

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        step: tf.Tensor,
        *,
        has_gradient: Sequence[bool],
        factor: tf.Tensor | float = 1.0,
    ) -> None:
        """Updates the variables that have a gradient, which counts `factor`."""
        learning_rate = head_rate = self.schedule(step)
        if self.head_schedule:
            head_rate = self.head_schedule(step)
        for index, variable in enumerate(self.variables):
            if not has_gradient[index]:
                continue
            in_head = self.in_head[index]
            with self.on_device_of(index):
                self.rule.update(
                    variable.value,
                    self.slots[index],
                    gradients[index] * factor,
                    learning_rate=head_rate if in_head else learning_rate,
                    decay=self.decays[index],
                    adapted=self.adapted[index],
                    step=step,
                )

    def learning_rates(self, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the learning rates of a step () int, by name, for the log."""
        rates = {"learning_rate": self.schedule(step)}
        if self.head_schedule and self.head_schedule != self.schedule:
            rates["head_learning_rate"] = self.head_schedule(step)
        return rates

    def state(self) -> dict[str, tf.Variable]:
        """Returns all slots, by "VARIABLE_PATH/SLOT"."""
        return {
            f"{variable.path}/{name}": slot
            for variable, slots in zip(self.variables, self.slots, strict=True)
            for name, slot in zip(self.rule.slots, slots, strict=True)
        }
