"""The residual network on every frame, its scores sorted over time."""

from __future__ import annotations

import dataclasses
from functools import partial

import keras

from yt8m_tf.config import checks
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.layers import blocks, masking
from yt8m_tf.layers.frame_sorting import RankDenseNormalization, RankScores, SortedFrames
from yt8m_tf.layers.gating import context_gating
from yt8m_tf.models.registry import model_inputs, register_model
from yt8m_tf.models.resnet_like import ResNetLikeConfig, resnet_trunk


@dataclasses.dataclass(frozen=True)
class TimeDistributedDenseSortConfig:
    """Sizes of the model.

    Attributes:
      hidden_size: units of the FCBlock along the ranks of the sorted scores.
      dropout: rate in that block, in [0, 1).
      resnet: the network on every frame, which has a dropout rate of its own.
    """

    hidden_size: int = 1000
    dropout: float = 0.0
    resnet: ResNetLikeConfig = dataclasses.field(default_factory=ResNetLikeConfig)

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "hidden_size")
        checks.rates(self, "dropout")


@register_model("time_distributed_dense_sort", TimeDistributedDenseSortConfig, levels=("frame",))
def build_time_distributed_dense_sort(config: TimeDistributedDenseSortConfig, spec: InputSpec) -> keras.Model:
    """`resnet_like` on each frame, [B, T, C]; every class's scores sorted over time in descending order, zeros after
    them up to `spec.max_frames`; FCBlock(1000) and Dense(1) along the ranks, the same for all classes, [B, C].

    The last bias is one number for all classes and starts at their mean prior.

    Memory, in float32 at B = 128, T = 303, C = 3862 and the default sizes: the scores are 0.6 GB, of which a training
    step holds three copies at a time (the scores, the sorted scores and the gradient of one of these); the hidden layer
    along ranks, [B, C, 1000], would be 2 GB and is never made (`RankScores`). Most is the residual network's on
    B * T = 39,000 frames: 5.7 GB of activations, and 0.6 GB for each gradient in flight. 9.4 GB in all by XLA's count
    on a CPU, 11.3 GB with dropout on frames; `train.accumulation` divides it.

    Reference: https://arxiv.org/abs/1809.04403. Where we differ: the original sorts padding along with the frames and
    normalises with the statistics of the batch in inference too; here padding is masked, in sorting and in the
    statistics of the network on frames, and inference uses running averages.
    """
    inputs = model_inputs(spec)
    mask = masking.clip_mask(inputs)[:, : spec.max_frames]
    frames = {name: inputs[name][:, : spec.max_frames] for name in spec.features}
    trunk = resnet_trunk(frames, config.resnet, partial(blocks.fc_block, frame_mask=mask))  # [B, T, s]
    scores = blocks.dense(trunk, spec.num_outputs, "frame_logits")  # [B, T, C]
    if config.resnet.context_gating:
        scores = context_gating(scores, "frame_context_gate")
    sorted_scores, means, covariances = SortedFrames(name="sorted_frames")(scores, mask)
    normalization = RankDenseNormalization(
        config.hidden_size, spec.max_frames, momentum=0.9, epsilon=1e-5, name="rank_fc"
    )
    kernel, bias = normalization(means, covariances)  # [T, hidden_size], [hidden_size]
    logits = RankScores(config.dropout, name="logits")(sorted_scores, kernel, bias)
    return keras.Model(inputs, logits, name="time_distributed_dense_sort")
