"""The residual network over learned linear combinations of frames, the best frame-level model of the original."""

from __future__ import annotations

import dataclasses

import keras

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks, masking
from yt8m_tf.layers.frame_combinations import FrameCombinations
from yt8m_tf.models.registry import model_inputs, register_model
from yt8m_tf.models.resnet_like import ResNetLikeConfig, resnet_like_logits


@dataclasses.dataclass(frozen=True)
class LinearCombinationsConfig:
    """Sizes of the model.

    Attributes:
      head_size: H, number of learned weightings of the frames for each feature.
      dropout: rate on the H combinations, in [0, 1).
      resnet: the network on top, with its own dropout rate (0 or 0.2 in the published successor).
    """

    head_size: int = 3
    dropout: float = 0.0
    resnet: ResNetLikeConfig = dataclasses.field(default_factory=ResNetLikeConfig)

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "head_size")
        checks.rates(self, "dropout")


@register_model("linear_combinations", LinearCombinationsConfig, levels=("frame",))
def build_linear_combinations(config: LinearCombinationsConfig, spec: InputSpec) -> keras.Model:
    """H learned weightings of the first `spec.max_frames` frames of each feature; dropout; `resnet_like`.

    Reference: https://arxiv.org/abs/1809.04403.
    """
    inputs = model_inputs(spec)
    branches = {}
    mask = masking.clip_mask(inputs)
    for name, size in spec.features.items():
        combined = FrameCombinations(config.head_size, spec.max_frames, name=f"{name}_combinations")(inputs[name], mask)
        flat = keras.ops.reshape(combined, (-1, config.head_size * size))  # [B, H, D] to [B, H * D]
        branches[name] = blocks.dropout(flat, config.dropout, f"{name}_combinations_dropout")
    logits = resnet_like_logits(branches, config.resnet, spec.num_outputs)
    return keras.Model(inputs, logits, name="linear_combinations")
