"""Logistic regression and mixtures of logistic experts, as in the starter code."""

from __future__ import annotations

import dataclasses

import keras

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks, masking
from yt8m_tf.layers.moe import MixtureOfExperts
from yt8m_tf.models.registry import model_inputs, register_model


@dataclasses.dataclass(frozen=True)
class LogisticConfig:
    """Options of logistic regression.

    Attributes:
      l2: weight of the kernel's sum of squares in the loss.
    """

    l2: float = 1e-8

    def __post_init__(self) -> None:
        checks.at_least(self, 0, "l2")


@dataclasses.dataclass(frozen=True)
class MoEConfig:
    """Options of the mixture of experts.

    Attributes:
      num_mixtures: number of experts of each class, without the dummy expert of probability 0.
      l2: weight of the kernels' sums of squares in the loss.
    """

    num_mixtures: int = 2
    l2: float = 1e-8

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "num_mixtures")
        checks.at_least(self, 0, "l2")


def clip_vector(inputs: dict[str, keras.KerasTensor], spec: InputSpec) -> keras.KerasTensor:
    """Returns one vector per clip, [B, sum of D]: the concatenated features, or their means over real frames."""
    if spec.level == "video":
        return blocks.concat_features(inputs, spec.features)
    return blocks.concat_features(masking.masked_means(inputs, spec.features), spec.features)


@register_model("logistic", LogisticConfig, levels=("video", "frame"))
def build_logistic(config: LogisticConfig, spec: InputSpec) -> keras.Model:
    """Logistic regression on all features; at frame level, on their means over frames.

    Reference: `LogisticModel` and `FrameLevelLogisticModel` of https://github.com/google/youtube-8m. Differences: the
    initial weights, and the L2 penalty, `l2 * sum(w ** 2)`, which is twice that of slim's regulariser.
    """
    inputs = model_inputs(spec)
    logits = blocks.class_logits(clip_vector(inputs, spec), spec.num_outputs, l2=config.l2)
    return keras.Model(inputs, logits, name="logistic")


@register_model("moe", MoEConfig, levels=("video", "frame"))
def build_moe(config: MoEConfig, spec: InputSpec) -> keras.Model:
    """A mixture of logistic experts per class; at frame level, on the means over frames. See `MixtureOfExperts`.

    With an output bias at the class prior p, and kernels at zero, the model predicts p * M / (M + 1), because the dummy
    has the same share of the mixture as each of the M experts.
    """
    inputs = model_inputs(spec)
    head = MixtureOfExperts(spec.num_outputs, config.num_mixtures, config.l2, name="logits")
    logits = head(clip_vector(inputs, spec))
    return keras.Model(inputs, logits, name="moe")
