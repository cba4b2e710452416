"""Recurrent layers with the original's initial weights, over sequences of equal length and over padded clips.

`keras.layers.LSTM` and `GRU` run on cuDNN if there is a GPU and their arguments allow it, as all of these do: tanh and
sigmoid, biases, no internal dropout, no unrolling, the GRU's reset after the matrix product, and masks that are True
for the first frames and False for the rest. cuDNN takes lengths from the mask: one direction starts at the first frame,
the other at the last real one.

Without a GPU the layers run the loops of `layers.recurrence`, which keep the state where the mask is False.

XLA cannot compile cuDNN's kernels. It can compile the loops, but makes no model faster (docs/BENCHMARKS.md), so models
with recurrent layers are not compiled (`training.distribution.compiles_with_xla`).

For the backward pass an LSTM of size H keeps about 6 H numbers of each frame (gates, cells, outputs), and a GRU 5 H.
Request sequences only if they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import keras
import tensorflow as tf
from keras import ops

from yt8m_tf.layers import masking, recurrence

Cell = Literal["rnn", "gru", "lstm"]
FusedCell = Literal["lstm", "gru"]


class _Loop(keras.layers.RNN):
    """The loop of an LSTM or a GRU, which replaces Keras' own if cuDNN would allow the arguments."""

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        """Returns the last output, all outputs and the last states, as in Keras.

        Outputs in the padding repeat the previous state, unless `zero_output_for_mask`. In padding before the first
        real frame, that is the initial state; Keras returns zeros there.
        """
        cell, is_lstm = self.cell, isinstance(self.cell, keras.layers.LSTMCell)
        dropout = cell.dropout or cell.recurrent_dropout
        usual = cell.activation is keras.activations.tanh and cell.recurrent_activation is keras.activations.sigmoid
        if self.unroll or dropout or not usual or not cell.use_bias or not (is_lstm or cell.reset_after):
            return super().inner_loop(sequences, initial_state, mask, training)
        kernel, state_kernel, bias = (
            tf.convert_to_tensor(weight) for weight in (cell.kernel, cell.recurrent_kernel, cell.bias)
        )
        outputs, states = recurrence.run(
            recurrence.LSTM if is_lstm else recurrence.GRU,
            recurrence.products_of_inputs(sequences, kernel, bias if is_lstm else bias[0]),
            [state_kernel] if is_lstm else [state_kernel, bias[1]],
            initial_state if isinstance(initial_state, list | tuple) else [initial_state],
            mask,
            backwards=self.go_backwards,
            sequences=self.return_sequences,
            training=bool(training),
        )
        if not self.return_sequences:
            outputs = states[0][:, None]
            mask = None if mask is None else mask[:, :1] if self.go_backwards else mask[:, -1:]
        if self.zero_output_for_mask and mask is not None:
            outputs = tf.where(mask[:, :, None], outputs, tf.zeros_like(outputs))
        if self.go_backwards:
            outputs = ops.flip(outputs, axis=1)
        return outputs[:, -1], outputs, states


# Keras' classes come before `_Loop` in the method resolution order: they use cuDNN or, through `super()`, the loop.
@keras.saving.register_keras_serializable(package="yt8m_tf")
class LSTM(keras.layers.LSTM, _Loop):
    """`keras.layers.LSTM` with a faster loop where it does not run on cuDNN; same arguments, weights and outputs."""


@keras.saving.register_keras_serializable(package="yt8m_tf")
class GRU(keras.layers.GRU, _Loop):
    """`keras.layers.GRU` with a faster loop where it does not run on cuDNN; same arguments, weights and outputs."""


_LAYERS = {"rnn": keras.layers.SimpleRNN, "gru": GRU, "lstm": LSTM}


def forbid_fused_kernels(model: keras.Model) -> None:
    """Makes later traces of a model's recurrent layers use loops, which run on any device, as an export must.

    Traced on a machine with a GPU, they would use cuDNN's kernels, which a server without a GPU cannot run.
    """
    for layer in model._flatten_layers():  # as Keras itself visits them
        if isinstance(layer, keras.layers.LSTM | keras.layers.GRU):
            layer.use_cudnn = False


