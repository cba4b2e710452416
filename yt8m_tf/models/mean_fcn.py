"""A fully connected network on the mean over frames."""

from __future__ import annotations

import dataclasses

import keras

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks
from yt8m_tf.models.linear import clip_vector
from yt8m_tf.models.registry import model_inputs, register_model


@dataclasses.dataclass(frozen=True)
class MeanFCNConfig:
    """Options of a fully connected network on the mean over frames.

    Attributes:
      hidden_sizes: widths of the hidden layers.
      dropout: rate after each hidden layer, in [0, 1).
    """

    hidden_sizes: tuple[int, ...] = (2048, 2048)
    dropout: float = 0.2

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "hidden_sizes")
        checks.rates(self, "dropout")


@register_model("mean_fcn", MeanFCNConfig, levels=("frame",))
def build_mean_fcn(config: MeanFCNConfig, spec: InputSpec) -> keras.Model:
    """An FCN on the means of all features over real frames, concatenated.

    Reference: https://arxiv.org/abs/1809.04403.
    """
    inputs = model_inputs(spec)
    hidden = blocks.fcn(clip_vector(inputs, spec), config.hidden_sizes, config.dropout)
    return keras.Model(inputs, blocks.class_logits(hidden, spec.num_outputs), name="mean_fcn")
