"""A recurrent network that reads one vector again and again."""

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
      hidden_size: H, of every layer.
      num_layers: layers, one on top of the other.
      repeats: how many times the vector is read.
    """

    cell: Literal["gru", "lstm"] = "gru"
    hidden_size: int = 1024
    num_layers: int = 2
    repeats: int = 10

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "hidden_size", "num_layers", "repeats")


@register_model("repeat_rnn", RepeatRNNConfig, levels=("video",))
def build_repeat_rnn(config: RepeatRNNConfig, spec: InputSpec) -> keras.Model:
    """The features side by side, repeated as a sequence; stacked RNNs; the last outputs h of all layers; Dense(C).

    The repeated sequence is a tensor of its own, because the fused GPU kernels take no other: [B, 10, 1152] at B 512
    takes 24 MB, the outputs of a layer of 1024 21 MB. Training keeps the gates of all steps, 4 to 6 times that.

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
