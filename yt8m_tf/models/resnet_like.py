"""The residual network of the original solution, over one vector per feature."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.layers import blocks, masking
from yt8m_tf.layers.frame_statistics import FrameStatistics, Statistic
from yt8m_tf.layers.gating import context_gating
from yt8m_tf.models.registry import model_inputs, register_model


@dataclasses.dataclass(frozen=True)
class ResNetLikeConfig:
    """Sizes of the network, for the video-level model and for models that apply it to pooled frames.

    To train on a single modality, leave the other out of `data.features`; its branch is then the whole input.

    Attributes:
      inner_size: s. The branches of rgb and audio have a total width of 2s, the last hidden layer a width of s.
      av_blocks: number of residual blocks in each branch.
      concat_blocks: number of residual blocks after the concatenation.
      dropout: rate in every block, in [0, 1).
      context_gating: whether to apply context gating to the logits. The initial output bias then gives the prior
        before the gate, but not after it.
      video_part, audio_part: proportions in which rgb and audio share the width 2s; any other feature has a branch of
        width s.
    """

    inner_size: int = 2048
    av_blocks: int = 1
    concat_blocks: int = 1
    dropout: float = 0.5
    context_gating: bool = False
    video_part: int = 1
    audio_part: int = 1

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "inner_size", "video_part", "audio_part")
        checks.at_least(self, 0, "av_blocks", "concat_blocks")
        checks.rates(self, "dropout")
        parts = self.video_part + self.audio_part
        if 2 * self.inner_size * self.video_part % parts:
            raise ValueError(
                f"branch widths must be whole numbers: 2 * inner_size = {2 * self.inner_size} cannot be shared"
                f" {self.video_part}:{self.audio_part} between video_part and audio_part; make it a multiple of {parts}"
            )

    def branch_width(self, feature: str) -> int:
        """Returns the width of the branch of `feature`."""
        parts = {"rgb": self.video_part, "audio": self.audio_part}
        if feature not in parts:
            return self.inner_size
        return 2 * self.inner_size * parts[feature] // sum(parts.values())


@dataclasses.dataclass(frozen=True)
class HalfResNetConfig(ResNetLikeConfig):
    """`ResNetLikeConfig` with half the width by default, as on top of pooled frames."""

    inner_size: int = 1024


@dataclasses.dataclass(frozen=True)
class ResNetLikeModelConfig(ResNetLikeConfig):
    """The network over statistics of each feature, which are concatenated as the input of its branch.

    Attributes:
      statistics: names from mean, std, min, max, median, mode, in the order of the input; they are taken over real
        frames. Video-level records have only the mean.
    """

    statistics: tuple[Statistic, ...] = ("mean",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.statistics or len(set(self.statistics)) < len(self.statistics):
            raise ValueError(f"statistics must have at least one name, and each name once, got {list(self.statistics)}")


def resnet_trunk(
    branches: Mapping[str, keras.KerasTensor], config: ResNetLikeConfig, block: blocks.FCBlock = blocks.fc_block
) -> keras.KerasTensor:
    """Applies the network without its last Dense.

    Args:
      branches: feature name to [..., D]; for frame-level models, the result of pooling that feature.
      config: sizes.
      block: the block used in place of each of the original's FCBlocks.

    Returns:
      [..., s].
    """
    s = config.inner_size
    outputs = []
    for name in sorted(branches):  # audio before rgb, as in the original
        width = config.branch_width(name)
        x = block(branches[name], width, config.dropout, f"{name}_fc")
        for i in range(1, config.av_blocks + 1):
            x = blocks.res_block(x, width, config.dropout, f"{name}_res{i}", block)
        outputs.append(x)
    x = keras.ops.concatenate(outputs, axis=-1)  # [..., 2s]
    for i in range(1, config.concat_blocks + 1):
        x = blocks.res_block(x, s, config.dropout, f"concat_res{i}", block)
    return block(x, s, config.dropout, "concat_fc")


def resnet_like_logits(
    branches: Mapping[str, keras.KerasTensor],
    config: ResNetLikeConfig,
    num_outputs: int,
    block: blocks.FCBlock = blocks.fc_block,
) -> keras.KerasTensor:
    """Applies the whole network and returns logits [..., num_outputs]; arguments as in `resnet_trunk`."""
    logits = blocks.class_logits(resnet_trunk(branches, config, block), num_outputs)
    return context_gating(logits, "context_gate", dtype="float32") if config.context_gating else logits


@register_model("resnet_like", ResNetLikeModelConfig, levels=("video", "frame"))
def build_resnet_like(config: ResNetLikeModelConfig, spec: InputSpec) -> keras.Model:
    """One branch per feature of `spec`, concatenated, then residual blocks; at frame level, over `statistics`.

    Reference: https://arxiv.org/abs/1809.04403.

    Raises:
      InputError: statistics other than the mean are requested for video-level records.
    """
    inputs = model_inputs(spec)
    branches = {name: inputs[name] for name in spec.features}
    if spec.level == "frame":
        mask = masking.clip_mask(inputs)
        for name, frames in branches.items():
            branches[name] = FrameStatistics(config.statistics, name=f"{name}_statistics")(frames, mask)  # [B, S * D]
    elif config.statistics != ("mean",):
        raise InputError(
            f"configuration key 'model.statistics': {list(config.statistics)} needs frame-level records"
            " (data.level=frame), because video-level ones have only means; read those, or leave it at [mean]"
        )
    return keras.Model(inputs, resnet_like_logits(branches, config, spec.num_outputs), name="resnet_like")
