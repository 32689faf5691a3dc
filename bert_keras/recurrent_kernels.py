"""LSTM and GRU over S steps, with custom gradients.

The gradient of a TensorFlow loop adds up the gradient of the recurrent matrix
step by step, which reads and writes the matrix once per step. Here one matmul
over all steps computes it. Forward and backward of an LSTM, B=32, S=30, H=512,
take 100 ms of processor time on two cores instead of 111 ms. An unrolled loop
is hardly faster, but makes a graph for each S.

Time is the first axis, so that a step reads contiguous memory.

Shapes: B batch, S sequence, D width of a cell, P width of a state; P is D
unless an LSTM's state is projected.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf


class Masks(NamedTuple):
    """What a step does with the state before it, (S, B, 1) of 0 and 1 each.

    keep: 0 where a text starts, whose first state is then 0, else 1.
    real: 0 at padding, which leaves the state as it is; None: no padding.
    """

    keep: tf.Tensor
    real: tf.Tensor | None = None


def lstm(
    gates: tf.Tensor,
    recurrent: tf.Tensor,
    projection: tf.Tensor | None = None,
    *,
    state: tuple[tf.Tensor, ...] | None = None,
    masks: Masks | None = None,
    cell_clip: float = 0.0,
    projection_clip: float = 0.0,
    training: bool | None = False,
) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
    """Runs an LSTM, whose state may be projected (Sak et al. 2014).

    gates (S, B, 4 D): the inputs' part of the gates, with their biases, so that
      one matmul computes it for all steps. Gates are in TensorFlow 1's order:
      input, candidate, forget, output; 1 is added to the forget gate.
    recurrent (P, 4 D), projection (D, P), or None if P is D.
    state: (h (B, P), c (B, D)) before the first step; None: zeros.
    cell_clip, projection_clip: the largest absolute value of the cell and of
      the projected state; 0: any.
    training: whether to save for the custom gradient what it needs.

    Returns the states (S, B, P) and the last (h, c). The cell and the gates
    are float32, the rest has the dtype of `gates`.
    """
    if state is None:
        batch = gates.shape[1] or tf.shape(gates)[1]
        state = lstm_zeros(batch, recurrent.shape[1] // 4, gates.dtype)
        if projection is not None:
            state = tf.zeros((batch, recurrent.shape[0]), gates.dtype), state[1]
    clips = cell_clip, projection_clip
    if not training:
        hidden, last, _ = _lstm_forward(
            gates, recurrent, projection, state, masks, clips, saves=False
        )
        return hidden, last
    # tf.custom_gradient takes tensors, not variables.
    weights = [tf.convert_to_tensor(recurrent)]
    if projection is not None:
        weights.append(tf.convert_to_tensor(projection))

    @tf.custom_gradient
    def run(gates, h, c, *weights):
        hidden, last, saved = _lstm_forward(
            gates, weights[0], (*weights, None)[1], (h, c), masks, clips, True
        )

        def gradient(*upstream):
            return _lstm_backward(
                upstream, hidden, saved, weights, masks, clips
            )

        return (hidden, *last), gradient

    hidden, h, c = run(gates, *state, *weights)
    return hidden, (h, c)


def lstm_zeros(
    batch: Any, width: int, dtype: Any
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns an LSTM's state of zeros, h of the dtype and c float32."""
    shape = batch, width
    return tf.zeros(shape, dtype), tf.zeros(shape, tf.float32)


