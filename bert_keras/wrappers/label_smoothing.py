"""Label smoothing (Szegedy et al. 2016, section 7)."""

import dataclasses

import keras
import tensorflow as tf

from bert_keras import heads, options
from bert_keras.tasks import base as tasks
from bert_keras.wrappers import base


@keras.saving.register_keras_serializable("bert_keras")
@dataclasses.dataclass(frozen=True)
class LabelSmoothing(base.Wrapper):
    """Trains on targets with epsilon spread evenly over all C classes.

    Each softmax term L becomes (1 - epsilon) L + epsilon U, where U is the
    cross entropy with the uniform distribution over the classes; those that an
    example does not have, as absent choices, get none. Evaluation and the
    served model are those of the inner task.
    """

    epsilon: float = options.option(
        0.1,
        "Probability that is spread evenly over all classes.",
        minimum=0.0,
        maximum=0.99,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        base.require_softmax_terms(self)

    def loss(
        self,
        outputs: tasks.Tensors,
        features: tasks.Tensors,
        targets: tasks.Targets,
    ) -> tasks.Tensors:
        terms = self.task.loss(outputs, features, targets)
        for term in self.task.softmax_terms:
            if term in terms:
                logits = self.task.softmax_logits(outputs, features, term)
                _, weights = targets[term]
                is_class = tf.cast(
                    logits > 0.5 * heads.ABSENT_SCORE, tf.float32
                )
                uniform = -tf.reduce_sum(
                    tf.nn.log_softmax(logits) * is_class, axis=-1
                ) / tf.maximum(tf.reduce_sum(is_class, axis=-1), 1.0)
                uniform = tf.reduce_sum(uniform * weights)
                # Cross entropy is linear in the target distribution, so the
                # two sums can be mixed instead.
                terms[term] *= 1 - self.epsilon
                terms[term] += self.epsilon * uniform
        return terms