def recurrent_layer(
    cell: Cell, hidden_size: int, name: str, return_sequences: bool = False, **arguments: Any
) -> keras.layers.RNN:
    """Creates a recurrent layer in one direction: [B, T, D] to its last output [B, H], or to all outputs, [B, T, H].

    On a GPU, "gru" and "lstm" run as cuDNN's fused kernels, which these arguments allow. "rnn", which is
    h = tanh(W x + U h + b), has no fused kernel in Keras; it is Keras' loop on every device.

    Reference: `torch.nn.RNN`, `GRU` and `LSTM`: all initial weights are uniform in +-1/sqrt(H). Difference: torch has
    two biases even if they are only added to each other, which computes the same function. A GRU has both here, too,
    because its reset gate multiplies one of them.

    Args:
      cell: the kind.
      hidden_size: H.
      name: name of the layer.
      return_sequences: whether to return all outputs.
      **arguments: further arguments of the Keras layer.
    """
    limit = hidden_size**-0.5
    own: dict[str, Any] = {"gru": {"reset_after": True}, "lstm": {"unit_forget_bias": False}}.get(cell, {})
    layer: keras.layers.RNN = _LAYERS[cell](
        hidden_size,
        kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
        recurrent_initializer=keras.initializers.RandomUniform(-limit, limit),
        bias_initializer=keras.initializers.RandomUniform(-limit, limit),
        return_sequences=return_sequences,
        name=name,
        **(own | arguments),
    )
    layer.supports_jit = False  # XLA makes it no faster, see the docstring of this module
    return layer


def clip_mask(inputs: Mapping[str, Any]) -> Any:
    """Returns `masking.clip_mask`, [B, T] bool, with at least one real frame in every clip.

    The rows that pad the last batch of an evaluation have no frames, and cuDNN rejects an empty sequence.
    """
    return masking.clip_mask({**inputs, "num_frames": ops.maximum(inputs["num_frames"], 1)})


def masked_rnn(
    x: keras.KerasTensor,
    frame_mask: keras.KerasTensor,
    cell: FusedCell,
    hidden_size: int,
    name: str,
    *,
    sequences: bool,
    bidirectional: bool = False,
    unit_forget_bias: bool = False,
) -> tuple[keras.KerasTensor, list[keras.KerasTensor]]:
    """Applies a recurrent layer to the real frames of each clip, from a state of zeros.

    Args:
      x: [B, T, D], any T; padding must be finite, too.
      frame_mask: [B, T] bool: True for the first frames of a clip, at least one, then False (`clip_mask`).
      cell: the kind.
      hidden_size: H, of each direction.
      name: name of the layer.
      sequences: whether to return the outputs at all frames.
      bidirectional: whether a second set of weights reads the clip from its last real frame to its first.
      unit_forget_bias: whether the bias of an LSTM's forget gates starts at one.

    Returns:
      The outputs, and a list of the states after the last frame read. Outputs are [B, T, H] with zeros in the padding,
      or without `sequences` those at the last frame read, [B, H]. If bidirectional, their width is 2 H, the forward
      half first, and both halves are in the order of the frames. States are [B, H] each: h of a GRU, h and c of an
      LSTM; the forward direction's come first.
    """
    if not bidirectional:
        return _one_way(x, frame_mask, cell, hidden_size, name, sequences, unit_forget_bias, backwards=False)
    # Two layers instead of `keras.layers.Bidirectional`, whose variable paths change when a model is loaded.
    directions = [
        _one_way(x, frame_mask, cell, hidden_size, f"{name}_{way}", sequences, unit_forget_bias, way == "backward")
        for way in ("forward", "backward")
    ]
    (forward, forward_states), (backward, backward_states) = directions
    if sequences:
        backward = ops.flip(backward, axis=1)
    return ops.concatenate([forward, backward], axis=-1), forward_states + backward_states


def _one_way(
    x: keras.KerasTensor,
    frame_mask: keras.KerasTensor,
    cell: FusedCell,
    hidden_size: int,
    name: str,
    sequences: bool,
    unit_forget_bias: bool,
    backwards: bool,
) -> tuple[keras.KerasTensor, list[keras.KerasTensor]]:
    """Applies `masked_rnn` in one direction; outputs are in the order read, so backwards they start with padding."""
    layer = recurrent_layer(
        cell,
        hidden_size,
        name,
        sequences,
        return_state=True,
        go_backwards=backwards,
        zero_output_for_mask=sequences,  # as cuDNN does; without sequences Keras would lose the last output
        **({"unit_forget_bias": unit_forget_bias} if cell == "lstm" else {}),
    )
    outputs, *states = layer(x, mask=frame_mask)
    return outputs, states
