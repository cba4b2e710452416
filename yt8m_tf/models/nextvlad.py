"""NeXtVLAD: VLAD over groups of features, with attention over the groups."""

from __future__ import annotations

import dataclasses

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.layers import blocks, masking
from yt8m_tf.layers.gating import bottleneck_gating
from yt8m_tf.layers.vlad import VLAD, l2_normalise
from yt8m_tf.models.heads import HeadConfig, head_logits
from yt8m_tf.models.registry import model_inputs, register_model


@dataclasses.dataclass(frozen=True)
class RegularisedLogisticConfig(HeadConfig):
    """`HeadConfig` with a larger weight decay by default."""

    l2: float = 1e-5


@dataclasses.dataclass(frozen=True)
class NeXtVLADConfig:
    """Sizes of the model. Audio has half as many clusters and groups, rounded down.

    Attributes:
      cluster_size: K.
      groups: G, number of groups of equal size into which the features of a frame are split.
      expansion: factor by which frames are widened before they are split.
      hidden_size: width of the layer after pooling.
      gating_reduction: factor by which the bottleneck of the hidden layer's gate is narrower than that layer.
      dropout: rate on the pooled vector, in [0, 1).
      head: the last layer.
    """

    cluster_size: int = 128
    groups: int = 8
    expansion: int = 2
    hidden_size: int = 2048
    gating_reduction: int = 8
    dropout: float = 0.5
    head: RegularisedLogisticConfig = dataclasses.field(default_factory=RegularisedLogisticConfig)

    def __post_init__(self) -> None:
        checks.at_least(self, 4, "cluster_size")
        checks.at_least(self, 2, "groups")
        checks.at_least(self, 1, "expansion", "gating_reduction")
        checks.rates(self, "dropout")
        if self.hidden_size < 2 * self.gating_reduction:
            raise ValueError(
                f"hidden_size must be at least twice gating_reduction = {self.gating_reduction}, got {self.hidden_size}"
            )


@register_model("nextvlad", NeXtVLADConfig, levels=("frame",))
def build_nextvlad(config: NeXtVLADConfig, spec: InputSpec) -> keras.Model:
    """NetVLAD of short vectors: each frame is widened and split into groups, each of which is pooled like a frame.

    Pooling of each feature; concatenation; dropout; Dense and BN; a bottleneck gate; head.

    Reference: https://arxiv.org/abs/1811.05014 and https://github.com/linrongc/youtube-8m. Differences: epsilon,
    momentum and initial weights are the original solution's, descriptors are in the order of clusters, and the L2
    penalty is `l2 * sum(w ** 2)`, twice that of slim's regulariser.
    """
    inputs = model_inputs(spec)
    mask = masking.clip_mask(inputs)
    pooled = []
    for name in spec.features:
        divisor = 2 if name == "audio" else 1
        clusters, groups = config.cluster_size // divisor, config.groups // divisor
        width = config.expansion * spec.features[name]
        if width % groups:
            raise InputError(
                f"configuration key 'model.groups': {width} values of feature '{name}' (expansion * size) cannot be cut"
                f" into {groups} equal groups; choose a divisor"
            )
        pooled.append(_pool(inputs[name], mask, width, clusters, groups, name))
    x = blocks.dropout(ops.concatenate(pooled, axis=-1), config.dropout, "pooled_dropout")
    x = blocks.dense(x, config.hidden_size, "hidden_dense", use_bias=False)
    x = blocks.batch_norm(x, "hidden_bn")
    x = bottleneck_gating(x, config.hidden_size // config.gating_reduction, "hidden_gate")
    return keras.Model(inputs, head_logits(x, config.head, spec.num_outputs), name="nextvlad")


def _pool(
    frames: keras.KerasTensor, mask: keras.KerasTensor, width: int, clusters: int, groups: int, name: str
) -> keras.KerasTensor:
    """Applies NeXtVLAD to one feature, [B, T, D] to [B, K * width / G].

    The G groups of a frame become G frames along time, whose assignments are weighted by the attention of the group. So
    one NetVLAD pools all of them, with one set of centres, and no tensor has both axes K and `width`.
    """
    size = width // groups
    expanded = blocks.dense(frames, width, f"{name}_expansion_dense")  # [B, T, width]
    attention = ops.sigmoid(blocks.dense(expanded, groups, f"{name}_attention_dense"))
    attention = masking.zero_padding(attention, mask)  # [B, T, G]
    scores = blocks.dense(expanded, groups * clusters, f"{name}_clusters_dense", use_bias=False)
    scores = blocks.frame_batch_norm(scores, mask, f"{name}_clusters_bn")  # [B, T, G * K]
    scores = keras.layers.Reshape((-1, clusters), name=f"{name}_scores_by_group")(scores)  # [B, T * G, K]
    attention = keras.layers.Reshape((-1, 1), name=f"{name}_attention_by_group")(attention)
    by_group = keras.layers.Reshape((-1, size), name=f"{name}_frames_by_group")(expanded)  # [B, T * G, size]
    assignment = ops.softmax(scores, axis=-1) * attention
    descriptors = l2_normalise(VLAD(name=f"{name}_vlad")(by_group, assignment))  # [B, K, size]
    flat = ops.reshape(descriptors, (-1, clusters * size))
    return blocks.batch_norm(flat, f"{name}_descriptors_bn")
