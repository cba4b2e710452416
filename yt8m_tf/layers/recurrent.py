"""Recurrent layers with the original's initial weights, over sequences of one length and over padded clips.

`keras.layers.LSTM` and `GRU` run on cuDNN when a GPU is in sight and their arguments allow it, as all of these do: tanh
and sigmoid, biases, no dropout inside, no unrolling, the GRU's reset after the matrix product, masks that are True for
the first frames and False for the rest. cuDNN reads lengths from the mask: one direction starts at the first frame, the
other at the last real one. XLA cannot compile these kernels. Without a GPU they are the loops of `layers.recurrence`,
which keep the state where the mask is False. XLA can compile these and makes no model faster by it
(docs/BENCHMARKS.md), so that models with recurrent layers are not compiled (`training.distribution.compiles_with_xla`).

For the backward pass an LSTM of size H keeps some 6 H numbers of each frame (gates, cells, outputs), a GRU 5 H. Ask for
sequences only where something reads them.
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
    """The loop of an LSTM or a GRU, in place of Keras' own where the arguments are those that cuDNN would allow."""

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        """As in Keras: the last output, all outputs, the last states.

        In the padding, unless it is made zero, an output is the state as it was before; of padding before the first
        real frame this is the initial state, where Keras has zeros.
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


# Keras' classes come before `_Loop` in the order of inheritance: they take cuDNN or, by `super()`, the loop.
@keras.saving.register_keras_serializable(package="yt8m_tf")
class LSTM(keras.layers.LSTM, _Loop):
    """`keras.layers.LSTM` with a faster loop where it does not run on cuDNN; same arguments, weights and outputs."""


@keras.saving.register_keras_serializable(package="yt8m_tf")
class GRU(keras.layers.GRU, _Loop):
    """`keras.layers.GRU` with a faster loop where it does not run on cuDNN; same arguments, weights and outputs."""


_LAYERS = {"rnn": keras.layers.SimpleRNN, "gru": GRU, "lstm": LSTM}


def forbid_fused_kernels(model: keras.Model) -> None:
    """From now on traces the recurrent layers of a model as loops that run on any device, as an export must.

    Traced where there is a GPU they would hold cuDNN's kernels, which a server without one cannot run.
    """
    for layer in model._flatten_layers():  # what Keras itself walks them with
        if isinstance(layer, keras.layers.LSTM | keras.layers.GRU):
            layer.use_cudnn = False


def recurrent_layer(
    cell: Cell, hidden_size: int, name: str, return_sequences: bool = False, **arguments: Any
) -> keras.layers.RNN:
    """One recurrent layer in one direction, [B, T, D] to its last output [B, H], or to all of them, [B, T, H].

    On a GPU, "gru" and "lstm" run as cuDNN's fused kernels, which these arguments allow. "rnn", which is
    h = tanh(W x + U h + b), has no fused kernel in Keras; it is Keras' loop everywhere.

    Reference: `torch.nn.RNN`, `GRU` and `LSTM`: all weights start uniform in +-1/sqrt(H). Where we differ: torch has
    two biases wherever they are added to each other, which is the same function; a GRU has both here too, since its
    reset gate stands between them.

    Args:
      cell: the kind.
      hidden_size: H.
      name: of the layer.
      return_sequences: whether to return all outputs.
      **arguments: more of the Keras layer's.
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
    layer.supports_jit = False  # no faster, see the head of this file
    return layer


def clip_mask(inputs: Mapping[str, Any]) -> Any:
    """`masking.clip_mask`, [B, T] bool, in which every clip has one real frame at least.

    The rows that fill up the last batch of an evaluation have none, and cuDNN refuses a sequence without a step.
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
    """One recurrent layer over the real frames of each clip, from a state of zeros.

    Args:
      x: [B, T, D], any T; finite in the padding too.
      frame_mask: [B, T] bool: True for the first frames of a clip, one at least, then False (`clip_mask`).
      cell: the kind.
      hidden_size: H, of each direction.
      name: of the layer.
      sequences: whether to return the outputs at all frames.
      bidirectional: whether a second set of weights reads the clip from its last real frame to its first.
      unit_forget_bias: start the bias of an LSTM's forget gates at one.

    Returns:
      The outputs, [B, T, H] with zeros in the padding, or without `sequences` those at the last frame read, [B, H];
      where bidirectional 2 H, the forward half first, each at the frame that it belongs to. And the states after the
      last frame read, each [B, H]: h of a GRU, h and c of an LSTM; of both directions, forward first.
    """
    if not bidirectional:
        return _one_way(x, frame_mask, cell, hidden_size, name, sequences, unit_forget_bias, backwards=False)
    # Two layers rather than `keras.layers.Bidirectional`, whose variables change their paths when a model is loaded.
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
    """`masked_rnn` in one direction; a sequence read backwards comes out as it was read, from the padding on."""
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
