"""Recurrent layers: an LSTM or a GRU over a sequence, or step by step.

The same weights run over a sequence, as in an encoder, and one step at a time,
as in a decoder. Texts that are packed in a row do not influence each other.

Shapes: B batch, T sequence, E width of the inputs, D width of a state.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from bert_keras import errors, layers, recurrent_kernels
from bert_keras.types import Shape, Tensor

# An LSTM's (h, c), or a GRU's (h,): (B, D) each.
State = tuple[Tensor, ...]


class LstmCell:
    """An LSTM with a forget gate (Gers et al. 2000), without peepholes.

    The gates are in the order input, candidate, forget, output. 1 is added to
    the forget gate, so that it starts open (Jozefowicz et al. 2015) with all
    biases 0. In the state (h, c), c is float32.
    """

    num_gates = 4
    recurrent_bias = False

    def state_dtypes(self, dtype: str) -> tuple[str, ...]:
        return dtype, "float32"

    def run(
        self,
        gates: Tensor,
        weights: tuple[Tensor, ...],
        state: State,
        masks: recurrent_kernels.Masks | None,
        training: bool | None,
    ) -> tuple[Tensor, State]:
        return recurrent_kernels.lstm(
            gates, *weights, state=state, masks=masks, training=training
        )

    def step(
        self, gates: Tensor, weights: tuple[Tensor, ...], state: State
    ) -> State:
        return recurrent_kernels.lstm_step(gates, weights, state)


class GruCell:
    """A GRU (Cho et al. 2014) whose reset gate follows the recurrent matmul.

    This is the variant of cuDNN, Keras' `reset_after=True`; see
    recurrent_kernels.gru. The gates are in the order update, reset, candidate.
    The state (h,) is float32.
    """

    num_gates = 3
    recurrent_bias = True

    def state_dtypes(self, dtype: str) -> tuple[str, ...]:
        del dtype
        return ("float32",)

    def run(
        self,
        gates: Tensor,
        weights: tuple[Tensor, ...],
        state: State,
        masks: recurrent_kernels.Masks | None,
        training: bool | None,
    ) -> tuple[Tensor, State]:
        return recurrent_kernels.gru(
            gates, *weights, state=state, masks=masks, training=training
        )

    def step(
        self, gates: Tensor, weights: tuple[Tensor, ...], state: State
    ) -> State:
        return recurrent_kernels.gru_step(gates, weights, state)


_CELLS: dict[str, type[LstmCell | GruCell]] = {
    "lstm": LstmCell,
    "gru": GruCell,
}
CELLS = tuple(_CELLS)


class Recurrent(keras.layers.Layer):
    """An LSTM or a GRU in one direction.

    x (B, T, E), optionally a state and a mask (B, T) int32 -> outputs (B, T, D)
    and the state after the last token, to which `step` adds one more. The state
    is a tuple of (B, D): an LSTM's (h, c) or a GRU's (h,). Without one, it
    starts as zeros.

    mask: 0 at padding, which leaves the state as it is, and whose outputs are
    0; k at the k-th packed text. A token whose neighbour before it has another
    number starts a text, with the state 0; only the row's first token
    continues the given state.

    cell: one of CELLS. units: D. `build` takes the shape of x.

    >>> from bert_keras import recurrent_layers
    >>> lstm = recurrent_layers.Recurrent("lstm", 8)
    >>> outputs, (h, c) = lstm(np.ones((2, 5, 3), "float32"))
    >>> outputs.shape, h.shape, c.shape
    (TensorShape([2, 5, 8]), TensorShape([2, 8]), TensorShape([2, 8]))
    >>> output, state = lstm.step(np.ones((2, 3), "float32"), (h, c))

    Raises InputError for an unknown cell.
    """

    def __init__(self, cell: str, units: int, **kwargs: Any):
        # Without autocast, a state's float32 tensor would be cast.
        super().__init__(**kwargs, autocast=False)
        if cell not in _CELLS:
            raise errors.InputError(
                f"cell must be one of {', '.join(CELLS)}; got {cell!r}.",
                argument="cell",
            )
        self.cell: LstmCell | GruCell = _CELLS[cell]()
        self.units = units
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        width = self.units * self.cell.num_gates
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], width),
            initializer=layers.unless_loaded("glorot_uniform"),
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.units, width),
            initializer=layers.unless_loaded(_orthogonal),
        )
        self.bias = self.add_weight(
            name="bias", shape=(width,), initializer="zeros"
        )
        self.recurrent_bias = None
        if self.cell.recurrent_bias:
            self.recurrent_bias = self.add_weight(
                name="recurrent_bias",
                shape=(self.units,),
                initializer="zeros",
            )
        self.built = True

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Returns None: Keras does not pass the mask on to other layers."""

    def zero_state(self, batch: Any) -> State:
        """Returns the state before the first token; batch: B."""
        return tuple(
            ops.zeros((batch, self.units), dtype)
            for dtype in self.cell.state_dtypes(self.compute_dtype)
        )

    def as_state(self, parts: Sequence[Tensor]) -> State:
        """Returns a state with the dtypes that `step` returns.

        A loop around `step` has to start with them.
        """
        dtypes = self.cell.state_dtypes(self.compute_dtype)
        return tuple(
            ops.cast(x, dtype) for x, dtype in zip(parts, dtypes, strict=True)
        )

    def call(
        self,
        x: Tensor,
        state: State | None = None,
        mask: Tensor | None = None,
        training: bool | None = None,
    ) -> tuple[Tensor, State]:
        # Time first, so that a step reads contiguous memory.
        x = ops.transpose(x, (1, 0, 2))  # (T, B, E)
        gates = self._input_gates(layers.rows(x))
        gates = ops.reshape(gates, (*ops.shape(x)[:2], gates.shape[-1]))
        outputs, state = self.cell.run(
            gates,
            self._recurrent_weights(),
            self._start(state, ops.shape(x)[1]),
            None if mask is None else step_masks(mask),
            training,
        )
        outputs = ops.transpose(outputs, (1, 0, 2))  # (B, T, D)
        if mask is not None:
            real = ops.expand_dims(ops.not_equal(mask, 0), -1)
            outputs = outputs * ops.cast(real, outputs.dtype)
        return outputs, state

    def step(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Reads one more token: x (B, E), state -> output (B, D), state.

        state: as returned by `call`, `step` or `zero_state`; None: zeros.
        """
        state = self.cell.step(
            self._input_gates(x),
            self._recurrent_weights(),
            self._start(state, ops.shape(x)[0]),
        )
        return ops.cast(state[0], self.compute_dtype), state

    def _input_gates(self, x):
        """Returns the inputs' part of the gates, with biases: (R, E)."""
        kernel, bias = map(self._cast, (self.kernel, self.bias))
        return ops.matmul(self._cast(x), kernel) + bias

    def _recurrent_weights(self):
        weights = [self.recurrent_kernel]
        if self.recurrent_bias is not None:
            weights.append(self.recurrent_bias)
        return tuple(map(self._cast, weights))

    def _start(self, state, batch):
        if state is None:
            return self.zero_state(batch)
        return self.as_state(state)

    def _cast(self, x):
        return ops.cast(ops.convert_to_tensor(x), self.compute_dtype)


def _orthogonal(shape, dtype=None):
    # In float32: TensorFlow's QR decomposition has no bfloat16.
    value = keras.initializers.Orthogonal()(shape, "float32")
    return ops.cast(value, dtype or "float32")


def step_masks(mask: Tensor) -> recurrent_kernels.Masks:
    """Returns what each step does with the state before it.

    mask (B, T) int32, as in Recurrent -> twice (T, B, 1) int32.
    """
    mask = ops.cast(mask, "int32")
    real = ops.cast(ops.not_equal(mask, 0), "int32")
    earlier = ops.pad(mask[:, :-1], [[0, 0], [1, 0]])
    started = ops.cumsum(real, axis=1) > real  # a token was before
    starts = ops.logical_and(
        ops.logical_and(ops.not_equal(mask, 0), started),
        ops.not_equal(mask, earlier),
    )
    # Integers: Keras would cast floats to the dtype policy.
    keep = ops.cast(ops.logical_not(starts), "int32")
    return recurrent_kernels.Masks(*map(_time_first, (keep, real)))


def reversed_order(padding_mask: Tensor) -> Tensor:
    """Returns the positions that reverse a row's tokens, (B, T) int32.

    Padding stays at the end: a row of 3 tokens has the order [2, 1, 0, 3].
    """
    real = ops.cast(ops.greater(padding_mask, 0), "int32")
    length = ops.sum(real, axis=1, keepdims=True)
    position = ops.arange(ops.shape(padding_mask)[1], dtype="int32")
    return ops.where(position < length, length - 1 - position, position)


def reorder(values: Tensor, order: Tensor) -> Tensor:
    """Reorders each row's values, (B, T), (B, T) -> (B, T)."""
    return ops.squeeze(layers.gather(ops.expand_dims(values, -1), order), -1)


def _time_first(x):
    """(B, T) -> (T, B, 1)."""
    return ops.expand_dims(ops.transpose(x), -1)
