"""The residual network with Gaussian noise in each of its blocks."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import keras

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks
from yt8m_tf.layers.noise import GaussianNoise, Magnitude
from yt8m_tf.models.registry import model_inputs, register_model
from yt8m_tf.models.resnet_like import ResNetLikeConfig, resnet_like_logits

Position = Literal["before_bn", "after_bn", "before_dropout", "after_dropout"]


@dataclasses.dataclass(frozen=True)
class ResNetLikeNoiseConfig(ResNetLikeConfig):
    """Sizes of the network, and options of the noise in each FCBlock, x + N(0, 1) * noise_scale * f(x).

    Attributes:
      dropout: as for `resnet_like`, but 0 by default, because the published class ignores its rate unless told to use
        it.
      batch_norm: whether FCBlocks have batch normalisation; without it, "before_bn" and "after_bn" are the same.
      noise_scale: factor of the noise, at least 0.
      noise_magnitude: f, computed over the whole tensor, including the batch; see `noise.magnitude`.
      noise_position: position in the FCBlock (Dense, BN, leaky ReLU, dropout); "before_dropout" is after the leaky
        ReLU.
      noise_when: "training", or "always": in inference, too, where the noise is a fixed draw (see
        `noise.GaussianNoise`). The scores of a video then depend on the other videos in its batch.
    """

    dropout: float = 0.0
    batch_norm: bool = True
    noise_scale: float = 1.0
    noise_magnitude: Magnitude = "std"
    noise_position: Position = "before_dropout"
    noise_when: Literal["training", "always"] = "training"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least(self, 0, "noise_scale")


def noisy_fc_block(
    x: keras.KerasTensor, units: int, dropout_rate: float, name: str, config: ResNetLikeNoiseConfig
) -> keras.KerasTensor:
    """Applies `blocks.fc_block` with noise at one position and optional batch norm; [..., D] to [..., units]."""

    def noise_at(position: Position, x: keras.KerasTensor) -> keras.KerasTensor:
        if position != config.noise_position:
            return x
        always = config.noise_when == "always"
        return GaussianNoise(config.noise_scale, config.noise_magnitude, always, name=f"{name}_noise")(x)

    # Batch normalisation cancels a bias (see `fc_block`), unless noise that depends on the bias is added in between.
    use_bias = not config.batch_norm or config.noise_position == "before_bn"
    x = noise_at("before_bn", blocks.dense(x, units, f"{name}_dense", use_bias=use_bias))
    x = noise_at("after_bn", blocks.batch_norm(x, f"{name}_bn") if config.batch_norm else x)
    x = noise_at("before_dropout", blocks.leaky_relu(x))
    return noise_at("after_dropout", blocks.dropout(x, dropout_rate, f"{name}_dropout"))


@register_model("resnet_like_noise", ResNetLikeNoiseConfig, levels=("video",))
def build_resnet_like_noise(config: ResNetLikeNoiseConfig, spec: InputSpec) -> keras.Model:
    """`resnet_like` with a noisy block in place of every FCBlock.

    Reference: https://arxiv.org/abs/1809.04403.
    """
    inputs = model_inputs(spec)
    block = functools.partial(noisy_fc_block, config=config)
    logits = resnet_like_logits(inputs, config, spec.num_outputs, block)
    return keras.Model(inputs, logits, name="resnet_like_noise")
