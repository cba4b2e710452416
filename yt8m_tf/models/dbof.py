"""The deep bag of frames of the starter code."""

from __future__ import annotations

import dataclasses
from typing import Literal

import keras
from keras import ops

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks, masking
from yt8m_tf.models.heads import StarterMoEConfig, head_logits
from yt8m_tf.models.registry import model_inputs, register_model


@dataclasses.dataclass(frozen=True)
class DBoFConfig:
    """Sizes of the model.

    Attributes:
      cluster_size: K, width of the layer applied to every frame.
      hidden_size: width of the layer after pooling.
      pooling: "max" or "average", over real frames.
      head: the last layer.
    """

    cluster_size: int = 8192
    hidden_size: int = 1024
    pooling: Literal["max", "average"] = "max"
    head: StarterMoEConfig = dataclasses.field(default_factory=StarterMoEConfig)

    def __post_init__(self) -> None:
        checks.at_least(self, 2, "cluster_size", "hidden_size")


@register_model("dbof", DBoFConfig, levels=("frame",))
def build_dbof(config: DBoFConfig, spec: InputSpec) -> keras.Model:
    """A wide layer on the concatenated features of every frame, the maximum (or mean) over frames, a hidden layer.

    Input normalisation; Dense(K), BN, ReLU6; pooling; Dense, BN, ReLU6; head.

    Reference: `DbofModel` of https://github.com/google/youtube-8m. Differences: the model pools all frames that it is
    given; that code draws 30 of them with replacement, even in inference (here `data.frames.sampling` draws them).
    Epsilon, momentum and initial weights are the original solution's.

    Memory: [B, T, K] in float32 takes 1.3 GB at B = 128, 300 frames and K = 8192, and 126 MB with 30 frames. A training
    step needs about four of these at its peak (measured with XLA on a CPU).
    """
    inputs = model_inputs(spec)
    mask = masking.clip_mask(inputs)
    frames = blocks.concat_features(inputs, spec.features)  # [B, T, D]
    # No offset: the next batch normalisation would subtract it again.
    x = blocks.frame_batch_norm(frames, mask, "input_bn", center=False)
    x = blocks.dense(x, config.cluster_size, "clusters_dense", use_bias=False)
    x = ops.relu6(blocks.frame_batch_norm(x, mask, "clusters_bn"))  # [B, T, K]
    pool = masking.masked_max if config.pooling == "max" else masking.masked_mean
    x = blocks.dense(pool(x, mask), config.hidden_size, "hidden_dense", use_bias=False)  # [B, K] to [B, hidden]
    x = ops.relu6(blocks.batch_norm(x, "hidden_bn"))
    return keras.Model(inputs, head_logits(x, config.head, spec.num_outputs), name="dbof")
