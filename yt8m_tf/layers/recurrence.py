"""Loops over the frames of LSTMs and GRUs, forward and backward, with one matrix product per frame.

In a recurrent layer, only the product of the state depends on the previous frame. The products of the inputs are
computed beforehand, for all frames at once. The backward loop passes the state's gradient from frame to frame and
stores the gates' gradients, from which the gradients of all weights follow in one product each. TensorFlow's own
derivative of such a loop computes and adds up the gradients of all weights in every iteration instead.

Inside the loops a state is [H, B]: for few clips, the product [G, H] x [H, B] takes a CPU half as long as
[B, H] x [H, G]. G is 4 H in an LSTM and 3 H in a GRU, with gates in the order of Keras. For the backward pass an LSTM
keeps 6 H numbers of each frame (gates, h, c) and a GRU 5 H (gates, the state's part of the candidate, h); the pass
itself adds G.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

Tensors = tuple[Any, ...]

_NUM_KEPT = 4  # tensors that a cell keeps of a frame, besides the states


class Cell(NamedTuple):
    """One step of a recurrent layer, and its derivative: products are [G, B], states and kept tensors [H, B].

    Attributes:
      step: maps (products of the inputs, states, transposed recurrent kernel [G, H], recurrent bias [G, 1] or None) to
        the new states and the tensors to keep.
      step_back: maps (kept tensors and states of `step`, gradients of its new states, recurrent kernel) to the
        gradients of the products of the inputs and of the states.
      of_state: maps (gradients of the products of the inputs, kept tensors) to the gradients of the state's product
        with the recurrent kernel, for one frame or for all.
    """

    step: Callable[[Any, Tensors, Any, Any], tuple[Tensors, Tensors]]
    step_back: Callable[[Tensors, Tensors, Tensors, Any], tuple[Any, Tensors]]
    of_state: Callable[[Any, Tensors], Any]


def _lstm_step(products: Any, states: Tensors, kernel: Any, bias: Any) -> tuple[Tensors, Tensors]:
    h, c = states
    i, f, g, o = tf.split(products + tf.matmul(kernel, h), 4)
    i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
    c = f * c + i * g
    return (o * tf.tanh(c), c), (i, f, g, o)


def _lstm_step_back(kept: Tensors, states: Tensors, upstream: Tensors, kernel: Any) -> tuple[Any, Tensors]:
    i, f, g, o = kept
    _, c = states
    dh, dc = upstream
    output = tf.tanh(f * c + i * g)
    dc += dh * o * (1 - output * output)
    gates = [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * output * o * (1 - o)]
    d_products = tf.concat(gates, axis=0)
    return d_products, (tf.matmul(kernel, d_products), dc * f)


def _gru_step(products: Any, states: Tensors, kernel: Any, bias: Any) -> tuple[Tensors, Tensors]:
    (h,) = states
    x_z, x_r, x_n = tf.split(products, 3)
    h_z, h_r, h_n = tf.split(tf.matmul(kernel, h) + bias, 3)
    z, r = tf.sigmoid(x_z + h_z), tf.sigmoid(x_r + h_r)
    n = tf.tanh(x_n + r * h_n)
    return (n + z * (h - n),), (z, r, n, h_n)


def _gru_step_back(kept: Tensors, states: Tensors, upstream: Tensors, kernel: Any) -> tuple[Any, Tensors]:
    z, r, n, h_n = kept
    (h,) = states
    (dh,) = upstream
    dn = dh * (1 - z) * (1 - n * n)
    d_products = tf.concat([dh * (h - n) * z * (1 - z), dn * h_n * r * (1 - r), dn], axis=0)
    return d_products, (dh * z + tf.matmul(kernel, _gru_of_state(d_products, kept)),)


def _gru_of_state(d_products: Any, kept: Tensors) -> Any:
    dz, dr, dn = tf.split(d_products, 3, axis=-2)
    return tf.concat([dz, dr, dn * kept[1]], axis=-2)


LSTM = Cell(_lstm_step, _lstm_step_back, lambda d_products, kept: d_products)
GRU = Cell(_gru_step, _gru_step_back, _gru_of_state)


def products_of_inputs(x: Any, kernel: Any, bias: Any) -> Any:
    """Computes x [B, T, D] times kernel [D, G] plus bias [G] as one product: [B, T, G]."""
    products = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel) + bias
    shape = [*x.shape[:2], kernel.shape[-1]]
    return tf.ensure_shape(tf.reshape(products, tf.concat([tf.shape(x)[:2], shape[-1:]], axis=0)), shape)


def run(
    cell: Cell,
    products: Any,
    weights: Sequence[Any],
    initial: Sequence[Any],
    mask: Any = None,
    *,
    backwards: bool = False,
    sequences: bool = True,
    training: bool = False,
) -> tuple[Any, list[Any]]:
    """Runs a cell over the frames of a batch of clips.

    Args:
      cell: `LSTM`, or `GRU`, whose reset gate acts after the product.
      products: [B, T, G] floating-point, finite, T at least one: the inputs times the kernel, plus the bias.
      weights: the recurrent kernel [H, G], and for a GRU the recurrent bias [G].
      initial: the states before the first frame read, each [B, H]: h, and for an LSTM c.
      mask: [B, T] bool; where it is False, the states do not change. None: all True.
      backwards: whether to read the last frame first.
      sequences: whether to return h of all frames.
      training: whether to keep what the backward pass needs; if not, gradients are TensorFlow's own: correct, but slow.

    Returns:
      h after each frame, [B, T, H] in the order of the frames, or None without `sequences`; and the states after the
      last frame read. Results and all arguments except the mask have the dtype of `products`.
    """
    mask = None if mask is None else tf.transpose(mask)[:, None]  # [T, 1, B]

    def forward(products: Any, initial: Tensors, weights: Tensors, number: int) -> tuple[Tensors, Tensors]:
        kernel, bias = tf.transpose(weights[0]), weights[1][:, None] if len(weights) > 1 else None

        def step(t: Any, states: Tensors) -> tuple[Tensors, Tensors]:
            new, kept = cell.step(inputs[t], states, kernel, bias)
            new = _where(mask, t, new, states)
            return new, (*new, *kept)[:number]

        inputs = tf.transpose(products, (1, 2, 0))
        start = tuple(tf.transpose(state) for state in initial)
        return _loop(step, start, _length(inputs), backwards, [start[0].shape] * number)

    if not training:
        last, arrays = forward(products, tuple(initial), tuple(weights), int(sequences))
        return (_by_clip(arrays[0]) if sequences else None), [tf.transpose(state) for state in last]

    @tf.custom_gradient
    def differentiable(products: Any, *arguments: Any) -> Any:
        initial, weights = arguments[:num_states], arguments[num_states:]
        last, arrays = forward(products, initial, weights, num_states + _NUM_KEPT)
        kept = arrays[num_states:]

        def gradient(*upstream: Any) -> Tensors:
            before = tuple(_before(*pair, backwards) for pair in zip(initial, arrays, strict=False))
            d_products, d_initial = _backward(cell, kept, before, upstream, weights[0], mask, backwards)
            d_state_products = _rows(cell.of_state(d_products, kept))
            d_kernel = tf.matmul(_rows(before[0]), d_state_products, transpose_a=True)
            d_bias = [tf.reduce_sum(d_state_products, axis=0)] * (len(weights) - 1)
            return (_by_clip(d_products), *(tf.transpose(x) for x in d_initial), d_kernel, *d_bias)

        return (_by_clip(arrays[0]), *(tf.transpose(state) for state in last)), gradient

    num_states = len(initial)
    outputs, *states = differentiable(products, *initial, *weights)
    return (outputs if sequences else None), states


def _backward(
    cell: Cell, kept: Tensors, before: Tensors, upstream: Tensors, kernel: Any, mask: Any, backwards: bool
) -> tuple[Any, Tensors]:
    """Returns the gradients of the products of the inputs, [T, G, B], and of the initial states, [H, B].

    Args:
      cell: see `run`.
      kept: tensors that the cell kept of all frames, [T, H, B].
      before: the states before each frame, [T, H, B].
      upstream: gradients of h after each frame, [B, T, H], and of the last states, [B, H].
      kernel: [H, G].
      mask: [T, 1, B] or None.
      backwards: whether the forward loop read the last frame first.
    """
    dh, *d_last = (tf.transpose(x, (1, 2, 0) if x.shape.rank == 3 else (1, 0)) for x in upstream)

    def step(t: Any, gradients: Tensors) -> tuple[Tensors, Tensors]:
        gradients = (gradients[0] + dh[t], *gradients[1:])
        of_new = _where(mask, t, gradients, tuple(tf.zeros_like(x) for x in gradients))
        frame, states = (tuple(values[t] for values in group) for group in (kept, before))
        d_products, d_states = cell.step_back(frame, states, of_new, kernel)
        return _where(mask, t, d_states, gradients), (d_products,)

    shape = kernel.shape[1:] + dh.shape[2:]
    d_initial, (d_products,) = _loop(step, tuple(d_last), _length(dh), not backwards, [shape])
    return d_products, d_initial


def _loop(
    step: Callable[[Any, Tensors], tuple[Tensors, Tensors]],
    initial: Tensors,
    length: Any,
    backwards: bool,
    shapes: Sequence[Any],
) -> tuple[Tensors, Tensors]:
    """Applies `step`, (frame index, states) -> (states, values), to all frames.

    Returns:
      The last states, and the values of all frames, [T, ...].
    """
    arrays = tuple(tf.TensorArray(initial[0].dtype, size=length, element_shape=shape) for shape in shapes)

    def turn(number: Any, states: Tensors, arrays: Tensors) -> tuple[Any, Tensors, Tensors]:
        t = length - 1 - number if backwards else number
        states, values = step(t, states)
        return number + 1, states, tuple(array.write(t, x) for array, x in zip(arrays, values, strict=True))

    _, states, arrays = tf.while_loop(
        lambda number, *_: number < length, turn, (tf.constant(0), initial, arrays), maximum_iterations=length
    )
    return states, tuple(array.stack() for array in arrays)


def _where(mask: Any, t: Any, real: Tensors, padding: Tensors) -> Tensors:
    if mask is None:
        return real
    return tuple(tf.where(mask[t], *pair) for pair in zip(real, padding, strict=True))


def _before(initial: Any, states: Any, backwards: bool) -> Any:
    """Returns the state before each frame, [T, H, B].

    Args:
      initial: [B, H], the state before the first frame read.
      states: [T, H, B], the state after each frame.
      backwards: whether the last frame is read first.
    """
    first = tf.transpose(initial)[None]
    return tf.concat([states[1:], first] if backwards else [first, states[:-1]], axis=0)


def _by_clip(x: Any) -> Any:
    """Transposes [T, N, B] to [B, T, N]."""
    return tf.transpose(x, (2, 0, 1))


def _rows(x: Any) -> Any:
    """Reshapes [T, N, B] to [B * T, N]."""
    return tf.reshape(_by_clip(x), [-1, x.shape[1]])


def _length(x: Any) -> Any:
    return tf.shape(x)[0] if x.shape[0] is None else x.shape[0]
