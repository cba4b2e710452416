"""A model that remembers training videos in a tenth of the size of `kernel_ridge`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers.kernel_ridge import ScoreCalibration
from yt8m_tf.layers.sparse_kernel import MOST_VIDEOS, SparseKernelRidge
from yt8m_tf.models.nearest_neighbors import clip_features, shares_of
from yt8m_tf.models.registry import model_inputs, register_model

# Scores of videos that a class has no duals for are less exact than those of `kernel_ridge`, so the floor is higher.
_FLOOR = 0.03
# Those of 28,800 videos of YouTube-8M, rounded.
_START = {
    "gain": 1.6,
    "log_gain": 2.75,
    "prior_gain": 0.15,
    "prior_log_gain": -0.15,
    "prior_scale": 0.1,
    "offset": -8.3,
}


@dataclasses.dataclass(frozen=True)
class SparseKernelRidgeConfig:
    """Sizes and constants.

    Attributes:
      capacity: the most videos that are remembered, at most 65,536. If there are more training videos, the memory takes
        an even sample of the first videos of every shard. If there are fewer, rows stay empty, which costs time but no
        accuracy.
      shares: length of each feature, so its squared differences count with the square; 1 for features that are not
        named.
      gamma: the kernel is exp(-gamma / 2 * squared distance); higher values make it narrower.
      ridge: is added to the diagonal of the kernel matrix; higher values make scores smoother.
      components: principal components of the features that are compared.
      centres: videos that have duals for every class.
      duals_per_video: duals of the other videos, on average; each of them belongs to one class.
    """

    capacity: int = 40_000
    shares: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"audio": 0.5})
    gamma: float = 0.5
    ridge: float = 0.03
    components: int = 448
    centres: int = 1000
    duals_per_video: int = 36

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "capacity", "components", "centres", "duals_per_video")
        if self.capacity > MOST_VIDEOS:
            raise ValueError(f"capacity must be at most {MOST_VIDEOS:,}, got {self.capacity:,}")
        if min(self.gamma, self.ridge, *self.shares.values()) <= 0:
            raise ValueError("gamma, ridge and shares must be above 0")


@register_model("sparse_kernel_ridge", SparseKernelRidgeConfig, levels=("video", "frame"))
def build_sparse_kernel_ridge(config: SparseKernelRidgeConfig, spec: InputSpec) -> keras.Model:
    """Kernel ridge regression with few duals per video: `kernel_ridge` in a tenth of its size. See `SparseKernelRidge`.

    At frame level, features are the means over frames. The memory is filled from the training shards (with folds, from
    those of the run) when a run starts (`memory.fill`): for 35,000 videos this takes minutes and 8 GB. From then on, it
    is in the run's checkpoints. A few hundred steps train six numbers that map scores to logits (`ScoreCalibration`),
    on scores that each video has about without itself. Mixup makes no sense for this model, because the memory has no
    mixtures of videos. A mean with a network gains much: see docs/RESULTS.md.

    Source: C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006, sections 2.2 and 8.3.3
    (subset of data, here another subset for each class). The model is not in the published solutions.
    """
    inputs = model_inputs(spec)
    memory = SparseKernelRidge(
        spec.num_outputs,
        config.capacity,
        shares_of(config.shares, spec),
        config.gamma,
        config.ridge,
        config.components,
        config.centres,
        config.duals_per_video,
        name="memory",
    )
    scores = memory(clip_features(inputs, spec))
    return keras.Model(inputs, ScoreCalibration(_FLOOR, _START, name="logits")(scores), name="sparse_kernel_ridge")
