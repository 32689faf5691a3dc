"""Attention with any score (Bahdanau et al. 2015, equations 5 and 6).

A decoder attends to an encoder's states: the weights are the softmax of the
scores over the source positions, and the context is the sum of the states with
these weights. What differs is the score of a query q and a state h:

| Name | Score | Source |
|---|---|---|
| dot | q . h | Luong et al. 2015, equation 8 |
| scaled_dot | q . h / sqrt(H) | Vaswani et al. 2017, equation 1 |
| general | q . (W h) | Luong et al. 2015, equation 8 |
| additive | v . tanh(W q + U h) | Bahdanau et al. 2015, appendix A.1.2 |
| concat | v . tanh(W [q; h]) | Luong et al. 2015, equation 8 |

`additive` is also called perceptron. It and `concat` are one function with
other weights: concat has one matrix, whose first rows are the query's.

Shapes: B batch, T target positions, S source positions, Q width of a query,
H width of a state, A width of the hidden layer of additive and concat.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from bert_keras import errors, layers
from bert_keras.networks import base
from bert_keras.types import Shape, Tensor

ALIASES = {"perceptron": "additive"}


class Score(keras.layers.Layer):
    """A score of each query and state.

    query (B, T, Q), keys (B, S, ...) -> (B, T, S). `project` computes the keys,
    the part that depends on the states only.
    """

    def __init__(
        self,
        config: base.NetworkConfig,
        *,
        query_width: int,
        state_width: int,
        attention_width: int,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.config = config
        self.query_width = query_width
        self.state_width = state_width
        self.attention_width = attention_width

    def _weight(self, name: str, shape: Sequence[int]) -> Any:
        return self.add_weight(
            name=name,
            shape=tuple(shape),
            initializer=layers.initializer(self.config),
        )

    def build(self, input_shape: Shape | None = None) -> None:
        self.built = True

    def project(self, states: Tensor) -> Tensor:
        """Returns the keys of the states (B, S, H); here the states."""
        return states

    def call(self, query: Tensor, keys: Tensor) -> Tensor:
        raise NotImplementedError


class DotScore(Score):
    """q . h (Luong et al. 2015, equation 8, dot)."""

    def __init__(self, config: base.NetworkConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        if self.query_width != self.state_width:
            raise errors.InputError(
                f"the queries have the width {self.query_width} and the states "
                f"{self.state_width}, but a score that is their dot product "
                "needs equal widths; make them equal, or choose score=general, "
                "additive or concat.",
                argument="score",
            )

    def call(self, query: Tensor, keys: Tensor) -> Tensor:
        return _dot_products(query, keys)


class ScaledDotScore(DotScore):
    """q . h / sqrt(H) (Vaswani et al. 2017, equation 1); no projections."""

    def call(self, query: Tensor, keys: Tensor) -> Tensor:
        # Scale the query before the matmul: float16 scores can overflow.
        return _dot_products(query * (1.0 / math.sqrt(self.state_width)), keys)


class GeneralScore(Score):
    """q . (W h) (Luong et al. 2015, equation 8, general).

    The kernel (H, Q) is W transposed; the keys are (B, S, Q).
    """

    def build(self, input_shape: Shape | None = None) -> None:
        self.kernel = self._weight(
            "kernel", (self.state_width, self.query_width)
        )
        self.built = True

    def project(self, states: Tensor) -> Tensor:
        return _project(states, ops.cast(self.kernel, self.compute_dtype))

    def call(self, query: Tensor, keys: Tensor) -> Tensor:
        return _dot_products(query, keys)


class AdditiveScore(Score):
    """v . tanh(W q + U h) (Bahdanau et al. 2015, appendix A.1.2).

    The keys are U h, (B, S, A). tanh is computed of (B, T, S, A): a decoder
    with a fixed, long target needs that memory in training.
    """

    def build(self, input_shape: Shape | None = None) -> None:
        width = self.attention_width
        self.query_kernel = self._weight(
            "query_kernel", (self.query_width, width)
        )
        self.state_kernel = self._weight(
            "state_kernel", (self.state_width, width)
        )
        self.vector = self._weight("vector", (width,))
        self.built = True

    def kernels(self) -> tuple[Tensor, Tensor]:
        """Returns W (Q, A) and U (H, A)."""
        return self.query_kernel, self.state_kernel

    def project(self, states: Tensor) -> Tensor:
        _, kernel = self.kernels()
        return _project(states, ops.cast(kernel, self.compute_dtype))

    def call(self, query: Tensor, keys: Tensor) -> Tensor:
        kernel, _ = self.kernels()
        query = _project(query, ops.cast(kernel, self.compute_dtype))
        query = ops.expand_dims(query, 2)
        x = ops.tanh(query + ops.expand_dims(keys, 1))  # (B, T, S, A)
        vector = ops.cast(self.vector, self.compute_dtype)
        scores = ops.matmul(layers.rows(x), ops.expand_dims(vector, 1))
        return ops.reshape(scores, ops.shape(x)[:3])


class ConcatScore(AdditiveScore):
    """v . tanh(W [q; h]) (Luong et al. 2015, equation 8, concat).

    One kernel (Q + H, A); the keys are (B, S, A).
    """

    def build(self, input_shape: Shape | None = None) -> None:
        width = self.attention_width
        self.kernel = self._weight(
            "kernel", (self.query_width + self.state_width, width)
        )
        self.vector = self._weight("vector", (width,))
        self.built = True

    def kernels(self) -> tuple[Tensor, Tensor]:
        kernel = ops.convert_to_tensor(self.kernel)
        return kernel[: self.query_width], kernel[self.query_width :]


_SCORES: dict[str, type[Score]] = {
    "dot": DotScore,
    "scaled_dot": ScaledDotScore,
    "general": GeneralScore,
    "additive": AdditiveScore,
    "concat": ConcatScore,
}
SCORES = tuple(_SCORES)


def canonical_name(score: str) -> str:
    """Returns the name in SCORES of a score, which may be one of ALIASES.

    Raises InputError for any other name.

    >>> from bert_keras import attention_scores
    >>> attention_scores.canonical_name("perceptron")
    'additive'
    """
    name = ALIASES.get(score, score)
    if name not in _SCORES:
        raise errors.InputError(
            f"score must be one of {', '.join((*SCORES, *ALIASES))}; got "
            f"{score!r}.",
            argument="score",
        )
    return name


class Attention(keras.layers.Layer):
    """The context of each query (Bahdanau et al. 2015, equations 5 and 6).

    query (B, T, Q), states (B, S, H), mask (B, S) -> context (B, T, H) and
    weights (B, T, S) float32. The mask, of any dtype, is 0 at positions that
    are not attended to. A row which attends to nothing has uniform weights.

    score: one of SCORES or ALIASES. query_width and state_width are Q and H;
    attention_width is A; None: hidden_size.

    A decoder computes the keys of its states once:

        keys = attention.project(states)  # (B, S, ...)
        context, weights = attention(query, states, mask, keys=keys)

    Raises InputError for an unknown score, and for dot or scaled_dot if Q is
    not H.
    """

    def __init__(
        self,
        config: base.NetworkConfig,
        *,
        score: str = "scaled_dot",
        query_width: int | None = None,
        state_width: int | None = None,
        attention_width: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.config = config
        self.score_name = canonical_name(score)

        def width(given):
            return config.hidden_size if given is None else given

        self.score = _SCORES[self.score_name](
            config,
            query_width=width(query_width),
            state_width=width(state_width),
            attention_width=width(attention_width),
            name="score",
            dtype=self.dtype_policy,
        )
        self.supports_masking = True

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Returns None: Keras does not pass the mask on to other layers."""

    def build(self, input_shape: Shape | None = None) -> None:
        if not self.score.built:
            self.score.build()
        self.built = True

    def project(self, states: Tensor) -> Tensor:
        """Returns the keys of the states, (B, S, H) -> (B, S, ...).

        Their width is H for dot and scaled_dot, Q for general, A for additive
        and concat.
        """
        return self.score.project(ops.cast(states, self.compute_dtype))

    def call(
        self,
        query: Tensor,
        states: Tensor,
        mask: Tensor,
        keys: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        if keys is None:
            keys = self.project(states)
        scores = ops.cast(self.score(query, keys), "float32")  # (B, T, S)
        attended = ops.expand_dims(ops.not_equal(mask, 0), 1)
        scores = ops.where(attended, scores, layers.MASKED_SCORE)
        weights = ops.softmax(scores, axis=-1)
        context = ops.matmul(ops.cast(weights, states.dtype), states)
        return context, weights


def _project(x, kernel):
    """Multiplies x (B, S, H) with a kernel (H, A) -> (B, S, A)."""
    projected = ops.matmul(layers.rows(x), kernel)
    return ops.reshape(projected, (*ops.shape(x)[:2], kernel.shape[-1]))


def _dot_products(query, keys):
    """Dot products: (B, T, W), (B, S, W) -> (B, T, S)."""
    return ops.matmul(query, ops.transpose(keys, (0, 2, 1)))
