"""R-Drop: makes passes with different dropout agree (Liang et al. 2021)."""

import dataclasses

import keras
import tensorflow as tf

from bert_keras import options
from bert_keras.tasks import base as tasks
from bert_keras.wrappers import base

_SECOND_PASS = "r_drop/"  # prefix of the second pass's outputs


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class RDrop(base.Wrapper):
    """Runs each batch twice and adds the passes' KL divergence to the loss.

    The loss is half of the paper's equation 4, so that without dropout it
    equals the inner task's:

      (L1 + L2) / 2 + alpha / 2 * (KL(P1 || P2) + KL(P2 || P1)) / 2

    where P1 and P2 are the distributions over classes in the two passes. A step
    takes about twice as long. Evaluation and the served model are those of the
    inner task.
    """

    alpha: float = options.option(
        1.0, "Weight of the divergence between the two passes.", minimum=0.0
    )

    # Empty: the loss is not a plain cross entropy.
    softmax_terms = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        base.require_softmax_terms(self)

    def forward(
        self,
        encoder: keras.Model,
        heads: tasks.Heads,
        features: tasks.Tensors,
        *,
        targets: tasks.Targets | None = None,
        training: bool | None = False,
    ) -> tasks.Tensors:
        def one_pass():
            return self.task.forward(
                encoder, heads, features, targets=targets, training=training
            )

        outputs = one_pass()
        if targets is None or not training:
            return outputs  # a second pass without dropout would be equal
        return outputs | {
            f"{_SECOND_PASS}{k}": v for k, v in one_pass().items()
        }

    def loss(
        self,
        outputs: tasks.Tensors,
        features: tasks.Tensors,
        targets: tasks.Targets,
    ) -> tasks.Tensors:
        terms = self.task.loss(outputs, features, targets)
        second = {
            name.removeprefix(_SECOND_PASS): value
            for name, value in outputs.items()
            if name.startswith(_SECOND_PASS)
        }
        if not second:
            return terms
        second_terms = self.task.loss(second, features, targets)
        terms = {
            term: (value + second_terms[term]) / 2
            for term, value in terms.items()
        }
        for term in self.task.softmax_terms:
            if term in terms:
                divergence = symmetric_divergence(
                    *(
                        self.task.softmax_logits(each, features, term)
                        for each in (outputs, second)
                    )
                )
                _, weights = targets[term]
                terms[term] += (
                    self.alpha / 2 * tf.reduce_sum(divergence * weights)
                )
        return terms


def symmetric_divergence(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Returns the mean of KL(P || Q) and KL(Q || P).

    Logits (..., C) of P and of Q -> (...).
    """
    log_p, log_q = tf.nn.log_softmax(first), tf.nn.log_softmax(second)
    # One sum for both: KL(P||Q) + KL(Q||P) is sum (p - q) (log p - log q).
    difference = tf.exp(log_p) - tf.exp(log_q)
    return tf.reduce_sum(difference * (log_p - log_q), axis=-1) / 2
