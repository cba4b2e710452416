"""Recurrent networks over the concatenated features of each frame."""

from __future__ import annotations

import dataclasses

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks, recurrent
from yt8m_tf.models.registry import model_inputs, register_model


@dataclasses.dataclass(frozen=True)
class EarlyConcatRNNConfig:
    """Sizes of the network. The defaults are those of the original solution's first LSTM.

    Attributes:
      cell: "lstm" or "gru".
      num_layers: number of recurrent layers.
      hidden_size: width of each recurrent layer.
      dense: whether each layer reads the input of the previous layer, concatenated with its output.
      hidden_sizes: widths of the hidden layers of the FCN on top.
      dropout: rate in each hidden layer of the FCN, in [0, 1).
    """

    cell: recurrent.FusedCell = "lstm"
    num_layers: int = 2
    hidden_size: int = 1024
    dense: bool = False
    hidden_sizes: tuple[int, ...] = (2048,)
    dropout: float = 0.1

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "num_layers", "hidden_size", "hidden_sizes")
        checks.rates(self, "dropout")


@register_model("early_concat_rnn", EarlyConcatRNNConfig, levels=("frame",))
def build_early_concat_rnn(config: EarlyConcatRNNConfig, spec: InputSpec) -> keras.Model:
    """Concatenated features; recurrent layers; the last states of all layers (h and c of an LSTM); an FCN.

    The last states are those after the last real frame. On a GPU, the layers run on cuDNN (`layers.recurrent`). A
    training step of the default sizes with B = 200 and T = 303 then keeps about 4.5 GB of activations in float32:
    0.3 GB of input; for each layer 0.25 GB of outputs and 1.5 GB of gates and cells; 1 GB of gradients of the gates.
    With 16-bit precision it needs half of that.

    Reference: https://arxiv.org/abs/1809.04403.
    """
    inputs = model_inputs(spec)
    mask = recurrent.clip_mask(inputs)
    x = blocks.concat_features(inputs, spec.features)  # [B, T, D]
    states = []
    for i in range(1, config.num_layers + 1):
        is_last = i == config.num_layers
        outputs, last = recurrent.masked_rnn(x, mask, config.cell, config.hidden_size, f"rnn{i}", sequences=not is_last)
        states += last
        if not is_last:
            x = ops.concatenate([x, outputs], axis=-1) if config.dense else outputs
    hidden = blocks.fcn(ops.concatenate(states, axis=-1), config.hidden_sizes, config.dropout)
    return keras.Model(inputs, blocks.class_logits(hidden, spec.num_outputs), name="early_concat_rnn")