def lstm_step(
    gates: tf.Tensor,
    weights: tuple[tf.Tensor, ...],
    state: tuple[tf.Tensor, ...],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs one step of an LSTM, (B, 4 D), (h, c) -> (h, c).

    weights: (recurrent,), as in `lstm`.
    """
    h, c = state
    (recurrent,) = weights
    h, c, _ = _lstm_cell(gates + tf.matmul(h, recurrent), c, 0.0)
    return tf.cast(h, gates.dtype), c


def _lstm_forward(gates, recurrent, projection, state, masks, clips, saves):
    """Returns the states (S, B, P), the last (h, c), and what is saved.

    For `saves` that is, of each step: h and c before it, c after it, and the
    four gates after their activations.
    """
    dtype, width = gates.dtype, recurrent.shape[1] // 4

    def step(values, state):
        total, masks = values[0], values[1:]
        before = h, c = _reset(state, masks)
        h, c, activations = _lstm_cell(
            total + tf.matmul(h, recurrent), c, clips[0]
        )
        h = tf.cast(h, dtype)
        if projection is not None:
            h = _clip(tf.matmul(h, projection), clips[1])
        state = h, c = _select((h, c), before, masks)
        return (h, *before, c, *activations) if saves else (h,), state

    outputs = [(dtype, recurrent.shape[0])]
    if saves:
        outputs += [*outputs, *6 * [(tf.float32, width)]]
    (hidden, *saved), state = _scan(
        step, [gates, *_given(masks)], state, like=gates, outputs=outputs
    )
    return hidden.stack(), state, saved


def _lstm_cell(gates, cell, limit):
    """Returns an LSTM's next output, cell and gates after their activations.

    (B, 4 D), (B, D) -> (B, D), (B, D), 4 of (B, D), all of them float32.
    """
    gates = tf.cast(gates, tf.float32)
    enter, candidate, forget, leave = tf.split(gates, 4, axis=1)
    enter, candidate = tf.sigmoid(enter), tf.tanh(candidate)
    forget, leave = tf.sigmoid(forget + 1.0), tf.sigmoid(leave)
    cell = _clip(forget * cell + enter * candidate, limit)
    return leave * tf.tanh(cell), cell, (enter, candidate, forget, leave)


def _lstm_backward(upstream, hidden, saved, weights, masks, clips):
    """Returns the gradients of gates, h, c and the weights.

    upstream: those of the states (S, B, P) and of the last h and c.
    """
    d_hidden, d_h, d_c = upstream
    h_before, *saved = saved
    dtype = hidden.dtype
    recurrent, projection = (*weights, None)[:2]

    def step(values, gradients):
        d_state, h, c_before, cell, *gates = values[:8]
        masks = values[8:]
        enter, candidate, forget, leave = gates
        # At padding all of it belongs to the state before.
        (d_new, d_cell), passed = _split_gradients(
            (gradients[0] + d_state, gradients[1]), masks
        )
        d_projected, squashed = (), tf.tanh(cell)
        if projection is not None:
            d_new = _unclipped(d_new, h, clips[1])
            d_projected = d_new, tf.cast(leave * squashed, dtype)
            d_new = tf.matmul(d_new, projection, transpose_b=True)
        d_new = tf.cast(d_new, tf.float32)
        d_cell = d_cell + d_new * leave * (1.0 - squashed * squashed)
        d_cell = _unclipped(d_cell, cell, clips[0])
        d_gates = tf.concat(
            [
                d_cell * candidate * enter * (1.0 - enter),
                d_cell * enter * (1.0 - candidate * candidate),
                d_cell * c_before * forget * (1.0 - forget),
                d_new * squashed * leave * (1.0 - leave),
            ],
            axis=1,
        )
        d_gates = tf.cast(d_gates, dtype)
        d_before = (
            tf.matmul(d_gates, recurrent, transpose_b=True) + passed[0],
            d_cell * forget + passed[1],
        )
        return (d_gates, *d_projected), _reset(d_before, masks)

    outer, inner = recurrent.shape[0], recurrent.shape[1] // 4
    outputs = [(dtype, 4 * inner)]
    if projection is not None:
        outputs += [(dtype, outer), (dtype, inner)]
    (d_gates, *d_projected), d_state = _scan(
        step,
        [d_hidden, hidden, *saved, *_given(masks)],
        (d_h, d_c),
        like=hidden,
        outputs=outputs,
        reverse=True,
    )
    d_gates = d_gates.stack()
    d_weights = [_sum_of_matmuls(h_before.stack(), d_gates)]
    if projection is not None:
        d_state_, outputs = (x.stack() for x in d_projected)
        d_weights.append(_sum_of_matmuls(outputs, d_state_))
    return (d_gates, *d_state, *d_weights)


def gru(
    gates: tf.Tensor,
    recurrent: tf.Tensor,
    bias: tf.Tensor,
    *,
    state: tuple[tf.Tensor, ...] | None = None,
    masks: Masks | None = None,
    training: bool | None = False,
) -> tuple[tf.Tensor, tuple[tf.Tensor]]:
    """Runs a GRU whose reset gate follows the recurrent matmul.

    This is cuDNN's variant and Keras' `reset_after=True`, where one matmul of
    the state computes all gates. In Cho et al. 2014 the reset gate is applied
    to the state before the candidate's matmul.

    gates (S, B, 3 D): the inputs' part of the gates, with their biases, in
      Keras' order: update, reset, candidate.
    recurrent (D, 3 D); bias (D,), of the state's part of the candidate.
    state: (h (B, D) float32,) before the first step; None: zeros.
    training: whether to save for the custom gradient what it needs.

    Returns the states (S, B, D) in the dtype of `gates`, and the last (h,).
    The state and the gates are float32.
    """
    if state is None:
        batch = gates.shape[1] or tf.shape(gates)[1]
        state = gru_zeros(batch, recurrent.shape[0])
    if not training:
        hidden, last, _ = _gru_forward(
            gates, recurrent, bias, state, masks, saves=False
        )
        return tf.cast(hidden, gates.dtype), last

    @tf.custom_gradient
    def run(gates, h, recurrent, bias):
        hidden, last, saved = _gru_forward(
            gates, recurrent, bias, (h,), masks, saves=True
        )

        def gradient(*upstream):
            return _gru_backward(
                upstream, saved, (recurrent, bias), masks, gates.dtype
            )

        return (hidden, *last), gradient

    # tf.custom_gradient takes tensors, not variables.
    weights = map(tf.convert_to_tensor, (recurrent, bias))
    hidden, h = run(gates, *state, *weights)
    return tf.cast(hidden, gates.dtype), (h,)


def gru_zeros(batch: Any, width: int) -> tuple[tf.Tensor]:
    """Returns a GRU's state of zeros, float32."""
    return (tf.zeros((batch, width), tf.float32),)


def gru_step(
    gates: tf.Tensor,
    weights: tuple[tf.Tensor, ...],
    state: tuple[tf.Tensor, ...],
) -> tuple[tf.Tensor]:
    """Runs one step of a GRU, (B, 3 D), (h,) -> (h,).

    weights: (recurrent, bias), as in `gru`.
    """
    (h,) = state
    h, _ = _gru_cell(gates, h, *weights)
    return (h,)


def _gru_forward(gates, recurrent, bias, state, masks, saves):
    """Returns the states (S, B, D), float32, the last (h,), and what is saved.

    For `saves` that is, of each step: h before it, the update and reset gates,
    the state's part of the candidate, and the candidate.
    """

    def step(values, state):
        total, masks = values[0], values[1:]
        before = _reset(state, masks)
        h, activations = _gru_cell(total, before[0], recurrent, bias)
        state = _select((h,), before, masks)
        return (*state, *before, *activations) if saves else state, state

    (hidden, *saved), state = _scan(
        step,
        [gates, *_given(masks)],
        state,
        like=gates,
        outputs=(6 if saves else 1) * [(tf.float32, recurrent.shape[0])],
    )
    return hidden.stack(), state, saved


def _gru_cell(gates, h, recurrent, bias):
    """Returns a GRU's next state and its gates after their activations.

    (B, 3 D), (B, D), (D, 3 D), (D,) -> (B, D), 4 of (B, D), all of them
    float32. The third is the state's part of the candidate.
    """
    inner = tf.matmul(tf.cast(h, recurrent.dtype), recurrent)
    update, reset, candidate = tf.split(tf.cast(gates, tf.float32), 3, axis=1)
    inner_update, inner_reset, inner = tf.split(
        tf.cast(inner, tf.float32), 3, axis=1
    )
    inner += tf.cast(bias, tf.float32)
    update = tf.sigmoid(update + inner_update)
    reset = tf.sigmoid(reset + inner_reset)
    candidate = tf.tanh(candidate + reset * inner)
    h = update * h + (1.0 - update) * candidate
    return h, (update, reset, inner, candidate)


def _gru_backward(upstream, saved, weights, masks, dtype):
    """Returns the gradients of gates, h, recurrent and bias.

    upstream: those of the states (S, B, D) and of the last h.
    """
    d_hidden, d_h = upstream
    recurrent, bias = weights
    width = recurrent.shape[0]

    def step(values, gradients):
        d_state, before, update, reset, inner, candidate, *masks = values
        (d_new,), (passed,) = _split_gradients((gradients[0] + d_state,), masks)
        d_candidate = d_new * (1.0 - update) * (1.0 - candidate * candidate)
        d_update = d_new * (before - candidate) * update * (1.0 - update)
        d_reset = d_candidate * inner * reset * (1.0 - reset)
        d_inner = d_candidate * reset
        # The gates' inputs and the state's part differ in the candidate only.
        d_gates, d_matmul = (
            tf.cast(tf.concat([d_update, d_reset, x], axis=1), dtype)
            for x in (d_candidate, d_inner)
        )
        d_before = tf.matmul(d_matmul, recurrent, transpose_b=True)
        d_before = tf.cast(d_before, tf.float32) + d_new * update + passed
        return (d_gates, d_matmul), _reset((d_before,), masks)

    outputs, (d_h,) = _scan(
        step,
        [d_hidden, *saved, *_given(masks)],
        (d_h,),
        like=d_hidden,
        outputs=2 * [(dtype, 3 * width)],
        reverse=True,
    )
    d_gates, d_matmul = (x.stack() for x in outputs)
    d_inner = tf.cast(d_matmul[..., 2 * width :], tf.float32)
    return (
        d_gates,
        d_h,
        _sum_of_matmuls(tf.cast(saved[0].stack(), dtype), d_matmul),
        tf.cast(tf.reduce_sum(d_inner, axis=(0, 1)), bias.dtype),
    )


def _scan(
    step: Callable[[list[tf.Tensor], tuple[tf.Tensor, ...]], Any],
    inputs: Sequence[tf.Tensor | tf.TensorArray],
    state: tuple[tf.Tensor, ...],
    *,
    like: tf.Tensor,
    outputs: Sequence[tuple[Any, int]],
    reverse: bool = False,
) -> tuple[list[tf.TensorArray], tuple[tf.Tensor, ...]]:
    """Calls `step` for each step of the inputs, and collects its outputs.

    step: the inputs at a step, (B, width), and the state -> a tuple of outputs
      (B, width), and the next state.
    inputs: tensors (S, B, width), or arrays of S elements.
    like: a tensor (S, B, ...).
    outputs: the dtype and the width of each output.
    reverse: from the last step to the first.

    Returns the outputs as arrays, which another `_scan` reads without copying
    them, and the last state.
    """
    count = like.shape[0] or tf.shape(like)[0]

    def array(dtype, width):
        return tf.TensorArray(
            dtype,
            count,
            element_shape=(like.shape[1], width),
            clear_after_read=False,
        )

    reads = [
        array(x.dtype, x.shape[2]).unstack(x) if isinstance(x, tf.Tensor) else x
        for x in inputs
    ]

    def body(number, state, writes):
        index = count - 1 - number if reverse else number
        values, state = step([each.read(index) for each in reads], state)
        writes = [
            each.write(index, value)
            for each, value in zip(writes, values, strict=True)
        ]
        return number + 1, state, writes

    _, state, writes = tf.while_loop(
        lambda number, *_: number < count,
        body,
        (0, tuple(state), [array(*output) for output in outputs]),
        maximum_iterations=count,
    )
    return writes, state


def _given(masks):
    """Returns those of the masks that are not None, as float32."""
    return [tf.cast(x, tf.float32) for x in masks or () if x is not None]


def _reset(state, masks):
    """Replaces the state by 0 where a text starts; masks as `_given`."""
    if not masks:
        return state
    return tuple(x * tf.cast(masks[0], x.dtype) for x in state)


def _select(state, before, masks):
    """Replaces the state at padding by the state before it."""
    if len(masks) < 2:
        return state
    real = masks[1] > 0
    return tuple(
        tf.where(real, x, y) for x, y in zip(state, before, strict=True)
    )


def _split_gradients(gradients, masks):
    """Splits the gradients of `_select`: those of its state, and of `before`.

    The latter are 0.0 if there is no padding.
    """
    if len(masks) < 2:
        return gradients, (0.0,) * len(gradients)
    real = [tf.cast(masks[1], x.dtype) for x in gradients]
    return (
        tuple(x * here for x, here in zip(gradients, real, strict=True)),
        tuple(x * (1 - here) for x, here in zip(gradients, real, strict=True)),
    )


def _sum_of_matmuls(x, gradients):
    """Sums a weight's gradients: (S, B, D), (S, B, W) -> (D, W)."""
    x, gradients = (tf.reshape(y, (-1, y.shape[2])) for y in (x, gradients))
    return tf.matmul(x, gradients, transpose_a=True)


def _clip(x, limit):
    return tf.clip_by_value(x, -limit, limit) if limit else x


def _unclipped(gradient, clipped, limit):
    """Returns the gradient of `_clip`, from the value that it returned."""
    if not limit:
        return gradient
    return tf.where(tf.abs(clipped) < limit, gradient, tf.zeros_like(gradient))
