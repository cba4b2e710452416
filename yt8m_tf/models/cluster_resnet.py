"""The residual network over frames that are replaced with the nearest of 10,000 centroids."""

from __future__ import annotations

import dataclasses

import keras

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import masking
from yt8m_tf.layers.codebook import Codebook
from yt8m_tf.models.registry import model_inputs, register_model
from yt8m_tf.models.resnet_like import ResNetLikeConfig, resnet_like_logits


@dataclasses.dataclass(frozen=True)
class ClusterResNetConfig:
    """Sizes of the model.

    Attributes:
      num_clusters: K, the number of centroids.
      centroids: the file of centroids from `yt8m-kmeans`, relative to `--data_dir`. It is read when a run starts; from
        then on, they are in its checkpoints.
      resnet: the network on top.
    """

    num_clusters: int = 10_000
    centroids: str = "centroids.npz"
    resnet: ResNetLikeConfig = dataclasses.field(default_factory=ResNetLikeConfig)

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "num_clusters")


@register_model("cluster_resnet", ClusterResNetConfig, levels=("frame",))
def build_cluster_resnet(config: ClusterResNetConfig, spec: InputSpec) -> keras.Model:
    """Each frame replaced with the nearest centroid; the mean over frames; `resnet_like`.

    Centroids are those of whole frames, with all features concatenated in the order of `spec.features`; the means are
    then split into features again. Centroids are random until `centroids.load_centroids` assigns them.

    Reference: https://arxiv.org/abs/1809.04403.
    """
    inputs = model_inputs(spec)
    codebook = Codebook(config.num_clusters, name="codebook")
    mean = codebook([inputs[name] for name in spec.features], masking.clip_mask(inputs))  # [B, D]
    branches, start = {}, 0
    for name, size in spec.features.items():
        branches[name] = mean[:, start : start + size]
        start += size
    return keras.Model(inputs, resnet_like_logits(branches, config.resnet, spec.num_outputs), name="cluster_resnet")
