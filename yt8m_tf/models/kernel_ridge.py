"""A model that remembers training videos; kernel ridge regression on them scores new videos."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers.kernel_ridge import KernelRidge, ScoreCalibration
from yt8m_tf.models.nearest_neighbors import clip_features, shares_of
from yt8m_tf.models.registry import model_inputs, register_model


@dataclasses.dataclass(frozen=True)
class KernelRidgeConfig:
    """Sizes and constants.

    Attributes:
      capacity: the most videos that are remembered. If there are more training videos, the memory takes an even sample
        of the first videos of every shard. If there are fewer, rows stay empty, which costs time but no accuracy.
      shares: length of each feature, so its squared differences count with the square; 1 for features that are not
        named.
      gamma: the kernel is exp(-gamma / 2 * squared distance); higher values make it narrower.
      ridge: is added to the diagonal of the kernel matrix; higher values make scores smoother.
    """

    capacity: int = 40_000
    shares: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"audio": 0.5})
    gamma: float = 0.5
    ridge: float = 0.01

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "capacity")
        if min(self.gamma, self.ridge, *self.shares.values()) <= 0:
            raise ValueError("gamma, ridge and shares must be above 0")


@register_model("kernel_ridge", KernelRidgeConfig, levels=("video", "frame"))
def build_kernel_ridge(config: KernelRidgeConfig, spec: InputSpec) -> keras.Model:
    """Kernel ridge regression on remembered videos, the posterior mean of a Gaussian process. See `KernelRidge`.

    At frame level, features are the means over frames. The memory is filled from the training shards (with folds, from
    those of the run) when a run starts (`memory.fill`): for 35,000 videos this takes minutes and 8 GB. From then on, it
    is in the run's checkpoints. A few hundred steps train six numbers that map scores to logits (`ScoreCalibration`),
    on scores that each video has without itself. Mixup makes no sense for this model, because the memory has no
    mixtures of videos.

    Source: C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006, sections 2.2 and 5.4.2
    (leave-one-out in closed form). The model is not in the published solutions. It suits data with few videos: its time
    and memory grow with their number, in training and in use.
    """
    inputs = model_inputs(spec)
    shares = shares_of(config.shares, spec)
    sizes = (spec.num_outputs, config.capacity)
    memory = KernelRidge(*sizes, shares, config.gamma, config.ridge, name="memory")
    scores = memory(clip_features(inputs, spec))
    return keras.Model(inputs, ScoreCalibration(name="logits")(scores), name="kernel_ridge")
