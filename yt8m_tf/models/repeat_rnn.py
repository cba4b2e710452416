"""A recurrent network that reads one vector repeatedly."""

from __future__ import annotations

import dataclasses
from typing import Literal

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks
from yt8m_tf.layers.recurrent import recurrent_layer
from yt8m_tf.models.registry import model_inputs, register_model


@dataclasses.dataclass(frozen=True)
class RepeatRNNConfig:
    """Sizes of the network.

    Attributes:
      cell: "gru" or "lstm".
      hidden_size: H, the width of every layer.
      num_layers: number of stacked layers.
      repeats: number of times that the vector is read.
    """

    cell: Literal["gru", "lstm"] = "gru"
    hidden_size: int = 1024
    num_layers: int = 2
    repeats: int = 10

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "hidden_size", "num_layers", "repeats")


@register_model("repeat_rnn", RepeatRNNConfig, levels=("video",))
def build_repeat_rnn(config: RepeatRNNConfig, spec: InputSpec) -> keras.Model:
    """Concatenated features, repeated as a sequence; stacked RNNs; the last outputs h of all layers; Dense(C).

    Memory: the fused GPU kernels need the repeated sequence as a tensor, 24 MB for [B, 10, 1152] at B = 512. The
    outputs of a layer of 1024 units take 21 MB. Training also keeps the gates of all steps, 4 to 6 times as much.

    Reference: https://arxiv.org/abs/1809.04403.
    """
    inputs = model_inputs(spec)
    x = blocks.concat_features(inputs, spec.features)  # [B, D]
    sequence = keras.layers.RepeatVector(config.repeats, name="repeat")(x)  # [B, repeats, D]
    last = []
    for i in range(1, config.num_layers + 1):
        layer = recurrent_layer(config.cell, config.hidden_size, f"{config.cell}{i}", return_sequences=True)
        sequence = layer(sequence)  # [B, repeats, H]
        last.append(sequence[:, -1])
    hidden = ops.concatenate(last, axis=-1)  # [B, num_layers * H]
    return keras.Model(inputs, blocks.class_logits(hidden, spec.num_outputs), name="repeat_rnn")
