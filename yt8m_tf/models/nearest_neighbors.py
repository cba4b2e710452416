"""A model that remembers training videos; those nearest to a new video vote on its classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.layers import masking
from yt8m_tf.layers.neighbors import NeighborVotes, SmoothedLogOdds
from yt8m_tf.models.registry import model_inputs, register_model
from yt8m_tf.schema import FEATURE_SIZES


@dataclasses.dataclass(frozen=True)
class NearestNeighborsConfig:
    """Sizes and initial values.

    Attributes:
      capacity: the most videos that are remembered. If there are more training videos, the memory takes an even sample
        of the first videos of every shard. If there are fewer, rows stay empty, which costs time but no accuracy.
      num_neighbors: number of nearest videos that vote.
      shares: initial weight of each feature in the distance; 1 for features that are not named.
      temperature: initial temperature; higher values reduce votes faster with distance.
      sharpness: predictions multiply the trained temperature by this. Above 1, the nearest videos count more, which is
        worse for the model alone, but better in an ensemble.
    """

    capacity: int = 40_000
    num_neighbors: int = 100
    shares: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"audio": 0.4})
    temperature: float = 15.0
    sharpness: float = 1.0

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "capacity", "num_neighbors")
        if min(self.temperature, self.sharpness, *self.shares.values()) <= 0:
            raise ValueError("temperature, sharpness and shares must be above 0")


@register_model("nearest_neighbors", NearestNeighborsConfig, levels=("video", "frame"))
def build_nearest_neighbors(config: NearestNeighborsConfig, spec: InputSpec) -> keras.Model:
    """Nearest neighbours: the classes of remembered videos, weighted by a trained distance. See `NeighborVotes`.

    At frame level, features are the means over frames. The memory is filled from the training shards (with folds, from
    those of the run) when a run starts (`memory.fill`); from then on, it is in the run's checkpoints. One pass trains
    the scales, the temperature and the smoothing. Mixup makes no sense for this model, because the memory has no
    mixtures of videos.

    The model is not in the published solutions. Its errors differ from those of networks, so ensembles gain more from
    it than its own score suggests (docs/RESULTS.md).
    """
    inputs = model_inputs(spec)
    shares = shares_of(config.shares, spec)
    sizes = (spec.num_outputs, config.capacity, config.num_neighbors)
    votes = NeighborVotes(*sizes, shares, config.temperature, config.sharpness, name="memory")(
        clip_features(inputs, spec)
    )
    return keras.Model(inputs, SmoothedLogOdds(name="logits")(votes), name="nearest_neighbors")


def shares_of(shares: Mapping[str, float], spec: InputSpec) -> list[float]:
    """Returns the share of each feature of the data: 1 if it is not named.

    Raises:
      InputError: neither the data nor YouTube-8M has a feature that is named.
    """
    if unknown := sorted({*shares} - {*spec.features} - {*FEATURE_SIZES}):
        known = ", ".join(spec.features)
        raise InputError(f"configuration key 'model.shares': the data has no feature '{unknown[0]}' (known: {known})")
    return [shares.get(name, 1.0) for name in spec.features]


def clip_features(inputs: Mapping[str, keras.KerasTensor], spec: InputSpec) -> list[keras.KerasTensor]:
    """Returns the features of each video, [B, D] each; at frame level, the means over real frames."""
    if spec.level == "frame":
        inputs = masking.masked_means(inputs, spec.features)
    return [inputs[name] for name in spec.features]
