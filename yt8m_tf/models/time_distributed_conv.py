"""Convolutions over time, first over each feature, then across features."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks, frame_convolution, masking
from yt8m_tf.layers.frame_convolution import Activation
from yt8m_tf.models.registry import model_inputs, register_model


@dataclasses.dataclass(frozen=True)
class TimeDistributedConvConfig:
    """Sizes of the network.

    The original's second variant has av_kernel_sizes [3, 3, 3], av_pool_sizes [2, 2, 2], rgb_channels
    [1300, 1600, 2048], audio_channels [256, 400, 512], concat_kernel_sizes [3, 3, 3], concat_pool_sizes [2, 2],
    concat_channels [3000, 5000, 7000].

    Attributes:
      av_kernel_sizes, av_pool_sizes: sizes in each block over one feature, in frames.
      rgb_channels, audio_channels: channels of each block over rgb and audio; any other feature has audio's.
      concat_kernel_sizes, concat_channels: kernel size and channels of each block over all features.
      concat_pool_sizes: pool size of each block over all features, except the last, which pools over the whole clip.
      dropout: rate of dropping a channel of a whole clip, in every block, in [0, 1).
      activation: after batch normalisation. The original defines a leaky ReLU but does not apply it, hence "none".
    """

    av_kernel_sizes: tuple[int, ...] = (3, 3)
    av_pool_sizes: tuple[int, ...] = (3, 3)
    rgb_channels: tuple[int, ...] = (2048, 2048)
    audio_channels: tuple[int, ...] = (512, 512)
    concat_kernel_sizes: tuple[int, ...] = (3, 3)
    concat_pool_sizes: tuple[int, ...] = (3,)
    concat_channels: tuple[int, ...] = (4096, 8192)
    dropout: float = 0.1
    activation: Activation = "none"

    def __post_init__(self) -> None:
        av, concat = ("av_pool_sizes", "rgb_channels", "audio_channels"), ("concat_channels", "concat_pool_sizes")
        checks.at_least(self, 1, "av_kernel_sizes", "concat_kernel_sizes", *av, *concat)
        checks.rates(self, "dropout")
        if not self.concat_kernel_sizes:
            raise ValueError("concat_kernel_sizes must name at least one block, got ()")
        for name in (*av, *concat):
            blocks_of = "av_kernel_sizes" if name in av else "concat_kernel_sizes"
            expected = len(getattr(self, blocks_of)) - (name == "concat_pool_sizes")
            if len(getattr(self, name)) != expected:
                raise ValueError(
                    f"{name} must have {expected} numbers, to match {blocks_of} {getattr(self, blocks_of)},"
                    f" got {getattr(self, name)}"
                )

    @property
    def min_frames(self) -> int:
        """Length of the shortest clip that leaves one position for the last pool: 107 frames by default."""
        return frame_convolution.receptive_field(
            self.av_kernel_sizes + self.concat_kernel_sizes, self.av_pool_sizes + self.concat_pool_sizes
        )


@register_model("time_distributed_conv", TimeDistributedConvConfig, levels=("frame",))
def build_time_distributed_conv(config: TimeDistributedConvConfig, spec: InputSpec) -> keras.Model:
    """Convolutional blocks over each feature; blocks over their concatenation; maximum over the clip; Dense(C).

    A block is Conv1D, spatial dropout, batch normalisation, max-pooling; the last block pools over the whole clip.

    The output for a clip does not depend on the padding of its batch. A clip shorter than `config.min_frames` is
    padded to that length with zeros, which count as frames. Positions whose window, or pool, reaches beyond the end of
    the clip are left out of batch statistics and of the last maximum.

    Memory: by XLA's count on a CPU, a training step takes 4.3 GB at B = 128 and T = 303 in float32, including gradients
    of the weights, for both variants. The first block is the largest: about five tensors [B, T, channels] per feature,
    of 0.3 GB each for rgb.

    Reference: https://arxiv.org/abs/1809.04403. Differences: because of a typing error in the published code, its
    blocks over all features have 3 channels each.
    """
    inputs = model_inputs(spec)
    mask = masking.clip_mask(inputs)
    clip_frames = ops.maximum(ops.sum(ops.cast(mask, "int32"), axis=1), config.min_frames)  # [B]
    outputs, num_frames = [], clip_frames
    for name in spec.features:
        x = frame_convolution.ZeroPadding(config.min_frames, name=f"{name}_padding")(inputs[name], mask)
        channels = config.rgb_channels if name == "rgb" else config.audio_channels
        sizes = zip(config.av_kernel_sizes, config.av_pool_sizes, channels, strict=True)
        x, num_frames = _conv_blocks(x, clip_frames, sizes, config, name)
        outputs.append(x)
    sizes = zip(config.concat_kernel_sizes, (*config.concat_pool_sizes, 0), config.concat_channels, strict=True)
    x, num_frames = _conv_blocks(ops.concatenate(outputs, axis=-1), num_frames, sizes, config, "concat")
    x = masking.masked_max(x, masking.sequence_mask(num_frames, x))  # [B, channels]
    return keras.Model(inputs, blocks.class_logits(x, spec.num_outputs), name="time_distributed_conv")


def _conv_blocks(
    x: keras.KerasTensor,
    num_frames: keras.KerasTensor,
    sizes: Iterable[tuple[int, int, int]],
    config: TimeDistributedConvConfig,
    name: str,
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Applies a block for each (kernel size, pool size, channels) of `sizes`; a pool size of 0 means no pooling."""
    for i, (kernel_size, pool_size, channels) in enumerate(sizes, start=1):
        x, num_frames = frame_convolution.conv_block(
            x, num_frames, channels, kernel_size, config.dropout, config.activation, f"{name}_block{i}"
        )
        if pool_size:
            x, num_frames = frame_convolution.max_pool(x, num_frames, pool_size)
    return x, num_frames
