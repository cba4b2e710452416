"""The maximum of each unit over a clip, followed by the residual network."""

from __future__ import annotations

import dataclasses

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks, masking
from yt8m_tf.models.registry import model_inputs, register_model
from yt8m_tf.models.resnet_like import HalfResNetConfig, resnet_like_logits


@dataclasses.dataclass(frozen=True)
class TimeDistributedDenseMaxConfig:
    """Sizes of the model.

    Attributes:
      rgb_size, audio_size: units for the frames of rgb and audio; other features use `audio_size`.
      resnet: the network on top, with its own dropout rate.
    """

    rgb_size: int = 1024
    audio_size: int = 128
    resnet: HalfResNetConfig = dataclasses.field(default_factory=HalfResNetConfig)

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "rgb_size", "audio_size")


@register_model("time_distributed_dense_max", TimeDistributedDenseMaxConfig, levels=("frame",))
def build_time_distributed_dense_max(config: TimeDistributedDenseMaxConfig, spec: InputSpec) -> keras.Model:
    """For each feature: Dense, batch normalisation, ReLU, maximum over real frames; then `resnet_like`.

    Batch normalisation uses the statistics of real frames only.

    Memory: a training step needs about four tensors [B, T, units] for each feature: 2.9 GB in float32 at B = 512,
    T = 303 and the default sizes.

    Reference: https://arxiv.org/abs/1809.04403.
    """
    inputs = model_inputs(spec)
    mask = masking.clip_mask(inputs)
    branches = {}
    for name in spec.features:
        units = config.rgb_size if name == "rgb" else config.audio_size
        x = blocks.dense(inputs[name], units, f"{name}_frames_dense", use_bias=False)  # [B, T, units]
        x = ops.relu(blocks.frame_batch_norm(x, mask, f"{name}_frames_bn"))
        branches[name] = masking.masked_max(x, mask)
    logits = resnet_like_logits(branches, config.resnet, spec.num_outputs)
    return keras.Model(inputs, logits, name="time_distributed_dense_max")
