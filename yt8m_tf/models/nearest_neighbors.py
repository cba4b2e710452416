"""A model that remembers training videos, and lets those nearest to a new one vote."""

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
    """Sizes, and where training starts.

    Attributes:
      capacity: the most videos that are remembered. Of more training videos the first of each shard are taken. A
        smaller number of them leaves rows of the memory empty, which costs time and no accuracy.
      num_neighbors: how many vote.
      shares: of the features in the distance, 1 for those that are not named.
      temperature: how fast votes lose weight with distance.
      sharpness: what the trained temperature is multiplied by in predictions. Above 1 the nearest count for more, which
        is worse alone and better in an ensemble.
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

    At frame level of the means over frames. The memory is filled from the training shards when a run starts
    (`memory.fill`), of the run's folds where there are any; from then on it is in the run's checkpoints. One pass
    trains the scales, the temperature and the smoothing. Mixup makes no sense here, where nothing is remembered
    between two videos.

    It is not in the published solutions. Its errors are others than those of networks, so that ensembles gain more from
    it than its own score promises (docs/RESULTS.md).
    """
    if unknown := sorted({*config.shares} - {*spec.features} - {*FEATURE_SIZES}):
        known = ", ".join(spec.features)
        raise InputError(f"configuration key 'model.shares': the data has no feature '{unknown[0]}' (known: {known})")
    inputs = model_inputs(spec)
    features = [inputs[name] for name in spec.features]
    if spec.level == "frame":
        mask = masking.clip_mask(inputs)
        features = [masking.masked_mean(values, mask) for values in features]
    shares = [config.shares.get(name, 1.0) for name in spec.features]
    sizes = (spec.num_outputs, config.capacity, config.num_neighbors)
    votes = NeighborVotes(*sizes, shares, config.temperature, config.sharpness, name="memory")(features)
    return keras.Model(inputs, SmoothedLogOdds(name="logits")(votes), name="nearest_neighbors")
