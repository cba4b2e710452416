"""Learnable pooling with context gating: NetVLAD, NetRVLAD, NetFV and soft deep bags of frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks, masking
from yt8m_tf.layers.gating import normalised_context_gating
from yt8m_tf.layers.vlad import VLAD, FisherVectors, l2_normalise, soft_assignment, unit_descriptors
from yt8m_tf.models.heads import HeadConfig, head_logits
from yt8m_tf.models.registry import model_inputs, register_model

# Maps (frames [B, T, D], mask [B, T], cluster_size, name) to [B, N].
Pooling = Callable[[keras.KerasTensor, keras.KerasTensor, int, str], keras.KerasTensor]


@dataclasses.dataclass(frozen=True)
class GatedMoEConfig(HeadConfig):
    """`HeadConfig` whose defaults are a mixture of two experts and gated probabilities."""

    name: Literal["logistic", "moe"] = "moe"
    l2: float = 1e-6
    context_gating: bool = True


@dataclasses.dataclass(frozen=True)
class NetVLADConfig:
    """Sizes of NetVLAD and NetRVLAD.

    Attributes:
      cluster_size: K, number of clusters of each feature; audio, if pooled separately, has half of them, rounded down.
      hidden_size: width of the layer after pooling.
      late_fusion: whether to pool each feature separately and concatenate the results; if not, frames are concatenated.
      hidden_relu: whether the hidden layer has batch normalisation and ReLU6; if not, it is linear, with a bias.
      context_gating: whether to apply context gating to the hidden layer.
      head: the last layer, with its own `context_gating`.
    """

    cluster_size: int = 256
    hidden_size: int = 1024
    late_fusion: bool = True
    hidden_relu: bool = False
    context_gating: bool = True
    head: GatedMoEConfig = dataclasses.field(default_factory=GatedMoEConfig)

    def __post_init__(self) -> None:
        checks.at_least(self, 4, "cluster_size")
        checks.at_least(self, 1, "hidden_size")

    def clusters_of(self, feature: str) -> int:
        """Returns K of a feature that is pooled separately."""
        return self.cluster_size // 2 if feature == "audio" else self.cluster_size


@dataclasses.dataclass(frozen=True)
class NetFVConfig(NetVLADConfig):
    """`NetVLADConfig` whose defaults are the sizes of NetFV in a winning ensemble under 1 GB."""

    cluster_size: int = 96
    hidden_size: int = 1540


@dataclasses.dataclass(frozen=True)
class SoftDBoFConfig(NetVLADConfig):
    """Sizes of the soft deep bag of frames; other keys are as in `NetVLADConfig`.

    Attributes:
      cluster_size: K, number of clusters of each feature; audio, if pooled separately, has an eighth of them.
      context_gating: whether to apply context gating to the hidden layer; off in the original, which gates the bag.
      gated: whether to gate the bag, the sums of assignments, by their maxima; audio pooled separately has no gate.
    """

    cluster_size: int = 4096
    context_gating: bool = False
    gated: bool = True

    def __post_init__(self) -> None:
        checks.at_least(self, 16, "cluster_size")
        checks.at_least(self, 1, "hidden_size")

    def clusters_of(self, feature: str) -> int:
        """Returns K of a feature that is pooled separately."""
        return self.cluster_size // 8 if feature == "audio" else self.cluster_size


@register_model("netvlad", NetVLADConfig, levels=("frame",))
def build_netvlad(config: NetVLADConfig, spec: InputSpec) -> keras.Model:
    """Residuals to cluster centres, summed over frames by soft assignment; a gated hidden layer; gated experts.

    Input normalisation; for each feature `VLAD` over `soft_assignment`, intra-normalised, of length 1; concatenation of
    all features; hidden layer, context gating, head.

    Reference: https://arxiv.org/abs/1706.06905, with sizes and details of its code,
    https://github.com/antoine77340/Youtube-8M-WILLOW: `NetVLADModelLF`. Differences: all real frames are pooled once,
    instead of 300 drawn with replacement (`data.frames.sampling` draws them); descriptors are in the order of clusters,
    not of features; batch normalisation has the original solution's epsilon and momentum; for the head see `HeadConfig`
    and `MixtureOfExperts`.
    """
    return _pooling_model("netvlad", config, spec, _vlad)


@register_model("netrvlad", NetVLADConfig, levels=("frame",))
def build_netrvlad(config: NetVLADConfig, spec: InputSpec) -> keras.Model:
    """`netvlad` without centres: sums frames, not residuals, by assignment. References and differences are the same."""
    return _pooling_model("netrvlad", config, spec, _rvlad)


@register_model("netfv", NetFVConfig, levels=("frame",))
def build_netfv(config: NetFVConfig, spec: InputSpec) -> keras.Model:
    """`netvlad` with `FisherVectors` for pooling: first and second order concatenated, each of length 1.

    References and differences are those of `netvlad` and `FisherVectors`. As in the code, only the first order is
    intra-normalised.
    """
    return _pooling_model("netfv", config, spec, _fisher)


@register_model("soft_dbof", SoftDBoFConfig, levels=("frame",))
def build_soft_dbof(config: SoftDBoFConfig, spec: InputSpec) -> keras.Model:
    """Soft deep bag of frames: soft assignments summed over frames, gated by their maxima; hidden layer; gated experts.

    The gate is sigmoid(BN(A B m)), where m is the vector of maxima over frames divided by its length, and A B is a
    product of two matrices whose inner size is the width of the feature.

    Reference: that of `netvlad`, with the same differences; in its code the model is `GatedDbofModelLF`, or
    `SoftDbofModelLF` with `gated` off.

    Memory: assignments [B, T, K] take 393 MB in float32 at B = 80, T = 300 and K = 4096. A training step needs about
    four of these at its peak (measured with XLA on a CPU): 1.6 GB.
    """

    def pool(frames: keras.KerasTensor, frame_mask: keras.KerasTensor, clusters: int, name: str) -> keras.KerasTensor:
        assignment = soft_assignment(frames, frame_mask, clusters, name)
        bag = ops.sum(assignment, axis=1)  # [B, K]
        if config.gated and name != "audio":
            maxima = l2_normalise(masking.masked_max(assignment, frame_mask))
            gates = blocks.dense(maxima, frames.shape[-1], f"{name}_gate_inner_dense", use_bias=False)
            gates = blocks.dense(gates, clusters, f"{name}_gate_outer_dense", use_bias=False)
            bag = bag * ops.sigmoid(blocks.batch_norm(gates, f"{name}_gate_bn"))
        return l2_normalise(bag)

    # Here normalised frames go only to another batch normalisation, which would subtract an offset again.
    return _pooling_model("soft_dbof", config, spec, pool, center_inputs=False)


def _vlad(frames: keras.KerasTensor, mask: keras.KerasTensor, clusters: int, name: str) -> keras.KerasTensor:
    assignment = soft_assignment(frames, mask, clusters, name)
    return unit_descriptors(VLAD(name=f"{name}_vlad")(frames, assignment))


def _rvlad(frames: keras.KerasTensor, mask: keras.KerasTensor, clusters: int, name: str) -> keras.KerasTensor:
    assignment = soft_assignment(frames, mask, clusters, name)
    return unit_descriptors(VLAD(use_centres=False, name=f"{name}_vlad")(frames, assignment))


def _fisher(frames: keras.KerasTensor, mask: keras.KerasTensor, clusters: int, name: str) -> keras.KerasTensor:
    assignment = soft_assignment(frames, mask, clusters, name)
    first, second = FisherVectors(name=f"{name}_fisher")(frames, assignment)
    return ops.concatenate([unit_descriptors(first), unit_descriptors(second, intra=False)], axis=-1)


def _pooling_model(
    name: str, config: NetVLADConfig, spec: InputSpec, pool: Pooling, center_inputs: bool = True
) -> keras.Model:
    """Builds a model of this module; the models differ only in `pool`."""
    inputs = model_inputs(spec)
    mask = masking.clip_mask(inputs)
    sequences = {feature: inputs[feature] for feature in spec.features}
    if not config.late_fusion:
        sequences = {"frames": blocks.concat_features(inputs, spec.features)}
    pooled = []
    for feature, frames in sequences.items():
        normalised = blocks.frame_batch_norm(frames, mask, f"{feature}_input_bn", center=center_inputs)
        pooled.append(pool(normalised, mask, config.clusters_of(feature), feature))  # [B, N]
    hidden = _hidden_layer(ops.concatenate(pooled, axis=-1), config)
    return keras.Model(inputs, head_logits(hidden, config.head, spec.num_outputs), name=name)


def _hidden_layer(x: keras.KerasTensor, config: NetVLADConfig) -> keras.KerasTensor:
    layer = keras.layers.Dense(
        config.hidden_size,
        use_bias=not config.hidden_relu,
        # As in the original. Pooled vectors have length 1, so the usual kernel would start the outputs near 1e-3.
        kernel_initializer=keras.initializers.RandomNormal(stddev=config.cluster_size**-0.5),
        bias_initializer=keras.initializers.RandomNormal(stddev=0.01),
        name="hidden_dense",
    )
    x = layer(x)
    if config.hidden_relu:
        x = ops.relu6(blocks.batch_norm(x, "hidden_bn"))
    return normalised_context_gating(x, "hidden_gate") if config.context_gating else x
